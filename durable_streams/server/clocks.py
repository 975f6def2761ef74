"""Clocks: a steady one for intervals, the wall clock for dates.

Twisted's reactors time their calls by :func:`time.time`. If the system's clock is set back by an hour, every pending
``callLater`` of such a reactor waits an hour longer. So intervals go by the monotonic clock here, and the wall clock is
read only for what is a date: the Date header, Stream-Expires-At, stream ids, cursors and stored times.

The daemon replaces its reactor's clock (:func:`make_steady`). In a program that embeds the server the reactor belongs
to the program; there the server's own calls go through a :class:`WatchedClock`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final
from weakref import WeakKeyDictionary

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorCore, IReactorTime
from twisted.internet.task import Clock
from twisted.logger import Logger
from zope.interface import implementer

#: How often a :class:`WatchedClock` compares the wall clock with the monotonic clock, in seconds.
WATCH_INTERVAL: Final = 0.5

#: Calls are rescheduled if the wall clock was set by more than this, in seconds. A smaller step delays them by as much.
STEP: Final = 0.05

#: Cancelled calls are removed from the heap when there are more than this and they are more than half of all calls.
_MAX_CANCELLED: Final = 50

_log = Logger()


class IClock(IReactorTime):
    """A reactor's time whose ``seconds()`` and ``callLater()`` are not affected when the wall clock is set."""

    def wall() -> float:
        """Return the wall clock's time, in seconds since 1970. It may be set back or forward at any time."""


def steady_seconds() -> Callable[[], float]:
    """Return a clock that starts at the wall clock's present time and advances with the monotonic clock."""
    monotonic = time.monotonic
    origin = time.time() - monotonic()
    return lambda: origin + monotonic()


def make_steady(reactor: Any) -> None:
    """
    Replace a reactor's clock by the monotonic clock, for all calls including Twisted's own.

    For a process that this server owns. ``seconds()`` starts at the wall clock's time, so that pending calls are not
    delayed.
    """
    if reactor.seconds is time.time:
        reactor.seconds = steady_seconds()


def clock_of(reactor: IReactorTime) -> IClock:
    """
    Return the clock to use with a reactor; the same one for each call.

    :param reactor: a reactor that uses the wall clock, or one that is steady already (:func:`make_steady`), or a
        ``twisted.internet.task.Clock``, which is its own wall clock.
    """
    if IClock.providedBy(reactor):
        clock: IClock = reactor
        return clock
    if reactor.seconds is not time.time:
        is_real = IReactorCore.providedBy(reactor) and not isinstance(reactor, Clock)
        return SteadyClock(reactor, time.time if is_real else reactor.seconds)
    watched = _watched.get(reactor)
    if watched is None:
        watched = _watched[reactor] = WatchedClock(reactor)
    return watched


@implementer(IClock)
class SteadyClock:
    """
    The clock of a reactor whose own time is steady.

    Its methods are the reactor's own, so that calls through it cost nothing extra.
    """

    def __init__(self, reactor: IReactorTime, wall: Callable[[], float]) -> None:
        self.seconds = reactor.seconds
        self.callLater = reactor.callLater
        self.getDelayedCalls = reactor.getDelayedCalls
        self.wall = wall


