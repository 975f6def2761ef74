"""Benchmark of replays of small appends from PostgreSQL: as they were appended, and after they are merged."""

import argparse
import time
from typing import Final

from psycopg import connect

from benchmarks.databases import Database, fresh
from benchmarks.generator import Generator, build
from benchmarks.peers import MEBIBYTE, POSTGRES
from benchmarks.servers import Server, start
from benchmarks.speed import BASE
from durable_streams.server.storage.postgres.chunk_index import split

_PATH: Final = f"{BASE}/catch-up"
_SECONDS: Final = 4.0

_COPY: Final = "COPY durable_streams.chunks (stream_id, start, finish, first, ends, checksum, data) FROM STDIN"
_COUNT: Final = "SELECT count(*), coalesce(avg(finish - start), 0)::bigint FROM durable_streams.chunks"


def _fill(database: Database, size: int, total: int) -> None:
    """Write the chunks of so many bytes of appends, one each, as appends that wait for each other make them."""
    [(stream_id,)] = database.server.run("SELECT id FROM durable_streams.streams", database=database.name)
    data = b"x" * size
    with connect(database.dsn) as connection:
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for position in range(0, total, size):
                for start_at, first, ends, checksum, part in split(position, position, [data]):
                    copy.write_row((stream_id, start_at, start_at + len(part), first, ends, checksum, part))
        connection.execute("UPDATE durable_streams.streams SET tail = %s, version = version + 1", [total])
    with connect(database.dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE durable_streams.chunks")


def _rows(database: Database) -> tuple[int, int]:
    [(count, size)] = database.server.run(_COUNT, database=database.name)
    return count, size


def _print(server: Server, generator: Generator, total: int, connections: int, what: str) -> None:
    assert server.database is not None
    before, database_before = server.processor_seconds(), server.database.processor_seconds()
    result = generator.run("replay", server.port, _PATH, connections, _SECONDS, total, timeout=120)
    read = max(result["all_bytes"] / MEBIBYTE, 1)
    print(
        f"{what}, {connections} connections: {result['bytes_per_second'] / MEBIBYTE:,.0f} MiB/s; CPU a MiB: node "
        f"{(server.processor_seconds() - before) * 1e6 / read:,.0f} us, database "
        f"{(server.database.processor_seconds() - database_before) * 1e6 / read:,.0f} us; "
        f"faults {result['errors'] + result['damaged']:.0f}",
        flush=True,
    )


def measure(options: argparse.Namespace) -> int:
    """Print figures for the options of the command line; return the exit status."""
    size, total = options.bytes, options.mib * MEBIBYTE // options.bytes * options.bytes
    generator = Generator(build(options.cache_folder), options.load_core)
    with fresh(options.database_core) as database:
        cold = {"DS_STORAGE__POSTGRES__CACHE_BYTES": "0"}
        with start(POSTGRES, options.server_core, options.cache_folder, database=database) as server:
            generator.run("create", server.port, _PATH, 1, type="application/octet-stream")
            _fill(database, size, total)
            count, _ = _rows(database)
            print(f"{options.mib} MiB in {count:,} rows", flush=True)
            with server.beside(**cold) as other:
                _print(other, generator, total, 1, "as appended, merged meanwhile")
                until = time.monotonic() + 60
                while _rows(database)[1] < 60_000 and time.monotonic() < until:
                    generator.run("replay", other.port, _PATH, 1, 0.5, total, timeout=120)
                count, mean = _rows(database)
                print(f"merged: {count:,} rows of {mean:,} bytes", flush=True)
                for connections in (1, 4):
                    _print(other, generator, total, connections, "merged, nothing cached")
            for connections in (1, 4):
                _print(server, generator, total, connections, "merged, cache of 64 MiB")
    return 0
