"""Tests of front 1: streams below a path of any twisted.web Site."""

from __future__ import annotations

from gzip import decompress
from typing import Final

from twisted.internet.interfaces import IProtocolFactory
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource, getChildForRequest
from twisted.web.server import GzipEncoderFactory, Site
from twisted.web.static import Data
from zope.interface.verify import verifyObject

from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.assembly import resource_from
from tests.support.cases import TEXT
from tests.support.fronts import BASE, Front, Headers, Peer, SiteFront, chunked, request, settings_with
from tests.support.tls import TLSPeer, over_tls


class MountedFront(Front):
    """Streams at ``/app/streams/``, beside other things, in a Site as a beginner makes it."""

    front = "site"

    @property
    def factory(self) -> IProtocolFactory:
        root, app = Resource(), Resource()
        self.resource = resource_from(self.operations, self.settings, self.clock)
        root.putChild(b"app", app)
        app.putChild(b"streams", self.resource)
        app.putChild(b"page", Data(b"a page", "text/plain"))
        return Site(root, reactor=self.clock)


class CompressedFront(MountedFront):
    """Streams whose resource is wrapped in Twisted's gzip encoder."""

    @property
    def factory(self) -> IProtocolFactory:
        root = Resource()
        resource = resource_from(self.operations, self.settings, self.clock)
        root.putChild(b"streams", EncodingResourceWrapper(resource, [GzipEncoderFactory()]))
        return Site(root, reactor=self.clock)


class CompressionTests(SynchronousTestCase):
    accepted: Final = {"Accept-Encoding": "gzip"}

    def setUp(self) -> None:
        self.front = CompressedFront()
        self.addCleanup(self.front.stop)
        reply = self.front.ask("PUT", "/streams/a", TEXT, b"some text")
        self.tail = reply.get("stream-next-offset")

    def append(self, body: bytes) -> None:
        self.front.ask("POST", "/streams/a", TEXT, body)
        self.front.look()

    def test_events_pass_a_gzip_wrapper_uncompressed_and_at_once(self) -> None:
        tail = self.front.follow("/streams/a?offset=-1&live=sse", self.accepted)
        self.assertIsNone(tail.reply.get("content-encoding"))
        self.assertEqual([event.kind for event in tail.events], ["data", "control"])
        self.append(b"more")
        self.assertEqual([event.data for event in tail.events if event.kind == "data"], ["some text", "more"])

    def test_finite_answers_are_compressed_by_a_gzip_wrapper(self) -> None:
        whole = self.front.ask("GET", "/streams/a", self.accepted)
        self.assertEqual((whole.get("content-encoding"), decompress(whole.body)), ("gzip", b"some text"))
        poll = self.front.follow(f"/streams/a?offset={self.tail}&live=long-poll", self.accepted)
        self.append(b"more")
        self.assertEqual((poll.reply.get("content-encoding"), decompress(poll.reply.body)), ("gzip", b"more"))

    def test_a_large_catch_up_read_is_compressed_by_a_gzip_wrapper(self) -> None:
        self.append(b"x" * 1_000_000)
        reply = self.front.ask("GET", f"/streams/a?offset={self.tail}", self.accepted)
        self.assertEqual((reply.complete, decompress(reply.body)), (True, b"x" * 1_000_000))


class MountingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.front = MountedFront()
        self.addCleanup(self.front.stop)

    def test_the_resource_is_a_leaf(self) -> None:
        resource = resource_from(self.front.operations, Settings(), self.front.clock)
        self.assertTrue(verifyObject(IResource, resource))
        self.assertTrue(resource.isLeaf)
        self.assertIs(resource.getChildWithDefault(b"any", None), resource)  # type: ignore[arg-type]
        self.assertRaises(NotImplementedError, resource.putChild, b"any", Resource())

    def test_the_rest_of_the_path_is_the_name(self) -> None:
        for path, name in (("a", "a"), ("a/b%20c", "a/b c"), ("%C3%A4", "\u00e4"), ("a%2Fb", "a/b"), ("%61", "a")):
            reply = self.front.ask("PUT", "/app/streams/" + path, TEXT)
            self.assertIn(reply.status, (200, 201))
            status = self.front.streams.status(name)
            self.assertEqual(status.facts.name, name)  # type: ignore[union-attr]

    def test_urls_have_the_whole_path_of_the_resource(self) -> None:
        reply = self.front.ask("PUT", "/app/streams/a%20b", TEXT)
        self.assertEqual(reply.get("location"), "http://streams.example/app/streams/a%20b")
        reply = self.front.ask("GET", "/app/streams/none?offset=-1")
        self.assertEqual(reply.json()["instance"], "/app/streams/none?offset=-1")

    def test_sources_of_forks_can_have_the_whole_path(self) -> None:
        self.front.ask("PUT", "/app/streams/a", TEXT, b"hello")
        reply = self.front.ask("PUT", "/app/streams/f", {"Stream-Forked-From": "/app/streams/a"})
        self.assertEqual(reply.status, 201)
        reply = self.front.ask("PUT", "/app/streams/g", {"Stream-Forked-From": "/v1/stream/a"})
        self.assertEqual((reply.status, reply.code), (400, "BAD_REQUEST"))

    def test_the_path_of_the_resource_is_404(self) -> None:
        for path in ("/app/streams", "/app/streams/"):
            reply = self.front.ask("PUT", path, TEXT)
            self.assertEqual((reply.status, reply.code), (404, "NOT_FOUND"), path)
        for path in ("/app/streams//", "/app/streams/."):
            self.assertEqual(self.front.ask("PUT", path, TEXT).code, "INVALID_STREAM_NAME", path)

    def test_sibling_resources_are_served(self) -> None:
        self.assertEqual(bytes(self.front.ask("GET", "/app/page").body), b"a page")
        self.assertEqual(self.front.ask("GET", "/app/other").status, 404)

    def test_form_bodies_are_stored_as_data(self) -> None:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        parts = {"Content-Type": "multipart/form-data; boundary=x"}
        whole = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
        for name, headers, body in (("form", form, b"a=b&c=%20"), ("parts", parts, whole)):
            self.front.ask("PUT", "/app/streams/" + name, headers)
            self.assertEqual(self.front.ask("POST", "/app/streams/" + name, headers, body).status, 204)
            self.assertEqual(bytes(self.front.ask("GET", "/app/streams/" + name).body), body)

    def test_twisted_web_routing_finds_the_resource(self) -> None:
        self.front.ask("PUT", "/app/streams/a", TEXT)
        root = Resource()
        root.putChild(b"streams", self.front.resource)

        class Asked:
            prepath: list[bytes] = []  # noqa: RUF012
            postpath = [b"streams", b"a", b"b"]  # noqa: RUF012

        asked = Asked()
        self.assertIs(getChildForRequest(root, asked), self.front.resource)
        self.assertEqual(asked.postpath, [b"a", b"b"])


