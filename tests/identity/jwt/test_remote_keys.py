"""Tests of the keys of a URL: when they are fetched, and what happens while the URL fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.identity.jwt.errors import KeysUnavailable
from durable_streams.server.identity.jwt.fetching import FetchFailed
from durable_streams.server.identity.jwt.keys import NO_KEYS, KeySet
from durable_streams.server.identity.jwt.remote_keys import MAX_WAITING, RemoteKeys
from durable_streams.server.identity.jwt.settings import JwtSettings
from tests.support.events import Events
from tests.support.jwts import ISSUER, NOW, jwk, jwk_of, jwk_set, rsa_key

URL = f"{ISSUER}/jwks?secret=1"
FIRST = jwk_set(jwk("ES256", 1, "k1"))
BOTH = jwk_set(jwk("ES256", 1, "k1"), jwk("ES256", 2, "k2"))
SECOND = jwk_set(jwk("ES256", 2, "k2"))
DOWN = FetchFailed("failed: the connection was refused")


class Fetches:
    """Fetches that a test completes."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.running: list[Deferred[bytes]] = []
        self.cancelled = 0

    def __call__(self, url: str) -> Deferred[bytes]:
        self.urls.append(url)
        found: Deferred[bytes] = Deferred(self._cancel)
        self.running.append(found)
        return found

    def _cancel(self, fetch: Deferred[bytes]) -> None:
        self.cancelled += 1
        self.running.remove(fetch)
        fetch.errback(FetchFailed("was cancelled"))

    def answer(self, result: bytes | Exception) -> None:
        """Complete the fetch that runs."""
        [fetch] = self.running
        self.running.clear()
        if isinstance(result, bytes):
            fetch.callback(result)
        else:
            fetch.errback(result)


