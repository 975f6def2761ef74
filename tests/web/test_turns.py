"""A reader that takes everything at once leaves others their turn."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server import MemoryStorage, StorageLimits
from durable_streams.server.model import START, Append, Chunk, StreamConfig
from durable_streams.server.streams import Streams
from durable_streams.server.web.bodies import PIECE, PIECES_AT_ONCE, Replay
from durable_streams.server.web.live import EVENT_SIZE, EVENTS_AT_ONCE, Live, LiveSettings, Tail


class Taker:
    """Takes all that it is given, and never asks for a pause."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.writes = 0
        self.finished = False

    def write(self, data: bytes) -> None:
        self.received += data
        self.writes += 1

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        raise AssertionError("aborted")


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.streams = Streams(MemoryStorage(StorageLimits(2**30, 2**30)), self.clock)
        self.streams.startService()
        self.addCleanup(self.streams.stopService)
        self.sweep = self.clock.getDelayedCalls()
        self.streams.create("a", StreamConfig("application/octet-stream"), b"")
        self.taker = Taker()

    def append(self, size: int) -> None:
        self.streams.append("a", Append("application/octet-stream", b"x" * size))

    def read(self, limit: int) -> Chunk:
        chunk = self.streams.read("a", START, limit)
        assert isinstance(chunk, Chunk)
        return chunk

    def test_a_replay(self) -> None:
        size = 3 * PIECES_AT_ONCE * PIECE + 5
        self.append(size)
        replay = Replay(self.streams, self.read(PIECE), self.clock)
        replay.start(self.taker)
        self.assertEqual((self.taker.writes, self.taker.finished), (PIECES_AT_ONCE, False))
        self.clock.advance(0)
        self.assertEqual((len(self.taker.received), self.taker.finished), (size, True))

    def test_a_replay_that_is_paused_between_its_turns(self) -> None:
        size = 2 * PIECES_AT_ONCE * PIECE
        self.append(size)
        replay = Replay(self.streams, self.read(PIECE), self.clock)
        replay.start(self.taker)
        replay.pauseProducing()
        self.clock.advance(0)
        self.assertEqual(self.taker.writes, PIECES_AT_ONCE)
        replay.resumeProducing()
        self.clock.pump([0, 0])
        self.assertEqual((len(self.taker.received), self.taker.finished), (size, True))

    def test_a_replay_whose_reader_leaves_between_its_turns(self) -> None:
        self.append(2 * PIECES_AT_ONCE * PIECE)
        replay = Replay(self.streams, self.read(PIECE), self.clock)
        replay.start(self.taker)
        replay.stopProducing()
        self.clock.advance(0)
        self.assertEqual((self.taker.writes, self.taker.finished), (PIECES_AT_ONCE, False))

    def test_a_tail(self) -> None:
        for _ in range(2 * EVENTS_AT_ONCE):
            self.append(EVENT_SIZE)
        live = Live(self.streams, self.clock, LiveSettings())
        tail = Tail(live, self.read(0), None)
        tail.start(self.taker)
        self.assertEqual(self.taker.writes, EVENTS_AT_ONCE)
        self.clock.pump([0, 0])
        self.assertEqual(self.taker.writes, 2 * EVENTS_AT_ONCE)
        self.assertEqual(bytes(self.taker.received).count(b"upToDate"), 1)
        tail.stopProducing()
        self.assertEqual(self.clock.getDelayedCalls(), self.sweep)
