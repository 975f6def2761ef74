"""The engine of HTTP/2: frames in and out, without a connection, compared with RFC 9113 and with the h2 library."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import hpack
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from h2.settings import Settings as H2Settings
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
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.http2.engine import Engine
from durable_streams.server.web.http2.errors import ErrorCode, Http2Error
from durable_streams.server.web.http2.heads import Head

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAM_WINDOW: Final = 40_000
CONNECTION_WINDOW: Final = 100_000
LIST_BYTES: Final = 4096

Fields: TypeAlias = list[tuple[bytes, bytes]]

GET: Final[Fields] = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/a"), (b":authority", b"x")]
POST: Final[Fields] = [(b":method", b"POST"), *GET[1:]]


class Recorder:
    """
    The owner of an engine.

    :ivar events: what it was told, in order.
    :ivar idle: how many frames asked for nothing.
    :ivar updates: how many belonged to others.
    :ivar withholds: whether it keeps what it receives from being given back.
    """

    def __init__(self) -> None:
        self.engine = Engine(self, 100, LIST_BYTES, STREAM_WINDOW, CONNECTION_WINDOW)
        self.events: list[tuple[object, ...]] = []
        self.heads: list[Head] = []
        self.idle = self.updates = 0
        self.withholds = False

    def request_received(self, stream_id: int, head: Head, is_whole: bool) -> None:
        self.heads.append(head)
        self.events.append(("request", stream_id, head.method, head.target, tuple(head.fields)))

    def data_received(self, stream_id: int, data: bytes, size: int) -> bool:
        self.events.append(("data", stream_id, data))
        return not self.withholds

    def request_ended(self, stream_id: int) -> None:
        self.events.append(("ended", stream_id))

    def stream_reset(self, stream_id: int) -> None:
        self.events.append(("reset", stream_id))

    def window_opened(self, stream_id: int) -> None:
        self.events.append(("window", stream_id))

    def idle_frame_received(self) -> None:
        self.idle += 1

    def update_received(self) -> None:
        self.updates += 1

    def goodbye_received(self, code: int) -> None:
        self.events.append(("goodbye", code))

    def receive(self, data: bytes) -> None:
        self.engine.receive(data)
        while self.engine.take_frame():
            pass

    def error(self, data: bytes) -> ErrorCode | None:
        """Receive data, and return the code of the error that ends the connection."""
        try:
            self.receive(data)
        except Http2Error as error:
            return error.code
        return None

    def frames(self) -> list[Frame]:
        """Return the frames that are to be sent."""
        return parsed(self.engine.take_output())


def parsed(data: bytes) -> list[Frame]:
    """Parse frames."""
    frames = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        frames.append(frame)
        data = data[9 + length :]
    return frames


def greeted() -> Recorder:
    """Return the owner of an engine whose client has sent its settings."""
    recorder = Recorder()
    recorder.engine.start()
    recorder.receive(PREFACE + SettingsFrame(0).serialize())
    recorder.frames()
    recorder.events.clear()
    recorder.idle = 0
    return recorder


def head(stream_id: int, fields: Fields = GET, *flags: str, **rest: int) -> bytes:
    """Return the frame of a head, whose fields are not indexed."""
    block = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])
    return bytes(HeadersFrame(stream_id, block, flags=["END_HEADERS", *flags], **rest).serialize())


def raw(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return a frame, right or wrong."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


class FrameTests(SynchronousTestCase):
    def assert_error(self, data: bytes, code: ErrorCode, before: bytes = b"") -> None:
        recorder = greeted()
        recorder.receive(before)
        self.assertEqual(recorder.error(data), code, data[:40])

    def test_the_engine_begins_with_its_settings(self) -> None:
        recorder = Recorder()
        recorder.engine.start()
        announced, window = recorder.frames()
        assert isinstance(announced, SettingsFrame)
        assert isinstance(window, WindowUpdateFrame)
        self.assertEqual(announced.settings, {3: 100, 4: STREAM_WINDOW, 6: LIST_BYTES})
        self.assertEqual((window.stream_id, window.window_increment), (0, CONNECTION_WINDOW - 65_535))

    def test_a_connection_must_begin_with_preface_and_settings(self) -> None:
        for data in (
            b"GET / HTTP/1.1\r\n",
            PREFACE[:-1] + b"x",
            PREFACE + PingFrame(0).serialize(),
            PREFACE + head(1),
            PREFACE + SettingsFrame(0, flags=["ACK"]).serialize(),
        ):
            for size in (1, len(data)):
                recorder = Recorder()
                code = None
                for place in range(0, len(data), size):
                    code = code or recorder.error(data[place : place + size])
                self.assertEqual(code, ErrorCode.PROTOCOL_ERROR, data)

    def test_frames_of_wrong_sizes_are_frame_size_errors(self) -> None:
        for frame in (
            b"\x00\x40\x01",
            b"\x00\x40\x01\x00\x00",
            raw(0, 0, 1, b"x" * 16_385),
            *(raw(2, 0, 1, b"1234"), raw(3, 0, 1, b"123"), raw(4, 0, 0, b"12345"), raw(4, 1, 0, b"123456")),
            *(raw(6, 0, 0, b"1234567"), raw(7, 0, 0, b"1234567"), raw(8, 0, 0, b"123"), raw(8, 0, 1, b"12345")),
            *(raw(0, 8, 1, b""), raw(1, 8, 3, b""), raw(1, 0x24, 3, b"1234")),
        ):
            self.assert_error(frame, ErrorCode.FRAME_SIZE_ERROR, head(1))

    def test_frames_for_the_wrong_stream_are_protocol_errors(self) -> None:
        for frame in (
            *(raw(kind, 4, 0, b"1234") for kind in (0, 1, 3, 9)),
            *(raw(kind, 4, 2, b"1234") for kind in (0, 1, 3, 8, 9)),
            *(raw(kind, 4, 3, b"1234") for kind in (0, 3, 8, 9)),
            *(raw(kind, 4, 1, b"12345678") for kind in (6, 7)),
            *(raw(4, 0, 1, b""), raw(2, 0, 0, b"12345"), raw(5, 4, 1, b"12345678"), raw(9, 4, 1, b"")),
        ):
            self.assert_error(frame, ErrorCode.PROTOCOL_ERROR, head(1))

    def test_frames_with_impossible_values_are_protocol_errors(self) -> None:
        for frame in (
            *(raw(8, 0, 0, bytes(4)), raw(8, 0, 1, b"\x80\x00\x00\x00")),
            *(raw(0, 8, 1, b"\x03ab"), raw(1, 0xC, 3, b"\x03ab")),
            *(raw(2, 0, 1, b"\x00\x00\x00\x01x"), raw(1, 0x24, 3, b"\x80\x00\x00\x03x\x82")),
            *(
                raw(4, 0, 0, setting)
                for setting in (b"\0\2\0\0\0\2", b"\0\5\0\0\x3f\xff", b"\0\5\1\0\0\0", b"\0\x08\0\0\0\2")
            ),
        ):
            self.assert_error(frame, ErrorCode.PROTOCOL_ERROR, head(1))

    def test_windows_over_the_maximum_size_are_errors(self) -> None:
        increment = WindowUpdateFrame(0, window_increment=2**31 - 1).serialize()
        setting = SettingsFrame(0, {4: 2**31 - 1}).serialize()
        self.assert_error(increment, ErrorCode.FLOW_CONTROL_ERROR)
        self.assert_error(raw(4, 0, 0, b"\0\4\x80\0\0\0"), ErrorCode.FLOW_CONTROL_ERROR)
        opened = head(1) + WindowUpdateFrame(1, window_increment=1).serialize()
        self.assert_error(setting, ErrorCode.FLOW_CONTROL_ERROR, opened)

    def test_reserved_bits_are_ignored(self) -> None:
        recorder = greeted()
        recorder.receive(head(1) + raw(8, 0xFF, 2**31 + 1, b"\x80\0\0\5") + raw(8, 0, 2**31, b"\x80\0\0\5"))
        self.assertEqual(recorder.events[1:], [("window", 1), ("window", 0)])
        self.assertEqual(recorder.engine._streams[1].window, 65_540)

    def test_a_stream_with_a_window_over_the_maximum_is_reset(self) -> None:
        recorder = greeted()
        recorder.receive(head(1) + WindowUpdateFrame(1, window_increment=2**31 - 1).serialize())
        [reset] = recorder.frames()
        self.assertEqual((reset.stream_id, vars(reset)["error_code"]), (1, ErrorCode.FLOW_CONTROL_ERROR))
        self.assertEqual(recorder.events[1:], [("reset", 1)])
        self.assertFalse(recorder.engine.is_open(1))

    def test_frames_on_closed_streams_are_errors_or_ignored(self) -> None:
        finished = head(1, GET, "END_STREAM")
        for before, frame, code in (
            (finished, head(1, GET, "END_STREAM"), ErrorCode.STREAM_CLOSED),
            (head(5, GET, "END_STREAM"), head(3), ErrorCode.PROTOCOL_ERROR),
        ):
            recorder = greeted()
            recorder.receive(before)
            stream_id = recorder.engine.last_stream
            recorder.engine.send_head(stream_id, b"\x88", True)
            self.assertEqual(recorder.error(frame), code)
        for frame in (DataFrame(1, b"x").serialize(), head(1, GET, "END_STREAM")):
            for answered in (False, True):
                recorder = greeted()
                recorder.receive(finished)
                if answered:
                    recorder.engine.reset(1, ErrorCode.CANCEL)
                recorder.frames()
                recorder.receive(frame)
                [reset] = recorder.frames()
                self.assertEqual((reset.stream_id, vars(reset)["error_code"]), (1, ErrorCode.STREAM_CLOSED))
                self.assertEqual(recorder.events[2:], [] if answered else [("reset", 1)])
                self.assertEqual(recorder.idle, 1)

    def test_more_streams_than_allowed_end_the_connection(self) -> None:
        recorder = greeted()
        recorder.receive(b"".join(head(2 * number + 1) for number in range(100)))
        self.assertEqual(recorder.error(head(201)), ErrorCode.PROTOCOL_ERROR)

    def test_data_beyond_the_windows_is_an_error(self) -> None:
        piece = DataFrame(1, b"x" * 10_000).serialize()
        recorder = greeted()
        recorder.withholds = True
        recorder.receive(head(1, POST) + piece * 4)
        self.assertEqual(recorder.error(piece), ErrorCode.FLOW_CONTROL_ERROR)
        recorder = greeted()
        recorder.withholds = True
        for stream_id in (1, 3, 5):
            recorder.receive(head(stream_id, POST))
        for stream_id in (1, 3, 5, 1, 3, 5, 1, 3, 5, 1):
            recorder.receive(DataFrame(stream_id, b"x" * 9000, pad_length=255, flags=["PADDED"]).serialize())
            recorder.receive(DataFrame(stream_id, b"x" * 744).serialize())
        self.assertEqual(recorder.error(DataFrame(3, b"x").serialize()), ErrorCode.FLOW_CONTROL_ERROR)

    def test_windows_are_updated_when_half_is_used(self) -> None:
        recorder = greeted()
        recorder.receive(head(1, POST))
        given: dict[int, int] = {0: 0, 1: 0}
        number = 0
        for _ in range(100):
            recorder.receive(DataFrame(1, b"x" * 7000).serialize())
            for frame in recorder.frames():
                assert isinstance(frame, WindowUpdateFrame)
                given[frame.stream_id] += frame.window_increment
                number += 1
        self.assertLess(number, 60)
        self.assertGreater(given[0], 600_000)
        self.assertGreater(given[1], 670_000)

    def test_a_used_up_window_is_updated_before_half_is_consumed(self) -> None:
        recorder = greeted()
        recorder.withholds = True
        recorder.receive(head(1, POST) + DataFrame(1, b"x" * 10_000).serialize() * 4)
        self.assertEqual(recorder.frames(), [])
        recorder.engine.acknowledge(1, 5000)
        [update] = recorder.frames()
        self.assertEqual((update.stream_id, vars(update)["window_increment"]), (1, 5000))

    def test_bodies_must_have_their_content_length(self) -> None:
        stated: Fields = [*POST, (b"content-length", b"3")]
        for frames, is_right in (
            (head(1, stated, "END_STREAM"), False),
            (head(1, stated) + DataFrame(1, b"four").serialize(), False),
            (head(1, stated) + DataFrame(1, b"tw", flags=["END_STREAM"]).serialize(), False),
            (head(1, stated) + DataFrame(1, b"tw").serialize() + head(1, [(b"a", b"b")], "END_STREAM"), False),
            (head(1, stated) + DataFrame(1, b"tri").serialize() + head(1, [(b"a", b"b")], "END_STREAM"), True),
            (head(1, stated) + DataFrame(1, b"tri", flags=["END_STREAM"]).serialize(), True),
            (head(1, [*GET, (b"content-length", b"0")], "END_STREAM"), True),
        ):
            self.assertEqual(greeted().error(frames), None if is_right else ErrorCode.PROTOCOL_ERROR, frames)

    def test_the_number_of_frames_of_a_head_is_limited(self) -> None:
        block = head(1)[9:]
        for number, code in ((63, None), (64, ErrorCode.ENHANCE_YOUR_CALM)):
            empty = ContinuationFrame(1).serialize() * (number - 1)
            last = ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize()
            self.assertEqual(greeted().error(HeadersFrame(1, block).serialize() + empty + last), code)

    def test_the_size_of_a_head_is_limited(self) -> None:
        recorder = greeted()
        recorder.receive(SettingsFrame(0, flags=["ACK"]).serialize())
        large = hpack.Encoder().encode([*GET, (b"a", b"\0" * 4000)], huffman=False)
        self.assertEqual(
            recorder.error(HeadersFrame(1, large, flags=["END_HEADERS"]).serialize()), ErrorCode.PROTOCOL_ERROR
        )
        larger = hpack.Encoder().encode([*GET, (b"a", b"b" * 8100)])
        for code in ("c", "bc"):
            recorder = greeted()
            recorder.receive(SettingsFrame(0, flags=["ACK"]).serialize())
            frames = HeadersFrame(1, larger).serialize() + ContinuationFrame(1, b"\0" * 4000).serialize()
            if code == "c":
                frames = HeadersFrame(1, larger, flags=["END_HEADERS"]).serialize()
            self.assertEqual(recorder.error(frames), ErrorCode.ENHANCE_YOUR_CALM)

    def test_other_frames_between_the_frames_of_a_head_are_errors(self) -> None:
        started = HeadersFrame(1, head(1)[9:]).serialize()
        for frame in (
            PingFrame(0),
            DataFrame(1, b"x"),
            ExtensionFrame(0x20, 0),
            ContinuationFrame(3),
            SettingsFrame(0),
        ):
            self.assertEqual(greeted().error(started + frame.serialize()), ErrorCode.PROTOCOL_ERROR)

    def test_frames_are_counted_by_kind(self) -> None:
        for frame, counts in (
            (HeadersFrame(3, data=head(1)[9:], flags=["END_HEADERS"]), (0, 0)),
            (DataFrame(1, data=b"d"), (0, 0)),
            (DataFrame(1, flags=["END_STREAM"]), (0, 0)),
            (DataFrame(1), (1, 0)),
            (DataFrame(1, flags=["PADDED"], pad_length=255), (1, 0)),
            (DataFrame(1, data=b"d" * 300, flags=["PADDED"], pad_length=255), (0, 0)),
            (RstStreamFrame(1), (1, 0)),
            (SettingsFrame(0), (1, 0)),
            (SettingsFrame(0, flags=["ACK"]), (1, 0)),
            (PingFrame(0), (1, 0)),
            (GoAwayFrame(0), (1, 0)),
            (PriorityFrame(1), (0, 1)),
            (WindowUpdateFrame(1, window_increment=1), (0, 1)),
            (WindowUpdateFrame(1, window_increment=2**31 - 1), (1, 1)),
            (ExtensionFrame(0x20, 0), (0, 1)),
        ):
            recorder = greeted()
            recorder.receive(head(1, POST) + frame.serialize())
            self.assertEqual((recorder.idle, recorder.updates), counts, frame)

    def test_frames_are_parsed_from_any_packets(self) -> None:
        data = b"".join(
            (
                *(head(1, POST), DataFrame(1, b"x" * 300, flags=["PADDED"], pad_length=9).serialize()),
                *(PingFrame(0, b"12345678").serialize(), SettingsFrame(0, {1: 100, 4: 70_000, 99: 1}).serialize()),
                *(DataFrame(1, b"y" * 200).serialize(), head(3, GET, "END_STREAM"), GoAwayFrame(0).serialize()),
                head(1, [(b"trailer", b"1")], "END_STREAM"),
            )
        )
        whole = greeted()
        whole.receive(data)
        self.assertEqual(
            [name for name, *_ in whole.events],
            ["request", "data", "window", "data", "request", "ended", "goodbye", "ended"],
        )
        for size in range(1, 40):
            recorder = greeted()
            for place in range(0, len(data), size):
                recorder.receive(data[place : place + size])
            self.assertEqual(recorder.events, whole.events)
            self.assertEqual(len(recorder.frames()), 2)

    def test_a_goodbye_has_a_reason_of_limited_size(self) -> None:
        recorder = greeted()
        recorder.receive(head(5))
        recorder.engine.say_goodbye(ErrorCode.PROTOCOL_ERROR, "\u00e4 " * 1000)
        [goodbye] = recorder.frames()
        assert isinstance(goodbye, GoAwayFrame)
        self.assertEqual((goodbye.last_stream_id, goodbye.error_code), (5, ErrorCode.PROTOCOL_ERROR))
        self.assertEqual(goodbye.additional_data, b"? " * 100)

    def test_the_settings_of_a_frame_apply_together(self) -> None:
        recorder = greeted()
        recorder.receive(head(1))
        recorder.receive(raw(4, 0, 0, b"\0\4\0\0\0\5" * 1000 + b"\0\4\0\0\0\7" + b"\0\5\0\xff\xff\xff"))
        self.assertEqual((recorder.engine.room(1), recorder.engine.max_frame_bytes), (7, 0xFFFFFF))
        self.assertEqual(recorder.events[1:], [("window", 0)])

    def test_equal_header_blocks_are_cached_while_the_table_is_unchanged(self) -> None:
        recorder = greeted()
        recorder.receive(head(1) + head(3))
        self.assertIs(recorder.heads[0], recorder.heads[1])
        indexed = b"\x82\x87\x84\xbe"
        for host in (b"one", b"two"):
            added = indexed[:3] + b"\x41\x03" + host
            for block in (added, indexed, indexed):
                recorder.receive(
                    HeadersFrame(recorder.engine.last_stream + 2, block, flags=["END_HEADERS"]).serialize()
                )
            self.assertEqual([each.fields for each in recorder.heads[-3:]], [[(b"host", host)]] * 3)
            self.assertIs(recorder.heads[-1], recorder.heads[-2])

    def test_the_cache_of_a_clients_heads_is_bounded(self) -> None:
        recorder = greeted()
        for number in range(0, 2000, 2):
            stream_id = 2 * number + 1
            recorder.receive(head(stream_id, [*GET, (b"a", b"%d" % number)]) + RstStreamFrame(stream_id).serialize())
        engine = recorder.engine
        self.assertEqual(len(engine._streams), 0)
        self.assertLessEqual(len(engine._heads), 16)
        self.assertLessEqual(len(engine._gaps), 16)
        self.assertLessEqual(len(engine._resets), 128)

    def test_large_heads_and_bodies_are_split_into_frames_of_the_clients_size(self) -> None:
        recorder = greeted()
        recorder.receive(head(1))
        recorder.engine.send_head(1, b"h" * 40_000, False)
        recorder.engine.send_data(1, b"d" * recorder.engine.room(1), True)
        frames = parsed_lengths(recorder.engine.take_output())
        self.assertEqual(frames, [(1, 0, 16_384), (9, 0, 16_384), (9, 4, 40_000 - 2 * 16_384), (0, 1, 16_384)])


def parsed_lengths(data: bytes) -> list[tuple[int, int, int]]:
    """Return type, flags and length of frames."""
    frames = []
    while data:
        length = int.from_bytes(data[:3], "big")
        frames.append((data[3], data[4], length))
        data = data[9 + length :]
    return frames


class HeadTests(SynchronousTestCase):
    def assert_malformed(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        self.assertEqual(greeted().error(head(1, list(fields))), ErrorCode.PROTOCOL_ERROR, fields)

    def read(self, *fields: tuple[bytes, bytes]) -> Head:
        recorder = greeted()
        recorder.receive(head(1, list(fields)))
        return recorder.heads[0]

    def test_pseudo_headers_must_be_first_unique_and_known(self) -> None:
        for place in range(len(GET)):
            self.assert_malformed([*GET[:place], (b"a", b"b"), *GET[place:]] if place else [(b"a", b"b"), *GET])
            self.assert_malformed([*GET, GET[place]])
            self.assert_malformed([*GET[: place + 1], GET[place], *GET[place + 1 :]])
            self.assert_malformed([*GET[:place], *GET[place + 1 :]])
        for name in (b":status", b":protocol", b":", b":other", b"::"):
            self.assert_malformed([*GET, (name, b"1")])

    def test_header_names_and_values_with_unsafe_characters_are_malformed(self) -> None:
        for name in (b"", b"A", b"aB", b"a b", b"a\t", b" a", b"a:b", b"a\0", b"a\r", b"a\x7f", b"\xe4", b"a\xff"):
            self.assert_malformed([*GET, (name, b"1")])
        for value in (b"\0", b"a\r\nb", b"a\n", b"a\rb", b" a", b"a ", b"\ta", b"a\t", b" ", b"\t"):
            for name in (b"a", b"host", b"cookie"):
                self.assert_malformed([*GET, (name, value)])
            self.assert_malformed([(b":method", b"GET"), *GET[1:3], (b":authority", value)])
        for value in (b"", b"a b", b"a\tb", b"\xff\x80", b"\x01", b":"):
            self.assertEqual(self.read(*GET, (b"a!#$%&'*+-.^_`|~9", value)).fields[0][1], value)

    def test_connection_specific_headers_are_malformed(self) -> None:
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"):
            self.assert_malformed([*GET, (name, b"close")])
        for value in (b"gzip", b"trailers, gzip", b""):
            self.assert_malformed([*GET, (b"te", value)])
        self.assertEqual(self.read(*GET, (b"te", b"Trailers")).fields[0], (b"te", b"Trailers"))

    def test_content_lengths_must_be_digits_and_agree(self) -> None:
        for value in (b"", b"-1", b"+1", b"1,1", b"0x1", b"1_0", b"1 1", b"9" * 4001):
            self.assert_malformed([*POST, (b"content-length", value)])
        self.assert_malformed([*POST, (b"content-length", b"1"), (b"content-length", b"2")])
        self.assertEqual(self.read(*POST, (b"content-length", b"1"), (b"content-length", b"01")).length, 1)

    def test_authority_and_host_must_agree(self) -> None:
        self.assert_malformed([*GET, (b"host", b"y")])
        self.assert_malformed([*GET, (b"host", b"x"), (b"host", b"x")])
        self.assertEqual(self.read(*GET, (b"host", b"x")).fields, [(b"host", b"x")])
        self.assertEqual(self.read(*GET[:3], (b"host", b"y")).fields, [(b"host", b"y")])

    def test_an_empty_path_is_malformed(self) -> None:
        self.assert_malformed([*GET[:2], (b":path", b""), GET[3]])

    def test_connect_has_no_path(self) -> None:
        self.assert_malformed([(b":method", b"CONNECT"), *GET[1:]])
        self.assertEqual(self.read((b":method", b"CONNECT"), GET[3]).target, b"")

    def test_cookies_are_joined(self) -> None:
        read = self.read(*GET, (b"cookie", b"a=1"), (b"b", b"c"), (b"cookie", b"d=2"))
        self.assertEqual(read.fields, [(b"b", b"c"), (b"cookie", b"a=1; d=2"), (b"host", b"x")])

    def test_trailers_have_no_pseudo_headers_and_end_the_stream(self) -> None:
        for fields in ([(b":path", b"/")], [(b"A", b"b")], [(b"connection", b"close")]):
            data = head(1, POST) + head(1, fields, "END_STREAM")
            self.assertEqual(greeted().error(data), ErrorCode.PROTOCOL_ERROR)
        self.assertEqual(greeted().error(head(1, POST) + head(1, [(b"a", b"b")])), ErrorCode.PROTOCOL_ERROR)


# The same frames to the engine and to h2

STREAMS = st.sampled_from([1, 1, 1, 3, 3, 5, 7, 0, 2])
EXTRA: Final[list[Fields]] = [
    *([], [], [], []),
    [(b"a", b"b")],
    [(b"cookie", b"a=1"), (b"cookie", b"b=2")],
    [(b"content-length", b"3")],
    [(b"content-length", b"x")],
    [(b"te", b"trailers")],
    [(b"te", b"gzip")],
    [(b"Upper", b"1")],
    [(b"connection", b"close")],
    [(b":path", b"/late")],
    [(b"a", b" b")],
    [(b"host", b"x")],
    [(b"host", b"y")],
]
HEADS = st.builds(
    lambda first, extra: [*first, *extra],
    st.sampled_from([GET, GET, POST, POST, GET[:3], GET[1:], GET[::-1], [], [(b":status", b"200")]]),
    st.sampled_from(EXTRA),
)


class Both:
    """
    The engine, and h2 as a server, with one client's frames.

    :ivar encoder: of the client, for both.
    """

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.recorder = greeted()
        self.h2 = H2Connection(
            H2Configuration(client_side=False, header_encoding=None, validate_outbound_headers=False)
        )
        self.h2.local_settings = H2Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: 100,
                SettingCodes.MAX_HEADER_LIST_SIZE: LIST_BYTES,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            },
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW - self.h2.inbound_flow_control_window)
        self.h2.receive_data(PREFACE + SettingsFrame(0).serialize())
        self.h2.data_to_send()
        self.ended: set[int] = set()

    def receive(self, data: bytes) -> tuple[str | None, list[tuple[object, ...]], list[tuple[object, ...]]]:
        """
        Give data to both.

        :returns: the engine's error, and what the engine and h2 report and send; h2's is empty if it fails.
        """
        recorder = self.recorder
        recorder.events.clear()
        error = None
        try:
            recorder.receive(data)
        except Http2Error as raised:
            error = str(raised)
        ours = [*recorder.events, *sent(recorder.frames())]
        try:
            events = self.h2.receive_data(data)
        except ProtocolError:
            return error, ours, [("error",)]
        theirs = [report for event in events for report in self.report(event)]
        for event in events:
            if isinstance(event, DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        return error, ours, [*theirs, *sent(parsed(self.h2.data_to_send()))]

    def report(self, event: Event) -> list[tuple[object, ...]]:
        """Report an event of h2 as the engine does."""
        match event:
            case RequestReceived(stream_id=stream_id, headers=headers):
                fields = [(bytes(name), bytes(value)) for name, value in headers or []]
                found = dict(fields)
                kept = [each for each in fields if not each[0].startswith(b":") and each[0] != b"host"]
                host = found.get(b":authority", found.get(b"host"))
                kept.append((b"host", host or b""))
                return [("request", stream_id, found[b":method"], found.get(b":path", b""), tuple(kept))]
            case DataReceived(stream_id=stream_id, data=data):
                return [("data", stream_id, bytes(data or b""))]
            case StreamEnded(stream_id=stream_id):
                return [("ended", stream_id)]
            case StreamReset(stream_id=stream_id):
                return [("reset", stream_id)]
            case WindowUpdated(stream_id=stream_id):
                return [("window", stream_id)]
            case ConnectionTerminated(error_code=code):
                # h2 takes it for the end of everything.
                self.h2.state_machine.state = ConnectionState.SERVER_OPEN
                return [("goodbye", int(code or 0))]
            case TrailersReceived():
                return []
            case _:
                return [("window", 0)] if type(event).__name__ == "RemoteSettingsChanged" else []


def sent(frames: list[Frame]) -> list[tuple[object, ...]]:
    """Report what is sent, but for windows that are given back, which the two do at different times."""
    return [
        (type(frame).__name__, frame.stream_id, int(getattr(frame, "error_code", 0)), "ACK" in frame.flags)
        for frame in frames
        if not isinstance(frame, WindowUpdateFrame)
    ]


Step: TypeAlias = Callable[[Both], bytes]


def headers_step(stream_id: int, fields: Fields, ends: bool, cut: int, padding: int, has_priority: bool) -> Step:
    """Send a head, maybe in two frames."""

    def step(both: Both) -> bytes:
        # The client's table must be what the server has, so a head with an error is the last.
        block = both.encoder.encode(fields)
        # h2 does not look at the length of a body that a head or trailers end.
        flags = ["END_STREAM"] if ends and (b"content-length", b"3") not in fields else []
        frame = HeadersFrame(stream_id or 1, block[:cut] if cut else block, flags=flags)
        frame.stream_id = stream_id
        # hyperframe refuses padding beside an empty block.
        if padding and block:
            frame.flags.add("PADDED")
            frame.pad_length = padding
        if has_priority:
            frame.flags.add("PRIORITY")
            frame.depends_on = 0
        if not cut:
            frame.flags.add("END_HEADERS")
            return bytes(frame.serialize())
        rest = ContinuationFrame(stream_id or 1, block[cut:], flags=["END_HEADERS"])
        rest.stream_id = stream_id
        return bytes(frame.serialize() + rest.serialize())

    return step


def frame_step(frame: bytes) -> Step:
    """Send a frame."""
    return lambda _: frame


def answer_step(stream_id: int, is_whole: bool) -> Step:
    """Answer a request."""

    def step(both: Both) -> bytes:
        if both.recorder.engine.is_open(stream_id) and stream_id not in both.ended:
            if is_whole:
                both.ended.add(stream_id)
                both.recorder.engine.send_head(stream_id, b"\x88", True)
                both.h2.send_headers(stream_id, [(b":status", b"200")], True)
            else:
                both.recorder.engine.reset(stream_id, ErrorCode.CANCEL)
                both.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        both.recorder.frames()
        both.h2.data_to_send()
        return b""

    return step


STEPS: Final = st.one_of(
    st.builds(
        headers_step,
        STREAMS,
        HEADS,
        st.booleans(),
        st.sampled_from([0, 0, 3]),
        st.sampled_from([0, 0, 9]),
        st.booleans(),
    ),
    st.builds(
        headers_step, STREAMS, st.sampled_from([GET, POST]), st.booleans(), st.just(0), st.just(0), st.just(False)
    ),
    st.builds(
        lambda stream_id, size, ends, padding: frame_step(
            raw(0, ends | (8 if padding else 0), stream_id, (bytes((padding,)) if padding else b"") + b"x" * size)
        ),
        STREAMS,
        st.sampled_from([0, 3, 3, 100, 16_000]),
        st.sampled_from([0, 1]),
        st.sampled_from([0, 0, 3, 4, 200]),
    ),
    st.builds(answer_step, st.sampled_from([1, 3, 5]), st.booleans()),
    st.builds(
        lambda stream_id, number: frame_step(raw(8, 0, stream_id, number.to_bytes(4, "big"))),
        STREAMS,
        st.sampled_from([0, 1, 2**31 - 1, 2**31 - 70_000]),
    ),
    st.builds(lambda stream_id: frame_step(raw(3, 0, stream_id, bytes(4))), STREAMS),
    st.builds(
        lambda pairs: frame_step(
            raw(4, 0, 0, b"".join(setting.to_bytes(2, "big") + value.to_bytes(4, "big") for setting, value in pairs))
        ),
        st.lists(
            st.tuples(
                st.sampled_from([1, 2, 3, 4, 5, 6, 8, 77]), st.sampled_from([0, 1, 2, 16_384, 65_535, 2**31 - 1, 2**31])
            ),
            max_size=2,
            unique_by=lambda pair: pair[0],
        ),
    ),
    st.builds(
        lambda kind, flags, stream_id, size: frame_step(raw(kind, flags, stream_id, bytes(size))),
        st.sampled_from([2, 3, 4, 5, 6, 7, 8, 9, 0x20]),
        st.sampled_from([0, 1, 4, 8]),
        STREAMS,
        st.sampled_from([0, 4, 5, 8, 9]),
    ),
)

#: What the engine refuses and h2 lets pass: RFC 9113 has them as errors.
STRICTER: Final = ("that was not opened", "is shorter than its content-length", "CONTINUATION does not follow HEADERS")


class DifferentialTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @given(st.lists(STEPS, max_size=12))
    @example([headers_step(1, POST, False, 0, 0, False), frame_step(raw(8, 0, 1, b"\x7f\xff\xff\xff"))])
    @example([headers_step(5, GET, True, 0, 0, False), headers_step(3, GET, True, 0, 0, False)])
    def test_the_engine_reads_frames_as_h2_does(self, steps: list[Step]) -> None:
        both = Both()
        for number, step in enumerate(steps):
            data = step(both)
            error, ours, theirs = both.receive(data)
            if error is not None:
                if theirs != [("error",)]:
                    self.assertTrue(any(reason in error for reason in STRICTER), (number, error, theirs))
                return
            self.assertEqual(ours, theirs, (number, data[:60]))
            for stream_id in (1, 3, 5, 7):
                if both.recorder.engine.is_open(stream_id):
                    room = both.h2.local_flow_control_window(stream_id)
                    self.assertEqual(both.recorder.engine.room(stream_id), min(room, both.h2.max_outbound_frame_size))

    def test_h2_as_a_client_reads_the_engines_frames(self) -> None:
        client = H2Connection(H2Configuration(header_encoding=None))
        client.initiate_connection()
        recorder = Recorder()
        recorder.engine.start()
        replies: dict[int, list[Event]] = {}
        for stream_id in itertools.islice(itertools.count(1, 2), 300):
            client.send_headers(stream_id, [*POST, (b"number", b"%d" % stream_id)])
            client.send_data(stream_id, b"x" * 1000, True)
            recorder.receive(client.data_to_send())
            engine = recorder.engine
            lines = b"Cache-Control: no-store\r\nStream-Next-Offset: %d\r\n" % stream_id
            engine.send_head(stream_id, engine.encoder.encode(200, lines, b"", b"id", 3), False)
            engine.send_data(stream_id, b"abc", True)
            for event in client.receive_data(engine.take_output()):
                replies.setdefault(getattr(event, "stream_id", 0) or 0, []).append(event)
                if isinstance(event, DataReceived):
                    client.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        for stream_id in range(1, 600, 2):
            names = [type(event).__name__ for event in replies[stream_id] if not isinstance(event, WindowUpdated)]
            self.assertEqual(names, ["ResponseReceived", "DataReceived", "StreamEnded"])
        self.assertEqual([name for name, *_ in recorder.events if name != "window"], ["request", "data", "ended"] * 300)
