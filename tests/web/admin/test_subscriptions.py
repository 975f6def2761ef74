"""The list of subscriptions, for operators."""

from __future__ import annotations

from typing import Any

from durable_streams.server.subscriptions.model import Outcome, SubscriptionConfig
from durable_streams.server.subscriptions.service import SubscriptionService
from durable_streams.server.web.site.admin.subscriptions import add_subscriptions
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
