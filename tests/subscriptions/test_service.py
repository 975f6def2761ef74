"""Tests of the service of subscriptions: from commits of streams to wakes, and from requests to cursors."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InsufficientStorage
from durable_streams.server.model import Append
from durable_streams.server.subscriptions import following
from durable_streams.server.subscriptions.errors import (
    AlreadyClaimed,
    Fenced,
    InvalidAckOffset,
    InvalidConfig,
    InvalidWakeStream,
    NoPendingWork,
    SubscriptionExists,
    SubscriptionLimitReached,
    SubscriptionNotFound,
    SubscriptionsUnavailable,
    WebhookUrlRejected,
)
from durable_streams.server.subscriptions.model import AckRequest, Outcome, SubscriptionConfig
from durable_streams.server.subscriptions.opening import WebhookSettings, opener
from durable_streams.server.subscriptions.service import SubscriptionService
from durable_streams.server.subscriptions.settings import ServiceSettings
from tests.subscriptions.serving import URL, Serving, pull, webhook


class EarlyDecisionTests(SynchronousTestCase):
    """A decision about one subscription reads a stream before its change is worked off for the others."""

    def setUp(self) -> None:
        self.serving = Serving(self)

    def decide(self, subscription_id: str, name: str) -> None:
        """Reconcile a subscription with a stream now, as after an earlier change of it."""
        registry = self.serving.service._registry
        entry = registry.entries[subscription_id]
        entry.note(name)
        self.successResultOf(Deferred.fromCoroutine(registry.bring_up_to_date(entry)))

    def test_a_new_stream_is_linked_by_all_subscriptions_whose_pattern_matches(self) -> None:
        serving = self.serving
        for subscription_id in ("first", "second"):
            serving.create(webhook(), subscription_id)
        serving.put("events/a", 1)
        self.decide("first", "events/a")
        serving.work()
        self.assertEqual(["events/a"], list(serving.cursors("second")))
        self.assertEqual({"first", "second"}, {body["subscription_id"] for body in serving.parts.bodies})

    def test_a_stream_that_replaced_another_begins_anew_for_all_subscriptions(self) -> None:
        serving = self.serving
        serving.parts.receive = lambda body: Outcome.DONE
        serving.put("x", 1)
        for subscription_id in ("first", "second"):
            serving.create(webhook(None, "x"), subscription_id)
        serving.delete_stream("x")
        serving.put("x", 2)
        self.decide("first", "x")
        serving.work()
        self.assertEqual({"first", "second"}, {body["subscription_id"] for body in serving.parts.bodies})
        self.assertEqual(serving.cursors("first"), serving.cursors("second"))


class WebhookTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.serving = Serving(self)

    def test_an_append_to_a_matching_stream_is_delivered_and_done_moves_the_cursor(self) -> None:
        serving = self.serving
        serving.parts.receive = lambda body: Outcome.DONE
        self.assertTrue(serving.create(webhook()))
        serving.put("events/a", 1)
        serving.work()
        (body,) = serving.parts.bodies
        self.assertEqual("s", body["subscription_id"])
        self.assertEqual("https://streams.example/v1/stream/__ds/subscriptions/s/callback", body["callback_url"])
        (stream,) = body["streams"]
        self.assertEqual(("events/a", "glob", True), (stream["path"], stream["link_type"], stream["has_pending"]))
        self.assertEqual(stream["tail_offset"], serving.describe()["streams"][0]["acked_offset"])
        serving.append("events/a")
        serving.work()
        self.assertEqual(2, len(serving.parts.bodies))

    def test_existing_streams_are_linked_at_their_tails(self) -> None:
        serving = self.serving
        serving.put("events/a", 1)
        serving.put("other", 1)
        serving.create(webhook("events/*", "other", "later"))
        self.assertEqual({"events/a": "2", "later": "-1", "other": "2"}, serving.cursors())
        serving.work()
        self.assertEqual([], serving.parts.bodies)

    def test_streams_without_subscription_are_ignored_after_the_first_append(self) -> None:
        serving = self.serving
        serving.create(webhook())
        serving.put("other")
        serving.work()
        self.assertIn("other", serving.service._registry.index.quiet)
        serving.create(webhook(None, "other"), "t")
        serving.append("other")
        serving.work()
        self.assertEqual(["t"], [body["subscription_id"] for body in serving.parts.bodies])

    def test_a_failed_delivery_is_retried_with_the_same_body_by_the_schedule(self) -> None:
        serving = self.serving
        serving.parts.receive = lambda body: Outcome.FAILED
        serving.create(webhook())
        serving.put("events/a", 1)
        serving.work()
        self.assertEqual("failed", serving.describe()["status"])
        self.assertEqual(1, len(serving.parts.bodies))
        serving.advance(0.5)
        self.assertEqual(1, len(serving.parts.bodies))
        serving.advance(0.75)
        self.assertEqual(2, len(serving.parts.bodies))
        serving.append("events/a")
        serving.parts.receive = lambda body: Outcome.DONE
        serving.advance(2.5)
        first, second, third, fourth = serving.parts.bodies
        self.assertEqual(first, second)
        self.assertEqual(first, third)
        self.assertEqual(2, fourth["generation"])
        self.assertEqual("active", serving.describe()["status"])
        self.assertEqual(2, serving.service.counts.retries)

    def test_a_callback_acknowledges_and_is_fenced_afterwards(self) -> None:
        serving = self.serving
        serving.create(webhook())
        serving.put("events/a", 1)
        serving.work()
        (body,) = serving.parts.bodies
        self.assertEqual({"ok": True, "next_wake": False}, serving.ack(body))
        serving.fails(serving.acking(body, done=True), Fenced)
        self.assertEqual(1, serving.service.counts.fenced)

    def test_a_receiver_that_hangs_holds_up_only_three_first_attempts(self) -> None:
        serving = self.serving
        hanging: list[Deferred[Outcome]] = []

        def hang(body: object) -> Deferred[Outcome]:
            hanging.append(Deferred())
            return hanging[-1]

        serving.parts.receive = hang
        for number in range(6):
            serving.create(webhook(), f"s{number}")
        other = SubscriptionConfig("webhook", "events/*", webhook_url="https://other.example/", lease_ttl_ms=1000)
        serving.create(other, "t")
        serving.put("events/a", 1)
        serving.work()
        self.assertEqual(4, len(hanging))
        self.assertIn("t", [body["subscription_id"] for body in serving.parts.bodies])
        for body, each in list(zip(serving.parts.bodies, hanging, strict=True)):
            if body["subscription_id"] != "t":
                each.callback(Outcome.DONE)
        serving.work()
        self.assertEqual(7, len(hanging))

    def test_first_attempts_do_not_wait_for_receivers_that_hang_on_many_hosts(self) -> None:
        serving = Serving(self, settings=ServiceSettings(deliveries=8))
        hanging: list[Deferred[Outcome]] = []

        def hang(body: dict[str, Any]) -> Deferred[Outcome] | Outcome:
            if body["subscription_id"] == "healthy":
                return Outcome.DONE
            hanging.append(Deferred())
            return hanging[-1]

        serving.parts.receive = hang
        for number in range(12):
            url = f"https://host{number}.example/"
            serving.create(SubscriptionConfig("webhook", None, ("all",), webhook_url=url), f"s{number}")
        serving.create(SubscriptionConfig("webhook", None, ("good",), webhook_url=URL), "healthy")
        serving.put("all", 1)
        serving.work()
        while len(serving.parts.bodies) < 12:
            hanging.pop().callback(Outcome.FAILED)
            serving.work()
        while hanging:
            hanging.pop().callback(Outcome.FAILED)
        # Each has failed once now, and is tried again: two at the same time, and the others wait.
        serving.advance(5)
        self.assertEqual(2, len(hanging))
        serving.put("good", 1)
        serving.work()
        self.assertEqual("healthy", serving.parts.bodies[-1]["subscription_id"])
        self.assertEqual("active", serving.describe("healthy")["status"])

    def max_running(self, deliveries: int) -> int:
        """Return how many deliveries to receivers that fail have run at once, first attempts and retries."""
        serving = Serving(self, settings=ServiceSettings(deliveries=deliveries))
        hanging: list[Deferred[Outcome]] = []
        running: list[int] = []

        def hang(_: object) -> Deferred[Outcome]:
            hanging.append(Deferred())
            return hanging[-1]

        serving.parts.receive = hang
        for number in range(8):
            url = f"https://host{number}.example/"
            serving.create(SubscriptionConfig("webhook", None, ("all",), webhook_url=url), f"s{number}")
        serving.put("all", 1)
        serving.work()
        for _ in range(20):
            running.append(serving.service.figures().running)
            hanging.pop().callback(Outcome.FAILED)
            serving.advance(1)
        self.assertGreater(serving.service.counts.retries, 0)
        return max(running)

    def test_no_more_deliveries_run_than_the_setting_allows(self) -> None:
        for deliveries in (1, 2, 5):
            self.assertEqual(deliveries, self.max_running(deliveries))

    def test_a_lease_that_ends_without_ack_wakes_again(self) -> None:
        serving = self.serving
        serving.create(webhook(lease=1000))
        serving.put("events/a", 1)
        serving.work()
        serving.advance(1.01)
        first, second = serving.parts.bodies
        self.assertEqual((1, 2), (first["generation"], second["generation"]))
        serving.fails(serving.acking(first), Fenced)

    def test_a_rejected_url_creates_nothing(self) -> None:
        serving = self.serving
        config = SubscriptionConfig("webhook", "events/*", webhook_url="http://10.0.0.1/hook")
        serving.fails(serving.service.create("s", config, ""), WebhookUrlRejected)
        serving.fails(serving.service.describe("s"), SubscriptionNotFound)


class PullTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.serving = Serving(self)
        self.serving.put("wakes")

    def test_a_wake_is_an_event_in_the_wake_stream(self) -> None:
        serving = self.serving
        serving.create(pull())
        serving.put("events/a", 1)
        serving.work()
        (event,) = serving.events()
        self.assertEqual(("wake", "s", "events/a", 1), tuple(event[key] for key in event if key != "ts"))
        wake = serving.claim()
        self.assertEqual(1, wake["generation"])
        error = serving.fails(serving.service.claim("s", "other"), AlreadyClaimed)
        self.assertEqual("w", error.current_holder)
        self.assertEqual({"ok": True, "next_wake": False}, serving.ack(wake))
        serving.fails(serving.service.claim("s", "w"), NoPendingWork)
        self.assertEqual(
            {"claimed": 1, "already_claimed": 1, "no_pending_work": 1}, dict(serving.service.counts.claims)
        )

    def test_a_claim_right_after_an_append_finds_it(self) -> None:
        serving = self.serving
        serving.create(pull())
        serving.put("events/a", 1)
        claim = serving.service.claim("s", "w")
        self.assertTrue(serving.get(claim)["streams"][0]["has_pending"])

    def test_data_that_came_during_a_lease_is_the_next_wake(self) -> None:
        serving = self.serving
        serving.create(pull())
        serving.put("events/a", 1)
        wake = serving.claim()
        serving.append("events/a")
        serving.work()
        self.assertEqual({"ok": True, "next_wake": True}, serving.ack(wake))
        serving.work()
        self.assertEqual(2, serving.events()[-1]["generation"])

    def test_a_release_moves_no_cursor_and_wakes_again(self) -> None:
        serving = self.serving
        serving.create(pull())
        serving.put("events/a", 1)
        wake = serving.claim()
        claims = serving.parts.tokens.verify(wake["token"], "s")
        serving.get(serving.service.release("s", claims, AckRequest(wake["wake_id"], wake["generation"])))
        self.assertEqual({"events/a": "0"}, serving.cursors())
        self.assertEqual(2, serving.claim()["generation"])

    def test_acks_are_checked_against_cursor_and_tail(self) -> None:
        serving = self.serving
        serving.create(pull(None, "a"))
        serving.put("a", 1)
        wake = serving.claim()
        tail = wake["streams"][0]["tail_offset"]
        beyond = f"{tail[:-1]}{int(tail[-1]) + 1}"
        serving.fails(serving.acking(wake, a=beyond), InvalidAckOffset)
        serving.fails(serving.acking(wake, a="now"), InvalidAckOffset)
        self.assertEqual({"ok": True, "next_wake": False}, serving.get(serving.acking(wake, a=tail)))
        serving.fails(serving.acking(wake, a=wake["streams"][0]["acked_offset"]), InvalidAckOffset)

    def test_a_wake_stream_must_be_an_open_json_stream(self) -> None:
        serving = self.serving
        config = SubscriptionConfig("pull-wake", "events/*", wake_stream="none")
        self.assertIn("does not exist", str(serving.fails(serving.service.create("t", config, ""), InvalidWakeStream)))
        serving.assert_now(serving.streams.append("wakes", Append(None, b"", close=True)))
        self.assertIn("is closed", str(serving.fails(serving.service.create("t", pull(), ""), InvalidWakeStream)))

    def test_a_deleted_wake_stream_is_tried_again_and_claims_work(self) -> None:
        serving = self.serving
        serving.create(pull())
        serving.delete_stream("wakes")
        serving.put("events/a", 1)
        serving.work()
        self.assertEqual("failed", serving.describe()["status"])
        serving.put("wakes")
        serving.advance(1.25)
        self.assertEqual("active", serving.describe()["status"])
        self.assertEqual(1, len(serving.events()))
        self.assertEqual(1, serving.claim()["generation"])

    def test_subscriptions_that_wake_each_other_in_a_ring_have_one_wake_each(self) -> None:
        serving = self.serving
        serving.put("ring")
        serving.create(SubscriptionConfig("pull-wake", None, ("ring",), wake_stream="wakes"), "s")
        serving.create(SubscriptionConfig("pull-wake", None, ("wakes",), wake_stream="ring"), "t")
        serving.append("ring")
        for _ in range(20):
            serving.work()
        self.assertEqual((1, 2), (len(serving.events("wakes")), len(serving.events("ring"))))

    def test_the_wake_stream_cannot_be_added_as_a_stream(self) -> None:
        serving = self.serving
        serving.create(pull())
        serving.fails(serving.service.add_streams("s", ["wakes"]), InvalidConfig)
        serving.append("wakes")
        serving.work()
        self.assertEqual({}, serving.cursors())


class MembershipTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.serving = Serving(self)
        self.serving.put("wakes")

    def test_added_streams_start_at_their_tails_and_wake_from_then_on(self) -> None:
        serving = self.serving
        serving.create(pull())
        serving.put("x", 1)
        serving.get(serving.service.add_streams("s", ["x", "y"]))
        self.assertEqual({"x": "2", "y": "-1"}, serving.cursors())
        serving.put("y", 1)
        serving.work()
        self.assertEqual("y", serving.events()[0]["stream"])

    def test_a_stream_that_is_named_and_matched_is_linked_explicitly_at_its_tail(self) -> None:
        serving = self.serving
        serving.put("events/a", 1)
        serving.create(pull("events/*", "events/a", "absent"))
        self.assertEqual({"absent": "-1", "events/a": "2"}, serving.cursors())
        self.assertEqual(["explicit", "explicit"], [link["link_type"] for link in serving.describe()["streams"]])
        keys = [key for key, _ in serving.assert_now(serving.streams.values("links/"))]
        self.assertEqual(["links/s/absent", "links/s/events/a"], keys)

    def test_a_removed_stream_that_matches_stays_as_a_glob_link(self) -> None:
        serving = self.serving
        serving.put("events/a", 1)
        serving.create(pull("events/*", "events/a", "x"))
        self.assertEqual("explicit", serving.describe()["streams"][0]["link_type"])
        serving.get(serving.service.remove_stream("s", "events/a"))
        serving.get(serving.service.remove_stream("s", "x"))
        (link,) = serving.describe()["streams"]
        self.assertEqual(("events/a", "glob"), (link["path"], link["link_type"]))

    def test_a_deleted_stream_loses_its_glob_link_and_a_new_one_begins_at_its_start(self) -> None:
        serving = self.serving
        serving.put("events/a", 1, 2, 3)
        serving.put("x", 1, 2, 3)
        serving.create(pull("events/*", "x"))
        self.assertEqual({"events/a": "8", "x": "8"}, serving.cursors())
        serving.delete_stream("events/a")
        serving.delete_stream("x")
        serving.work()
        self.assertEqual({"x": "-1"}, serving.cursors())
        serving.put("events/a", 1)
        serving.put("x", 1)
        serving.work()
        self.assertEqual({"events/a": "0", "x": "0"}, serving.cursors())
        self.assertEqual(["events/a", "x"], [each["path"] for each in serving.claim()["streams"]])

    def test_a_stream_that_is_deleted_and_made_again_at_once_is_pending(self) -> None:
        serving = self.serving
        serving.put("events/a", 1, 2, 3)
        serving.create(pull())
        serving.delete_stream("events/a")
        serving.put("events/a", 1)
        self.assertEqual({"events/a": "0"}, serving.cursors())
        self.assertTrue(serving.claim()["streams"][0]["has_pending"])

    def test_too_many_links_refuse_a_creation_and_leave_nothing(self) -> None:
        serving = Serving(self, settings=ServiceSettings(max_links=3))
        for number in range(5):
            serving.put(f"events/{number}")
        serving.fails(serving.service.create("s", webhook(), ""), SubscriptionLimitReached)
        self.assertEqual(0, serving.service.links)
        self.assertEqual([], serving.assert_now(serving.streams.values()))

    def test_streams_over_the_limit_of_links_are_linked_when_there_is_room(self) -> None:
        serving = Serving(self, settings=ServiceSettings(max_links=2))
        serving.create(webhook())
        for number in range(3):
            serving.put(f"events/{number}", 1)
            serving.work()
        self.assertEqual(["events/0", "events/1"], list(serving.cursors()))
        serving.delete_stream("events/0")
        serving.advance(30)
        self.assertEqual(["events/1", "events/2"], list(serving.cursors()))


class CreationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.serving = Serving(self)

    def test_the_same_configuration_is_confirmed_and_another_refused(self) -> None:
        serving = self.serving
        self.assertTrue(serving.create(webhook()))
        self.assertFalse(serving.create(webhook()))
        serving.fails(serving.service.create("s", webhook("other/*"), ""), SubscriptionExists)

    def test_of_two_concurrent_creations_one_is_new(self) -> None:
        serving = self.serving
        for number in range(400):
            serving.put(f"events/{number}")
        first = serving.service.create("s", webhook(), "")
        second = serving.service.create("s", webhook(), "")
        third = serving.service.create("s", webhook("x"), "")
        self.assertEqual((True, False), (serving.get(first), serving.get(second)))
        serving.fails(third, SubscriptionExists)

    def test_streams_that_are_created_during_a_creation_are_linked(self) -> None:
        serving = self.serving
        for number in range(1000):
            serving.put(f"events/{number:04}")
        created = serving.service.create("s", webhook(), "")
        self.assertNoResult(created)
        serving.put("events/0000-a", 1)
        serving.put("events/9999", 1)
        self.assertTrue(serving.get(created))
        serving.work()
        self.assertEqual(1002, serving.service.links)

    def test_deletion_forgets_links_and_the_id_can_be_used_again(self) -> None:
        serving = self.serving
        serving.put("events/a", 1)
        serving.create(webhook())
        serving.get(serving.service.delete("s"))
        serving.fails(serving.service.delete("s"), SubscriptionNotFound)
        self.assertEqual([], serving.assert_now(serving.streams.values()))
        self.assertEqual(0, serving.service.links)
        serving.append("events/a")
        serving.work()
        self.assertEqual([], serving.parts.bodies)
        self.assertTrue(serving.create(webhook("x")))

    def test_the_outcome_of_a_delivery_is_dropped_if_the_subscription_was_deleted(self) -> None:
        serving = self.serving
        answer: Deferred[Outcome] = Deferred()
        serving.parts.receive = lambda body: answer
        serving.create(webhook())
        serving.put("events/a", 1)
        serving.work()
        serving.get(serving.service.delete("s"))
        serving.create(webhook())
        answer.callback(Outcome.DONE)
        serving.work()
        self.assertEqual({"events/a": "2"}, serving.cursors())
        self.assertEqual(1, len(serving.parts.bodies))

    def test_too_many_subscriptions_are_refused(self) -> None:
        serving = Serving(self, settings=ServiceSettings(max_subscriptions=1))
        serving.create(webhook())
        serving.fails(serving.service.create("t", webhook(), ""), SubscriptionLimitReached)


class SecretTests(SynchronousTestCase):
    def test_secrets_are_made_with_the_first_subscription_and_loaded_at_later_starts(self) -> None:
        serving = Serving(self)
        self.assertEqual(0, serving.parts.opened)
        serving.create(webhook())
        serving.create(webhook(), "t")
        self.assertEqual(1, serving.parts.opened)

    def test_secrets_are_made_once_for_concurrent_requests(self) -> None:
        serving = Serving(self)
        serving.service.create("s", webhook(), "")
        serving.service.create("t", webhook(), "")
        self.assertEqual(b'{"keys":[]}', serving.get(serving.service.jwks()))
        self.assertEqual(1, serving.parts.opened)


class FullDiskTests(SynchronousTestCase):
    def test_deliveries_wait_and_the_reason_is_logged_once_for_all_subscriptions(self) -> None:
        serving = Serving(self)
        serving.parts.receive = lambda body: Outcome.FAILED
        for subscription_id in ("s", "t"):
            serving.create(webhook(), subscription_id)
        serving.put("events/a", 1)
        serving.work()
        storage: Any = serving.storage
        write = storage.write_values
        delivered = len(serving.parts.bodies)

        def refuse(*arguments: object) -> None:
            raise InsufficientStorage("The disk is full.")

        storage.write_values = refuse
        with capturedLogs() as logs:
            for _ in range(10):
                serving.advance(1)
        texts = [str(formatEvent(event)) for event in logs]
        self.assertEqual(1, sum("no delivery was begun: The disk is full." in text for text in texts), texts)
        self.assertEqual(delivered, len(serving.parts.bodies))
        storage.write_values = write
        serving.parts.receive = lambda body: Outcome.DONE
        serving.advance(2)
        self.assertEqual({"active"}, {serving.describe(each)["status"] for each in ("s", "t")})
        self.assertEqual(delivered + 2, len(serving.parts.bodies))


class KeyRotationTests(SynchronousTestCase):
    """Two services on one storage, with keys as a server has them."""

    def setUp(self) -> None:
        self.serving = Serving(self)
        streams, clock = self.serving.streams, self.serving.clock
        self.services = [
            SubscriptionService(streams, clock, opener(streams, clock, WebhookSettings())) for _ in range(2)
        ]
        for service in self.services:
            self.serving.get(service.start())

    def kids(self, service: SubscriptionService) -> list[str]:
        return [key["kid"] for key in json.loads(self.serving.get(service.jwks()))["keys"]]

    def test_the_other_service_publishes_the_new_key_within_a_second(self) -> None:
        first, second = self.services
        (old,) = self.kids(first)
        self.assertEqual([old], self.kids(second))
        rotation = self.serving.get(first.rotate_key())
        self.assertEqual((old, [rotation.kid, old]), (rotation.previous_kid, self.kids(first)))
        self.serving.advance(1)
        self.assertEqual([rotation.kid, old], self.kids(second))

    def test_a_representation_has_the_new_key(self) -> None:
        first, second = self.services
        config = SubscriptionConfig("webhook", "events/*", webhook_url="https://93.184.216.34/")
        self.serving.get(second.create("s", config, "https://streams.example"))
        rotation = self.serving.get(first.rotate_key())
        self.serving.advance(1)
        self.assertEqual(rotation.kid, self.serving.get(second.describe("s"))["webhook"]["signing"]["kid"])

    def test_a_rotation_before_the_first_subscription_makes_the_key(self) -> None:
        rotation = self.serving.get(self.services[0].rotate_key())
        self.assertEqual([rotation.kid, rotation.previous_kid], self.kids(self.services[0]))

    def test_a_delivery_looks_for_a_rotation_before_it_is_signed(self) -> None:
        serving = Serving(self)
        order: list[str] = []

        async def refresh() -> None:
            order.append("refreshed")

        def receive(_: object) -> Outcome:
            order.append("sent")
            return Outcome.DONE

        serving.create(webhook())
        serving.parts.receive = receive
        self.patch(serving.parts, "refresh", refresh)
        serving.put("events/a", 1)
        serving.work()
        self.assertEqual(["refreshed", "sent"], order)


class StopTests(SynchronousTestCase):
    def test_a_stop_refuses_requests_and_cuts_deliveries_after_the_drain_time(self) -> None:
        serving = Serving(self, settings=ServiceSettings(drain_timeout=2))
        answer: Deferred[Outcome] = Deferred()
        serving.parts.receive = lambda body: answer
        serving.create(webhook())
        serving.put("events/a", 1)
        serving.work()
        stopped = serving.service.stopService()
        serving.fails(serving.service.describe("s"), SubscriptionsUnavailable)
        serving.work()
        self.assertNoResult(stopped)
        serving.advance(2.01)
        self.successResultOf(stopped)

    def test_no_commit_is_followed_without_subscriptions(self) -> None:
        serving = Serving(self)
        serving.put("a")
        self.assertEqual(0, len(serving.service._registry.index.quiet))
        serving.create(webhook())
        serving.put("b")
        serving.work()
        self.assertIn("b", serving.service._registry.index.quiet)


class PendingStreamTests(SynchronousTestCase):
    """Streams that are pending in all subscriptions that link them: their changes are not followed."""

    def setUp(self) -> None:
        self.serving = serving = Serving(self)
        serving.put("wakes")
        serving.create(pull())
        serving.put("events/a", 1)
        serving.work()
        serving.append("events/a")
        serving.work()
        self.index = serving.service._registry.index
        self.assertEqual({"events/a": "events/a"}, self.index.settled)

    def test_a_claim_has_the_tail_of_now(self) -> None:
        serving = self.serving
        for _ in range(3):
            serving.append("events/a")
        serving.work()
        self.assertEqual(({"events/a"}, {"events/a"}), (set(self.index.stale), self.index.quiet - {"wakes"}))
        wake = serving.claim()
        self.assertTrue(wake["streams"][0]["tail_offset"].endswith("0010"))
        self.assertEqual({"ok": True, "next_wake": False}, serving.ack(wake))
        self.assertEqual(set(), {*self.index.settled, *self.index.stale, *self.index.quiet} - {"wakes"})

    def test_data_that_came_while_it_was_pending_is_the_next_wake(self) -> None:
        serving = self.serving
        wake = serving.claim()
        serving.append("events/a")
        serving.append("events/a")
        serving.work()
        self.assertEqual({"ok": True, "next_wake": True}, serving.ack(wake))
        serving.work()
        self.assertEqual(2, serving.claim()["generation"])

    def test_data_that_came_during_a_delivery_is_the_next_wake(self) -> None:
        serving = self.serving
        answers: list[Deferred[Outcome]] = []

        def receive(body: object) -> Deferred[Outcome]:
            answers.append(Deferred())
            return answers[-1]

        serving.parts.receive = receive
        serving.create(webhook(), "t")
        for _ in range(4):
            serving.append("events/a")
            serving.work()
        answers[0].callback(Outcome.DONE)
        serving.work()
        self.assertEqual([1, 2], [body["generation"] for body in serving.parts.bodies])
        first, second = [body["streams"][0] for body in serving.parts.bodies]
        self.assertEqual(first["tail_offset"], second["acked_offset"])
        self.assertTrue(second["has_pending"])

    def test_a_deletion_leaves_nothing_to_claim(self) -> None:
        serving = self.serving
        serving.delete_stream("events/a")
        serving.work()
        serving.fails(serving.service.claim("s", "w"), NoPendingWork)
        self.assertEqual({}, serving.cursors())

    def test_a_deletion_after_an_append_leaves_nothing_to_claim(self) -> None:
        serving = self.serving
        serving.append("events/a")
        self.assertIn("events/a", self.index.quiet)
        serving.delete_stream("events/a")
        serving.work()
        serving.fails(serving.service.claim("s", "w"), NoPendingWork)
        self.assertEqual({}, serving.cursors())
        serving.put("events/a", 1)
        serving.work()
        self.assertEqual("events/a", serving.claim()["streams"][0]["path"])

    def test_a_stream_that_changed_while_it_was_pending_is_followed_for_a_new_pattern(self) -> None:
        serving = self.serving
        serving.append("events/a")
        serving.create(pull("*/a"), "t")
        serving.append("events/a")
        serving.work()
        self.assertEqual("events/a", serving.claim("w", "t")["streams"][0]["path"])
        self.assertTrue(serving.claim()["streams"][0]["tail_offset"].endswith("0008"))

    def test_another_stream_of_the_name_is_claimed_from_its_start(self) -> None:
        serving = self.serving
        serving.delete_stream("events/a")
        serving.put("events/a", 1)
        (stream,) = serving.claim()["streams"]
        self.assertTrue(stream["acked_offset"].endswith("_0000000000000000"))
        self.assertTrue(stream["tail_offset"].endswith("_0000000000000002"))
        self.assertEqual(stream["acked_offset"].split("_")[0], stream["tail_offset"].split("_")[0])

    def test_the_sweep_reads_the_tails_of_pending_streams_some_at_a_time(self) -> None:
        serving = self.serving
        names = {"events/a", *(f"events/{number}" for number in range(20))}
        for name in names - {"events/a"}:
            serving.put(name, 1)
        for _ in range(3):
            for name in names:
                serving.append(name)
            serving.work()
        self.assertEqual(names, set(self.index.stale))
        left: list[int] = []
        follower = serving.service._changes
        settled = follower.settled

        def count_and_settle() -> Deferred[None] | None:
            left.append(len(self.index.stale))
            return settled()

        self.patch(follower, "settled", count_and_settle)
        with patch.object(following, "_AT_ONCE", 4):
            serving.advance(30)
        self.assertEqual([17, 13, 9, 5, 1, 0], left)
        self.assertEqual((set(), names), (set(self.index.stale), set(self.index.settled)))
        current = serving.service._registry.find("s").current
        assert current is not None
        self.assertEqual(sum(tail.position for tail in self.index.tails.values()), current.links.pending_bytes)

    def test_a_sweep_reads_the_tails_that_changed_first(self) -> None:
        serving = self.serving
        names = [f"events/{number}" for number in range(6)]
        for name in names:
            serving.put(name, 1)
        serving.work()
        for _ in range(2):
            for name in names:
                serving.append(name)
            serving.work()
        self.assertEqual(names, list(self.index.stale))
        serving.get(Deferred.fromCoroutine(serving.service._changes.read_stale_tails(2)))
        self.assertEqual(names[2:], list(self.index.stale))
        serving.append(names[0])
        serving.get(Deferred.fromCoroutine(serving.service._changes.read_stale_tails(4)))
        self.assertEqual(names[:1], list(self.index.stale))

    def test_a_wake_whose_stream_was_deleted_is_cleared_by_the_sweep(self) -> None:
        serving = self.serving
        serving.delete_stream("events/a")
        serving.advance(30)
        current = serving.service._registry.find("s").current
        assert current is not None
        self.assertIsNone(current.state.wake)
        self.assertEqual([], list(current.links))


class RepeatedDeliveryTests(SynchronousTestCase):
    def test_a_wake_during_a_delivery_is_delivered_after_it_and_so_are_later_ones(self) -> None:
        serving = Serving(self)
        first: Deferred[Outcome] = Deferred()
        serving.parts.receive = lambda body: first
        serving.create(webhook())
        serving.put("events/a", 1)
        serving.work()
        serving.append("events/a")
        serving.work()
        # From now on the receiver answers at once.
        serving.parts.receive = lambda body: Outcome.DONE
        first.callback(Outcome.DONE)
        serving.work()
        self.assertEqual([1, 2], [body["generation"] for body in serving.parts.bodies])
        for generation in (3, 4):
            serving.append("events/a")
            serving.work()
            self.assertEqual(generation, serving.parts.bodies[-1]["generation"])
