"""Tests of blocking calls in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from durable_streams.server.blocking_calls import BlockingCalls


@implementer(IReactorFromThreads)
class ThreadReactor(Clock):
    """A Clock that takes calls from threads, and makes them in :meth:`turn`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_from_threads: SimpleQueue[tuple[Callable[..., Any], tuple[object, ...]]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:  # noqa: A002
        self.calls_from_threads.put((callable, args))

    def turn(self) -> None:
        """Wait for a call from a thread, at most 10 s, and make it."""
        call, arguments = self.calls_from_threads.get(timeout=10)
        call(*arguments)


class BlockingCallsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ThreadReactor()
        self.calls = BlockingCalls(self.reactor)
        self.addCleanup(self.calls.close)

    def result(self, work: Callable[[], Any]) -> Any:
        done = self.calls.do(work)
        self.assertNoResult(done)
        self.reactor.turn()
        return self.successResultOf(done)

    def test_calls_run_in_one_thread_that_is_not_the_reactors(self) -> None:
        first, second = self.result(threading.get_ident), self.result(threading.get_ident)
        self.assertEqual(first, second)
        self.assertNotEqual(threading.get_ident(), first)

    def test_an_exception_is_the_failure_of_the_deferred(self) -> None:
        done = self.calls.do(lambda: 1 // 0)
        self.reactor.turn()
        self.failureResultOf(done, ZeroDivisionError)

    def test_the_thread_ends_after_the_calls_before_close(self) -> None:
        done = self.calls.do(threading.current_thread)
        self.calls.close()
        self.reactor.turn()
        thread = self.successResultOf(done)
        thread.join(10)
        self.assertFalse(thread.is_alive())

    def test_a_call_after_close_runs(self) -> None:
        self.assertEqual(1, self.result(lambda: 1))
        self.calls.close()
        self.calls.close()
        self.assertEqual(2, self.result(lambda: 2))

    def test_without_threads_a_call_runs_at_once(self) -> None:
        calls = BlockingCalls(Clock())
        self.assertEqual(1, self.successResultOf(calls.do(lambda: 1)))
        self.failureResultOf(calls.do(lambda: 1 // 0), ZeroDivisionError)
