from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NoReturn

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import EmptyArray, InvalidJson
from durable_streams.server.protocol import messages
from durable_streams.server.protocol.messages import (
    boundaries,
    compact,
    document,
    first_data,
    scan,
    single_values,
    wire_form,
)

from .samples import examples, json_arrays, json_texts, message_texts, whitespace
from .splitting import split_messages


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def parsed(text: bytes) -> Any:
    """Parse JSON strictly, with the numbers and the order of keys as they are written."""
    return json.loads(text.decode(), parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=list)


def pieces(wire: bytes) -> list[bytes]:
    """Cut messages at their boundaries."""
    edges = list(boundaries(wire))
    return [wire[start:end] for start, end in pairwise(edges)]


class WireFormTests(SynchronousTestCase):
    def test_the_examples_of_the_protocol_have_the_expected_wire_form(self) -> None:
        for body, wire in (
            (b'{"event": "created"}', b'{"event": "created"},'),
            (b'[{"event": "a"}, {"event": "b"}]', b'{"event": "a"}, {"event": "b"},'),
            (b"[[1,2], [3,4]]", b"[1,2], [3,4],"),
            (b"[[[1,2,3]]]", b"[[1,2,3]],"),
        ):
            self.assertEqual(wire, wire_form(body))

    def test_a_value_of_any_kind_is_a_message(self) -> None:
        for body in (b"null", b"true", b"false", b"0", b"-0", b"1.50", b"1E400", b'""', b'"a"', b"{}"):
            self.assertEqual(body + b",", wire_form(b" \r\n" + body + b"\t"))

    @examples(60)
    @given(json_arrays())
    def test_an_array_is_read_back_unchanged(self, case: tuple[bytes, list[bytes]]) -> None:
        body, elements = case
        document_read = document(wire_form(body))
        self.assertEqual(parsed(body), parsed(document_read))
        self.assertEqual([parsed(element) for element in elements], parsed(document_read))

    @examples(60)
    @given(json_arrays())
    def test_only_whitespace_around_an_array_is_removed(self, case: tuple[bytes, list[bytes]]) -> None:
        body, _ = case
        inside = body.strip()[1:-1].strip()
        self.assertEqual(b"[" + inside + b"]", document(wire_form(body)))

    @examples(60)
    @given(message_texts, whitespace, whitespace)
    def test_a_single_message_is_kept_byte_for_byte(self, text: str, before: str, after: str) -> None:
        wire = wire_form(f"{before}{text}{after}".encode())
        self.assertEqual(text.encode() + b",", wire)

    @examples(60)
    @given(json_arrays())
    def test_an_array_in_an_array_is_one_message(self, case: tuple[bytes, list[bytes]]) -> None:
        body, _ = case
        wire = wire_form(b"[" + body + b"]")
        self.assertEqual([parsed(body)], parsed(document(wire)))
        self.assertEqual(1, len(pieces(wire)))

    @examples(60)
    @given(st.lists(json_arrays(), max_size=4))
    def test_consecutive_appends_are_read_as_one_array(self, appends: list[tuple[bytes, list[bytes]]]) -> None:
        wire = b"".join(wire_form(body) for body, _ in appends)
        expected = [parsed(element) for _, elements in appends for element in elements]
        self.assertEqual(expected, parsed(document(wire)))

    def test_numbers_and_keys_are_not_changed(self) -> None:
        body = b'{"b":1.0,"a":123456789012345678901234567890,"b":1e5,"\\u0061":-0}'
        self.assertEqual(body + b",", wire_form(body))

    def test_numbers_too_long_for_python_are_not_changed(self) -> None:
        body = b"[" + b"7" * 5000 + b',"\\ud800"]'
        self.assertEqual(body[1:-1] + b",", wire_form(body))

    def test_an_empty_stream_is_read_as_an_empty_array(self) -> None:
        self.assertEqual(b"[]", document(b""))


