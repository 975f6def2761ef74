"""PostgreSQL for the peers that need it: one server, and a database of its own for each measurement."""

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import SkipTest

from benchmarks.generator import pinned
from tests.support.postgres_server import PostgresServer, started_server

#: The settings that differ from those of tests. fsync and synchronous_commit are on, as PostgreSQL has them.
_SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "1GB",
    "autovacuum_naptime": "10s",
    "track_io_timing": "on",
    "shared_preload_libraries": "pg_stat_statements",
}

_TICKS = os.sysconf("SC_CLK_TCK")


class NoDatabase(Exception):
    """PostgreSQL is not installed."""


@cache
def cluster(core: int | None) -> PostgresServer:
    """
    Return a PostgreSQL server, which is started for the first caller and removed at the end of the process.

    :param core: the core for all of its processes, or None for any.
    :raises NoDatabase: it is not installed.
    """
    try:
        with pinned(core) if core is not None else contextlib.nullcontext():
            return started_server(settings=_SETTINGS)
    except SkipTest as missing:
        raise NoDatabase(str(missing)) from None


class Database:
    """
    An empty database.

    :param server: where it is created.
    :ivar dsn: its connection string, over TCP on the loopback interface.
    """

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.name = server.create_database()
        self.dsn = server.dsn(self.name, over_tcp=True)

    def processor_seconds(self) -> float:
        """
        Return the user and system time of all processes of the server since its start.

        :returns: seconds, to a hundredth.
        """
        assert self.server.process is not None
        leader = self.server.process.pid
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # the process has ended meanwhile
                fields = path.read_text().rpartition(")")[2].split()
                if int(path.parent.name) == leader:
                    ticks += sum(map(int, fields[11:15]))  # with the time of its children that have ended
                elif int(fields[1]) == leader:
                    ticks += sum(map(int, fields[11:13]))
        return ticks / _TICKS


@contextlib.contextmanager
def fresh(core: int | None) -> Iterator[Database]:
    """
    Create a database for the length of a block. All that earlier ones have written is on disk when it begins.

    :param core: see :func:`cluster`.
    """
    server = cluster(core)
    server.run("checkpoint")
    database = Database(server)
    try:
        yield database
    finally:
        server.drop_database(database.name)
