"""The connection that writes: each commit has a certain outcome, also if the connection is lost meanwhile.

A commit is uncertain if its connection was lost, or if its server gave up waiting for a standby. Looking whether its
rows are there is not enough: the statement may still run, or arrive even later. So each statement that writes also
updates a row of its connection, under the condition that the row has the epoch of the statement. An uncertain commit is
decided by raising the epoch: that update waits for a statement that is running, makes one that arrives later write
nothing, and returns the number of the last batch that was written. It is a commit itself, which waits for the standbys
as configured, so everything before it is then as durable as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias
from uuid import uuid4

from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import Unavailable
from .commit_results import CommitOutcomes, CommitResult, LandedResult, NothingWritten
from .connection import Connection
from .packing import INT8, UUID, int8, to_int
from .queries import LOCK_TIMEOUT, READ_ONLY, ConnectionLost, Query, QueryFailed, Statement, value_of
from .reconnecting import Reconnector

#: The pause before a fence is tried again on the same connection, in seconds.
_PAUSE: Final = 0.2

#: How often a commit is begun. A statement that ends its own session is not sent to one session after the other.
_MAX_ATTEMPTS: Final = 2

#: The class of SQLSTATEs without a warning.
_SUCCESS: Final = "00"

_UNKNOWN: Final = "The database did not confirm a write, which may have been made. Retry later."

_FENCE: Final = """
UPDATE {schema}.nodes AS n SET epoch = greatest(n.epoch, $2) + 1 WHERE n.id = $1
RETURNING n.epoch, n.batch, {schema}.clock(), n.written
"""

_REGISTER: Final = """
INSERT INTO {schema}.nodes (id, epoch, batch, seen) VALUES ($1, $2, 0, {schema}.clock()) ON CONFLICT DO NOTHING
"""

_BEGIN: Final = Statement("begin", "BEGIN")
_COMMIT: Final = Statement("commit_transaction", "COMMIT")
_ROLLBACK: Final = Statement("rollback", "ROLLBACK")

_log = Logger()


#: The statements of a transaction, given the id of the node's row, its epoch, and the number of the batch.
Work: TypeAlias = Callable[[Query, Sequence[bytes]], Awaitable[PGresult | None]]


class _Commit:
    """
    A commit without an outcome.

    :ivar batch: the number with which it was sent last; 0 if it is certain that it was not written.
    :ivar attempts: how often it was begun.
    :ivar result: that of the server, if it warned that it may not be durable.
    """

    __slots__ = ("attempts", "batch", "done", "result", "start", "timer")

    def __init__(self, start: Callable[[Connection, _Commit, int, Sequence[bytes]], Deferred[Any]]) -> None:
        self.start = start
        self.batch = 0
        self.result: PGresult | None = None
        self.attempts = 0
        self.done: Deferred[Any] = Deferred()
        self.timer: IDelayedCall | None = None

    def cancel_timer(self) -> None:
        """Cancel the deadline of its outcome."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class WriterConnection:
    """
    A connection for statements that write, one at a time, with a row of its own in ``nodes``.

    The first three parameters of such a statement are the row's id, its epoch, and the number of the batch. It locks
    the row ``WHERE id = $1 AND epoch = $2 FOR NO KEY UPDATE``, and writes nothing without it; it sets ``batch = $3``
    and ``written``, and returns a row, whose first columns are the database's time and ``written``. It returns no row
    if the epoch is over. It must be right to send it again after it has written nothing.

    :ivar node: the id of the row, for which there is one connection only.
    :ivar outcomes: of uncertain commits.

    :param connect: opens a connection, whose deadline is that of a commit.
    :param schema: the name of the schema, which needs no quotes.
    :param wait: how long a commit waits for a connection, and an uncertain one for its outcome, in seconds.
    """

    def __init__(
        self, connect: Callable[[], Deferred[Connection]], schema: str, clock: IReactorTime, wait: float
    ) -> None:
        self.node = uuid4()
        self.outcomes = CommitOutcomes()
        self._clock = clock_of(clock)
        self._wait = wait
        self._fence = Statement("fence", _FENCE.format(schema=schema), (UUID, INT8))
        self._register = Statement("register", _REGISTER.format(schema=schema), (UUID, INT8))
        self._reconnector = Reconnector(connect, clock, self._opened, self._lost)
        self._epoch = 0
        self._batch = 0
        self._commit: _Commit | None = None
        self._problem: str | None = None
        # Whether the row has the epoch, and no statement of an earlier one can write any more.
        self._is_ready = False
        self._has_warned = False
        self._timer: IDelayedCall | None = None
        self._is_stopped = True

    @property
    def reconnectors(self) -> list[Reconnector]:
        """The reconnector that opens the connection."""
        return [self._reconnector]

    def start(self) -> None:
        """Open the connection, and keep it open."""
        self._is_stopped = False
        self._reconnector.start()

    def stop(self) -> None:
        """Close the connection. A commit without an outcome fails with :class:`.errors.Unavailable`."""
        self._is_stopped = True
        self._is_ready = False
        self._cancel_timer()
        commit = self._commit
        # A lost connection must not be waited for.
        self._commit = None
        self._reconnector.stop()
        if commit is not None:
            self._fail(commit, "The storage is closed. Retry later." if commit.batch == 0 else _UNKNOWN)

    def obstacle(self) -> str | None:
        """Return why nothing can be written, as a sentence for operators, or None."""
        if self._is_ready:
            return None
        return self._reconnector.problem or self._problem or "The connection that writes is being prepared."

    def commit(self, statement: Statement, params: Sequence[bytes | None]) -> Deferred[CommitResult]:
        """
        Execute a statement, when the one before has its outcome.

        :param params: all but the first three, each in its type's binary form.
        :returns: the result, once it is durable. It fails with :class:`NothingWritten` or
            :class:`.queries.QueryFailed` if nothing was written, and with :class:`.errors.Unavailable` if that is
            not known: the statement is then decided before the next one is sent. Cancelling it does not stop it.
        """

        def start(connection: Connection, commit: _Commit, batch: int, node: Sequence[bytes]) -> Deferred[PGresult]:
            commit.batch = batch
            return connection.execute(statement, [*node, *params])

        return self._add(_Commit(start))

    def transact(self, work: Work) -> Deferred[CommitResult | None]:
        """
        Execute several statements in one transaction, when the commit before has its outcome.

        :param work: executes the statements, and waits for nothing else. The first one must lock the node's row, and
            the last one updates it, as the statement of :meth:`commit` does. It returns the result of the last one;
            None if nothing is to be written, and then this returns None, too. It may be called again after nothing was
            written.
        :returns: as :meth:`commit` does. It also fails with what ``work`` raises; then nothing was written.
        """

        def start(
            connection: Connection, commit: _Commit, batch: int, node: Sequence[bytes]
        ) -> Deferred[PGresult | None]:
            return Deferred.fromCoroutine(_transaction(connection, commit, batch, work, node))

        return self._add(_Commit(start))

    def _add(self, commit: _Commit) -> Deferred[Any]:
        assert self._commit is None, "the statement before has no outcome"
        self._commit = commit
        if self._is_stopped:
            self._commit = None
            self._fail(commit, "The storage is closed. Retry later.")
        elif self._is_ready:
            self._send(commit)
        else:
            self._limit(commit)
        return commit.done

    # Commits

    def _send(self, commit: _Commit) -> None:
        connection = self._reconnector.connection
        assert connection is not None
        self._batch += 1
        self._has_warned = False
        commit.attempts += 1
        node = (self.node.bytes, int8(self._epoch), int8(self._batch))
        commit.start(connection, commit, self._batch, node).addCallbacks(
            self._committed, self._commit_failed, (connection, commit), {}, (commit,)
        )

    def _committed(self, result: PGresult | None, connection: Connection, commit: _Commit) -> None:
        if commit is not self._commit:
            return
        if result is None:
            self._finish(commit)
            commit.done.callback(None)
        elif self._has_warned:
            # Committed, but the server has given up waiting for a standby.
            commit.result = result
            self._raise_epoch(connection)
            self._limit(commit)
        elif result.ntuples == 0:
            # Somebody has removed the row, or raised its epoch.
            self._repeat_later(commit, connection)
        else:
            self._finish(commit)
            commit.done.callback(result)

    def _repeat_later(self, commit: _Commit, connection: Connection) -> None:
        """Send a statement again in another epoch, after it has written nothing."""
        commit.batch = 0
        self._limit(commit)
        self._raise_epoch(connection)

    def _commit_failed(self, failure: Failure, commit: _Commit) -> None:
        if commit is not self._commit:
            return
        error = failure.value
        if isinstance(error, ConnectionLost):
            if not error.sent:
                commit.batch = 0
            self._is_ready = False
            self._limit(commit)
            return
        self._finish(commit)
        if isinstance(error, QueryFailed) and error.sqlstate == READ_ONLY:
            self._abandon("The database has become a standby.")
        commit.done.errback(failure)

    def _finish(self, commit: _Commit) -> None:
        """Remove the commit in progress, which has its outcome."""
        self._commit = None
        commit.cancel_timer()

    def _limit(self, commit: _Commit) -> None:
        """Fail a commit if it has no outcome in time."""
        if commit.timer is None:
            commit.timer = self._clock.callLater(self._wait, self._expire, commit)

    def _expire(self, commit: _Commit) -> None:
        commit.timer = None
        # The next connection, or the fence that is under way, decides what the row says; nobody asks any more.
        self._commit = None
        if commit.batch:
            _log.warn("A commit has no certain outcome: {reason}", reason=self.obstacle())
        self._fail(commit, _UNKNOWN if commit.batch else "The database cannot be reached. Retry later.")

    def _fail(self, commit: _Commit, reason: str) -> None:
        commit.cancel_timer()
        if commit.batch:
            self.outcomes.unknown += 1
        commit.done.errback(Unavailable(reason) if commit.batch else NothingWritten(reason))

    # Fences

    def _opened(self, connection: Connection) -> None:
        connection.noticed = self._noticed
        self._raise_epoch(connection)

    def _lost(self, reason: str) -> None:
        self._is_ready = False
        self._problem = reason
        self._cancel_timer()

    def _noticed(self, sqlstate: str, text: str) -> None:
        # Statements that write give no warning but the one about standbys, whose text depends on the server's language.
        if not sqlstate.startswith(_SUCCESS):
            self._has_warned = True
            _log.warn("The database warns: {text} ({sqlstate})", text=text, sqlstate=sqlstate)

    def _raise_epoch(self, connection: Connection) -> None:
        """End the epoch of all statements that were sent, and find out which was the last that was written."""
        self._timer = None
        self._is_ready = False
        self._has_warned = False
        connection.execute(self._fence, [self.node.bytes, int8(self._epoch)]).addCallbacks(
            self._fenced, self._fence_failed, (connection,), {}, (connection,)
        )

    def _fenced(self, result: PGresult, connection: Connection) -> None:
        if result.ntuples == 0:
            self._lose_row(connection)
            return
        self._epoch = to_int(value_of(result, 0, 0))
        if self._has_warned:
            self._try_again(connection, "The database does not wait for its standbys.")
            return
        self._is_ready = True
        self._problem = None
        commit = self._commit
        if commit is not None:
            landed = LandedResult(value_of(result, 0, 2), result.get_value(0, 3))
            self._decide(commit, to_int(value_of(result, 0, 1)), landed)

    def _decide(self, commit: _Commit, last: int, landed: LandedResult) -> None:
        """Give a commit its outcome, or send it, when no statement of an earlier epoch can write any more."""
        if commit.batch and commit.batch == last:
            self.outcomes.landed += 1
            self._finish(commit)
            commit.done.callback(landed if commit.result is None else commit.result)
        elif commit.attempts >= _MAX_ATTEMPTS:
            self.outcomes.refused += 1
            commit.batch = 0
            self._finish(commit)
            self._fail(commit, "The database has interrupted a write twice. Retry later.")
        else:
            commit.cancel_timer()
            if commit.attempts:
                self.outcomes.repeated += 1
            commit.result = None
            self._send(commit)

    def _lose_row(self, connection: Connection) -> None:
        """Add the row. If it was there before, an uncertain commit stays so."""
        commit = self._commit
        if commit is not None and commit.batch:
            _log.error("The row of this connection was removed during a commit, which has no certain outcome.")
            self._finish(commit)
            self._fail(commit, _UNKNOWN)
        if self._epoch:
            # Another id, so that no statement of the old one can write.
            self.node = uuid4()
        connection.execute(self._register, [self.node.bytes, int8(self._epoch)]).addCallbacks(
            lambda _: self._raise_epoch(connection), self._fence_failed, (), {}, (connection,)
        )

    def _fence_failed(self, failure: Failure, connection: Connection) -> None:
        error = failure.value
        if isinstance(error, ConnectionLost):
            return
        if isinstance(error, QueryFailed) and error.sqlstate == READ_ONLY:
            self._abandon("The database has become a standby.")
            return
        if isinstance(error, QueryFailed) and error.sqlstate == LOCK_TIMEOUT:
            # A commit that has not ended holds the row of this connection.
            self._try_again(
                connection,
                "An earlier commit of this server has not ended yet. If it waits for a synchronous standby that is "
                "gone, so that pg_stat_replication has no row of it, start it or change synchronous_standby_names.",
            )
            return
        self._try_again(connection, f"The database refuses to prepare writes: {failure.getErrorMessage()}.")

    def _try_again(self, connection: Connection, problem: str) -> None:
        """Raise the epoch again after a while, for example if a statement that was abandoned still holds the row."""
        if problem != self._problem:
            _log.warn("{problem} It is tried again.", problem=problem)
        self._problem = problem
        if connection.is_open:
            self._timer = self._clock.callLater(_PAUSE, self._raise_epoch, connection)

    def _abandon(self, reason: str) -> None:
        connection = self._reconnector.connection
        if connection is not None:
            connection.abandon(reason)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


async def _transaction(
    connection: Connection, commit: _Commit, batch: int, work: Work, node: Sequence[bytes]
) -> PGresult | None:
    """Execute a transaction; until COMMIT is sent, it is certain that nothing is written."""
    await connection.execute(_BEGIN)
    try:
        result = await work(connection.execute, node)
    except BaseException:
        if connection.is_open:
            await connection.execute(_ROLLBACK)
        raise
    if result is None or result.ntuples == 0:
        await connection.execute(_ROLLBACK)
        return result
    commit.batch = batch
    await connection.execute(_COMMIT)
    return result
