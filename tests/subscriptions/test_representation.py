"""The JSON values of answers and webhooks."""

from __future__ import annotations

import json
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.model import (
    Acked,
    DeliverWebhook,
    Outcome,
    StreamTail,
    SubscriptionConfig,
)
from durable_streams.server.subscriptions.representation import (
    acked,
    callback_url,
    claimed,
    described,
    timestamp,
    webhook_body,
)

from .driving import PULL, WEBHOOK, Driven

BASE = "https://streams.example/v1/stream"


class DescribedTests(SynchronousTestCase):
    def test_a_webhook_has_its_url_as_sent_and_the_signing_key(self) -> None:
        value = described(Driven(WEBHOOK).current, BASE, "ds_1")
        expected: dict[str, object] = {
            "id": "s",
            "subscription_id": "s",
            "type": "webhook",
            "pattern": "events/*",
            "streams": [],
            "webhook": {
                "url": "https://worker.example/hook",
                "signing": {"alg": "ed25519", "kid": "ds_1", "jwks_url": BASE + "/__ds/jwks.json"},
            },
            "wake_stream": None,
            "lease_ttl_ms": 10_000,
            "created_at": "1970-01-01T00:16:40.000Z",
            "status": "active",
            "description": None,
        }
        self.assertEqual(expected, json.loads(json.dumps(value)))

    def test_a_pull_wake_has_no_webhook(self) -> None:
        value = described(Driven(PULL).current, BASE, "ds_1")
        self.assertEqual(("pull-wake", None, "wakes"), (value["type"], value["webhook"], value["wake_stream"]))

    def test_streams_are_sorted_with_their_cursors_and_absent_ones_are_at_the_start(self) -> None:
        config = SubscriptionConfig("pull-wake", "events/*", ("events/b", "absent"), wake_stream="w")
        driven = Driven(config, {"events/b": StreamTail(3, 7, 5), "events/a": StreamTail(4, 8, 6)})
        streams = [
            {"path": "absent", "link_type": "explicit", "acked_offset": "-1"},
            {"path": "events/a", "link_type": "glob", "acked_offset": "0000000000000008_0000000000000006"},
            {"path": "events/b", "link_type": "explicit", "acked_offset": "0000000000000007_0000000000000005"},
        ]
        self.assertEqual(streams, described(driven.current, BASE, "k")["streams"])

    def test_more_than_a_thousand_streams_come_in_pages(self) -> None:
        tails = {f"events/{number:04d}": StreamTail(number, number, 0) for number in range(2000)}
        driven = Driven(PULL, tails)
        first = described(driven.current, BASE, "k")
        rest = described(driven.current, BASE, "k", after="events/0999")
        self.assertEqual((True, False), (first.get("streams_truncated"), "streams_truncated" in rest))
        paths = [stream["path"] for page in (first, rest) for stream in page["streams"]]  # type: ignore[attr-defined]
        self.assertEqual(sorted(tails), paths)

    def test_the_status_is_failed_while_a_retry_is_scheduled(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream("events/a", 5)
        statuses = []
        for outcome in (Outcome.FAILED, Outcome.ACCEPTED):
            driven.now += 1
            driven.evaluate()
            driven.outcome(outcome)
            statuses.append(described(driven.current, BASE, "k")["status"])
        self.assertEqual(["failed", "active"], statuses)

    def test_times_have_milliseconds(self) -> None:
        self.assertEqual("2026-05-09T00:00:00.125Z", timestamp(1778284800.125))


class BodyTests(SynchronousTestCase):
    def test_the_callback_url_has_the_id_as_clients_encode_it(self) -> None:
        self.assertEqual(BASE + "/__ds/subscriptions/runner%3Aa%40b/callback", callback_url(BASE, "runner:a@b"))
        self.assertEqual(BASE + "/__ds/subscriptions/a-._~/callback", callback_url(BASE, "a-._~"))

    def test_each_attempt_of_a_wake_sends_the_same_body(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream("events/a", 5)
        bodies = []
        for position in (8, 9):
            [effect] = driven.attempt()
            assert isinstance(effect, DeliverWebhook)
            bodies.append(webhook_body("s", effect, callback_url(BASE, "s"), "token"))
            driven.stream("events/a", position)
            driven.outcome(Outcome.FAILED)
            driven.now += 1
            driven.evaluate()
        self.assertEqual(bodies[0], bodies[1])
        expected = {
            "subscription_id": "s",
            "wake_id": "w1",
            "generation": 1,
            "streams": [
                {
                    "path": "events/a",
                    "link_type": "glob",
                    "acked_offset": "0000000000000001_0000000000000000",
                    "tail_offset": "0000000000000001_0000000000000005",
                    "has_pending": True,
                }
            ],
            "callback_url": f"{BASE}/__ds/subscriptions/{quote('s')}/callback",
            "callback_token": "token",
        }
        self.assertEqual(expected, json.loads(bodies[0]))

    def test_a_claim_and_an_ack_have_exactly_their_members(self) -> None:
        driven = Driven(PULL)
        driven.stream("events/a", 5)
        value = claimed(driven.claim(), "token")
        self.assertEqual(["wake_id", "generation", "token", "streams", "lease_ttl_ms"], list(value))
        self.assertEqual(("w1", 1, "token", 10_000), tuple(value[k] for k in value if k != "streams"))
        self.assertEqual({"ok": True, "next_wake": False}, acked(Acked(False)))
