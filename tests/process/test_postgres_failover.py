"""Two nodes while their database is killed, frozen, or replaced by its standby: no append is lost or doubled."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from psycopg.conninfo import make_conninfo
from twisted.trial.unittest import SynchronousTestCase

from tests.support.appenders import Appender, appending
from tests.support.daemon import Daemon, read_until
from tests.support.postgres_server import started_server


class PlainAppender(Appender):
    """A client without a producer, which sends each number once."""

    def __init__(self, daemon: Daemon, number: int) -> None:
        super().__init__(daemon, number)
        self.count = 0
        self.written: set[int] = set()
        self.unknown: set[int] = set()

    def run(self) -> None:
        while not self.done.is_set():
            number = self.count
            self.count += 1
            try:
                status, _, _ = self._daemon.request(
                    "POST", f"/v1/stream/{self.name}", b"%d;" % number, content_type="text/plain"
                )
            except (ConnectionError, HTTPException):
                status = 0
            self.outcomes[status] += 1
            if status == 204:
                self.acknowledged += 1
                self.written.add(number)
            else:
                self.unknown.add(number)
                time.sleep(0.02)

    def check(self, stored: bytes) -> None:
        """Compare the acknowledged numbers with those that are stored."""
        found = Counter(int(number) for number in stored.split(b";")[:-1])
        assert not [number for number, times in found.items() if times > 1], "an append was written twice"
        assert self.written <= set(found), f"lost: {sorted(self.written - set(found))}"
        assert set(found) <= self.written | self.unknown


class FailoverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = started_server(self)
        self.database = self.server.create_database()

    def start_nodes(self, dsn: str, **settings: object) -> list[Daemon]:
        """Start two nodes, one after the other since the first creates the tables."""
        chosen = {"storage__mode": "postgres", "storage__postgres__dsn": dsn} | settings
        nodes = []
        for _ in range(2):
            node = Daemon(None, **chosen)
            self.addCleanup(node.close)
            nodes.append(node.__enter__())
        return nodes

    @contextmanager
    def load(self, nodes: list[Daemon]) -> Iterator[list[Appender]]:
        """Append to streams of their own by both nodes, and compare all that is stored at the end."""
        appenders: list[Appender] = []
        for number in range(6):
            kind = PlainAppender if number % 2 else Appender
            appenders.append(kind(nodes[number % 3 % 2], number))
        for appender in appenders:
            nodes[0].create(appender.name)
        with appending(appenders):
            time.sleep(0.7)
            yield appenders
        for appender in appenders:
            self.assertLessEqual(set(appender.outcomes), {200, 204, 503}, appender.outcomes)
            for node in nodes:
                stored = node.request("GET", f"/v1/stream/{appender.name}")[2]
                if isinstance(appender, PlainAppender):
                    appender.check(stored)
                else:
                    self.assertEqual(stored, appender.expected())

    def more(self, appenders: list[Appender]) -> None:
        """Wait until each of them has had more appends acknowledged."""
        before = [appender.acknowledged for appender in appenders]
        deadline = time.monotonic() + 30
        while any(now.acknowledged < then + 5 for now, then in zip(appenders, before, strict=True)):
            self.assertLess(time.monotonic(), deadline, [appender.outcomes for appender in appenders])
            time.sleep(0.05)

    def stop(self, nodes: list[Daemon]) -> None:
        for node in nodes:
            self.assertEqual(node.stop(), 0, node.log())
            self.assertNotIn("Traceback", node.log())

    def test_a_promoted_standby_has_every_acknowledged_append_once_and_tails_go_on(self) -> None:
        standby = self.server.start_standby(self, "standby_1")
        self.server.set(synchronous_standby_names="standby_1")
        servers = (self.server, standby)
        dsn = make_conninfo(
            self.server.dsn(self.database),
            host=",".join(str(server.directory) for server in servers),
            port=",".join(str(server.port) for server in servers),
        )
        nodes = self.start_nodes(dsn)
        nodes[1].create("tail")
        tail = nodes[1].get("/v1/stream/tail?offset=-1&live=sse")
        self.addCleanup(tail.close)
        read_until(tail, b"event: control")
        with self.load(nodes) as appenders:
            self.server.kill()
            time.sleep(0.3)
            standby.promote()
            self.more(appenders)
        nodes[0].append("tail", b"after the promotion")
        read_until(tail, b"after the promotion")
        self.stop(nodes)

    def test_a_database_that_is_killed_and_started_again_loses_and_doubles_no_append(self) -> None:
        nodes = self.start_nodes(self.server.dsn(self.database))
        with self.load(nodes) as appenders:
            for _ in range(3):
                self.server.kill()
                self.server.start()
                self.more(appenders)
        self.stop(nodes)

    def test_a_database_that_stands_still_loses_and_doubles_no_append(self) -> None:
        nodes = self.start_nodes(
            self.server.dsn(self.database),
            storage__postgres__lock_timeout_ms=500,
            storage__postgres__commit_deadline_ms=1000,
            storage__postgres__wait_ms=1000,
        )
        with self.load(nodes) as appenders:
            self.server.freeze()
            time.sleep(3)
            for node in nodes:
                self.assertEqual(node.request("GET", "/readyz")[0], 503)
                self.assertEqual(node.request("GET", "/healthz")[0], 200)
            self.server.thaw()
            self.more(appenders)
        self.stop(nodes)

    def test_a_frozen_node_does_not_hold_up_the_other_and_goes_on_when_it_is_continued(self) -> None:
        nodes = self.start_nodes(self.server.dsn(self.database))
        nodes[0].create("shared")
        with self.load(nodes) as appenders:
            nodes[0].append("shared", b"a")
            nodes[0].process.send_signal(signal.SIGSTOP)
            self.addCleanup(nodes[0].process.send_signal, signal.SIGCONT)
            self.more([appender for appender in appenders if appender._daemon is nodes[1]])
            nodes[1].append("shared", b"b")
            nodes[0].process.send_signal(signal.SIGCONT)
            self.more(appenders)
        nodes[0].append("shared", b"c")
        for node in nodes:
            self.assertEqual(node.request("GET", "/v1/stream/shared")[2], b"abc")
        self.stop(nodes)
