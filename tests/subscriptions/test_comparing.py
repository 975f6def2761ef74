"""Streams that were created lately, on whatever node."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.interfaces import ISharedStorage
from durable_streams.server.run_queue import RunQueue
from durable_streams.server.subscriptions import comparing
from durable_streams.server.subscriptions.comparing import CreatedStreams


class Ids:
    """The ids and names of the streams of a storage, in the order of their creation."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []
        self.reads = 0

    def create(self, count: int) -> None:
        """Create streams."""
        begin = len(self.rows) + 1
        self.rows += [(number, f"stream-{number}") for number in range(begin, begin + count)]

    def last_id(self) -> int:
        return len(self.rows)

    def created_after(self, stream_id: int) -> list[tuple[int, str]]:
        self.reads += 1
        return self.rows[max(stream_id, 0) :]


class CreatedStreamsTests(SynchronousTestCase):
    """The names of streams that were created in the last minute."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ids = Ids()
        self.announced: list[str] = []
        self.streams = CreatedStreams(
            cast(ISharedStorage, self.ids), self.clock.seconds, self.announced.append, RunQueue(self.clock)
        )
        self.get(self.streams.start())

    def get(self, coroutine: Any) -> Any:
        outcome = Deferred.fromCoroutine(coroutine)
        while not outcome.called:
            self.clock.advance(0)
        return self.successResultOf(outcome)

    async def scan(self) -> None:
        await self.streams.scan()

    def pass_time(self, seconds: int, creations: int = 0) -> None:
        """Scan once a second, while streams are created."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.ids.create(creations)
            self.get(self.streams.lately())

    def test_names_are_forgotten_after_a_minute(self) -> None:
        self.pass_time(1, 3)
        self.assertEqual(self.get(self.streams.lately()), ["stream-1", "stream-2", "stream-3"])
        self.pass_time(90)
        self.assertEqual(self.get(self.streams.lately()), [])

    def test_a_stream_is_announced_once(self) -> None:
        self.pass_time(40, 2)
        self.assertEqual(sorted(self.announced), sorted(name for _, name in self.ids.rows))

    def test_no_more_names_are_kept_than_the_maximum(self) -> None:
        self.patch(comparing, "_MAX_RECENT", 50)
        self.pass_time(30, 20)
        kept = sum(len(names) for _, names in self.streams._recent)
        self.assertLessEqual(kept, 50)
        self.assertEqual(kept, self.streams._recent_count)

    def test_names_that_are_not_kept_are_read_again(self) -> None:
        self.patch(comparing, "_MAX_RECENT", 50)
        self.pass_time(30, 20)
        self.assertEqual(self.get(self.streams.lately()), [name for _, name in self.ids.rows])

    def test_after_a_minute_with_few_creations_nothing_is_read_again(self) -> None:
        self.patch(comparing, "_MAX_RECENT", 50)
        self.pass_time(10, 20)
        self.pass_time(61, 0)
        self.ids.create(1)
        reads = self.ids.reads
        self.assertEqual(self.get(self.streams.lately()), [self.ids.rows[-1][1]])
        self.assertEqual(self.ids.reads - reads, 1)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), min_size=1, max_size=12), st.integers(1, 200))
    def test_whatever_was_created_in_the_last_minute_is_found(
        self, periods: list[tuple[int, int]], maximum: int
    ) -> None:
        self.setUp()
        self.patch(comparing, "_MAX_RECENT", maximum)
        created_at: dict[str, float] = {}
        for seconds, creations in periods:
            for _ in range(seconds):
                self.clock.advance(1)
                self.ids.create(creations)
                created_at.update({name: self.clock.seconds() for _, name in self.ids.rows[len(created_at) :]})
                self.get(self.scan())
        wanted = {name for name, at in created_at.items() if at >= self.clock.seconds() - 60}
        found = self.get(self.streams.lately())
        self.assertLessEqual(wanted, set(found))
        self.assertEqual(len(found), len(set(found)))
        self.assertEqual(sorted(self.announced), sorted(created_at))
