"""Benchmark of a database with very many streams: what a node does must not depend on their number."""

import random
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Final

from psycopg import connect
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from benchmarks.databases import Database, fresh
from benchmarks.peers import MEBIBYTE, POSTGRES
from benchmarks.servers import start
from durable_streams.server.model import Append, Created, StorageLimits, StreamConfig, StreamStatus
from durable_streams.server.storage.postgres.heads import encode_config
from durable_streams.server.storage.postgres.opening import prepare
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage

#: How many streams are due when they are swept.
DUE: Final = 10_000

#: How many operations of a kind are timed one after the other, and how many at the same time.
_EACH: Final = 300
_TOGETHER: Final = 64
_ROUNDS: Final = 40

#: A row needs about 450 bytes of disk with its indexes; the log of the fill is limited by max_wal_size.
_ROW_BYTES: Final = 450
_LOG_BYTES: Final = 2 << 30

#: Names are numbers in another order than the rows have on disk.
_FILL: Final = """
INSERT INTO durable_streams.streams (id, name, incarnation, content_type, config, created_at, updated_at, used_at,
    closed, base, tail)
SELECT n, 's/' || (n * 7919) %% %(count)s, n, 'text/plain', %(config)s, 0, 0, 0, false, 0, 0
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""

_EXPIRE: Final = """
INSERT INTO durable_streams.streams (id, name, incarnation, content_type, config, expires_at, due, created_at,
    updated_at, used_at, closed, base, tail)
SELECT n, 'due/' || n, n, 'text/plain', %(config)s, 1, 1, 0, 0, 0, false, 0, 0
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""

_COST: Final = """
SELECT sum(total_exec_time), sum(shared_blks_hit + shared_blks_read) FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query NOT LIKE '%pg_stat_stat%'
"""

#: The longest time that a sweep may take, in seconds.
_PATIENCE: Final = 120

#: The ids of rows are below those that a sequence gives, which begins at the microseconds since 1970.
_FIRST_DUE: Final = 1_000_000_000

_LIMITS: Final = StorageLimits(total_bytes=1 << 40, stream_bytes=1 << 40, streams=1_000_000_000, metadata_bytes=1 << 40)


def check_room(count: int) -> None:
    """
    Check that there is room for so many rows on the disk of temporary files.

    :raises SystemExit: there is not.
    """
    needed = count * _ROW_BYTES + _LOG_BYTES
    free = shutil.disk_usage(gettempdir()).free
    if free < needed:
        raise SystemExit(f"{count:,} streams need {needed >> 20:,} MiB in {gettempdir()}, which has {free >> 20:,}.")


