"""Tests of the gate for subscriptions: what each request at the reserved paths needs, on every front."""

from __future__ import annotations

import json
from typing import Any

from durable_streams.server.daemon.subscribing import serve_subscriptions
from durable_streams.server.subscriptions.service import SubscriptionService
from tests.subscriptions.serving import Callables
from tests.support.cases import TEXT, each_way
from tests.support.fronts import BASE, request
from tests.support.gates import GateTestCase, bearer
from tests.support.identities import person
from tests.support.replies import Reply

DS = BASE + "__ds/"
HOOK = {"type": "webhook", "webhook": {"url": "https://worker.example/hook"}}
OWN = "__ds/subscriptions/alice-*"


class SubscriptionCase(GateTestCase):
    """A test case with subscriptions behind a gate. Alice has subscriptions of her own; bob has none."""

    rules = (
        "allow subject:alice subscribe __ds/subscriptions/mine alice/** shared/s",
        "allow subject:alice append alice/wakes",
        "allow subject:reader subscribe alice/** shared/**",
        "allow subject:owner all **",
    )

    def setUp(self) -> None:
        super().setUp()
        self.book.tokens["reader"] = person("reader")
        self.parts = Callables()
        self.service = SubscriptionService(self.front.streams, self.front.clock, self.parts.open)
        self.service.start()
        serve_subscriptions(self.front.operations, self.service)
        self.front.settle()
        self.addCleanup(self.service.stopService)

    def send(self, method: str, path: str, token: str | None, value: object = None, **headers: str) -> Reply:
        body = b"" if value is None else json.dumps(value).encode()
        peer = self.front.connect()
        peer.send_request(method, DS + path, {**bearer(token), **headers}, body)
        self.front.pass_time(0.5, 0.01)
        self.assertEqual(len(peer.replies), 1, (method, path))
        peer.leave()
        self.front.peers.remove(peer)
        return peer.reply

    def create(self, name: str) -> None:
        """Create a JSON stream."""
        reply = self.ask("PUT", name, "owner", {"Content-Type": "application/json"})
        self.assertEqual(reply.status, 201)

    def put(self, token: str | None, subscription_id: str = "mine", **config: Any) -> Reply:
        return self.send("PUT", "subscriptions/" + subscription_id, token, {**HOOK, **config})

    def assert_error(self, reply: Reply, status: int, code: str) -> None:
        self.assertEqual((reply.status, reply.json()["error"]["code"]), (status, code), bytes(reply.body))
        self.assertEqual(reply.get("content-type"), "application/json")