class TurnClock(Clock):
    """A clock whose calls without delay come in the next turn, as a reactor's do: after a millisecond."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:  # noqa: A002
        return super().callLater(max(delay, 0.001), callable, *args, **kw)


def remote_keys(fetches: Fetches, clock: Clock, **changes: Any) -> RemoteKeys:
    values: dict[str, Any] = {"jwks_url": URL, "issuer": ISSUER, "refresh_secs": 300, "max_stale_secs": 3600}
    return RemoteKeys(JwtSettings(**values | changes), fetches, clock_of(clock))


class RemoteKeysCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.fetches = Fetches()
        self.keys = remote_keys(self.fetches, self.clock)
        self.changes = 0
        self.keys.on_change(self.count_change)
        self.events = Events(self)

    def count_change(self) -> None:
        self.changes += 1

    def start(self, answer: bytes | Exception = FIRST) -> None:
        self.keys.start()
        self.fetches.answer(answer)

    def ids(self) -> list[str | None]:
        return [key.key_id for key in self.keys.keys.keys]

    def lookup(self, key_id: str | None) -> KeySet:
        found = self.keys.lookup(key_id)
        assert not isinstance(found, Deferred)
        return found

    def waiting(self, key_id: str | None) -> Deferred[KeySet]:
        found = self.keys.lookup(key_id)
        assert isinstance(found, Deferred)
        self.assertNoResult(found)
        return found

    def check_unavailable(self, key_id: str | None) -> None:
        error = self.assertRaises(KeysUnavailable, self.lookup, key_id)
        self.assertEqual("The keys of the token issuer cannot be fetched. Try again later.", str(error))

    def messages(self, level: LogLevel) -> list[str]:
        return [formatEvent(event) for event in self.events.all if event["log_level"] is level]


class FetchTests(RemoteKeysCase):
    def test_the_keys_are_fetched_at_the_start(self) -> None:
        self.keys.start()
        self.assertEqual([URL], self.fetches.urls)
        first, second = self.waiting("k1"), self.waiting(None)
        self.fetches.answer(FIRST)
        self.assertIs(self.keys.keys, self.successResultOf(first))
        self.assertIs(self.keys.keys, self.successResultOf(second))
        self.assertIs(self.keys.keys, self.lookup("k1"))
        self.assertEqual(["k1"], self.ids())
        self.assertEqual(1, len(self.fetches.urls))

    def test_a_second_start_does_nothing(self) -> None:
        self.keys.start()
        self.keys.start()
        self.assertEqual(1, len(self.fetches.urls))

    def test_the_keys_are_fetched_again_before_they_are_old(self) -> None:
        self.start()
        for answer in (BOTH, SECOND):
            self.clock.advance(269)
            self.assertEqual([], self.fetches.running)
            self.clock.advance(31)
            self.fetches.answer(answer)
        self.assertEqual(["k2"], self.ids())
        self.assertEqual(3, self.changes)

    def test_the_same_keys_are_no_change(self) -> None:
        self.start(BOTH)
        self.clock.advance(300)
        self.fetches.answer(json.dumps({"keys": list(reversed(json.loads(BOTH)["keys"])), "x": 1}).encode())
        self.assertEqual(1, self.changes)

    def test_reload_fetches_at_once_and_once(self) -> None:
        self.start()
        self.keys.reload()
        self.keys.reload()
        self.fetches.answer(BOTH)
        self.assertEqual(["k1", "k2"], self.ids())
        self.assertEqual(2, len(self.fetches.urls))
        self.assertEqual(1, len(self.clock.getDelayedCalls()))

    def test_stop_cancels_the_fetch_and_answers_those_who_wait(self) -> None:
        self.keys.start()
        waiting = self.waiting("k1")
        self.keys.stop()
        self.failureResultOf(waiting, KeysUnavailable)
        self.assertEqual(1, self.fetches.cancelled)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.check_unavailable("k1")
        self.assertEqual([], self.messages(LogLevel.warn))

    def test_stop_ends_the_refreshes(self) -> None:
        self.start()
        self.keys.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.keys.reload()
        self.assertEqual(1, len(self.fetches.urls))

    def test_keys_that_never_started_are_unavailable(self) -> None:
        self.check_unavailable("k1")


class UnknownKeyTests(RemoteKeysCase):
    def test_an_unknown_key_is_fetched_and_all_requests_wait_for_one_fetch(self) -> None:
        self.start()
        waiting = [self.waiting("k2") for _ in range(5)]
        self.assertEqual(2, len(self.fetches.urls))
        self.fetches.answer(BOTH)
        for each in waiting:
            self.assertTrue(self.successResultOf(each).knows("k2"))
        self.assertTrue(self.lookup("k2").knows("k2"))

    def test_known_keys_are_used_while_others_are_fetched(self) -> None:
        self.start()
        waiting = self.waiting("k2")
        self.assertTrue(self.lookup("k1").knows("k1"))
        self.assertTrue(self.lookup(None).knows("k1"))
        self.fetches.answer(FIRST)
        self.assertFalse(self.successResultOf(waiting).knows("k2"))

    def test_unknown_keys_cause_one_fetch_a_minute(self) -> None:
        self.start()
        waiting = self.waiting("x")
        self.fetches.answer(FIRST)
        self.assertFalse(self.successResultOf(waiting).knows("x"))
        for number in range(1000):
            self.assertFalse(self.lookup(f"x{number}").knows(f"x{number}"))
        self.clock.advance(59)
        self.lookup("y")
        self.assertEqual(2, len(self.fetches.urls))
        self.clock.advance(1)
        self.waiting("y").addErrback(lambda _: None)
        self.assertEqual(3, len(self.fetches.urls))

    def test_the_number_of_requests_that_wait_is_bounded(self) -> None:
        self.start()
        waiting = [self.waiting("k2") for _ in range(MAX_WAITING)]
        error = self.assertRaises(KeysUnavailable, self.lookup, "k2")
        self.assertIn("Too many requests wait", str(error))
        # One that is cancelled makes room for another.
        cancelled = waiting.pop()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        waiting.append(self.waiting("k2"))
        self.fetches.answer(BOTH)
        self.clock.advance(0)
        for each in waiting:
            self.successResultOf(each)

    def test_many_requests_are_answered_in_several_turns(self) -> None:
        self.clock = TurnClock()
        self.keys = remote_keys(self.fetches, self.clock)
        self.start()
        waiting = [self.waiting("k2") for _ in range(200)]
        self.fetches.answer(BOTH)
        answered = [sum(each.called for each in waiting)]
        while answered[-1] < 200:
            if answered[-1] == 64:
                waiting[150].cancel()
                self.failureResultOf(waiting[150], CancelledError)
            self.clock.advance(0.001)
            answered.append(sum(each.called for each in waiting))
        self.assertEqual([64, 129, 193, 200], answered)

    def test_stop_answers_also_those_that_wait_for_a_turn(self) -> None:
        self.start()
        waiting = [self.waiting("k2") for _ in range(200)]
        self.fetches.answer(BOTH)
        self.keys.stop()
        for each in waiting:
            self.successResultOf(each)

    def test_a_request_that_ends_no_longer_waits(self) -> None:
        self.start()
        waiting = self.waiting("k2")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.fetches.answer(BOTH)
        self.assertEqual(["k1", "k2"], self.ids())

    def test_a_listener_may_look_up_keys(self) -> None:
        self.start()
        found = []
        self.keys.on_change(lambda: found.append(self.lookup("k2")))
        waiting = self.waiting("k2")
        self.fetches.answer(BOTH)
        self.assertEqual([self.successResultOf(waiting)], found)


class FailureTests(RemoteKeysCase):
    def test_without_keys_requests_are_unavailable_and_the_fetch_is_repeated(self) -> None:
        self.keys.start()
        waiting = self.waiting("k1")
        self.fetches.answer(DOWN)
        self.failureResultOf(waiting, KeysUnavailable)
        self.check_unavailable("k1")
        delays = []
        for _ in range(8):
            [call] = self.clock.getDelayedCalls()
            delays.append(call.getTime() - self.clock.seconds())
            self.clock.advance(delays[-1])
            self.fetches.answer(DOWN)
        for delay, expected in zip(delays, (1, 2, 4, 8, 16, 30, 30, 30), strict=True):
            self.assertTrue(0.89 * expected <= delay <= expected + 0.01, delays)
        self.clock.advance(30)
        self.fetches.answer(FIRST)
        self.assertTrue(self.lookup("k1").knows("k1"))

    def test_old_keys_stay_in_use_for_a_bounded_time_while_the_url_fails(self) -> None:
        self.start()
        end = self.clock.seconds() + 3600
        while self.clock.seconds() < end - 31:
            self.clock.advance(min(call.getTime() for call in self.clock.getDelayedCalls()) - self.clock.seconds())
            self.fetches.answer(DOWN)
            self.assertTrue(self.lookup("k1").knows("k1"))
        self.clock.advance(end - self.clock.seconds())
        self.assertIs(NO_KEYS, self.keys.keys)
        if not self.fetches.running:
            self.check_unavailable("k1")

    def test_an_unknown_key_is_unavailable_while_the_url_fails(self) -> None:
        self.start()
        waiting = [self.waiting("k2"), self.waiting("k2")]
        self.fetches.answer(DOWN)
        for each in waiting:
            self.failureResultOf(each, KeysUnavailable)
        self.check_unavailable("k2")
        self.assertTrue(self.lookup("k1").knows("k1"))
        self.clock.advance(1)
        self.fetches.answer(BOTH)
        self.assertTrue(self.lookup("k2").knows("k2"))

    def test_a_document_without_usable_keys_does_not_replace_the_keys(self) -> None:
        self.start()
        private = jwk("ES256", 3) | {"d": "AAAA"}
        for document in (b"", b"<html>", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":null}', b"\xff" * 1000,
                         b"[" * 100_000, jwk_set(*[jwk("ES256", 3)] * 65), jwk_set(1, "x", None, []),
                         jwk_set({"kty": "oct", "k": "A" * 100}), jwk_set(private), jwk_set(jwk("ES256", use="enc")),
                         jwk_set(jwk_of(rsa_key(1024).public_key(), "RS256")), jwk_set(jwk("ES384")), FIRST + FIRST,
                         b'{"keys":[],' + FIRST[1:]):  # fmt: skip
            self.keys.reload()
            self.fetches.answer(document)
            self.assertEqual(["k1"], self.ids(), document[:50])
        self.assertEqual(1, self.changes)

    def test_bad_keys_beside_good_ones_are_left_out_and_logged_once(self) -> None:
        self.start()
        secret = {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "s"}
        document = jwk_set(jwk("ES256", 1, "k1"), secret, jwk_of(rsa_key(1024).public_key(), "RS256"), jwk(use="enc"))
        for _ in range(2):
            self.keys.reload()
            self.fetches.answer(document)
        self.assertEqual(["k1"], self.ids())
        self.assertEqual(
            [
                "The JWK set of the token issuer: Key 2 is private or symmetric, but was published.",
                "The JWK set of the token issuer: Key 3 is an RSA key of 1024 bits, not of 2048 to 8192.",
            ],
            self.messages(LogLevel.warn),
        )

    def test_failures_are_logged_with_the_url_without_its_query(self) -> None:
        self.start(DOWN)
        [message] = self.messages(LogLevel.warn)
        self.assertEqual(
            f"The fetch of {ISSUER}/jwks (auth.jwt.jwks_url) failed: the connection was refused. Until a fetch "
            "succeeds, requests with a JWT get 503.",
            message,
        )
        self.clock.advance(1)
        self.fetches.answer(FIRST)
        self.assertIn("number of keys: 1", self.messages(LogLevel.info)[-1])
        self.clock.advance(300)
        self.fetches.answer(b"<html>")
        self.assertEqual(
            f"The document at {ISSUER}/jwks is not valid JSON. The keys that were fetched before stay in use for "
            "3300 seconds (auth.jwt.max_stale_secs).",
            self.messages(LogLevel.warn)[-1],
        )

    def test_few_of_many_failures_are_logged(self) -> None:
        self.start(DOWN)
        for _ in range(30):
            self.clock.advance(30)
            self.fetches.answer(DOWN)
        self.assertEqual(4, len(self.messages(LogLevel.warn)))

    def test_an_error_of_this_program_is_logged_and_the_fetch_repeated(self) -> None:
        self.start(RuntimeError("unexpected"))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.clock.advance(1)
        self.fetches.answer(FIRST)
        self.assertEqual(["k1"], self.ids())


class DiscoveryTests(RemoteKeysCase):
    def setUp(self) -> None:
        super().setUp()
        self.url = f"{ISSUER}/.well-known/openid-configuration"
        self.keys = remote_keys(self.fetches, self.clock, jwks_url=None, discovery_url=self.url)

    def metadata(self, **changes: object) -> bytes:
        return json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example/k", "x": [{}]} | changes).encode()

    def test_the_keys_are_those_of_the_metadata(self) -> None:
        self.keys.start()
        waiting = self.waiting("k1")
        self.fetches.answer(self.metadata())
        self.fetches.answer(FIRST)
        self.assertTrue(self.successResultOf(waiting).knows("k1"))
        self.clock.advance(300)
        self.fetches.answer(self.metadata(jwks_uri="https://keys.example/k2"))
        self.fetches.answer(BOTH)
        self.assertEqual([self.url, "https://keys.example/k", self.url, "https://keys.example/k2"], self.fetches.urls)

    def test_metadata_of_another_issuer_are_refused(self) -> None:
        for issuer in (f"{ISSUER}/", "https://attacker.example", None, [ISSUER], ""):
            self.keys.stop()
            self.keys.start()
            self.fetches.answer(self.metadata(issuer=issuer))
            self.assertIn("are of another issuer than auth.jwt.issuer.", self.messages(LogLevel.warn)[-1])
        self.assertEqual({self.url}, set(self.fetches.urls))

    def test_the_url_of_keys_must_be_https(self) -> None:
        for url in ("http://issuer.example/k", "file:///etc/passwd", "", None, 1, "https://u:p@h/"):
            self.keys.stop()
            self.keys.start()
            self.fetches.answer(self.metadata(jwks_uri=url))
            self.assertIn(f"The jwks_uri in the metadata at {self.url} ", self.messages(LogLevel.warn)[-1])
        self.assertEqual({self.url}, set(self.fetches.urls))

    def test_metadata_that_are_no_json_are_refused(self) -> None:
        self.keys.start()
        self.fetches.answer(b"<html>")
        self.assertIn(f"The document at {self.url} is not valid JSON.", self.messages(LogLevel.warn)[-1])

    def test_both_urls_are_named_when_they_fail(self) -> None:
        self.keys.start()
        self.fetches.answer(DOWN)
        self.assertIn(f"{self.url} (auth.jwt.discovery_url) failed", self.messages(LogLevel.warn)[-1])
        self.keys.stop()
        self.keys.start()
        self.fetches.answer(self.metadata())
        self.fetches.answer(DOWN)
        self.assertIn(
            "https://keys.example/k (jwks_uri of auth.jwt.discovery_url) failed", self.messages(LogLevel.warn)[-1]
        )


class RotationMachine(RuleBasedStateMachine):
    """Any order of look-ups, answers, failures and time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.fetches = Fetches()
        self.keys = remote_keys(self.fetches, self.clock)
        self.waiting: list[tuple[str, Deferred[KeySet]]] = []
        self.fetched_at: float | None = None
        self.keys.start()

    @rule(kid=st.sampled_from(["k1", "k2", "k3"]))
    def look_up(self, kid: str) -> None:
        try:
            found = self.keys.lookup(kid)
        except KeysUnavailable:
            return
        if isinstance(found, Deferred):
            self.waiting.append((kid, found))
        else:
            assert found is not NO_KEYS

    @rule(seconds=st.sampled_from([0.5, 5, 31, 61, 301, 3601]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(answer=st.sampled_from([FIRST, BOTH, SECOND, DOWN, b"{}"]))
    def answer(self, answer: bytes | Exception) -> None:
        if not self.fetches.running:
            return
        self.fetches.answer(answer)
        if answer in (FIRST, BOTH, SECOND):
            self.fetched_at = self.clock.seconds()
        for _, waiting in self.waiting:
            outcome: list[object] = []
            waiting.addBoth(outcome.append)
            # All that waited have their answer: a request never waits for more than one fetch.
            assert outcome
            assert isinstance(outcome[0], KeySet) or outcome[0].check(KeysUnavailable)  # type: ignore[attr-defined]
        self.waiting.clear()

    @rule(position=st.integers(0, 3))
    def cancel(self, position: int) -> None:
        if position < len(self.waiting):
            _, waiting = self.waiting.pop(position)
            waiting.cancel()
            waiting.addErrback(lambda _: None)

    @invariant()
    def one_fetch_runs_or_one_is_scheduled(self) -> None:
        assert len(self.fetches.running) + len(self.clock.getDelayedCalls()) == 1

    @invariant()
    def keys_are_in_use_for_a_bounded_time(self) -> None:
        is_fresh = self.fetched_at is not None and self.clock.seconds() - self.fetched_at < 3600
        assert (self.keys.keys is not NO_KEYS) == is_fresh

    @invariant()
    def the_number_of_fetches_is_bounded(self) -> None:
        # One a minute for unknown keys, and the retries: 6 in the first minute, then one each 27 seconds.
        assert len(self.fetches.urls) <= 10 + self.clock.seconds() / 20


class RotationTests(SynchronousTestCase):
    def test_any_order_of_events_keeps_the_rules(self) -> None:
        machine: Any = RotationMachine.TestCase
        machine.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
        machine("runTest").runTest()
