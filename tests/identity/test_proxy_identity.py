"""Tests of identities that a trusted proxy names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.checkers import ICredentialsChecker
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.credentials import ProxyIdentity
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.proxy_identity import MAX_BYTES, ProxyIdentityChecker


def login(identity: bytes) -> Principal:
    """Log in with the value of a header, which the web decodes as Latin-1."""
    principal = ProxyIdentityChecker().requestAvatarId(ProxyIdentity(identity.decode("latin-1")))
    assert isinstance(principal, Principal)
    return principal


class ProxyIdentityTests(SynchronousTestCase):
    def test_it_is_a_checker_of_credentials(self) -> None:
        self.assertTrue(verifyObject(ICredentialsChecker, ProxyIdentityChecker()))

    def test_an_identity_is_the_subject_of_a_principal(self) -> None:
        for identity, subject in ((b"alice", "alice"), (b" alice@example.com ", "alice@example.com")):
            principal = login(identity)
            self.assertEqual((principal.subject, principal.kind), (subject, "header"))
            self.assertEqual((principal.groups, dict(principal.claims), principal.grants), (frozenset(), {}, None))

    def test_an_identity_is_utf_8(self) -> None:
        self.assertEqual(login("jürgen".encode()).subject, "jürgen")
        self.assertRaises(NotAuthenticated, login, "jürgen".encode("latin-1"))

    def test_an_identity_that_is_empty_too_long_or_not_printable_is_refused(self) -> None:
        for identity in (b"", b"  ", b"a\x00b", b"a\x1fb", "a\u200bb".encode(), b"a" * (MAX_BYTES + 1)):
            with self.assertRaises(NotAuthenticated) as caught:
                login(identity)
            self.assertIn("proxy.identity.header_name", str(caught.exception))

    @given(st.binary(max_size=40))
    def test_any_value_is_a_subject_or_refused(self, value: bytes) -> None:
        try:
            subject = login(value).subject
        except NotAuthenticated:
            return
        self.assertEqual(subject.encode(), value.strip())
