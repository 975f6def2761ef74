"""Tests of events larger than a piece, and of events shared by tails."""

from __future__ import annotations

import json
from base64 import b64decode

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.model import START, Append, Chunk, StorageLimits, StreamConfig
from durable_streams.server.protocol.sse import KEEP_ALIVE, PIECE
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.web.live import EventTail, Live, LiveSettings
from tests.support.fronts import START_TIME
from tests.support.late_storage import LateStorage
from tests.support.replies import Event, read_events

#: The most that a piece becomes: each line break a line of its own, and the field's name before and the end behind.
LARGEST = 6 * PIECE + 100


class StalledSink:
    """
    A sink whose reader takes one write at a time.

    :ivar written: all that was written.
    """

    def __init__(self, tail: EventTail) -> None:
        self._tail = tail
        self.written: list[bytes] = []
        self.finished = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._tail.pauseProducing()

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True

    @property
    def received(self) -> bytes:
        return b"".join(self.written)

    @property
    def events(self) -> list[Event]:
        return read_events(self.received)


class LargeEventCase(SynchronousTestCase):
    """Tails of one stream whose readers are slow."""

    late = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START_TIME)
        memory = MemoryStorage(StorageLimits())
        self.streams = Streams(LateStorage(memory, self.clock) if self.late else memory, self.clock)
        self.streams.startService()
        self.live = Live(self.streams, self.clock, LiveSettings())

    def settled(self, outcome: object) -> object:
        if isinstance(outcome, Deferred):
            self.clock.pump([0.01] * 3)
            return self.successResultOf(outcome)
        return outcome

    def create(self, content_type: str = "text/plain") -> None:
        self.media = content_type
        self.settled(self.streams.create("a", StreamConfig(content_type), b""))

    def append(self, data: bytes, close: bool = False) -> None:
        self.settled(self.streams.append("a", Append(self.media, data, close)))
        self.turn()

    def turn(self) -> None:
        self.clock.pump([0.01] * 3)

    def follow(self, cursor: str | None = None) -> tuple[EventTail, StalledSink]:
        """Follow from the start; the reader has taken the first control event."""
        chunk = self.settled(self.streams.read("a", START, 0))
        assert isinstance(chunk, Chunk)
        tail = EventTail(self.live, chunk, cursor)
        sink = StalledSink(tail)
        self.addCleanup(tail.stopProducing)
        tail.start(sink)
        self.turn()
        tail.resumeProducing()
        self.turn()
        return tail, sink

    def read_on(self, tail: EventTail, times: int = 1000) -> None:
        """Read everything that is written until the tail has no more."""
        for _ in range(times):
            before = len(self.live_sink(tail).written)
            tail.resumeProducing()
            self.turn()
            if len(self.live_sink(tail).written) == before:
                return

    @staticmethod
    def live_sink(tail: EventTail) -> StalledSink:
        sink = tail._sink
        return sink if isinstance(sink, StalledSink) else StalledSink(tail)


