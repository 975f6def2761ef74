"""Tests that fast readers and large packets of requests do not delay other connections."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server import MemoryStorage, StorageLimits
from durable_streams.server.model import START, Append, Chunk, StreamConfig
from durable_streams.server.run_queue import BUDGET, SLICE, RunQueue
from durable_streams.server.streams import Streams
from durable_streams.server.waiting import GATHERING
from durable_streams.server.web.bodies import PIECE, Replay
from durable_streams.server.web.live import EVENT_SIZE, EventTail, Live, LiveSettings
from tests.support.cases import ChannelTestCase, get, post
from tests.support.fronts import START_TIME, Peer, WrappedFront, request
from tests.support.reactor import Reactor
from tests.support.stopwatch import Stopwatch
from tests.support.tls import TLSFront

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

    def test_a_catch_up_read_is_sent_in_slices_of_time(self) -> None:
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

    def test_many_catch_up_reads_share_the_time_of_one_turn(self) -> None:
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

    def test_a_catch_up_read_can_be_paused_between_its_turns(self) -> None:
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

    def test_a_catch_up_reader_can_disconnect_between_its_turns(self) -> None:
        self.append(2 * WRITES * PIECE)
        replay = Replay(self.streams, self.read(PIECE))
        replay.start(self.taker)
        replay.stopProducing()
        self.clock.turn()
        self.assertEqual((self.taker.writes, self.taker.finished), (WRITES, False))

    def tail(self) -> EventTail:
        """Follow the stream from its start."""
        live = Live(self.streams, self.clock, LiveSettings())
        tail = EventTail(live, self.read(0), None)
        tail.start(self.taker)
        return tail

    def test_a_tail_is_sent_in_slices_of_time(self) -> None:
        for _ in range(2 * WRITES):
            self.append(EVENT_SIZE)
        tail = self.tail()
        # The time is looked at from the first event on, which is two writes.
        self.assertEqual(self.taker.writes, WRITES + 2)
        self.clock.turn()
        self.assertLessEqual(self.taker.writes, (WRITES + 2) * (1 + SLICES))
        self.clock.turn()
        self.assertEqual(self.taker.writes, 4 * WRITES)
        self.assertEqual(bytes(self.taker.received).count(b"upToDate"), 1)
        tail.stopProducing()
        self.clock.turn()
        self.assertEqual(self.clock.getDelayedCalls(), self.sweep)

    def test_a_tail_woken_while_queued_gets_no_extra_time(self) -> None:
        for _ in range(10 * WRITES):
            self.append(EVENT_SIZE)
        tail = self.tail()
        for turn in range(3):
            self.append(1)
            self.clock.turn(2 * GATHERING)
            self.assertLessEqual(self.taker.writes, (WRITES + 2) * ((1 + turn) * (1 + SLICES)))
        tail.stopProducing()
        self.clock.turn()
        self.assertEqual(self.clock.getDelayedCalls(), self.sweep)


class PacketTests(ChannelTestCase):
    """Many requests in one packet, on a clock by which each takes a tenth of a slice of time or more."""

    #: Within how many seconds a connection is closed that has ended.
    patience = 5

    def setUp(self) -> None:
        super().setUp()
        self.stopwatch = self.front.streams.turns.seconds = Stopwatch(SLICE / 10)
        self.front.create("a", body=b"one")

    def in_one_turn(self, data: bytes) -> Peer:
        """Send data, and run one turn of the reactor."""
        peer = self.front.connect()
        peer.send_unseen(data)
        peer.look()
        return peer

    def settle(self, peer: Peer) -> list[int]:
        """Run turns until everything is answered."""
        self.front.settle()
        return peer.statuses

    def test_answers_keep_the_order_of_the_requests(self) -> None:
        written = b"".join(post("a", b"%d," % number) + get("a") for number in range(100))
        peer = self.front.connect()
        peer.send(written, *["POST", "GET"] * 100)
        self.assertEqual(peer.statuses, [204, 200] * 100)
        bodies = [b"one" + b"".join(b"%d," % number for number in range(last + 1)) for last in range(100)]
        self.assertEqual([bytes(reply.body) for reply in peer.replies[1::2]], bodies)

    def test_bodies_larger_than_a_packet_arrive_complete(self) -> None:
        bodies = [bytes([65 + number]) * 100_000 for number in range(3)]
        peer = self.front.connect()
        peer.send(b"".join(post("a", body) + get("a") * 100 for body in bodies), *(["POST"] + ["GET"] * 100) * 3)
        self.assertEqual(peer.statuses, ([204] + [200] * 100) * 3)
        self.assertEqual(self.read("a"), b"one" + b"".join(bodies))

    def test_an_incomplete_request_is_answered_when_it_is_complete(self) -> None:
        peer = self.in_one_turn(get("a") * 300 + get("a")[:-1])
        self.assertEqual(self.settle(peer), [200] * 300)
        peer.send(get("a")[-1:])
        self.assertEqual(peer.statuses, [200] * 301)

    def test_requests_after_connection_close_are_not_answered(self) -> None:
        peer = self.in_one_turn(get("a") * 300 + get("a", headers={"Connection": "close"}) + get("a") * 300)
        self.assertEqual(self.settle(peer), [200] * 301)
        self.front.pass_time(self.patience)
        self.assertTrue(peer.closed)

    def test_queued_requests_of_a_lost_connection_are_dropped(self) -> None:
        peer = self.in_one_turn(get("a") * 300)
        peer.leave()
        self.front.settle()
        self.assertLess(len(peer.replies), 300)

    def test_a_drain_closes_after_the_current_answer(self) -> None:
        peer = self.in_one_turn(get("a") * 300)
        answered = len(peer.replies)
        self.front.channels.drain()
        self.front.pass_time(self.patience)
        self.assertLess(len(peer.replies), answered + 20)
        self.assertTrue(peer.closed)


class SliceTests(PacketTests):
    """The number of requests of a packet that are answered in one turn of the reactor."""

    def test_requests_of_a_packet_are_answered_in_slices_of_time(self) -> None:
        peer = self.in_one_turn(get("a") * 500)
        self.assertGreater(len(peer.replies), 1)
        self.assertLess(len(peer.replies), 20)
        self.assertEqual(self.settle(peer), [200] * 500)
        self.assertEqual(self.front.clock.seconds(), START_TIME)

    def test_requests_of_a_small_packet_are_answered_in_slices_of_time(self) -> None:
        peer = self.in_one_turn(request("GET", "/healthz") * 50)
        self.assertLess(len(peer.replies), 20)
        self.assertEqual(self.settle(peer), [200] * 50)

    def test_other_connections_are_answered_between_the_slices(self) -> None:
        peers = [self.in_one_turn(get("a") * 500) for _ in range(3)]
        other = self.front.connect()
        other.send_unseen(get("a"))
        other.look()
        self.assertEqual(other.statuses, [200])
        self.assertEqual([self.settle(peer) for peer in peers], [[200] * 500] * 3)


class WrappedSliceTests(SliceTests):
    """The same on a transport that is not a socket's own."""

    front_type = WrappedFront


class TLSPacketTests(PacketTests):
    """The same over TLS, where a packet comes in several records."""

    front_type = TLSFront
