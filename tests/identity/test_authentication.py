"""Authentication: which credential decides, what is refused, and what is still valid."""

from __future__ import annotations

from base64 import b64encode

from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IAnonymous
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal

from durable_streams.server.errors import NotAuthenticated, StreamsError, Unavailable
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.credentials import (
    BearerToken,
    IClientCertificate,
    IProxyIdentity,
    ISignedUrl,
    Presented,
)
from durable_streams.server.identity.methods import MAX_AUTHORIZATION
from durable_streams.server.identity.principal import ANONYMOUS, Principal
from durable_streams.server.identity.realm import PrincipalRealm
from tests.support.authentication_case import ALICE, CERTIFICATE, AuthenticationCase, Checker


class ChoiceTests(AuthenticationCase):
    """The first method whose credential is present decides; a credential that is not valid is never passed over."""

    def test_a_bearer_token_becomes_the_principal_of_its_checker(self) -> None:
        found = self.principal(self.make(), authorization=b"Bearer abc", address="192.0.2.1")
        self.assertIs(ALICE, found)
        self.assertEqual([BearerToken(b"abc", "192.0.2.1")], self.bearer.asked)

    def test_the_scheme_is_case_insensitive_and_blanks_may_follow(self) -> None:
        self.assertIs(ALICE, self.principal(self.make(), authorization=b"bEARER  abc "))

    def test_without_credentials_the_request_is_anonymous_only_if_that_is_allowed(self) -> None:
        self.assertIs(ANONYMOUS, self.principal(self.make(allow_anonymous=True)))
        error = self.refusal(self.make())
        self.assertEqual('Bearer realm="durable-streams"', error.challenge)
        self.assertIn("Authorization: Bearer TOKEN", str(error))

    def test_invalid_credentials_are_refused_though_anonymous_is_allowed(self) -> None:
        self.bearer.outcome = NotAuthenticated("The token is not known.")
        authentication = self.make("token", "certificate", allow_anonymous=True)
        for value in (b"Bearer abc", b"Bearer", b"", b"Basic YTpi", b"Bearer a b", b"Digest x=y", b"abc"):
            self.refusal(authentication, authorization=value, certificate=CERTIFICATE)

    def test_the_order_of_the_methods_decides_between_two_credentials(self) -> None:
        self.other_checkers = [Checker(IClientCertificate, "carol"), Checker(IProxyIdentity, "dave")]
        both = {"authorization": b"Bearer abc", "certificate": CERTIFICATE, "proxy_identity": "dave"}
        for methods, subject in (
            (("jwt", "certificate", "header"), "alice"),
            (("certificate", "token", "header"), "carol"),
            (("header", "certificate", "token"), "dave"),
            (("header", "certificate"), "dave"),
        ):
            self.assertEqual(subject, self.principal(self.make(*methods), **both).subject)

    def test_a_credential_of_a_later_method_decides_if_those_before_it_are_absent(self) -> None:
        self.other_checkers = [Checker(IProxyIdentity, "dave"), Checker(ISignedUrl, "erin")]
        authentication = self.make("token", "header", "signed-url")
        self.assertEqual("dave", self.principal(authentication, proxy_identity="dave").subject)
        self.assertEqual("erin", self.principal(authentication, query=b"offset=-1&ds_sig=x").subject)

    def test_a_credential_that_no_method_accepts_is_refused_rather_than_anonymous(self) -> None:
        authentication = self.make("certificate", allow_anonymous=True)
        self.assertIn("does not accept Authorization", str(self.refusal(authentication, authorization=b"Bearer abc")))
        for query in (b"ds_sig=x", b"a&%64s_key=1", b"live=sse&ds_expires=2"):
            self.assertIn("does not accept signed URLs", str(self.refusal(authentication, query=query)))
        self.assertIs(ANONYMOUS, self.principal(authentication, query=b"offset=ds_sig%3D&live=sse"))

    def test_without_methods_authorization_has_no_meaning(self) -> None:
        portal = Portal(PrincipalRealm())
        authentication = Authentication(portal, (), True, self.clock)
        self.assertIs(ANONYMOUS, self.principal(authentication, authorization=b"Bearer abc"))

    def test_user_names_and_passwords_go_to_checkers_of_twisted_cred(self) -> None:
        self.other_checkers = [InMemoryUsernamePasswordDatabaseDontUse(frank=b"secret:1")]
        authentication = self.make("basic")
        valid = self.principal(authentication, authorization=b"Basic " + b64encode(b"frank:secret:1"))
        self.assertEqual(("frank", "custom"), (valid.subject, valid.kind))
        error = self.refusal(authentication, authorization=b"Basic " + b64encode(b"frank:wrong"))
        self.assertNotIn("wrong", str(error))
        self.assertEqual('Basic realm="durable-streams", charset="UTF-8"', error.challenge)
        for value in (b"Basic %", b"Basic YQ", b"Basic " + b64encode(b"frank"), b"Bearer abc"):
            self.refusal(authentication, authorization=value)
        self.assertEqual('Basic realm="durable-streams", charset="UTF-8"', self.refusal(authentication).challenge)

    def test_an_anonymous_avatar_of_twisted_cred_is_anonymous(self) -> None:
        portal = Portal(PrincipalRealm(), [AllowAnonymousAccess()])
        self.assertIn(IAnonymous, portal.checkers)
        self.bearer.outcome = ()
        self.assertIs(ANONYMOUS, self.principal(self.make(), authorization=b"Bearer abc"))

    def test_an_unknown_method_is_an_error(self) -> None:
        error = self.assertRaises(ValueError, self.make, "password")
        self.assertIn("'password'", str(error))


