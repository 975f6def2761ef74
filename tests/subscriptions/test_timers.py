"""Tests of the deadlines of subscriptions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.timers import Timers

_settings = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(1, 20), st.integers(0, 3)), max_size=300)


class TimerTests(SynchronousTestCase):
    @given(_settings)
    def test_each_subscription_is_due_at_its_last_deadline_and_one_call_is_pending(
        self, settings: list[tuple[int, int | None, int]]
    ) -> None:
        clock, due = Clock(), list[tuple[float, str]]()
        timers: Timers[str] = Timers(clock, lambda name: due.append((clock.seconds(), name)))
        expected: dict[str, float] = {}
        for number, delay, passed in settings:
            name = str(number)
            if delay is None:
                expected.pop(name, None)
                timers.set(name, None)
            else:
                expected[name] = clock.seconds() + delay
                timers.set(name, expected[name])
            self.assertEqual(expected.get(name), timers.deadline(name))
            for _ in range(passed):
                clock.advance(1)
                over = sorted(name for name, at in expected.items() if at <= clock.seconds())
                self.assertEqual(over, sorted(name for _, name in due))
                due.clear()
                for name in over:
                    del expected[name]
            self.assertEqual(len(expected), len(timers))
            self.assertLessEqual(len(timers._heap), 2 * len(expected) + 66)
            self.assertLessEqual(len(clock.getDelayedCalls()), 1)
        timers.stop()
        self.assertEqual([], clock.getDelayedCalls())

    def test_a_deadline_that_is_over_is_due_at_once(self) -> None:
        clock, due = Clock(), list[str]()
        clock.advance(10)
        timers: Timers[str] = Timers(clock, due.append)
        timers.set("a", 5)
        clock.advance(0)
        self.assertEqual(["a"], due)
