"""Background tasks that are repeated, each run an interval after the end of the one before."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of

_log = Logger()


class RepeatedTask:
    """
    A coroutine that is run again and again. An error in it is logged, and it is run again all the same.

    :param run: creates the coroutine.
    :param interval: the time from the end of a run to the next one, in seconds.
    :param failed: what is logged with an error, as a sentence.
    :ivar stopped: whether no further run begins.
    """

    def __init__(
        self, run: Callable[[], Coroutine[Deferred[Any], Any, None]], interval: float, failed: str, clock: IReactorTime
    ) -> None:
        self._run = run
        self._interval = interval
        self._failed = failed
        self._clock = clock_of(clock)
        self._timer: IDelayedCall | None = None
        self._running: Deferred[None] | None = None
        self._again = False
        self.stopped = False

    def start(self) -> None:
        """Run now, and repeatedly from now on."""
        self._timer = None
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._log_failure).addCallback(self._ended)

    def run_soon(self) -> None:
        """Run now, or at once after the run that goes on. Before the start and after the stop, do nothing."""
        if self._running is not None:
            self._again = True
        elif self._timer is not None:
            self._timer.cancel()
            self.start()

    def cancel(self) -> None:
        """Begin no further run."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def stop(self) -> None:
        """Begin no further run, and wait for the end of the one that goes on."""
        self.cancel()
        await self.wait()

    async def wait(self) -> None:
        """Wait for the end of the run that goes on, if there is one."""
        if self._running is not None:
            await self._running

    def _log_failure(self, failure: Failure) -> None:
        _log.failure(self._failed, failure=failure)

    def _ended(self, _: None) -> None:
        self._running = None
        if not self.stopped:
            self._timer = self._clock.callLater(0 if self._again else self._interval, self.start)
        self._again = False
