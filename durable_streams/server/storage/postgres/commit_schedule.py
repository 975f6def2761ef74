"""The schedule of a connection that commits: one statement at a time, each with all that was queued before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of

T = TypeVar("T")

_log = Logger()


class CommitSchedule:
    """
    Begins commits, and lets no two of them run at the same time.

    :param begin: begins a commit, and calls :meth:`follow` with it; or does nothing if nothing is queued.
    :param queued: the name of what is queued, for log lines.
    """

    __slots__ = ("_begin", "_busy", "_clock", "_queued", "_scheduled")

    def __init__(self, clock: IReactorTime, begin: Callable[[], None], queued: str) -> None:
        self._clock = clock_of(clock)
        self._begin = begin
        self._queued = queued
        self._busy = False
        self._scheduled = False

    def request(self) -> None:
        """Begin a commit of all that is queued in this turn of the reactor, unless one runs."""
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._run)

    def _run(self) -> None:
        self._scheduled = False
        # What begins a commit may have queued more before it called follow().
        if not self._busy:
            self._begin()

    def follow(
        self, sent: Deferred[T], succeeded: Callable[[T, float], object], failed: Callable[[Failure], object]
    ) -> None:
        """
        Request the next commit when a commit has ended, and use its outcome.

        :param succeeded: is called with the result, and how long the commit took, in seconds.
        """
        self._busy = True
        began_at = self._clock.seconds()

        def ended(result: Any) -> Any:
            self._busy = False
            self.request()
            return result

        sent.addBoth(ended).addCallbacks(
            lambda result: succeeded(result, self._clock.seconds() - began_at), failed
        ).addErrback(lambda failure: _log.failure("Answering {queued} failed.", failure=failure, queued=self._queued))
