"""Tests of events that the tails at one place of a stream share."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.interfaces import NowOrLater
from durable_streams.server.model import START, Append, Chunk, Offset, StreamConfig
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.web.live import EventTail, Live, LiveSettings
from tests.support.fronts import START_TIME
from tests.support.replies import read_events

#: The media type of all streams.
TEXT = "text/plain"


class CountedStorage(MemoryStorage):
    """
    A storage in memory.

    :ivar reads: how many reads it was asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True) -> Chunk:
        self.reads += 1
        return super().read(name, offset, limit, now, whole, renew)


class TakingSink:
    """A sink that takes everything."""

    def __init__(self) -> None:
        self.received = b""
        self.finished = False
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.received += data

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        raise AssertionError("aborted")

    @property
    def text(self) -> str:
        return "".join(event.data for event in read_events(self.received) if event.kind == "data")

    @property
    def offset(self) -> str:
        """The last offset that it was told."""
        controls = [event for event in read_events(self.received) if event.kind == "control"]
        return str(controls[-1].control["streamNextOffset"])


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.clock = Clock()
        self.clock.advance(START_TIME)
        self.storage = CountedStorage()
        self.streams = Streams(self.storage, self.clock)
        self.streams.startService()
        self.live = Live(self.streams, self.clock, LiveSettings(reconnect_interval=0))
        self.create("a")

    def create(self, name: str) -> None:
        self.streams.create(name, StreamConfig(TEXT), b"")

    def append(self, name: str, data: bytes, close: bool = False) -> None:
        self.streams.append(name, Append(TEXT, data, close))

    def turn(self) -> None:
        self.clock.pump([0.01] * 3)

    def follow(self, name: str = "a", cursor: str | None = None) -> tuple[EventTail, TakingSink]:
        chunk: NowOrLater[Chunk] = self.streams.read(name, START, 0)
        assert isinstance(chunk, Chunk)
        tail = EventTail(self.live, chunk, cursor)
        sink = TakingSink()
        tail.start(sink)
        self.turn()
        return tail, sink


class SharedEventTests(Case):
    def test_tails_at_one_place_share_one_read_and_one_event(self) -> None:
        sinks = [self.follow()[1] for _ in range(50)]
        self.storage.reads = 0
        self.append("a", b"one")
        self.turn()
        self.assertEqual(self.storage.reads, 1)
        self.assertEqual({id(sink.writes[-1]) for sink in sinks}, {id(sinks[0].writes[-1])})
        self.assertEqual({sink.text for sink in sinks}, {"one"})

    def test_a_commit_within_a_round_is_read_by_the_tails_that_follow(self) -> None:
        tails = [self.follow() for _ in range(10)]
        sent = 0

        def write(sink: TakingSink, data: bytes) -> None:
            nonlocal sent
            sent += 1
            TakingSink.write(sink, data)
            if sent == 3:
                self.append("a", b"two")

        for _, sink in tails:
            self.patch(sink, "write", partial(write, sink))
        self.append("a", b"one")
        self.turn()
        self.assertEqual([sink.text for _, sink in tails], ["onetwo"] * 10)
        self.assertEqual(sum(sink.writes[-1].count(b"one") for _, sink in tails), 7, "the rest got both in one event")

    def test_a_tail_keeps_a_cursor_that_is_ahead(self) -> None:
        _, ahead = self.follow(cursor="99999999")
        _, here = self.follow()
        self.append("a", b"one")
        self.turn()
        cursors = [int(read_events(sink.received)[-1].control["streamCursor"]) for sink in (ahead, here)]
        self.assertGreater(cursors[0], 99_999_999)
        self.assertEqual(cursors[1], self.live.current_cursor)

    def test_a_stream_that_is_made_anew_does_not_share_the_events_of_the_old_one(self) -> None:
        _, old = self.follow()
        self.append("a", b"old")
        self.streams.delete("a")
        self.create("a")
        self.append("a", b"new")
        _, new = self.follow()
        self.append("a", b"er")
        self.turn()
        self.assertTrue(old.finished)
        self.assertEqual(new.text, "newer")

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("append"), st.integers(0, 1), st.sampled_from([1, 40, 5000, 70_000])),
                st.tuples(st.just("follow"), st.integers(0, 1), st.just(0)),
                st.tuples(st.sampled_from(["pause", "resume", "leave"]), st.integers(0, 9), st.just(0)),
                st.tuples(st.just("time"), st.sampled_from([1, 20, 2000]), st.just(0)),
            ),
            max_size=40,
        )
    )
    def test_each_tail_receives_each_byte_once_and_in_order(self, steps: list[tuple[str, int, int]]) -> None:
        self.begin()
        self.create("b")
        content = {"a": "", "b": ""}
        tails: list[tuple[str, EventTail, TakingSink]] = []
        for number, (kind, which, size) in enumerate(steps):
            name = "ab"[which % 2]
            if kind == "append":
                text = f"<{number}>" + "." * size
                content[name] += text
                self.append(name, text.encode())
            elif kind == "follow":
                tails.append((name, *self.follow(name)))
            elif kind == "time":
                self.clock.advance(which / 1000)
            elif tails:
                tail = tails[which % len(tails)][1]
                {"pause": tail.pauseProducing, "resume": tail.resumeProducing, "leave": tail.stopProducing}[kind]()
                if kind == "leave":
                    tails.pop(which % len(tails))
        for _, tail, _ in tails:
            tail.resumeProducing()
        self.turn()
        for name, tail, sink in tails:
            self.assertEqual(sink.text, content[name])
            self.assertTrue(sink.offset.endswith(f"{len(content[name]):016}"))
            tail.stopProducing()
