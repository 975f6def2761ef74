"""The list of subscriptions, and the rotation of the signing key, for operators."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import capturedLogs, formatEvent

from durable_streams.server.subscriptions.kept_secrets import MAX_RETIRED
from durable_streams.server.subscriptions.model import Outcome, SubscriptionConfig
from durable_streams.server.subscriptions.opening import WebhookSettings, opener
from durable_streams.server.subscriptions.service import SubscriptionService
from durable_streams.server.web.site.admin.subscriptions import add_key_rotation, add_subscriptions
from tests.subscriptions.serving import Callables, webhook
from tests.support.admin import AdminCase
from tests.support.cases import each_way


@each_way
class SubscriptionListTests(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.parts = parts = Callables()
        self.service = service = SubscriptionService(self.front.streams, self.front.clock, parts.open)
        service.start()
        self.addCleanup(service.stopService)
        self.front.pass_time(0.1)
        self.front.pages.add(lambda app: add_subscriptions(app, "/admin", service))
        self.front.create("wakes", "application/json")
        for number in range(3):
            service.create(f"hook{number}", webhook(), "https://streams.example/v1/stream")
        url = "https://worker.example/hook?secret=1"
        service.create("failing", SubscriptionConfig("webhook", "x", webhook_url=url), "")
        service.create("pulled", SubscriptionConfig("pull-wake", None, ("a",), wake_stream="wakes"), "")
        self.front.pass_time(5, 0.1)

    def ids(self, query: str = "") -> list[str]:
        listed: list[dict[str, Any]] = self.fetched("/admin/subscriptions" + query)
        return [each["id"] for each in listed]

    def test_subscriptions_are_listed_by_id_and_selected(self) -> None:
        self.assertEqual(["failing", "hook0", "hook1", "hook2", "pulled"], self.ids())
        self.assertEqual(["hook0", "hook1", "hook2"], self.ids("?prefix=hook"))
        self.assertEqual(["pulled"], self.ids("?type=pull-wake"))
        self.assertEqual(["hook2", "pulled"], self.ids("?after=hook1"))
        self.assert_refused("/admin/subscriptions?status=bad", "active or failed")
        self.assert_refused("/admin/subscriptions?limit=1001", "limit")

    def test_pages_are_linked(self) -> None:
        reply = self.front.ask("GET", "/admin/subscriptions?limit=2&prefix=hook")
        self.assertEqual('<?limit=2&prefix=hook&after=hook1>; rel="next"', reply.get("link"))
        self.assertEqual(["hook2"], self.ids("?limit=2&prefix=hook&after=hook1"))

    def test_an_entry_has_its_state_and_no_secret(self) -> None:
        self.parts.receive = lambda body: Outcome.FAILED
        self.front.create("x", body=b"hello")
        self.front.pass_time(0.5, 0.01)
        (entry,) = self.fetched("/admin/subscriptions?status=failed")
        self.assertTrue(entry.pop("created_at").endswith("Z"))
        self.assertGreaterEqual(entry.pop("failures"), 1)
        self.assertEqual(
            {
                "id": "failing",
                "type": "webhook",
                "status": "failed",
                "pattern": "x",
                "webhook_url": "https://worker.example/hook",
                "wake_stream": None,
                "links": 1,
                "pending_links": 1,
                "generation": 1,
                "holder": None,
            },
            entry,
        )


@each_way
class KeyRotationTests(AdminCase):
    PAGE = "/admin/rotate-signing-key"

    def setUp(self) -> None:
        super().setUp()
        front = self.front
        self.service = SubscriptionService(
            front.streams, front.clock, opener(front.streams, front.clock, WebhookSettings())
        )
        self.service.start()
        self.addCleanup(self.service.stopService)
        front.pass_time(5, 0.1)
        front.pages.add(lambda app: add_key_rotation(app, "/admin", self.service))

    def kids(self) -> list[str]:
        published = self.service.jwks()
        self.front.pass_time(5, 0.1)
        keys = json.loads(self.successResultOf(published))["keys"]
        return [key["kid"] for key in keys]

    def test_a_rotation_is_answered_with_both_keys_and_logged(self) -> None:
        (old,) = self.kids()
        with capturedLogs() as logs:
            reply = self.front.ask("POST", self.PAGE)
        self.assertEqual((200, "no-store"), (reply.status, reply.get("cache-control")))
        rotated = reply.json()
        self.assertEqual(self.kids(), [rotated["kid"], rotated["previous_kid"]])
        self.assertEqual(old, rotated["previous_kid"])
        self.assertRegex(rotated["previous_until"], r"^20\d\d-.*Z$|^19\d\d-.*Z$")
        texts = [str(formatEvent(event)) for event in logs]
        self.assertTrue(any("Rotated the signing key of webhooks for" in text for text in texts), texts)

    def test_a_refusal_is_409_with_its_reason(self) -> None:
        for _ in range(MAX_RETIRED):
            self.assertEqual(200, self.front.ask("POST", self.PAGE).status)
        reply = self.front.ask("POST", self.PAGE)
        self.assertEqual((409, "KEY_NOT_ROTATED"), (reply.status, reply.code))
        self.assertIn("within 10 minutes", reply.json()["detail"])

    def test_only_post_without_parameters_rotates(self) -> None:
        before = self.kids()
        self.assertEqual((405, "POST"), ((reply := self.front.ask("GET", self.PAGE)).status, reply.get("allow")))
        self.assertEqual(400, self.front.ask("POST", self.PAGE + "?force=1").status)
        self.assertEqual(before, self.kids())

    def test_a_service_that_stops_is_503(self) -> None:
        self.service.stopService()
        self.assertEqual(503, self.front.ask("POST", self.PAGE).status)
