from __future__ import annotations

import json
from base64 import b64decode, b64encode
from itertools import pairwise
from typing import Any

import ijson
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.lifetimes import MAX_TTL, parse_timestamp
from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.transfer.document import (
    EntryFigures,
    StreamEntry,
    document_end,
    document_start,
    message,
    stream_end,
    stream_start,
)
from durable_streams.server.transfer.errors import InvalidDocument, TransferError, UnsupportedVersion, shown
from durable_streams.server.transfer.limits import ImportLimits
from durable_streams.server.transfer.parsing import STEP, DocumentParser, Item, LongMessage, MessagesStart
from durable_streams.server.transfer.timestamps import render_time
from tests.protocol.samples import examples
from tests.support.transfers import RECORDED, document_object, pretty, stream_object

LIMITS = ImportLimits(NameLimits(100, 4), 3000)


def parsed(data: bytes, size: int = STEP, limits: ImportLimits = LIMITS) -> list[Item]:
    """Parse a document in pieces of a size."""
    parser = DocumentParser(limits)
    items: list[Item] = []
    for start in range(0, len(data), size):
        items += parser.feed(data[start : start + size])
    parser.finish()
    return items


class ReadingTests(SynchronousTestCase):
    def test_the_parser_is_the_one_in_c(self) -> None:
        self.assertEqual("yajl2_c", ijson.backend)

    def test_a_document_of_the_rust_server_is_read(self) -> None:
        items = parsed(RECORDED.read_bytes())
        entries = {item.name: item for item in items if isinstance(item, StreamEntry)}
        self.assertEqual(11, len(entries))
        self.assertEqual(StreamEntry("created-closed", "text/plain", None, None, True, True), entries["created-closed"])
        self.assertEqual(StreamEntry("closed-later", "text/plain", None, None, False, True), entries["closed-later"])
        self.assertEqual((1_000_000_000, True), (entries["ttl"].ttl, (entries["ttl"].expires_at or 0) > 2.7e9))
        self.assertEqual((None, 4922996645.5), (entries["expires2"].ttl, entries["expires2"].expires_at))
        self.assertIn('n\xe9"\\\U0001f600', entries)
        self.assertEqual(13, len([item for item in items if isinstance(item, str)]))
        self.assertIn(MessagesStart("'a/json'", True), items)

    @examples(100)
    @given(st.sets(st.integers(1, 500), max_size=20))
    def test_pieces_may_end_anywhere(self, cuts: set[int]) -> None:
        data = pretty(document_object(stream_object("a\u00e9", "text/plain", b"one", b"two"), stream_object("b")))
        edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        parser = DocumentParser(LIMITS)
        items = [item for start, end in pairwise(edges) for item in parser.feed(data[start:end])]
        parser.finish()
        self.assertEqual(parsed(data), items)

    @examples(100)
    @given(st.randoms(use_true_random=False))
    def test_keys_may_be_in_any_order(self, random: Any) -> None:
        def shuffled(value: Any) -> Any:
            if isinstance(value, dict):
                pairs = [(key, shuffled(part)) for key, part in value.items()]
                random.shuffle(pairs)
                return dict(pairs)
            return [shuffled(part) for part in value] if isinstance(value, list) else value

        document = document_object(stream_object("a", "application/json", b"1", config={"ttl_seconds": 5}))
        items = parsed(json.dumps(shuffled(document)).encode())
        self.assertEqual(["MQ==", StreamEntry("a", "application/json", 5)], items[1:])
        start = items[0]
        assert isinstance(start, MessagesStart)
        self.assertIn(start.stream, ("'a'", "number 1"))
        self.assertIn(start.json, (True, None))

    def test_unknown_keys_are_ignored_whatever_is_in_them(self) -> None:
        extra = {"x": [1, {"y": None}, [[]]], "z": "text"}
        stream = stream_object("a", "text/plain", b"1", config=extra, **extra)
        stream["messages"][0].update(extra)
        self.assertEqual(
            [MessagesStart("'a'", False), "MQ==", StreamEntry("a", "text/plain")],
            parsed(pretty(document_object(stream, **extra))),
        )

    def test_what_an_import_does_not_need_may_be_missing(self) -> None:
        stream = stream_object("a", "text/plain", b"1")
        for key in ("created_at", "updated_at", "total_bytes", "message_count", "next_offset"):
            del stream[key]
        del stream["messages"][0]["offset"]
        del stream["config"]["ttl_seconds"]
        del stream["config"]["expires_at"]
        document = document_object(stream)
        del document["exported_at"], document["server_version"]
        self.assertEqual("MQ==", parsed(pretty(document))[1])

    def test_any_offset_of_a_time_is_accepted(self) -> None:
        for text, seconds in (("2026-11-30T14:13:16+02:00", 1796040796.0), ("2026-11-30t12:13:16.25z", 1796040796.25)):
            entry = parsed(pretty(document_object(stream_object(config={"expires_at": text}))))[-1]
            assert isinstance(entry, StreamEntry)
            self.assertEqual(seconds, entry.expires_at)


