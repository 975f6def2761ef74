"""Creating and upgrading the tables: once, by whoever comes first, and with the rights that are needed only."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StorageError
from durable_streams.server.storage.postgres import migrating, schema, scripts
from durable_streams.server.storage.postgres.migrating import check_rights, found_version, upgrade
from durable_streams.server.storage.postgres.schema import SCHEMA_VERSION
from durable_streams.server.storage.postgres.scripts import grants, whole_script
from tests.support.postgres_server import SUPERUSER, database, shared_server
from tests.support.programs import program

_NEXT = "CREATE TABLE {schema}.later (n int);\n"


class MigratingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.dsn = database(self)
        self.name = str(conninfo_to_dict(self.dsn)["dbname"])

    def connect(self, **parameters: str) -> psycopg.Connection[Any]:
        connection = psycopg.connect(make_conninfo(self.dsn, **parameters), autocommit=True)
        self.addCleanup(connection.close)
        return connection

    def role(self) -> str:
        """Create a role without any rights, which is dropped after the test."""
        name = f"{self.name} app"
        self.as_superuser(f'create role "{name}" login')
        self.addCleanup(shared_server().run, f'drop role "{name}"')
        self.addCleanup(self.as_superuser, f'drop owned by "{name}"')
        return name

    def as_superuser(self, statement: str) -> list[tuple[Any, ...]]:
        return shared_server().run(statement, None, self.name)

    def with_another_migration(self) -> None:
        """Pretend that this server is the next one, whose tables have one version more."""
        self.patch(schema, "_MIGRATIONS", (*schema._MIGRATIONS, _NEXT))
        for module in (schema, scripts, migrating):
            self.patch(module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)


class UpgradeTests(MigratingCase):
    def test_a_schema_gets_all_versions_once(self) -> None:
        connection = self.connect()
        self.assertEqual(0, found_version(connection, "other"))
        self.assertEqual(list(range(1, SCHEMA_VERSION + 1)), upgrade(connection, "other"))
        self.assertEqual(SCHEMA_VERSION, found_version(connection, "other"))
        self.assertEqual([], upgrade(connection, "other"))
        self.assertEqual(0, found_version(connection, "durable_streams"))

    def test_a_schema_of_an_earlier_version_gets_only_what_it_lacks(self) -> None:
        connection = self.connect()
        upgrade(connection, "streams")
        before = connection.execute("select last_value from streams.ids").fetchall()
        self.with_another_migration()
        self.assertEqual([SCHEMA_VERSION + 1], upgrade(connection, "streams"))
        self.assertEqual([], connection.execute("select n from streams.later").fetchall())
        self.assertEqual(before, connection.execute("select last_value from streams.ids").fetchall())

    def test_concurrent_upgrades_install_each_version_once(self) -> None:
        installed: list[list[int]] = []
        connections = [self.connect() for _ in range(4)]
        threads = [
            threading.Thread(target=lambda c: installed.append(upgrade(c, "streams")), args=[c]) for c in connections
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([[], [], [], list(range(1, SCHEMA_VERSION + 1))], sorted(installed))

    def test_an_upgrade_that_has_waited_for_another_finds_its_tables(self) -> None:
        first, second = self.connect(), self.connect()
        # A session remembers that there is no schema, until it processes messages of others about it.
        self.assertEqual(0, found_version(second, "streams"))
        outcomes: list[object] = []

        def upgrade_too() -> None:
            try:
                outcomes.append(upgrade(second, "streams"))
            except StorageError as error:
                outcomes.append(error)

        waiting = threading.Thread(target=upgrade_too)
        with first.transaction():
            self.assertNotEqual([], upgrade(first, "streams"))
            waiting.start()
            waits = "select 1 from pg_locks where locktype = 'advisory' and not granted and database = "
            waits += f"(select oid from pg_database where datname = '{self.name}')"
            deadline = time.monotonic() + 20
            while not self.as_superuser(waits):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
        waiting.join()
        self.assertEqual([[]], outcomes)

    def test_a_failed_upgrade_changes_nothing(self) -> None:
        connection = self.connect()
        self.patch(schema, "_MIGRATIONS", (*schema._MIGRATIONS, "CREATE TABLE {schema}.streams (n int);"))
        error = self.assertRaises(StorageError, upgrade, connection, "streams")
        self.assertIn('The schema streams is used by something else: relation "streams" already exists.', str(error))
        self.assertEqual([(None,)], connection.execute("select to_regnamespace('streams')").fetchall())

    def test_a_schema_with_tables_of_another_program_is_refused(self) -> None:
        connection = self.connect()
        connection.execute("create schema app; create table app.leases (n int)")
        error = self.assertRaises(StorageError, upgrade, connection, "app")
        self.assertIn("Set storage.postgres.schema to another schema.", str(error))
        self.assertEqual(0, found_version(connection, "app"))

    def test_an_upgrade_waits_for_another_only_so_long(self) -> None:
        holder, connection = self.connect(), self.connect()
        self.patch(migrating, "_LOCK_TIMEOUT", "50ms")
        with holder.transaction():
            holder.execute("select pg_advisory_xact_lock(hashtextextended('durable-streams-server streams', 0))")
            error = self.assertRaises(StorageError, upgrade, connection, "streams")
        self.assertIn("The tables in the schema streams are in use: ", str(error))
        self.assertEqual([1], upgrade(connection, "streams")[:1])

    def test_the_tables_of_a_later_server_are_not_touched(self) -> None:
        connection = self.connect()
        upgrade(connection, "streams")
        connection.execute("insert into streams.schema_versions (version) values (99)")
        error = self.assertRaises(StorageError, upgrade, connection, "streams", "nobody")
        self.assertIn("have version 99; this server knows versions up to", str(error))


class RightsTests(MigratingCase):
    def test_a_role_that_may_not_create_a_schema_is_told_what_to_run(self) -> None:
        role = self.role()
        error = self.assertRaises(StorageError, upgrade, self.connect(user=role), "streams")
        self.assertIn(f"The role {role} may not create or upgrade the tables in the schema streams: ", str(error))
        self.assertIn(f"CREATE SCHEMA streams AUTHORIZATION {role}", str(error))

    def test_a_role_that_owns_the_schema_needs_no_right_on_the_database(self) -> None:
        role = self.role()
        self.as_superuser(f'create schema streams authorization "{role}"')
        connection = self.connect(user=role)
        self.assertEqual([1], upgrade(connection, "streams")[:1])
        check_rights(connection, "streams")

    def test_the_grants_are_all_that_a_server_needs(self) -> None:
        role = self.role()
        upgrade(self.connect(), "streams", role)
        connection = self.connect(user=role)
        self.assertEqual(SCHEMA_VERSION, found_version(connection, "streams"))
        check_rights(connection, "streams")
        self.assertRaises(psycopg.errors.InsufficientPrivilege, connection.execute, "drop table streams.chunks")
        self.assertRaises(psycopg.errors.InsufficientPrivilege, connection.execute, "create table streams.x (n int)")
        self.assertRaises(psycopg.errors.InsufficientPrivilege, connection.execute, "create schema x")

    def test_each_missing_right_is_noticed(self) -> None:
        role = self.role()
        upgrade(self.connect(), "streams", role)
        connection = self.connect(user=role)
        for right, objects in (
            ("UPDATE", "TABLE streams.writers"),
            ("UPDATE", "SEQUENCE streams.ids"),
            ("EXECUTE", "FUNCTION streams.clock()"),
        ):
            everybody = ", public" if right == "EXECUTE" else ""
            self.as_superuser(f'revoke {right} on {objects} from "{role}"{everybody}')
            error = self.assertRaises(StorageError, check_rights, connection, "streams")
            self.assertIn(f"lacks a right: {right} on {objects.partition(' ')[2]}. Run as the owner", str(error))
            self.as_superuser(f'grant {right} on {objects} to "{role}"')

    def test_a_role_that_does_not_exist_is_a_sentence(self) -> None:
        error = self.assertRaises(StorageError, upgrade, self.connect(), "streams", "no body")
        self.assertEqual('role "no body" does not exist. Create the role first, or correct its name.', str(error))
        self.assertEqual(0, found_version(self.connect(), "streams"))


class ScriptTests(MigratingCase):
    def run_script(self, text: str) -> subprocess.CompletedProcess[str]:
        dsn = make_conninfo(self.dsn, user=SUPERUSER)
        command = [program("psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={dsn}"]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    def test_the_script_makes_what_a_start_makes(self) -> None:
        role = self.role()
        done = self.run_script(whole_script("streams", 0, role))
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        connection = self.connect(user=role)
        self.assertEqual(SCHEMA_VERSION, found_version(connection, "streams"))
        check_rights(connection, "streams")

    def test_the_script_of_an_upgrade_has_only_what_is_missing(self) -> None:
        self.assertEqual(0, self.run_script(whole_script("streams", 0, None)).returncode)
        self.with_another_migration()
        text = whole_script("streams", SCHEMA_VERSION, None)
        self.assertNotIn("CREATE TABLE streams.chunks", text)
        done = self.run_script(text)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        self.assertEqual([(SCHEMA_VERSION + 1,)], self.as_superuser("select max(version) from streams.schema_versions"))

    def test_a_script_that_fails_changes_nothing(self) -> None:
        self.as_superuser("create schema streams; create table streams.leases (n int)")
        self.assertNotEqual(0, self.run_script(whole_script("streams", 0, None)).returncode)
        self.assertEqual([(None,)], self.as_superuser("select to_regclass('streams.chunks')"))

    def test_without_a_role_the_grants_are_comments(self) -> None:
        text = whole_script("streams", 0, None)
        self.assertIn("\n-- GRANT USAGE ON SCHEMA streams TO ROLE;\n", text)
        self.assertNotIn("\nGRANT", text)

    def test_names_of_roles_are_quoted(self) -> None:
        for statement in grants("streams", 'a"; drop table x; --'):
            self.assertTrue(statement.endswith(' TO "a""; drop table x; --"'), statement)
        with patch.object(scripts, "SCHEMA_VERSION", 1):
            self.assertRaises(ValueError, list, grants("a; b", "me"))
