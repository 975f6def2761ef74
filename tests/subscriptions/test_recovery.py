"""Tests of the start of the service: what an earlier process has stored, and what happened to streams meanwhile."""

from __future__ import annotations

from itertools import count
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.subscriptions import registry, store
from durable_streams.server.subscriptions.errors import AlreadyClaimed, CorruptRecord, Fenced, SubscriptionsUnavailable
from durable_streams.server.subscriptions.model import Outcome
from durable_streams.server.subscriptions.service import SubscriptionService
from tests.subscriptions.serving import Callables, Serving, pull, webhook


class KilledStorage(MemoryStorage):
    """A storage of a process that was killed: what is stored, a later process finds."""

    def close(self) -> None:
        """Keep everything."""


class RecoveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.storage = KilledStorage()
        self.serving = Serving(self, self.storage)

    def kill(self) -> Serving:
        """Begin a new process with what is stored; the old one does nothing any more."""
        old = self.serving
        old.clock.calls.clear()
        self.serving = Serving(self, self.storage, old.clock)
        self.serving.work()
        return self.serving

    def test_cursors_generations_and_leases_survive(self) -> None:
        serving = self.serving
        serving.put("wakes")
        serving.create(pull())
        serving.put("events/a", 1)
        wake = serving.claim()
        serving = self.kill()
        self.assertEqual({"ok": True, "next_wake": False}, serving.ack(wake))
        self.assertEqual({"events/a": "2"}, serving.cursors())
        serving = self.kill()
        self.assertEqual({"events/a": "2"}, serving.cursors())
        serving.fails(serving.acking(wake, done=True), Fenced)
        serving.append("events/a")
        self.assertEqual(2, serving.claim()["generation"])

    def test_a_delivery_without_outcome_is_sent_again_at_its_deadline(self) -> None:
        serving = self.serving
        serving.parts.receive = lambda body: Deferred()
        serving.create(webhook())
        serving.put("events/a", 1)
        serving.work()
        (sent,) = serving.parts.bodies
        serving = self.kill()
        serving.parts.receive = lambda body: Outcome.DONE
        self.assertEqual([], serving.parts.bodies)
        serving.advance(6.1)
        self.assertEqual([sent], serving.parts.bodies)
        self.assertEqual({"events/a": "2"}, serving.cursors())

    def test_a_wake_event_that_was_appended_but_not_recorded_is_not_appended_twice(self) -> None:
        serving = self.serving
        serving.put("wakes")
        serving.create(pull())

        def kill_between(puts: object, expected: object) -> None:
            if serving.events():
                raise Unavailable("The process is killed.")
            write(puts, expected)

        write: Any = self.storage.write_values
        self.patch(self.storage, "write_values", kill_between)
        serving.put("events/a", 1)
        serving.work()
        self.assertEqual(1, len(serving.events()))
        self.patch(self.storage, "write_values", write)
        serving = self.kill()
        serving.advance(6.1)
        self.assertEqual(1, len(serving.events()))
        self.assertEqual(1, serving.claim()["generation"])

    def test_an_append_that_was_not_evaluated_wakes_after_the_start(self) -> None:
        serving = self.serving
        serving.put("wakes")
        serving.put("events/a")
        serving.create(pull())
        serving.append("events/a")
        serving = self.kill()
        self.assertEqual(1, len(serving.events()))

    def test_streams_that_were_created_deleted_and_replaced_meanwhile_are_noticed(self) -> None:
        serving = self.serving
        serving.put("wakes")
        for name in ("events/deleted", "events/replaced", "x", "y"):
            serving.put(name, 1, 2, 3)
        serving.create(pull("events/*", "x", "y"))
        serving.service.stopService()
        serving.clock.advance(1)
        for name in ("events/deleted", "events/replaced", "x", "y"):
            serving.delete_stream(name)
        serving.put("events/replaced", 1)
        serving.put("y", 1)
        serving.put("events/new", 1)
        serving = self.kill()
        self.assertEqual({"events/new": "0", "events/replaced": "0", "x": "-1", "y": "0"}, serving.cursors())

    def test_an_older_stream_without_link_is_linked_at_its_tail(self) -> None:
        serving = self.serving
        serving.put("events/a", 1)
        serving.clock.advance(1)
        serving.create(webhook())
        key = "links/s/events/a"
        value = dict(serving.assert_now(serving.streams.values("links/")))[key]
        serving.assert_now(serving.streams.write_values({key: None}, {key: value}))
        self.assertEqual({"events/a": "2"}, self.kill().cursors())

    def test_links_without_their_subscription_are_removed(self) -> None:
        serving = self.serving
        serving.put("events/a", 1)
        serving.create(webhook(), "s")
        serving.create(webhook(), "t")
        values = dict(serving.assert_now(serving.streams.values()))
        serving.assert_now(serving.streams.write_values({"subscriptions/t": None}, {}))
        serving = self.kill()
        left = dict(serving.assert_now(serving.streams.values()))
        self.assertEqual({key for key in values if "/t" not in key}, set(left))
        self.assertEqual(1, serving.service.links)

    def test_a_damaged_record_ends_the_start_and_requests_are_refused(self) -> None:
        self.serving.create(webhook())
        self.serving.assert_now(self.serving.streams.write_values({"wakes/s": b"\x93\x07"}, {}))
        clock = self.serving.clock
        clock.calls.clear()
        streams = Streams(self.storage, clock)
        streams.startService()
        service = SubscriptionService(streams, clock, Callables().open)
        started = service.start()
        clock.pump([0] * 10)
        self.assertIn("wakes/s", str(self.failureResultOf(started, CorruptRecord).value))
        self.failureResultOf(service.describe("s"), SubscriptionsUnavailable)
        self.successResultOf(service.stopService())
        streams.stopService()

    def test_a_subscription_that_another_node_has_changed_is_read_again(self) -> None:
        serving = self.serving
        serving.put("wakes")
        serving.create(pull())
        serving.put("events/a", 1)
        wake = serving.claim()
        other = Serving(self, self.storage, serving.clock)
        self.assertEqual({"ok": True, "next_wake": False}, other.ack(wake))
        serving.fails(serving.acking(wake, done=True), Fenced)
        self.assertEqual({"events/a": "2"}, serving.cursors())

    def test_links_that_another_node_has_added_and_removed_are_known_after_the_subscription_is_read_again(self) -> None:
        serving = self.serving
        for name in ("wakes", "a", "b", "c"):
            serving.put(name)
        serving.create(pull(None, "a", "b"))
        other = Serving(self, self.storage, serving.clock)
        other.get(other.service.remove_stream("s", "a"))
        other.get(other.service.add_streams("s", ["c"]))
        other.append("c")
        wake = other.claim()
        serving.service._observe()
        serving.append("b")
        serving.fails(serving.service.claim("s", "w"), AlreadyClaimed)
        self.assertEqual({"b": "0", "c": "0"}, serving.cursors())
        self.assertEqual(2, serving.service.links)
        self.assertEqual({"ok": True, "next_wake": True}, serving.ack(wake))
        self.assertEqual({"b": "0", "c": "2"}, serving.cursors())

    def test_a_node_that_has_not_seen_a_change_of_links_reads_the_subscription_again(self) -> None:
        serving = self.serving
        for name in ("a", "b", "c", "d"):
            serving.put(name)
        serving.create(webhook(None, "a", "b"))
        other = Serving(self, self.storage, serving.clock)
        other.get(other.service.remove_stream("s", "a"))
        other.get(other.service.add_streams("s", ["c"]))
        serving.get(serving.service.add_streams("s", ["d"]))
        self.assertEqual({"b": "0", "c": "0", "d": "0"}, serving.cursors())
        other.get(other.service.remove_stream("s", "c"))
        self.assertEqual({"b": "0", "d": "0"}, other.cursors())

    def test_data_that_comes_while_a_subscription_is_read_again_is_pending(self) -> None:
        names, complete = {f"events/{number}" for number in range(4)}, 0
        with patch.object(store, "PAGE", 1), patch.object(registry, "_MAX_CHANGES", 1):
            for steps in range(20):
                serving = self.serving = Serving(self)
                serving.put("wakes")
                serving.create(pull())
                for name in names:
                    serving.put(name)
                serving.work()
                entry = serving.service._registry.find("s")
                entry.stale = True
                # Each turn of the reactor runs one task.
                serving.streams.turns.seconds = count().__next__
                done = Deferred.fromCoroutine(serving.service._registry.reload(entry))
                for _ in range(steps):
                    serving.turn()
                complete += done.called
                for name in names:
                    serving.append(name)
                serving.work()
                self.successResultOf(done)
                assert entry.current is not None
                self.assertEqual(names, set(entry.current.links.pending))
                self.assertEqual(4, serving.service.links)
                self.assertEqual(names, {stream["path"] for stream in serving.claim()["streams"]})
                serving.stop()
        self.assertTrue(0 < complete < 20)