class RoundTripTests(SynchronousTestCase):
    @examples(100)
    @given(
        st.lists(
            st.tuples(
                st.from_regex(r"[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,9}(/[a-z]{1,3}){0,2}", fullmatch=True),
                st.sampled_from(["text/plain", "application/json"]),
                st.none() | st.integers(0, MAX_TTL),
                st.none() | st.integers(0, 2**40).map(lambda number: number / 1024),
                st.booleans(),
                st.booleans(),
                st.lists(st.binary(max_size=20), max_size=3),
            ).filter(lambda case: case[0].split("/")[0] not in (".", "..", "__ds")),
            max_size=4,
        )
    )
    def test_what_is_written_is_read(self, cases: list[tuple[Any, ...]]) -> None:
        text = document_start(0.0, "1")
        expected: list[Item] = []
        for number, (*fields, messages) in enumerate(cases):
            entry = StreamEntry(*fields)
            text += stream_start(entry, EntryFigures(0.0, None, 0, len(messages)), first=not number)
            expected.append(MessagesStart(shown(entry.name), entry.content_type == "application/json"))
            for index, data in enumerate(messages):
                text += message(index, 0, data)
                expected.append(b64encode(data).decode())
            text += stream_end(len(messages))
            # Times have microseconds.
            at = None if entry.expires_at is None else parse_timestamp(render_time(entry.expires_at))
            expected.append(structs.replace(entry, expires_at=at))
        self.assertEqual(expected, parsed(text + document_end(len(cases)), 50))