def fill(database: Database, count: int) -> None:
    """Create the tables and so many streams."""
    prepare(PostgresSettings(database.dsn))
    config = encode_config(StreamConfig())
    with connect(database.dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for first in range(1, count + 1, 500_000):
            last = min(first + 499_999, count)
            connection.execute(_FILL, {"first": first, "last": last, "count": count, "config": config})
        connection.execute("VACUUM (ANALYZE, INDEX_CLEANUP off) durable_streams.streams")
    database.server.run("checkpoint")


def _start(database: Database, core: int) -> None:
    """Print how long the start of a node takes, and its memory."""
    began_at = time.perf_counter()
    with start(POSTGRES, core, Path("/nonexistent"), database=database) as server:
        seconds, spent = time.perf_counter() - began_at, server.processor_seconds()
        resident = server.settled() / MEBIBYTE
    print(
        f"  start of a node           {seconds:.2f} s, of which {spent:.2f} s of its CPU; resident {resident:.0f} MiB"
    )


class Meter:
    """
    Measures operations of an open storage, and what they cost the database.

    The database's time and blocks are steady on a busy machine, unlike latencies.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.server.run("CREATE EXTENSION pg_stat_statements", database=database.name)

    def reset(self) -> None:
        """Forget what was counted."""
        self._database.server.run("SELECT pg_stat_statements_reset()", database=self._database.name)

    def cost(self, count: int) -> str:
        """Return the database's execution time and the blocks read or found in memory, for each of some operations."""
        [(spent, blocks)] = self._database.server.run(_COST, database=self._database.name)
        return f"database {spent / count * 1000:.0f} us, {blocks / count:.1f} blocks each"

    async def measure(self, title: str, operations: Sequence[Callable[[], Awaitable[Any]]], each: int = 1) -> None:
        """
        Print the durations of operations, one after the other.

        :param each: what one of them counts for.
        """
        for operation in operations[:2]:
            await operation()
        self.reset()
        durations = []
        for operation in operations[2:]:
            began_at = time.perf_counter()
            await operation()
            durations.append((time.perf_counter() - began_at) * 1000)
        cost = self.cost(each * len(durations))
        durations.sort()
        middle, late = durations[len(durations) // 2], durations[len(durations) * 99 // 100]
        print(f"  {title:<25} p50 {middle:.2f} ms, p99 {late:.2f} ms; {cost}", flush=True)


async def _measure(storage: PostgresStorage, meter: Meter, count: int) -> None:
    """Print the durations of operations of an open storage."""
    numbers = random.Random(1)
    made = iter(range(1_000_000))
    data = Append("text/plain", b"x" * 256)
    config = StreamConfig("text/plain")

    def name() -> str:
        return f"s/{numbers.randrange(count)}"

    def look_up() -> Deferred[StreamStatus]:
        return storage.status(name(), 0)

    def create() -> Deferred[Created]:
        return storage.create(f"new/{next(made)}", config, b"", 0)

    def together(operation: Callable[[], Deferred[Any]]) -> Callable[[], Deferred[Any]]:
        return lambda: gatherResults([operation() for _ in range(_TOGETHER)])

    await meter.measure("look-up of a head", [look_up] * _EACH)
    await meter.measure(f"{_TOGETHER} look-ups together", [together(look_up)] * _ROUNDS, _TOGETHER)
    await meter.measure("append to a cold stream", [lambda: storage.append(name(), data, 0)] * _EACH)
    await meter.measure("creation", [create] * _EACH)
    await meter.measure(f"{_TOGETHER} creations together", [together(create)] * _ROUNDS, _TOGETHER)
    await meter.measure("page of 100 statuses", [lambda: storage.statuses(0, name(), 100)] * (_EACH // 3))


async def _sweep(storage: PostgresStorage, database: Database, meter: Meter, reactor: Any) -> None:
    """Print how long the sweep of due streams takes."""
    with connect(database.dsn, autocommit=True) as connection:
        config = encode_config(StreamConfig())
        connection.execute(_EXPIRE, {"first": _FIRST_DUE, "last": _FIRST_DUE + DUE - 1, "config": config})
    while not await storage.sweep(0, 1):
        await deferLater(reactor, 0.1, lambda: None)  # the node gets the task when the lease of an earlier one is over
    meter.reset()
    began_at = time.perf_counter()
    removed = 1
    while removed < DUE and time.perf_counter() - began_at < _PATIENCE:
        removed += await storage.sweep(0, DUE - removed)
    seconds = time.perf_counter() - began_at
    print(f"  sweep of {removed:,} due streams  {seconds:.2f} s; {meter.cost(removed)}")


async def measure(reactor: Any, counts: Iterable[int], core: int | None, server_core: int) -> None:
    """
    Print figures of databases with so many streams, one after the other.

    :param core: of the database, or None for any.
    :param server_core: of the node whose start is timed.
    """
    for count in counts:
        check_room(count)
        with fresh(core) as database:
            began_at = time.perf_counter()
            fill(database, count)
            [(table, indexes)] = database.server.run(
                "SELECT pg_table_size('durable_streams.streams'), pg_indexes_size('durable_streams.streams')",
                database=database.name,
            )
            print(
                f"{count:,} streams, table {table / MEBIBYTE:,.0f} MiB, indexes {indexes / MEBIBYTE:,.0f} MiB, filled "
                f"in {time.perf_counter() - began_at:.0f} s",
                flush=True,
            )
            _start(database, server_core)
            storage = PostgresStorage(PostgresSettings(database.dsn), _LIMITS, reactor)
            storage.open()
            meter = Meter(database)
            await _measure(storage, meter, count)
            await _sweep(storage, database, meter, reactor)
            await storage.close()
