"""Tests of the lazily written uses of streams, on a Clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.errors import Unavailable
from durable_streams.server.model import Lifetime, StreamConfig
from durable_streams.server.storage.entry import facts_of
from durable_streams.server.storage.postgres.heads import Head
from durable_streams.server.storage.postgres.uses import Uses

NOW = 1000.0


def head(stream_id: int = 1, ttl: int | None = 100, used_at: float = NOW, read_at: float = NOW) -> Head:
    facts = facts_of(f"s{stream_id}", stream_id, stream_id, "text/plain")
    return Head(
        facts, StreamConfig(), Lifetime(ttl), NOW, NOW, used_at, False, False, 0, 0, None, 0, None, 0, 0, 1, read_at
    )


class UseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[dict[int, float]] = []
        self.writes: list[Deferred[Any]] = []
        self.uses = Uses(self.write, self.clock)

    def write(self, uses: Mapping[int, float]) -> Deferred[Any]:
        self.written.append(dict(uses))
        self.writes.append(Deferred())
        return self.writes[-1]

    def test_a_use_is_known_at_once_and_written_within_a_tenth_of_the_ttl(self) -> None:
        self.uses.note(head(read_at=NOW + 3))
        self.assertEqual((self.uses.last_use(1), self.uses.last_use(2)), (NOW + 3, 0.0))
        self.clock.advance(6.9)
        self.assertEqual(self.written, [])
        self.clock.advance(0.2)
        self.assertEqual(self.written, [{1: NOW + 3}])
        self.writes[0].callback(None)
        self.assertEqual((self.uses.last_use(1), self.clock.getDelayedCalls()), (NOW + 3, []))

    def test_a_written_use_is_remembered_as_long_as_look_ups_may_not_show_it(self) -> None:
        for number in range(1, 4):
            self.uses.note(head(number, read_at=NOW + 50))
            self.clock.advance(0)
            self.writes[-1].callback(None)
            self.assertEqual(self.uses.last_use(number), NOW + 50)
            self.clock.advance(30)
        self.assertEqual([self.uses.last_use(each) for each in (1, 2, 3)], [0.0, NOW + 50, NOW + 50])

    def test_the_time_of_the_write_does_not_depend_on_the_wall_clock(self) -> None:
        reactor = cast("Any", Clock())
        reactor.seconds = time.time
        steady = clock_of(reactor)
        reactor.callWhenRunning = lambda _: None
        Uses(self.write, reactor).note(head(read_at=NOW + 3))
        self.assertEqual(1, len(steady.getDelayedCalls()))

    def test_a_use_after_a_long_pause_is_written_at_once(self) -> None:
        self.uses.note(head(read_at=NOW + 50))
        self.clock.advance(0)
        self.assertEqual(self.written, [{1: NOW + 50}])

    def test_a_stream_without_a_ttl_has_no_uses(self) -> None:
        self.uses.note(head(ttl=None, read_at=NOW + 50))
        self.uses.note(replace(head(read_at=NOW + 50), deleted=True))
        self.assertEqual((self.uses.last_use(1), self.clock.getDelayedCalls()), (0.0, []))

    def test_many_uses_of_one_stream_are_one_write_of_the_last(self) -> None:
        for seconds in range(10):
            self.uses.note(head(read_at=NOW + seconds))
        self.clock.advance(10)
        self.assertEqual(self.written, [{1: NOW + 9}])

    def test_the_uses_of_all_streams_are_written_together_when_the_first_is_due(self) -> None:
        self.uses.note(head(1, 1000, read_at=NOW + 1))
        self.uses.note(head(2, 10, read_at=NOW + 0.5))
        self.clock.advance(0.6)
        self.assertEqual(self.written, [{1: NOW + 1, 2: NOW + 0.5}])

    def test_a_use_during_a_write_is_written_by_the_next_one(self) -> None:
        self.uses.note(head(read_at=NOW + 10))
        self.clock.advance(0)
        self.uses.note(head(read_at=NOW + 20, used_at=NOW + 10))
        self.writes[0].callback(None)
        self.assertEqual(self.uses.last_use(1), NOW + 20)
        self.clock.advance(0)
        self.assertEqual(self.written[1:], [{1: NOW + 20}])

    def test_a_failed_write_is_repeated(self) -> None:
        self.uses.note(head(read_at=NOW + 10))
        self.clock.advance(0)
        self.writes[0].errback(Unavailable("The database is away."))
        self.assertEqual(self.uses.last_use(1), NOW + 10)
        self.clock.advance(1)
        self.assertEqual(len(self.written), 2)
        self.writes[1].errback(ValueError("unexpected"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.clock.advance(1)
        self.writes[2].callback(None)
        self.assertEqual((self.uses.last_use(1), self.clock.getDelayedCalls()), (NOW + 10, []))

    def test_the_use_of_a_stream_that_others_have_locked_is_tried_again(self) -> None:
        self.uses.note(head(1, read_at=NOW + 10))
        self.uses.note(head(2, read_at=NOW + 10))
        self.clock.advance(0)
        self.writes[0].callback(frozenset([2]))
        self.assertEqual([self.uses.last_use(each) for each in (1, 2)], [NOW + 10, NOW + 10])
        self.clock.advance(1)
        self.assertEqual(self.written[1:], [{2: NOW + 10}])
        self.writes[1].callback(frozenset())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_uses_are_written_in_parts_before_they_are_due(self) -> None:
        for number in range(10_000):
            self.uses.note(head(number, 10**9, read_at=NOW + 1))
        while self.clock.getDelayedCalls():
            self.clock.advance(0)
            self.writes[-1].callback(None)
        self.assertEqual({number for part in self.written for number in part}, set(range(10_000)))
        self.assertLessEqual(max(map(len, self.written)), 1_000)

    def test_a_removed_stream_is_forgotten(self) -> None:
        self.uses.note(head(read_at=NOW + 50))
        self.clock.advance(0)
        self.writes[0].callback(None)
        self.uses.note(head(read_at=NOW + 51))
        self.uses.forget(1)
        self.uses.forget(1)
        self.assertEqual(self.uses.last_use(1), 0.0)

    def test_uses_that_are_left_are_written_at_the_end(self) -> None:
        self.uses.note(head(read_at=NOW + 1))
        stopped = Deferred.fromCoroutine(self.uses.stop())
        self.assertEqual(self.written, [{1: NOW + 1}])
        self.assertNoResult(stopped)
        self.writes[0].callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_end_does_not_wait_for_a_database_that_is_away(self) -> None:
        self.uses.note(head(read_at=NOW + 1))
        stopped = Deferred.fromCoroutine(self.uses.stop())
        self.writes[0].errback(Unavailable("The database is away."))
        self.successResultOf(stopped)
        self.assertEqual((len(self.written), self.clock.getDelayedCalls()), (1, []))