class RefusalTests(SynchronousTestCase):
    def refused(
        self, document: bytes | dict[str, Any], phrase: str, kind: type[TransferError] = InvalidDocument
    ) -> None:
        data = document if isinstance(document, bytes) else pretty(document)
        for size in (1, 7, STEP):
            error = self.assertRaises(kind, parsed, data, size)
            self.assertIn(phrase, str(error))
            self.assertNotIn("\n", str(error))

    def test_a_document_that_is_cut_anywhere_is_refused(self) -> None:
        data = pretty(document_object(stream_object("a", "text/plain", b"one")))
        self.refused(b"", "it is empty")
        for end in range(1, len(data)):
            self.assertIn("cut off", str(self.assertRaises(InvalidDocument, parsed, data[:end])))

    def test_text_that_is_not_json_is_refused(self) -> None:
        good = pretty(document_object())
        for bad in (b"{'a'", b"[1,]", b"{} x", good + good, b"NaN", b'{"x": NaN}', b'{"x": 01}', b'{"x": "\n"}', b"\0"):
            self.assertRaises(InvalidDocument, parsed, bad)
        self.refused(good + b"x", "it is not JSON: trailing garbage")
        self.refused(b'{"x": 1e999}', "overflow")
        self.refused(b'{"x": ' + b"9" * 2000 + b"}", "overflow")

    def test_bytes_that_are_not_utf8_are_refused(self) -> None:
        for bad in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"):
            self.refused(b'{"x": "' + bad + b'"}', "it is not UTF-8")

    def test_a_byte_order_mark_is_refused(self) -> None:
        document = b"\xef\xbb\xbf" + pretty(document_object())
        self.assertIn("byte order mark", str(self.assertRaises(InvalidDocument, parsed, document)))

    def test_another_version_is_refused_wherever_it_is(self) -> None:
        for version in (0, 2, -1, 2**40):
            self.refused(document_object(format_version=version), f"version: {version}.", UnsupportedVersion)
        last = document_object(stream_object())
        last["format_version"] = last.pop("format_version") + 1
        self.refused(last, "unsupported format version: 2", UnsupportedVersion)
        for wrong in ("1", 1.5, None, True, [1]):
            self.refused(document_object(format_version=wrong), "format_version must be an integer")

    def test_a_missing_key_is_named(self) -> None:
        for key in ("format_version", "streams"):
            document = document_object()
            del document[key]
            self.refused(document, f"the key {key} is missing")
        for key in ("name", "config", "closed", "messages"):
            stream = stream_object("a", "text/plain", b"1")
            del stream[key]
            self.refused(document_object(stream), f"the key {key} of stream")
        for key in ("content_type", "created_closed"):
            stream = stream_object()
            del stream["config"][key]
            self.refused(document_object(stream), f"the key {key} in config of stream 'a' is missing")
        stream = stream_object("a", "text/plain", b"1")
        del stream["messages"][0]["data_base64"]
        self.refused(document_object(stream), "the key data_base64 is missing in a message of stream 'a'")

    def test_a_key_that_is_there_twice_is_refused(self) -> None:
        for key in ('"streams": []', '"exported_at": "x"', '"format_version": 1'):
            text = f'"format_version": 1, "exported_at": "x", "streams": [], {key}'
            self.refused(f"{{{text}}}".encode(), "twice")
        stream = pretty(document_object(stream_object("a", "text/plain", b"1"))).decode()
        for key in (
            '"name": "a"',
            '"closed": false',
            '"total_bytes": 1',
            '"ttl_seconds": null',
            '"data_base64": "MQ=="',
        ):
            self.assertEqual(1, stream.count(key))
            self.refused(stream.replace(key, f"{key}, {key}").encode(), "twice")

    def test_a_value_of_a_wrong_type_is_refused(self) -> None:
        for changes, phrase in (
            ({"name": 1}, "the name of stream number 1 must be a text"),
            ({"closed": "true"}, "closed of stream 'a' must be true or false"),
            ({"closed": None}, "closed of stream 'a' must be true or false"),
            ({"messages": {}}, "messages of stream 'a' must be an array"),
            ({"messages": ["MQ=="]}, "each message of stream 'a' must be an object"),
            ({"messages": [{"data_base64": 1}]}, "data_base64 must be a text"),
        ):
            self.refused(document_object(stream_object(**changes)), phrase)
        self.refused(document_object(stream_object() | {"config": []}), "config of stream 'a' must be an object")
        self.refused(document_object(streams={}), "streams must be an array")
        self.refused(document_object(streams=[1]), "each stream must be an object")
        self.refused(b"[]", "it must be an object")
        self.refused(b"1 ", "it must be an object")

    def test_a_lifetime_that_is_out_of_range_is_refused(self) -> None:
        for wrong in (-1, 1.5, "1", True, MAX_TTL + 1):
            self.refused(document_object(stream_object(config={"ttl_seconds": wrong})), "ttl_seconds of stream 'a'")
        for wrong in (1, "", "tomorrow", "2026-02-30T00:00:00Z", "2026-11-30", True):
            self.refused(document_object(stream_object(config={"expires_at": wrong})), "expires_at of stream 'a'")

    def test_a_content_type_that_is_none_is_refused(self) -> None:
        for wrong in ("", "text", "text/plain\n", 1, None, "a/" + "b" * 600):
            self.refused(document_object(stream_object("a", wrong)), "content_type of stream 'a'")  # type: ignore[arg-type]

    def test_a_name_that_no_stream_can_have_is_refused(self) -> None:
        for wrong in ("", "/a", "a/", "a//b", ".", "a/..", "__ds/x", "__ds", "a\nb", "a\x7f", "x" * 101, "a/b/c/d/e"):
            self.refused(document_object(stream_object(wrong)), "is not allowed. ")

    def test_a_name_with_half_of_a_surrogate_pair_is_refused(self) -> None:
        stream = json.dumps(document_object(stream_object("a\ud800"))).encode()
        self.refused(stream, "half of a surrogate pair")

    def test_names_in_messages_are_printable_and_short(self) -> None:
        error = self.assertRaises(
            InvalidDocument, parsed, pretty(document_object(stream_object("\x1b[2J" + "x" * 500)))
        )
        self.assertIn(r"\x1b[2J", str(error))
        self.assertLess(len(str(error)), 500)