@each_way
class SubscriptionAccessTests(SubscriptionCase):
    def test_a_subscription_needs_subscribe_on_its_name_and_on_its_streams(self) -> None:
        self.assertEqual(self.put("alice", streams=["alice/a", "shared/s"]).status, 201)
        self.assertEqual(self.put("alice", streams=["alice/a", "shared/s"]).status, 200)
        for streams in (["bob/b"], ["alice/a", "bob/b"], ["shared/t"]):
            self.assert_error(self.put("alice", streams=streams), 403, "FORBIDDEN")
        self.assert_error(self.put("alice", "other", streams=["alice/a"]), 403, "FORBIDDEN")
        self.assert_error(self.put("reader", streams=["alice/a"]), 403, "FORBIDDEN")

    def test_a_pattern_needs_subscribe_on_every_name_that_it_matches(self) -> None:
        self.assertEqual(self.put("alice", pattern="alice/*").status, 201)
        for pattern in ("**", "*/a", "shared/*", "bob/b"):
            self.assert_error(self.put("alice", pattern=pattern), 403, "FORBIDDEN")
        self.control.set_rules("deny subject:alice subscribe alice/secret/keys/**", *self.rules)
        self.assert_error(self.put("alice", pattern="alice/**"), 403, "FORBIDDEN")
        self.assertEqual(self.put("alice", "mine", pattern="alice/*").status, 200)

    def test_a_wake_stream_needs_append(self) -> None:
        pull = {"type": "pull-wake", "streams": ["alice/a"]}
        self.create("alice/wakes")
        self.create("shared/wakes")
        for wake_stream, status in (("shared/wakes", 403), ("alice/b", 403), ("alice/wakes", 201)):
            reply = self.send("PUT", "subscriptions/mine", "alice", {**pull, "wake_stream": wake_stream})
            self.assertEqual(reply.status, status, wake_stream)

    def test_each_stream_that_is_added_needs_subscribe(self) -> None:
        self.put("alice", streams=["alice/a"])
        path = "subscriptions/mine/streams"
        self.assert_error(self.send("POST", path, "alice", {"streams": ["alice/b", "bob/b"]}), 403, "FORBIDDEN")
        self.assertEqual(self.send("POST", path, "alice", {"streams": ["alice/b", "/shared/s/"]}).status, 204)
        self.assertEqual(self.send("DELETE", path + "/shared/s", "alice").status, 204)
        self.assert_error(self.send("DELETE", path + "/alice/b", "reader"), 403, "FORBIDDEN")
        description = self.send("GET", "subscriptions/mine", "alice").json()
        self.assertEqual([stream["path"] for stream in description["streams"]], ["alice/a", "alice/b"])

    def test_nothing_is_shown_or_deleted_without_subscribe_on_its_name(self) -> None:
        self.put("alice", streams=["alice/a"])
        for method in ("GET", "HEAD", "DELETE"):
            for token, status in (("bob", 403), ("reader", 403), (None, 401), ("wrong", 401)):
                existing = self.send(method, "subscriptions/mine", token)
                missing = self.send(method, "subscriptions/none", token)
                self.assertEqual((existing.status, missing.status), (status, status))
                self.assertEqual(
                    bytes(existing.body).replace(b"mine", b"none"), bytes(missing.body).replace(b"mine", b"none")
                )
        self.assertEqual(self.send("GET", "subscriptions/mine", "alice").status, 200)
        self.assertEqual(self.send("DELETE", "subscriptions/mine", "alice").status, 204)

    def test_a_claim_needs_subscribe(self) -> None:
        self.create("alice/wakes")
        self.put("alice", type="pull-wake", streams=["alice/a"], wake_stream="alice/wakes", webhook=None)
        self.ask("POST", "alice/a", "owner", TEXT, b"more")
        self.front.pass_time(1)
        path = "subscriptions/mine/claim"
        self.assert_error(self.send("POST", path, "bob", {"worker": "w"}), 403, "FORBIDDEN")
        self.assert_error(self.send("POST", path, None, {"worker": "w"}), 401, "UNAUTHORIZED")
        claimed = self.send("POST", path, "alice", {"worker": "w"})
        self.assertEqual(claimed.status, 200, bytes(claimed.body))
        claim = claimed.json()
        done = {"wake_id": claim["wake_id"], "generation": claim["generation"], "done": True}
        self.assertEqual(self.send("POST", "subscriptions/mine/ack", claim["token"], done).status, 200)

    def test_an_ack_is_decided_by_the_token_of_the_claim_alone(self) -> None:
        for action in ("ack", "callback", "release"):
            # There is no subscription yet, and so no secret.
            self.assert_error(self.send("POST", f"subscriptions/mine/{action}", "owner", {}), 401, "TOKEN_INVALID")
        self.put("alice", streams=["alice/a"])
        for action in ("ack", "callback", "release"):
            replies = [
                self.send("POST", f"subscriptions/{subscription_id}/{action}", token, {})
                for subscription_id in ("mine", "none")
                for token in ("owner", "alice", None, "a.b", "eyJhIjoxfQ." + "A" * 43)
            ]
            self.assertEqual({reply.status for reply in replies}, {401})
            self.assertEqual(len({bytes(reply.body) for reply in replies}), 1)

    def test_wakes_that_the_server_delivers_need_no_rule(self) -> None:
        self.put("alice", streams=["alice/a"])
        self.control.set_rules("allow subject:owner all **")
        self.ask("POST", "alice/a", "owner", TEXT, b"more")
        self.front.pass_time(1)
        self.assertEqual([body["subscription_id"] for body in self.parts.bodies], ["mine"])
        token = self.parts.bodies[0].get("callback_token") or self.parts.bodies[0]["token"]
        done = {"wake_id": self.parts.bodies[0]["wake_id"], "generation": self.parts.bodies[0]["generation"]}
        self.assertEqual(self.send("POST", "subscriptions/mine/callback", token, {**done, "done": True}).status, 200)
        self.assert_error(self.send("GET", "subscriptions/mine", "alice"), 403, "FORBIDDEN")

    def test_public_paths_and_preflights_need_no_credentials(self) -> None:
        self.assertEqual(self.send("GET", "jwks.json", None).status, 200)
        self.assertEqual(self.send("HEAD", "jwks.json", "wrong").status, 200)
        preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "PUT"}
        self.assertEqual(self.send("OPTIONS", "subscriptions/mine", None, **preflight).status, 204)

    def test_every_spelling_of_a_path_needs_credentials_or_is_no_path(self) -> None:
        self.put("alice", streams=["alice/a"])
        for path in (
            "%5F_ds/subscriptions/mine",
            "__ds/%73ubscriptions/mine",
            "__ds/subscriptions/m%69ne",
            "__%64s/subscriptions/mine?x=y",
        ):
            self.assertEqual(self.ask("GET", path, "bob").status, 403, path)
            self.assertEqual(self.ask("DELETE", path, None).status, 401, path)
        for path in (
            "/__ds/subscriptions/mine",
            "__ds//subscriptions/mine",
            "__ds/./subscriptions/mine",
            "__ds/x/../subscriptions/mine",
            "__ds%2Fsubscriptions%2Fmine",
            "__ds/subscriptions/mine/",
            "__ds/subscriptions%2Fmine",
            "__DS/subscriptions/mine",
            "__ds/subscriptions/mine%2F",
            "__ds/subscriptions/mine.",
            "__ds/subscriptions/mine;x",
            "%2F__ds/subscriptions/mine",
            "__ds/subscriptions/%6Dine%00",
        ):
            for token in ("owner", "bob", None):
                self.assertIn(self.ask("GET", path, token).status, (400, 401, 403, 404), path)

    def test_other_methods_and_overrides_do_nothing(self) -> None:
        self.put("alice", streams=["alice/a"])
        for method in ("TRACE", "PATCH", "QUERY", "POST", "get"):
            self.assertIn(self.send(method, "subscriptions/mine", None).status, (400, 405))
        for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            self.send("GET", "subscriptions/mine?_method=DELETE", "alice", None, **{name: "DELETE"})
        self.assertEqual(self.send("GET", "subscriptions/mine", "alice").status, 200)


