"""Several workers of one daemon on one PostgreSQL database: every worker serves every stream."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from functools import partial
from http.client import HTTPException

from tests.process.test_workers import SharingDaemon, WorkersTestCase
from tests.support.daemon import TWISTD, Daemon, read_until
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
        threads = [threading.Thread(target=appender.run) for appender in appenders]
        for thread in threads:
            thread.start()
        try:
            for served, worker in enumerate((1, 2, 1)):
                time.sleep(0.5)
                os.kill(daemon.workers()[worker], signal.SIGKILL)
                wait_for(partial(self.have_served_again, daemon, served + 1), "the replacement")
        finally:
            for appender in appenders:
                appender.done.set()
            for thread in threads:
                thread.join()
        for appender in appenders:
            self.assertGreater(appender.acknowledged, 10, appender.outcomes)
            self.assertLessEqual(set(appender.outcomes) - {200, 204}, {503, ConnectionError}, appender.outcomes)
            stored = daemon.request("GET", f"/v1/stream/{appender.name}")[2]
            self.assertEqual(stored, appender.expected())
        self.assertEqual(daemon.stop(), 0, daemon.log())


class Appender:
    """A client that appends numbers as an idempotent producer, each until it is acknowledged."""

    def __init__(self, daemon: Daemon, number: int) -> None:
        self._daemon = daemon
        self.name = f"s{number}"
        self.acknowledged = 0
        self.outcomes: Counter[object] = Counter()
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            # It is sent until it is acknowledged, also after the end, so that what is stored is known.
            while not self._append(self.acknowledged):
                time.sleep(0.02)
            self.acknowledged += 1

    def _append(self, number: int) -> bool:
        try:
            status, _, _ = self._daemon.request(
                "POST",
                f"/v1/stream/{self.name}",
                b"%d;" % number,
                content_type="text/plain",
                producer_id="p",
                producer_epoch="0",
                producer_seq=str(number),
            )
        except (ConnectionError, HTTPException):
            self.outcomes[ConnectionError] += 1
            return False
        self.outcomes[status] += 1
        return status in (200, 204)

    def expected(self) -> bytes:
        """Return what the stream holds."""
        return b"".join(b"%d;" % number for number in range(self.acknowledged))


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