class RefusalTests(AuthenticationCase):
    """Errors of checkers become errors for clients."""

    def test_a_refusal_has_the_challenge_of_rfc_6750(self) -> None:
        self.bearer.outcome = NotAuthenticated('The token "x" is too old.')
        error = self.refusal(self.make(), authorization=b"Bearer abc")
        self.assertEqual(
            'Bearer realm="durable-streams", error="invalid_token", error_description="The token \'x\' is too old."',
            error.challenge,
        )

    def test_a_login_error_of_twisted_cred_is_a_refusal_without_its_text(self) -> None:
        self.bearer.outcome = UnauthorizedLogin("secret")
        self.assertNotIn("secret", str(self.refusal(self.make(), authorization=b"Bearer abc")))

    def test_credentials_without_a_checker_are_refused(self) -> None:
        self.refusal(self.make("certificate"), certificate=CERTIFICATE)

    def test_a_failure_of_a_checker_is_logged_and_the_request_is_refused(self) -> None:
        self.bearer.outcome = ZeroDivisionError()
        authentication = self.make(allow_anonymous=True)
        presented = Presented(authorization=b"Bearer abc")
        self.assertRaises(Unavailable, authentication.principal_of, presented)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.bearer.outcome = ALICE
        self.assertIs(ALICE, authentication.principal_of(presented))

    def test_an_avatar_id_of_another_type_is_a_failure_of_the_checker(self) -> None:
        authentication = self.make()
        for avatar in (None, 7, "", b"", ALICE.claims, b"\xff"):
            self.bearer.outcome = avatar
            self.assertRaises(Unavailable, authentication.principal_of, Presented(authorization=b"Bearer abc"))
        self.assertEqual(6, len(self.flushLoggedErrors()))

    def test_an_overloaded_checker_is_asked_again(self) -> None:
        self.bearer.outcome = Unavailable("Too many.")
        authentication = self.make()
        presented = Presented(authorization=b"Bearer abc")
        self.assertRaises(Unavailable, authentication.principal_of, presented)
        self.bearer.outcome = ALICE
        self.assertIs(ALICE, authentication.principal_of(presented))
        self.assertEqual(
            {"unavailable": 1, "accepted": 1}, {key[1]: n for key, n in authentication.verifications.items()}
        )

    def test_a_long_authorization_is_refused_before_a_checker_is_asked(self) -> None:
        authentication = self.make()
        value = b"Bearer " + b"a" * (MAX_AUTHORIZATION - 6)
        self.assertIn("longer than 16384 bytes", str(self.refusal(authentication, authorization=value)))
        self.assertEqual([], self.bearer.asked)
        self.assertIs(ALICE, self.principal(authentication, authorization=value[:-1]))

    def test_an_expired_principal_is_refused(self) -> None:
        self.bearer.outcome = Principal("alice", "jwt", expires_at=self.times.wall())
        self.assertIn("expired", str(self.refusal(self.make(), authorization=b"Bearer abc")))

    def test_no_value_with_credentials_shows_them(self) -> None:
        secret = "s3cret"
        for value in (
            Presented(authorization=secret.encode(), query=secret.encode()),
            BearerToken(secret.encode()),
        ):
            self.assertNotIn(secret, repr(value))


