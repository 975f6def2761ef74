"""Connections and statements for the tests of this storage."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from durable_streams.server.storage.postgres.connecting import connect, session_settings
from durable_streams.server.storage.postgres.connection import Connection
from durable_streams.server.storage.postgres.packing import FLOAT8, INT8, TEXT
from durable_streams.server.storage.postgres.queries import Statement

E = TypeVar("E", bound=Exception)

SETTINGS = session_settings(lock_timeout=2, statement_timeout=10)

ONE = Statement("one", "SELECT 1::int8")
ADD = Statement("add", "SELECT $1 + $2", (INT8, INT8))
LENGTH = Statement("length", "SELECT length($1)::int8", (TEXT,))
REPEAT = Statement("repeat", "SELECT repeat('x', $1::int)", (INT8,))
SLEEP = Statement("sleep", "SELECT pg_sleep($1)", (FLOAT8,))


def connected(case: TestCase, dsn: str, deadline: float = 20.0, reactor: Any = None) -> Deferred[Connection]:
    """Open a connection that is closed after the test."""
    if reactor is None:
        from twisted.internet import reactor  # noqa: PLC0415 (the default one, which importing installs)

    def close_at_end(connection: Connection) -> Connection:
        case.addCleanup(connection.close)
        return connection

    return connect(dsn, reactor, SETTINGS, deadline).addCallback(close_at_end)


async def failure_of(waiting: Deferred[Any], kind: type[E]) -> E:
    """Return the error that a Deferred fails with."""
    try:
        result = await waiting
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised: {result!r}")
