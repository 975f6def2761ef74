"""Tests of parsing the headers and bodies of POST and PUT."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import EmptyArray, EmptyBody, InvalidJson, InvalidRequest, StreamsError
from durable_streams.server.model import FOREVER, START, Append, Fork, Lifetime, Offset, StreamConfig, Writer
from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.web import writes
from durable_streams.server.web.requests import StreamRequest, name_reader, stream_request


def asked(body: bytes = b"", method: bytes = b"POST", **headers: bytes) -> StreamRequest:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return stream_request(method, b"/v1/stream/", b"a", b"", named, body)


class AppendTests(SynchronousTestCase):
    def test_an_append_of_bytes_is_read(self) -> None:
        append = writes.read_append(asked(b"hello", content_type=b"Text/Plain; charset=utf-8"))
        self.assertEqual(append, Append("text/plain", b"hello"))

    def test_an_append_of_json_is_read_in_wire_form(self) -> None:
        append = writes.read_append(asked(b"[1, 2]", content_type=b"application/json"))
        self.assertEqual(append, Append("application/json", b"1, 2,"))

    def test_an_append_with_all_headers_is_read(self) -> None:
        append = writes.read_append(
            asked(
                b"x",
                content_type=b"a/b",
                stream_closed=b" True",
                stream_seq=b"\xff1",
                producer_id=b"p\xff",
                producer_epoch=b"1",
                producer_seq=b"9007199254740991",
            )
        )
        self.assertEqual(append, Append("a/b", b"x", True, b"\xff1", Writer("p\xff", 1, 2**53 - 1)))

    def test_a_close_without_data_is_read(self) -> None:
        for odd in ({}, {"content_type": b"nonsense"}, {"content_type": b"application/json"}):
            append = writes.read_append(asked(stream_closed=b"true", **odd))
            self.assertEqual(append, Append(None, b"", True))

    def test_the_length_of_stream_seq_is_limited(self) -> None:
        longest = b"s" * writes.MAX_SEQUENCE
        self.assertEqual(writes.read_append(asked(b"x", content_type=b"a/b", stream_seq=longest)).sequence, longest)
        too_long = asked(b"x", content_type=b"a/b", stream_seq=longest + b"s")
        self.assertRaises(InvalidRequest, writes.read_append, too_long)

    def test_invalid_appends_raise_their_errors(self) -> None:
        wrong: list[tuple[type[StreamsError], StreamRequest]] = [
            (InvalidRequest, asked(b"x")),
            (InvalidRequest, asked(b"x", content_type=b"")),
            (EmptyBody, asked(content_type=b"a/b")),
            (EmptyBody, asked(content_type=b"a/b", stream_closed=b"false")),
            (InvalidJson, asked(b"{", content_type=b"application/json")),
            (EmptyArray, asked(b"[]", content_type=b"application/json")),
            (EmptyArray, asked(b"[]", content_type=b"application/json", stream_closed=b"true")),
            (InvalidRequest, asked(b"x", content_type=b"a/b", producer_id=b"p")),
            (InvalidRequest, asked(content_type=b"a/b", producer_id=b"p")),
            (InvalidRequest, asked(stream_closed=b"true", producer_seq=b"0")),
        ]
        for error, request in wrong:
            self.assertRaises(error, writes.read_append, request)

    def test_the_cache_of_media_types_is_bounded(self) -> None:
        for number in range(1000):
            append = writes.read_append(asked(b"x", content_type=b"a/b; n=%d" % number))
            self.assertEqual(append.media_type, "a/b")
        self.assertLessEqual(len(writes._media_types), 256)

    @given(st.one_of(st.binary(max_size=20), st.integers(0, 2**54).map(lambda number: str(number).encode())))
    @example(b"")
    @example(b"0")
    @example(b"00")
    @example(b"99")
    @example(b"099")
    @example(b"-1")
    @example(b"1\n")
    @example(b"1_0")
    @example(str(2**53 - 1).encode())
    @example(str(2**53).encode())
    @example(b"9" * 5000)
    def test_numbers_of_producers_are_plain_digits_without_leading_zeros(self, value: bytes) -> None:
        request = asked(b"x", content_type=b"a/b", producer_id=b"p", producer_epoch=b"0", producer_seq=value)
        if re.fullmatch(rb"0|[1-9][0-9]{0,15}", value) and int(value) < 2**53:
            self.assertEqual(writes.read_append(request).writer, Writer("p", 0, int(value)))
        else:
            self.assertRaises(InvalidRequest, writes.read_append, request)


class CreationTests(SynchronousTestCase):
    def read(self, **headers: bytes) -> StreamConfig:
        return writes.read_creation(asked(method=b"PUT", **headers), name_reader(NameLimits()))

    def test_a_creation_without_headers_has_the_defaults(self) -> None:
        self.assertEqual(self.read(), StreamConfig(None, FOREVER, False, None))

    def test_a_creation_with_all_headers_is_read(self) -> None:
        config = self.read(content_type=b"A/b; c=d", stream_ttl=b"60", stream_closed=b"TRUE")
        self.assertEqual(config, StreamConfig("A/b; c=d", Lifetime(ttl=60), True))
        config = self.read(stream_expires_at=b"2030-01-01T00:00:00Z")
        self.assertEqual(config.lifetime, Lifetime(expires_at=1_893_456_000.0))

    def test_the_length_of_a_content_type_is_limited(self) -> None:
        longest = b"a/" + b"b" * (writes.MAX_CONTENT_TYPE - 2)
        self.assertEqual(self.read(content_type=longest).content_type, longest.decode())
        self.assertRaises(InvalidRequest, self.read, content_type=longest + b"b")

    def test_fork_headers_are_read(self) -> None:
        offset = b"0000000000000005_0000000000000007"
        for source in (b"b/c", b"/v1/stream/b/c", b"/v1/stream/b%2Fc", b" b/c "):
            config = self.read(stream_forked_from=source, stream_fork_offset=offset, stream_fork_sub_offset=b"3")
            self.assertEqual(config.fork, Fork("b/c", Offset(5, 7), 3))
        self.assertEqual(self.read(stream_forked_from=b"b").fork, Fork("b", None, 0))
        self.assertEqual(self.read(stream_forked_from=b"b", stream_fork_offset=b"-1").fork, Fork("b", START, 0))

    def test_invalid_creations_raise_their_errors(self) -> None:
        for headers in (
            {"content_type": b""},
            {"stream_ttl": b"1", "stream_expires_at": b"2030-01-01T00:00:00Z"},
            {"stream_ttl": b""},
            {"stream_fork_offset": b"-1"},
            {"stream_fork_sub_offset": b"0"},
            {"stream_forked_from": b"/elsewhere/b"},
            {"stream_forked_from": b"b", "stream_fork_offset": b"x"},
            {"stream_forked_from": b"b", "stream_fork_sub_offset": b"x"},
        ):
            self.assertRaises(InvalidRequest, self.read, **headers)
