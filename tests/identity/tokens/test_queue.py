"""The queue of hash computations: bounded, and fair to addresses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from durable_streams.server.errors import Unavailable
from durable_streams.server.identity.tokens.queue import FairQueue, QueueLimits


@implementer(IReactorFromThreads)
class Threads:
    """Runs each thread when a test says so, and its result in the test's thread."""

    def __init__(self) -> None:
        self.started: list[Callable[[], None]] = []
        self.fails = False

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:  # noqa: A002
        callable(*args, **kwargs)

    def Thread(self, target: Callable[..., None], args: tuple[Any, ...], **_: object) -> Threads:
        self._next = lambda: target(*args)
        return self

    def start(self) -> None:
        if self.fails:
            raise RuntimeError("can't start new thread")
        self.started.append(self._next)

    def run(self) -> None:
        """Run the thread that was started first."""
        self.started.pop(0)()


class FairQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.done: list[str] = []
        self.failed: list[str] = []
        self.threads = Threads()
        self.patch(threading, "Thread", self.threads.Thread)
        # The tests run everything in their own thread, whose priority stays.
        self.patch(threading, "get_native_id", lambda: -1)
        self.queue = FairQueue(self.threads, QueueLimits(running=2, waiting=6, waiting_of_address=4))

    def add(self, name: str, address: str) -> Deferred[str]:
        result = self.queue.do(address, lambda: name)
        result.addCallbacks(self.done.append, lambda failure: self.failed.append(f"{name}: {failure.type.__name__}"))
        return result

    def run_all(self) -> None:
        while self.threads.started:
            self.threads.run()

    def test_at_most_two_computations_run_at_the_same_time(self) -> None:
        for number in range(5):
            self.add(str(number), "192.0.2.1")
        self.assertEqual((2, 3), (len(self.threads.started), self.queue.waiting))
        self.threads.run()
        self.assertEqual((2, 2, ["0"]), (len(self.threads.started), self.queue.waiting, self.done))
        self.run_all()
        self.assertEqual((0, ["0", "1", "2", "3", "4"]), (self.queue.waiting, self.done))

    def test_the_addresses_take_turns(self) -> None:
        for number in range(6):
            self.add(f"a{number}", "192.0.2.1")
        self.add("b0", "192.0.2.2")
        self.add("c0", "192.0.2.3")
        self.run_all()
        self.assertEqual(["a0", "a1", "a2", "b0", "c0", "a3", "a4", "a5"], self.done)

    def test_one_address_may_not_fill_the_queue(self) -> None:
        for number in range(6):
            self.add(str(number), "192.0.2.1")
        self.assertRaises(Unavailable, self.add, "7", "192.0.2.1")
        self.add("other", "192.0.2.2")
        self.assertEqual(1, self.queue.refused)

    def test_in_a_full_queue_the_address_with_most_computations_makes_room(self) -> None:
        for number in range(6):
            self.add(f"a{number}", "192.0.2.1")
        for number in range(2):
            self.add(f"b{number}", "192.0.2.2")
        self.add("c0", "192.0.2.3")
        self.assertEqual((["a5: Unavailable"], 6), (self.failed, self.queue.waiting))
        self.add("d0", "192.0.2.4")
        self.assertEqual((["a5: Unavailable", "a4: Unavailable"], 6), (self.failed, self.queue.waiting))
        self.run_all()
        self.assertEqual(["a0", "a1", "a2", "b0", "c0", "d0", "a3", "b1"], self.done)

    def test_a_full_queue_of_many_addresses_refuses_the_next(self) -> None:
        for number in range(8):
            self.add(str(number), f"192.0.2.{number}")
        self.assertRaises(Unavailable, self.add, "8", "192.0.2.8")
        self.assertEqual([], self.failed)

    def test_a_network_of_ipv6_counts_as_one_address(self) -> None:
        for number in range(6):
            self.add(str(number), f"2001:db8::{number}")
        self.assertRaises(Unavailable, self.add, "7", "2001:db8:0:0:ffff::1")
        self.add("8", "2001:db8:0:1::1")
        self.assertRaises(Unavailable, self.add, "9", "2001:db8::1%eth0")

    def test_mapped_addresses_are_those_of_ipv4(self) -> None:
        for number in range(6):
            self.add(str(number), "::ffff:192.0.2.1")
        self.assertRaises(Unavailable, self.add, "7", "192.0.2.1")
        self.add("8", "::ffff:192.0.2.2")
        self.add("9", "not:an:address")

    def test_a_cancelled_computation_that_waits_is_removed(self) -> None:
        for number in range(2):
            self.add(str(number), "192.0.2.1")
        waiting = self.add("2", "192.0.2.1")
        self.add("3", "192.0.2.1")
        waiting.cancel()
        self.run_all()
        self.assertEqual((["0", "1", "3"], ["2: CancelledError"]), (self.done, self.failed))

    def test_the_result_of_a_cancelled_computation_that_runs_is_dropped(self) -> None:
        running = self.queue.do("192.0.2.1", lambda: 1)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.run_all()
        self.assertEqual(0, self.queue.waiting)

    def test_an_error_is_the_failure_of_the_deferred(self) -> None:
        result = self.queue.do("192.0.2.1", lambda: 1 // 0)
        self.run_all()
        self.failureResultOf(result, ZeroDivisionError)
        self.add("next", "192.0.2.1")
        self.run_all()
        self.assertEqual(["next"], self.done)

    def test_computations_are_refused_while_the_system_allows_no_threads(self) -> None:
        self.threads.fails = True
        self.add("0", "192.0.2.1")
        self.assertEqual(["0: Unavailable"], self.failed)
        self.threads.fails = False
        self.add("1", "192.0.2.1")
        self.run_all()
        self.assertEqual(["1"], self.done)

    def test_without_threads_computations_run_at_once(self) -> None:
        self.assertEqual(7, self.successResultOf(FairQueue(Clock()).do("", lambda: 7)))

    def test_the_threads_have_a_lower_priority(self) -> None:
        with patch("os.setpriority") as setpriority:
            self.add("0", "192.0.2.1")
            self.run_all()
        self.assertEqual([-1, 10], list(setpriority.call_args.args[1:]))

    @given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["add", "run", "cancel"])), max_size=60))
    def test_every_computation_ends_once_and_the_queue_stays_bounded(self, steps: list[tuple[str, str]]) -> None:
        self.setUp()
        added: list[Deferred[Any]] = []
        refused = 0
        for address, step in steps:
            if step == "run" and self.threads.started:
                self.threads.run()
            elif step == "cancel" and added:
                added[len(added) // 2].cancel()
            elif step == "add":
                try:
                    added.append(self.add(f"{address}{len(added)}", address))
                except Unavailable:
                    refused += 1
            self.assertLessEqual(self.queue.waiting, 6)
            self.assertLessEqual(len(self.threads.started), 2)
        self.run_all()
        self.assertEqual((0, len(added)), (self.queue.waiting, len(self.done) + len(self.failed)))
        self.assertEqual(len(set(self.done)), len(self.done))
