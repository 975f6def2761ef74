"""The realm: avatar ids of checkers become principals."""

from __future__ import annotations

from twisted.cred.portal import IRealm
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface
from zope.interface.verify import verifyObject

from durable_streams.server.identity.principal import ANONYMOUS, IPrincipal, Principal
from durable_streams.server.identity.realm import PrincipalRealm


class IOther(Interface):
    """Another avatar."""


class PrincipalRealmTests(SynchronousTestCase):
    def avatar(self, avatar_id: object) -> Principal:
        interface, principal, logout = PrincipalRealm().requestAvatar(avatar_id, None, IOther, IPrincipal)
        logout()
        self.assertIs(IPrincipal, interface)
        return principal

    def test_it_is_a_realm_of_principals(self) -> None:
        verifyObject(IRealm, PrincipalRealm())
        verifyObject(IPrincipal, ANONYMOUS)

    def test_a_principal_stays_the_same_object(self) -> None:
        principal = Principal("alice", "jwt")
        self.assertIs(principal, self.avatar(principal))

    def test_text_and_bytes_become_the_subject_of_a_custom_principal(self) -> None:
        for avatar_id in ("zoë", "zoë".encode()):
            principal = self.avatar(avatar_id)
            self.assertEqual(("zoë", "custom", None), (principal.subject, principal.kind, principal.grants))

    def test_the_anonymous_avatar_id_of_twisted_cred_is_anonymous(self) -> None:
        self.assertIs(ANONYMOUS, self.avatar(()))

    def test_anything_else_is_an_error_of_the_checker_without_the_value(self) -> None:
        for avatar_id in (None, 12, "", b"", ["s3cret"], object()):
            error = self.assertRaises(TypeError, self.avatar, avatar_id)
            self.assertNotIn("s3cret", str(error))

    def test_another_interface_is_not_implemented(self) -> None:
        self.assertRaises(NotImplementedError, PrincipalRealm().requestAvatar, "alice", None, IOther)
