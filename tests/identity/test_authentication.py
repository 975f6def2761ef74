"""Authentication: which credential decides, what is cached for how long, and what is refused."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IAnonymous
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from durable_streams.server.clocks import SteadyClock
from durable_streams.server.errors import NotAuthenticated, StreamsError, Unavailable
from durable_streams.server.identity.authentication import Authentication, CacheLimits
from durable_streams.server.identity.credentials import (
    BearerToken,
    ClientCertificate,
    IBearerToken,
    IClientCertificate,
    IProxyIdentity,
    ISignedUrl,
    Presented,
)
from durable_streams.server.identity.methods import MAX_AUTHORIZATION
from durable_streams.server.identity.principal import ANONYMOUS, Principal
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.revocation import IRevocations

ALICE = Principal("alice", "jwt", credential="1")
CERTIFICATE = ClientCertificate("CN=carol", common_name="carol")


@implementer(ICredentialsChecker, IRevocations)
class Checker:
    """Returns what it is told to, and records the credentials that it was asked about."""

    kinds = ("jwt",)

    def __init__(self, interface: Any, outcome: Any) -> None:
        self.credentialInterfaces = (interface,)
        self.outcome = outcome
        self.asked: list[Any] = []
        self.revoked: set[str] = set()

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials)
        outcome = self.outcome(credentials) if callable(self.outcome) else self.outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def is_current(self, principal: Principal) -> bool:
        return principal.credential not in self.revoked


class Times(Clock):
    """A steady clock with a wall clock that can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 1_000_000.0

    def wall(self) -> float:
        return self.seconds() + self.step


class AuthenticationCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.times = Times()
        self.clock = SteadyClock(self.times, self.times.wall)
        self.bearer = Checker(IBearerToken, ALICE)
        self.other_checkers: list[Any] = []

    def make(self, *methods: str, allow_anonymous: bool = False, **others: Any) -> Authentication:
        portal = Portal(PrincipalRealm(), [self.bearer, *self.other_checkers])
        made = Authentication(portal, methods or ("token",), allow_anonymous, self.clock, **others)
        self.addCleanup(made.close)
        return made

    def principal(self, authentication: Authentication, **presented: Any) -> Principal:
        found = authentication.principal_of(Presented(**presented))
        return self.successResultOf(found) if isinstance(found, Deferred) else found

    def refusal(self, authentication: Authentication, **presented: Any) -> NotAuthenticated:
        error = self.assertRaises(NotAuthenticated, authentication.principal_of, Presented(**presented))
        assert isinstance(error, NotAuthenticated)
        return error


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


