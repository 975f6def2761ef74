"""Authentication: what is cached for how long, and what waits for a verification that runs."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.authentication import Authentication, CacheLimits
from durable_streams.server.identity.credentials import (
    IClientCertificate,
    IProxyIdentity,
    ISignedUrl,
    Presented,
)
from durable_streams.server.identity.principal import Principal
from tests.support.authentication_case import ALICE, CERTIFICATE, AuthenticationCase, Checker


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
        self.times.step(3_600)
        self.times.advance(1)
        self.assertIs(None, authentication.cached(b"Bearer abc"))

    def test_a_wall_clock_that_is_set_back_does_not_keep_entries_longer(self) -> None:
        self.bearer.outcome = "alice"
        authentication = self.make(limits=CacheLimits(seconds=10))
        self.principal(authentication, authorization=b"Bearer abc")
        self.times.step(-1_000_000)
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
