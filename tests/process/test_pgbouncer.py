"""Two nodes whose connections to PostgreSQL lead through pgbouncer."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import Daemon
from tests.support.pgbouncer import Pgbouncer, pool_mode
from tests.support.postgres_server import database
from tests.support.proxies import wait_until


class PoolerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pooler = Pgbouncer(database(self), pool_mode(), default_pool_size=30)
        self.addCleanup(self.pooler.remove)
        self.pooler.start()
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.first, self.second = [
            stack.enter_context(Daemon(storage__mode="postgres", storage__postgres__dsn=self.pooler.dsn))
            for _ in range(2)
        ]

    def test_a_tail_on_one_node_gets_the_append_on_another(self) -> None:
        self.first.create("s")
        answers: list[bytes] = []
        path = "/v1/stream/s?live=long-poll&offset=0000000000000000_0000000000000000"
        tail = threading.Thread(target=lambda: answers.append(self.first.request("GET", path)[2]))
        tail.start()
        self.second.append("s", b"hello")
        tail.join(20)
        self.assertEqual([b"hello"], answers)

    def test_nodes_go_on_after_a_restart_of_the_pooler(self) -> None:
        self.first.create("s")
        self.pooler.stop()
        wait_until(lambda: self.second.request("GET", "/readyz")[0] == 503, "notice that the pooler is gone")
        self.pooler.start()
        for node in (self.first, self.second):
            wait_until(lambda: node.request("GET", "/readyz")[0] == 200, "connect again")  # noqa: B023 (called at once)
            node.append("s", b"x")
        self.assertEqual(b"xx", self.first.request("GET", "/v1/stream/s")[2])
