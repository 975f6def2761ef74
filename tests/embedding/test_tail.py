"""The async iterator, step by step on a Clock."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server import IStorage, MemoryStorage, Reading, StreamService, Tail, errors
from durable_streams.server.run_queue import BUDGET
from tests.support.late_storage import LateStorage


class TailCase(SynchronousTestCase):
    """A service on a Clock."""

    late = False

    def setUp(self) -> None:
        self.begin()
        self.addCleanup(self.end)

    def begin(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        memory = MemoryStorage()
        self.storage: IStorage = LateStorage(memory, self.clock) if self.late else memory
        self.service = StreamService(self.storage, self.clock)
        self.service.startService()
        self.get(self.service.create("log", "text/plain"))

    def end(self) -> None:
        self.assertEqual(self.watched(), [], "somebody still waits")
        self.service.stopService()
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def watched(self) -> list[str]:
        """Return the names of the streams with waiting readers."""
        return list(self.service.streams._waiting.watched())

    def settle(self) -> None:
        for _ in range(12):
            self.clock.advance(0.001)

    def get(self, deferred: Deferred[Any]) -> Any:
        self.settle()
        return self.successResultOf(deferred)

    def append(self, data: bytes, close: bool = False) -> None:
        self.get(self.service.append("log", data, close=close))

    def step(self, tail: Tail) -> Deferred[Reading]:
        stepping = Deferred.fromCoroutine(tail.__anext__())
        self.settle()
        return stepping

    def next(self, tail: Tail) -> bytes:
        return self.successResultOf(self.step(tail)).data


class TailTests(TailCase):
    def test_a_tail_reads_stored_data_and_then_new_data(self) -> None:
        self.append(b"one")
        self.append(b"two")
        tail = self.service.tail("log")
        first = self.successResultOf(self.step(tail))
        self.assertEqual((first.data, first.up_to_date, first.closed), (b"onetwo", True, False))
        waiting = self.step(tail)
        self.assertNoResult(waiting)
        self.append(b"three")
        self.assertEqual(self.successResultOf(waiting).data, b"three")

    def test_a_tail_reads_in_pieces_of_the_limit(self) -> None:
        for data in (b"one", b"three", b"five"):
            self.append(data)
        tail = self.service.tail("log", limit=4)
        self.assertEqual([self.next(tail) for _ in range(3)], [b"one", b"three", b"five"])

    def test_a_tail_begins_at_an_offset_or_at_now(self) -> None:
        self.append(b"old")
        middle = self.get(self.service.read("log")).next_offset
        self.append(b"new")
        self.assertEqual(self.next(self.service.tail("log", middle)), b"new")
        waiting = self.step(self.service.tail("log", "now"))
        self.append(b"newer")
        self.assertEqual(self.successResultOf(waiting).data, b"newer")

    def test_a_tail_of_a_json_stream_reads_arrays(self) -> None:
        self.get(self.service.create("events", "application/json", b"[1,2]"))
        tail = self.service.tail("events")
        self.assertEqual(self.next(tail), b"[1,2]")
        waiting = self.step(tail)
        self.get(self.service.append_batch("events", [b"[3]", b"4"]))
        self.assertEqual(self.successResultOf(waiting).data, b"[[3],4]")

    def test_a_tail_ends_with_the_last_data_of_a_closed_stream(self) -> None:
        tail = self.service.tail("log")
        waiting = self.step(tail)
        self.append(b"last", close=True)
        self.assertTrue(self.successResultOf(waiting).closed)
        for _ in range(2):
            self.failureResultOf(self.step(tail), StopAsyncIteration)

    def test_a_tail_ends_when_the_stream_is_closed_without_data(self) -> None:
        tail = self.service.tail("log")
        waiting = self.step(tail)
        self.get(self.service.close("log"))
        self.failureResultOf(waiting, StopAsyncIteration)
        self.failureResultOf(self.step(tail), StopAsyncIteration)

    def test_a_tail_of_a_closed_stream_reads_to_its_end(self) -> None:
        for data in (b"one", b"two"):
            self.append(data)
        self.get(self.service.close("log"))
        tail = self.service.tail("log", limit=3)
        readings = [self.successResultOf(self.step(tail)) for _ in range(2)]
        self.assertEqual([(each.data, each.closed) for each in readings], [(b"one", False), (b"two", True)])
        self.failureResultOf(self.step(tail), StopAsyncIteration)

    def test_a_tail_of_a_deleted_stream_fails_with_stream_not_found(self) -> None:
        tail = self.service.tail("log")
        waiting = self.step(tail)
        self.get(self.service.delete("log"))
        self.failureResultOf(waiting, errors.StreamNotFound)
        self.failureResultOf(self.step(tail), errors.StreamNotFound)

    def test_a_tail_does_not_continue_in_a_new_stream_of_the_name(self) -> None:
        for first in (b"", b"old"):
            tail = self.service.tail("log")
            if first:
                self.append(first)
                self.next(tail)
            waiting = self.step(tail)
            self.get(self.service.delete("log"))
            self.get(self.service.create("log", "text/plain", b"new"))
            self.failureResultOf(waiting, errors.StreamNotFound)
            self.failureResultOf(self.step(tail), errors.StreamNotFound)
            self.get(self.service.delete("log"))
            self.get(self.service.create("log", "text/plain"))

    def test_a_tail_does_not_continue_in_a_recreated_fork(self) -> None:
        # It has the offsets of its source's family, so that only what is known of the stream tells it apart.
        self.append(b"shared")
        self.get(self.service.fork("fork", "log"))
        tail = self.service.tail("fork")
        self.assertEqual(self.next(tail), b"shared")
        self.get(self.service.delete("fork"))
        self.get(self.service.fork("fork", "log", data=b"other"))
        self.failureResultOf(self.step(tail), errors.StreamNotFound)

    def test_a_tail_of_a_deleted_stream_with_forks_fails_with_stream_gone(self) -> None:
        self.get(self.service.fork("fork", "log"))
        waiting = self.step(self.service.tail("log"))
        self.get(self.service.delete("log"))
        self.failureResultOf(waiting, errors.StreamGone)

    def test_a_tail_of_a_missing_stream_fails(self) -> None:
        self.failureResultOf(self.step(self.service.tail("nowhere")), errors.StreamNotFound)
        old = self.get(self.service.read("log")).next_offset
        self.get(self.service.delete("log"))
        self.get(self.service.create("log", "text/plain"))
        self.failureResultOf(self.step(self.service.tail("log", old)), errors.OffsetGone)

    def test_a_cancelled_step_is_unregistered_and_can_be_repeated(self) -> None:
        tail = self.service.tail("log")
        waiting = self.step(tail)
        self.assertEqual(self.watched(), ["log"])
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.watched(), [])
        self.append(b"meanwhile")
        self.assertEqual(self.next(tail), b"meanwhile")

    def test_a_step_can_be_cancelled_while_it_reads(self) -> None:
        tail = self.service.tail("log")
        for turns in range(4):
            self.append(b"%d" % turns)
            stepping = Deferred.fromCoroutine(tail.__anext__())
            for _ in range(turns):
                self.clock.advance(0)
            if stepping.called:
                self.assertEqual(self.successResultOf(stepping).data[-1:], b"%d" % turns)
                continue
            stepping.cancel()
            self.failureResultOf(stepping, CancelledError)
            self.assertEqual(self.watched(), [])
            self.settle()
            self.assertEqual(self.next(tail), b"%d" % turns)

    def test_leaving_the_loop_leaves_no_waiting_reader(self) -> None:
        self.append(b"one")

        async def follow() -> bytes:
            async for reading in self.service.tail("log"):
                return reading.data
            raise AssertionError("nothing came")

        self.assertEqual(self.get(Deferred.fromCoroutine(follow())), b"one")
        self.assertEqual(self.watched(), [])

    def test_cancelling_the_loop_leaves_no_waiting_reader(self) -> None:
        seen: list[bytes] = []

        async def follow() -> None:
            async for reading in self.service.tail("log"):
                seen.append(reading.data)

        following = Deferred.fromCoroutine(follow())
        self.append(b"one")
        self.assertEqual((seen, self.watched()), ([b"one"], ["log"]))
        following.cancel()
        self.failureResultOf(following, CancelledError)
        self.append(b"two")
        self.assertEqual((seen, self.watched()), ([b"one"], []))

    def test_two_tails_read_the_same_stream_independently(self) -> None:
        tails = [self.service.tail("log"), self.service.tail("log")]
        waiting = [self.step(tail) for tail in tails]
        self.append(b"one")
        self.assertEqual([self.successResultOf(each).data for each in waiting], [b"one", b"one"])
        waiting = [self.step(tail) for tail in tails]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        self.append(b"two")
        self.assertEqual(self.successResultOf(waiting[1]).data, b"two")

    def test_a_second_concurrent_step_is_a_runtime_error(self) -> None:
        tail = self.service.tail("log")
        waiting = self.step(tail)
        failure = self.failureResultOf(self.step(tail), RuntimeError)
        self.assertIn("already waiting for a step", str(failure.value))
        self.append(b"one")
        self.assertEqual(self.successResultOf(waiting).data, b"one")

    def test_a_slow_tail_misses_nothing_and_is_not_registered_between_steps(self) -> None:
        tail = self.service.tail("log")
        seen = b""
        written = b""
        for number in range(30):
            self.append(b"%d " % number)
            written += b"%d " % number
            if number % 7 == 3:
                seen += self.next(tail)
            self.assertEqual(self.watched(), [])
        self.assertEqual(seen + self.next(tail), written)

    def test_a_waiting_tail_renews_the_ttl(self) -> None:
        self.get(self.service.create("brief", "text/plain", ttl=2))
        waiting = self.step(self.service.tail("brief"))
        for _ in range(20):
            self.clock.advance(0.5)
        self.assertNoResult(waiting)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        for _ in range(6):
            self.clock.advance(0.5)
        asked = self.service.head("brief")
        self.settle()
        self.failureResultOf(asked, errors.StreamNotFound)

    def test_a_tail_fails_with_unavailable_when_the_service_stops(self) -> None:
        self.append(b"one")
        tail = self.service.tail("log")
        self.next(tail)
        waiting = self.step(tail)
        self.service.stopService()
        self.settle()
        failure = self.failureResultOf(waiting, errors.Unavailable)
        self.assertIn("Read on from the last next_offset", str(failure.value))
        self.failureResultOf(self.step(tail), errors.Unavailable)


class TurnTests(TestCase):
    """Loops that await nothing but the tail, in the running reactor."""

    def setUp(self) -> None:
        self.service = StreamService(MemoryStorage())
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def test_a_tail_that_appends_to_its_own_stream_does_not_block_the_reactor(self) -> None:
        await self.service.create("log", "text/plain", b"x")
        echoed = 0

        async def echo() -> None:
            nonlocal echoed
            async for _ in self.service.tail("log"):
                await self.service.append("log", b"x")
                echoed += 1

        echoing = Deferred.fromCoroutine(echo())
        await deferLater(reactor, 0.02)
        echoing.cancel()
        with self.assertRaises(CancelledError):
            await echoing
        self.assertGreater(echoed, 1)

    async def test_a_tail_takes_turns_however_much_data_is_left(self) -> None:
        await self.service.create("log", "text/plain")
        for _ in range(10):
            await self.service.append("log", b"x")
        await self.service.close("log")
        turns: list[str] = []

        async def follow() -> None:
            async for _ in self.service.tail("log", limit=1):
                turns.append("reading")
                end = perf_counter() + BUDGET
                while perf_counter() < end:
                    # It has enough to do to use up the time of a turn.
                    pass

        following = Deferred.fromCoroutine(follow())
        while not following.called:
            await deferLater(reactor, 0)
            turns.append("other")
        await following
        self.assertEqual(turns.count("reading"), 10)
        self.assertGreaterEqual(turns.count("other"), 9)


class LateTailTests(TailTests):
    """The same with a storage that returns Deferreds."""

    late = True

    def test_a_change_during_a_read_is_not_missed(self) -> None:
        tail = self.service.tail("log")
        stepping = Deferred.fromCoroutine(tail.__anext__())
        # The read has looked already, and its answer is on its way.
        appending = self.service.append("log", b"x", content_type="text/plain")
        self.settle()
        self.successResultOf(appending)
        self.assertEqual(self.successResultOf(stepping).data, b"x")

    def test_a_failed_read_can_be_repeated(self) -> None:
        assert isinstance(self.storage, LateStorage)
        self.append(b"x")
        self.storage.failures["read"] = [errors.Unavailable("late")]
        tail = self.service.tail("log")
        self.failureResultOf(self.step(tail), errors.Unavailable)
        self.assertEqual(self.next(tail), b"x")


#: What may happen: an append, a pause, a step that is given up, or a consumer that stops and comes again.
HAPPENINGS = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from(["pause", "cancel", "resume", "slow"]),
)


class AnyOrderTests(TailCase):
    """After any sequence of events, a consumer that resumes has read exactly the bytes of the stream."""

    def begin(self) -> None:
        """Each example begins anew."""

    def end(self) -> None:
        """And ends."""

    def check(self, happenings: list[bytes | str], limit: int) -> None:
        TailCase.begin(self)
        written, seen = b"", b""
        offset = "-1"
        following: Deferred[None] | None = None
        delay = 0.0

        async def follow() -> None:
            nonlocal seen, offset
            async for reading in self.service.tail("log", offset, limit):
                seen += reading.data
                offset = reading.next_offset
                if delay:
                    await deferLater(self.clock, delay)

        def leave() -> None:
            if following is not None:
                following.cancel()
                self.failureResultOf(following, CancelledError)
                self.assertEqual(self.watched(), [])

        pending = []
        for happening in happenings:
            if isinstance(happening, bytes):
                written += happening
                pending.append(self.service.append("log", happening))
            elif happening == "pause":
                self.clock.advance(0.001)
            elif happening == "slow":
                delay = 0.004 - delay
            else:
                leave()
                following = None if happening == "cancel" else Deferred.fromCoroutine(follow())
        leave()
        following = Deferred.fromCoroutine(follow())
        self.get(self.service.close("log"))
        for each in pending:
            self.successResultOf(each)
        for _ in range(12 * (len(happenings) + 2)):
            self.clock.advance(0.001)
        self.assertIsNone(self.successResultOf(following))
        self.assertEqual(seen, written)
        TailCase.end(self)

    @settings(deadline=None)
    @given(st.lists(HAPPENINGS, max_size=30), st.integers(1, 30))
    def test_resumed_tails_read_every_byte_once(self, happenings: list[bytes | str], limit: int) -> None:
        for self.late in (False, True):
            self.check(happenings, limit)
