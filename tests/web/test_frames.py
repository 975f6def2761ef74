"""How what an HTTP/2 client sends is cut into frames and counted."""

from __future__ import annotations

import itertools

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.http2.frames import _AT_ONCE, Framing

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAMES: tuple[Frame, ...] = (
    HeadersFrame(1, data=b"h" * 20, flags=["END_HEADERS"]),
    DataFrame(1, data=b"d" * 300),
    DataFrame(1),
    GoAwayFrame(0, last_stream_id=1, additional_data=b"bye"),
    PingFrame(0, opaque_data=b"12345678"),
    WindowUpdateFrame(1, window_increment=1),
)


def cut(framing: Framing, data: bytes) -> list[tuple[bytes, bool]]:
    """Cut what must be cut."""
    packets = framing.cut(data)
    assert packets is not None
    return [(packet.data, packet.goodbye) for packet in packets]


class CutTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.framing = Framing()
        self.assertEqual(cut(self.framing, PREFACE), [(PREFACE, False)])

    def test_many_frames_are_given_a_few_at_a_time(self) -> None:
        ping = PingFrame(0).serialize()
        packets = cut(self.framing, ping * (2 * _AT_ONCE + 1))
        self.assertEqual(packets, [(ping * _AT_ONCE, False), (ping * _AT_ONCE, False), (ping, False)])

    def test_a_few_come_in_one_piece(self) -> None:
        data = HeadersFrame(1, data=b"h").serialize() + DataFrame(1, data=b"x" * 16_000).serialize()
        self.assertEqual(cut(self.framing, data), [(data, False)])

    def test_a_goodbye_stands_alone(self) -> None:
        ping, goodbye = PingFrame(0).serialize(), GoAwayFrame(0).serialize()
        packets = cut(self.framing, ping + goodbye + ping)
        self.assertEqual(packets, [(ping, False), (goodbye, True), (ping, False)])

    @given(st.lists(st.sampled_from(FRAMES), max_size=40), st.lists(st.integers(1, 1000), max_size=10))
    def test_however_they_come_nothing_is_lost_and_all_is_counted(self, frames: list[Frame], cuts: list[int]) -> None:
        data = b"".join(frame.serialize() for frame in frames)
        framing = Framing()
        framing.cut(PREFACE)
        packets = []
        places = sorted({0, len(data), *(place for place in cuts if place < len(data))})
        for start, end in itertools.pairwise(places):
            packets += cut(framing, data[start:end])
        self.assertEqual(b"".join(packet for packet, _ in packets), data)
        goodbyes = sum(len(frame.serialize()) for frame in frames if isinstance(frame, GoAwayFrame))
        # The first bytes of one may have come before it was known what it is.
        self.assertLessEqual(sum(len(packet) for packet, goodbye in packets if goodbye), goodbyes)
        self.assertEqual(framing.requests, sum(isinstance(frame, HeadersFrame) for frame in frames))
        self.assertEqual(framing.updates, sum(isinstance(frame, WindowUpdateFrame) for frame in frames))
        idle = [frame for frame in frames if isinstance(frame, (PingFrame, GoAwayFrame))]
        self.assertEqual(framing.idle, len(idle) + sum(frame is FRAMES[2] for frame in frames))

    def test_each_kind_is_counted_as_what_it_is(self) -> None:
        for frame, counts in (
            (HeadersFrame(1, data=b"h"), (0, 0, 1)),
            (ContinuationFrame(1, data=b"h"), (0, 0, 0)),
            (DataFrame(1, data=b"d"), (0, 0, 0)),
            (DataFrame(1, flags=["END_STREAM"]), (0, 0, 0)),
            (DataFrame(1), (1, 0, 0)),
            (DataFrame(1, flags=["PADDED"], pad_length=255), (1, 0, 0)),
            (DataFrame(1, data=b"d" * 300, flags=["PADDED"], pad_length=255), (0, 0, 0)),
            (RstStreamFrame(1), (1, 0, 0)),
            (SettingsFrame(0), (1, 0, 0)),
            (PingFrame(0), (1, 0, 0)),
            (GoAwayFrame(0), (1, 0, 0)),
            (PriorityFrame(1), (0, 1, 0)),
            (WindowUpdateFrame(1, window_increment=1), (0, 1, 0)),
            (ExtensionFrame(0x20, 0), (0, 1, 0)),
        ):
            framing = Framing()
            framing.cut(PREFACE + frame.serialize())
            self.assertEqual((framing.idle, framing.updates, framing.requests), counts, frame)
