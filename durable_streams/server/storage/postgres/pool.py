"""Connections for reading, which all requests share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import Unavailable
from .connection import Connection
from .queries import READ_ONLY, ConnectionLost, QueryFailed, Statement
from .reconnecting import Reconnector
from .refusals import Refusals

#: How many statements may wait for a connection.
MAX_WAITING: Final = 10_000

#: How many of them are refused in one turn of the reactor, if they have waited too long.
_REFUSED_AT_ONCE: Final = 64

#: A statement that is refused with one of these was sent to a server that does not serve any more: one that has become
#: a standby, shuts down, or starts.
_WRONG_SERVER: Final = frozenset({READ_ONLY, "57P01", "57P02", "57P03"})


class _Query:
    """A statement that waits for a connection or its result; ``since`` is when it came."""

    __slots__ = ("done", "is_repeated", "params", "since", "statement")

    def __init__(self, statement: Statement, params: Sequence[bytes | None], since: float) -> None:
        self.statement = statement
        self.params = params
        self.since = since
        self.is_repeated = False
        self.done: Deferred[PGresult] = Deferred()


class Pool:
    """
    A fixed number of connections, each of which executes one statement at a time.

    :ivar waiting_limit: how many statements may wait for a connection.
    :ivar refusals: logs why statements are refused.

    :param connect: opens a connection.
    :param size: the number of connections.
    :param wait: how long a statement waits for a connection, in seconds.
    """

    def __init__(
        self, connect: Callable[[], Deferred[Connection]], size: int, clock: IReactorTime, wait: float
    ) -> None:
        self.waiting_limit = MAX_WAITING
        self._clock = clock_of(clock)
        self._wait = wait
        self.refusals = Refusals(clock)
        self._is_started = False
        self._idle: list[Connection] = []
        self._waiting: deque[_Query] = deque()
        self._timer: IDelayedCall | None = None
        self._members = [Reconnector(connect, clock, self._use, self._forget) for _ in range(size)]

    @property
    def reconnectors(self) -> list[Reconnector]:
        """The reconnectors that open the connections."""
        return self._members

    def start(self) -> None:
        """Open the connections."""
        self._is_started = True
        for member in self._members:
            member.start()

    def stop(self) -> None:
        """Close the connections. Statements without a result fail with :class:`.errors.Unavailable`."""
        self._is_started = False
        for member in self._members:
            member.stop()
        self._idle.clear()
        while self._waiting:
            self._again(self._waiting.popleft())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shorten_wait(self, wait: float) -> None:
        """
        Let statements wait no longer than this for a connection from now on, such as before a stop.

        :param wait: in seconds.
        """
        self._wait = min(self._wait, wait)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._set_timer()

    def obstacle(self) -> str | None:
        """Return why no statement can be executed, as a sentence for operators, or None."""
        problems = [member.problem for member in self._members]
        return self.refusals.obstacle() if None in problems else problems[0]

    def execute(self, statement: Statement, params: Sequence[bytes | None] = ()) -> Deferred[PGresult]:
        """
        Execute a statement that may be executed twice, such as one that reads, on whichever connection is idle first.

        If the connection is lost, the statement is executed once more on another.

        :param params: each in its type's binary form; None is NULL.
        :returns: fails with :class:`.errors.Unavailable` if the database can't be reached, is overloaded or lacks the
            tables, and with :class:`.queries.QueryFailed` if the statement is wrong. Cancelling it does not stop the
            statement.
        """
        query = _Query(statement, params, self._clock.seconds())
        if not self._is_started or self._idle:
            self._again(query)
        elif len(self._waiting) >= self.waiting_limit:
            query.done.errback(Unavailable("Too many reads wait for the database. Retry later."))
        else:
            self._waiting.append(query)
            self._set_timer()
        return query.done

    def _use(self, connection: Connection) -> None:
        """Execute the next statement on a connection that is idle."""
        if not connection.is_open:
            return
        if self._waiting:
            self._run(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _forget(self, _: str) -> None:
        """Remove connections that were lost from the idle ones."""
        self._idle = [connection for connection in self._idle if connection.is_open]

    def _run(self, connection: Connection, query: _Query) -> None:
        connection.execute(query.statement, query.params).addCallbacks(
            self._succeeded, self._failed, (connection, query), {}, (connection, query)
        )

    def _succeeded(self, result: PGresult, connection: Connection, query: _Query) -> None:
        self._use(connection)
        query.done.callback(result)

    def _failed(self, failure: Failure, connection: Connection, query: _Query) -> None:
        error = failure.value
        if isinstance(error, QueryFailed) and error.sqlstate in _WRONG_SERVER:
            connection.abandon(f"The database does not serve: {error}.")
        else:
            self._use(connection)
        if isinstance(error, ConnectionLost) or not connection.is_open:
            if query.is_repeated:
                query.done.errback(Unavailable("The connection to the database was lost twice. Retry later."))
            else:
                query.is_repeated = True
                self._again(query)
        else:
            refusal = self.refusals.note(error) if isinstance(error, QueryFailed) else None
            query.done.errback(failure if refusal is None else refusal)

    def _again(self, query: _Query) -> None:
        """Execute a statement on another connection, before all that came after it."""
        if not self._is_started:
            query.done.errback(Unavailable("The storage is closed. Retry later."))
        elif self._idle:
            self._run(self._idle.pop(), query)
        else:
            self._waiting.appendleft(query)
            self._set_timer()

    # Waiting

    def _set_timer(self) -> None:
        if self._timer is None and self._waiting:
            left = self._waiting[0].since + self._wait - self._clock.seconds()
            self._timer = self._clock.callLater(max(0.0, left), self._check_waiting)

    def _check_waiting(self) -> None:
        """Refuse the statements that have waited too long."""
        self._timer = None
        limit = self._clock.seconds() - self._wait
        reason = "The database cannot be reached." if self.obstacle() else "All connections to the database are busy."
        for _ in range(_REFUSED_AT_ONCE):
            if not self._waiting or self._waiting[0].since > limit:
                break
            self._waiting.popleft().done.errback(Unavailable(f"{reason} Retry later."))
        self._set_timer()
