"""Several workers of one daemon on one PostgreSQL database: every worker serves every stream."""

from __future__ import annotations

import os
import signal
import socket
import time
from functools import partial

from tests.process.test_workers import SharingDaemon, WorkersTestCase
from tests.support.appenders import Appender, appending
from tests.support.daemon import TWISTD, read_until
from tests.support.postgres_server import database
from tests.support.process_case import wait_for


class DatabaseTestCase(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.dsn = database(self)

    def on_database(self, workers: int = 2, **settings: object) -> SharingDaemon:
        daemon = DatabaseDaemon(workers, storage__mode="postgres", storage__postgres__dsn=self.dsn, **settings)
        self.addCleanup(daemon.close)
        self.addCleanup(daemon.process.kill)
        serves = f"All {workers} workers serve."
        wait_for(lambda: serves in daemon.log() or daemon.process.poll() is not None, "service")
        self.assertIn(serves, daemon.log())
        return daemon


class DatabaseDaemon(SharingDaemon):
    """A daemon with workers on a database, as everybody starts it."""

    program = TWISTD


class SharingTests(DatabaseTestCase):
    def test_every_worker_serves_what_another_one_has_written(self) -> None:
        daemon = self.on_database(3)
        daemon.create("a")
        written = b""
        # Each request has a connection of its own, so most go to another worker than the one before.
        for number in range(30):
            piece = b"%d;" % number
            daemon.append("a", piece)
            written += piece
            self.assertEqual(daemon.request("GET", "/v1/stream/a")[2], written)
        self.assertEqual(daemon.request("DELETE", "/v1/stream/a")[0], 204)
        self.assertEqual([daemon.request("GET", "/v1/stream/a")[0] for _ in range(12)], [404] * 12)

    def test_readers_of_all_workers_follow_a_stream(self) -> None:
        daemon = self.on_database(2)
        daemon.create("a")
        tails = [daemon.get("/v1/stream/a?offset=-1&live=sse") for _ in range(12)]
        for tail in tails:
            self.addCleanup(tail.close)
            read_until(tail, b"event: control")
        for piece in (b"first", b"second"):
            daemon.append("a", piece)
            for tail in tails:
                read_until(tail, piece)

    def test_the_pages_of_operators_are_served_by_every_worker(self) -> None:
        daemon = self.on_database(2, admin__enabled="true")
        daemon.create("a")
        for _ in range(12):
            status, _, listed = daemon.request("GET", "/admin/streams")
            self.assertEqual(status, 200)
            self.assertIn(b'"a"', listed)


class CrashTests(DatabaseTestCase):
    def have_served_again(self, daemon: SharingDaemon, count: int) -> bool:
        return daemon.log().count(" serves again.") >= count

    def test_killed_workers_lose_no_acknowledged_append_and_double_none(self) -> None:
        daemon = self.on_database(2)
        appenders = [Appender(daemon, number) for number in range(4)]
        for appender in appenders:
            daemon.create(appender.name)
        with appending(appenders):
            for served, worker in enumerate((1, 2, 1)):
                time.sleep(0.5)
                os.kill(daemon.workers()[worker], signal.SIGKILL)
                wait_for(partial(self.have_served_again, daemon, served + 1), "the replacement")
        for appender in appenders:
            self.assertGreater(appender.acknowledged, 10, appender.outcomes)
            self.assertLessEqual(set(appender.outcomes) - {200, 204}, {503, ConnectionError}, appender.outcomes)
            stored = daemon.request("GET", f"/v1/stream/{appender.name}")[2]
            self.assertEqual(stored, appender.expected())
        self.assertEqual(daemon.stop(), 0, daemon.log())


class StartTests(WorkersTestCase):
    def test_a_database_that_cannot_be_reached_ends_the_daemon_with_one_line(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        ended = self.run_to_end(
            TWISTD,
            server__workers=2,
            storage__mode="postgres",
            storage__postgres__dsn=f"postgresql://streams@127.0.0.1:{port}/streams",
            storage__postgres__wait_ms=500,
        )
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
        self.assertTrue(ended.stderr.startswith("[open_storage] Cannot open the storage (storage.mode postgres)"))