class BoundTests(SynchronousTestCase):
    def endless(self, start: bytes, filler: bytes, phrase: str, bound: int) -> None:
        """Assert that a value that does not end is refused soon."""
        parser = DocumentParser(LIMITS)
        parser.feed(start)
        with self.assertRaises(InvalidDocument) as caught:
            while parser.position < 2**31:
                parser.feed(filler * 1000)
        self.assertIn(phrase, str(caught.exception))
        self.assertLess(parser.position, bound + 2 * STEP)

    def test_a_message_that_does_not_end_is_refused_while_it_arrives(self) -> None:
        start = b'{"streams": [{"messages": [{"data_base64": "'
        self.endless(start, b"A", "a message has more than 3000 bytes", LIMITS.text_bytes)
        self.endless(start, b"\\n", "a message has more than 3000 bytes", LIMITS.text_bytes)
        self.endless(start[:-1], b" ", "a message has more than 3000 bytes", LIMITS.text_bytes)

    def test_any_other_value_that_does_not_end_is_refused_while_it_arrives(self) -> None:
        for start, filler in (
            (b'{"x": "', b"A"),
            (b'{"', b"A"),
            (b'{"x": ', b"1"),
            (b" ", b" "),
            (b'{"x": "', b"\\n"),
            (b'{"streams": [{"name": "', b"A"),
        ):
            self.endless(start, filler, "more than 65536 bytes", 65536)

    def test_a_long_message_is_read_in_parts(self) -> None:
        limits = ImportLimits(message_bytes=200_000)
        for length in (48_000, 49_151, 49_152, 60_000, 70_000, 200_000):
            document = pretty(document_object(stream_object("a", "text/plain", bytes(length), b"1")))
            for size in (STEP, 5_000):
                _, first, second, _ = parsed(document, size, limits)
                data = b"".join(first.parts) if isinstance(first, LongMessage) else first.encode()  # type: ignore[union-attr]
                self.assertEqual(bytes(length), b64decode(data))
                self.assertEqual("MQ==", second)

    def test_a_long_message_with_an_escape_is_refused(self) -> None:
        start = b'{"streams": [{"messages": [{"data_base64": "' + b"A" * 100_000
        for middle in (b"\\", b"", b"\\u0041", b"\xff"):
            text = start + middle + b'"}, {"data_base64": "MQ=="}], "name": "a", "closed": false}]}'
            self.assertRaises(InvalidDocument, parsed, text, STEP, ImportLimits())

    def test_nesting_is_limited(self) -> None:
        self.assertRaises(InvalidDocument, parsed, b'{"x": ' + b"[" * 1_000_000)
        error = self.assertRaises(InvalidDocument, parsed, b'{"x": ' + b'{"y": ' * 129)
        self.assertIn("more than 128 levels deep", str(error))
        whole = b'{"format_version": 1, "streams": [], "x": ' + b"[" * 128 + b"]" * 128 + b"}"
        self.assertEqual([], parsed(whole))
