"""Threads that can't be started."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, cast

from twisted.internet import reactor as running
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.storage.workers import ThreadWorker

reactor = cast(Any, running)


class ThreadWorkerTests(TestCase):
    def allow_threads(self, count: int) -> Any:
        """Limit the number of threads that can be started."""
        start = threading.Thread.start
        left = [count]

        def start_one(thread: threading.Thread) -> None:
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
            start(thread)

        return self.patch(threading.Thread, "start", start_one)

    async def test_jobs_wait_for_a_thread_and_run_when_one_can_be_started(self) -> None:
        worker = ThreadWorker(reactor, "test", hands=2)
        self.addCleanup(worker.close)
        patched = self.allow_threads(0)
        done = worker.do(threading.current_thread)
        await deferLater(reactor, 0)
        self.assertNoResult(done)
        patched.restore()
        self.assertIsNot(await done, threading.current_thread())

    async def test_close_runs_jobs_that_no_thread_has_run(self) -> None:
        worker = ThreadWorker(reactor, "test")
        self.allow_threads(0)
        done = worker.do(threading.current_thread)
        worker.close()
        self.assertIs(await done, threading.current_thread())

    async def test_one_thread_runs_all_jobs_if_a_second_cannot_be_started(self) -> None:
        worker = ThreadWorker(reactor, "test", hands=2)
        self.addCleanup(worker.close)
        self.allow_threads(1)
        self.assertEqual([await worker.do(partial(int, number)) for number in range(5)], [0, 1, 2, 3, 4])
