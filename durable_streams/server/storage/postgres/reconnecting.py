"""A connection that is opened again whenever it is lost, with growing pauses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from .connection import Connection

#: The pause before the first new attempt, and the longest one, in seconds. Each is twice the one before, less up to a
#: half at random, so that the nodes do not come back all at once.
FIRST_PAUSE: Final = 0.1
MAX_PAUSE: Final = 5.0

#: How many reasons of one outage are remembered.
_MAX_REASONS: Final = 100

_log = Logger()


class Outage:
    """
    Logs that connections were lost and are open again: once for all that share it, and each reason once.
    """

    def __init__(self) -> None:
        self._lost: set[Reconnector] = set()
        self._reasons: set[str] = set()

    def begin(self, reconnector: Reconnector, problem: str) -> None:
        """Log why a connection is not open, unless that was logged since all were."""
        self._lost.add(reconnector)
        if problem in self._reasons:
            return
        if len(self._reasons) >= _MAX_REASONS:
            self._reasons.clear()
        self._reasons.add(problem)
        _log.warn("{problem} It is tried again.", problem=problem)

    def end(self, reconnector: Reconnector) -> None:
        """Note that a connection is open, and log when all are."""
        self._lost.discard(reconnector)
        if not self._lost and self._reasons:
            self._reasons.clear()
            _log.info("The connections to the database are open again.")


class Reconnector:
    """
    A connection that is kept open from :meth:`start` to :meth:`stop`.

    :ivar connection: the open connection, or None.
    :ivar outage: logs; several connections may share it.
    :ivar problem: why there is none, as a sentence for operators; None if there is one.

    :param connect: opens a connection.
    :param opened: called with each new connection.
    :param lost: called after the connection was lost, with the reason.
    """

    def __init__(
        self,
        connect: Callable[[], Deferred[Connection]],
        clock: IReactorTime,
        opened: Callable[[Connection], None],
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.connection: Connection | None = None
        self.problem: str | None = "The storage is not connected to its database yet."
        self._connect = connect
        self._clock = clock_of(clock)
        self._opened = opened
        self._lost = lost
        self.outage = Outage()
        self._failures = 0
        self._attempt: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._is_started = False

    def start(self) -> None:
        """Open the connection, and keep it open."""
        if not self._is_started:
            self._is_started = True
            self._try()

    def stop(self) -> None:
        """Close the connection, and open it no more."""
        self._is_started = False
        self.problem = "The storage is closed."
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def _try(self) -> None:
        self._timer = None
        attempt = self._connect().addCallback(self._succeeded)
        if not attempt.called:
            self._attempt = attempt
        attempt.addErrback(self._failed)

    def _succeeded(self, connection: Connection) -> None:
        self._attempt = None
        if not self._is_started:
            connection.close()
            return
        self._failures = 0
        self.outage.end(self)
        self.connection = connection
        self.problem = None
        connection.lost = self._connection_lost
        self._opened(connection)

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if failure.check(CancelledError) and not self._is_started:
            return
        self._pause(f"The database cannot be reached: {failure.getErrorMessage()}")

    def _connection_lost(self, reason: str) -> None:
        self.connection = None
        self._pause(reason)
        self._lost(reason)

    def _pause(self, problem: str) -> None:
        """Try again after a while."""
        if not self._is_started:
            return
        self.outage.begin(self, problem)
        self.problem = problem
        pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._timer = self._clock.callLater(pause * random.uniform(0.5, 1), self._try)


def share_outage(reconnectors: Iterable[Reconnector]) -> None:
    """Log the loss of the same database once for all of these connections."""
    outage = Outage()
    for reconnector in reconnectors:
        reconnector.outage = outage
