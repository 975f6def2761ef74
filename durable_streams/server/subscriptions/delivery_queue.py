"""The queue of deliveries: so many at once, fewer to one host, in the order in which they became due."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

MAX_DELIVERIES: Final = 16
MAX_PER_HOST: Final = 4

_log = Logger()

Job = Callable[[], "Deferred[None]"]


class _Host:
    """
    The jobs of one host.

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


class DeliveryQueue:
    """
    Runs jobs, each with a key (the id of its subscription) and a host.

    A job holds its slot until its Deferred fires: it includes the durable begin of the attempt, and the saving of the
    outcome. At most ``max_per_host`` jobs of one host run at once: a receiver that hangs leaves slots to others.
    Of the jobs whose host has a free slot, the one that came first starts first. A step costs by the logarithm of the
    number of hosts.

    :param clock: for the drain time.
    """

    def __init__(
        self, clock: IReactorTime, max_running: int = MAX_DELIVERIES, max_per_host: int = MAX_PER_HOST
    ) -> None:
        self._clock = clock
        self._max_running = max_running
        self._max_per_host = max_per_host
        self._sequence = 0
        self._hosts: dict[str, _Host] = {}
        self._listed: list[tuple[int, str]] = []
        self._waiting: dict[str, str] = {}
        self._running: dict[str, Deferred[None]] = {}
        self._is_pumping = False
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

    def put(self, key: str, host: str, job: Job) -> bool:
        """
        Queue a job, or start it.

        :param job: called when there is a free slot; its Deferred must fire in bounded time.
        :returns: False if a job with this key waits or runs, or the queue is stopped: nothing is queued then.
        """
        if self._is_stopped or key in self._waiting or key in self._running:
            return False
        self._sequence += 1
        self._waiting[key] = host
        state = self._hosts.get(host)
        if state is None:
            state = self._hosts[host] = _Host()
        state.waiting[key] = (self._sequence, job)
        self._list(host, state)
        self._pump()
        return True

    def discard(self, key: str) -> bool:
        """Remove a job that waits. Return whether there was one; a job that runs is not interrupted."""
        host = self._waiting.pop(key, None)
        if host is None:
            return False
        state = self._hosts[host]
        del state.waiting[key]
        self._list(host, state)
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

    def _pump(self) -> None:
        """Start jobs while there are free slots. A job that is done at once does not recurse."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while self._listed and len(self._running) < self._max_running:
                number, host = heappop(self._listed)
                state = self._hosts[host]
                if state.first == number:
                    key, (_, job) = state.waiting.popitem(last=False)
                    del self._waiting[key]
                    self._start(host, state, key, job)
                # The first job may have been discarded since: then the host is listed by the next one.
                state.is_listed = False
                self._list(host, state)
        finally:
            self._is_pumping = False

    def _start(self, host: str, state: _Host, key: str, job: Job) -> None:
        state.running += 1
        running = self._running[key] = maybeDeferred(job)
        running.addErrback(self._failed, key)
        running.addCallback(self._finish, host, state, key)

    def _failed(self, failure: Failure, key: str) -> None:
        """Log the error of a job, which handles all others itself."""
        if not failure.check(CancelledError):
            _log.failure("The delivery for subscription {key} failed with an internal error.", failure, key=key)

    def _finish(self, _: None, host: str, state: _Host, key: str) -> None:
        del self._running[key]
        state.running -= 1
        self._list(host, state)
        self._pump()
        if not self._running:
            drained, self._drained = self._drained, []
            for stopped in drained:
                stopped.callback(None)
