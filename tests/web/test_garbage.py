"""What requests leave in memory when they are answered."""

from __future__ import annotations

from types import FrameType

from durable_streams.server.errors import StreamsError
from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE, Peer
from tests.support.garbage import garbage, large_values, living

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
