"""Faults of a primary with a synchronous standby: the standby is gone for a while, or replaces the primary for good."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from random import Random
from typing import Final

from tests.support.postgres_server import ROLE, PostgresServer, TestCase, started_server

from .cluster import Cluster

Replicated = Callable[[Cluster, PostgresServer, Random], None]


def replicated_cluster(case: TestCase, count: int, program: tuple[str, ...]) -> tuple[Cluster, PostgresServer]:
    """
    Start a primary, a synchronous standby, and nodes that know both.

    :param case: the test after which they are stopped.
    :param count: the number of nodes.
    :param program: starts a node.
    :returns: the cluster, and the standby.
    """
    primary = started_server(case)
    standby = primary.start_standby(case, "standby")
    primary.set(synchronous_standby_names="standby")
    servers = (primary, standby)
    hosts = ",".join(str(server.directory) for server in servers)
    ports = ",".join(str(server.port) for server in servers)
    # The cluster makes the first database of the server.
    cluster = Cluster(primary, count, f"host={hosts} port={ports} user={ROLE} dbname={ROLE}_1", program=program)
    case.addCleanup(cluster.close)
    return cluster, standby


def lose_standby(cluster: Cluster, standby: PostgresServer, random: Random) -> None:
    """Stop the standby: commits wait, until it follows again."""
    standby.stop(random.choice([signal.SIGINT, signal.SIGQUIT]))
    time.sleep(random.choice([0.5, 2.0, 5.0]))
    standby.start()


def cancel_waits(cluster: Cluster, standby: PostgresServer, random: Random) -> None:
    """Stop the standby, and cancel the commits that wait for it, which the server then answers as if they were done."""
    standby.stop(signal.SIGQUIT)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        for pid in cluster.backends(random):
            cluster.server.run("SELECT pg_cancel_backend(%s)", [pid])
        time.sleep(0.1)
    standby.start()


def promote(cluster: Cluster, standby: PostgresServer, random: Random) -> None:
    """Kill the primary, and promote the standby."""
    cluster.server.kill()
    time.sleep(random.uniform(0, 0.5))
    standby.promote()
    cluster.server = standby


def cancel_and_promote(cluster: Cluster, standby: PostgresServer, random: Random) -> None:
    """
    Suspend the standby's replication, cancel the commits that wait for it, kill the primary, and promote the standby.

    Whatever the primary has said about these commits, they are lost: nothing of them may have been acknowledged.
    """
    standby.freeze()
    until = time.monotonic() + 1
    while time.monotonic() < until:
        for pid in cluster.backends(random):
            cluster.server.run("SELECT pg_cancel_backend(%s)", [pid])
        time.sleep(0.05)
    cluster.server.kill()
    standby.thaw()
    standby.promote()
    cluster.server = standby


#: The faults by name. After those that promote the standby, the cluster cannot be used for another round.
STANDBY_FAULTS: Final[dict[str, Replicated]] = {
    "lose-standby": lose_standby,
    "cancel-waits": cancel_waits,
    "promote": promote,
    "cancel-and-promote": cancel_and_promote,
}
