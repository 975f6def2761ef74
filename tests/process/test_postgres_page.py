"""docs/postgres.rst, followed on one machine: its databases are two clusters, and systemctl is the test."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres.schema import SCHEMA_VERSION
from tests.support.commands import COMMAND, environment
from tests.support.daemon import CHECKOUT, Daemon
from tests.support.postgres_server import SUPERUSER, PostgresServer, started_server
from tests.support.programs import program
from tests.support.proxies import HAProxy, wait_until
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

    def test_a_node_with_these_rights_does_all_that_a_node_does(self) -> None:
        self.set_up_primary()
        self.db1.run(block("CREATE ROLE streams_owner") + "\n" + block("migrate --grant-to durable_streams"))
        dsn = f"postgresql://durable_streams:app-secret@127.0.0.1:{self.first.port}/streams"
        with Daemon(storage__mode="postgres", storage__postgres__dsn=dsn, storage__postgres__migrate="false") as node:
            node.create("a", body=b"one")
            node.append("a", b"two")
            node.create("wakes", "application/json")
            status, _, _ = node.request(
                "PUT", "/v1/stream/b", stream_forked_from="/v1/stream/a", content_type="text/plain", stream_ttl="1"
            )
            self.assertEqual(201, status)
            status, _, answer = node.request(
                "PUT",
                "/v1/stream/__ds/subscriptions/s",
                b'{"type": "pull-wake", "streams": ["a"], "wake_stream": "wakes"}',
                content_type="application/json",
            )
            self.assertIn(status, (200, 201), answer)
            self.assertEqual(b"onetwo", node.request("GET", "/v1/stream/a")[2])
            # The fork expires, and is removed by the sweep.
            wait_until(lambda: node.request("HEAD", "/v1/stream/b")[0] == 404, "The fork did not expire.")
            self.assertEqual(204, node.request("DELETE", "/v1/stream/a")[0])
            self.assertEqual(0, node.stop())
            self.assertNotIn("permission denied", node.log())

    def test_the_printed_script_does_the_same(self) -> None:
        self.set_up_primary()
        variables = {"DS_STORAGE__MODE": "postgres"}
        self.db1.environment |= variables
        # The owner of the schema is created by the block before.
        self.db1.run(block("CREATE ROLE streams_owner").partition("export")[0])
        self.db1.run(block("--print-sql"))
        self.as_servers("insert into durable_streams.removed values (1, 0)")
        self.assertRaises(psycopg.errors.InsufficientPrivilege, self.as_servers, "drop table durable_streams.removed")

    def test_migrate_does_nothing_the_second_time(self) -> None:
        self.set_up_primary()
        dsn = f"postgresql://durable_streams:app-secret@127.0.0.1:{self.first.port}/streams"
        self.db1.environment |= {"DS_STORAGE__MODE": "postgres", "DS_STORAGE__POSTGRES__DSN": dsn}
        [upgrade] = [each for each in BLOCKS if each == "durable-streams-server migrate"]
        self.assertIn("Installed version 1", self.db1.run(upgrade))
        [line] = self.db1.run(upgrade).splitlines()
        self.assertIn(f"the tables have version {SCHEMA_VERSION}.", line)


class PageProxy(HAProxy):
    """HAProxy with the backend of the page; ``upstream`` has the addresses of the nodes, separated by spaces."""

    def configuration(self, upstream: str) -> str:
        backend = block("backend durable_streams")
        for number, address in enumerate(upstream.split(), 1):
            backend = backend.replace(f"10.0.0.1{number}:4437", address)
        before = super().configuration("127.0.0.1:1").partition("\nbackend durable_streams")[0]
        return f"{before}\n{backend}\n"


class NodeTests(PageCase):
    """The whole set-up: two databases, three nodes, and HAProxy."""

    def setUp(self) -> None:
        super().setUp()
        self.set_up_primary()
        self.set_up_standby()
        folder = Path(self.mktemp()).absolute()
        node = Shell(
            folder, self.changes | {"/etc/durable-streams": str(folder), " -o durable-streams -g durable-streams": ""}
        )
        node.add_command("sudo", _SUDO)
        node.run(block("/dev/stdin"))
        self.assertEqual(0o600, (folder / "dsn").stat().st_mode & 0o777)
        settings = block("[storage.postgres]").replace("/etc/durable-streams", str(folder))
        (folder / "local.toml").write_text(settings)
        self.folder = folder
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.nodes = [self.stack.enter_context(Node(folder)) for _ in range(3)]
        upstream = " ".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        self.proxy = self.stack.enter_context(PageProxy(upstream))
        self.client = Shell(
            Path(self.mktemp()).absolute(), {"https://streams.example.com": f"-k https://127.0.0.1:{self.proxy.port}"}
        )

    def test_requests_to_different_nodes_are_one_stream_before_and_after_a_failover(self) -> None:
        promises = [line for node in self.nodes for line in node.log().splitlines() if "acknowledged appends" in line]
        self.assertEqual(3, len(promises))
        for promise in promises:
            self.assertIn("synchronous_standby_names is 'db2': acknowledged appends survive the loss of the", promise)
            self.assertNotIn("app-secret", promise)
        self.assertEqual("1 2 3 4 5 6 ", self.client.run(block("for n in 1 2 3")))
        self.first.stop(signal.SIGKILL)
        self.assertIn("t", self.db2.run(block("pg_promote")))
        retry = "--retry 60 --retry-delay 1 --retry-all-errors --fail"
        for n in (7, 8, 9):
            self.client.run(
                f"curl -sS {retry} -X POST https://streams.example.com/v1/stream/hello "
                f"-H 'Content-Type: text/plain' -H 'Producer-Id: me' -H 'Producer-Epoch: 0' "
                f"-H 'Producer-Seq: {n - 7}' -d '{n} '"
            )
        read = f"curl -sS {retry} https://streams.example.com/v1/stream/hello"
        self.assertEqual({"1 2 3 4 5 6 7 8 9 "}, {self.client.run(read) for _ in range(3)})
        for node in self.nodes:
            self.assertEqual(0, node.stop())
            self.assertNotIn("app-secret", node.log())


class Node(Daemon):
    """A node with the settings of a folder."""

    def __init__(self, folder: Path) -> None:
        self.command = (sys.executable, "-m", "durable_streams.server", "serve", f"--config-dir={folder}")
        super().__init__()


class FailureTests(SynchronousTestCase):
    def test_a_node_without_its_database_says_what_the_page_says(self) -> None:
        done = subprocess.run(
            [*COMMAND, "serve"],
            env=environment(
                server__bind_address="127.0.0.1:0",
                storage__mode="postgres",
                storage__postgres__dsn="postgresql://me@127.0.0.1:1/streams",
            ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(1, done.returncode)
        self.assertEqual(block("[open_storage]").replace("5432", "1"), done.stderr.splitlines()[-1])
