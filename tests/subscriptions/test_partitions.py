"""Tests of subscriptions on several nodes that share a storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.model import StreamConfig
from durable_streams.server.subscriptions.errors import (
    AlreadyClaimed,
    Fenced,
    InvalidSubscriptionRequest,
    NoPendingWork,
    SubscriptionExists,
    SubscriptionNotFound,
)
from durable_streams.server.subscriptions.model import Link, Outcome
from durable_streams.server.subscriptions.partitions import HeldPartitions
from durable_streams.server.subscriptions.records import encode_link
from durable_streams.server.subscriptions.settings import ServiceSettings
from tests.subscriptions.nodes import Nodes
from tests.subscriptions.serving import Serving, pull, webhook
from tests.support.shared_memory import LEASE, RENEWAL

#: The configuration and the body of an empty stream.
_EMPTY = StreamConfig("application/json"), b""

#: An update that lost messages hide is found by the next sweep.
SWEEP = ServiceSettings().sweep_interval

#: A dead node's work is taken over within this time.
TAKEOVER = LEASE + RENEWAL


class TwoNodesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.nodes = Nodes(self)
        self.first, self.second = self.nodes.all

    def pairs(self) -> Sequence[tuple[Serving, Serving]]:
        return [(self.first, self.second), (self.second, self.first)]

    def test_each_partition_has_one_holder(self) -> None:
        held = [HeldPartitions(storage).numbers() for storage in self.nodes.storages]
        self.assertEqual(set(range(8)), held[0] | held[1])
        self.assertEqual([4, 4], [len(each) for each in held])
        self.assertEqual([4, 4], [serving.service.figures().partitions for serving in self.nodes.all])

    def test_a_subscription_is_the_same_on_both_nodes(self) -> None:
        self.assertTrue(self.first.create(webhook()))
        self.assertFalse(self.second.create(webhook()))
        self.assertEqual(self.first.describe(), self.second.describe())
        self.second.fails(self.second.service.create("s", webhook("other/*"), "https://a.example"), SubscriptionExists)

    def test_one_node_delivers_what_was_appended_on_any(self) -> None:
        self.first.create(webhook())
        self.first.put("events/a", 1)
        self.nodes.advance(1)
        self.assertEqual(1, len(self.nodes.bodies))
        self.assertEqual(["events/a"], [each["path"] for each in self.nodes.bodies[0]["streams"]])
        holder, _ = self.nodes.others()
        self.assertEqual(self.nodes.bodies, holder.parts.bodies)

    def test_an_append_on_the_other_node_is_delivered_without_a_sweep(self) -> None:
        self.first.create(webhook())
        self.first.put("events/a")
        self.nodes.advance(1)
        for count, (appending, acking) in enumerate(self.pairs(), 1):
            appending.append("events/a")
            self.nodes.advance(0.1)
            self.assertEqual(count, len(self.nodes.bodies))
            acking.ack(self.nodes.bodies[-1])

    def test_a_claim_at_once_after_an_append_on_the_other_node(self) -> None:
        self.first.put("wakes")
        self.first.create(pull())
        for number, (appending, claiming) in enumerate(self.pairs()):
            # Neither the message of the creation nor that of the append has come yet.
            appending.put(f"events/{number}", 1)
            wake = claiming.claim()
            self.assertEqual([f"events/{number}"], [each["path"] for each in wake["streams"] if each["has_pending"]])
            appending.fails(appending.service.claim("s", "w"), AlreadyClaimed)
            self.assertEqual({"ok": True, "next_wake": False}, appending.ack(wake))
            claiming.fails(claiming.service.claim("s", "w"), NoPendingWork)

    def test_a_claim_at_once_after_an_append_to_a_linked_stream_on_the_other_node(self) -> None:
        self.first.put("wakes")
        self.first.put("events/a")
        self.first.create(pull())
        self.nodes.advance(1)
        for appending, claiming in self.pairs():
            claiming.fails(claiming.service.claim("s", "w"), NoPendingWork)
            appending.append("events/a")
            claiming.ack(claiming.claim())

    def test_a_token_is_fenced_on_both_nodes_at_once(self) -> None:
        self.first.put("wakes")
        self.first.create(pull())
        self.first.put("events/a", 1)
        wake = self.first.claim()
        self.second.ack(wake, done=True)
        for serving in self.nodes.all:
            serving.fails(serving.acking(wake, done=True), Fenced)

    def test_an_ack_on_the_other_node_says_whether_there_is_more_work(self) -> None:
        self.first.put("wakes")
        self.first.create(pull())
        self.first.put("events/a", 1)
        wake = self.first.claim()
        self.first.append("events/a")
        self.assertEqual({"ok": True, "next_wake": True}, self.second.ack(wake))
        self.nodes.advance(1)
        self.assertEqual([1, 2], [event["generation"] for event in self.first.events()][-2:])

    def test_a_wake_that_another_node_issued_is_delivered_by_the_holder_at_once(self) -> None:
        self.first.create(webhook())
        self.first.put("events/a", 1)
        self.nodes.advance(1)
        holder, other = self.nodes.others()
        self.first.append("events/a")
        self.nodes.advance(0.1)
        self.assertTrue(other.ack(self.nodes.bodies[0])["next_wake"])
        self.nodes.advance(0.1)
        self.assertEqual([1, 2], [body["generation"] for body in holder.parts.bodies])

    def test_streams_are_added_on_one_node_and_removed_on_the_other(self) -> None:
        self.first.create(webhook(None, "a"))
        self.first.put("b", 1)
        self.second.get(self.second.service.add_streams("s", ["b"]))
        self.assertEqual(["a", "b"], [each["path"] for each in self.first.describe()["streams"]])
        self.first.get(self.first.service.remove_stream("s", "a"))
        self.assertEqual(["b"], [each["path"] for each in self.second.describe()["streams"]])
        self.second.append("b")
        self.nodes.advance(0.1)
        self.assertEqual(["b"], [each["path"] for each in self.nodes.bodies[0]["streams"]])

    def test_a_subscription_that_was_deleted_on_the_other_node_is_not_found(self) -> None:
        for deleting, asking in self.pairs():
            self.first.create(webhook())
            asking.describe()
            deleting.get(deleting.service.delete("s"))
            asking.fails(asking.service.describe("s"), SubscriptionNotFound)
            asking.fails(Deferred.fromCoroutine(asking.service.check_exists("s")), SubscriptionNotFound)
            asking.fails(asking.service.delete("s"), SubscriptionNotFound)

    def test_a_subscription_that_was_made_again_is_another_one(self) -> None:
        self.first.put("wakes")
        self.first.create(webhook())
        self.second.describe()
        self.first.get(self.first.service.delete("s"))
        self.first.create(pull())
        self.assertEqual("pull-wake", self.second.describe()["type"])
        self.second.fails(
            Deferred.fromCoroutine(self.second.service.check_action("s", "callback")), InvalidSubscriptionRequest
        )

    def test_the_list_has_the_subscriptions_of_all_nodes(self) -> None:
        ids = [f"s{number}" for number in range(20)]
        for number, each in enumerate(ids):
            self.nodes.all[number % 2].create(webhook(None, "a"), each)
        for serving in self.nodes.all:
            self.assertEqual(sorted(ids), self.listed(serving))
            self.assertEqual(["s1", "s10"], self.listed(serving, "", "s1")[:2])
            self.assertEqual("s5", self.listed(serving, "s4")[0])
        self.nodes.advance(1)
        counts = [sum(serving.service.figures().subscriptions.values()) for serving in self.nodes.all]
        self.assertEqual(20, sum(counts))
        self.assertNotIn(0, counts)

    def listed(self, serving: Serving, after: str = "", prefix: str = "") -> list[str]:
        async def listed() -> list[str]:
            return [current.subscription.id async for current in serving.service.currents(after, prefix)]

        found: list[str] = serving.get(Deferred.fromCoroutine(listed()))
        return found

    def test_concurrent_creations_make_one_subscription_with_all_links(self) -> None:
        for number in range(20):
            self.first.put(f"events/{number}")
        created = [serving.service.create("s", webhook(), "https://a.example") for serving in self.nodes.all]
        self.assertEqual([False, True], sorted(self.first.get(each) for each in created))
        for serving in self.nodes.all:
            self.assertEqual(20, len(serving.describe()["streams"]))

    def test_a_stream_that_another_node_creates_during_a_creation_is_linked(self) -> None:
        created = self.first.service.create("s", webhook(), "https://a.example")
        self.second.put("events/a", 1)
        self.first.get(created)
        self.nodes.advance(1)
        self.assertEqual(["events/a"], [each["path"] for each in self.second.describe()["streams"]])

    def test_lost_messages_are_found_by_the_sweep(self) -> None:
        self.first.put("events/a")
        self.nodes.shared.loses = lambda: True
        self.first.create(webhook())
        self.second.append("events/a")
        self.second.put("events/b", 1)
        self.nodes.advance(SWEEP + 1)
        self.assertEqual(1, len(self.nodes.bodies))
        self.assertEqual({"events/a", "events/b"}, {each["path"] for each in self.nodes.bodies[0]["streams"]})

    def test_lost_messages_are_found_when_the_listener_is_open_again(self) -> None:
        self.first.create(webhook())
        self.first.put("events/a")
        self.nodes.advance(0.1)
        self.nodes.shared.loses = lambda: True
        _, other = self.nodes.others()
        other.append("events/a")
        self.nodes.advance(0.1)
        self.assertEqual([], self.nodes.bodies)
        for storage in self.nodes.storages:
            storage.reconnect()
        self.nodes.advance(0.1)
        self.assertEqual(1, len(self.nodes.bodies))

    def test_a_deletion_whose_message_was_lost_ends_deliveries(self) -> None:
        self.first.create(webhook())
        self.nodes.advance(1)
        holder, other = self.nodes.others()
        self.nodes.shared.loses = lambda: True
        other.get(other.service.delete("s"))
        holder.put("events/a", 1)
        self.nodes.advance(SWEEP + 1)
        self.assertEqual([], self.nodes.bodies)
        self.assertEqual(0, holder.service.links)

    def test_links_of_other_nodes_subscriptions_are_forgotten(self) -> None:
        self.first.create(webhook(None, "a", "b"))
        _, other = self.nodes.others()
        other.describe()
        self.assertEqual(2, other.service.links)
        self.nodes.advance(3 * SWEEP)
        self.assertEqual(0, other.service.links)
        self.assertEqual(["a", "b"], [each["path"] for each in other.describe()["streams"]])

    def test_a_dead_nodes_subscriptions_are_taken_over(self) -> None:
        self.first.create(webhook())
        self.nodes.advance(1)
        holder, other = self.nodes.others()
        self.nodes.kill(self.nodes.holder())
        other.put("events/a", 1)
        self.nodes.advance(TAKEOVER + 1)
        self.assertEqual(1, len(other.parts.bodies))
        self.assertEqual([], holder.parts.bodies)
        other.ack(other.parts.bodies[0])
        self.assertEqual(8, other.service.figures().partitions)

    def test_an_unacknowledged_wake_of_a_dead_node_is_delivered_again(self) -> None:
        holder, other = self.nodes.others()
        answers: list[Deferred[Outcome]] = []

        def hang(body: dict[str, Any]) -> Deferred[Outcome]:
            answers.append(Deferred())
            return answers[-1]

        holder.parts.receive = hang
        self.first.create(webhook(lease=60_000))
        other.put("events/a", 1)
        self.nodes.advance(1)
        self.assertEqual(1, len(holder.parts.bodies))
        self.nodes.kill(self.nodes.holder())
        self.nodes.advance(TAKEOVER + 10)
        self.assertEqual(holder.parts.bodies, other.parts.bodies)
        # The deposed node's outcome changes nothing.
        answers[0].callback(Outcome.FAILED)
        self.nodes.advance(1)
        self.assertEqual("active", other.describe()["status"])
        other.ack(other.parts.bodies[0])

    def test_a_node_that_was_cut_off_takes_its_subscriptions_over_again(self) -> None:
        self.first.create(webhook(lease=60_000))
        self.first.put("events/a")
        self.nodes.advance(1)
        number = self.nodes.holder()
        holder, other = self.nodes.others()
        self.nodes.storages[number].is_cut_off = True
        self.nodes.advance(TAKEOVER + RENEWAL)
        self.assertEqual(1 - number, self.nodes.holder())
        other.append("events/a")
        self.nodes.advance(1)
        self.assertEqual(([], 1), (holder.parts.bodies, len(other.parts.bodies)))
        self.nodes.storages[number].is_cut_off = False
        # Nothing is announced of what has happened meanwhile.
        self.nodes.kill(1 - number)
        self.nodes.advance(TAKEOVER + RENEWAL)
        self.assertEqual(number, self.nodes.holder())
        holder.ack(other.parts.bodies[0])
        holder.append("events/a")
        self.nodes.advance(0.1)
        self.assertEqual([2], [body["generation"] for body in holder.parts.bodies])

    def test_a_lease_that_ends_while_a_node_was_cut_off_is_timed_by_the_new_holder(self) -> None:
        self.first.create(webhook(lease=40_000))
        self.first.put("events/a", 1)
        self.nodes.advance(1)
        number = self.nodes.holder()
        holder, other = self.nodes.others()
        self.nodes.storages[number].is_cut_off = True
        self.nodes.advance(TAKEOVER + RENEWAL)
        self.nodes.storages[number].is_cut_off = False
        self.nodes.advance(30)
        # The receiver has not called back: the lease has ended once, and there is one new wake.
        generations = [body["generation"] for body in (*holder.parts.bodies, *other.parts.bodies)]
        self.assertEqual([1, 2], sorted(generations))

    def test_a_node_that_stops_leaves_its_work_to_the_other_at_once(self) -> None:
        self.first.create(webhook())
        self.nodes.advance(1)
        holder, other = self.nodes.others()
        holder.service.drain()
        self.nodes.advance(2 * RENEWAL)
        other.put("events/a", 1)
        self.nodes.advance(0.1)
        self.assertEqual(1, len(other.parts.bodies))

    def test_a_node_that_joins_gets_its_share_and_nothing_is_delivered_twice(self) -> None:
        for number in range(20):
            self.first.create(webhook(None, "a"), f"s{number}")
        self.first.put("a")
        third = self.nodes.start()
        self.nodes.advance(4 * RENEWAL)
        self.assertGreaterEqual(third.service.figures().partitions or 0, 2)
        self.second.append("a")
        self.nodes.advance(1)
        self.assertEqual(20, len(self.nodes.bodies))
        self.assertEqual(20, len({body["subscription_id"] for body in self.nodes.bodies}))
        self.assertGreater(len(third.parts.bodies), 0)

    def test_a_write_of_another_node_in_between_is_decided_again(self) -> None:
        self.first.put("wakes")
        self.first.create(pull())
        self.first.put("events/a", 1)
        self.first.claim()
        shared = self.nodes.shared

        def add(puts: Any) -> None:
            shared.before_write = lambda puts: None
            self.second.service.add_streams("s", ["b"])
            self.second.work()

        shared.before_write = add
        self.first.get(self.first.service.add_streams("s", ["c"]))
        for serving in self.nodes.all:
            self.assertEqual(["b", "c", "events/a"], [each["path"] for each in serving.describe()["streams"]])

    def test_links_that_a_cut_off_creation_has_left_are_removed(self) -> None:
        left_over = encode_link(Link(True), 1)
        self.nodes.shared.storage.write_values({"links/s/old": left_over, "links/t/old": left_over}, {})
        self.first.create(webhook(None, "a"))
        self.second.describe()
        self.nodes.advance(1)
        values = [key for key, _ in self.nodes.shared.storage.values("links/")]
        self.assertEqual(["links/s/a", "links/t/old"], values)

    def test_many_links_are_created_by_one_node_at_a_time(self) -> None:
        for number in range(5_100):
            self.nodes.shared.storage.create(f"events/{number:05}", *_EMPTY, self.nodes.clock.seconds())
        created = [serving.service.create("s", webhook(), "https://a.example") for serving in self.nodes.all]
        outcomes: list[object] = []
        for each in created:
            each.addBoth(outcomes.append)
        self.nodes.advance(2)
        self.assertIn(True, outcomes)
        self.assertEqual(2, len(outcomes))
        self.assertFalse(self.second.create(webhook()))
        self.nodes.advance(1)
        described = self.second.describe()
        self.assertTrue(described["streams_truncated"])
        values = self.nodes.shared.storage.values("links/s/", "", 10_000)
        self.assertEqual(5_100, len(values))
        self.assertEqual([], self.nodes.shared.storage.values("creating/"))
        self.first.get(self.first.service.delete("s"))
        self.assertEqual([], self.nodes.shared.storage.values("links/"))
