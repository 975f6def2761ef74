"""Tests of parsing headers and queries."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidName, InvalidOffset, InvalidRequest
from durable_streams.server.model import NOW, START, Offset
from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.web import requests
from durable_streams.server.web.requests import StreamRequest, View, stream_request


def asked(method: bytes = b"POST", query: bytes = b"") -> StreamRequest:
    return stream_request(method, b"/v1/stream/", b"a", query, {}, b"")


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
                self.assertFalse(asked(method, query).is_live)

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
