"""Preparing the database at a start: what is checked, what is waited for, and the sentences of failures."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import threading
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import psycopg
from psycopg.conninfo import conninfo_to_dict
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StorageError
from durable_streams.server.storage.postgres.opening import Patience, check_server, log_preparation, prepare
from durable_streams.server.storage.postgres.schema import SCHEMA_VERSION
from durable_streams.server.storage.postgres.settings import PostgresSettings
from tests.support.authority import Authority, authority
from tests.support.postgres_server import PostgresServer, database, shared_server, started_server


class FakeTime:
    """A monotonic time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1

    def patience(self) -> Patience:
        return Patience(lambda: self.now, self.sleep)


class OpeningCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.time = FakeTime()
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def refusal(self, dsn: str, **values: Any) -> str:
        """Return the sentence with which preparing fails."""
        settings = PostgresSettings(dsn=dsn, **values)
        message = str(self.assertRaises(StorageError, prepare, settings, self.time.patience()))
        self.assertNotIn("hush", message)
        self.assertNotIn("\n", message)
        return message

    def execute(self, dsn: str, statement: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statement)

    def as_superuser(self, dsn: str, statement: str) -> None:
        shared_server().run(statement, None, str(conninfo_to_dict(dsn)["dbname"]))


class ReachingTests(OpeningCase):
    def test_an_unknown_host_is_tried_again_for_the_wait_and_then_named(self) -> None:
        message = self.refusal("postgresql://me:hush@nowhere.invalid/streams", wait_ms=3_000)
        self.assertIn("Cannot connect to the database for 3 s: failed to resolve host 'nowhere.invalid'", message)
        self.assertIn("Correct the host in the connection string (storage.postgres.dsn).", message)
        self.assertEqual(6, self.time.sleeps)

    def test_a_refused_connection_names_address_and_port(self) -> None:
        message = self.refusal("postgresql://me:hush@127.0.0.1:1/streams", wait_ms=1)
        self.assertIn('connection to server at "127.0.0.1", port 1 failed: Connection refused. Start the data', message)

    def test_a_database_that_comes_within_the_wait_is_used(self) -> None:
        dsn = database(self)
        attempts = []

        def connect(*arguments: Any, **options: Any) -> Any:
            attempts.append(1)
            return real("postgresql://127.0.0.1:1/x" if len(attempts) < 4 else arguments[0], **options)

        real = psycopg.connect
        with patch.object(psycopg, "connect", connect):
            prepared = prepare(PostgresSettings(dsn=dsn), self.time.patience())
        self.assertEqual([1], prepared.installed)
        self.assertEqual((4, 3), (len(attempts), self.time.sleeps))
        warned = [event for event in self.events if "trying again" in (event.get("log_format") or "")]
        self.assertEqual(1, len(warned))

    def test_a_database_that_is_starting_is_waited_for_ten_minutes(self) -> None:
        port = _refuse_all(self, "57P03", "the database system is starting up")
        message = self.refusal(f"host=127.0.0.1 port={port} sslmode=disable gssencmode=disable", wait_ms=1)
        self.assertIn("Cannot connect to the database for 600 s: ", message)
        self.assertIn("the database system is starting up. Wait until it has started, or read its log.", message)

    def test_a_database_without_free_connections_is_named_so(self) -> None:
        port = _refuse_all(self, "53300", "sorry, too many clients already")
        message = self.refusal(f"host=127.0.0.1 port={port} sslmode=disable gssencmode=disable", wait_ms=1)
        self.assertIn("too many clients already. Raise max_connections of the database", message)

    def test_a_missing_database_is_a_failure_at_once(self) -> None:
        message = self.refusal(shared_server().dsn("nowhere", password="hush"))
        self.assertIn('database "nowhere" does not exist. Create it, for example: createdb', message)
        self.assertEqual(0, self.time.sleeps)

    def test_tls_that_the_database_does_not_have_is_a_failure_at_once(self) -> None:
        message = self.refusal(shared_server().dsn("postgres", over_tcp=True, sslmode="require", password="hush"))
        self.assertIn("server does not support SSL, but SSL was required. Correct sslmode, sslrootcert", message)
        self.assertEqual(0, self.time.sleeps)

    def test_a_missing_service_is_a_failure_at_once(self) -> None:
        message = self.refusal("service=nowhere password=hush")
        self.assertIn('definition of service "nowhere" not found. Add it to the service file', message)
        self.assertEqual(0, self.time.sleeps)

    def test_without_a_connection_string_the_message_names_the_variables(self) -> None:
        with patch.dict(os.environ, {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGPASSWORD": "hush"}):
            message = self.refusal("", wait_ms=1)
        self.assertIn("storage.postgres.dsn is not set, so libpq's defaults and PG* variables were used.", message)
        self.assertIn('"127.0.0.1", port 1 failed', message)


@cache
def guarded_server() -> PostgresServer:
    """Start a server that asks the role ``guarded`` for a password, for all tests of access."""
    server = started_server()
    server.run("create role guarded login password 'right-hush'; create role owner login createdb")
    rules = "local all postgres trust\nlocal all guarded scram-sha-256\nlocal all streams trust\n"
    (server.data / "pg_hba.conf").write_text(rules)
    server.stop()
    server.start()
    return server


class AccessTests(OpeningCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = guarded_server()

    def test_a_wrong_password_is_a_failure_at_once(self) -> None:
        message = self.refusal(self.server.dsn("postgres", user="guarded", password="wrong-hush"))
        self.assertIn('password authentication failed for user "guarded". Correct user and password', message)
        self.assertEqual(0, self.time.sleeps)

    def test_a_missing_password_is_a_failure_at_once(self) -> None:
        message = self.refusal(self.server.dsn("postgres", user="guarded"))
        self.assertIn("no password supplied. Correct user and password", message)
        self.assertEqual(0, self.time.sleeps)

    def test_a_host_that_is_not_allowed_names_the_file_to_change(self) -> None:
        message = self.refusal(self.server.dsn("postgres", over_tcp=True))
        self.assertIn("no pg_hba.conf entry for host", message)
        self.assertIn("Add a line to pg_hba.conf of the database, and reload it", message)

    def test_a_database_that_the_role_may_not_connect_to_names_the_grant(self) -> None:
        name = self.server.create_database()
        self.server.run(f"revoke connect on database {name} from public; alter database {name} owner to owner")
        message = self.refusal(self.server.dsn(name))
        self.assertIn("permission denied for database", message)
        self.assertIn("GRANT CONNECT ON DATABASE", message)


@cache
def tls_server() -> PostgresServer:
    """Start a server with TLS, whose certificate is for 127.0.0.1 and localhost."""
    server = PostgresServer({"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"})
    atexit.register(server.remove)
    server.create()
    issued = authority().issue()
    for name, pem in (("server.crt", issued.certificate_pem), ("server.key", issued.key_pem())):
        path = server.data / name
        path.write_bytes(pem)
        path.chmod(0o600)
        os.chown(path, *_owner(server.data))
    server.start()
    server.run("create role streams login")
    return server


class TlsTests(OpeningCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = tls_server()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.trusted, self.other = folder / "trusted.pem", folder / "other.pem"
        self.trusted.write_bytes(authority().certificate_pem)
        self.other.write_bytes(Authority("Other").certificate_pem)

    def dsn(self, database: str = "postgres", **parameters: str) -> str:
        return self.server.dsn(database, over_tcp=True, password="hush", **parameters)

    def assert_at_once(self, message: str) -> None:
        self.assertIn("Correct sslmode, sslrootcert and the other ssl parameters", message)
        self.assertEqual(0, self.time.sleeps)

    def test_a_certificate_of_a_trusted_authority_is_accepted(self) -> None:
        name = self.server.create_database()
        dsn = self.dsn(name, sslmode="verify-full", sslrootcert=str(self.trusted))
        self.assertEqual([1], prepare(PostgresSettings(dsn=dsn), self.time.patience()).installed[:1])

    def test_a_certificate_of_another_authority_is_a_failure_at_once(self) -> None:
        message = self.refusal(self.dsn(sslmode="verify-full", sslrootcert=str(self.other)))
        self.assertIn("certificate verify failed", message)
        self.assert_at_once(message)

    def test_a_certificate_for_another_host_is_a_failure_at_once(self) -> None:
        dsn = self.dsn(host="db.invalid", hostaddr="127.0.0.1", sslmode="verify-full", sslrootcert=str(self.trusted))
        message = self.refusal(dsn)
        self.assertIn("does not match host name", message)
        self.assert_at_once(message)

    def test_a_missing_file_of_authorities_is_a_failure_at_once(self) -> None:
        message = self.refusal(self.dsn(sslmode="verify-full", sslrootcert="/nowhere/root.pem"))
        self.assertIn("/nowhere/root.pem", message)
        self.assert_at_once(message)


class ServerTests(OpeningCase):
    def test_another_encoding_than_utf8_is_refused(self) -> None:
        shared_server().run("create database latin encoding 'LATIN1' template template0 owner streams")
        self.addCleanup(shared_server().drop_database, "latin")
        message = self.refusal(shared_server().dsn("latin"))
        self.assertIn("The database latin has the encoding LATIN1, and names of streams need UTF8.", message)

    def test_a_standby_is_refused(self) -> None:
        standby = _standby(self)
        message = self.refusal(standby.dsn("postgres"), wait_ms=1)
        self.assertIn("session is read-only. It is a standby: name the primary in the connection string", message)

    def test_of_several_hosts_the_primary_is_used(self) -> None:
        standby, dsn = _standby(self), database(self)
        primary = conninfo_to_dict(dsn)
        settings = PostgresSettings(
            dsn=psycopg.conninfo.make_conninfo(
                dsn, host=f"{standby.directory},{primary['host']}", port=f"{standby.port},{primary['port']}"
            )
        )
        self.assertIn(f"at {primary['host']}, database", prepare(settings, self.time.patience()).place)

    def test_a_role_whose_transactions_are_read_only_is_refused(self) -> None:
        dsn = database(self)
        self.as_superuser(
            dsn, f"alter database {conninfo_to_dict(dsn)['dbname']} set default_transaction_read_only = on"
        )
        message = self.refusal(dsn, wait_ms=1)
        self.assertIn("default_transaction_read_only to off for the role and the database.", message)

    def test_versions_before_14_are_refused_and_later_ones_than_tested_only_warned_of(self) -> None:
        with psycopg.connect(database(self)) as connection:
            for version, refused in ((130_020, True), (140_000, False), (180_002, False), (190_000, False)):
                with patch.object(psycopg.ConnectionInfo, "server_version", version):
                    if refused:
                        error = self.assertRaises(StorageError, check_server, connection)
                        self.assertIn("PostgreSQL 13.20; this server needs 14 or later", str(error))
                    else:
                        check_server(connection)
        warned = [event["major"] for event in self.events if "is tested with" in (event.get("log_format") or "")]
        self.assertEqual([19], warned)


class TablesTests(OpeningCase):
    def test_the_first_start_creates_the_tables_and_the_next_one_nothing(self) -> None:
        settings = PostgresSettings(dsn=database(self))
        first, second = prepare(settings), prepare(settings)
        self.assertEqual((list(range(1, SCHEMA_VERSION + 1)), []), (first.installed, second.installed))
        self.assertRegex(first.place, r"^PostgreSQL \d+\.\d+ at /.*, database streams_\d+, schema durable_streams$")

    def test_without_migrate_missing_tables_are_refused(self) -> None:
        self.assertEqual(
            "The tables in the schema other do not exist, and storage.postgres.migrate is false. Run: "
            "durable-streams-server migrate",
            self.refusal(database(self), migrate=False, schema="other"),
        )

    def test_without_migrate_tables_that_are_there_are_used(self) -> None:
        dsn = database(self)
        prepare(PostgresSettings(dsn=dsn))
        self.assertEqual([], prepare(PostgresSettings(dsn=dsn, migrate=False)).installed)

    def test_tables_of_a_later_server_are_refused(self) -> None:
        dsn = database(self)
        prepare(PostgresSettings(dsn=dsn))
        self.execute(dsn, "insert into durable_streams.schema_versions (version) values (1000)")
        for migrate in (True, False):
            message = self.refusal(dsn, migrate=migrate)
            self.assertIn(
                f"have version 1000; this server knows versions up to {SCHEMA_VERSION}. Upgrade this server", message
            )

    def test_a_role_that_lacks_a_right_is_told_which(self) -> None:
        dsn = database(self)
        prepare(PostgresSettings(dsn=dsn))
        user = str(conninfo_to_dict(dsn)["dbname"]) + "_app"
        self.as_superuser(dsn, f"create role {user} login")
        self.addCleanup(shared_server().run, f"drop role {user}")
        self.addCleanup(self.as_superuser, dsn, f"drop owned by {user}")
        as_user = psycopg.conninfo.make_conninfo(dsn, user=user)
        self.assertIn(f"The role {user} lacks a right: USAGE on the schema durable_streams.", self.refusal(as_user))
        self.execute(dsn, f"grant usage on schema durable_streams to {user}")
        self.assertIn("lacks a right: SELECT on durable_streams.schema_versions. Run as", self.refusal(as_user))
        self.execute(dsn, f"grant select on durable_streams.schema_versions to {user}")
        message = self.refusal(as_user)
        self.assertRegex(message, r"lacks a right: DELETE on durable_streams\.chunks and \d+ more\. Run as the owner")
        self.assertIn(f"durable-streams-server migrate --grant-to {user}", message)


class PromiseTests(OpeningCase):
    def promise(self, dsn: str, **settings: str) -> tuple[str, bool]:
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        prepared = prepare(PostgresSettings(dsn=psycopg.conninfo.make_conninfo(dsn, options=options)))
        log_preparation(prepared)
        return prepared.promise, prepared.risky

    def test_the_log_says_what_an_acknowledged_append_survives(self) -> None:
        dsn = database(self)
        promise, risky = self.promise(dsn)
        self.assertFalse(risky)
        self.assertEqual(
            "synchronous_commit is on and synchronous_standby_names is '': acknowledged appends survive a crash of the "
            "database, and not the loss of its disk or a promotion of a standby.",
            promise,
        )
        promise, risky = self.promise(dsn, synchronous_commit="off")
        self.assertTrue(risky)
        self.assertIn("Set synchronous_commit to on for the role.", promise)
        levels = [event["log_level"].name for event in self.events if event.get("promise")]
        self.assertEqual(["info", "warn"], levels)

    def test_the_promise_depends_on_the_level_of_the_commit_if_there_is_a_standby(self) -> None:
        server = started_server(self)
        server.run("create database streams owner streams")
        # From now on, commits wait for a standby that does not exist; the tables are created all the same.
        server.stop()
        (server.data / "postgresql.auto.conf").write_text("synchronous_standby_names = 'b'\n")
        server.start()
        for commit, ending in (
            ("on", "'b': acknowledged appends survive the loss of the primary."),
            ("remote_apply", "'b': acknowledged appends survive the loss of the primary."),
            ("remote_write", "unless the standby's machine crashes then, too."),
        ):
            promise, risky = self.promise(server.dsn("streams"), synchronous_commit=commit)
            self.assertTrue(promise.endswith(ending), promise)
            self.assertFalse(risky)
        self.assertIn("not the loss of its disk", self.promise(server.dsn("streams"), synchronous_commit="local")[0])


def _refuse_all(case: SynchronousTestCase, state: str, message: str) -> int:
    """Serve a database that refuses each connection with an error; return its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    fields = f"SFATAL\0VFATAL\0C{state}\0M{message}\0\0".encode()
    answer = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    case.addCleanup(thread.join)
    case.addCleanup(listener.close)
    # accept() is not woken by close().
    case.addCleanup(listener.shutdown, socket.SHUT_RDWR)
    port: int = listener.getsockname()[1]
    return port


def _standby(case: SynchronousTestCase) -> PostgresServer:
    """Start a server in recovery, from a copy of a cluster that was stopped."""
    server = started_server(case)
    server.stop()
    (server.data / "standby.signal").touch()
    shutil.chown(server.data / "standby.signal", *_owner(server.data))
    server.start()
    return server


def _owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid
