"""Tests of when reads under way are checked, and how they end when their principal may not read any more."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.run_queue import RunQueue
from durable_streams.server.web.access_parts import Access
from durable_streams.server.web.live_access import LiveAccess
from tests.support.cases import each_way
from tests.support.clocks import SteppedClock
from tests.support.fronts import BASE, START_TIME, ChannelFront
from tests.support.gates import GateTestCase, bearer
from tests.support.identities import person


def access(expires_at: float | None = None) -> Access:
    """Return a decision that has allowed a read."""
    return Access(person("alice", expires_at), ("read",), "a", None, True, "read", None)


class Reader:
    """A reader that records when it was revoked."""

    def __init__(self, now: Callable[[], float], fails: bool = False) -> None:
        self.revoked_at: float | None = None
        self._now = now
        self._fails = fails

    def revoke(self) -> None:
        """Record the time."""
        assert self.revoked_at is None
        self.revoked_at = self._now()
        if self._fails:
            raise ZeroDivisionError


class LiveAccessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SteppedClock()
        self.clock.advance(START_TIME)
        self.allowed = True
        self.checks = 0
        clock = clock_of(self.clock)
        self.readers = LiveAccess(clock, RunQueue(clock, self.seconds), self.is_valid)
        self.work = 0.0

    def seconds(self) -> float:
        """Return the time that the run queue measures."""
        return self.work

    def is_valid(self, access: Access) -> bool:
        """Return whether a decision is valid, which takes 0.1 ms."""
        self.checks += 1
        self.work += 0.0001
        expires_at = access.principal.expires_at
        return self.allowed and (expires_at is None or self.clock.seconds() < expires_at)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def turn(self) -> None:
        """Make the first delayed call, and not those that it adds."""
        call = self.clock.calls.pop(0)
        call.called = 1
        call.func(*call.args, **call.kw)

    def begin(self, expires_at: float | None = None, fails: bool = False) -> Reader:
        """Begin a read."""
        reader = Reader(self.clock.seconds, fails)
        self.readers.add(reader, access(expires_at))
        return reader

    def test_reads_are_checked_once_a_second(self) -> None:
        reader = self.begin()
        self.pass_time(10.5)
        self.assertIn(self.checks, (9, 10))
        self.readers.discard(reader)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.floats(0.1, 5), min_size=1, max_size=8))
    def test_a_read_ends_when_its_principal_expires(self, lifetimes: list[float]) -> None:
        begun = self.clock.seconds()
        readers = [(self.begin(begun + lifetime), begun + lifetime) for lifetime in lifetimes]
        self.pass_time(6)
        for reader, expires_at in readers:
            assert reader.revoked_at is not None
            self.assertTrue(0 <= reader.revoked_at - expires_at <= 0.2, (reader.revoked_at, expires_at))
        self.assertEqual((len(self.readers), self.clock.getDelayedCalls()), (0, []))

    def test_a_change_has_all_reads_checked_at_once(self) -> None:
        readers = [self.begin() for _ in range(3)]
        self.allowed = False
        self.readers.check()
        self.pass_time(0.1)
        self.assertNotIn(None, [reader.revoked_at for reader in readers])
        self.assertEqual((len(self.readers), self.clock.getDelayedCalls()), (0, []))

    def test_many_reads_are_checked_in_slices(self) -> None:
        readers = [self.begin() for _ in range(1000)]
        self.allowed = False
        self.readers.check()
        self.turn()
        ended = sum(reader.revoked_at is not None for reader in readers)
        self.assertTrue(5 <= ended <= 60, ended)
        self.pass_time(10)
        self.assertNotIn(None, [reader.revoked_at for reader in readers])

    def test_readers_of_one_decision_are_checked_once(self) -> None:
        shared = access()
        readers = [Reader(self.clock.seconds) for _ in range(50)]
        for reader in readers:
            self.readers.add(reader, shared)
        self.pass_time(1.2)
        self.assertEqual(self.checks, 1)
        for reader in readers:
            self.readers.discard(reader)

    def test_a_change_during_a_check_has_all_reads_checked_again(self) -> None:
        readers = [self.begin() for _ in range(100)]
        self.readers.check()
        self.turn()
        self.assertTrue(0 < self.checks < 100)
        self.allowed = False
        self.readers.check()
        self.pass_time(1)
        self.assertNotIn(None, [reader.revoked_at for reader in readers])

    def test_an_error_at_the_end_of_one_read_does_not_keep_the_others(self) -> None:
        readers = [self.begin(fails=number == 0) for number in range(3)]
        self.allowed = False
        self.readers.check()
        self.pass_time(0.1)
        self.assertNotIn(None, [reader.revoked_at for reader in readers])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_read_that_ends_by_itself_is_not_revoked(self) -> None:
        first, second = self.begin(), self.begin()
        self.readers.discard(first)
        self.readers.discard(first)
        self.allowed = False
        self.readers.check()
        self.pass_time(0.1)
        self.assertEqual(first.revoked_at, None)
        self.assertNotEqual(second.revoked_at, None)


@each_way
class RevokedReadTests(GateTestCase):
    streams = {"alice/a": b"hello", "alice/large": b"x" * 3_000_000}  # noqa: RUF012 (not changed)

    def revoke(self) -> None:
        """Revoke the token of the readers, and let them end."""
        self.control.revoke("alice")
        self.front.pass_time(0.25)

    def test_a_tail_ends_with_a_control_event_at_its_offset(self) -> None:
        peer = self.front.follow(BASE + "alice/a?offset=-1&live=sse", bearer("alice"))
        self.front.pass_time(0.25)
        before = peer.events[-1].control
        self.revoke()
        self.assertTrue(peer.reply.complete)
        last = peer.events[-1]
        self.assertEqual(last.kind, "control")
        self.assertEqual(last.control["streamNextOffset"], before["streamNextOffset"])
        self.assertEqual(last.control.get("upToDate"), True)
        self.assertNotIn("streamClosed", last.control)

    def test_a_tail_that_resumes_with_another_token_misses_nothing(self) -> None:
        peer = self.front.follow(BASE + "alice/a?offset=-1&live=sse", bearer("alice"))
        self.front.pass_time(0.25)
        self.revoke()
        offset = peer.events[-1].control["streamNextOffset"]
        self.assertEqual(self.ask("POST", "alice/a", "owner", {"Content-Type": "text/plain"}, b" world").status, 204)
        resumed = self.front.follow(BASE + f"alice/a?offset={offset}&live=sse", bearer("owner"))
        self.front.pass_time(0.25)
        self.assertEqual([event.data for event in resumed.events if event.kind == "data"], [" world"])

    def test_a_slow_reader_of_a_tail_is_ended_too(self) -> None:
        peer = self.front.connect(room=1000)
        peer.send_request("GET", BASE + "alice/large?offset=-1&live=sse", bearer("alice"))
        self.front.pass_time(0.25)
        self.revoke()
        self.assertEqual(len(self.gate.readers), 0)
        self.assertEqual(self.front.operations.live.tails, 0)

    def test_a_download_is_aborted(self) -> None:
        peer = self.front.connect(room=1000)
        peer.send_request("GET", BASE + "alice/large", bearer("alice"))
        self.front.pass_time(0.25)
        self.assertEqual(len(self.gate.readers), 1)
        self.revoke()
        self.assertEqual(len(self.gate.readers), 0)
        peer.read_freely()
        self.front.pass_time(1)
        self.assertFalse(peer.replies and peer.reply.complete)

    def test_a_download_that_ends_is_not_checked_any_more(self) -> None:
        reply = self.ask("GET", "alice/large", "alice")
        self.assertEqual(len(reply.body), 3_000_000)
        self.assertEqual(len(self.gate.readers), 0)

    def test_a_client_that_leaves_is_not_checked_any_more(self) -> None:
        for query in ("?offset=-1&live=sse", "?offset=now&live=long-poll"):
            peer = self.front.follow(BASE + "alice/a" + query, bearer("alice"))
            self.front.pass_time(0.25)
            self.assertEqual(len(self.gate.readers), 1, query)
            peer.leave()
            self.front.pass_time(0.25)
            self.assertEqual(len(self.gate.readers), 0, query)

    def test_readers_of_others_and_of_everybody_are_not_ended(self) -> None:
        self.control.set_rules("allow anyone read alice/a", "allow subject:alice read **")
        anonymous = self.front.follow(BASE + "alice/a?offset=-1&live=sse")
        mine = self.front.follow(BASE + "alice/a?offset=-1&live=sse", bearer("alice"))
        self.revoke()
        self.assertEqual((anonymous.reply.complete, mine.reply.complete), (False, True))
        self.control.set_rules("allow subject:owner all **")
        self.front.pass_time(0.25)
        self.assertTrue(anonymous.reply.complete)

    def test_a_change_that_leaves_the_right_ends_nothing(self) -> None:
        peer = self.front.follow(BASE + "alice/a?offset=-1&live=sse", bearer("alice"))
        self.control.set_rules("allow authenticated read **")
        self.front.pass_time(2)
        self.assertFalse(peer.reply.complete)


class PollTests(GateTestCase):
    front_type = ChannelFront

    def test_an_append_at_the_moment_of_the_revocation_is_not_delivered(self) -> None:
        peer = self.front.follow(BASE + "alice/a?offset=now&live=long-poll", bearer("alice"))
        self.front.pass_time(0.25)
        self.control.revoke("alice")
        self.front.clock.advance(0)
        self.ask("POST", "alice/a", "owner", {"Content-Type": "text/plain"}, b" world")
        self.front.pass_time(0.25)
        self.assertEqual((peer.reply.status, bytes(peer.reply.body)), (204, b""))