class LargeEventTests(LargeEventCase):
    def test_a_tail_is_a_push_producer(self) -> None:
        self.create()
        self.assertTrue(verifyObject(IPushProducer, self.follow()[0]))

    def test_a_stalled_tail_is_written_one_bounded_piece_of_a_large_append(self) -> None:
        self.create()
        _, sink = self.follow()
        self.append(b"\n" * 1_000_000)
        self.assertEqual(len(sink.written), 2)
        self.assertLess(len(sink.written[1]), LARGEST)

    def test_stalled_tails_with_different_cursors_share_the_piece(self) -> None:
        self.create()
        sinks = [self.follow(str(4_000_000 + 1_000 * number))[1] for number in range(10)]
        self.append(b"\n" * 1_000_000)
        self.assertEqual({id(sink.written[1]) for sink in sinks}, {id(sinks[0].written[1])})

    def test_tails_with_different_cursors_share_a_data_event(self) -> None:
        self.create()
        tails = [self.follow(str(4_000_000 + 1_000 * number)) for number in range(10)]
        self.append(b"x" * 10_000)
        sinks = [sink for _, sink in tails]
        self.assertEqual({id(sink.written[1]) for sink in sinks}, {id(sinks[0].written[1])})
        cursors = {sink.events[-1].control["streamCursor"] for sink in sinks}
        self.assertEqual(len(cursors), 10)

    def test_a_large_append_is_one_event_of_text(self) -> None:
        self.create()
        text = ("line\n  indented\r\n\r\n" * 20_000 + "\u00e9" * 50_000).encode()
        self.check(text, lambda data: data.encode(), text.replace(b"\r\n", b"\n"))

    def test_a_large_append_is_one_event_of_base64(self) -> None:
        self.create("application/octet-stream")
        data = bytes(range(256)) * 1_000 + b"end"
        self.check(data, b64decode, data)

    def test_a_large_append_is_one_event_of_json(self) -> None:
        self.create("application/json")
        messages = [{"number": number} for number in range(20_000)]
        wire = b"".join(json.dumps(message).encode() + b",\n" for message in messages)[:-1]
        self.check(wire, json.loads, messages)

    def check(self, data: bytes, read: object, expected: object) -> None:
        assert callable(read)
        tail, sink = self.follow()
        self.append(data)
        self.append(b"1,")
        self.read_on(tail)
        _, event, control, small, _ = sink.events
        self.assertEqual((event.kind, read(event.data)), ("data", expected))
        self.assertEqual(control.control["streamNextOffset"][-16:], f"{len(data):016d}")
        self.assertEqual(small.kind, "data")
        self.assertTrue(sink.events[-1].control["upToDate"])
        self.assertLess(max(map(len, sink.written)), LARGEST)

    def test_appends_of_exactly_one_piece_and_one_byte_more_are_complete(self) -> None:
        self.create()
        tail, sink = self.follow()
        for size in (PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1):
            self.append(b"x" * size)
        self.read_on(tail)
        sizes = [len(event.data) for event in sink.events if event.kind == "data"]
        self.assertEqual(sizes, [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1])

    def test_no_other_bytes_are_sent_between_the_pieces_of_an_event(self) -> None:
        self.create()
        tail, sink = self.follow()
        self.append(b"x" * (3 * PIECE))
        self.assertEqual(len(sink.written), 2)
        # Not paused, so that it is neither too slow for a comment nor for the end.
        tail._paused = False
        for _ in range(70):
            self.clock.advance(1)
        self.assertNotIn(KEEP_ALIVE, sink.written[1:-1])
        self.assertFalse(sink.finished)
        self.read_on(tail)
        self.assertEqual([len(event.data) for event in sink.events if event.kind == "data"], [3 * PIECE])

    def test_a_tail_ends_after_a_large_event_past_the_reconnect_interval(self) -> None:
        self.create()
        tail, sink = self.follow()
        self.append(b"x" * (3 * PIECE))
        self.clock.pump([1] * 70)
        self.assertFalse(sink.finished)
        self.read_on(tail)
        self.clock.pump([1] * 2)
        self.assertTrue(sink.finished)

    def test_a_close_during_a_large_event_is_sent_after_it(self) -> None:
        self.create()
        tail, sink = self.follow()
        self.append(b"x" * (3 * PIECE))
        self.append(b"", close=True)
        self.read_on(tail)
        self.assertTrue(sink.events[-1].control["streamClosed"])
        self.assertTrue(sink.finished)

    def test_a_large_append_with_a_close_has_it_in_its_control_event(self) -> None:
        self.create()
        tail, sink = self.follow()
        self.append(b"x" * (3 * PIECE), close=True)
        self.read_on(tail)
        self.assertEqual([event.kind for event in sink.events], ["control", "data", "control"])
        self.assertTrue(sink.events[-1].control["streamClosed"])
        self.assertTrue(sink.finished)

    def test_a_deletion_during_a_large_event_aborts_the_answer(self) -> None:
        self.create()
        tail, sink = self.follow()
        self.append(b"x" * (3 * PIECE))
        self.settled(self.streams.delete("a"))
        tail.resumeProducing()
        self.turn()
        self.assertEqual((sink.aborted, sink.finished), (True, False))
        self.assertTrue(sink.received.endswith(b"xxx"))

    def test_a_reader_that_disconnects_during_a_large_event_is_released(self) -> None:
        self.create()
        tail, _ = self.follow()
        self.append(b"x" * (3 * PIECE))
        tail.stopProducing()
        tail.resumeProducing()
        self.turn()
        self.assertEqual((self.live.tails, self.streams._waiting.watched()), (0, []))


class LateLargeEventTests(LargeEventTests):
    late = True
