"""docs/postgres.rst, followed on one machine: its databases are two clusters, and systemctl is the test."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres.schema import SCHEMA_VERSION
from tests.support.daemon import CHECKOUT
from tests.support.postgres_server import SUPERUSER, PostgresServer, started_server
from tests.support.programs import program
from tests.support.shell import Shell, blocks_of

BLOCKS: Final = blocks_of(CHECKOUT / "docs" / "postgres.rst")

#: PostgreSQL refuses root, as which CI may run the tests.
_SUDO: Final = """#!/bin/sh
cd /
if [ "$1" = -u ] && [ "$2" = postgres ]; then
    shift 2
    [ "$(id -u)" != 0 ] || exec runuser -u postgres -- "$@"
fi
exec "$@"
"""


def block(words: str) -> str:
    """Return the one block that has these words."""
    [found] = [each for each in BLOCKS if words in each]
    return found


class PageCase(SynchronousTestCase):
    """Both database machines, with a shell each. Passwords are asked for, as on the page."""

    def setUp(self) -> None:
        program("pg_basebackup")
        self.first = started_server(self)
        (self.first.data / "pg_hba.conf").write_text(f"local all {SUPERUSER} trust\n")
        self.second = PostgresServer()
        self.addCleanup(self.second.remove)
        self.second.data.mkdir()
        self.changes = {
            "host=db1.example.com": f"host=127.0.0.1 port={self.first.port}",
            "db1.example.com:5432": f"127.0.0.1:{self.first.port}",
            "db2.example.com:5432": f"127.0.0.1:{self.second.port}",
            "db1.example.com/": f"127.0.0.1:{self.first.port}/",
            "10.0.0.0/24": "127.0.0.1/32",
        }
        self.db1, self.db2 = self.machine(self.first), self.machine(self.second)

    def machine(self, server: PostgresServer) -> Shell:
        """Return the shell of a machine with a database."""
        paths = {path: str(server.data) for path in ("/etc/postgresql/15/main", "/var/lib/postgresql/15/main")}
        variables = {"PGHOST": str(server.directory), "PGPORT": str(server.port), "PGUSER": SUPERUSER}
        shell = Shell(Path(self.mktemp()).absolute(), paths | self.changes, variables)
        shell.add_command("sudo", _SUDO)
        for name in ("apt", "systemctl"):
            shell.add_command(name, "#!/bin/sh\n")
        return shell

    def set_up_primary(self) -> None:
        """Follow step 1."""
        self.db1.run(block("CREATE ROLE replicator"))
        self.first.stop()
        self.first.start()

    def set_up_standby(self) -> None:
        """Follow step 2."""
        self.db2.run(block("pg_basebackup"))
        self.second.start()
        self.assertRegex(self.db1.run(block("synchronous_standby_names = 'db2'")), r"db2 +\| sync")


class RightsTests(PageCase):
    def as_servers(self, statement: str) -> None:
        dsn = f"host=127.0.0.1 port={self.first.port} user=durable_streams password=app-secret dbname=streams"
        with psycopg.connect(dsn) as connection:
            connection.execute(statement)

    def test_the_servers_get_rights_on_the_tables_of_another_role(self) -> None:
        self.set_up_primary()
        printed = self.db1.run(block("CREATE ROLE streams_owner") + "\n" + block("migrate --grant-to durable_streams"))
        self.assertIn("Granted durable_streams the rights that a server needs.", printed)
        self.as_servers("select * from durable_streams.streams")

    def test_the_printed_script_does_the_same(self) -> None:
        self.set_up_primary()
        variables = {"DS_STORAGE__MODE": "postgres"}
        self.db1.environment |= variables
        # The owner of the schema is created by the block before.
        self.db1.run(block("CREATE ROLE streams_owner").partition("export")[0])
        self.db1.run(block("--print-sql"))
        self.as_servers("insert into durable_streams.key_values values ('a', '')")
        self.assertRaises(
            psycopg.errors.InsufficientPrivilege, self.as_servers, "drop table durable_streams.key_values"
        )

    def test_migrate_does_nothing_the_second_time(self) -> None:
        self.set_up_primary()
        dsn = f"postgresql://durable_streams:app-secret@127.0.0.1:{self.first.port}/streams"
        self.db1.environment |= {"DS_STORAGE__MODE": "postgres", "DS_STORAGE__POSTGRES__DSN": dsn}
        [upgrade] = [each for each in BLOCKS if each == "durable-streams-server migrate"]
        self.assertIn("Installed version 1", self.db1.run(upgrade))
        [line] = self.db1.run(upgrade).splitlines()
        self.assertIn(f"the tables have version {SCHEMA_VERSION}.", line)


class StandbyTests(PageCase):
    def test_the_standby_is_synchronous_and_can_be_promoted(self) -> None:
        self.set_up_primary()
        self.set_up_standby()
        self.first.run("create table t as select 7 as n", None, "streams")
        self.first.stop()
        self.assertIn("t", self.db2.run(block("pg_promote")))
        self.assertEqual([(7,)], self.second.run("select n from t", None, "streams"))
        self.assertEqual([(False,)], self.second.run("select pg_is_in_recovery()"))
