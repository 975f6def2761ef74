"""Tests of background tasks that are repeated."""

from __future__ import annotations

import time
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.storage.postgres.repeating import RepeatedTask

INTERVAL = 10.0


class RepeatedTaskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.runs: list[Deferred[None]] = []
        self.task = RepeatedTask(self.run_once, INTERVAL, "The task failed.", self.clock)

    async def run_once(self) -> None:
        run: Deferred[None] = Deferred()
        self.runs.append(run)
        await run

    def test_the_interval_begins_at_the_end_of_a_run(self) -> None:
        self.task.start()
        self.clock.advance(5 * INTERVAL)
        self.assertEqual(1, len(self.runs))
        self.runs[0].callback(None)
        self.clock.advance(INTERVAL - 1)
        self.assertEqual(1, len(self.runs))
        self.clock.advance(1)
        self.assertEqual(2, len(self.runs))

    def test_a_run_that_fails_is_logged_and_repeated(self) -> None:
        self.task.start()
        self.runs[0].errback(ValueError("unexpected"))
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
        self.clock.advance(INTERVAL)
        self.assertEqual(2, len(self.runs))

    def test_run_soon_does_not_wait_for_the_interval(self) -> None:
        self.task.start()
        self.runs[0].callback(None)
        self.task.run_soon()
        self.assertEqual(2, len(self.runs))
        self.runs[1].callback(None)
        self.clock.advance(INTERVAL)
        self.assertEqual(3, len(self.runs))

    def test_run_soon_during_a_run_repeats_it_once_at_its_end(self) -> None:
        self.task.start()
        self.task.run_soon()
        self.task.run_soon()
        self.assertEqual(1, len(self.runs))
        self.runs[0].callback(None)
        self.clock.advance(0)
        self.assertEqual(2, len(self.runs))
        self.runs[1].callback(None)
        self.clock.advance(INTERVAL - 1)
        self.assertEqual(2, len(self.runs))

    def test_run_soon_before_the_start_and_after_the_stop_does_nothing(self) -> None:
        self.task.run_soon()
        self.task.start()
        self.task.cancel()
        self.task.run_soon()
        self.runs[0].callback(None)
        self.task.run_soon()
        self.clock.advance(5 * INTERVAL)
        self.assertEqual((1, []), (len(self.runs), self.clock.getDelayedCalls()))

    def test_stop_waits_for_the_run_that_goes_on(self) -> None:
        self.task.start()
        stopped = Deferred.fromCoroutine(self.task.stop())
        self.assertNoResult(stopped)
        self.runs[0].callback(None)
        self.successResultOf(stopped)
        self.assertEqual((True, []), (self.task.stopped, self.clock.getDelayedCalls()))

    def test_stop_between_two_runs_is_immediate(self) -> None:
        self.task.start()
        self.runs[0].callback(None)
        self.successResultOf(Deferred.fromCoroutine(self.task.stop()))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_the_interval_does_not_depend_on_the_wall_clock(self) -> None:
        reactor = cast("Any", Clock())
        reactor.seconds = time.time
        task = RepeatedTask(self.run_once, INTERVAL, "The task failed.", reactor)
        steady = clock_of(reactor)
        reactor.callWhenRunning = lambda _: None
        task.start()
        self.runs[0].callback(None)
        self.assertEqual(1, len(steady.getDelayedCalls()))
        task.cancel()
        self.assertEqual(0, len(steady.getDelayedCalls()))
