from __future__ import annotations

from collections.abc import Callable, Generator

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.run_queue import BUDGET, SLICE, RunQueue
from tests.support.reactor import Reactor
from tests.support.stopwatch import Stopwatch


class RunQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Reactor()
        self.stopwatch = Stopwatch()
        self.queue = RunQueue(self.clock, self.stopwatch)
        self.ran: list[str] = []

    def task(self, name: str, seconds: float = 0.0) -> Callable[[], None]:
        def run() -> None:
            self.ran.append(name)
            self.stopwatch.spend(seconds)

        return run

    def test_tasks_run_in_order_in_a_later_turn(self) -> None:
        self.queue.add(self.task("a"))
        self.queue.add(self.task("b"))
        self.assertEqual([], self.ran)
        self.clock.turn()
        self.assertEqual(["a", "b"], self.ran)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_no_more_tasks_run_in_a_turn_than_fit_into_the_budget(self) -> None:
        for number in range(5):
            self.queue.add(self.task(str(number), BUDGET / 2))
        self.clock.turn()
        self.assertEqual(["0", "1"], self.ran)
        self.clock.turn()
        self.assertEqual(["0", "1", "2", "3"], self.ran)
        self.clock.turn()
        self.assertEqual(["0", "1", "2", "3", "4"], self.ran)

    def test_a_task_that_adds_itself_again_runs_after_the_others(self) -> None:
        left = 3

        def long() -> None:
            nonlocal left
            self.ran.append("long")
            self.stopwatch.spend(SLICE)
            left -= 1
            if left:
                self.queue.add(long)

        self.queue.add(long)
        self.queue.add(self.task("short"))
        for _ in range(5):
            self.clock.turn()
        self.assertEqual(["long", "short", "long", "long"], self.ran)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_run_runs_tasks_in_the_same_turn(self) -> None:
        self.queue.run([self.task("a", BUDGET / 2), self.task("b")])
        self.assertEqual(["a", "b"], self.ran)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_tasks_of_run_beyond_the_budget_run_in_a_later_turn(self) -> None:
        self.queue.run([self.task("a", BUDGET), self.task("b")])
        self.assertEqual(["a"], self.ran)
        self.clock.turn()
        self.assertEqual(["a", "b"], self.ran)

    def test_a_failing_task_does_not_stop_later_tasks(self) -> None:
        def fail() -> None:
            raise RuntimeError("not today")

        self.queue.add(fail)
        self.queue.add(self.task("a"))
        self.clock.turn()
        self.assertEqual(["a"], self.ran)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_a_coroutine_can_wait_for_its_turn(self) -> None:
        self.queue.add(self.task("a", BUDGET))
        turn = self.queue.turn()
        self.clock.turn()
        self.assertNoResult(turn)
        self.clock.turn()
        self.successResultOf(turn)

    def test_cancelling_a_turn_logs_no_error(self) -> None:
        turn = self.queue.turn()
        turn.addErrback(lambda _: None)
        turn.cancel()
        self.clock.turn()
        self.assertEqual([], self.flushLoggedErrors())

    def steps(self, count: int) -> Generator[None, None, str]:
        for number in range(count):
            self.ran.append(f"step {number}")
            self.stopwatch.spend(SLICE / 2)
            yield
        return "done"

    def test_finish_runs_all_steps_in_slices_of_time(self) -> None:
        finished = self.queue.finish(self.steps(5))
        self.queue.add(self.task("other"))
        self.assertEqual([], self.ran)
        for _ in range(4):
            self.clock.turn()
        self.assertEqual(["step 0", "step 1", "other", "step 2", "step 3", "step 4"], self.ran)
        self.assertEqual("done", self.successResultOf(finished))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_an_error_of_the_steps_fails_the_deferred(self) -> None:
        def broken() -> Generator[None, None, str]:
            yield
            raise ZeroDivisionError

        finished = self.queue.finish(broken())
        self.clock.turn()
        self.failureResultOf(finished, ZeroDivisionError)

    def test_cancelling_ends_the_steps(self) -> None:
        finished = self.queue.finish(self.steps(50))
        self.clock.turn()
        taken = len(self.ran)
        finished.cancel()
        self.failureResultOf(finished, CancelledError)
        for _ in range(3):
            self.clock.turn()
        self.assertEqual(taken, len(self.ran))
        self.assertEqual([], self.clock.getDelayedCalls())
