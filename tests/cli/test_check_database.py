"""The command ``check`` on a database: output and exit status."""

from __future__ import annotations

import json

from click.testing import Result
from psycopg.conninfo import make_conninfo
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres.schema import SCHEMA_VERSION
from durable_streams.server.storage.postgres.scripts import VERSIONS
from tests.support.commands import command
from tests.support.postgres_rows import Rows
from tests.support.postgres_server import shared_server
from tests.support.postgres_tables import SCHEMA


class CheckDatabaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rows = Rows(self)
        self.rows.connection.execute(f"CREATE TABLE {SCHEMA}.{VERSIONS} (version integer)")
        self.rows.connection.execute(f"INSERT INTO {SCHEMA}.{VERSIONS} VALUES (%s)", (SCHEMA_VERSION,))
        self.rows.create(1)
        self.rows.append(1, 0, [b"abc", b"defg"], 7)

    def check(self, *arguments: str, schema: str = SCHEMA, **settings: str) -> Result:
        chosen = {
            "storage__mode": "postgres",
            "storage__postgres__schema": schema,
            "storage__postgres__dsn": make_conninfo(self.rows.dsn, password="hush"),
        }
        return command("check", *arguments, **chosen | settings)

    def test_an_undamaged_database_has_status_0(self) -> None:
        done = self.check()
        self.assertEqual(0, done.exit_code, done.output)
        [line] = done.output.splitlines()
        self.assertRegex(line, r"^schema streams: checked 1 streams, 2 appends and 7 bytes in [0-9.]+ s: no damage\.$")

    def test_damage_is_reported_with_status_1(self) -> None:
        self.rows.connection.execute(f"UPDATE {SCHEMA}.chunks SET data = 'abcdefx'")
        done = self.check()
        self.assertEqual(1, done.exit_code, done.output)
        finding, summary = done.output.splitlines()
        self.assertTrue(
            finding.startswith("DAMAGED: chunks, stream 1, start 0: s1: bytes 0 to 7 are damaged."), finding
        )
        self.assertTrue(summary.endswith(": 1 finding of damage."), summary)
        report = json.loads(self.check("--json").stdout)
        self.assertEqual(("postgres", SCHEMA_VERSION, False), (report["storage"], report["version"], report["whole"]))
        self.assertEqual([True], [each["serious"] for each in report["findings"]])

    def test_a_database_that_cannot_be_checked_has_status_2(self) -> None:
        for settings, words in (
            ({"storage__postgres__dsn": shared_server().dsn("nowhere", password="hush")}, "does not exist. Create it"),
            ({"storage__postgres__dsn_file": "/nowhere"}, "storage.postgres.dsn_file must be left out while"),
        ):
            done = self.check(**settings)
            self.assertEqual(2, done.exit_code, done.output)
            [line] = done.stderr.splitlines()
            self.assertIn(words, line)
            self.assertNotIn("hush", line)

    def test_a_directory_that_is_given_is_checked_instead(self) -> None:
        done = self.check("--data-dir", "/nowhere")
        self.assertEqual(2, done.exit_code)
        self.assertIn("The data directory /nowhere does not exist.", done.stderr)
