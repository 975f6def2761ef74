"""Tests of the subscription APIs over HTTP, on both fronts: routes, checks, errors and headers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.subscribing import serve_subscriptions
from durable_streams.server.subscriptions.model import Outcome
from durable_streams.server.subscriptions.service import SubscriptionService
from durable_streams.server.subscriptions.settings import ServiceSettings
from tests.subscriptions.serving import Callables
from tests.support.fronts import BASE, ChannelFront, Front, SiteFront, settings_with
from tests.support.http2 import Http2Front
from tests.support.replies import Reply

DS = BASE + "__ds/"
S = DS + "subscriptions/s"

WEBHOOK = {"type": "webhook", "pattern": "events/*", "webhook": {"url": "https://worker.example/hook"}}
PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wakes"}


class Site(SynchronousTestCase):
    """One front with subscriptions."""

    def serving(
        self, kind: type[Front], limits: ServiceSettings | None = None, settings: Settings | None = None
    ) -> Front:
        front = kind(settings or Settings())
        self.parts = Callables()
        service = SubscriptionService(front.streams, front.clock, self.parts.open, limits or ServiceSettings())
        service.start()
        operations = front.operations
        serve_subscriptions(operations, service)
        front.settle()
        self.addCleanup(service.stopService)
        self.service = service
        return front

    def fronts(self) -> Iterator[Front]:
        for kind in (ChannelFront, SiteFront, Http2Front):
            yield self.serving(kind)

    def ask(
        self,
        front: Front,
        method: str,
        path: str,
        value: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        body = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        peer = front.connect()
        peer.send_request(method, path, headers, body)
        front.pass_time(0.01, 0.001)
        self.assertEqual(1, len(peer.replies), (method, path))
        peer.leave()
        front.peers.remove(peer)
        return peer.reply

    def assert_error(self, reply: Reply, status: int, code: str, **details: object) -> None:
        self.assertEqual((status, "application/json"), (reply.status, reply.get("content-type")), bytes(reply.body))
        error = reply.json()["error"]
        self.assertTrue(error.pop("message").endswith((".", "?")))
        self.assertEqual({"code": code, **details}, error)
        self.assertEqual("no-store", reply.get("cache-control"))


class RouteTests(Site):
    def test_creation_confirmation_description_and_deletion(self) -> None:
        for front in self.fronts():
            created = self.ask(front, "PUT", S, WEBHOOK)
            self.assertEqual((201, "no-store"), (created.status, created.get("cache-control")))
            self.assertEqual("nosniff", created.get("x-content-type-options"))
            self.assertEqual("cross-origin", created.get("cross-origin-resource-policy"))
            value = created.json()
            self.assertEqual(WEBHOOK["webhook"]["url"], value["webhook"]["url"])  # type: ignore[index]
            self.assertEqual(f"{front.scheme}://streams.example{DS}jwks.json", value["webhook"]["signing"]["jwks_url"])
            again = self.ask(front, "PUT", S, WEBHOOK)
            self.assertEqual((200, value), (again.status, again.json()))
            self.assertEqual(value, self.ask(front, "GET", S + "?x=y").json())
            self.assert_error(
                self.ask(front, "PUT", S, {**WEBHOOK, "pattern": "x"}), 409, "SUBSCRIPTION_ALREADY_EXISTS"
            )
            self.assertEqual(204, self.ask(front, "DELETE", S).status)
            self.assert_error(self.ask(front, "DELETE", S), 404, "SUBSCRIPTION_NOT_FOUND")
            self.assert_error(self.ask(front, "GET", S), 404, "SUBSCRIPTION_NOT_FOUND")

    def test_keys_are_public_and_cacheable(self) -> None:
        for front in self.fronts():
            reply = self.ask(front, "GET", DS + "jwks.json")
            self.assertEqual(
                (200, "application/jwk-set+json", "public, max-age=300"),
                (reply.status, reply.get("content-type"), reply.get("cache-control")),
            )
            self.assertEqual((200, b""), ((head := self.ask(front, "HEAD", DS + "jwks.json")).status, bytes(head.body)))

    def test_the_segment_is_recognised_after_decoding_and_unknown_paths_are_404(self) -> None:
        for front in self.fronts():
            self.ask(front, "PUT", BASE + "%5F_ds/subscriptions/s", WEBHOOK)
            self.assertEqual(200, self.ask(front, "GET", S).status)
            for method in ("GET", "PUT", "POST", "DELETE"):
                for path in ("", "/", "/x", "%2Fjwks.json", "/jwks.json/", "/subscriptions", "/subscriptions/s/claim/"):
                    reply = self.ask(front, method, BASE + "__ds" + path, {})
                    self.assert_error(reply, 404, "NOT_FOUND")

    def test_a_known_path_with_another_method_is_405_with_allow(self) -> None:
        for front in self.fronts():
            for method, path, allow in (
                ("POST", S, "DELETE, GET, HEAD, PUT"),
                ("PATCH", S, "DELETE, GET, HEAD, PUT"),
                ("GET", S + "/claim", "POST"),
                ("PUT", S + "/streams", "POST"),
                ("GET", S + "/streams/a", "DELETE"),
                ("POST", DS + "jwks.json", "GET, HEAD"),
            ):
                reply = self.ask(front, method, path, {})
                self.assert_error(reply, 405, "METHOD_NOT_ALLOWED")
                self.assertEqual(allow, reply.get("allow"))
            self.assertEqual(204, self.ask(front, "OPTIONS", S).status)

    def test_ids_of_clients_with_colons_work_and_bad_ids_are_refused(self) -> None:
        for front in self.fronts():
            for quoted in ("runner%3A1%3Aabcdef0123456789", "webhook%3a0011223344556677", "a@b+c=,d~e"):
                self.assertEqual(201, self.ask(front, "PUT", DS + "subscriptions/" + quoted, WEBHOOK).status)
            for quoted in ("..", "a%2Fb", "a b".replace(" ", "%20"), "x" * 257, "%FF", "%zz"):
                self.assert_error(self.ask(front, "PUT", DS + "subscriptions/" + quoted, WEBHOOK), 400, "INVALID_ID")
                reply = self.ask(front, "GET", DS + "subscriptions/" + quoted)
                self.assert_error(reply, 404, "SUBSCRIPTION_NOT_FOUND")

    def test_streams_are_added_and_removed(self) -> None:
        for front in self.fronts():
            self.ask(front, "PUT", S, {**WEBHOOK, "pattern": None, "streams": ["manual/a"]})
            self.assertEqual(204, self.ask(front, "POST", S + "/streams", {"streams": ["/manual/b", "c/"]}).status)
            self.assertEqual(204, self.ask(front, "DELETE", S + "/streams/manual%2Fb").status)
            self.assertEqual(204, self.ask(front, "DELETE", S + "/streams/c").status)
            self.assertEqual(204, self.ask(front, "DELETE", S + "/streams/none/at/all").status)
            paths = [(each["path"], each["acked_offset"]) for each in self.ask(front, "GET", S).json()["streams"]]
            self.assertEqual([("manual/a", "-1")], paths)
            self.assert_error(self.ask(front, "POST", S + "/streams", {"streams": []}), 400, "INVALID_REQUEST")
            self.assert_error(self.ask(front, "POST", S + "/streams", {"streams": ["a//b"]}), 400, "INVALID_PATH")

    def test_a_description_has_pages_of_streams(self) -> None:
        front = self.serving(ChannelFront)
        for start in (0, 1000):
            names = [f"x/{number:04}" for number in range(start, start + 600)]
            if start == 0:
                self.ask(front, "PUT", S, {**WEBHOOK, "streams": names})
            else:
                self.ask(front, "POST", S + "/streams", {"streams": names})
        value = self.ask(front, "GET", S).json()
        self.assertEqual((1000, True), (len(value["streams"]), value["streams_truncated"]))
        rest = self.ask(front, "GET", S + "?after=" + value["streams"][-1]["path"].replace("/", "%2F")).json()
        self.assertEqual(200, len(rest["streams"]))
        self.assertNotIn("streams_truncated", rest)

    def test_after_may_be_any_text(self) -> None:
        for front in self.fronts():
            self.ask(front, "PUT", S, {**WEBHOOK, "streams": ["a", "caf\u00e9", "\u03b2"]})
            for query, paths in (
                ("after=caf%C3%A9", ["\u03b2"]),
                ("after=a", ["caf\u00e9", "\u03b2"]),
                ("after=b%FF", ["caf\u00e9", "\u03b2"]),
                ("x=%FF", ["a", "caf\u00e9", "\u03b2"]),
                ("after", ["a", "caf\u00e9", "\u03b2"]),
            ):
                reply = self.ask(front, "GET", f"{S}?{query}")
                self.assertEqual(200, reply.status, query)
                self.assertEqual(paths, [stream["path"] for stream in reply.json()["streams"]], query)


class ActionTests(Site):
    def claimed(self, front: Front) -> dict[str, Any]:
        front.create("wakes", "application/json")
        self.ask(front, "PUT", S, PULL)
        front.create("events/a", "application/json", b"[1]")
        claim: dict[str, Any] = self.ask(front, "POST", S + "/claim", {"worker": "w"}).json()
        return claim

    def authorized(self, claim: dict[str, Any]) -> dict[str, str]:
        return {"Authorization": f"bearer {claim['token']}"}

    def ack_of(self, claim: dict[str, Any], **changes: object) -> dict[str, object]:
        acks = [{"path": "/" + each["path"], "offset": each["tail_offset"]} for each in claim["streams"]]
        return {"wake_id": claim["wake_id"], "generation": claim["generation"], "acks": acks, **changes}

    def test_claim_ack_and_release(self) -> None:
        for front in self.fronts():
            claim = self.claimed(front)
            self.assertEqual({"wake_id", "generation", "token", "streams", "lease_ttl_ms"}, set(claim))
            busy = self.ask(front, "POST", S + "/claim", {"worker": "v"})
            self.assert_error(busy, 409, "ALREADY_CLAIMED", current_holder="w", generation=1)
            headers = self.authorized(claim)
            beat = self.ask(front, "POST", S + "/ack", self.ack_of(claim), headers)
            self.assertEqual((200, {"ok": True, "next_wake": False}), (beat.status, beat.json()))
            front.append("events/a", b"2", "application/json")
            done = self.ask(front, "POST", S + "/ack", self.ack_of(claim, acks=[], done=True), headers)
            self.assertEqual({"ok": True, "next_wake": True}, done.json())
            self.assert_error(self.ask(front, "POST", S + "/ack", self.ack_of(claim), headers), 409, "FENCED")
            second = self.ask(front, "POST", S + "/claim", {"worker": "w"}).json()
            released = self.ask(front, "POST", S + "/release", self.ack_of(second), self.authorized(second))
            self.assertEqual((204, b""), (released.status, bytes(released.body)))

    def test_checks_are_made_in_the_documented_order(self) -> None:
        for front in self.fronts():
            self.assert_error(self.ask(front, "POST", S + "/ack", b"{"), 404, "SUBSCRIPTION_NOT_FOUND")
            claim = self.claimed(front)
            self.assert_error(self.ask(front, "POST", S + "/callback", b"{"), 400, "INVALID_REQUEST")
            for value in ("", "Basic x", "Bearer", "Bearer  ", "Bearer [1]", 'Bearer ["t",1,"w"]'):
                reply = self.ask(front, "POST", S + "/ack", b"{", {"Authorization": value} if value else {})
                self.assert_error(reply, 401, "TOKEN_INVALID")
                self.assertEqual("Bearer", reply.get("www-authenticate"))
            headers = self.authorized(claim)
            self.assert_error(self.ask(front, "POST", S + "/ack", b"{", headers), 400, "INVALID_JSON")
            self.assert_error(self.ask(front, "POST", S + "/ack", b"[]", headers), 400, "INVALID_REQUEST")
            bad = [{"stream": "none", "offset": "0" * 16 + "_" + "0" * 16}]
            late = self.ack_of(claim, acks=bad, generation=7)
            self.assert_error(self.ask(front, "POST", S + "/ack", late, headers), 409, "FENCED")
            reply = self.ask(front, "POST", S + "/ack", self.ack_of(claim, acks=bad), headers)
            self.assert_error(reply, 409, "INVALID_OFFSET")
            self.assert_error(self.ask(front, "POST", S + "/claim", {"worker": " "}), 400, "INVALID_WORKER")

    def test_a_webhook_has_callbacks_only(self) -> None:
        for front in self.fronts():
            self.ask(front, "PUT", S, WEBHOOK)
            front.create("events/a", body=b"x")
            front.settle()
            (body,) = self.parts.bodies
            self.assertEqual(f"{front.scheme}://streams.example{S}/callback", body["callback_url"])
            for action in ("claim", "ack", "release"):
                self.assert_error(self.ask(front, "POST", f"{S}/{action}", {}), 400, "INVALID_REQUEST")
            headers = {"Authorization": f"Bearer {body['callback_token']}"}
            reply = self.ask(front, "POST", S + "/callback", self.ack_of(body, done=True), headers)
            self.assertEqual({"ok": True, "next_wake": False}, reply.json())

    def test_bodies_over_1_mib_are_413(self) -> None:
        for front in self.fronts():
            reply = self.ask(front, "PUT", S, b" " * 1_048_577)
            self.assert_error(reply, 413, "REQUEST_BODY_TOO_LARGE")

    def test_a_service_that_stops_answers_503_with_retry_after(self) -> None:
        for front in self.fronts():
            self.ask(front, "PUT", S, PULL | {"wake_stream": "w", "type": "webhook", "webhook": WEBHOOK["webhook"]})
            self.service.drain()
            for method, path in (("GET", S), ("PUT", S), ("POST", S + "/claim"), ("DELETE", S)):
                reply = self.ask(front, method, path, WEBHOOK)
                self.assert_error(reply, 503, "UNAVAILABLE")
                self.assertEqual("1", reply.get("retry-after"))

    def test_limits_are_507(self) -> None:
        for kind in (ChannelFront, SiteFront):
            front = self.serving(kind, ServiceSettings(max_subscriptions=1))
            self.ask(front, "PUT", S, WEBHOOK)
            self.assert_error(self.ask(front, "PUT", S + "2", WEBHOOK), 507, "LIMIT_REACHED")

    def test_pages_of_other_origins_may_not_write_if_origins_are_listed(self) -> None:
        settings = settings_with(cors_origins=("https://app.example",))
        for kind in (ChannelFront, SiteFront):
            front = self.serving(kind, None, settings=settings)
            reply = self.ask(front, "PUT", S, WEBHOOK, {"Origin": "https://evil.example"})
            self.assert_error(reply, 403, "ORIGIN_NOT_ALLOWED")
            reply = self.ask(front, "PUT", S, WEBHOOK, {"Origin": "https://app.example"})
            self.assertEqual((201, "https://app.example"), (reply.status, reply.get("access-control-allow-origin")))

    def test_public_url_replaces_the_host_of_requests(self) -> None:
        front = self.serving(ChannelFront, ServiceSettings(public_url="https://public.example/of/"))
        value = self.ask(front, "PUT", S, WEBHOOK).json()
        self.assertEqual("https://public.example/of/v1/stream/__ds/jwks.json", value["webhook"]["signing"]["jwks_url"])

    def test_requests_are_counted_as_requests_for_subscriptions(self) -> None:
        front = self.serving(ChannelFront)
        self.ask(front, "PUT", S, WEBHOOK)
        self.ask(front, "GET", S)
        assert front.metrics is not None
        scraped = front.metrics.render().decode()
        self.assertIn('durable_streams_requests_total{operation="subscription",status="201"} 1.0', scraped)
        self.assertNotIn('operation="create",status="201"', scraped)


class ReservedWriterTests(Site):
    def test_clients_may_not_use_the_ids_of_the_servers_own_writers(self) -> None:
        for front in (ChannelFront(), SiteFront()):
            front.create("a")
            headers = {"Content-Type": "text/plain", "Producer-Epoch": "0", "Producer-Seq": "0"}
            reply = front.ask("POST", BASE + "a", {**headers, "Producer-Id": "__ds:s"}, b"x")
            self.assertEqual((400, "BAD_REQUEST"), (reply.status, reply.code))
            self.assertEqual(200, front.ask("POST", BASE + "a", {**headers, "Producer-Id": "__ds"}, b"x").status)


class MetricTests(Site):
    def test_subscriptions_wakes_and_lag_are_exported(self) -> None:
        front = self.serving(ChannelFront)
        assert front.metrics is not None
        front.metrics.watch_subscriptions(self.service.figures)
        self.ask(front, "PUT", S, WEBHOOK)
        front.create("events/a", body=b"hello")
        front.settle()
        front.pass_time(31, 1)
        scraped = front.metrics.render().decode()
        for line in (
            'durable_streams_subscriptions{status="active",type="webhook"} 1.0',
            "durable_streams_subscription_links 1.0",
            "durable_streams_subscription_pending_bytes 5.0",
            'durable_streams_subscription_deliveries_total{outcome="accepted",type="webhook"} 2.0',
            'durable_streams_subscription_transitions_total{transition="lease_expired"} 1.0',
            "durable_streams_subscription_sweep_seconds_count 1.0",
        ):
            self.assertIn(line, scraped)


class TraceTests(Site):
    OF_CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    def traceparents(self) -> list[str]:
        """Return the traceparent of each delivery."""
        return [trace.traceparent for trace in self.parts.traces]

    def write(self, front: Front, method: str, body: bytes, *traceparents: str, **headers: str) -> None:
        """Send a request that writes to events/a, and let its wake be delivered."""
        peer = front.connect()
        traces = dict(zip(("traceparent", "Traceparent"), traceparents, strict=False))
        peer.send_request(method, BASE + "events/a", {"Content-Type": "application/json", **traces, **headers}, body)
        front.pass_time(0.01, 0.001)
        self.assertIn(peer.reply.status, (200, 201, 204))
        peer.leave()
        front.peers.remove(peer)

    def test_a_delivery_continues_the_trace_of_the_request_that_caused_it(self) -> None:
        for front in self.fronts():
            self.parts.receive = lambda _: Outcome.DONE
            self.ask(front, "PUT", S, WEBHOOK)
            self.write(front, "PUT", b"[1,2]", self.OF_CLIENT)
            second = self.OF_CLIENT.replace("00f067aa", "11111111")
            self.write(front, "POST", b'[ "x" ]', second)
            self.assertEqual([self.OF_CLIENT, second], self.traceparents())

    def test_other_deliveries_begin_a_trace(self) -> None:
        for front in self.fronts():
            self.ask(front, "PUT", S, WEBHOOK)
            # The receiver accepts the first wake, so that both appends are pending when the lease is over.
            self.write(front, "PUT", b"[1]")
            self.write(front, "POST", b"[2]", self.OF_CLIENT)
            self.write(front, "POST", b"[3]", self.OF_CLIENT)
            front.pass_time(31, 1)
            self.assertEqual(2, len(self.traceparents()))
            for traceparent in self.traceparents():
                self.assertRegex(traceparent, "^00-[0-9a-f]{32}-[0-9a-f]{16}-01$")
                self.assertNotIn(self.OF_CLIENT[3:35], traceparent)

    def test_a_traceparent_that_was_sent_twice_is_not_passed_on(self) -> None:
        for kind in (ChannelFront, SiteFront):
            front = self.serving(kind)
            self.ask(front, "PUT", S, WEBHOOK)
            self.write(front, "PUT", b"[1]", self.OF_CLIENT, self.OF_CLIENT)
            (traceparent,) = self.traceparents()
            self.assertNotIn(self.OF_CLIENT[3:35], traceparent)

    def test_a_duplicate_and_a_creation_that_found_the_stream_leave_the_trace_as_it_is(self) -> None:
        front = self.serving(ChannelFront)
        self.parts.receive = lambda _: Outcome.DONE
        writer = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
        other = self.OF_CLIENT.replace("00f067aa", "22222222")
        self.write(front, "PUT", b"")
        self.write(front, "POST", b"[1]", self.OF_CLIENT, **writer)
        self.write(front, "POST", b"[1]", other, **writer)
        self.write(front, "PUT", b"", other)
        self.assertEqual([], self.traceparents())
        self.ask(front, "PUT", S, WEBHOOK)
        self.write(front, "POST", b"[2]", other)
        self.assertEqual([other], self.traceparents())

    def test_the_tracestate_goes_with_the_trace(self) -> None:
        for front in self.fronts():
            self.ask(front, "PUT", S, WEBHOOK)
            self.write(front, "PUT", b"[1]", self.OF_CLIENT, Tracestate="rojo=1, congo=2")
            self.assertEqual(["rojo=1, congo=2"], [trace.tracestate for trace in self.parts.traces])
