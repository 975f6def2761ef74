"""Connections that write, and commits whose rows can be counted, for the tests of uncertain commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.commit_results import CommitResult, NothingWritten
from durable_streams.server.storage.postgres.connecting import connect
from durable_streams.server.storage.postgres.connection import Connection
from durable_streams.server.storage.postgres.fence import WriterConnection
from durable_streams.server.storage.postgres.packing import FLOAT8, INT8, UUID, float8, int8
from durable_streams.server.storage.postgres.queries import Query, Statement
from durable_streams.server.storage.postgres.schema import migrations

from .connections import SETTINGS

SCHEMA = "streams"

#: Locks row 1 of ``gate``, which a test may hold, and adds a number to ``numbers``.
ADD = Statement(
    "add_number",
    f"""
    WITH n AS MATERIALIZED (
        SELECT {SCHEMA}.clock() AS now FROM {SCHEMA}.nodes WHERE id = $1 AND epoch = $2 FOR NO KEY UPDATE
    ), g AS MATERIALIZED (
        SELECT n.now, pg_sleep($5) FROM n, LATERAL (SELECT FROM gate WHERE gate.id = 1 FOR SHARE) AS x
    ), w AS (
        INSERT INTO numbers (number) SELECT $4 FROM g RETURNING number
    )
    UPDATE {SCHEMA}.nodes AS o SET batch = $3, written = ARRAY[w.number]
    FROM n, w WHERE o.id = $1 AND o.epoch = $2 RETURNING n.now, o.written, 'answered'::text
    """,
    (UUID, INT8, INT8, INT8, FLOAT8),
)


LOCK = Statement(
    "lock_row",
    f"SELECT $3 FROM {SCHEMA}.nodes WHERE id = $1 AND epoch = $2 FOR NO KEY UPDATE",
    (UUID, INT8, INT8),
)


def create_tables(dsn: str) -> None:
    """Create the storage's tables, and those of :data:`ADD`."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
        for script in migrations(SCHEMA, 0):
            connection.execute(script)
        connection.execute("CREATE TABLE numbers (number int8)")
        connection.execute("CREATE TABLE gate AS SELECT 1 AS id")


def numbers(dsn: str) -> list[int]:
    """Return all numbers that were added, in order."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number").fetchall()]


def hold_gate(case: TestCase, dsn: str) -> Callable[[], None]:
    """Have all commits wait in the middle of their statement; return what lets them go on."""
    holder = psycopg.connect(dsn)
    case.addCleanup(holder.close)
    holder.execute("SELECT FROM gate FOR UPDATE")
    return holder.rollback


def open_writer(
    case: TestCase,
    dsn: str,
    reactor: Any,
    kind: type[WriterConnection] = WriterConnection,
    deadline: float = 20.0,
    wait: float = 20.0,
    lock_timeout: float = 10_000,
) -> WriterConnection:
    """Start a connection that writes, which is stopped after the test."""
    settings = SETTINGS | {"lock_timeout": str(lock_timeout)}
    writer = kind(lambda: connect(dsn, reactor, settings, deadline), SCHEMA, reactor, wait)
    writer.start()
    case.addCleanup(writer.stop)
    return writer


def add(writer: WriterConnection, number: int, seconds: float = 0.0) -> Deferred[CommitResult]:
    """Add a number, with a statement that takes some seconds."""
    return writer.commit(ADD, [int8(number), float8(seconds)])


def add_in_transaction(writer: WriterConnection, number: int) -> Deferred[CommitResult | None]:
    """Add a number with a transaction of several statements."""

    async def work(execute: Query, node: Sequence[bytes]) -> PGresult:
        await execute(LOCK, node)
        return await execute(ADD, [*node, int8(number), float8(0)])

    return writer.transact(work)


def connection_of(writer: WriterConnection) -> Connection:
    """Return the open connection of a writer."""
    connection = writer._reconnector.connection
    assert connection is not None
    return connection


async def until(reactor: Any, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until a condition holds."""
    for _ in range(round(seconds / 0.01)):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError(f"the condition did not hold within {seconds} s")


class Ledger:
    """
    Adds numbers, one after the other, and keeps what is known of each.

    :ivar acknowledged: are there once.
    :ivar refused: are not there.
    :ivar unknown: may be there once.
    """

    def __init__(self, writer: WriterConnection, first: int = 0) -> None:
        self._writer = writer
        self._next = first
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.unknown: set[int] = set()

    async def add(self, seconds: float = 0.0) -> None:
        """Add the next number, each other one in a transaction of several statements."""
        number = self._next
        self._next += 1
        try:
            if number % 2:
                result = await add_in_transaction(self._writer, number)
            else:
                result = await add(self._writer, number, seconds)
        except NothingWritten:
            self.refused.add(number)
        except Unavailable:
            self.unknown.add(number)
        else:
            assert result is not None
            assert result.ntuples == 1
            self.acknowledged.add(number)

    def check(self, found: list[int]) -> None:
        """Compare what is known with the numbers in the database."""
        assert len(found) == len(set(found)), f"written twice: {sorted(n for n in set(found) if found.count(n) > 1)}"
        assert self.acknowledged <= set(found), f"lost: {sorted(self.acknowledged - set(found))}"
        assert not self.refused & set(found), f"refused and written: {sorted(self.refused & set(found))}"
        assert set(found) <= self.acknowledged | self.unknown
