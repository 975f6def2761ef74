from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.clocks import IClock, SteadyClock, WatchedClock, clock_of, make_steady, steady_seconds
from tests.support.clocks import SteppedClock


class WallReactor(Clock):
    """
    A reactor that goes by the wall clock: ``rightNow`` is the wall clock's time.

    :ivar steady: the monotonic clock's time.
    """

    steady = 0.0

    def callWhenRunning(self, function: Callable[..., object], *args: object) -> None:
        """Do nothing: the reactor does not run, so no thread is started."""

    def pass_time(self, seconds: float) -> None:
        """Advance both clocks in steps of a tenth of a second."""
        for _ in range(round(seconds * 10)):
            self.steady += 0.1
            self.advance(0.1)

    def step(self, seconds: float) -> None:
        """Set the wall clock."""
        self.rightNow += seconds


class ChoiceTests(SynchronousTestCase):
    def test_a_reactor_on_the_wall_clock_gets_a_watched_clock(self) -> None:
        reactor: Any = SteppedReactor()
        clock = clock_of(reactor)
        self.assertIsInstance(clock, WatchedClock)
        self.assertIs(clock_of(reactor), clock)
        self.assertIs(clock_of(clock), clock)
        verifyObject(IClock, clock)

    def test_a_reactor_that_was_made_steady_keeps_its_pending_calls_and_its_clock_is_its_own(self) -> None:
        reactor: Any = SteppedReactor()
        make_steady(reactor)
        self.assertIsNot(reactor.seconds, time.time)
        self.assertLess(abs(reactor.seconds() - time.time()), 5)
        clock = clock_of(reactor)
        self.assertIsInstance(clock, SteadyClock)
        self.assertEqual(clock.callLater, reactor.callLater)
        verifyObject(IClock, clock)

    def test_a_clock_without_a_separate_wall_clock_is_its_own(self) -> None:
        clock = Clock()
        clock.advance(10)
        self.assertEqual((clock_of(clock).seconds(), clock_of(clock).wall()), (10, 10))
        stepped = SteppedClock()
        stepped.step(-3600)
        self.assertEqual((clock_of(stepped).seconds(), clock_of(stepped).wall()), (0, -3600))

    def test_steady_seconds_begin_with_the_wall_clocks_time(self) -> None:
        seconds = steady_seconds()
        first = seconds()
        self.assertLess(abs(first - time.time()), 5)
        self.assertGreaterEqual(seconds(), first)


class SteppedReactor:
    """A reactor as Twisted makes them: its time is the wall clock's."""

    seconds = staticmethod(time.time)

    def callLater(self, delay: float, function: Callable[..., object], *args: object, **kw: object) -> None:
        """Never called."""

    def getDelayedCalls(self) -> list[DelayedCall]:
        return []


class WatchedClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = WallReactor()
        self.reactor.rightNow = 1_800_000_000.0
        self.clock = WatchedClock(self.reactor, lambda: self.reactor.steady, lambda: self.reactor.rightNow)
        self.called: list[object] = []

    def call(self, delay: float, what: object) -> DelayedCall:
        return self.clock.callLater(delay, self.called.append, what)

    def test_calls_are_made_in_the_order_of_their_times(self) -> None:
        for delay in (3, 1, 0, 2):
            self.call(delay, delay)
        for expected in ([0, 1], [0, 1, 2], [0, 1, 2, 3]):
            self.reactor.pass_time(1.1)
            self.assertEqual(self.called, expected)
        self.assertEqual((self.reactor.getDelayedCalls(), self.clock.getDelayedCalls()), ([], []))

    def test_no_call_is_delayed_when_the_clock_is_set_back(self) -> None:
        for step in (-2, -3600):
            self.called.clear()
            self.call(0, "at once")
            self.call(5, "later")
            self.reactor.step(step)
            self.clock.stepped()
            self.reactor.pass_time(0.2)
            self.assertEqual(self.called, ["at once"])
            self.reactor.pass_time(5)
            self.assertEqual(self.called, ["at once", "later"])

    def test_no_call_is_early_when_the_clock_is_set_forward(self) -> None:
        self.call(5, "later")
        self.reactor.step(3600)
        self.clock.stepped()
        self.reactor.pass_time(4.5)
        self.assertEqual(self.called, [])
        self.reactor.pass_time(1)
        self.assertEqual(self.called, ["later"])

    def test_no_call_is_early_before_a_step_forward_is_detected(self) -> None:
        self.call(5, "later")
        self.reactor.step(3600)
        self.reactor.pass_time(4.5)
        self.assertEqual(self.called, [])
        self.reactor.pass_time(1)
        self.assertEqual(self.called, ["later"])

    def test_a_looping_call_continues_when_the_clock_is_set_back(self) -> None:
        looping = LoopingCall(self.called.append, "tick")
        looping.clock = self.clock
        looping.start(1, now=False)
        self.reactor.pass_time(3.5)
        self.reactor.step(-3600)
        self.clock.stepped()
        self.reactor.pass_time(3)
        self.assertEqual(len(self.called), 6)
        looping.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled_calls_leave_no_call_in_the_reactor(self) -> None:
        calls = [self.call(delay, delay) for delay in (0, 1, 2, 3)]
        for call in calls[1:]:
            call.cancel()
        self.reactor.pass_time(0.1)
        self.assertEqual((self.called, self.reactor.getDelayedCalls()), ([0], []))
        self.call(1, "again")
        self.reactor.pass_time(1.2)
        self.assertEqual(self.called, [0, "again"])

    def test_many_cancelled_calls_are_released(self) -> None:
        kept = self.call(100, "kept")
        for _ in range(1000):
            self.call(50, "cancelled").cancel()
        self.assertLess(len(self.clock._calls), 200)
        self.assertEqual(self.clock.getDelayedCalls(), [kept])
        self.reactor.pass_time(101)
        self.assertEqual(self.called, ["kept"])

    def test_a_call_can_be_delayed_and_made_earlier(self) -> None:
        self.call(5, "sooner").reset(1)
        self.call(1, "later").reset(5)
        self.reactor.pass_time(1.5)
        self.assertEqual(self.called, ["sooner"])
        self.reactor.pass_time(4)
        self.assertEqual(self.called, ["sooner", "later"])

    def test_a_call_that_fails_does_not_stop_the_others(self) -> None:
        self.clock.callLater(1, lambda: 1 / 0)
        self.call(1, "next")
        self.reactor.pass_time(1.2)
        self.assertEqual(self.called, ["next"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_watched_clock_works_after_all_calls_of_the_reactor_were_cancelled(self) -> None:
        self.call(0, "lost")
        self.call(1, "lost too")
        for call in self.reactor.getDelayedCalls():
            call.cancel()
        self.call(1, "next")
        self.reactor.pass_time(2)
        self.assertEqual(self.called, ["next"])