class EmptyArrayTests(SynchronousTestCase):
    def test_an_append_of_an_empty_array_is_rejected(self) -> None:
        for body in (b"[]", b" [ ] ", b"[\r\n\t]"):
            self.assertRaises(EmptyArray, wire_form, body)

    def test_a_create_may_have_an_empty_array(self) -> None:
        for body in (b"[]", b" [ ] "):
            self.assertEqual(b"", wire_form(body, empty_allowed=True))
            self.assertEqual(b"", first_data(body, json=True))

    def test_an_array_of_an_empty_array_has_one_message(self) -> None:
        self.assertEqual(b"[],", wire_form(b"[[]]"))


class FirstDataTests(SynchronousTestCase):
    def test_an_empty_body_is_no_data(self) -> None:
        self.assertEqual(b"", first_data(b"", json=True))
        self.assertEqual(b"", first_data(b"", json=False))

    def test_json_is_converted_to_the_wire_form(self) -> None:
        self.assertEqual(b"1, 2,", first_data(b"[1, 2]", json=True))

    def test_bodies_of_other_types_are_not_parsed(self) -> None:
        self.assertEqual(b"[1, \xff", first_data(b"[1, \xff", json=False))

    def test_a_body_that_is_not_json_is_rejected(self) -> None:
        self.assertRaises(InvalidJson, first_data, b"{", json=True)
        self.assertRaises(InvalidJson, first_data, b" ", json=True)


def _unlike_json() -> st.SearchStrategy[bytes]:
    """Draw bytes out of the stuff that JSON is made of, which now and then are some."""
    parts = [
        *'[]{},:"\\ \n\t\r.eE+-0129u',
        "true",
        "null",
        "NaN",
        "Infinity",
        '"a"',
        r"\ud800",
        r"\u00",
        "\x00",
        "\x1f",
    ]
    parts += ["\ufeff", "\x85", "\u2028", "\xa0", "'", "//", "\x0b", "\x0c"]
    text = st.lists(st.sampled_from(parts), max_size=7).map("".join)
    return st.one_of(text.map(str.encode), st.binary(max_size=6))


