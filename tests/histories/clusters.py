"""Clusters of their own kinds: a node is far from the database, its clock is wrong, or the database's disk is small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.support.delaying_proxy import DelayingProxy
from tests.support.mounts import small_disk
from tests.support.postgres_server import ROLE, TestCase, started_server
from tests.support.stepped_daemon import library

from .cluster import Cluster
from .faults import Fault, fill_disk, nothing

#: How late each packet between the far node and the database is, in seconds.
_DELAY: Final = 0.04

#: The size of a small disk. A new cluster takes 40 MB.
_DISK: Final = "160m"

#: By how much a node's clock is ahead, in seconds.
_AHEAD: Final = 3600


def delayed_node(case: TestCase, count: int, program: tuple[str, ...]) -> Cluster:
    """Start a cluster whose first node is far from the database."""
    server = started_server(case)
    proxy = DelayingProxy(server.port, _DELAY)
    case.addCleanup(proxy.close)
    # The cluster makes the first database of the server.
    far = {"storage__postgres__dsn": f"host=127.0.0.1 port={proxy.port} user={ROLE} dbname={ROLE}_1"}
    cluster = Cluster(server, count, program=program, first=far)
    case.addCleanup(cluster.close)
    return cluster


def clocks_apart(case: TestCase, count: int, program: tuple[str, ...]) -> Cluster:
    """Start a cluster whose first node has a clock that is an hour ahead."""
    ahead = ("env", f"LD_PRELOAD={library()}", f"FAKETIME=+{_AHEAD}s", *program)
    cluster = Cluster(started_server(case), count, program=program, first_program=ahead)
    case.addCleanup(cluster.close)
    return cluster


def small_database(case: TestCase, count: int, program: tuple[str, ...]) -> Cluster:
    """
    Start a cluster whose database is on a small disk.

    :raises SkipTest: mounting is not permitted.
    """
    server = started_server(case, {"max_wal_size": "48MB"}, small_disk(_DISK, case.addCleanup))
    cluster = Cluster(server, count, program=program)
    case.addCleanup(cluster.close)
    return cluster


#: Kinds of clusters by name, with the fault that happens in them.
CLUSTERS: Final[dict[str, tuple[Callable[[TestCase, int, tuple[str, ...]], Cluster], Fault]]] = {
    "delayed-node": (delayed_node, nothing),
    "clocks-apart": (clocks_apart, nothing),
    "fill-disk": (small_database, fill_disk),
}
