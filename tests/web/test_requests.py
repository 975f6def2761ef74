"""Tests of parsing headers and queries."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import (
    EmptyArray,
    EmptyBody,
    InvalidJson,
    InvalidName,
    InvalidOffset,
    InvalidRequest,
    StreamsError,
)
from durable_streams.server.model import FOREVER, NOW, START, Append, Fork, Lifetime, Offset, StreamConfig, Writer
from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.web import requests
from durable_streams.server.web.requests import StreamRequest, View, stream_request


def asked(body: bytes = b"", method: bytes = b"POST", query: bytes = b"", **headers: bytes) -> StreamRequest:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return stream_request(method, b"/v1/stream/", b"a", query, named, body)


class TargetTests(SynchronousTestCase):
    def test_the_target_is_path_and_query_as_sent(self) -> None:
        self.assertEqual(asked().target, b"/v1/stream/a")
        self.assertEqual(asked(query=b"offset=-1&x=%zz").target, b"/v1/stream/a?offset=-1&x=%zz")


class HeaderTests(SynchronousTestCase):
    def test_only_known_headers_are_kept(self) -> None:
        fields = [(b"Content-Type", b"a/b"), (b"COOKIE", b"secret"), (b"stream-TTL", b"5"), (b"Accept", b"*/*")]
        self.assertEqual(requests.pick_headers(fields), {b"content-type": b"a/b", b"stream-ttl": b"5"})

    def test_a_duplicate_of_a_known_header_is_rejected(self) -> None:
        for name in sorted(
            requests.READ_HEADERS - {b"content-encoding", b"if-none-match", b"traceparent", b"tracestate"}
        ):
            fields = [(name, b"a"), (name.upper(), b"a")]
            self.assertRaises(InvalidRequest, requests.pick_headers, fields)

    def test_duplicates_of_list_headers_are_joined(self) -> None:
        fields = [(b"If-None-Match", b'"a"'), (b"if-none-match", b'"b"')]
        self.assertEqual(requests.pick_headers(fields), {b"if-none-match": b'"a", "b"'})

    def test_duplicates_of_unknown_headers_are_ignored(self) -> None:
        self.assertEqual(requests.pick_headers([(b"Accept", b"a"), (b"Accept", b"b")]), {})


class NameReaderTests(SynchronousTestCase):
    def test_names_are_parsed_with_and_without_the_cache(self) -> None:
        read_name = requests.name_reader(NameLimits())
        for _ in range(2):
            self.assertEqual(read_name(b"a%20b"), "a b")
            self.assertRaises(InvalidName, read_name, b"..")

    def test_names_are_parsed_after_they_left_the_cache(self) -> None:
        read_name = requests.name_reader(NameLimits(), remembered=4)
        for number in range(20):
            self.assertEqual(read_name(b"%d" % number), str(number))
            self.assertEqual(read_name(b"0"), "0")

    def test_names_too_long_for_the_cache_are_parsed(self) -> None:
        read_name = requests.name_reader(NameLimits(name_bytes=2000))
        self.assertEqual(read_name(b"x" * 1500), "x" * 1500)


class AppendTests(SynchronousTestCase):
    def test_an_append_of_bytes_is_read(self) -> None:
        append = requests.read_append(asked(b"hello", content_type=b"Text/Plain; charset=utf-8"))
        self.assertEqual(append, Append("text/plain", b"hello"))

    def test_an_append_of_json_is_read_in_wire_form(self) -> None:
        append = requests.read_append(asked(b"[1, 2]", content_type=b"application/json"))
        self.assertEqual(append, Append("application/json", b"1, 2,"))

    def test_an_append_with_all_headers_is_read(self) -> None:
        append = requests.read_append(
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
            append = requests.read_append(asked(stream_closed=b"true", **odd))
            self.assertEqual(append, Append(None, b"", True))

    def test_the_length_of_stream_seq_is_limited(self) -> None:
        longest = b"s" * requests.MAX_SEQUENCE
        self.assertEqual(requests.read_append(asked(b"x", content_type=b"a/b", stream_seq=longest)).sequence, longest)
        too_long = asked(b"x", content_type=b"a/b", stream_seq=longest + b"s")
        self.assertRaises(InvalidRequest, requests.read_append, too_long)

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
            self.assertRaises(error, requests.read_append, request)

    def test_the_cache_of_media_types_is_bounded(self) -> None:
        for number in range(1000):
            append = requests.read_append(asked(b"x", content_type=b"a/b; n=%d" % number))
            self.assertEqual(append.media_type, "a/b")
        self.assertLessEqual(len(requests._media_types), 256)

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
            self.assertEqual(requests.read_append(request).writer, Writer("p", 0, int(value)))
        else:
            self.assertRaises(InvalidRequest, requests.read_append, request)


class CreationTests(SynchronousTestCase):
    def read(self, **headers: bytes) -> StreamConfig:
        return requests.read_creation(asked(method=b"PUT", **headers), requests.name_reader(NameLimits()))

    def test_a_creation_without_headers_has_the_defaults(self) -> None:
        self.assertEqual(self.read(), StreamConfig(None, FOREVER, False, None))

    def test_a_creation_with_all_headers_is_read(self) -> None:
        config = self.read(content_type=b"A/b; c=d", stream_ttl=b"60", stream_closed=b"TRUE")
        self.assertEqual(config, StreamConfig("A/b; c=d", Lifetime(ttl=60), True))
        config = self.read(stream_expires_at=b"2030-01-01T00:00:00Z")
        self.assertEqual(config.lifetime, Lifetime(expires_at=1_893_456_000.0))

    def test_the_length_of_a_content_type_is_limited(self) -> None:
        longest = b"a/" + b"b" * (requests.MAX_CONTENT_TYPE - 2)
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


class ViewTests(SynchronousTestCase):
    def test_queries_are_read(self) -> None:
        place = b"0000000000000005_0000000000000007"
        for query, view in (
            (b"", View(None, None, None)),
            (b"offset=-1", View(START, None, None)),
            (b"offset=now", View(NOW, None, None)),
            (b"offset=" + place, View(Offset(5, 7), None, None)),
            (b"offset=" + place.replace(b"_", b"%5F"), View(Offset(5, 7), None, None)),
            (b"cursor=5&live=sse&offset=-1", View(START, "sse", "5")),
            (b"offset=-1&live=long-poll&cursor=", View(START, "long-poll", "")),
            (b"offset=-1&live=long%2Dpoll&x=y&&=&offset2=z", View(START, "long-poll", None)),
        ):
            for _ in range(2):
                operation = {None: "read", "sse": "subscribe", "long-poll": "poll"}[view.live]
                self.assertEqual(requests.find_operation(b"GET", query), (operation, view), query)

    def test_the_operation_of_other_methods_does_not_depend_on_the_query(self) -> None:
        for method, operation in (
            (b"POST", "append"),
            (b"PUT", "create"),
            (b"HEAD", "head"),
            (b"DELETE", "delete"),
            (b"OPTIONS", "request"),
            (b"PATCH", "request"),
        ):
            for query in (b"", b"offset=-1&live=sse", b"live=x"):
                self.assertEqual(requests.find_operation(method, query), (operation, View()), method)
                self.assertFalse(asked(b"", method, query).is_live)

    def test_invalid_queries_raise_their_errors(self) -> None:
        for query in (
            b"offset=",
            b"offset",
            b"offset=1",
            b"offset=-1&offset=-1",
            b"live=sse",
            b"cursor=1&live=long-poll",
        ):
            for _ in range(2):
                self.assertRaises(InvalidOffset, requests.find_operation(b"GET", query)[1].check)
        for query in (b"live=", b"live=x&offset=-1", b"offset=-1&live=sse&live=x"):
            self.assertRaises(InvalidRequest, requests.find_operation(b"GET", query)[1].check)
