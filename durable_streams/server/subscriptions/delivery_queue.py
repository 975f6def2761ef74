"""The queue of deliveries: lanes with so many at once, fewer to one host, in the order in which they became due."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

Job = Callable[[], "Deferred[None]"]


class _Host:
    """
    The jobs of one host in one lane.

    :ivar waiting: the jobs by key, each with its number in the order of arrival.
    :ivar is_listed: whether the host is in the heap of those that can start a job.
    """

    __slots__ = ("is_listed", "running", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[str, tuple[int, Job]] = OrderedDict()
        self.running = 0
        self.is_listed = False

    @property
    def first(self) -> int | None:
        """The number of the first waiting job, or None."""
        for number, _ in self.waiting.values():
            return number
        return None


class Lane:
    """
    The slots for one kind of job, and the jobs that wait for them. Lanes do not wait for each other.

    Of the jobs whose host has a free slot, the one that came first starts first. A step costs by the logarithm of the
    number of hosts.

    :param max_running: the maximum number of jobs that run at once.
    :param max_per_host: of those, the maximum number of one host: a receiver that hangs leaves slots to others.
    """

    def __init__(self, max_running: int, max_per_host: int) -> None:
        self._max_running = max_running
        self._max_per_host = max_per_host
        self._running = 0
        self._sequence = 0
        self._hosts: dict[str, _Host] = {}
        self._listed: list[tuple[int, str]] = []

    def add(self, key: str, host: str, job: Job) -> None:
        """Add a job that waits."""
        self._sequence += 1
        state = self._hosts.get(host)
        if state is None:
            state = self._hosts[host] = _Host()
        state.waiting[key] = (self._sequence, job)
        self._list(host, state)

    def discard(self, key: str, host: str) -> None:
        """Remove a job that waits."""
        state = self._hosts[host]
        del state.waiting[key]
        self._list(host, state)

    def take(self) -> tuple[str, str, Job] | None:
        """
        Give a slot to the first job that can have one.

        :returns: its key, its host and itself; None if no job can start. Call :meth:`release` when it ends.
        """
        while self._listed and self._running < self._max_running:
            number, host = heappop(self._listed)
            state = self._hosts[host]
            state.is_listed = False
            # If the first job was discarded since, the host is listed by the next one.
            taken = None
            if state.first == number:
                key, (_, job) = state.waiting.popitem(last=False)
                state.running += 1
                self._running += 1
                taken = key, host, job
            self._list(host, state)
            if taken is not None:
                return taken
        return None

    def release(self, host: str) -> None:
        """Free the slot of a job that has ended."""
        self._running -= 1
        state = self._hosts[host]
        state.running -= 1
        self._list(host, state)

    def _list(self, host: str, state: _Host) -> None:
        """List a host that can start a job, unless it is listed; forget one without jobs."""
        if state.is_listed:
            return
        first = state.first
        if first is not None and state.running < self._max_per_host:
            state.is_listed = True
            heappush(self._listed, (first, host))
        elif first is None and not state.running:
            del self._hosts[host]


class DeliveryQueue:
    """
    Runs jobs, each with a lane, a key (the id of its subscription) and a host.

    A job holds its slot until its Deferred fires: it includes the durable begin of the attempt, and the saving of the
    outcome.

    :param clock: for the drain time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[str, tuple[Lane, str]] = {}
        self._running: dict[str, Deferred[None]] = {}
        self._pumping: set[Lane] = set()
        self._is_stopped = False
        self._drained: list[Deferred[None]] = []

    @property
    def waiting(self) -> int:
        """The number of jobs that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The number of jobs that run."""
        return len(self._running)

    def put(self, lane: Lane, key: str, host: str, job: Job) -> bool:
        """
        Queue a job, or start it.

        :param job: called when there is a free slot; its Deferred must fire in bounded time.
        :returns: False if a job with this key waits or runs, or the queue is stopped: nothing is queued then.
        """
        if self._is_stopped or key in self._waiting or key in self._running:
            return False
        self._waiting[key] = lane, host
        lane.add(key, host, job)
        self._pump(lane)
        return True

    def discard(self, key: str) -> bool:
        """Remove a job that waits. Return whether there was one; a job that runs is not interrupted."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return False
        lane, host = waiting
        lane.discard(key, host)
        return True

    def stop(self, drain_seconds: float) -> Deferred[None]:
        """
        Drop the jobs that wait, and take no more. Those that run are cancelled after the drain time.

        :returns: fires when none runs.
        """
        self._is_stopped = True
        for key in list(self._waiting):
            self.discard(key)
        stopped: Deferred[None] = Deferred()
        if not self._running:
            stopped.callback(None)
            return stopped
        self._drained.append(stopped)
        cut = self._clock.callLater(drain_seconds, self._cut)
        stopped.addCallback(lambda _: cut.cancel() if cut.active() else None)
        return stopped

    def _cut(self) -> None:
        for running in list(self._running.values()):
            running.cancel()

    def _pump(self, lane: Lane) -> None:
        """Start jobs of a lane while there are free slots. A job that is done at once does not recurse."""
        if lane in self._pumping:
            return
        self._pumping.add(lane)
        try:
            while (taken := lane.take()) is not None:
                key, host, job = taken
                del self._waiting[key]
                running = self._running[key] = maybeDeferred(job)
                running.addErrback(self._failed, key)
                running.addCallback(self._finish, lane, host, key)
        finally:
            self._pumping.discard(lane)

    def _failed(self, failure: Failure, key: str) -> None:
        """Log the error of a job, which handles all others itself."""
        if not failure.check(CancelledError):
            _log.failure("The delivery for subscription {key} failed with an internal error.", failure, key=key)

    def _finish(self, _: None, lane: Lane, host: str, key: str) -> None:
        del self._running[key]
        lane.release(host)
        self._pump(lane)
        if not self._running:
            drained, self._drained = self._drained, []
            for stopped in drained:
                stopped.callback(None)
