"""The faults that happen in the middle of a round, by name. Each has healed when it returns."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Final

import psycopg

from tests.support.postgres_server import SUPERUSER

from .cluster import Cluster

Fault = Callable[[Cluster, Random], None]


def nothing(_cluster: Cluster, _random: Random) -> None:
    """Let the nodes work."""
    time.sleep(1)


def kill_node(cluster: Cluster, random: Random) -> None:
    """Kill a node, and start it again."""
    index = random.randrange(len(cluster.nodes))
    cluster.kill(index)
    time.sleep(random.uniform(0, 0.5))
    cluster.restart(index)
    cluster.wait()


def suspend_node(cluster: Cluster, random: Random) -> None:
    """Suspend a node for as long as its leases last, or shorter."""
    cluster.suspend(random.randrange(len(cluster.nodes)), random.choice([0.3, 1.5, 6.0]))


def kill_primary(cluster: Cluster, random: Random) -> None:
    """Kill all processes of the database at once, and start it again."""
    cluster.server.kill()
    time.sleep(random.uniform(0, 1))
    cluster.server.start()


def terminate_backends(cluster: Cluster, random: Random) -> None:
    """End random sessions of the nodes for a second."""
    _signal_backends(cluster, random, "pg_terminate_backend")


def cancel_backends(cluster: Cluster, random: Random) -> None:
    """Cancel the statements of random sessions for a second."""
    _signal_backends(cluster, random, "pg_cancel_backend")


def _signal_backends(cluster: Cluster, random: Random, function: str) -> None:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        for pid in cluster.backends(random)[:3]:
            cluster.server.run(f"SELECT {function}(%s)", [pid])
        time.sleep(random.uniform(0, 0.1))


def suspend_backends(cluster: Cluster, random: Random) -> None:
    """Suspend random processes of the server until the nodes have given up their connections, or shorter."""
    pids = cluster.backends(random)[:4]
    _suspend(pids, random.choice([0.5, 3.0, 5.0]))


def _suspend(pids: Iterable[int], seconds: float) -> None:
    suspended = []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            suspended.append(pid)
    time.sleep(seconds)
    for pid in suspended:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def lose_notifications(cluster: Cluster, _random: Random) -> None:
    """End the sessions that listen, again and again, so that most messages between nodes are lost."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        cluster.server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND query LIKE 'LISTEN%%'",
            [cluster.database],
        )
        time.sleep(0.1)


def pause_listener(cluster: Cluster, _random: Random) -> None:
    """Suspend the server's processes of the sessions that listen, so that nothing arrives on their sockets."""
    rows = cluster.server.run(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query LIKE 'LISTEN%%'", [cluster.database]
    )
    _suspend([int(row[0]) for row in rows], 3.0)


def hold_snapshot(cluster: Cluster, _random: Random) -> None:
    """Hold a snapshot open, as a backup tool does."""
    with _session(cluster) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM durable_streams.streams")
        time.sleep(4)


def hold_locks(cluster: Cluster, random: Random) -> None:
    """Hold the locks of some streams, as a node does that is suspended in a transaction."""
    with _session(cluster) as connection:
        connection.execute("BEGIN")
        connection.execute(
            "SELECT 1 FROM durable_streams.streams WHERE id %% 3 = %s ORDER BY id FOR UPDATE", [random.randrange(3)]
        )
        time.sleep(2)


def fill_disk(cluster: Cluster, _random: Random) -> None:
    """
    Fill the disk of the database for a while; it must have one of its own.

    A database that can't write its log stops. It starts again by itself if there is room by then.
    """
    server = cluster.server
    filler = server.data.parent / "filler"
    with filler.open("wb", buffering=0) as file:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            try:
                file.write(bytes(65_536))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                time.sleep(0.02)
    filler.unlink()
    time.sleep(0.5)
    if server.process is not None and server.process.poll() is not None:
        server.process = None
        server.start()


@contextmanager
def _session(cluster: Cluster) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(cluster.server.dsn(cluster.database, user=SUPERUSER), autocommit=True) as connection:
        yield connection


#: The faults that need one database and no preparation.
FAULTS: Final[dict[str, Fault]] = {
    "nothing": nothing,
    "kill-node": kill_node,
    "suspend-node": suspend_node,
    "kill-primary": kill_primary,
    "terminate-backends": terminate_backends,
    "cancel-backends": cancel_backends,
    "suspend-backends": suspend_backends,
    "lose-notifications": lose_notifications,
    "pause-listener": pause_listener,
    "hold-snapshot": hold_snapshot,
    "hold-locks": hold_locks,
}
