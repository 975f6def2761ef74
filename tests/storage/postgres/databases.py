"""Databases with the tables of the storage, whose time stands still unless a test moves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import psycopg
from twisted.trial.unittest import TestCase

from durable_streams.server.model import FOREVER, Lifetime, StreamConfig
from durable_streams.server.storage.postgres.connecting import connect, session_settings
from durable_streams.server.storage.postgres.fence import WriterConnection
from durable_streams.server.storage.postgres.heads import encode_config
from durable_streams.server.storage.postgres.lookups import LookUps
from durable_streams.server.storage.postgres.migrating import upgrade
from durable_streams.server.testing.values import T0
from tests.storage.postgres.connections import connected
from tests.support.postgres_server import shared_server

SCHEMA: Final = "durable_streams"

_FROZEN: Final = f"""
CREATE TABLE {SCHEMA}.test_time (now double precision NOT NULL);
INSERT INTO {SCHEMA}.test_time VALUES ({T0});
CREATE OR REPLACE FUNCTION {SCHEMA}.clock() RETURNS double precision LANGUAGE sql VOLATILE
    AS 'SELECT now FROM {SCHEMA}.test_time';
"""


@cache
def template(frozen: bool) -> str:
    """
    Return the name of a database with the tables, to be copied.

    :param frozen: whether its clock is a table that says T0, instead of the server's clock.
    """
    server = shared_server()
    name = server.create_database()
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        upgrade(connection, SCHEMA)
        if frozen:
            connection.execute(_FROZEN)
    return name


@cache
def emptied(frozen: bool) -> str:
    """Return the connection string of a database that tests use one after the other. To make one takes 0.3 s."""
    server = shared_server()
    return server.dsn(server.create_database(template(frozen), durable=False))


class Database:
    """
    An empty database with the tables, for one test.

    :ivar dsn: for the server's role.
    """

    def __init__(self, case: TestCase, frozen: bool = True) -> None:
        self.dsn = emptied(frozen)
        self._connection = psycopg.connect(self.dsn, autocommit=True)
        case.addCleanup(self._connection.close)
        self.empty()

    def empty(self) -> None:
        """Remove all rows, and set the clock and the sequence of ids back."""
        self.run("SELECT setval('ids', %s)", round(T0 * 1_000_000))
        for table in ("streams", "chunks", "writers", "removed", "key_values", "nodes", "leases"):
            self.run(f"DELETE FROM {table}")
        if self.run("SELECT to_regclass('test_time') IS NOT NULL")[0][0]:
            self.set_time(T0)

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows. The tables are in the search path."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"SET search_path = {SCHEMA}")
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def set_time(self, now: float) -> None:
        """Set the database's clock."""
        self.run("UPDATE test_time SET now = %s", now)

    def add_stream(
        self, name: str, lifetime: Lifetime = FOREVER, content_type: str = "text/plain", **columns: Any
    ) -> int:
        """Add an empty stream, and return its id."""
        config = encode_config(StreamConfig(content_type, lifetime))
        values = {
            "name": name,
            "content_type": content_type,
            "config": config,
            "ttl": lifetime.ttl,
            "expires_at": lifetime.expires_at,
            "created_at": T0,
            "updated_at": T0,
            "used_at": T0,
            "closed": False,
            "base": 0,
            "tail": 0,
        } | columns
        names = ", ".join(values)
        places = ", ".join(["%s"] * len(values))
        rows = self.run(
            f"INSERT INTO streams (id, incarnation, {names}) "
            f"SELECT n, n, {places} FROM nextval('ids') AS n RETURNING id",
            *values.values(),
        )
        stream_id: int = rows[0][0]
        return stream_id

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the row of a stream in an open transaction."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(f"SELECT FROM {SCHEMA}.streams WHERE name = %s FOR NO KEY UPDATE", (name,))
            yield

    def content(self, name: str) -> bytes:
        """Return a stream's bytes; fail unless its chunks have all of them once."""
        chunks = self.run(
            "SELECT start, finish, data, tail FROM streams LEFT JOIN chunks ON stream_id = id WHERE name = %s "
            "ORDER BY start",
            name,
        )
        found = b""
        for start, finish, data, tail in chunks:
            if start is not None:
                assert (start, finish) == (len(found), len(found) + len(data)), chunks
                found += data
            assert finish is not None or tail == 0
        assert len(found) == chunks[0][3], (len(found), chunks[0][3])
        return found


def writer_on(case: TestCase, database: Database, lock_timeout: float = 2.0) -> WriterConnection:
    """Return a connection that writes, with a row of its own."""
    from twisted.internet import reactor  # noqa: PLC0415 (the default one, which importing installs)

    settings = session_settings(lock_timeout=lock_timeout, statement_timeout=10)
    writer = WriterConnection(lambda: connect(database.dsn, reactor, settings, 20.0), SCHEMA, reactor, 10.0)
    writer.start()
    case.addCleanup(writer.stop)
    return writer


async def lookups_on(case: TestCase, database: Database) -> LookUps:
    """Return look-ups on a connection of their own."""
    from twisted.internet import reactor  # noqa: PLC0415 (the default one, which importing installs)

    connection = await connected(case, database.dsn)
    return LookUps(connection.execute, SCHEMA, reactor)
