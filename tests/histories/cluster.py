"""A PostgreSQL server, perhaps with a standby, and nodes in front of it, as processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from random import Random

from tests.support.daemon import TWISTD, Daemon, free_port
from tests.support.postgres_server import ROLE, PostgresServer

#: How long a cluster may take until all nodes are ready, in seconds.
_PATIENCE = 60.0

#: Nodes notice faults within seconds, so that a round is short. They wait for a lock longer than the database does
#: before it looks for a deadlock, so that it would find one.
_SETTINGS: Mapping[str, object] = {
    "storage__mode": "postgres",
    "storage__postgres__commit_deadline_ms": 4_000,
    "storage__postgres__wait_ms": 8_000,
    "storage__postgres__lock_timeout_ms": 3_000,
    "limits__max_total_bytes": 2**40,
    "limits__max_stream_bytes": 2**40,
}


class Cluster:
    """
    A database and its nodes.

    :ivar server: the primary.
    :ivar nodes: the running nodes.

    :param dsn: what the nodes connect to; None for the server's own address.
    :param program: starts a node.
    :param first: settings of the first node.
    :param first_program: starts the first node; None for ``program``.
    """

    def __init__(
        self,
        server: PostgresServer,
        count: int = 2,
        dsn: str | None = None,
        program: tuple[str, ...] = TWISTD,
        first: Mapping[str, object] = {},
        first_program: tuple[str, ...] | None = None,
    ) -> None:
        self.server = server
        self._programs = [first_program or program, *[program] * (count - 1)]
        self._first = first
        self.database = server.create_database()
        self._settings = {**_SETTINGS, "storage__postgres__dsn": dsn or server.dsn(self.database)}
        self._ports = [free_port() for _ in range(count)]
        self.nodes = [self.node(index) for index in range(count)]
        self.wait()

    @property
    def ports(self) -> list[int]:
        """The ports of the nodes."""
        return self._ports

    def node(self, index: int) -> Daemon:
        """Start a node."""
        kind = type("Node", (Daemon,), {"command": self._programs[index]})
        node: Daemon = kind(self._ports[index], **(self._settings | ({} if index else dict(self._first))))
        return node

    def kill(self, index: int) -> None:
        """Kill a node."""
        self.nodes[index].process.kill()
        self.nodes[index].close()

    def restart(self, index: int) -> None:
        """Start a node that was killed."""
        self.nodes[index] = self.node(index)

    def suspend(self, index: int, seconds: float) -> None:
        """Suspend a node for a while."""
        self.nodes[index].process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.nodes[index].process.send_signal(signal.SIGCONT)

    def wait(self) -> None:
        """Wait until all nodes are ready."""
        deadline = time.monotonic() + _PATIENCE
        for index in range(len(self.nodes)):
            while not self._is_ready(index):
                assert time.monotonic() < deadline, f"node {index} is not ready:\n{self.nodes[index].log()[-4000:]}"
                time.sleep(0.05)

    def _is_ready(self, index: int) -> bool:
        node = self.nodes[index]
        assert node.process.poll() is None, f"node {index} ended:\n{node.log()[-4000:]}"
        try:
            return node.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def backends(self, random: Random) -> list[int]:
        """Return the process ids of the nodes' sessions, in random order."""
        rows = self.server.run(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND usename = %s", [self.database, ROLE]
        )
        pids = [int(row[0]) for row in rows]
        random.shuffle(pids)
        return pids

    def complaints(self) -> list[str]:
        """Return the logs of nodes that have a traceback, and a sentence about deadlocks in the database."""
        found = [node.log()[-6000:] for node in self.nodes if "Traceback" in node.log()]
        rows = self.server.run("SELECT deadlocks FROM pg_stat_database WHERE datname = %s", [self.database])
        if rows and rows[0][0]:
            found.append(f"{rows[0][0]} deadlocks")
        return found

    def close(self) -> None:
        """Stop the nodes."""
        for node in self.nodes:
            node.close()
