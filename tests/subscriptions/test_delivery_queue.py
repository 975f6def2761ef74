"""The queue of deliveries: order, limits, and receivers that hang."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.delivery import DeliveryResult, WebhookRequest
from durable_streams.server.subscriptions.delivery_queue import DeliveryQueue, Lane
from durable_streams.server.subscriptions.model import Outcome

from .receivers import DeliveryTestCase, Hook


class DeliveryQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = DeliveryQueue(self.clock)
        self.lane = Lane(4, 2)
        self.started: list[str] = []
        self.running: dict[str, Deferred[None]] = {}

    def put(self, key: str, host: str = "h", lane: Lane | None = None) -> bool:
        """Queue a job that runs until the test ends it."""

        def job() -> Deferred[None]:
            self.started.append(key)
            self.running[key] = Deferred()
            return self.running[key]

        return self.queue.put(lane or self.lane, key, host, job)

    def end(self, key: str) -> None:
        """End a job."""
        self.running.pop(key).callback(None)

    def test_jobs_start_in_order_with_two_of_a_host_and_four_in_all(self) -> None:
        for key, host in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("d1", "d")):
            self.assertTrue(self.put(key, host))
        self.assertEqual(["a1", "a2", "b1", "c1"], self.started)
        self.assertEqual((4, 2), (self.queue.running, self.queue.waiting))
        self.end("b1")
        self.assertEqual(["d1"], self.started[4:])
        self.end("a2")
        self.assertEqual(["d1", "a3"], self.started[4:])

    def test_a_key_is_queued_once_until_its_job_ends(self) -> None:
        self.assertTrue(self.put("a"))
        self.assertFalse(self.put("a"))
        self.assertTrue(self.put("b"))
        self.assertTrue(self.put("c"))
        self.assertFalse(self.put("c"))
        self.end("a")
        self.assertTrue(self.put("a"))
        self.assertEqual(["a", "b", "c"], self.started)

    def test_lanes_do_not_wait_for_each_other_and_share_keys(self) -> None:
        retries = Lane(1, 1)
        for key in ("a", "b", "c"):
            self.put(key)
        self.assertTrue(self.put("d", "h", retries))
        self.assertTrue(self.put("e", "h", retries))
        self.assertFalse(self.put("a", "h", retries), "it runs in the other lane")
        self.assertEqual(["a", "b", "d"], self.started)
        self.assertEqual((3, 2), (self.queue.running, self.queue.waiting))
        self.end("a")
        self.assertTrue(self.queue.discard("e"))
        self.end("d")
        self.assertEqual(["a", "b", "d", "c"], self.started)
        stopped = self.queue.stop(10)
        for key in ("b", "c"):
            self.assertNoResult(stopped)
            self.end(key)
        self.successResultOf(stopped)
        self.assertEqual(({}, {}), (self.lane._hosts, retries._hosts))

    def test_a_job_that_queues_another_in_a_second_lane_starts_it_at_once(self) -> None:
        retries = Lane(1, 1)

        def job() -> Deferred[None]:
            self.put("b", "h", retries)
            return succeed(None)

        self.queue.put(self.lane, "a", "h", job)
        self.assertEqual((["b"], 1), (self.started, self.queue.running))

    def test_a_discarded_job_never_starts(self) -> None:
        for key in ("a", "b", "c", "d"):
            self.put(key)
        self.assertTrue(self.queue.discard("c"))
        self.assertFalse(self.queue.discard("c"))
        self.assertFalse(self.queue.discard("a"))
        self.end("a")
        self.assertEqual(["a", "b", "d"], self.started)

    def test_a_job_that_fails_is_logged_and_frees_its_slot(self) -> None:
        def broken() -> Deferred[None]:
            raise ZeroDivisionError

        self.queue.put(self.lane, "a", "h", broken)
        self.queue.put(self.lane, "b", "h", lambda: fail(ZeroDivisionError()))
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual((0, 0), (self.queue.running, self.queue.waiting))
        self.assertEqual({}, self.lane._hosts)

    def test_many_jobs_that_are_done_at_once_do_not_recurse(self) -> None:
        for key in ("a", "b"):
            self.put(key)
        for number in range(5000):
            self.queue.put(self.lane, str(number), "h", lambda: succeed(None))
        self.end("a")
        self.assertEqual((1, 0), (self.queue.running, self.queue.waiting))

    def test_stop_drops_waiting_jobs_and_cuts_running_ones_after_the_drain_time(self) -> None:
        for key in ("a", "b", "c"):
            self.put(key)
        running = self.running["a"]
        stopped = self.queue.stop(10)
        self.assertFalse(self.put("d"))
        self.end("b")
        self.clock.advance(9)
        self.assertNoResult(stopped)
        self.clock.advance(1)
        self.successResultOf(stopped)
        self.assertTrue(running.called)
        self.assertEqual((["a", "b"], 0), (self.started, self.queue.waiting))
        self.successResultOf(self.queue.stop(10))

    def test_stop_ends_with_the_last_job(self) -> None:
        self.put("a")
        stopped = self.queue.stop(10)
        self.end("a")
        self.successResultOf(stopped)
        self.assertEqual([], self.clock.getDelayedCalls())

    @given(st.randoms(use_true_random=False), st.integers(1, 60))
    def test_limits_hold_and_nothing_waits_beside_a_free_slot(self, choose: random.Random, steps: int) -> None:
        self.setUp()
        hosts: dict[str, str] = {}
        waiting: list[str] = []
        for step in range(steps):
            action = choose.random()
            if action < 0.5:
                key, host = str(step), choose.choice("abc")
                hosts[key] = host
                waiting.append(key)
                self.assertTrue(self.put(key, host))
            elif action < 0.6 and waiting:
                key = choose.choice(waiting)
                self.assertTrue(self.queue.discard(key))
                waiting.remove(key)
            elif self.running:
                self.end(choose.choice(sorted(self.running)))
            began = [key for key in self.started if key in waiting]
            self.assertEqual(sorted(began, key=int), began)
            waiting = [key for key in waiting if key not in began]
            counts = Counter(hosts[key] for key in self.running)
            self.assertEqual((len(self.running), len(waiting)), (self.queue.running, self.queue.waiting))
            self.assertLessEqual(len(self.running), 4)
            self.assertTrue(all(count <= 2 for count in counts.values()))
            if len(self.running) < 4:
                self.assertTrue(all(counts[hosts[key]] == 2 for key in waiting))
        while self.running:
            self.end(next(iter(self.running)))
        self.assertEqual({}, self.lane._hosts)
        self.assertEqual([], self.lane._listed)


class HangingReceiverTests(DeliveryTestCase):
    async def test_receivers_that_hang_do_not_hold_up_others(self) -> None:
        hanging = self.serve(lambda connection, _: None, address="127.0.0.2")
        url = hanging.url
        hook = Hook(b'{"done":true}')
        origin = self.serve_hook(hook)
        sender, clock = self.sender(total=5.0), Clock()
        queue, lane = DeliveryQueue(clock), Lane(16, 4)
        results: list[DeliveryResult] = []
        finished: Deferred[None] = Deferred()

        def save(result: DeliveryResult) -> None:
            results.append(result)
            if len(results) == 100:
                finished.callback(None)

        def put(key: str, target: str, host: str) -> None:
            queue.put(lane, key, host, lambda: sender.deliver(WebhookRequest(key, target, b"{}")).addCallback(save))

        for number in range(100):
            put(f"hanging {number}", url, "127.0.0.2")
            put(f"good {number}", origin, "127.0.0.1")
        await finished
        self.assertEqual({Outcome.DONE}, {result.outcome for result in results})
        self.assertEqual((100, 4), (len(hook.requests), len(hanging.heads)))
        stopped = queue.stop(1)
        clock.advance(1)
        await stopped
        self.assertEqual(100, len(results))
