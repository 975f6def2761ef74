"""A connection to PostgreSQL that the reactor drives by libpq's asynchronous calls.

Beside a busy reactor, a thread waits for the interpreter's lock after each answer: with 64 rows a commit, half a loaded
reactor and a thread, a commit takes 3.3 ms instead of 1.75 (p50). So only connecting uses a thread
(:mod:`.connecting`).
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ...clocks import clock_of
from .queries import ConnectionLost, QueryFailed, Statement, error_of, field_of, is_fatal, one_line

#: The prepared statement does not exist; and, among others, the tables changed so that it returns another row type.
_NOT_PREPARED: Final = "26000"
_NOT_SUPPORTED: Final = "0A000"
_CHANGED_ROW_TYPE: Final = "cached plan must not change result type"

#: How often input is read for each event of a TLS connection. Up to 16 KiB of a decrypted record may wait in OpenSSL,
#: for which there is no event of the socket, and libpq reads at least 8 KiB at a time.
_READS_WITH_TLS: Final = 3


class _Request:
    """A statement that waits for its turn or its result; ``sent`` once its execution was requested."""

    __slots__ = ("done", "params", "repeated", "sent", "statement")

    def __init__(self, statement: Statement, params: Sequence[bytes | None]) -> None:
        self.statement = statement
        self.params = params
        self.done: Deferred[PGresult] = Deferred()
        self.sent = False
        self.repeated = False


@implementer(IReadDescriptor, IWriteDescriptor)
class Connection:
    """
    An open connection in autocommit mode. Statements are executed one at a time, in the order of the calls.

    Each ends within a deadline, by which the connection is given up otherwise. Callers bound the number of queued
    statements. All methods are called in the reactor's thread.

    :ivar lost: called once, with the reason as a sentence, when the connection ends in any other way than by
        :meth:`close`; after the results of all statements. Set it before the reactor runs again.
    :ivar notified: called with the channel and the payload of each notification.
    :ivar noticed: called with the SQLSTATE and the text of each notice, before the result of its statement.

    :param driver: the open connection, which this one owns and closes.
    :param reactor: an ``IReactorFDSet`` and ``IReactorTime``.
    :param deadline: how long a statement may take from the time that it is sent, in seconds.
    """

    def __init__(self, driver: psycopg.Connection[Any], reactor: Any, deadline: float) -> None:
        self.lost: Callable[[str], None] = lambda _: None
        self.notified: Callable[[str, str], None] = lambda _channel, _payload: None
        self.noticed: Callable[[str, str], None] = lambda _sqlstate, _text: None
        self._driver: psycopg.Connection[Any] | None = driver
        self._pgconn: PGconn = driver.pgconn
        self._reactor = reactor
        self._clock = clock_of(reactor)
        self._deadline = deadline
        self._due = 0.0
        self._timer: IDelayedCall | None = None
        # Statement name -> the name under which it was prepared, and the formats of its parameters.
        self._prepared: dict[str, tuple[bytes, list[int]]] = {}
        self._preparations = 0
        self._queue: deque[_Request] = deque()
        self._current: _Request | None = None
        self._result: PGresult | None = None
        self._farewell = ""
        self._writing = False
        self._reads = _READS_WITH_TLS if self._pgconn.ssl_in_use else 1
        self._pgconn.nonblocking = 1
        self._pgconn.notice_handler = self._notice
        # libpq closes its socket as soon as it finds it broken. Its number could then belong to another socket before
        # the reactor has removed it, so the reactor watches a duplicate.
        self._socket = socket.socket(fileno=os.dup(self._pgconn.socket))
        reactor.addReader(self)

    # The API

    @property
    def is_open(self) -> bool:
        """Whether statements can be executed."""
        return self._driver is not None

    @property
    def pending(self) -> int:
        """The number of statements without a result."""
        return len(self._queue) + (self._current is not None)

    @property
    def server_version(self) -> int:
        """PostgreSQL's version, such as 150018 for 15.18."""
        return self._pgconn.server_version

    @property
    def backend_pid(self) -> int:
        """The id of the server's process for this connection."""
        return self._pgconn.backend_pid

    def execute(self, statement: Statement, params: Sequence[bytes | None] = ()) -> Deferred[PGresult]:
        """
        Execute a statement in a transaction of its own.

        :param params: each in its type's binary form; None is NULL.
        :returns: fires with the result, whose values are in binary form, or fails with :class:`QueryFailed` or
            :class:`ConnectionLost`. Cancelling it does not stop the statement.
        """
        request = _Request(statement, params)
        if self._driver is None:
            request.done.errback(ConnectionLost("The connection to the database is closed.", sent=False))
            return request.done
        self._queue.append(request)
        if self._current is None:
            self._start()
        return request.done

    def close(self) -> None:
        """Close the connection. Statements without a result fail with :class:`ConnectionLost`. May be repeated."""
        self._end("The connection to the database was closed.")

    def abandon(self, reason: str) -> None:
        """
        End the connection without sending anything more, as if it was lost.

        :param reason: a sentence, for ``lost`` and the statements' errors.
        """
        if self._driver is None:
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._lose(reason)

    # Sending

    def _start(self) -> None:
        """Send the next statement, or what is needed to prepare it."""
        if not self._queue:
            self._current = None
            return
        self._current = self._queue.popleft()
        self._set_deadline()
        self._send(self._current)

    def _send(self, request: _Request) -> None:
        statement = request.statement
        prepared = self._prepared.get(statement.name)
        try:
            if prepared is None:
                self._preparations += 1
                name = f"{statement.name}_{self._preparations}".encode()
                self._pgconn.send_prepare(name, statement.sql.encode(), statement.types)
            else:
                request.sent = True
                self._pgconn.send_query_prepared(prepared[0], request.params, prepared[1], pq.Format.BINARY)
            self._flush()
        except psycopg.Error as error:
            self._lose(self._sentence(str(error)))

    def _flush(self) -> None:
        """
        Send what libpq has buffered, and wait for the socket to be writable if it does not take all.

        :raises psycopg.OperationalError: the connection is lost.
        """
        is_left = self._pgconn.flush() == 1
        if is_left != self._writing:
            self._writing = is_left
            (self._reactor.addWriter if is_left else self._reactor.removeWriter)(self)

    # Receiving

    def _receive(self) -> None:
        """Read from the socket, and pass on what came."""
        failure = None
        try:
            for _ in range(self._reads):
                self._pgconn.consume_input()
        except psycopg.OperationalError as error:
            # A whole result may have come before the end.
            failure = str(error)
        while self._current is not None and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is not None:
                self._result = result
                continue
            self._finish(self._current, self._result)
        while self._driver is not None and (notification := self._pgconn.notifies()) is not None:
            self.notified(notification.relname.decode(), notification.extra.decode())
        if failure is not None and self._driver is not None:
            self._lose(self._sentence(failure))

    def _finish(self, request: _Request, result: PGresult | None) -> None:
        """Use the result of what was sent last."""
        self._result = None
        if result is None or result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
            self._fail(request, result)
        elif not request.sent:
            statement = request.statement
            name = f"{statement.name}_{self._preparations}".encode()
            self._prepared[statement.name] = (name, [pq.Format.BINARY] * len(statement.types))
            self._send(request)
        else:
            # The server works on the next statement while this result is used.
            self._start()
            request.done.callback(result)

    def _fail(self, request: _Request, result: PGresult | None) -> None:
        failure, is_fatal = error_of(result)
        if failure is None or is_fatal or self._pgconn.status == pq.ConnStatus.BAD:
            self._lose(self._sentence(self._pgconn.get_error_message() if failure is None else str(failure)))
        elif not request.repeated and request.sent and _is_about_preparation(failure):
            # The statement was not executed: a pooler or DISCARD has dropped it, or the tables have changed.
            request.repeated = True
            request.sent = False
            del self._prepared[request.statement.name]
            self._send(request)
        else:
            self._start()
            request.done.errback(failure)

    def _notice(self, result: PGresult) -> None:
        text = field_of(result, pq.DiagnosticField.MESSAGE_PRIMARY)
        if is_fatal(result):
            self._farewell = text
        self.noticed(field_of(result, pq.DiagnosticField.SQLSTATE), text)

    def _sentence(self, text: str) -> str:
        """Return an error of libpq as a sentence; or the server's own, which idle connections receive as a notice."""
        return f"The connection to the database was lost: {one_line(self._farewell or text)}"

    # The deadline

    def _set_deadline(self) -> None:
        self._due = self._clock.seconds() + self._deadline
        if self._timer is None:
            self._timer = self._clock.callLater(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._current is None:
            return
        left = self._due - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._check_deadline)
            return
        self.abandon(f"The database did not answer within {self._deadline:g} s.")

    # The end

    def _lose(self, reason: str) -> None:
        if self._end(reason):
            self.lost(reason)

    def _end(self, reason: str) -> bool:
        """Release everything and fail all statements; return False if that was done before."""
        driver, self._driver = self._driver, None
        if driver is None:
            return False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pgconn.notice_handler = None
        driver.close()
        self._socket.close()
        requests = [*([] if self._current is None else [self._current]), *self._queue]
        self._current = self._result = None
        self._queue.clear()
        for request in requests:
            request.done.errback(ConnectionLost(reason, request.sent))
        return True

    # IReadDescriptor, IWriteDescriptor

    def fileno(self) -> int:
        return self._socket.fileno()

    def doRead(self) -> None:
        if self._driver is not None:
            self._receive()

    def doWrite(self) -> None:
        if self._driver is None:
            return
        try:
            self._flush()
        except psycopg.OperationalError as error:
            self._lose(self._sentence(str(error)))

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor after a hang-up, or at its end."""
        if self._driver is not None:
            self._receive()
            self._lose(self._sentence(reason.getErrorMessage()))

    def logPrefix(self) -> str:
        return "postgres"


def _is_about_preparation(error: QueryFailed) -> bool:
    return error.sqlstate == _NOT_PREPARED or (error.sqlstate == _NOT_SUPPORTED and _CHANGED_ROW_TYPE in str(error))