class EarlyTests(SubscriptionCase):
    """Requests that are refused before their body has arrived."""

    def begin(self, method: str, path: str, token: str | None) -> list[int]:
        """Send the head of a request with a body, and return the statuses of the answers."""
        peer = self.front.connect()
        peer.send(request(method, DS + path, {"Content-Length": "1000000", **bearer(token)}), method)
        self.front.pass_time(0.1)
        return peer.statuses

    def test_a_body_is_not_read_without_credentials_or_without_subscribe(self) -> None:
        for method, path in (("PUT", "subscriptions/mine"), ("POST", "subscriptions/mine/streams")):
            self.assertEqual(self.begin(method, path, None), [401])
            self.assertEqual(self.begin(method, path, "wrong"), [401])
            self.assertEqual(self.begin(method, path, "bob"), [403])
            self.assertEqual(self.begin(method, path, "alice"), [])
        self.assertEqual(self.begin("POST", "none", "alice"), [404])
        self.assertEqual(self.begin("POST", "subscriptions/mine", "alice"), [405])

    def test_the_body_of_an_ack_is_read_before_its_token_is_verified(self) -> None:
        self.assertEqual(self.begin("POST", "subscriptions/mine/ack", "wrong"), [])


class HiddenTests(SubscriptionCase):
    hide_forbidden = True

    def test_a_subscription_that_may_not_be_used_is_answered_as_one_that_does_not_exist(self) -> None:
        self.put("alice", streams=["alice/a"])
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/claim"),
            ("POST", "/streams"),
            ("DELETE", "/streams/a"),
        ):
            replies = [
                self.send(method, "subscriptions/mine" + path, "bob", {"streams": ["a"], "worker": "w"}),
                self.send(method, "subscriptions/mine2" + path, "owner", {"streams": ["a"], "worker": "w"}),
            ]
            self.assertEqual([reply.status for reply in replies], [404, 404], path)
            bodies = [bytes(reply.body).replace(b"mine2", b"mine") for reply in replies]
            self.assertEqual(bodies[0], bodies[1])
        self.assert_error(self.put("bob", streams=["alice/a"]), 403, "FORBIDDEN")
