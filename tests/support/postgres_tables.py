"""The tables of the PostgreSQL storage in a real database, for tests of parts that need no reactor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres.queries import Statement
from durable_streams.server.storage.postgres.schema import migrations
from tests.support.postgres_server import database

SCHEMA: Final = "streams"

_FREEZE: Final = (
    "CREATE TABLE {0}.test_clock (now double precision)",
    "INSERT INTO {0}.test_clock VALUES (0)",
    "CREATE OR REPLACE FUNCTION {0}.clock() RETURNS float8 LANGUAGE sql AS 'SELECT now FROM {0}.test_clock'",
)


class Tables:
    """
    A new database with the tables, dropped after the test.

    :ivar dsn: its connection string.
    :ivar connection: blocks, as its user does: the test.
    :ivar queries: the number of calls of :meth:`query`.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self._case = case
        self.dsn = database(case, durable=False)
        self.queries = 0
        self.connection = self.connect()
        self.connection.execute(f"CREATE SCHEMA {SCHEMA}")
        for script in migrations(SCHEMA, 0):
            self.connection.execute(script)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Return another connection, which is closed after the test."""
        connection = psycopg.connect(self.dsn, autocommit=True)
        self._case.addCleanup(connection.close)
        return connection

    def query(self, statement: Statement, params: Sequence[bytes | None]) -> Deferred[PGresult]:
        """Execute a statement now, as :meth:`.Connection.execute` does later."""
        self.queries += 1
        result = self.connection.pgconn.exec_params(
            statement.sql.encode(), params, statement.types, [1] * len(params), 1
        )
        assert not result.error_message, result.error_message
        return succeed(result)

    def freeze(self, now: float) -> None:
        """Set the time of the storage's clock, which stands still from now on."""
        row = self.connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.test_clock",)).fetchone()
        if row is None or row[0] is None:
            for statement in _FREEZE:
                self.connection.execute(statement.format(SCHEMA))
        self.connection.execute(f"UPDATE {SCHEMA}.test_clock SET now = %s", (now,))
