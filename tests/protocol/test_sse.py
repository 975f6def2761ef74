from __future__ import annotations

import json
import re
from base64 import b64decode
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.messages import wire_form
from durable_streams.server.protocol.sse import KEEP_ALIVE, control_event, data_event, data_piece

from .event_stream import parse_events
from .samples import examples, json_arrays

OFFSET = "0000000000000012_0000000000000345"

#: Text with many line ends, colons and spaces, as an attacker or a language model sends it.
texts = st.lists(
    st.one_of(st.sampled_from(["\r", "\n", "\r\n", " ", ":", "data:", "event: control", "\ufeff", "\x00"]), st.text()),
    min_size=1,
    max_size=8,
).map("".join)
some_text = texts.filter(bool)


def _lines(text: str) -> str:
    return re.sub("\r\n|\r", "\n", text)


def _read(stream: bytes) -> str:
    """Return the data of the only event."""
    [(kind, data)] = parse_events(stream)
    assert kind == "data"
    return data


class TextTests(SynchronousTestCase):
    @examples(300)
    @given(some_text)
    @example(" leading space")
    @example("  two")
    @example("a\n b\n  c")
    @example("\n")
    @example("\n\nevent: control\ndata: {}\n\n")
    def test_text_is_read_back_with_normalised_line_ends(self, text: str) -> None:
        self.assertEqual(_lines(text), _read(data_event(text.encode(), False, True, OFFSET)))

    @examples(200)
    @given(st.binary(min_size=1, max_size=40))
    @example(b"\xff\n\xc3")
    def test_invalid_utf8_in_a_text_stream_is_one_event(self, data: bytes) -> None:
        self.assertEqual(_lines(data.decode("utf-8", "replace")), _read(data_event(data, False, True, OFFSET)))

    def test_each_line_of_text_is_a_data_field(self) -> None:
        self.assertEqual(
            b"event: data\ndata:a\ndata:\ndata:b\nid:%b\n\n" % OFFSET.encode(),
            data_event(b"a\r\n\rb", False, True, OFFSET),
        )

    def test_a_leading_space_is_preserved(self) -> None:
        self.assertEqual(
            b"event: data\ndata:  hello\nid:%b\n\n" % OFFSET.encode(), data_event(b" hello", False, True, OFFSET)
        )

    def test_data_cannot_inject_an_event(self) -> None:
        for line_end in ("\n", "\r", "\r\n"):
            text = line_end.join(
                ["x", "", "event: control", 'data: {"streamClosed":true}', "id: 1", "retry: 1", "", ""]
            )
            self.assertEqual(_lines(text), _read(data_event(text.encode(), False, True, OFFSET)))


class Base64Tests(SynchronousTestCase):
    @examples(200)
    @given(st.binary(min_size=1, max_size=500))
    def test_bytes_are_read_back_unchanged(self, data: bytes) -> None:
        text = _read(data_event(data, False, False, OFFSET)).replace("\n", "").replace("\r", "")
        self.assertEqual(0, len(text) % 4)
        self.assertEqual(data, b64decode(text, validate=True))

    def test_a_base64_event_has_the_exact_expected_bytes(self) -> None:
        self.assertEqual(
            b"event: data\ndata:AQIDBAU=\nid:%b\n\n" % OFFSET.encode(), data_event(b"\1\2\3\4\5", False, False, OFFSET)
        )


class JsonTests(SynchronousTestCase):
    @examples(60)
    @given(json_arrays())
    def test_the_messages_of_an_event_are_one_array(self, case: tuple[bytes, list[bytes]]) -> None:
        body, elements = case

        def parse(text: str | bytes) -> Any:
            return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=list)

        data = _read(data_event(wire_form(body), True, True, OFFSET))
        self.assertEqual([parse(element) for element in elements], parse(data))

    def test_a_json_event_has_the_exact_expected_bytes(self) -> None:
        self.assertEqual(
            b'event: data\ndata:[{"k":1},\ndata:  2]\nid:%b\n\n' % OFFSET.encode(),
            data_event(b'{"k":1},\r\n 2,', True, True, OFFSET),
        )


class PieceTests(SynchronousTestCase):
    @staticmethod
    def in_pieces(data: bytes, size: int, json: bool, text: bool) -> bytes:
        return b"".join(
            data_piece(
                data[start : start + size],
                json,
                text,
                OFFSET,
                data[max(0, start - 1) : start],
                start + size >= len(data),
            )
            for start in range(0, len(data), size)
        )

    @examples(300)
    @given(some_text.map(str.encode), st.integers(1, 6), st.booleans())
    @example(b"a\r\n b", 2, False)
    @example(b"a\n b", 2, False)
    @example(b"\r\r\n\n", 1, False)
    @example(b"  ", 1, False)
    @example(b"1,\r\n", 1, True)
    def test_pieces_of_text_split_anywhere_form_the_same_event(self, data: bytes, size: int, json: bool) -> None:
        self.assertEqual(data_event(data, json, True, OFFSET), self.in_pieces(data, size, json, True))

    @examples(100)
    @given(st.binary(min_size=1, max_size=40), st.integers(1, 4))
    def test_pieces_of_base64_split_at_multiples_of_three_bytes_form_the_same_event(
        self, data: bytes, triples: int
    ) -> None:
        self.assertEqual(data_event(data, False, False, OFFSET), self.in_pieces(data, 3 * triples, False, False))


class ControlTests(SynchronousTestCase):
    def read(self, frame: bytes) -> Any:
        [(kind, data)] = parse_events(frame)
        self.assertEqual("control", kind)
        return json.loads(data)

    def test_a_control_event_before_the_tail_is_not_up_to_date(self) -> None:
        self.assertEqual(
            {"streamNextOffset": OFFSET, "streamCursor": "12"}, self.read(control_event(OFFSET, 12, False, False))
        )

    def test_a_control_event_at_the_tail_is_up_to_date(self) -> None:
        self.assertEqual(
            {"streamNextOffset": OFFSET, "streamCursor": "12", "upToDate": True},
            self.read(control_event(OFFSET, 12, True, False)),
        )

    def test_a_control_event_at_the_end_of_a_closed_stream_has_no_cursor(self) -> None:
        for up_to_date in (True, False):
            self.assertEqual(
                {"streamNextOffset": OFFSET, "upToDate": True, "streamClosed": True},
                self.read(control_event(OFFSET, 12, up_to_date, True)),
            )


class StreamTests(SynchronousTestCase):
    @examples(100)
    @given(st.lists(st.tuples(some_text, st.booleans()), max_size=6))
    def test_events_and_keep_alive_comments_are_parsed_separately(self, parts: list[tuple[str, bool]]) -> None:
        stream = b""
        expected = []
        for number, (text, silence) in enumerate(parts):
            stream += data_event(text.encode(), False, True, OFFSET) + control_event(OFFSET, number, True, False)
            expected += [("data", _lines(text)), ("control", str(number))]
            if silence:
                stream += KEEP_ALIVE
        found = [
            (kind, json.loads(data)["streamCursor"] if kind == "control" else data)
            for kind, data in parse_events(stream)
        ]
        self.assertEqual(expected, found)

    def test_a_keep_alive_comment_is_not_an_event(self) -> None:
        self.assertEqual([], parse_events(KEEP_ALIVE))
