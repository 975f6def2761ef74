"""The command ``migrate``: what it prints, what it does, and its errors."""

from __future__ import annotations

import json
from unittest.mock import Mock

import psycopg
from click.testing import Result
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.daemon import databases
from durable_streams.server.storage.postgres.schema import SCHEMA_VERSION
from durable_streams.server.storage.postgres.scripts import whole_script
from tests.support.commands import command
from tests.support.postgres_server import database, shared_server


class MigrateCase(SynchronousTestCase):
    def migrate(self, *arguments: str, **settings: str) -> Result:
        return command("migrate", *arguments, **{"storage__mode": "postgres"} | settings)


class DatabaseTests(MigrateCase):
    def setUp(self) -> None:
        self.dsn = database(self)

    def run_migrate(self, *arguments: str, **settings: str) -> Result:
        return self.migrate(*arguments, storage__postgres__dsn=make_conninfo(self.dsn, password="hush"), **settings)

    def test_the_tables_are_created_once(self) -> None:
        first, second = self.run_migrate(), self.run_migrate()
        self.assertEqual((0, 0), (first.exit_code, second.exit_code), first.output + second.output)
        *installed, last = first.stdout.splitlines()
        self.assertEqual([f"Installed version {n + 1} of the tables." for n in range(SCHEMA_VERSION)], installed)
        self.assertRegex(
            last,
            r"^PostgreSQL \d+\.\d+ at /\S+, database streams_\d+, schema durable_streams: the tables have version "
            rf"{SCHEMA_VERSION}\.$",
        )
        self.assertEqual([last], second.stdout.splitlines())

    def test_json_has_the_versions(self) -> None:
        done = json.loads(self.run_migrate("--json", storage__postgres__schema="other").stdout)
        self.assertEqual({"database", "version", "installed", "granted_to"}, set(done))
        self.assertEqual((SCHEMA_VERSION, None), (done["version"], done["granted_to"]))
        self.assertEqual(
            [], json.loads(self.run_migrate("--json", storage__postgres__schema="other").stdout)["installed"]
        )

    def test_a_role_gets_rights_also_on_tables_that_are_there(self) -> None:
        role = f"{conninfo_to_dict(self.dsn)['dbname']}_app"
        shared_server().run(f"create role {role} login")
        self.addCleanup(shared_server().run, f"drop role {role}")
        self.addCleanup(shared_server().run, f"drop owned by {role}", None, str(conninfo_to_dict(self.dsn)["dbname"]))
        self.run_migrate()
        done = self.run_migrate("--grant-to", role)
        self.assertIn(f"Granted {role} the rights that a server needs.", done.stdout)
        with psycopg.connect(make_conninfo(self.dsn, user=role)) as connection:
            self.assertEqual([], connection.execute("select name from durable_streams.streams").fetchall())

    def test_the_schema_may_be_created_although_servers_may_not(self) -> None:
        self.assertEqual(0, self.run_migrate(storage__postgres__migrate="false").exit_code)

    def test_a_failure_is_one_line_with_status_1(self) -> None:
        for settings, words in (
            (
                {"storage__postgres__dsn": make_conninfo(self.dsn, dbname="nowhere")},
                'database "nowhere" does not exist',
            ),
            ({"storage__postgres__dsn": "postgresql://me:hu@hush@db/x"}, "storage.postgres.dsn is not a connection"),
        ):
            done = self.migrate(**settings)
            self.assertEqual((1, ""), (done.exit_code, done.stdout))
            [line] = done.stderr.splitlines()
            self.assertTrue(line.startswith("migrate failed: "), line)
            self.assertIn(words, line)
            self.assertNotIn("hush", line)


class WithoutDatabaseTests(MigrateCase):
    def test_the_printed_script_is_that_of_the_schema(self) -> None:
        for arguments, expected in (
            ([], whole_script("other", 0, None)),
            (["--grant-to", "a b"], whole_script("other", 0, "a b")),
            (["--from-version", str(SCHEMA_VERSION)], whole_script("other", SCHEMA_VERSION, None)),
        ):
            done = self.migrate("--print-sql", *arguments, storage__postgres__schema="other")
            self.assertEqual((0, expected), (done.exit_code, done.stdout))
        self.assertIn("CREATE TABLE other.streams (", whole_script("other", 0, None))

    def test_another_mode_is_an_error(self) -> None:
        done = self.migrate(storage__mode="file")
        self.assertEqual(1, done.exit_code)
        self.assertIn("migrate failed: storage.mode is file-durable, which has no tables.", done.stderr)

    def test_invalid_settings_of_the_storage_are_an_error(self) -> None:
        done = self.migrate("--print-sql", storage__postgres__schema="a;b")
        self.assertEqual(1, done.exit_code)
        self.assertIn("[validate_config] storage.postgres.schema must be a name of lower-case letters", done.stderr)

    def test_without_psycopg_the_error_names_the_extra(self) -> None:
        error = ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
        self.patch(databases, "import_module", Mock(side_effect=error))
        done = self.migrate()
        self.assertEqual(1, done.exit_code)
        self.assertIn("pip install 'durable-streams-server[postgres]'", done.stderr)
        self.assertEqual(0, self.migrate("--print-sql").exit_code)

    def test_options_that_exclude_each_other_have_status_2(self) -> None:
        for arguments in (["--from-version", "0"], ["--print-sql", "--json"], ["--print-sql", "--from-version", "99"]):
            self.assertEqual(2, self.migrate(*arguments).exit_code)