class SiteTestCase(SynchronousTestCase):
    settings = Settings()
    front_type: type[Front] = SiteFront

    def setUp(self) -> None:
        self.front = self.front_type(self.settings)
        self.addCleanup(self.front.stop)

    def kept(self, peer: Peer) -> int:
        """Count what the transport keeps for a client."""
        transport = peer.transport
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen


class DeliveryTests(SiteTestCase):
    def test_twisted_web_adds_no_headers(self) -> None:
        self.front.create("a", body=b"hello")
        for method, body, status in (("HEAD", b"", 200), ("POST", b"x", 204), ("DELETE", b"", 204)):
            reply = self.front.ask(method, BASE + "a", TEXT, body)
            self.assertEqual((reply.status, reply.get("content-length")), (status, None))
            self.assertEqual(reply.get("content-type"), "text/plain" if method == "HEAD" else None)

    def test_a_304_has_no_content_length(self) -> None:
        self.front.create("a", body=b"hello")
        tag = self.front.ask("GET", BASE + "a").get("etag") or ""
        reply = self.front.ask("GET", BASE + "a", {"If-None-Match": tag})
        self.assertEqual((reply.status, reply.get("content-length")), (304, None))

    def test_an_http_1_0_tail_ends_with_the_connection(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.front.connect(read_replies=False)
        peer.send(request("GET", BASE + "a?offset=-1&live=sse", version="1.0"))
        self.front.close_stream("a")
        self.assertNotIn(b"Transfer-Encoding", peer.received)
        self.assertRegex(bytes(peer.received), rb'"streamClosed":true}\nid:[0-9_]+\n\n$')
        self.assertTrue(peer.ended)

    def test_chunks_are_joined_on_a_site(self) -> None:
        self.front.create("a")
        headers = TEXT | {"Transfer-Encoding": "chunked"}
        self.assertEqual(self.front.ask("POST", BASE + "a", headers, chunked([b"one", b"two"])).status, 204)
        self.assertEqual(bytes(self.front.ask("GET", BASE + "a").body), b"onetwo")

    def test_pipelined_requests_are_served_in_turn(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        peer.send(
            request("GET", BASE + f"a?offset={offset}&live=long-poll")
            + request("POST", BASE + "a", TEXT, b"two")
            + request("GET", BASE + "a"),
            *("GET", "POST", "GET"),
        )
        self.front.append("a", b"one")
        self.assertEqual([bytes(reply.body) for reply in peer.replies], [b"one", b"", b"onetwo"])


class BodyLimitTests(SiteTestCase):
    settings = settings_with(max_request_body_bytes=1_000)

    def test_a_body_over_the_limit_is_refused(self) -> None:
        self.front.create("a")
        self.assertEqual(self.front.ask("POST", BASE + "a", TEXT, b"x" * 1_000).status, 204)
        for method, size in (("POST", 1_001), ("PUT", 1_001), ("POST", 1_000_000)):
            reply = self.front.ask(method, BASE + "a", TEXT, b"x" * size)
            self.assertEqual((reply.status, reply.code), (413, "REQUEST_BODY_TOO_LARGE"))
        self.assertEqual(len(self.front.ask("GET", BASE + "a").body), 1_000)

    def test_chunks_over_the_limit_are_refused(self) -> None:
        self.front.create("a")
        headers = TEXT | {"Transfer-Encoding": "chunked"}
        reply = self.front.ask("POST", BASE + "a", headers, chunked([b"x" * 600] * 2))
        self.assertEqual((reply.status, reply.code), (413, "REQUEST_BODY_TOO_LARGE"))


class HeadLimitTests(SiteTestCase):
    settings = settings_with(max_header_bytes=1_000, max_target_bytes=200)

    def status(self, target: str, headers: Headers | None = None) -> tuple[int, str | None]:
        reply = self.front.ask("GET", target, headers)
        return reply.status, reply.code if reply.status >= 400 else None

    def test_a_target_over_the_limit_is_414(self) -> None:
        self.front.create("a")
        for path in (BASE + "a", "/healthz"):
            fitting = path + "?" + "x" * (199 - len(path))
            self.assertEqual(self.status(fitting), (200, None))
            self.assertEqual(self.status(fitting + "x"), (414, "TARGET_TOO_LONG"))

    def test_headers_over_the_limit_are_431(self) -> None:
        self.front.create("a")
        for path in (BASE + "a", "/healthz"):
            self.assertEqual(self.status(path, {"X": "y" * 800}), (200, None))
            self.assertEqual(self.status(path, {"X": "y" * 1_000}), (431, "HEADERS_TOO_LARGE"))
            self.assertEqual(
                self.status(path, {f"X-{number}": "y" for number in range(200)}), (431, "HEADERS_TOO_LARGE")
            )

    def test_a_page_with_host_twice_is_400(self) -> None:
        for path in (BASE + "a", "/healthz"):
            peer = self.front.connect()
            peer.send(b"GET %b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" % path.encode())
            self.assertEqual((peer.reply.status, peer.reply.code), (400, "BAD_REQUEST"))


class SlowReaderTests(SiteTestCase):
    settings = settings_with(
        {"stall_timeout_secs": 20, "sse_reconnect_interval_secs": 0},
        max_stream_bytes=50_000_000,
        max_total_bytes=50_000_000,
    )

    def test_a_catch_up_read_is_sent_in_bounded_pieces(self) -> None:
        self.front.create("a")
        data = bytes(range(250)) * 40_000
        self.front.append_directly("a", data, "text/plain")
        peer = self.front.follow(BASE + "a", room=50_000)
        most = 0
        while peer.waiting_bytes:
            most = max(most, self.kept(peer))
            peer.take_piece(50_000)
        self.assertLess(most, 300_000)
        self.assertEqual((peer.reply.length, peer.reply.complete), (len(data), True))
        self.assertEqual(bytes(peer.reply.body), data)

    def test_no_data_is_read_for_a_tail_that_stops_reading(self) -> None:
        self.front.create("a")
        peer = self.front.follow(BASE + "a?offset=-1&live=sse", room=5_000)
        for number in range(200):
            self.front.append("a", b"%05d" % number + b"x" * 20_000)
        self.assertLess(self.kept(peer), 300_000)
        peer.read_freely()
        text = "".join(event.data for event in peer.events if event.kind == "data")
        self.assertEqual(text, "".join(f"{number:05}" + "x" * 20_000 for number in range(200)))

    def test_a_client_that_reads_nothing_is_aborted_after_the_stall_timeout(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 5_000_000, "text/plain")
        queries = ("", "?offset=-1&live=sse", "?offset=-1&live=long-poll")
        peers = [self.front.follow(BASE + "a" + query, room=10_000) for query in queries]
        self.front.pass_time(19)
        self.assertEqual([peer.closed for peer in peers], [False] * 3)
        self.front.pass_time(2)
        self.assertEqual([peer.aborted for peer in peers], [True] * 3)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_client_that_reads_slowly_is_not_aborted(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 2_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=150_000)
        while peer.waiting_bytes:
            self.front.pass_time(10)
            self.assertFalse(peer.closed)
            peer.take_piece(150_000)
        self.assertEqual(len(peer.reply.body), 2_000_000)

    def test_a_stream_deleted_during_a_read_aborts_the_connection(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=50_000)
        self.front.delete("a")
        peer.read_freely()
        self.assertFalse(peer.reply.complete)
        self.assertTrue(peer.aborted)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_reader_that_disconnects_stops_the_answer(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        for query in ("", "?offset=-1&live=sse", "?offset=now&live=long-poll"):
            peer = self.front.follow(BASE + "a" + query, room=50_000)
            peer.leave()
            self.assertTrue(peer.closed)
        self.assertEqual(list(self.front.streams._waiting.watched()), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class TLSSiteFront(SiteFront):
    """A Site over TLS."""

    peer_type = TLSPeer

    @property
    def factory(self) -> IProtocolFactory:
        return over_tls(self.site, self.clock)


class TLSTests(SiteTestCase):
    front_type = TLSSiteFront

    def test_location_is_https_over_tls(self) -> None:
        peer = self.front.connect()
        assert isinstance(peer, TLSPeer)
        peer.handshake()
        peer.send_request("PUT", BASE + "a", TEXT)
        self.assertEqual(peer.reply.get("location"), "https://streams.example/v1/stream/a")
