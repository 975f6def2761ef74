"""The composite checker: the form of a bearer token tells its checker."""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.bearer import BearerChecker
from durable_streams.server.identity.credentials import BearerToken, IBearerToken
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.revocation import IRevocations


@implementer(ICredentialsChecker, IRevocations)
class Checker:
    credentialInterfaces = (IBearerToken,)

    def __init__(self, kind: str) -> None:
        self.kinds = (kind,)
        self.current = True

    def requestAvatarId(self, credentials: BearerToken) -> Any:
        return Principal(credentials.token.decode(), self.kinds[0])

    def is_current(self, principal: Principal) -> bool:
        return self.current


class BearerCheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.static, self.jwt, self.other = Checker("token"), Checker("jwt"), Checker("custom")

    def kind(self, checker: BearerChecker, token: bytes) -> str:
        principal: Principal = checker.requestAvatarId(BearerToken(token))
        return principal.kind

    def test_it_is_a_checker_that_can_revoke(self) -> None:
        checker = BearerChecker(self.static, self.jwt)
        verifyObject(ICredentialsChecker, checker)
        verifyObject(IRevocations, checker)
        self.assertEqual({"token", "jwt"}, set(checker.kinds))

    def test_the_form_of_a_token_decides(self) -> None:
        checker = BearerChecker(self.static, self.jwt, self.other)
        for token, kind in (
            (b"dst_1_x", "token"),
            (b"dst_1.x.y", "token"),
            (b"a.b.c", "jwt"),
            (b"a.b", "custom"),
            (b"a.b.c.d.e", "custom"),
            (b"DST_1_x", "custom"),
        ):
            self.assertEqual(kind, self.kind(checker, token), token)

    def test_a_token_of_another_form_is_refused_with_the_forms_that_are_accepted(self) -> None:
        for checker, texts in (
            (BearerChecker(self.static), ["begins with dst_"]),
            (BearerChecker(jwt=self.jwt), ["a JWT"]),
            (BearerChecker(self.static, self.jwt), ["begins with dst_", "a JWT"]),
            (BearerChecker(), ["of a form that this server accepts"]),
        ):
            error = self.assertRaises(NotAuthenticated, checker.requestAvatarId, BearerToken(b"s3cret"))
            for text in texts:
                self.assertIn(text, str(error))
            self.assertNotIn("s3cret", str(error))

    def test_the_checker_of_a_principal_decides_whether_it_is_current(self) -> None:
        checker = BearerChecker(self.static, self.jwt)
        self.jwt.current = False
        current = [checker.is_current(Principal("alice", kind)) for kind in ("token", "jwt", "custom")]
        self.assertEqual([True, False, True], current)
