"""Workers without threads: a test chooses the order of their jobs and results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from .simulated_disk import PowerFailure

T = TypeVar("T")

_Job = tuple[Callable[[], Any], "Deferred[Any]"]


class SimulatedWorker:
    """A queue of jobs; with several hands, the first few may run in any order."""

    def __init__(self, schedule: Schedule, name: str, hands: int) -> None:
        self.name = name
        self.jobs: list[_Job] = []
        self._schedule = schedule
        self._hands = hands

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self.jobs.append((work, done))
        return done

    def close(self) -> None:
        while self.jobs:
            self.work()

    def work(self) -> None:
        """Run one job."""
        work, done = self.jobs.pop(self._schedule.random.randrange(min(self._hands, len(self.jobs))))
        outcome: Any
        try:
            outcome = work()
        except PowerFailure:
            # Nobody waits for this result any more; it is delivered so that no Deferred stays unfired.
            outcome = Failure(OSError("The power is off"))
        except Exception:
            outcome = Failure()
        self._schedule.told.append((done, outcome))


class Schedule:
    """
    A random schedule of concurrent events: jobs, their results, and due calls of a Clock.

    :ivar stopped: asked before each turn; nothing goes on by itself when it says so.
    """

    def __init__(self, random: Random, clock: Clock) -> None:
        self.random = random
        self.clock = clock
        self.told: deque[tuple[Deferred[Any], Any]] = deque()
        self._workers: list[SimulatedWorker] = []

    def workers(self, name: str, hands: int) -> SimulatedWorker:
        """Create a worker for a storage."""
        worker = SimulatedWorker(self, name, hands)
        self._workers.append(worker)
        return worker

    @property
    def idle(self) -> bool:
        """Whether nothing is due before the time advances."""
        return not self.told and not self._due and not any(worker.jobs for worker in self._workers)

    @property
    def _due(self) -> bool:
        now = self.clock.seconds()
        return any(call.getTime() <= now for call in self.clock.getDelayedCalls())

    def turn(self) -> bool:
        """Run one event; return whether there was one."""
        choices: list[Callable[[], None]] = [worker.work for worker in self._workers if worker.jobs]
        if self.told:
            choices += [self._tell] * 2
        if self._due:
            choices += [lambda: self.clock.advance(0)]
        if not choices:
            return False
        self.random.choice(choices)()
        return True

    def _tell(self) -> None:
        done, outcome = self.told.popleft()
        done.callback(outcome)

    def run(self, max_calls: int = 20_000) -> None:
        """Run turns until no job is left."""
        while self.turn():
            max_calls -= 1
            assert max_calls, "The workers never become idle."
