"""Tests of looking at the database, in a real one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import sleep
from typing import cast

import psycopg
from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.packing import float8
from durable_streams.server.storage.postgres.queries import Statement
from durable_streams.server.storage.postgres.vitals import INTERVAL, MAX_AGE, DatabaseVitals
from tests.support.postgres_server import started_server
from tests.support.postgres_tables import SCHEMA, Tables


class FullQueue:
    """A result of the look in which the queue of NOTIFY is almost full; the rest is of a real one."""

    def __init__(self, real: PGresult) -> None:
        self._real = real

    def get_value(self, row: int, column: int) -> bytes | None:
        return self._real.get_value(row, column) if column else float8(0.75)


class VitalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tables = Tables(self)
        self.clock = Clock()
        self.is_away = False
        self.vitals = DatabaseVitals(self.query, self.clock)
        self.addCleanup(self.vitals.stop)
        self.warnings: list[LogEvent] = []
        observer = cast(ILogObserver, self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def observe(self, event: LogEvent) -> None:
        if "The database: " in (event.get("log_format") or ""):
            self.warnings.append(event)

    def query(self, statement: Statement, params: Sequence[bytes | None]) -> Deferred[PGresult]:
        return fail(Unavailable("The database is away.")) if self.is_away else self.tables.query(statement, params)

    def write(self) -> None:
        """Commit a transaction."""
        self.tables.connection.execute(f"INSERT INTO {SCHEMA}.removed VALUES ((random() * 1e15)::bigint, 0)")

    def pass_time(self, seconds: float) -> None:
        """Let time pass in which transactions are committed."""
        for _ in range(round(seconds / INTERVAL)):
            self.write()
            self.clock.advance(INTERVAL)

    def test_a_database_at_rest_has_no_figures(self) -> None:
        self.vitals.start()
        self.pass_time(5 * MAX_AGE)
        vitals = self.vitals
        self.assertEqual((0.0, 0, 0.0), (vitals.notify_queue, vitals.lock_waits, vitals.oldest_xmin_seconds))
        self.assertEqual([], self.warnings)

    def test_an_old_snapshot_is_noticed_and_logged_with_its_holder(self) -> None:
        self.vitals.start()
        other = self.tables.connect()
        with other.transaction():
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT 1")
            self.pass_time(MAX_AGE - INTERVAL)
            self.assertGreaterEqual(self.vitals.oldest_xmin, 5)
            self.assertEqual([], self.warnings)
            self.pass_time(2 * INTERVAL)
            self.assertGreaterEqual(self.vitals.oldest_xmin_seconds, MAX_AGE - INTERVAL)
            [warning] = self.warnings
            self.assertEqual(f"the process {other.info.backend_pid}", warning["holder"])
        self.pass_time(INTERVAL)
        self.assertEqual(0.0, self.vitals.oldest_xmin_seconds)

    def test_snapshots_that_follow_each_other_are_not_old(self) -> None:
        self.vitals.start()
        other = self.tables.connect()
        for _ in range(20):
            with other.transaction():
                other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                other.execute("SELECT 1")
                self.pass_time(INTERVAL)
        self.assertLessEqual(self.vitals.oldest_xmin_seconds, INTERVAL)
        self.assertEqual([], self.warnings)

    def test_waits_for_locks_are_counted(self) -> None:
        holder, waiter = self.tables.connect(), self.tables.connect()
        with holder.transaction():
            holder.execute("SELECT pg_advisory_xact_lock(1)")
            thread = threading.Thread(target=waiter.execute, args=["SELECT pg_advisory_xact_lock(1)"])
            thread.start()
            self.addCleanup(thread.join)
            self.vitals.start()
            for _ in range(1000):
                if self.vitals.lock_waits:
                    break
                self.clock.advance(INTERVAL)
            self.assertEqual(1, self.vitals.lock_waits)
        thread.join()
        self.clock.advance(INTERVAL)
        self.assertEqual(0, self.vitals.lock_waits)

    def test_a_queue_that_fills_is_logged_once_a_minute(self) -> None:
        real = self.query
        self.patch(self.vitals, "_query", lambda *arguments: real(*arguments).addCallback(FullQueue))
        self.vitals.start()
        self.pass_time(5 * INTERVAL)
        self.assertEqual(0.75, self.vitals.notify_queue)
        self.assertEqual([75.0], [event["percent"] for event in self.warnings])
        self.pass_time(INTERVAL)
        self.assertEqual(2, len(self.warnings))

    def test_a_database_that_is_away_is_looked_at_again_later(self) -> None:
        self.is_away = True
        self.vitals.start()
        self.pass_time(3 * INTERVAL)
        self.is_away = False
        before = self.tables.queries
        self.pass_time(INTERVAL)
        self.assertEqual(before + 1, self.tables.queries)

    def test_after_a_stop_nothing_is_asked(self) -> None:
        self.vitals.start()
        self.vitals.stop()
        before = self.tables.queries
        self.pass_time(5 * INTERVAL)
        self.assertEqual((before, []), (self.tables.queries, self.clock.getDelayedCalls()))

    def test_commits_that_wait_for_a_standby_that_is_away_are_logged(self) -> None:
        server = started_server(self)
        server.run("create database streams owner streams")
        server.stop()
        (server.data / "postgresql.auto.conf").write_text("synchronous_standby_names = 'b'\n")
        server.start()
        looking, writing = (psycopg.connect(server.dsn("streams"), autocommit=True) for _ in range(2))
        self.addCleanup(looking.close)
        self.addCleanup(writing.close)
        thread = threading.Thread(target=writing.execute, args=["create table t ()"])
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.run, "select pg_cancel_backend(%s)", [writing.info.backend_pid])
        self.tables.connection = looking
        self.vitals.start()
        for _ in range(200):
            if self.warnings:
                break
            sleep(0.1)
            self.clock.advance(INTERVAL)
        self.assertIn("commits have waited for a synchronous standby", self.warnings[0]["log_format"])
