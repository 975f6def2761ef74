"""The PostgreSQL server for tests: a database for each test, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT
from tests.support.postgres_server import ROLE, database, shared_server, started_server
from tests.support.skipping import skip_other_platform


class DatabaseTests(SynchronousTestCase):
    def test_each_database_is_new_and_belongs_to_the_role_of_the_tests(self) -> None:
        first, second = database(self), database(self)
        with psycopg.connect(first) as connection:
            connection.execute("create table t (n int)")
            self.assertEqual((ROLE,), connection.execute("select current_user").fetchone())
            self.assertEqual(("off",), connection.execute("show is_superuser").fetchone())
        with psycopg.connect(second) as connection:
            self.assertEqual((None,), connection.execute("select to_regclass('t')").fetchone())

    def test_a_database_is_a_copy_of_its_template(self) -> None:
        server = shared_server()
        template = server.create_database()
        self.addCleanup(server.drop_database, template)
        with psycopg.connect(server.dsn(template)) as connection:
            connection.execute("create table t as select 7 as n")
        with psycopg.connect(database(self, template)) as connection:
            self.assertEqual((7,), connection.execute("select n from t").fetchone())

    def test_a_database_is_dropped_while_connections_to_it_are_open(self) -> None:
        server = shared_server()
        name = server.create_database()
        with psycopg.connect(server.dsn(name)):
            server.drop_database(name)
        self.assertEqual([], server.run("select 1 from pg_database where datname = %s", [name]))

    def test_commits_wait_for_the_disk_unless_the_test_says_otherwise(self) -> None:
        for durable, setting in ((True, "on"), (False, "off")):
            with psycopg.connect(database(self, durable=durable)) as connection:
                self.assertEqual((setting,), connection.execute("show synchronous_commit").fetchone())
                self.assertEqual(("on",), connection.execute("show fsync").fetchone())

    def test_the_server_is_reached_by_tcp_too(self) -> None:
        server = shared_server()
        name = server.create_database()
        self.addCleanup(server.drop_database, name)
        with psycopg.connect(server.dsn(name, over_tcp=True)) as connection:
            self.assertEqual("127.0.0.1", connection.info.host)


class ServerTests(SynchronousTestCase):
    def test_what_was_committed_survives_the_end_of_all_processes(self) -> None:
        server = started_server(self, {"autovacuum": "off"})
        self.assertEqual([("off",)], server.run("show autovacuum"))
        server.run("create table t as select 7 as n")
        server.stop(signal.SIGQUIT)
        server.start()
        self.assertEqual([(7,)], server.run("select n from t"))

    def test_a_server_that_can_not_start_fails_with_its_log(self) -> None:
        error = self.assertRaises(AssertionError, started_server, self, {"no_such_setting": "1"})
        self.assertIn("unrecognized configuration parameter", str(error))

    def test_the_server_ends_with_a_test_process_that_is_killed(self) -> None:
        if sys.platform != "linux":
            skip_other_platform("only Linux ends a process with its parent")
        shared_server()  # Skips the test if there is no PostgreSQL.
        code = (
            "from tests.support.postgres_server import shared_server as s\n"
            "print(s().process.pid, s().directory, flush=True)\n"
            "input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as program:
            assert program.stdout is not None
            pid, directory = program.stdout.readline().decode().split()
            self.assertTrue(Path(directory, "data", "postmaster.pid").exists())
            program.kill()
        until = time.monotonic() + 30
        while self.is_running(int(pid)) and time.monotonic() < until:
            time.sleep(0.05)
        self.assertFalse(self.is_running(int(pid)))
        # The next server removes the directory.
        started_server(self)
        self.assertFalse(Path(directory).exists())

    def is_running(self, pid: int) -> bool:
        """Return whether a process exists and has not ended."""
        try:
            os.kill(pid, 0)
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False
