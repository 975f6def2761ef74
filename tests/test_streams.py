from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidRequest, StreamNotFound, Unavailable, ValuesChanged
from durable_streams.server.interfaces import settle
from durable_streams.server.model import (
    NOW,
    START,
    Append,
    Chunk,
    Created,
    Fork,
    Lifetime,
    Offset,
    StreamConfig,
    StreamRecord,
)
from durable_streams.server.run_queue import SLICE, RunQueue
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import SWEEP_AT_ONCE, SWEEP_INTERVAL, Streams
from tests.support.clocks import SteppedClock
from tests.support.reactor import Reactor
from tests.support.stopwatch import Stopwatch

BEGIN = 1_700_000_000.0
TEXT = StreamConfig("text/plain")


def text(data: bytes, close: bool = False) -> Append:
    return Append("text/plain", data, close)


def short_lived(seconds: int = 1) -> StreamConfig:
    return StreamConfig("text/plain", Lifetime(ttl=seconds))


class BrokenStorage(MemoryStorage):
    """A storage in memory, parts of which can fail, or take their time."""

    sweep_fails = False
    slow_sweep: Deferred[int] | None = None
    slow_close: Deferred[None] | None = None
    closed = 0
    swept = 0

    def sweep(self, now: float, max_count: int) -> int | Deferred[int]:  # type: ignore[override]
        self.swept += 1
        if self.sweep_fails:
            raise Unavailable("no disk")
        return self.slow_sweep or super().sweep(now, max_count)

    def close(self) -> Deferred[None] | None:  # type: ignore[override]
        self.closed += 1
        return self.slow_close


class StreamsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SteppedClock()
        self.clock.rightNow = BEGIN
        self.storage = BrokenStorage()
        self.streams = Streams(self.storage, self.clock)
        self.streams.startService()
        self.addCleanup(self.streams.stopService)

    def create(self, name: str, config: StreamConfig = TEXT, body: bytes = b"") -> Created:
        created = self.streams.create(name, config, body)
        assert not isinstance(created, Deferred)
        return created

    def read(self, name: str) -> Chunk:
        chunk = self.streams.read(name, START, 1000)
        assert not isinstance(chunk, Deferred)
        return chunk

    def names(self) -> list[str]:
        statuses = self.streams.statuses()
        assert not isinstance(statuses, Deferred)
        return [status.facts.name for status in statuses]

    def kept(self) -> set[str]:
        """Return the names of the stored streams, including expired ones that are not removed yet."""
        return set(self.storage._catalogue.streams)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock in small steps."""
        self.clock.pump([0.1] * round(seconds * 10))


class SteppedWallClockTests(StreamsTests):
    """The wall clock is set while intervals go on."""

    def test_a_ttl_stream_that_was_read_a_second_ago_stays_when_the_clock_is_set_forward(self) -> None:
        self.create("a", short_lived(600))
        self.read("a")
        self.pass_time(1)
        self.clock.step(3600)
        self.pass_time(10)
        self.assertEqual(self.kept(), {"a"})
        self.pass_time(580)
        self.assertEqual(self.kept(), {"a"})
        self.pass_time(11)
        self.assertEqual(self.kept(), set())

    def test_a_ttl_stream_expires_in_time_when_the_clock_is_set_back(self) -> None:
        self.create("a", short_lived(10))
        self.clock.step(-3600)
        self.pass_time(9)
        self.assertEqual(self.kept(), {"a"})
        self.pass_time(2)
        self.assertEqual(self.kept(), set())

    def test_expires_at_follows_the_clock_within_a_sweep(self) -> None:
        self.create("a", StreamConfig("text/plain", Lifetime(expires_at=BEGIN + 600)))
        self.clock.step(-3600)
        self.pass_time(1200)
        self.assertEqual(self.kept(), {"a"})
        self.clock.step(3600)
        self.pass_time(2 * SWEEP_INTERVAL)
        self.assertEqual(self.kept(), set())

    def test_a_step_of_the_clock_is_logged_once(self) -> None:
        with capturedLogs() as events:
            self.clock.step(-3600)
            self.pass_time(5)
        self.assertEqual([(event["log_level"], event["step"]) for event in events], [(LogLevel.warn, -3600)])

    def test_a_clock_that_is_not_set_is_not_logged(self) -> None:
        with capturedLogs() as events:
            self.pass_time(5)
        self.assertEqual(events, [])

    def test_a_stream_recreated_after_the_clock_was_set_back_has_a_greater_incarnation(self) -> None:
        before = self.create("a").facts
        self.streams.delete("a")
        self.clock.step(-3600)
        self.pass_time(1)
        after = self.create("a").facts
        self.assertGreater(after.incarnation, before.incarnation)


class OperationTests(StreamsTests):
    def test_a_stream_is_created_appended_to_read_described_and_deleted(self) -> None:
        created = self.create("a", body=b"one")
        self.streams.append("a", text(b"two", close=True))
        chunk = self.read("a")
        self.assertEqual((b"onetwo", 6, True), (chunk.data, chunk.tail, chunk.closed))
        self.assertEqual(b"net", self.streams.read_range(created.facts, 1, 4))
        status = self.streams.status("a")
        assert not isinstance(status, Deferred)
        self.assertEqual((created.facts, 6, True), (status.facts, status.tail, status.closed))
        self.streams.delete("a")
        self.assertRaises(StreamNotFound, self.read, "a")
        self.assertEqual([], self.names())

    def test_operations_happen_at_the_time_of_the_clock(self) -> None:
        self.create("a")
        self.clock.advance(5)
        self.streams.append("a", text(b"x"))
        status = self.streams.status("a")
        assert not isinstance(status, Deferred)
        self.assertEqual((BEGIN, BEGIN + 5), (status.created_at, status.updated_at))

    def test_a_read_ends_at_the_limit_or_with_a_whole_append(self) -> None:
        self.create("a", body=b"one")
        self.streams.append("a", text(b"two"))
        cut, whole = self.streams.read("a", START, 2), self.streams.read("a", START, 2, whole=True)
        assert not isinstance(cut, Deferred)
        assert not isinstance(whole, Deferred)
        self.assertEqual((b"on", 0, b"on", 1), (cut.data, cut.more, whole.data, whole.more))

    def test_a_reader_at_the_tail_finds_nothing(self) -> None:
        self.create("a", body=b"one")
        chunk = self.streams.read("a", NOW, 10)
        assert not isinstance(chunk, Deferred)
        self.assertEqual((3, b"", 3), (chunk.start, chunk.data, chunk.tail))

    def test_all_streams_are_read_in_pages_that_are_not_empty(self) -> None:
        for name in ("a/1", "a/2", "b/1", "b/2", "b/3", "b/4"):
            self.create(name)

        async def pages(after: str, prefix: str, size: int) -> list[list[str]]:
            return [
                [status.facts.name for status in page] async for page in self.streams.status_pages(after, prefix, size)
            ]

        for after, prefix, size, expected in (
            ("", "", 4, [["a/1", "a/2", "b/1", "b/2"], ["b/3", "b/4"]]),
            ("", "b/", 2, [["b/1", "b/2"], ["b/3", "b/4"]]),
            ("b/1", "b/", 9, [["b/2", "b/3", "b/4"]]),
            ("", "c", 2, []),
        ):
            found = self.successResultOf(Deferred.fromCoroutine(pages(after, prefix, size)))
            self.assertEqual(found, expected)


class WatchTests(StreamsTests):
    def setUp(self) -> None:
        super().setUp()
        self.woken = 0
        self.create("a", short_lived())
        self.streams.watch("a", self.wake)
        self.clock.advance(0.1)
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def test_watchers_are_woken_after_the_writer_is_answered(self) -> None:
        self.streams.append("a", text(b"x"))
        self.assertEqual(0, self.woken)
        self.clock.advance(0)
        self.assertEqual(1, self.woken)

    def test_closing_deleting_and_recreating_wake_watchers(self) -> None:
        for expected, change in enumerate(
            (
                lambda: self.streams.append("a", Append(None, b"", close=True)),
                lambda: self.streams.delete("a"),
                lambda: self.streams.create("a", TEXT, b""),
            ),
            1,
        ):
            change()
            self.clock.advance(0.1)
            self.assertEqual(expected, self.woken)

    def test_operations_without_a_change_wake_no_watcher(self) -> None:
        self.read("a")
        self.streams.status("a")
        self.streams.create("a", short_lived(), b"ignored")
        self.clock.advance(0.1)
        self.assertEqual(0, self.woken)

    def test_an_unwatched_watcher_is_not_woken(self) -> None:
        self.streams.unwatch("a", self.wake)
        self.streams.append("a", text(b"x"))
        self.clock.advance(0.1)
        self.assertEqual(0, self.woken)

    def test_expiry_at_expires_at_wakes_watchers(self) -> None:
        self.create("b", StreamConfig("text/plain", Lifetime(expires_at=BEGIN + 2)))
        self.streams.watch("b", self.wake)
        self.clock.advance(0)
        self.woken = 0
        self.pass_time(3)
        self.assertEqual(1, self.woken)
        self.assertEqual(["a"], self.names())

    def test_watching_a_stream_renews_its_ttl(self) -> None:
        self.create("b", short_lived())
        self.pass_time(10)
        self.assertEqual(["a"], self.names())
        self.streams.unwatch("a", self.wake)
        self.pass_time(2)
        self.assertEqual([], self.names())

    def test_watching_a_missing_stream_does_nothing(self) -> None:
        self.streams.watch("none", self.wake)
        self.create("b", short_lived())
        self.pass_time(3)
        self.assertEqual({"a"}, self.kept())


class ObserverTests(StreamsTests):
    def setUp(self) -> None:
        super().setUp()
        self.observed: list[str] = []

    def test_each_committed_change_is_observed_before_the_next_turn(self) -> None:
        self.streams.observe(self.observed.append)
        self.create("a")
        self.streams.append("a", text(b"x"))
        self.streams.delete("a")
        self.assertEqual(self.observed, ["a"] * 3)

    def test_values_and_refusals_are_not_observed(self) -> None:
        self.create("a")
        self.streams.observe(self.observed.append)
        self.streams.write_values({"a": b"1"}, {})
        self.assertRaises(StreamNotFound, self.streams.append, "b", text(b"x"))
        self.assertEqual(self.observed, [])

    def test_watchers_are_woken_with_an_observer_as_without(self) -> None:
        woken: list[str] = []
        self.create("a")
        self.streams.observe(self.observed.append)
        self.streams.watch("a", lambda: woken.append("a"))
        self.streams.append("a", text(b"x"))
        self.clock.advance(0)
        self.assertEqual(woken, ["a"])

    def test_changes_of_quiet_streams_are_not_observed_but_wake_watchers(self) -> None:
        quiet, woken = {"a"}, list[str]()
        self.streams.observe(self.observed.append, quiet)
        self.streams.watch("a", lambda: woken.append("a"))
        self.create("a")
        self.create("b")
        self.clock.advance(0)
        self.assertEqual((self.observed, woken), (["b"], ["a"]))
        quiet.discard("a")
        self.streams.append("a", text(b"x"))
        self.assertEqual(self.observed, ["b", "a"])

    def test_a_new_observer_replaces_the_one_before_and_none_removes_it(self) -> None:
        later: list[str] = []
        self.streams.observe(self.observed.append)
        self.streams.observe(later.append)
        self.create("a")
        self.streams.observe(None)
        self.create("b")
        self.assertEqual((self.observed, later), ([], ["a"]))

    def test_without_an_observer_the_storage_notifies_the_watchers_directly(self) -> None:
        listeners: list[object] = []
        self.storage.listen = listeners.append  # type: ignore[method-assign, assignment]
        self.streams.observe(self.observed.append)
        self.streams.observe(None)
        self.assertIs(listeners[1], self.streams._waiting)

    def test_a_failing_observer_is_logged_and_the_change_succeeds(self) -> None:
        self.streams.observe(lambda name: 1 // 0)  # type: ignore[arg-type]
        created = self.create("a")
        self.assertTrue(created.new)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_expiry_is_observed_when_it_is_swept(self) -> None:
        self.create("a", short_lived())
        self.streams.observe(self.observed.append)
        self.clock.advance(1 + SWEEP_INTERVAL)
        self.assertEqual(self.observed, ["a"])


class ValueTests(StreamsTests):
    def test_values_are_those_of_the_storage(self) -> None:
        self.streams.write_values({"a/1": b"1", "b": b"2"}, {"a/1": None})
        self.assertEqual(self.streams.values("a/"), [("a/1", b"1")])
        self.assertRaises(ValuesChanged, self.streams.write_values, {"b": None}, {"b": b"1"})
        self.assertEqual(self.streams.values("", "a/1", 1), [("b", b"2")])

    def test_values_are_unavailable_until_the_service_is_started(self) -> None:
        streams = Streams(MemoryStorage(), self.clock)
        self.assertRaises(Unavailable, streams.values)
        self.assertRaises(Unavailable, streams.write_values, {}, {})


class LifetimeTests(StreamsTests):
    def test_expired_streams_are_removed_by_sweeps(self) -> None:
        self.create("a", short_lived(1))
        self.create("b", short_lived(5))
        self.create("c", StreamConfig("text/plain", Lifetime(expires_at=BEGIN + 1)))
        self.create("d")
        self.pass_time(2)
        self.assertEqual({"b", "d"}, self.kept())
        self.pass_time(5)
        self.assertEqual({"d"}, self.kept())

    def test_reading_and_writing_renew_a_ttl(self) -> None:
        for name in ("read", "written", "left"):
            self.create(name, short_lived(2))
        for _ in range(4):
            self.pass_time(1)
            self.read("read")
            self.streams.append("written", text(b"x"))
        self.assertEqual({"read", "written"}, self.kept())

    def test_status_and_range_reads_do_not_renew_a_ttl(self) -> None:
        for name in ("described", "read on"):
            self.create(name, short_lived(2))
        self.pass_time(1.5)
        self.streams.status("described")
        self.streams.statuses()
        self.streams.read("read on", START, 10, renew=False)
        self.pass_time(1.5)
        self.assertEqual(set(), self.kept())

    def test_records_and_append_ends_are_those_of_the_storage(self) -> None:
        facts = self.create("a/b", body=b"hello").facts
        self.streams.append("a/b", text(b"x"))
        record = self.streams.record("a/b")
        assert isinstance(record, StreamRecord)
        self.assertEqual((record.facts, record.tail, record.config), (facts, 6, TEXT))
        self.assertEqual(self.streams.append_ends(facts, 0, 10), [5, 6])
        self.create("b")
        self.assertEqual(len(self.streams.statuses("", 10, "a/")), 1)  # type: ignore[arg-type]

    def test_an_expired_stream_is_not_found_before_it_is_removed(self) -> None:
        self.create("a", short_lived(2))
        self.pass_time(1.9)
        self.assertEqual(["a"], self.names())
        self.clock.rightNow = BEGIN + 2
        self.assertEqual(([], {"a"}), (self.names(), self.kept()))
        self.assertRaises(StreamNotFound, self.read, "a")

    def test_a_source_that_expires_keeps_its_data_for_its_forks(self) -> None:
        self.create("source", short_lived(1), b"one")
        self.create("fork", StreamConfig(lifetime=Lifetime(ttl=60), fork=Fork("source")), b"two")
        self.pass_time(3)
        self.assertEqual(["fork"], self.names())
        self.assertEqual(b"onetwo", self.read("fork").data)

    def test_many_expired_streams_are_removed_in_slices(self) -> None:
        for number in range(2 * SWEEP_AT_ONCE + 1):
            self.create(str(number), short_lived(1))
        turns: list[int] = []

        def others() -> None:
            turns.append(len(self.kept()))
            if self.kept():
                self.clock.callLater(0, others)

        self.clock.callLater(1.5, others)
        self.clock.advance(1.5)
        self.assertEqual([SWEEP_AT_ONCE + 1, 1, 0], sorted(set(turns), reverse=True)[-3:])


class FailureTests(StreamsTests):
    def test_a_sweep_that_raises_is_retried_and_logged_once(self) -> None:
        self.create("a", short_lived(1))
        self.storage.sweep_fails = True
        with capturedLogs() as events:
            self.pass_time(2.5)
        self.assertGreater(self.storage.swept, 1)
        self.assertEqual({"a"}, self.kept())
        told = [event for event in events if "Removing expired streams failed" in (event["log_format"] or "")]
        self.assertEqual([LogLevel.warn], [event["log_level"] for event in told])
        self.storage.sweep_fails = False
        self.pass_time(1)
        self.assertEqual(set(), self.kept())

    def test_a_sweep_that_fails_later_is_retried_and_logged(self) -> None:
        self.storage.slow_sweep = Deferred()
        self.clock.advance(SWEEP_INTERVAL)
        self.storage.slow_sweep.errback(ZeroDivisionError())
        self.storage.slow_sweep = None
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.clock.advance(SWEEP_INTERVAL)
        self.assertEqual(2, self.storage.swept)

    def test_sweeps_do_not_overlap(self) -> None:
        self.storage.slow_sweep = Deferred()
        self.pass_time(5)
        self.assertEqual(1, self.storage.swept)
        slow, self.storage.slow_sweep = self.storage.slow_sweep, None
        slow.callback(0)
        self.pass_time(1)
        self.assertGreater(self.storage.swept, 1)


class StopTests(StreamsTests):
    def test_draining_wakes_all_watchers_after_setting_the_flag(self) -> None:
        seen: list[bool] = []
        self.create("a")
        self.streams.watch("a", lambda: seen.append(self.streams.draining))
        self.assertFalse(self.streams.draining)
        self.streams.drain()
        self.clock.advance(0.1)
        self.assertEqual([True], seen)

    def test_a_service_that_drains_still_reads_and_writes(self) -> None:
        self.create("a")
        self.streams.drain()
        self.streams.append("a", text(b"x"))
        self.assertEqual(b"x", self.read("a").data)

    def test_stopping_drains_ends_sweeps_and_closes_the_storage(self) -> None:
        woken: list[None] = []
        self.create("a", short_lived(1))
        self.streams.watch("a", lambda: woken.append(None))
        self.clock.advance(0.1)
        woken.clear()
        self.successResultOf(self.streams.stopService())
        self.assertEqual((True, 1), (self.streams.draining, self.storage.closed))
        swept = self.storage.swept
        self.pass_time(3)
        self.assertEqual((swept, [None]), (self.storage.swept, woken))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_the_service_runs_until_it_is_stopped(self) -> None:
        self.assertTrue(self.streams.running)
        self.successResultOf(self.streams.stopService())
        self.assertFalse(self.streams.running)

    def test_stopping_waits_for_the_storage(self) -> None:
        self.storage.slow_close = Deferred()
        stopped = self.streams.stopService()
        self.assertNoResult(stopped)
        self.storage.slow_close.callback(None)
        self.successResultOf(stopped)

    def test_stopping_fails_if_the_storage_cannot_be_closed(self) -> None:
        self.storage.slow_close = Deferred()
        stopped = self.streams.stopService()
        self.storage.slow_close.errback(Unavailable("no disk"))
        self.failureResultOf(stopped, Unavailable)
        self.storage.slow_close = None

    def test_a_service_that_never_started_can_be_stopped(self) -> None:
        storage = BrokenStorage()
        streams = Streams(storage, self.clock)
        self.successResultOf(streams.stopService())
        self.assertEqual(1, storage.closed)


class LongForkTests(SynchronousTestCase):
    """Forks that diverge inside a long append of JSON messages."""

    def setUp(self) -> None:
        self.clock = Reactor()
        self.clock.rightNow = BEGIN
        # Whoever looks at the time has spent half a slice of it.
        self.stopwatch = Stopwatch(SLICE / 2)
        self.storage = MemoryStorage()
        turns = RunQueue(self.clock, self.stopwatch)
        self.streams = Streams(self.storage, self.clock, turns)
        self.streams.startService()
        self.addCleanup(self.streams.stopService)
        self.source = self.make("source")

    def make(self, name: str) -> Created:
        created = self.streams.create(name, StreamConfig("application/json"), b"[" + b"1," * 19_999 + b"1]")
        assert not isinstance(created, Deferred)
        return created

    def fork(self, sub_offset: int, offset: Offset = START) -> Deferred[Created]:
        config = StreamConfig(fork=Fork("source", offset, sub_offset))

        async def create() -> Created:
            return await settle(self.streams.create("fork", config, b""))

        return Deferred.fromCoroutine(create())

    def test_the_divergence_is_searched_in_slices_of_time(self) -> None:
        for messages in (10_000, 20_000):
            forked = self.fork(messages)
            self.assertFalse(forked.called)
            turns = self.pass_turns(forked)
            created = self.successResultOf(forked)
            self.assertEqual((created.tail, created.facts.incarnation), (2 * messages, self.source.facts.incarnation))
            self.streams.delete("fork")
        self.assertGreater(turns, 3)

    def test_creating_an_existing_fork_returns_it(self) -> None:
        for new in (True, False):
            forked = self.fork(9_000, Offset(self.source.facts.incarnation, 10))
            self.pass_turns(forked)
            created = self.successResultOf(forked)
            self.assertEqual((created.new, created.tail), (new, 18_010))

    def test_a_sub_offset_past_the_append_is_rejected(self) -> None:
        for sub_offset, offset in ((20_001, 0), (2**53 - 1, 0), (0, 11), (10_000, 20_002)):
            forked = self.fork(sub_offset, Offset(self.source.facts.incarnation, offset))
            self.pass_turns(forked)
            self.failureResultOf(forked, InvalidRequest)

    def test_a_source_deleted_during_the_search_is_not_found(self) -> None:
        forked = self.fork(20_000)
        self.clock.turn()
        self.streams.delete("source")
        self.pass_turns(forked)
        self.failureResultOf(forked, StreamNotFound)

    def test_a_fork_point_in_a_source_that_was_recreated_meanwhile_is_not_used(self) -> None:
        forked = self.fork(20_000)
        self.clock.turn()
        self.streams.delete("source")
        self.streams.create("source", StreamConfig("application/json"), b"[1,2]")
        self.pass_turns(forked)
        self.failureResultOf(forked, InvalidRequest)

    def test_a_source_recreated_during_the_search_is_searched_again_in_slices(self) -> None:
        forked = self.fork(20_000)
        turns = self.pass_turns(forked)
        self.streams.delete("fork")
        forked = self.fork(20_000)
        for _ in range(turns - 1):
            self.clock.turn()
        self.streams.delete("source")
        anew = self.make("source")
        self.assertGreaterEqual(self.pass_turns(forked), turns)
        created = self.successResultOf(forked)
        self.assertEqual((created.tail, created.facts.incarnation), (40_000, anew.facts.incarnation))

    def test_a_fork_of_a_hidden_source_is_compared_in_slices(self) -> None:
        forked = self.fork(20_000)
        self.pass_turns(forked)
        self.streams.delete("source")
        again = self.fork(19_999, Offset(self.source.facts.incarnation, 2))
        self.assertFalse(again.called)
        self.assertGreater(self.pass_turns(again), 3)
        self.assertFalse(self.successResultOf(again).new)

    def test_the_search_result_is_not_part_of_the_configuration(self) -> None:
        forked = self.fork(20_000)
        self.pass_turns(forked)
        fork = self.storage._catalogue.streams["fork"].config.fork
        self.assertEqual(Fork("source", START, 20_000), fork)
        self.assertEqual(("source", "offset", "sub_offset"), Fork.__struct_fields__)

    def pass_turns(self, forked: Deferred[Created]) -> int:
        """Run turns of the reactor until the fork is created; return their number."""
        turns = 0
        while not forked.called:
            self.clock.turn()
            turns += 1
            self.assertLess(turns, 1000)
        return turns
