"""What is served beside the streams, on both fronts."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource, Resource
from zope.interface.verify import verifyObject

from durable_streams.server.config.sections import HttpSettings
from durable_streams.server.config.settings import Settings
from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE, ChannelFront, Front, SiteFront, request


@each_way
class ProbeTests(FrontTestCase):
    def test_the_process_is_alive(self) -> None:
        self.front.obstacle = "It stops."
        reply = self.front.ask("GET", "/healthz")
        self.assertEqual((reply.status, bytes(reply.body)), (200, b"ok"))
        self.assertEqual(reply.get("content-type"), "text/plain")

    def test_the_service_is_ready(self) -> None:
        reply = self.front.ask("GET", "/readyz")
        self.assertEqual((reply.status, bytes(reply.body)), (200, b"ready"))

    def test_the_service_is_not_ready(self) -> None:
        self.front.obstacle = "It is not started yet."
        reply = self.front.ask("GET", "/readyz")
        self.assertEqual((reply.status, reply.code), (503, "UNAVAILABLE"))
        self.assertEqual(reply.json()["detail"], "It is not started yet.")

    def test_a_head_has_no_body(self) -> None:
        for path in ("/healthz", "/readyz"):
            reply = self.front.ask("HEAD", path)
            self.assertEqual((reply.status, bytes(reply.body)), (200, b""))

    def test_a_query_means_nothing(self) -> None:
        for path in ("/healthz?", "/healthz?a=b", "/healthz?/v1/stream/a", "/readyz?%zz"):
            self.assertEqual(self.front.ask("GET", path).status, 200)

    def test_they_can_only_be_read(self) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for path in ("/healthz", "/readyz"):
                reply = self.front.ask(method, path, TEXT, b"x")
                self.assertEqual((reply.status, reply.code), (405, "METHOD_NOT_ALLOWED"))
                self.assertEqual(reply.get("allow"), "GET, HEAD")

    def test_there_is_nothing_else(self) -> None:
        for path in (
            "/",
            "/v1",
            "/v1/stream",
            "/v1/streams/a",
            "/healthz/",
            "/admin",
            "/%ff",
            "/\u00ff".encode().hex(),
        ):
            reply = self.front.ask("GET", path if path.startswith("/") else "/" + path)
            self.assertEqual((reply.status, reply.code), (404, "NOT_FOUND"), path)
            self.assertEqual(reply.get("x-content-type-options"), "nosniff")


class BasePathTests(SynchronousTestCase):
    def fronts(self, base_path: str) -> list[Front]:
        settings = replace(Settings(), http=HttpSettings(stream_base_path=base_path))
        fronts: list[Front] = [ChannelFront(settings), SiteFront(settings)]
        for front in fronts:
            self.addCleanup(front.stop)
        return fronts

    def test_streams_may_be_elsewhere(self) -> None:
        for front in self.fronts("/s"):
            self.assertEqual(front.ask("PUT", "/s/a/b", TEXT).get("location"), "http://streams.example/s/a/b")
            self.assertEqual(front.ask("GET", BASE + "a").status, 404)
            self.assertTrue(front.is_healthy())

    def test_a_404_says_where_streams_are(self) -> None:
        for base, where in (("/v1/stream", "/v1/stream/NAME"), ("/s", "/s/NAME"), ("/", "/NAME")):
            for front in self.fronts(base):
                paths = {"/", base, base.rstrip("/") + "/"} | ({"/elsewhere"} if base != "/" else set())
                for path in paths:
                    for method in ("GET", "PUT", "POST"):
                        reply = front.ask(method, path, TEXT)
                        self.assertEqual((reply.status, reply.code), (404, "NOT_FOUND"), path)
                        self.assertIn(f"Streams are at {where}.", reply.json()["detail"])

    def test_a_long_way_down(self) -> None:
        for front in self.fronts("/one/two/three/four"):
            reply = front.ask("PUT", "/one/two/three/four/a%2Fb", TEXT)
            self.assertEqual(reply.get("location"), "http://streams.example/one/two/three/four/a/b")
            self.assertEqual(front.ask("GET", "/one/two/three/four/a/b").status, 200)

    def test_streams_may_be_everywhere_but_where_the_probes_are(self) -> None:
        for front in self.fronts("/"):
            self.assertEqual(front.ask("PUT", "/a/b", TEXT).get("location"), "http://streams.example/a/b")
            self.assertEqual(front.ask("PUT", "/healthz/a", TEXT).status, 201)
            self.assertTrue(front.is_healthy())
            self.assertEqual(bytes(front.ask("GET", "/healthz?a=b").body), b"ok")
            self.assertEqual(front.ask("PUT", "/readyz", TEXT).status, 405)
            self.assertEqual(front.ask("PUT", "/", TEXT).code, "NOT_FOUND")

    def test_a_probe_is_found_however_its_path_is_cut(self) -> None:
        front = self.fronts("/")[0]
        peer = front.connect()
        peer.send_bit_by_bit(request("GET", "/healthz?x") + request("GET", "/healthzz"), [1] * 100)
        self.assertEqual(peer.statuses, [200, 404])


class TreeTests(SynchronousTestCase):
    def test_it_is_a_resource_and_complete(self) -> None:
        front = SiteFront()
        self.addCleanup(front.stop)
        self.assertTrue(verifyObject(IResource, front.tree))
        self.assertTrue(front.tree.isLeaf)
        self.assertIs(front.tree.getChildWithDefault(b"any", None), front.tree)  # type: ignore[arg-type]
        self.assertRaises(NotImplementedError, front.tree.putChild, b"any", Resource())