class InvalidJsonTests(SynchronousTestCase):
    def refused(self, body: bytes) -> str:
        return str(self.assertRaises(InvalidJson, wire_form, body))

    def test_an_empty_body_and_whitespace_are_not_json(self) -> None:
        for body in (b"", b" ", b"\r\n\t "):
            self.refused(body)

    def test_javascript_literals_that_are_not_json_are_rejected(self) -> None:
        for body in (
            b"NaN",
            b"[NaN]",
            b"Infinity",
            b"[-Infinity]",
            b"[1,]",
            b"[,1]",
            b"[1,,2]",
            b'{"a":1,}',
            b"{,}",
            b"{a:1}",
            b"'a'",
            b"[1] // one",
            b"/**/1",
            b"undefined",
            b"+1",
            b".5",
            b"5.",
            b"01",
            b"0x1",
            b"1e",
            b"1_0",
            b"True",
            b'"\t"',
            b'"a\nb"',
            b'"\\x41"',
            b'"\\u12g4"',
            b"1 2",
            b"[1][2]",
            b"{}{}",
            b"[1]]",
            b"[1}",
            b'{"a"}',
            b'{"a":}',
            b"{1:2}",
            b"[1]\x00",
            b"\x0b1",
            b"1,",
            b",",
        ):
            self.refused(body)

    def test_invalid_json_with_a_lone_surrogate_is_rejected(self) -> None:
        for bad in (b"NaN", b"-Infinity", b"01", b"'a'", b'"\t"', b"tru", b"", b"1 2", b'"\\u12g4"', b'"\\u 123"'):
            self.refused(b'["\\ud800",' + bad + b"]")
        self.assertIn("byte 10", self.refused(b'["\\ud800",NaN]'))

    def test_each_escape_of_a_surrogate_is_kept_in_either_case(self) -> None:
        escapes = [f"\\u{number:04x}" for number in range(0xD7F0, 0xE010)]
        escapes += [escape.upper().replace("U", "u") for escape in escapes]
        body = json.dumps(escapes).replace("\\\\", "\\").encode()
        self.assertEqual(wire_form(body), body[1:-1] + b",")

    def test_a_backslash_before_what_looks_like_a_surrogate_is_kept(self) -> None:
        for body in (rb'"\\ud800 \ud800"', rb'"\\udg \ud800"', rb'"\\\ud800"', rb'"\\uD"', rb'{"\\ud8":"\uDFFF"}'):
            self.assertEqual(wire_form(body), body + b",")

    def test_an_incomplete_surrogate_escape_is_not_json(self) -> None:
        for body in (
            rb'"\ud"',
            rb'"\ud8"',
            rb'"\ud80"',
            rb'"\ud80g"',
            rb'"\uDg00"',
            rb'"\Ud800"',
            rb'"\\\ud8"',
            rb"\ud800",
        ):
            self.refused(body)
            self.refused(rb'["\ud800",' + body + b"]")

    def test_a_byte_order_mark_is_not_json(self) -> None:
        for body in (b"\xef\xbb\xbf[1]", b"\xef\xbb\xbf"):
            self.assertIn("byte order mark", str(self.assertRaises(InvalidJson, wire_form, body)))
        self.refused(b'\xef\xbb\xbf["\\ud800"]')
        self.refused("[1]".encode("utf-16"))

    def test_invalid_utf8_is_rejected_with_its_position(self) -> None:
        self.assertIn("byte 2", self.refused(b'["\xff"]'))
        for body in (b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\xaf"', b'"\xf5\x80\x80\x80"', b'"\\ud800\xff"', b"\xff"):
            self.assertIn("UTF-8", self.refused(body))

    def test_unlimited_nesting_is_rejected(self) -> None:
        deep = 100_000
        for body in (
            b"[" * deep,
            b"[" * deep + b"]" * deep,
            b'{"a":' * deep + b"1" + b"}" * deep,
            b'{"\\ud800":' * deep + b"1" + b"}" * deep,
            b'["\\ud800",' + b"[" * deep + b"]" * deep + b"]",
        ):
            self.assertIn("nested too deeply", self.refused(body))

    @examples(60)
    @given(json_texts.filter(lambda text: text[0] in '[{"'), st.data())
    def test_a_truncated_body_is_rejected(self, text: str, data: st.DataObject) -> None:
        body = text.encode()
        self.refused(body[: data.draw(st.integers(0, len(body) - 1))])

    @examples(600)
    @given(_unlike_json())
    @example(b'"\\ud800" ')
    @example(b'"\\ud800"\xa0')
    def test_a_second_parser_accepts_and_rejects_the_same_texts(self, body: bytes) -> None:
        try:
            value = parsed(body)
        except ValueError:
            self.refused(body)
            return
        expected = value if body.strip().startswith(b"[") else [value]
        self.assertEqual(expected, parsed(document(wire_form(body, empty_allowed=True))))


class LoneSurrogateTests(SynchronousTestCase):
    """Streams of tokens are cut where they are cut, so half an emoji, escaped, is no rarity."""

    def test_a_lone_surrogate_escape_is_kept_unchanged(self) -> None:
        for body in (rb'"\ud83d"', rb'{"t":"\udc00"}', rb'{"\ud83d":1}', rb'"\ud83d\ud83d"', rb'"\uD83Dx\uDE00"'):
            self.assertEqual(body + b",", wire_form(b" " + body + b"\n"))

    def test_an_array_with_a_lone_surrogate_is_flattened(self) -> None:
        self.assertEqual(rb'1 , "\ud83d", "\ude00",', wire_form(rb' [ 1 , "\ud83d", "\ude00" ] '))

    def test_text_that_resembles_a_surrogate_escape_is_kept(self) -> None:
        for body in (rb'"\\ud83d"', rb'"\\\ud83d"', rb'"\u005cud83d"', rb'"\ud83d\\\""'):
            self.assertEqual(body + b',"x",', wire_form(b"[" + body + b',"x"]'))
            self.assertEqual([body + b",", b'"x",'], pieces(body + b',"x",'))
        self.assertRaises(InvalidJson, wire_form, rb'"\\\u12"')
        self.assertRaises(InvalidJson, wire_form, rb"\ud83d")

    def test_messages_with_a_lone_surrogate_are_split(self) -> None:
        wire = wire_form(rb'["\ud83d,]", {"a": [1,"\udc00"]}, "\"\\"]')
        self.assertEqual([rb'"\ud83d,]",', rb' {"a": [1,"\udc00"]},', rb' "\"\\",'], pieces(wire))


class BoundaryTests(SynchronousTestCase):
    def test_no_messages_have_one_boundary(self) -> None:
        self.assertEqual([0], list(boundaries(b"")))

    def test_boundaries_are_after_the_commas(self) -> None:
        self.assertEqual([0, 3, 7, 11], list(boundaries(b"1 ,[2],{} ,")))

    @examples(60)
    @given(st.lists(json_arrays(), max_size=4))
    def test_boundaries_equal_those_of_a_simple_splitter(self, appends: list[tuple[bytes, list[bytes]]]) -> None:
        wire = b"".join(wire_form(body) for body, _ in appends)
        elements = [element for _, elements in appends for element in elements]
        self.assertEqual(split_messages(wire), pieces(wire))
        self.assertEqual(elements, [piece[:-1].strip() for piece in pieces(wire)])

    @examples(60)
    @given(json_arrays(min_size=2))
    def test_a_stream_can_be_split_at_each_boundary(self, case: tuple[bytes, list[bytes]]) -> None:
        body, elements = case
        wire = wire_form(body)
        for index, edge in enumerate(list(boundaries(wire))):
            self.assertEqual([parsed(element) for element in elements[:index]], parsed(document(wire[:edge])))
            self.assertEqual([parsed(element) for element in elements[index:]], parsed(document(wire[edge:])))

    def test_boundaries_of_many_equal_messages(self) -> None:
        self.assertEqual(list(range(0, 202, 2)), list(boundaries(b"1," * 100)))
        self.assertEqual([0, 3, 6, 8], list(boundaries(b"11,11,1,")))

    def test_messages_around_the_size_limits_of_a_token_are_split(self) -> None:
        for size in (1, 16, 17, 63, 64, 65, 4095, 4096, 4097, 8192, 70_000):
            for text in (
                b"a" * size,
                rb"\"" * size,
                rb"\\" * size,
                b"[,{" * size,
                (rb"\n" + b"x" * 4097) * (size % 100),
            ):
                message = b'{"' + text + b'":["' + text + b'" , 1]}'
                wire = b",".join(
                    [message, b'"' + text + b'"', b"1" * size, b" " * size + b"2", b'{"a":"b","c":"d"}', b""]
                )
                self.assertEqual(split_messages(wire), pieces(wire), size)

    def test_a_scan_pauses_regularly(self) -> None:
        size = 1_000_000
        for wire in (
            b"1," * size,
            b"[]," * size,
            b"1" * size + b",",
            b"1" + b" " * size + b",",
            (b"1" * 4000 + b",") * 250,
            b'"' + b"a" * size + b'",',
            b'"' + rb"\n" * size + b'",',
            (b'"' + rb"\n" * 10_000 + b'",') * 50,
            (b'"' + b"a" * 10_000 + b'",') * 100,
        ):
            edges = list(scan(wire))
            pauses = edges.count(None)
            self.assertGreaterEqual(pauses, len(wire) // 1_000_000)
            self.assertGreaterEqual(pauses, (len(edges) - pauses) // 1025)

    def test_accepted_messages_are_split_even_if_the_stack_is_deep(self) -> None:
        def nested(depth: int) -> bytes:
            return b'{"a":' * depth + b"[1,2]" + b"}" * depth

        def deepest() -> int:
            low, high = 1, sys.getrecursionlimit() * 100
            while low < high:
                middle = (low + high + 1) // 2
                try:
                    wire_form(nested(middle))
                except InvalidJson:
                    high = middle - 1
                else:
                    low = middle
            return low

        def below(frames: int, call: Callable[[], list[int]]) -> list[int]:
            return below(frames - 1, call) if frames else call()

        wire = wire_form(nested(deepest()))
        self.assertEqual([0, len(wire)], below(60, lambda: list(boundaries(wire))))
        self.assertEqual([0, len(wire), len(wire) + 2], list(boundaries(wire + b"3,")))
        half = rb'"\ud83d,[\"",'
        self.assertEqual([0, len(half), len(half + wire)], list(boundaries(half + wire)))


def whole_messages(wire: bytes) -> list[bytes]:
    """Return what ``single_values`` yields, without its pauses."""
    return [value for value in single_values(wire) if value is not None]


class CompactTests(SynchronousTestCase):
    def test_only_whitespace_outside_strings_is_removed(self) -> None:
        for text, expected in (
            (b' {"b" : [ 1.50, -0 , 1E5 ] ,\n"a":"x  y"} ', b'{"b":[1.50,-0,1E5],"a":"x  y"}'),
            (b"[ 1 , 2 ]", b"[1,2]"),
            (b'"\xc3\xa9 \\u00e9 \\/"\r\n', b'"\xc3\xa9 \\u00e9 \\/"'),
            (rb'[ "\ud83d", "\uDE00", "\\ud800 <0> \u0000<1>" ]', rb'["\ud83d","\uDE00","\\ud800 <0> \u0000<1>"]'),
        ):
            self.assertEqual(expected, compact(text))

    def test_a_text_that_is_not_one_value_is_refused(self) -> None:
        for text in (
            *(b"", b" ", b"1 2", b"1,", b"[1,]", b"{", b"NaN", b"'a'", b'"\n"', b"01", b'"\\x"', b"nul"),
            *(b'"\xff"', b"\xef\xbb\xbf1", rb'"\ud8"', rb'"\udzzz"', b"[" * 100_000 + b"]" * 100_000),
        ):
            self.assertRaises(InvalidJson, compact, text)

    @examples(60)
    @given(json_texts, whitespace, whitespace)
    def test_a_value_keeps_its_meaning_and_is_not_changed_twice(self, text: str, before: str, after: str) -> None:
        short = compact(f"{before}{text}{after}".encode())
        self.assertEqual(parsed(text.encode()), parsed(short))
        self.assertEqual(short, compact(short))
        self.assertEqual([], [space for space in (b"\n", b"\r", b"\t") if space in short])


class SingleValueTests(SynchronousTestCase):
    @examples(60)
    @given(json_arrays())
    def test_each_message_is_found_as_compact_text(self, case: tuple[bytes, list[bytes]]) -> None:
        body, elements = case
        expected = [compact(element) for element in elements]
        wire = wire_form(body, empty_allowed=True)
        self.assertEqual(expected, whole_messages(wire))
        self.patch(messages, "_PARSED_BYTES", -1)
        self.assertEqual(expected, whole_messages(wire))

    def test_lone_surrogates_are_kept(self) -> None:
        wire = rb'"\ud83d", [ "\uDE00", "<0>" ] ,"\\ud800",'
        expected = [rb'"\ud83d"', rb'["\uDE00","<0>"]', rb'"\\ud800"']
        self.assertEqual(expected, whole_messages(wire))
        self.patch(messages, "_PARSED_BYTES", -1)
        self.assertEqual(expected, whole_messages(wire))