class CurrentTests(AuthenticationCase):
    """Principals that were made before are looked at again."""

    def test_a_principal_is_current_until_it_expires(self) -> None:
        authentication = self.make()
        principal = Principal("alice", "custom", expires_at=100.0)
        self.assertTrue(authentication.is_current(principal, 99.9))
        self.assertFalse(authentication.is_current(principal, 100.0))

    def test_a_principal_is_not_current_after_its_credential_was_revoked(self) -> None:
        authentication = self.make()
        self.assertTrue(authentication.is_current(ALICE, 0.0))
        self.bearer.revoked.add("1")
        self.assertFalse(authentication.is_current(ALICE, 0.0))
        # The checker is not asked about principals of other kinds.
        self.assertTrue(authentication.is_current(Principal("alice", "header", credential="1"), 0.0))


class AttemptsTests(AuthenticationCase):
    """Failed attempts are counted for each address."""

    def setUp(self) -> None:
        super().setUp()
        self.failures: list[str] = []
        self.blocked: set[str] = set()

    def begin_attempt(self, address: str) -> float:
        if address in self.blocked:
            raise TooMany("Too many failed attempts.")
        self.failures.append(address)
        return 7.0

    def succeeded(self, address: str, began: float) -> None:
        self.assertEqual(7.0, began)
        self.failures.remove(address)

    def test_only_failed_verifications_are_counted(self) -> None:
        authentication = self.make()
        authentication.limit_attempts(self)
        self.principal(authentication, authorization=b"Bearer abc", address="192.0.2.1")
        self.bearer.outcome = NotAuthenticated("The token is not known.")
        for _ in range(3):
            self.refusal(authentication, authorization=b"Bearer def", address="192.0.2.1")
        self.bearer.outcome = Unavailable("Too many.")
        presented = Presented(authorization=b"Bearer ghi", address="192.0.2.1")
        self.assertRaises(Unavailable, authentication.principal_of, presented)
        self.assertEqual(["192.0.2.1"], self.failures)

    def test_a_blocked_address_may_use_what_is_in_the_cache(self) -> None:
        authentication = self.make()
        authentication.limit_attempts(self)
        self.principal(authentication, authorization=b"Bearer abc", address="192.0.2.1")
        self.blocked.add("192.0.2.1")
        self.assertIs(ALICE, self.principal(authentication, authorization=b"Bearer abc", address="192.0.2.1"))
        presented = Presented(authorization=b"Bearer def", address="192.0.2.1")
        self.assertRaises(TooMany, authentication.principal_of, presented)
        self.assertIs(ALICE, self.principal(authentication, authorization=b"Bearer def", address="192.0.2.2"))


class TooMany(StreamsError):
    """The error of a limit."""
