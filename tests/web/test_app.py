"""Tests of the pages beside the streams, on both fronts."""

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
    def test_healthz_is_200_even_if_the_service_stops(self) -> None:
        self.front.obstacle = "It stops."
        reply = self.front.ask("GET", "/healthz")
        self.assertEqual((reply.status, bytes(reply.body)), (200, b"ok"))
        self.assertEqual(reply.get("content-type"), "text/plain")

    def test_readyz_is_200_if_the_service_is_ready(self) -> None:
        reply = self.front.ask("GET", "/readyz")
        self.assertEqual((reply.status, bytes(reply.body)), (200, b"ready"))

    def test_readyz_is_503_with_the_reason_if_the_service_is_not_ready(self) -> None:
        self.front.obstacle = "It is not started yet."
        reply = self.front.ask("GET", "/readyz")
        self.assertEqual((reply.status, reply.code), (503, "UNAVAILABLE"))
        self.assertEqual(reply.json()["detail"], "It is not started yet.")

    def test_a_head_of_a_probe_has_no_body(self) -> None:
        for path in ("/healthz", "/readyz"):
            reply = self.front.ask("HEAD", path)
            self.assertEqual((reply.status, bytes(reply.body)), (200, b""))

    def test_probes_ignore_a_query(self) -> None:
        for path in ("/healthz?", "/healthz?a=b", "/healthz?/v1/stream/a", "/readyz?%zz"):
            self.assertEqual(self.front.ask("GET", path).status, 200)

    def test_probes_reject_other_methods_with_405(self) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for path in ("/healthz", "/readyz"):
                reply = self.front.ask(method, path, TEXT, b"x")
                self.assertEqual((reply.status, reply.code), (405, "METHOD_NOT_ALLOWED"))
                self.assertEqual(reply.get("allow"), "GET, HEAD")

    def test_other_paths_are_404(self) -> None:
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

    def test_the_base_path_of_streams_can_be_changed(self) -> None:
        for front in self.fronts("/s"):
            self.assertEqual(front.ask("PUT", "/s/a/b", TEXT).get("location"), "http://streams.example/s/a/b")
            self.assertEqual(front.ask("GET", BASE + "a").status, 404)
            self.assertTrue(front.is_healthy())

    def test_a_404_names_the_path_of_streams(self) -> None:
        for base, where in (("/v1/stream", "/v1/stream/NAME"), ("/s", "/s/NAME"), ("/", "/NAME")):
            for front in self.fronts(base):
                paths = {"/", base, base.rstrip("/") + "/"} | ({"/elsewhere"} if base != "/" else set())
                for path in paths:
                    for method in ("GET", "PUT", "POST"):
                        reply = front.ask(method, path, TEXT)
                        self.assertEqual((reply.status, reply.code), (404, "NOT_FOUND"), path)
                        self.assertIn(f"Streams are at {where}.", reply.json()["detail"])

    def test_the_base_path_can_have_many_segments(self) -> None:
        for front in self.fronts("/one/two/three/four"):
            reply = front.ask("PUT", "/one/two/three/four/a%2Fb", TEXT)
            self.assertEqual(reply.get("location"), "http://streams.example/one/two/three/four/a/b")
            self.assertEqual(front.ask("GET", "/one/two/three/four/a/b").status, 200)

    def test_streams_at_the_root_leave_the_probes_reachable(self) -> None:
        for front in self.fronts("/"):
            self.assertEqual(front.ask("PUT", "/a/b", TEXT).get("location"), "http://streams.example/a/b")
            self.assertEqual(front.ask("PUT", "/healthz/a", TEXT).status, 201)
            self.assertTrue(front.is_healthy())
            self.assertEqual(bytes(front.ask("GET", "/healthz?a=b").body), b"ok")
            self.assertEqual(front.ask("PUT", "/readyz", TEXT).status, 405)
            self.assertEqual(front.ask("PUT", "/", TEXT).code, "NOT_FOUND")

    def test_a_probe_received_byte_by_byte_is_answered(self) -> None:
        front = self.fronts("/")[0]
        peer = front.connect()
        peer.send_bit_by_bit(request("GET", "/healthz?x") + request("GET", "/healthzz"), [1] * 100)
        self.assertEqual(peer.statuses, [200, 404])


class TreeTests(SynchronousTestCase):
    def test_the_tree_is_a_leaf_resource_without_children(self) -> None:
        front = SiteFront()
        self.addCleanup(front.stop)
        self.assertTrue(verifyObject(IResource, front.tree))
        self.assertTrue(front.tree.isLeaf)
        self.assertIs(front.tree.getChildWithDefault(b"any", None), front.tree)  # type: ignore[arg-type]
        self.assertRaises(NotImplementedError, front.tree.putChild, b"any", Resource())