class CacheTests(AuthenticationCase):
    """Verified credentials cost a look-up; the caches are bounded and expire."""

    def test_the_hot_path_has_a_principal_after_it_was_verified(self) -> None:
        authentication = self.make()
        self.assertIs(None, authentication.cached(b"Bearer abc"))
        self.principal(authentication, authorization=b"Bearer abc")
        self.assertIs(ALICE, authentication.cached(b"Bearer abc"))
        self.assertIs(None, authentication.cached(None))

    def test_the_hot_path_is_closed_if_another_credential_comes_before_authorization(self) -> None:
        authentication = self.make("certificate", "token")
        self.assertIs(ALICE, self.principal(authentication, authorization=b"Bearer abc"))
        self.assertIs(None, authentication.cached(b"Bearer abc"))
        self.assertIs(ALICE, self.principal(authentication, authorization=b"Bearer abc"))
        self.assertEqual(1, len(self.bearer.asked))

    def test_certificates_and_proxy_identities_are_cached_and_signed_urls_are_not(self) -> None:
        self.other_checkers = [Checker(each, "carol") for each in (IClientCertificate, IProxyIdentity, ISignedUrl)]
        authentication = self.make("certificate", "header", "signed-url")
        for _ in range(3):
            for presented in ({"certificate": CERTIFICATE}, {"proxy_identity": "carol"}, {"query": b"ds_sig=1"}):
                self.assertEqual("carol", self.principal(authentication, **presented).subject)
        self.assertEqual([1, 1, 3], [len(checker.asked) for checker in self.other_checkers])

    def test_a_principal_leaves_the_cache_when_it_expires(self) -> None:
        self.bearer.outcome = Principal("alice", "jwt", expires_at=self.times.wall() + 5.25)
        authentication = self.make()
        self.principal(authentication, authorization=b"Bearer abc")
        self.times.pump([1.0] * 5)
        self.assertIsNot(None, authentication.cached(b"Bearer abc"))
        self.times.advance(0.25)
        self.assertIs(None, authentication.cached(b"Bearer abc"))
        self.refusal(authentication, authorization=b"Bearer abc")

    def test_a_step_of_the_wall_clock_expires_principals_within_a_second(self) -> None:
        self.bearer.outcome = Principal("alice", "jwt", expires_at=self.times.wall() + 3_600)
        authentication = self.make(limits=CacheLimits(seconds=10_000))
        self.principal(authentication, authorization=b"Bearer abc")
        self.times.step += 3_600
        self.times.advance(1)
        self.assertIs(None, authentication.cached(b"Bearer abc"))

    def test_a_wall_clock_that_is_set_back_does_not_keep_entries_longer(self) -> None:
        self.bearer.outcome = "alice"
        authentication = self.make(limits=CacheLimits(seconds=10))
        self.principal(authentication, authorization=b"Bearer abc")
        self.times.step -= 1_000_000
        self.times.pump([1.0] * 10)
        self.assertIs(None, authentication.cached(b"Bearer abc"))

    def test_a_principal_that_can_be_revoked_stays_until_it_expires_or_is_forgotten(self) -> None:
        authentication = self.make(limits=CacheLimits(seconds=10))
        self.principal(authentication, authorization=b"Bearer abc")
        # Nothing has to be looked at.
        self.assertEqual([], self.times.getDelayedCalls())
        self.times.advance(100_000)
        self.assertIs(ALICE, authentication.cached(b"Bearer abc"))
        authentication.forget()
        self.assertIs(None, authentication.cached(b"Bearer abc"))

    def test_the_cache_is_bounded_in_entries_and_bytes(self) -> None:
        authentication = self.make(limits=CacheLimits(principals=3))
        for number in range(5):
            self.principal(authentication, authorization=b"Bearer %d" % number)
        found = [authentication.cached(b"Bearer %d" % number) is not None for number in range(5)]
        self.assertEqual([False, False, True, True, True], found)
        authentication = self.make(limits=CacheLimits(bytes=30_000))
        long = [b"Bearer " + b"%d" % number * 10_000 for number in range(3)]
        for value in long:
            self.principal(authentication, authorization=value)
        self.assertEqual([False, False, True], [authentication.cached(value) is not None for value in long])

    def test_no_delayed_call_is_left_when_the_cache_is_empty(self) -> None:
        self.bearer.outcome = "alice"
        authentication = self.make(limits=CacheLimits(seconds=2))
        self.principal(authentication, authorization=b"Bearer abc")
        self.assertEqual(1, len(self.times.getDelayedCalls()))
        self.times.pump([1.0] * 4)
        self.assertEqual([], self.times.getDelayedCalls())
        self.principal(authentication, authorization=b"Bearer abc")
        authentication.close()
        self.assertEqual([], self.times.getDelayedCalls())

    def test_a_refusal_is_remembered_for_some_seconds(self) -> None:
        self.bearer.outcome = NotAuthenticated("The token is not known.")
        authentication = self.make(limits=CacheLimits(refusal_seconds=5))
        first = self.refusal(authentication, authorization=b"Bearer abc")
        self.bearer.outcome = ALICE
        self.times.advance(4.9)
        second = self.refusal(authentication, authorization=b"Bearer abc")
        self.assertEqual((str(first), first.challenge), (str(second), second.challenge))
        self.assertEqual(1, len(self.bearer.asked))
        self.times.advance(0.1)
        self.assertIs(ALICE, self.principal(authentication, authorization=b"Bearer abc"))

    def test_refusals_are_bounded(self) -> None:
        self.bearer.outcome = NotAuthenticated("The token is not known.")
        authentication = self.make(limits=CacheLimits(refusals=10))
        for number in range(100):
            self.refusal(authentication, authorization=b"Bearer %d" % number)
        self.refusal(authentication, authorization=b"Bearer 99")
        self.assertEqual(100, len(self.bearer.asked))
        self.refusal(authentication, authorization=b"Bearer 0")
        self.assertEqual(101, len(self.bearer.asked))

    def test_forgotten_credentials_are_verified_again(self) -> None:
        authentication = self.make()
        self.principal(authentication, authorization=b"Bearer abc")
        self.bearer.outcome = NotAuthenticated("The token is not known.")
        self.refusal(authentication, authorization=b"Bearer def")
        authentication.forget()
        self.assertIs(None, authentication.cached(b"Bearer abc"))
        self.refusal(authentication, authorization=b"Bearer abc")
        self.bearer.outcome = ALICE
        authentication.forget()
        self.assertIs(ALICE, self.principal(authentication, authorization=b"Bearer def"))


