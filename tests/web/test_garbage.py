"""Tests that answered requests leave no garbage for the collector."""

from __future__ import annotations

from functools import partial
from types import FrameType

from durable_streams.server.errors import StreamsError
from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE, Peer, request, settings_with
from tests.support.garbage import garbage, large_values, living
from tests.support.http2 import Http2Front, Http2Peer
from tests.support.tls import TLSFront

BODY = b"x" * 100_000


@each_way
class RefusalTests(FrontTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.front.create("a")

    def refuse(self, peer: Peer) -> None:
        for method, name, headers, body in (
            ("POST", "none", TEXT, BODY),
            ("GET", "none", {}, b""),
            ("DELETE", "none", {}, b""),
            ("PATCH", "a", TEXT, BODY),
            ("POST", "a", {"Content-Type": "application/json"}, BODY),
            ("POST", "a", {"Content-Type": "text/html"}, BODY),
            ("POST", "a", {**TEXT, "Producer-Id": "p"}, BODY),
            ("PUT", "a", {"Content-Type": "text/html"}, BODY),
            ("PUT", "b", {**TEXT, "Stream-Forked-From": "a", "Stream-Fork-Offset": "x"}, BODY),
            ("GET", "a?offset=x", {}, b""),
            ("GET", "%00", {}, b""),
        ):
            peer.send_request(method, BASE + name, headers, body)
            self.front.settle()
            self.assertGreaterEqual(peer.reply.status, 400, (method, name))

    def test_refused_requests_leave_nothing_to_the_collector(self) -> None:
        peer = self.front.connect()
        self.refuse(peer)
        with garbage() as found:
            self.refuse(peer)
        self.assertEqual([each for each in found if isinstance(each, (StreamsError, FrameType))], [])
        self.assertEqual(large_values(found), [])

    def test_the_errors_of_refused_requests_do_not_stay_in_memory(self) -> None:
        before = living(StreamsError)
        peer = self.front.connect()
        for _ in range(3):
            self.refuse(peer)
        self.assertEqual(living(StreamsError), before)


@each_way
class GoneTests(FrontTestCase):
    """Clients that are gone before their request, or its answer, is complete."""

    settings = settings_with(max_stream_bytes=8 << 20, max_request_body_bytes=4 << 20)

    def setUp(self) -> None:
        super().setUp()
        self.front.create("a", body=BODY)
        self.front.append_directly("a", b"x" * (2 << 20), "text/plain")

    def upload(self) -> Peer:
        peer = self.front.connect()
        if isinstance(peer, Http2Peer):
            peer.ask("POST", BASE + "a", {**TEXT, "content-length": "2000000"}, BODY * 2, is_all=False)
        else:
            peer.send(request("POST", BASE + "a", {**TEXT, "Content-Length": "2000000"}) + BODY, "POST")
            peer.send(BODY)
        return peer

    def wait_behind(self) -> Peer:
        """Upload behind a long-poll: the request waits for its turn, whole."""
        peer = self.front.follow(BASE + "a?offset=now&live=long-poll")
        peer.send_request("POST", BASE + "a", TEXT, BODY)
        return peer

    def read(self, query: str) -> Peer:
        peer = self.front.follow(BASE + "a" + query, room=10_000)
        if isinstance(peer, Http2Peer):
            peer.keeps_up = False
        return peer

    def come_and_go(self, way: str) -> None:
        for client in (
            self.front.connect,
            self.upload,
            self.wait_behind,
            partial(self.read, ""),
            partial(self.read, "?offset=-1&live=sse"),
            partial(self.read, "?offset=now&live=long-poll"),
        ):
            peer = client()
            self.front.pass_time(0.5)
            getattr(peer, way)()
            self.front.pass_time(1)
            self.front.peers.remove(peer)

    def check(self, found: list[object]) -> None:
        self.assertEqual(large_values(found, 4096), [])
        self.assertEqual([each for each in found if type(each).__module__.startswith("durable_streams")], [])

    def test_connections_leave_nothing_to_the_collector(self) -> None:
        for way in ("leave", "reset"):
            self.come_and_go(way)
            with garbage() as found:
                self.come_and_go(way)
            self.check(found)


class GoneOverHttp1Tests(GoneTests):
    def check(self, found: list[object]) -> None:
        self.assertEqual(found, [])


class GoneOverTlsTests(GoneTests):
    front_type = TLSFront


class ResetTests(FrontTestCase):
    """HTTP/2 requests that are reset while their connection stays."""

    front_type = Http2Front

    def test_requests_that_are_reset_leave_nothing_to_the_collector(self) -> None:
        self.front.create("a", body=BODY)
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        peer.keeps_up = False

        def ask_and_reset() -> None:
            asked = [
                peer.ask("POST", BASE + "a", {**TEXT, "content-length": "2000000"}, BODY, is_all=False),
                peer.ask("GET", BASE + "a"),
                *(peer.ask("GET", BASE + f"a?offset={query}") for query in ("now&live=sse", "now&live=long-poll")),
            ]
            for stream_id in asked:
                peer.h2.reset_stream(stream_id)
            peer.pass_on()
            self.front.pass_time(1)

        ask_and_reset()
        with garbage() as found:
            ask_and_reset()
        self.assertEqual(large_values(found), [])
        self.assertEqual([each for each in found if type(each).__module__.startswith("durable_streams")], [])
