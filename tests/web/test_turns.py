"""A reader that takes everything at once leaves others their turn."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server import MemoryStorage, StorageLimits
from durable_streams.server.model import START, Append, Chunk, StreamConfig
from durable_streams.server.run_queue import BUDGET, SLICE, RunQueue
from durable_streams.server.streams import Streams
from durable_streams.server.waiting import GATHERING
from durable_streams.server.web.bodies import PIECE, Replay
from durable_streams.server.web.live import EVENT_SIZE, Live, LiveSettings, Tail
from tests.support.reactor import Reactor
from tests.support.stopwatch import Stopwatch

#: How many writes to a reader a slice of time has room for, and how many slices a turn.
WRITES = 16
SLICES = round(BUDGET / SLICE)


class Taker:
    """Takes all that it is given, and never asks for a pause."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self.received = bytearray()
        self.writes = 0
        self.finished = False

    def write(self, data: bytes) -> None:
        self.received += data
        self.writes += 1
        self._stopwatch.spend(1.001 * SLICE / WRITES)

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        raise AssertionError("aborted")


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Reactor()
        self.stopwatch = Stopwatch()
        turns = RunQueue(self.clock, self.stopwatch)
        self.streams = Streams(MemoryStorage(StorageLimits(2**30, 2**30)), self.clock, turns)
        self.streams.startService()
        self.addCleanup(self.streams.stopService)
        self.sweep = self.clock.getDelayedCalls()
        self.streams.create("a", StreamConfig("application/octet-stream"), b"")
        self.taker = Taker(self.stopwatch)

    def append(self, size: int) -> None:
        self.streams.append("a", Append("application/octet-stream", b"x" * size))

    def read(self, limit: int) -> Chunk:
        chunk = self.streams.read("a", START, limit)
        assert isinstance(chunk, Chunk)
        return chunk

    def test_a_replay_is_sent_a_slice_of_time_after_another(self) -> None:
        size = 4 * WRITES * PIECE + 5
        self.append(size)
        replay = Replay(self.streams, self.read(PIECE))
        replay.start(self.taker)
        self.assertEqual((self.taker.writes, self.taker.finished), (WRITES, False))
        self.clock.turn()
        self.assertEqual((self.taker.writes, self.taker.finished), ((1 + SLICES) * WRITES, False))
        self.clock.turn()
        self.clock.turn()
        self.assertEqual((len(self.taker.received), self.taker.finished), (size, True))

    def test_many_replays_get_no_more_time_in_a_turn_than_one(self) -> None:
        self.append(2 * WRITES * PIECE)
        replays = [Replay(self.streams, self.read(PIECE)) for _ in range(10)]
        takers = [Taker(self.stopwatch) for _ in replays]
        for replay, taker in zip(replays, takers, strict=True):
            replay.start(taker)
        self.assertEqual({WRITES}, {taker.writes for taker in takers})
        for turn in range(1, 10 // SLICES + 1):
            before = self.stopwatch.now
            self.clock.turn()
            self.assertLess(self.stopwatch.now - before, BUDGET + SLICE)
            self.assertEqual(turn * SLICES, sum(taker.writes > WRITES for taker in takers))

    def test_a_replay_that_is_paused_between_its_turns(self) -> None:
        size = 2 * WRITES * PIECE
        self.append(size)
        replay = Replay(self.streams, self.read(PIECE))
        replay.start(self.taker)
        replay.pauseProducing()
        self.clock.turn()
        self.assertEqual(self.taker.writes, WRITES)
        replay.resumeProducing()
        self.clock.turn()
        self.clock.turn()
        self.assertEqual((len(self.taker.received), self.taker.finished), (size, True))

    def test_a_replay_whose_reader_leaves_between_its_turns(self) -> None:
        self.append(2 * WRITES * PIECE)
        replay = Replay(self.streams, self.read(PIECE))
        replay.start(self.taker)
        replay.stopProducing()
        self.clock.turn()
        self.assertEqual((self.taker.writes, self.taker.finished), (WRITES, False))

    def tail(self) -> Tail:
        """Follow the stream from its start."""
        live = Live(self.streams, self.clock, LiveSettings())
        tail = Tail(live, self.read(0), None)
        tail.start(self.taker)
        return tail

    def test_a_tail_is_sent_a_slice_of_time_after_another(self) -> None:
        for _ in range(2 * WRITES):
            self.append(EVENT_SIZE)
        tail = self.tail()
        # The time is looked at from the first event on.
        self.assertEqual(self.taker.writes, WRITES + 1)
        self.clock.turn()
        self.assertEqual(self.taker.writes, 2 * WRITES)
        self.assertEqual(bytes(self.taker.received).count(b"upToDate"), 1)
        tail.stopProducing()
        self.clock.turn()
        self.assertEqual(self.clock.getDelayedCalls(), self.sweep)

    def test_a_tail_that_is_woken_while_it_is_queued_gets_no_more_time_for_it(self) -> None:
        for _ in range(10 * WRITES):
            self.append(EVENT_SIZE)
        tail = self.tail()
        for turn in range(3):
            self.append(1)
            self.clock.turn(2 * GATHERING)
            self.assertLessEqual(self.taker.writes, (WRITES + 1) * ((1 + turn) * (1 + SLICES)))
        tail.stopProducing()
        self.clock.turn()
        self.assertEqual(self.clock.getDelayedCalls(), self.sweep)
