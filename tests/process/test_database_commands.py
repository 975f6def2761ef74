"""Commands without ``--url``, and the daemon's start, on a database."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from psycopg.conninfo import make_conninfo
from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import run_command
from tests.support.daemon import Daemon
from tests.support.postgres_server import database, shared_server


class DatabaseCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.dsn = make_conninfo(database(self), password="hush")
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def attempt(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[bytes]:
        chosen = {"storage__mode": "postgres", "storage__postgres__dsn": self.dsn} | settings
        done = run_command(*arguments, folder=self.folder, **chosen)
        self.assertNotIn(b"hush", done.stdout + done.stderr)
        return done

    def run_it(self, *arguments: str, **settings: str) -> str:
        done = self.attempt(*arguments, **settings)
        self.assertEqual(0, done.returncode, done.stderr.decode())
        return done.stdout.decode() + done.stderr.decode()

    def node(self) -> Daemon:
        """Return a server on the database."""
        return Daemon(storage__mode="postgres", storage__postgres__dsn=self.dsn)


class CommandTests(DatabaseCase):
    def test_streams_move_between_databases_while_servers_run(self) -> None:
        other = make_conninfo(database(self), password="hush")
        with self.node() as node:
            node.create("a", body=b"hello")
            node.create("b", body=b"x")
            self.assertEqual(["a", "b"], [each["name"] for each in json.loads(self.run_it("list", "--json"))])
            self.run_it("export", "-o", "streams.json", "--stream", "a")
            self.run_it("backup", "-o", "streams.tar.zst")
            with Daemon(storage__mode="postgres", storage__postgres__dsn=other) as second:
                imported = self.run_it("import", "-i", "streams.json", storage__postgres__dsn=other)
                self.assertIn("Imported 1 stream(s)", imported)
                self.assertEqual(b"hello", second.request("GET", "/v1/stream/a")[2])
                restored = self.run_it(
                    "restore", "streams.tar.zst", "--on-conflict", "replace", storage__postgres__dsn=other
                )
                self.assertIn("Restored 2 stream(s), 1 of them replaced", restored)
                self.assertEqual(
                    node.request("HEAD", "/v1/stream/b")[1]["stream-next-offset"],
                    second.request("HEAD", "/v1/stream/b")[1]["stream-next-offset"],
                )
            self.assertIn("checked 2 streams", self.run_it("check", storage__postgres__dsn=other))

    def test_a_database_that_is_away_is_a_sentence(self) -> None:
        settings = {
            "storage__postgres__dsn": "postgresql://me:hush@127.0.0.1:1/streams",
            "storage__postgres__wait_ms": "1",
        }
        for name in ("list", "export", "backup"):
            done = self.attempt(name, *([] if name == "list" else ["-o", "file"]), **settings)
            self.assertEqual((1, b""), (done.returncode, done.stdout))
            self.assertIn(b"Cannot open the database (storage.mode postgres): Cannot connect to the data", done.stderr)
        self.assertEqual([], list(self.folder.iterdir()))


class StartTests(DatabaseCase):
    def test_a_start_without_its_database_names_phase_and_reason(self) -> None:
        done = self.attempt("serve", storage__postgres__dsn=shared_server().dsn("nowhere", password="hush"))
        self.assertEqual(1, done.returncode)
        last = done.stderr.decode().splitlines()[-1]
        self.assertTrue(last.startswith("[open_storage] Cannot open the storage (storage.mode postgres): "), last)
        self.assertIn('database "nowhere" does not exist. Create it, for example: createdb', last)

    def test_the_log_says_where_the_streams_are_and_what_an_append_survives(self) -> None:
        with self.node() as node:
            self.assertEqual(0, node.stop())
            log = node.log()
        self.assertIn("Database: installed version 1 of the tables.", log)
        self.assertRegex(log, r"Database: PostgreSQL \d+\.\d+ at /\S+, database streams_\d+, schema durable_streams\.")
        self.assertIn("synchronous_commit is on and synchronous_standby_names is ''", log)
        self.assertNotIn("hush", log)
        self.assertNotIn("data_dir", log)
