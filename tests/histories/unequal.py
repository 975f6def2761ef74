"""Clusters whose nodes differ: one is far from the database, or its clock is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.support.delaying_proxy import DelayingProxy
from tests.support.postgres_server import ROLE, TestCase, started_server
from tests.support.stepped_daemon import library

from .cluster import Cluster

#: How late each packet between the far node and the database is, in seconds.
_DELAY: Final = 0.04

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


#: The clusters by name.
UNEQUAL: Final[dict[str, Callable[[TestCase, int, tuple[str, ...]], Cluster]]] = {
    "delayed-node": delayed_node,
    "clocks-apart": clocks_apart,
}