class WaitingTests(AuthenticationCase):
    """Checkers that need time, such as those with a thread."""

    def setUp(self) -> None:
        super().setUp()
        self.results: list[Deferred[Principal]] = []

        def later(_: object) -> Deferred[Principal]:
            self.results.append(Deferred())
            return self.results[-1]

        self.bearer.outcome = later

    def ask(self, authentication: Authentication, value: bytes = b"Bearer abc") -> Deferred[Principal]:
        found = authentication.principal_of(Presented(authorization=value))
        assert isinstance(found, Deferred)
        return found

    def test_requests_with_the_same_token_wait_for_one_verification(self) -> None:
        authentication = self.make()
        waiting = [self.ask(authentication) for _ in range(10)]
        self.assertEqual(1, len(self.results))
        self.results[0].callback(ALICE)
        self.assertEqual([ALICE] * 10, [self.successResultOf(each) for each in waiting])
        self.assertIs(ALICE, authentication.cached(b"Bearer abc"))

    def test_each_request_that_waits_is_refused_with_an_error_of_its_own(self) -> None:
        authentication = self.make()
        waiting = [self.ask(authentication) for _ in range(3)]
        self.results[0].errback(NotAuthenticated("The token is not known."))
        errors = [self.failureResultOf(each, NotAuthenticated).value for each in waiting]
        self.assertEqual(3, len({id(error) for error in errors}))

    def test_a_cancelled_request_leaves_the_others_waiting(self) -> None:
        authentication = self.make()
        first, second, third = (self.ask(authentication) for _ in range(3))
        first.addErrback(lambda _: None)
        first.cancel()
        for waiting, other in ((second, third), (third, second)):
            self.cancel_with(waiting, other)
        self.results[0].callback(ALICE)
        self.assertIs(None, self.successResultOf(first))
        self.assertEqual(1, len(self.bearer.asked))

    def test_a_verification_is_cancelled_with_the_last_request_that_waits_for_it(self) -> None:
        authentication = self.make()
        waiting = [self.ask(authentication) for _ in range(2)]
        for each in waiting:
            self.assertFalse(self.results[0].called)
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertTrue(self.results[0].called)
        again = self.ask(authentication)
        self.results[1].callback(ALICE)
        self.assertIs(ALICE, self.successResultOf(again))

    def cancel_with(self, waiting: Deferred[Principal], other: Deferred[Principal]) -> None:
        waiting.addCallbacks(lambda _: other.cancel(), lambda _: None)

    def test_a_result_is_not_cached_if_tokens_have_changed_in_the_meantime(self) -> None:
        authentication = self.make()
        waiting = self.ask(authentication)
        authentication.forget()
        self.results[0].callback(ALICE)
        self.assertIs(ALICE, self.successResultOf(waiting))
        self.assertIs(None, authentication.cached(b"Bearer abc"))

    def test_a_credential_that_was_revoked_during_its_verification_is_refused(self) -> None:
        waiting = self.ask(self.make())
        self.bearer.revoked.add("1")
        self.results[0].callback(ALICE)
        self.failureResultOf(waiting, NotAuthenticated)


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