@implementer(IClock)
class WatchedClock:
    """
    The steady clock for a reactor that uses the wall clock and belongs to the embedding program.

    It keeps its calls in its own heap, by the monotonic clock, and one call in the reactor for the earliest of them. An
    idle reactor does not notice that the wall clock was set back, so a thread compares the two clocks twice a second
    and reschedules the call in the reactor after a step. The thread runs as long as the reactor.

    :param reactor: also provides IReactorCore and IReactorFromThreads.
    :param seconds: None for the monotonic clock (:func:`steady_seconds`).
    :param wall: None for the system's wall clock.
    """

    def __init__(
        self,
        reactor: Any,
        seconds: Callable[[], float] | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self._reactor = reactor
        self.seconds = steady_seconds() if seconds is None else seconds
        self.wall = time.time if wall is None else wall
        self._calls: list[DelayedCall] = []
        self._cancelled_calls = 0
        # The reactor's calls: one for calls without delay, one for the earliest of the others.
        self._soon: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._timer_at = inf
        self._watching = False
        self._stopped = threading.Event()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> DelayedCall:  # noqa: A002
        self._notice_cancellation()
        call = DelayedCall(self.seconds() + delay, callable, args, kw, self._cancelled, self._moved, self.seconds)
        heappush(self._calls, call)
        self._schedule(call.time, delay)
        if not self._watching:
            self._watching = True
            self._reactor.callWhenRunning(self._start_watching)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        self._notice_cancellation()
        return [call for call in self._calls if call.active()]

    def _notice_cancellation(self) -> None:
        """Drop all calls if other code has cancelled the reactor's pending calls, as trial does after each test."""
        for call in (self._soon, self._timer):
            if call is not None and not call.active():
                self._calls.clear()
                self._cancelled_calls = 0
                self._soon = self._timer = None
                self._timer_at = inf

    def _schedule(self, at: float, delay: float) -> None:
        if delay <= 0:
            if self._soon is None:
                self._soon = self._reactor.callLater(0, self._run_soon)
        elif at < self._timer_at:
            self._clear_timer()
            self._timer_at = at
            self._timer = self._reactor.callLater(delay, self._run_timed)

    def _clear_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._timer_at = inf

    def _clear(self) -> None:
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        self._soon = None
        self._clear_timer()

    def _schedule_first(self) -> None:
        while self._calls and self._calls[0].cancelled:
            heappop(self._calls)
            self._cancelled_calls -= 1
        if self._calls:
            at = self._calls[0].time
            self._schedule(at, at - self.seconds())
        else:
            self._clear()

    def _run_soon(self) -> None:
        self._soon = None
        self._run()

    def _run_timed(self) -> None:
        self._timer = None
        self._timer_at = inf
        self._run()

    def _run(self) -> None:
        calls = self._calls
        now = self.seconds()
        while calls and calls[0].time <= now:
            call = heappop(calls)
            if call.cancelled:
                self._cancelled_calls -= 1
            elif call.delayed_time > 0:
                call.activate_delay()
                heappush(calls, call)
            else:
                call.called = 1
                try:
                    call.func(*call.args, **call.kw)
                except BaseException:
                    _log.failure("A delayed call failed.")
        self._schedule_first()

    def _cancelled(self, _: DelayedCall) -> None:
        self._notice_cancellation()
        if not self._calls:
            return
        # The call is marked as cancelled after this.
        self._cancelled_calls += 1
        if self._cancelled_calls == len(self._calls):
            self._calls.clear()
            self._cancelled_calls = 0
            self._clear()
        elif self._cancelled_calls > max(_MAX_CANCELLED, len(self._calls) >> 1):
            # All but the one that is being cancelled.
            self._calls[:] = [call for call in self._calls if not call.cancelled]
            heapify(self._calls)
            self._cancelled_calls = 1

    def _moved(self, call: DelayedCall) -> None:
        heapify(self._calls)
        self._schedule(call.time, call.time - self.seconds())

    # Steps of the wall clock

    def _start_watching(self) -> None:
        self._stopped.clear()
        self._reactor.addSystemEventTrigger("during", "shutdown", self._stopped.set)
        threading.Thread(target=self._watch, name="clock", daemon=True).start()

    def _watch(self) -> None:
        last = self.wall() - self.seconds()
        while not self._stopped.wait(WATCH_INTERVAL):
            offset = self.wall() - self.seconds()
            if abs(offset - last) > STEP:
                last = offset
                self._reactor.callFromThread(self.stepped)

    def stepped(self) -> None:
        """Reschedule the reactor's calls after the wall clock was set, since they are early or late by the step."""
        self._notice_cancellation()
        soon = self._soon is not None
        self._clear()
        if soon:
            self._schedule(0, 0)
        self._schedule_first()


# A clock holds its reactor, so these live as long as the process; so do reactors.
_watched: WeakKeyDictionary[Any, WatchedClock] = WeakKeyDictionary()
