"""Connection strings, what they leave out, sessions' settings, and secrets."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from unittest import mock

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.storage.postgres.connecting import ConnectFailed, _log_pooler, check_dsn, connect
from durable_streams.server.storage.postgres.connection import Connection
from durable_streams.server.storage.postgres.queries import Statement, rows_of
from tests.support.postgres_server import ROLE, database, shared_server

from .connections import ONE, SETTINGS, connected, failure_of

#: What must not be in any message.
PASSWORD = "ein Geheimnis"


class FormTests(SynchronousTestCase):
    def test_connection_strings_in_both_forms_are_accepted(self) -> None:
        for dsn in ("", "host=db dbname=streams", "postgresql://u:p%20w@db:5432/streams?sslmode=require", "service=x"):
            check_dsn(dsn)
            self.assertRaises(ValueError, check_dsn, f"{dsn}\0")

    def test_a_malformed_connection_string_is_refused_without_quoting_it(self) -> None:
        for dsn in (f"postgresql://u:{PASSWORD}@db/x", f"password={PASSWORD}", f"host='{PASSWORD}"):
            message = str(self.assertRaises(ValueError, check_dsn, dsn))
            self.assertIn("is neither a URL like", message)
            for word in PASSWORD.split():
                self.assertNotIn(word, message)


class ConnectTests(TestCase):
    async def setting(self, connection: Connection, name: str) -> str:
        [(value,)] = rows_of(await connection.execute(Statement(f"show_{name}", f"SHOW {name}")))
        return (value or b"").decode()

    async def test_the_sessions_settings_are_applied(self) -> None:
        connection = await connected(self, database(self))
        for name, value in (
            ("jit", "off"),
            ("enable_seqscan", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            ("lock_timeout", "2s"),
            ("statement_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "5s"),
            ("client_connection_check_interval", "5s"),
            ("client_encoding", "UTF8"),
            ("application_name", "durable-streams-server"),
        ):
            self.assertEqual(value, await self.setting(connection, name), name)

    async def test_settings_that_the_server_does_not_have_are_left_out(self) -> None:
        settings = SETTINGS | {"setting_of_the_future": "on", "jit": "off"}
        connection = await connect(database(self), reactor, settings, 5)
        self.addCleanup(connection.close)
        self.assertEqual("off", await self.setting(connection, "jit"))

    async def test_settings_that_the_server_refuses_do_not_prevent_the_others(self) -> None:
        settings = {"jit": "off", "wal_compression": "on", "work_mem": "-5", "enable_seqscan": "off"}
        connection = await connect(database(self), reactor, settings, 5)
        self.addCleanup(connection.close)
        self.assertEqual("off", await self.setting(connection, "jit"))
        self.assertEqual("off", await self.setting(connection, "enable_seqscan"))

    async def test_variables_and_service_files_complete_the_connection_string(self) -> None:
        dsn = conninfo_to_dict(database(self))
        path = Path(self.mktemp())
        path.write_text("[streams]\n" + "".join(f"{key}={value}\n" for key, value in dsn.items() if key != "dbname"))
        with mock.patch.dict(os.environ, PGSERVICEFILE=str(path.absolute()), PGDATABASE=str(dsn["dbname"])):
            connection = await connected(self, "service=streams")
        [(name,)] = rows_of(await connection.execute(Statement("name", "SELECT current_database()::text")))
        self.assertEqual(str(dsn["dbname"]).encode(), name)

    async def test_an_undefined_service_is_named(self) -> None:
        with mock.patch.dict(os.environ, PGSERVICEFILE="/dev/null"):
            error = await failure_of(connected(self, "service=nowhere"), ConnectFailed)
        self.assertEqual('definition of service "nowhere" not found', str(error))

    async def test_a_password_file_is_used(self) -> None:
        role, dsn = self.protected()
        path = Path(self.mktemp()).absolute()
        path.write_text(f"*:*:*:{role}:{PASSWORD}\n")
        path.chmod(0o600)
        with mock.patch.dict(os.environ, PGPASSFILE=str(path)):
            connection = await connected(self, dsn)
        self.assertEqual(1, (await connection.execute(ONE)).ntuples)

    def protected(self) -> tuple[str, str]:
        """Create a role that needs a password, and return it with a connection string without the password."""
        server = shared_server()
        role = f"protected_{os.urandom(4).hex()}"
        server.require_password(self, role, PASSWORD)
        return role, make_conninfo(database(self), user=role, host="127.0.0.1")

    async def test_no_error_contains_the_password(self) -> None:
        _, protected = self.protected()
        for dsn in (
            make_conninfo(protected, password=PASSWORD + "!"),
            make_conninfo(protected, password=PASSWORD, dbname="no_such_database"),
            make_conninfo(protected, password=PASSWORD, port=1),
            make_conninfo(protected, password=PASSWORD, host="/no/such/directory"),
            make_conninfo(protected, password=PASSWORD, sslmode="verify-full"),
            f"postgresql://u:{PASSWORD}@127.0.0.1/x",
        ):
            error = await failure_of(connected(self, dsn), ConnectFailed)
            self.assertNotEqual("", str(error))
            self.assertNotIn("\n", str(error))
            for word in PASSWORD.split():
                self.assertNotIn(word, str(error) + repr(error))

    async def test_a_connection_does_not_show_the_password(self) -> None:
        _, protected = self.protected()
        connection = await connected(self, make_conninfo(protected, password=PASSWORD))
        shown = repr(connection) + repr(vars(connection))
        for word in PASSWORD.split():
            self.assertNotIn(word, shown)

    async def test_a_server_that_does_not_answer_is_given_up_after_connect_timeout(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            began = time.monotonic()
            dsn = f"host=127.0.0.1 port={port} connect_timeout=2 user=u"
            error = await failure_of(connected(self, dsn), ConnectFailed)
        self.assertIn("timeout expired", str(error))
        self.assertLess(time.monotonic() - began, 30)

    async def test_the_second_host_is_used_if_the_first_is_down(self) -> None:
        dsn = conninfo_to_dict(database(self))
        hosts = make_conninfo("", **(dsn | {"host": f"127.0.0.1,{dsn['host']}", "port": f"1,{dsn['port']}"}))
        connection = await connected(self, hosts)
        self.assertEqual(1, (await connection.execute(ONE)).ntuples)

    async def test_a_database_that_only_reads_is_refused(self) -> None:
        dsn = database(self)
        name = conninfo_to_dict(dsn)["dbname"]
        shared_server().run(f'alter database "{name}" set default_transaction_read_only = on')
        error = await failure_of(connected(self, dsn), ConnectFailed)
        self.assertIn("session is read-only", str(error))

    async def test_a_cancelled_attempt_closes_the_connection_that_it_opened(self) -> None:
        dsn = database(self)
        opening = connect(dsn, reactor, SETTINGS, 5)
        opening.cancel()
        await failure_of(opening, CancelledError)
        count = "select count(*) from pg_stat_activity where datname = %s"
        until = time.monotonic() + 20
        # The thread opens the connection meanwhile, or has not yet.
        await deferLater(reactor, 0.3)
        while shared_server().run(count, [conninfo_to_dict(dsn)["dbname"]]) != [(0,)]:
            self.assertLess(time.monotonic(), until)
            await deferLater(reactor, 0.05)

    async def test_a_session_of_a_pooler_keeps_its_settings(self) -> None:
        _log_pooler.cache_clear()
        with mock.patch("durable_streams.server.storage.postgres.connecting._is_pooled", return_value=True):
            dsn = database(self)
            with capturedLogs() as captured:
                connection = await connected(self, dsn)
                await connected(self, dsn)
        self.assertEqual("on", await self.setting(connection, "jit"))
        [text] = [formatEvent(event) for event in captured]
        self.assertIn("go through a pooler, so these settings are not applied: ", text)
        self.assertIn(" jit, lock_timeout, plan_cache_mode, ", text)

    async def test_tests_connect_as_an_ordinary_role(self) -> None:
        connection = await connected(self, database(self))
        [(name,)] = rows_of(await connection.execute(Statement("role", "SELECT current_user::text")))
        self.assertEqual(ROLE.encode(), name)
