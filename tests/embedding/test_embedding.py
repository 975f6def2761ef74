"""Streams inside another program: from Python, and below some path of its Site."""

from __future__ import annotations

from inspect import signature
from typing import Any, TypeVar

from treq.testing import StubTreq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.static import Data

from durable_streams.server import Fork, MemoryStorage, Offset, StreamService, Writer, build_resource
from durable_streams.server.errors import (
    InvalidJson,
    InvalidName,
    InvalidOffset,
    InvalidRequest,
    StreamClosed,
    StreamExists,
    StreamNotFound,
)

T = TypeVar("T")


class FromPythonTests(SynchronousTestCase):
    """:class:`StreamService`, without a socket."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.streams = StreamService(MemoryStorage(), self.clock)
        self.streams.startService()
        self.addCleanup(self.streams.stopService)

    def now(self, deferred: Deferred[T]) -> T:
        return self.successResultOf(deferred)

    def test_an_append_can_be_read(self) -> None:
        self.assertTrue(self.now(self.streams.create("greetings", "text/plain", b"good ")).new)
        appended = self.now(self.streams.append("greetings", b"morning"))
        self.assertEqual(appended.tail, 12)
        reading = self.now(self.streams.read("greetings"))
        self.assertEqual((reading.data, reading.up_to_date, reading.closed), (b"good morning", True, False))

    def test_reading_continues_from_next_offset(self) -> None:
        self.now(self.streams.create("log", "text/plain", b"one"))
        first = self.now(self.streams.read("log"))
        self.now(self.streams.append("log", b"two"))
        second = self.now(self.streams.read("log", first.next_offset))
        self.assertEqual(second.data, b"two")
        self.assertGreater(second.next_offset, first.next_offset)

    def test_a_limited_read_ends_at_the_end_of_an_append(self) -> None:
        self.now(self.streams.create("log", "text/plain", b"one"))
        self.now(self.streams.append("log", b"three"))
        reading = self.now(self.streams.read("log", limit=5))
        self.assertEqual((reading.data, reading.up_to_date), (b"one", False))

    def test_json_streams_are_read_as_arrays(self) -> None:
        self.now(self.streams.create("events", "application/json"))
        self.now(self.streams.append("events", b'[{"a":1}, 2]'))
        self.assertEqual(self.now(self.streams.read("events")).data, b'[{"a":1}, 2]')
        self.failureResultOf(self.streams.append("events", b"{"), InvalidJson)

    def test_a_closed_stream_refuses_appends(self) -> None:
        self.now(self.streams.create("done", "text/plain"))
        self.assertTrue(self.now(self.streams.append("done", b"last", close=True)).closed)
        self.assertTrue(self.now(self.streams.close("done")).closed)
        self.assertTrue(self.now(self.streams.read("done")).closed)
        failure = self.failureResultOf(self.streams.append("done", b"more"), StreamClosed)
        self.assertEqual(failure.value.tail, 4)

    def test_a_writer_s_retry_is_recognised(self) -> None:
        self.now(self.streams.create("once", "text/plain"))
        writer = Writer("me", 0, 0)
        self.assertFalse(self.now(self.streams.append("once", b"x", writer=writer)).duplicate)
        self.assertTrue(self.now(self.streams.append("once", b"x", writer=writer)).duplicate)
        self.assertEqual(self.now(self.streams.read("once")).data, b"x")

    def test_a_fork_has_the_content_of_its_source(self) -> None:
        self.now(self.streams.create("source", "text/plain", b"abc"))
        created = self.now(self.streams.create("fork", fork=Fork("source", sub_offset=2, offset=Offset(0, 0))))
        self.assertEqual((created.facts.content_type, created.tail), ("text/plain", 2))
        self.assertEqual(self.now(self.streams.read("fork")).data, b"ab")

    def test_streams_expire_by_the_clock(self) -> None:
        self.now(self.streams.create("brief", "text/plain", ttl=10))
        self.assertEqual(self.now(self.streams.head("brief")).lifetime.ttl, 10)
        self.clock.advance(10)
        self.failureResultOf(self.streams.head("brief"), StreamNotFound)

    def test_a_deleted_stream_is_not_found(self) -> None:
        self.now(self.streams.create("gone", "text/plain"))
        self.assertIsNone(self.now(self.streams.delete("gone")))
        self.failureResultOf(self.streams.read("gone"), StreamNotFound)

    def test_invalid_arguments_fail_with_their_errors(self) -> None:
        self.now(self.streams.create("here", "text/plain"))
        self.failureResultOf(self.streams.create("here", "text/html"), StreamExists)
        self.failureResultOf(self.streams.create("a//b"), InvalidName)
        self.failureResultOf(self.streams.create("typed", "no type"), InvalidRequest)
        self.failureResultOf(self.streams.read("here", "somewhere"), InvalidOffset)
        self.failureResultOf(self.streams.append("nowhere", b"x"), StreamNotFound)


class MountedTests(SynchronousTestCase):
    """:func:`build_resource` in a program's own Site, over HTTP in memory."""

    def setUp(self) -> None:
        self.streams = StreamService(MemoryStorage(), Clock())
        self.streams.startService()
        self.addCleanup(self.streams.stopService)
        root = Resource()
        root.putChild(b"page", Data(b"a page", "text/plain"))
        api = Resource()
        root.putChild(b"api", api)
        api.putChild(b"streams", build_resource(self.streams))
        self.treq = StubTreq(root)

    def fetch(self, method: str, path: str, **keywords: Any) -> tuple[int, bytes, Any]:
        response = self.successResultOf(
            self.treq.request(  # type: ignore[attr-defined]
                method, f"http://site.example/{path}", **keywords
            )
        )
        return response.code, self.successResultOf(response.content()), response.headers

    def put(self, path: str) -> tuple[int, bytes, Any]:
        return self.fetch("PUT", path, headers={"Content-Type": "text/plain"})

    def test_the_resource_is_served_beside_others(self) -> None:
        self.assertEqual(self.fetch("GET", "page")[:2], (200, b"a page"))
        code, _, headers = self.put("api/streams/a/b%20c")
        self.assertEqual(code, 201)
        self.assertEqual(headers.getRawHeaders("Location"), ["http://site.example/api/streams/a/b%20c"])

    def test_python_and_http_use_the_same_streams(self) -> None:
        self.put("api/streams/shared")
        self.successResultOf(self.streams.append("shared", b"from Python"))
        self.assertEqual(self.fetch("GET", "api/streams/shared?offset=-1")[:2], (200, b"from Python"))

    def test_a_fork_s_source_is_named_by_its_path_or_its_name(self) -> None:
        self.put("api/streams/source")
        for fork, source in (("one", "/api/streams/source"), ("two", "source")):
            code, _, _ = self.fetch("PUT", f"api/streams/{fork}", headers={"Stream-Forked-From": source})
            self.assertEqual(code, 201, source)
        code, body, _ = self.fetch("PUT", "api/streams/three", headers={"Stream-Forked-From": "/elsewhere/source"})
        self.assertEqual(code, 400)
        self.assertIn(b"BAD_REQUEST", body)

    def test_the_path_of_the_resource_itself_is_404(self) -> None:
        for path in ("api/streams", "api/streams/"):
            code, body, _ = self.put(path)
            self.assertEqual((code, b"Streams are at /api/streams/NAME." in body), (404, True), path)

    def test_the_signature_of_the_service_does_not_spell_out_all_settings(self) -> None:
        self.assertLess(len(str(signature(StreamService))), 200)

    def test_build_resource_takes_a_storage(self) -> None:
        before = reactor.getDelayedCalls()
        resource = build_resource(MemoryStorage())
        # Its service runs as long as the program does, and here the program goes on.
        for call in set(reactor.getDelayedCalls()) - set(before):
            self.addCleanup(call.cancel)
        response = self.successResultOf(
            StubTreq(resource).put(  # type: ignore[attr-defined]
                "http://site.example/a"
            )
        )
        self.assertEqual(response.code, 201)
