"""Queries of PostgreSQL: statements, their results, and the errors that they fail with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias, cast

from msgspec import Struct
from psycopg import pq
from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred

#: SQLSTATEs: the server has become a standby (read_only_sql_transaction), a lock was not acquired within lock_timeout
#: (lock_not_available), and the server's disk is full.
READ_ONLY: Final = "25006"
LOCK_TIMEOUT: Final = "55P03"
DISK_FULL: Final = "53100"

#: The classes of SQLSTATE that tell of the server's state, and not of the statement: lost connections, conflicts with
#: other transactions, insufficient resources, and interventions by operators; and single codes of other classes.
_TRANSIENT_CLASSES: Final = frozenset({"08", "40", "53", "57"})
_TRANSIENT: Final = frozenset({READ_ONLY, LOCK_TIMEOUT})


class Statement(Struct, frozen=True):
    """
    A statement, which each connection prepares when it is first used.

    :ivar name: of the prepared statement, unique among all of the server's.
    :ivar types: the OID of each parameter's type.
    """

    name: str
    sql: str
    types: tuple[int, ...] = ()


class QueryFailed(Exception):
    """
    PostgreSQL refused a statement, which has therefore changed nothing.

    :ivar sqlstate: five characters, see appendix A of PostgreSQL's manual.
    :ivar constraint: the name of the constraint that was violated, or "".
    :ivar is_transient: whether the reason is the server's state, so that the same statement may succeed later.
    """

    def __init__(self, sqlstate: str, message: str, constraint: str = "") -> None:
        super().__init__(f"{message} (SQLSTATE {sqlstate})")
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.is_transient = sqlstate[:2] in _TRANSIENT_CLASSES or sqlstate in _TRANSIENT


class ConnectionLost(Exception):
    """
    The connection ended before the statement's result came.

    :ivar sent: whether the server may have received the statement, and so may have executed it, or may still do so.
    """

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


#: Executes a statement with its parameters, as :meth:`.Connection.execute` and :meth:`.Pool.execute` do.
Query: TypeAlias = Callable[[Statement, Sequence[bytes | None]], Deferred[PGresult]]


class Result(Protocol):
    """A result of a query: a PGresult, or a part of one that is known although its connection was lost."""

    def get_value(self, row_number: int, column_number: int) -> bytes | None: ...


def value_of(result: Result, row: int, column: int) -> bytes:
    """Return a value of a result that is not NULL."""
    value = result.get_value(row, column)
    assert value is not None
    return value


def rows_of(result: PGresult) -> list[tuple[bytes | None, ...]]:
    """Return the rows of a result, with values in binary form."""
    columns = range(result.nfields)
    value = cast("Callable[[int, int], bytes | None]", result.get_value)
    return [tuple([value(row, column) for column in columns]) for row in range(result.ntuples)]


def one_line(text: str) -> str:
    """Return a message of libpq as one line, without its hints."""
    return " ".join(text.partition("\n\t")[0].split())


def field_of(result: PGresult, field: pq.DiagnosticField) -> str:
    """Return a field of an error or notice, or "" if it has none."""
    value = result.error_field(field)
    return "" if value is None else value.decode(errors="replace")


def error_of(result: PGresult | None) -> tuple[QueryFailed | None, bool]:
    """
    Return the server's error, and whether it ends the connection.

    :returns: None if the error is libpq's own, which it is for connections that broke.
    """
    if result is None:
        return None, True
    sqlstate = field_of(result, pq.DiagnosticField.SQLSTATE)
    if not sqlstate:
        return None, True
    message = one_line(field_of(result, pq.DiagnosticField.MESSAGE_PRIMARY))
    constraint = field_of(result, pq.DiagnosticField.CONSTRAINT_NAME)
    return QueryFailed(sqlstate, message, constraint), is_fatal(result)


def is_fatal(result: PGresult) -> bool:
    """Return whether the server has ended the connection with this error."""
    return field_of(result, pq.DiagnosticField.SEVERITY_NONLOCALIZED) in ("FATAL", "PANIC")
