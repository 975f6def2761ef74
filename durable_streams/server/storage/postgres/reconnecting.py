"""A connection that is opened again whenever it is lost, with growing pauses."""

from __future__ import annotations

import random
from collections.abc import Callable
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

_log = Logger()


class Reconnector:
    """
    One connection, as long as it is started.

    :ivar connection: the open connection, or None.
    :ivar problem: why there is none, as a sentence for operators; None if there is one.

    :param connect: opens a connection.
    :param opened: called with each new connection.
    :param lost: called after the connection was lost, with the reason.
    :param name: of the connection, for the log.
    """

    def __init__(
        self,
        connect: Callable[[], Deferred[Connection]],
        clock: IReactorTime,
        opened: Callable[[Connection], None],
        lost: Callable[[str], None] = lambda _: None,
        name: str = "database",
    ) -> None:
        self.connection: Connection | None = None
        self.problem: str | None = "The storage is not connected to its database yet."
        self._connect = connect
        self._clock = clock_of(clock)
        self._opened = opened
        self._lost = lost
        self._name = name
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
        if self._failures:
            _log.info("The connection to the database ({name}) is open again.", name=self._name)
        self._failures = 0
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
        if problem != self.problem:
            _log.warn("{problem} It is tried again ({name}).", problem=problem, name=self._name)
        self.problem = problem
        pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._timer = self._clock.callLater(pause * random.uniform(0.5, 1), self._try)
