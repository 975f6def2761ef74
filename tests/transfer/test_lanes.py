from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StorageFull
from durable_streams.server.transfer.lanes import MAX_BYTES, MAX_STREAMS, LaneFailed, Lanes


class World:
    """
    Streams that are written when a test says so.

    :ivar open: the Deferreds of the streams under way, by name.
    """

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.open: dict[str, Deferred[None]] = {}
        self.tries: list[str] = []
        self.written: list[str] = []

    async def write(self, name: str) -> None:
        self.tries.append(name)
        self.open[name] = Deferred()
        try:
            await self.open[name]
        finally:
            del self.open[name]
        self.written.append(name)

    async def run(self, streams: list[tuple[str, int]]) -> None:
        try:
            for name, size in streams:
                await self.lanes.room(size)
                self.lanes.start(name, size, partial(self.write, name))
            await self.lanes.finish()
        finally:
            await self.lanes.stop()


class LanesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def run_all(self, *streams: tuple[str, int]) -> Deferred[None]:
        return Deferred.fromCoroutine(self.world.run(list(streams)))

    def test_streams_are_limited_in_number(self) -> None:
        run = self.run_all(*((str(number), 1) for number in range(MAX_STREAMS + 2)))
        self.assertEqual(len(self.world.open), MAX_STREAMS)
        self.world.open["5"].callback(None)
        self.assertEqual(len(self.world.open), MAX_STREAMS)
        self.assertIn(str(MAX_STREAMS), self.world.open)
        while self.world.open:
            next(iter(self.world.open.values())).callback(None)
        self.assertIsNone(self.successResultOf(run))
        self.assertEqual(len(self.world.written), MAX_STREAMS + 2)

    def test_streams_are_limited_in_bytes_and_a_large_one_is_alone(self) -> None:
        run = self.run_all(("a", MAX_BYTES // 2), ("b", MAX_BYTES // 2), ("c", 10 * MAX_BYTES), ("d", 1))
        for names in (["a", "b"], ["b"], ["c"], ["d"]):
            self.assertEqual(list(self.world.open), names)
            self.world.open[names[0]].callback(None)
        self.successResultOf(run)

    def test_what_fails_beside_others_is_tried_again_alone(self) -> None:
        run = self.run_all(("a", 1), ("b", 1), ("c", 1), ("d", 1))
        self.world.open["c"].errback(StorageFull("c", 1))
        self.world.open["b"].errback(StorageFull("b", 1))
        self.world.open["d"].callback(None)
        self.world.open["a"].callback(None)
        for name in "bc":
            self.assertEqual(list(self.world.open), [name])
            self.world.open[name].callback(None)
        self.successResultOf(run)
        self.assertEqual(self.world.written, ["d", "a", "b", "c"])

    def test_a_failure_ends_the_others_first_and_names_those_that_are_done_after_it(self) -> None:
        streams = [(str(number), 1) for number in range(MAX_STREAMS + 2)]
        run = self.run_all(*streams)
        self.world.open["1"].errback(StorageFull("1", 1))
        # Nothing more is begun.
        for number in range(MAX_STREAMS - 1, 1, -1):
            self.world.open[str(number)].callback(None)
        self.assertNoResult(run)
        self.world.open["0"].callback(None)
        error = StorageFull("1", 1)
        self.world.open["1"].errback(error)
        failed = self.failureResultOf(run, LaneFailed).value
        self.assertEqual((failed.name, failed.error), ("1", error))
        self.assertEqual(failed.later, tuple(str(number) for number in range(2, MAX_STREAMS)))
        self.assertEqual(self.world.tries, [*(str(number) for number in range(MAX_STREAMS)), "1"])

    def test_to_cancel_it_cancels_all(self) -> None:
        run = self.run_all(*((str(number), 1) for number in range(MAX_STREAMS + 2)))
        run.cancel()
        self.failureResultOf(run, CancelledError)
        self.assertEqual((self.world.open, self.world.written), ({}, []))

    def test_a_stream_that_was_tried_is_awaited(self) -> None:
        lanes = self.world.lanes
        number = lanes.start("a", 1, partial(self.world.write, "a"))
        waited = lanes.running(number)
        self.assertNoResult(waited)
        self.world.open["a"].callback(None)
        self.successResultOf(waited)
        self.successResultOf(lanes.running(number))

    @given(st.lists(st.sampled_from([1, MAX_BYTES // 3, 2 * MAX_BYTES]), max_size=12), st.integers(0, 4095), st.data())
    def test_whatever_fails_all_before_the_failure_and_the_named_ones_are_written(
        self, sizes: list[int], mask: int, data: st.DataObject
    ) -> None:
        choices = data.draw(st.lists(st.integers(0, 11), min_size=2 * len(sizes), max_size=2 * len(sizes)))
        world = self.world = World()
        names = [str(number) for number in range(len(sizes))]
        bad = [name for name in names if mask >> int(name) & 1]
        run = self.run_all(*zip(names, sizes, strict=True))
        while world.open:
            name = sorted(world.open)[choices.pop() % len(world.open)]
            if name in bad:
                world.open[name].errback(StorageFull(name, 1))
            else:
                world.open[name].callback(None)
        self.assertEqual(len(set(world.written)), len(world.written))
        if not bad:
            self.successResultOf(run)
            self.assertEqual(sorted(world.written), sorted(names))
            return
        failed = self.failureResultOf(run, LaneFailed).value
        before = names[: names.index(failed.name)]
        self.assertEqual(failed.name, bad[0])
        self.assertEqual(sorted([*before, *failed.later]), sorted(world.written))
