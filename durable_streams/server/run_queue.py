"""Cooperative run queue: work for many clients runs in slices of time, and the reactor's other work between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from time import perf_counter
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: How long, in seconds, one task may run before it has to queue again. Tasks keep to it themselves.
SLICE: Final = 0.001

#: How long, in seconds, queued tasks run in one turn of the reactor. A turn costs about 50 us besides.
BUDGET: Final = 0.002

_log = Logger()

T = TypeVar("T")


class RunQueue:
    """
    A queue of tasks that run in the order of their addition, for :data:`BUDGET` in each turn of the reactor.

    A task with more work than fits into :data:`SLICE` adds itself again and returns. So the reactor is blocked for at
    most the budget plus one task, however many tasks there are and however much work each has.

    :param clock: schedules the turns.
    :param seconds: returns the time in seconds, to measure slices; not the wall clock, which may be set.
    """

    def __init__(self, clock: IReactorTime, seconds: Callable[[], float] = perf_counter) -> None:
        self.seconds = seconds
        self._clock = clock
        self._tasks: deque[Callable[[], object]] = deque()
        self._scheduled = False

    def add(self, task: Callable[[], object]) -> None:
        """Queue a task, which runs in a later turn of the reactor."""
        self._tasks.append(task)
        self._schedule()

    def turn(self) -> Deferred[None]:
        """Return a Deferred that fires when everything that is queued now has run."""
        deferred: Deferred[None] = Deferred()

        def fire() -> None:
            if not deferred.called:
                deferred.callback(None)

        self.add(fire)
        return deferred

    def finish(self, steps: Generator[None, None, T]) -> Deferred[T]:
        """
        Run a generator of short steps to its end, some steps in each slice of time.

        :returns: fires with what the generator returns; fails with what it raises. To cancel it ends the generator.
        """
        done: Deferred[T] = Deferred(lambda _: steps.close())

        def task() -> None:
            end = self.seconds() + SLICE
            try:
                while True:
                    next(steps)
                    if self.seconds() >= end:
                        break
            except StopIteration as stop:
                if not done.called:
                    done.callback(stop.value)
            except Exception:
                done.errback()
            else:
                self.add(task)

        self.add(task)
        return done

    def run(self, tasks: Iterable[Callable[[], object]]) -> None:
        """Queue tasks, and run them in this turn as far as the budget allows, unless others are queued already."""
        self._tasks.extend(tasks)
        if not self._scheduled:
            self._run()

    def _run(self) -> None:
        tasks = self._tasks
        seconds = self.seconds
        # Tasks that are added meanwhile run in this turn if the budget allows; no further turn is scheduled for them.
        self._scheduled = True
        end = seconds() + BUDGET
        while tasks:
            task = tasks.popleft()
            try:
                task()
            except Exception:
                # An error must not keep the other tasks from running.
                _log.failure("A queued task failed.")
            if seconds() >= end:
                break
        self._scheduled = False
        if tasks:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._run)
