"""Connections that the reactor drives, against a real server."""

from __future__ import annotations

import os
import signal
import time

import psycopg
from psycopg.pq.abc import PGresult
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.storage.postgres.connection import Connection
from durable_streams.server.storage.postgres.packing import INT8, float8, int8, to_int
from durable_streams.server.storage.postgres.queries import ConnectionLost, QueryFailed, Statement, rows_of
from tests.support.postgres_server import database, shared_server, started_server

from .connections import ADD, LENGTH, ONE, REPEAT, SLEEP, connected, failure_of


def number(result: PGresult) -> int:
    """Return the integer that a result consists of."""
    value = result.get_value(0, 0)
    assert value is not None
    return to_int(value)


class StatementTests(TestCase):
    async def test_parameters_and_results_are_binary(self) -> None:
        connection = await connected(self, database(self))
        result = await connection.execute(ADD, [int8(40), int8(2)])
        self.assertEqual([(int8(42),)], rows_of(result))
        self.assertEqual([(None,)], rows_of(await connection.execute(ADD, [int8(40), None])))

    async def test_queued_statements_are_executed_in_the_order_of_the_calls(self) -> None:
        connection = await connected(self, database(self))
        await connection.execute(Statement("table", "CREATE TABLE t (n int8, at int8 GENERATED ALWAYS AS IDENTITY)"))
        insert = Statement("insert", "INSERT INTO t (n) VALUES ($1)", (INT8,))
        executed = [connection.execute(insert, [int8(n)]) for n in range(200)]
        self.assertEqual(200, connection.pending)
        await gatherResults(executed)
        rows = rows_of(await connection.execute(Statement("all", "SELECT n FROM t ORDER BY at")))
        self.assertEqual([(int8(n),) for n in range(200)], rows)
        self.assertEqual(0, connection.pending)

    async def test_a_statement_is_prepared_once(self) -> None:
        connection = await connected(self, database(self))
        for n in range(3):
            await connection.execute(ADD, [int8(n), int8(n)])
        prepared = Statement(
            "prepared", "SELECT count(*) FROM pg_prepared_statements WHERE statement = $$SELECT $1 + $2$$"
        )
        self.assertEqual(1, number(await connection.execute(prepared)))

    async def test_a_statement_is_prepared_again_after_the_session_has_dropped_it(self) -> None:
        connection = await connected(self, database(self))
        await connection.execute(ONE)
        await connection.execute(Statement("drop", "DEALLOCATE ALL"))
        self.assertEqual(1, number(await connection.execute(ONE)))

    async def test_a_statement_is_prepared_again_after_its_table_has_changed(self) -> None:
        connection = await connected(self, database(self))
        await connection.execute(Statement("table", "CREATE TABLE t AS SELECT 7::int8 AS n"))
        every = Statement("every", "SELECT * FROM t")
        self.assertEqual(1, (await connection.execute(every)).nfields)
        await connection.execute(Statement("alter", "ALTER TABLE t ADD m int8"))
        self.assertEqual(2, (await connection.execute(every)).nfields)

    async def test_a_failed_statement_has_its_sqlstate_and_leaves_the_connection_usable(self) -> None:
        connection = await connected(self, database(self))
        await connection.execute(Statement("table", "CREATE TABLE t (n int8 CONSTRAINT n_is_unique UNIQUE)"))
        insert = Statement("insert", "INSERT INTO t VALUES ($1)", (INT8,))
        await connection.execute(insert, [int8(77)])
        failed, after = connection.execute(insert, [int8(77)]), connection.execute(ONE)
        error = await failure_of(failed, QueryFailed)
        self.assertEqual(("23505", "n_is_unique", False), (error.sqlstate, error.constraint, error.is_transient))
        self.assertNotIn("77", str(error))
        self.assertEqual(1, number(await after))

    async def test_an_invalid_statement_fails_when_it_is_prepared(self) -> None:
        connection = await connected(self, database(self))
        error = await failure_of(connection.execute(Statement("bad", "SELECT FROM WHERE")), QueryFailed)
        self.assertEqual("42601", error.sqlstate)
        self.assertEqual(1, number(await connection.execute(ONE)))

    async def test_large_parameters_and_results_do_not_block_the_reactor(self) -> None:
        connection = await connected(self, database(self))
        size = 24 << 20
        late = Deferred[float]()
        began = time.monotonic()
        sent = connection.execute(LENGTH, [b"x" * size])
        # A socket takes far less than that at once.
        self.assertLess(time.monotonic() - began, 5)
        reactor.callLater(0, lambda: late.callback(connection.pending))
        self.assertEqual(1, await late)
        self.assertEqual(size, number(await sent))
        [(text,)] = rows_of(await connection.execute(REPEAT, [int8(size)]))
        self.assertEqual(b"x" * size, text)

    async def test_results_of_any_size_arrive(self) -> None:
        connection = await connected(self, database(self))
        for size in (0, 1, 8_191, 8_192, 16_383, 16_384, 16_385, 20_000, 40_000, 70_000):
            [(text,)] = rows_of(await connection.execute(REPEAT, [int8(size)]))
            self.assertEqual(size, len(text or b""))

    async def test_a_result_arrives_although_the_reactor_is_slow(self) -> None:
        connection = await connected(self, database(self))
        executed = [connection.execute(REPEAT, [int8(100_000)]) for _ in range(5)]
        time.sleep(0.3)
        self.assertEqual([1] * 5, [result.ntuples for result in await gatherResults(executed)])


class TlsTests(TestCase):
    async def test_results_of_any_size_arrive_over_tls(self) -> None:
        server = started_server(self)
        dsn = server.use_tls()
        connection = await connected(self, dsn)
        await connection.execute(Statement("listen", "LISTEN sizes"))
        received: list[int] = []
        connection.notified = lambda _channel, payload: received.append(len(payload))
        [(is_encrypted,)] = rows_of(
            await connection.execute(Statement("ssl", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        )
        self.assertEqual(b"\x01", is_encrypted)
        sizes = [*range(16_200, 16_500, 7), *range(24_300, 24_700, 23), *range(32_500, 33_000, 31), 100_000, 5_000_000]
        for size in sizes:
            [(text,)] = rows_of(await connection.execute(REPEAT, [int8(size)]).addTimeout(10, reactor))
            self.assertEqual(size, len(text or b""))
        notify = Statement(
            "notify", "SELECT pg_notify('sizes', repeat('x', 7000 + n)) FROM generate_series(1, 50) AS n"
        )
        await connection.execute(notify).addTimeout(10, reactor)
        until = time.monotonic() + 10
        while len(received) < 50 and time.monotonic() < until:
            await deferLater(reactor, 0.01)
        self.assertEqual([7_000 + n for n in range(1, 51)], received)
        self.assertEqual(20 << 20, number(await connection.execute(LENGTH, [b"x" * (20 << 20)])))


class NotificationTests(TestCase):
    async def test_notifications_are_passed_on_with_channel_and_payload(self) -> None:
        dsn = database(self)
        connection = await connected(self, dsn)
        received: list[tuple[str, str]] = []
        both = Deferred[None]()

        def notified(channel: str, payload: str) -> None:
            received.append((channel, payload))
            if len(received) == 2:
                both.callback(None)

        connection.notified = notified
        await connection.execute(Statement("listen", 'LISTEN "changes"'))
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("NOTIFY changes, 'first'")
            other.execute("NOTIFY changes, 'second'")
        await both
        self.assertEqual([("changes", "first"), ("changes", "second")], received)

    async def test_notices_are_passed_on_before_the_result(self) -> None:
        connection = await connected(self, database(self))
        events: list[object] = []
        connection.noticed = lambda sqlstate, text: events.append((sqlstate, text))
        warn = Statement("warn", "DO $$BEGIN RAISE WARNING USING ERRCODE = '01000', MESSAGE = 'beware'; END$$")
        await connection.execute(warn).addCallback(lambda _: events.append("result"))
        self.assertEqual([("01000", "beware"), "result"], events)


class LossTests(TestCase):
    async def lost(self, connection: Connection) -> str:
        """Wait until the connection is lost, and return the reason."""
        lost = Deferred[str]()
        connection.lost = lost.callback
        return await lost.addTimeout(20, reactor)

    async def test_an_idle_connection_that_the_server_ends_reports_the_servers_words(self) -> None:
        connection = await connected(self, database(self))
        shared_server().run("select pg_terminate_backend(%s)", [connection.backend_pid])
        reason = await self.lost(connection)
        self.assertIn("terminating connection due to administrator command", reason)
        self.assertFalse(connection.is_open)
        error = await failure_of(connection.execute(ONE), ConnectionLost)
        self.assertFalse(error.sent)

    async def test_statements_of_a_lost_connection_fail_and_tell_which_were_sent(self) -> None:
        connection = await connected(self, database(self))
        await connection.execute(SLEEP, [float8(0)])
        running, queued = connection.execute(SLEEP, [float8(60)]), connection.execute(ONE)
        shared_server().run("select pg_terminate_backend(%s)", [connection.backend_pid])
        self.assertTrue((await failure_of(running, ConnectionLost)).sent)
        self.assertFalse((await failure_of(queued, ConnectionLost)).sent)

    async def test_a_server_that_is_killed_ends_the_connection(self) -> None:
        server = started_server(self)
        connection = await connected(self, server.dsn("postgres"))
        running = connection.execute(SLEEP, [float8(60)])
        os.kill(connection.backend_pid, signal.SIGKILL)
        await failure_of(running, ConnectionLost)
        self.assertFalse(connection.is_open)

    async def test_a_silent_server_ends_the_connection_at_the_deadline(self) -> None:
        connection = await connected(self, database(self), deadline=0.5)
        lost: list[str] = []
        connection.lost = lost.append
        os.kill(connection.backend_pid, signal.SIGSTOP)
        self.addCleanup(os.kill, connection.backend_pid, signal.SIGCONT)
        error = await failure_of(connection.execute(ONE), ConnectionLost)
        self.assertEqual("The database did not answer within 0.5 s.", str(error))
        await deferLater(reactor, 0)
        self.assertEqual([str(error)], lost)

    async def test_the_deadline_is_of_each_statement_and_not_of_the_connection(self) -> None:
        connection = await connected(self, database(self), deadline=1.0)
        for _ in range(4):
            await connection.execute(SLEEP, [float8(0.4)])
        await deferLater(reactor, 1.1)
        self.assertEqual(1, number(await connection.execute(ONE)))

    async def test_an_abandoned_connection_is_lost(self) -> None:
        connection = await connected(self, database(self))
        lost: list[str] = []
        connection.lost = lost.append
        running = connection.execute(SLEEP, [float8(60)])
        connection.abandon("Enough.")
        await failure_of(running, ConnectionLost)
        connection.abandon("Again.")
        self.assertEqual(["Enough."], lost)

    async def test_a_closed_connection_leaves_no_descriptor_timer_or_session(self) -> None:
        dsn = database(self)
        # The first connection opens what all share, such as the source of random numbers.
        (await connected(self, dsn)).close()
        before = len(os.listdir("/proc/self/fd"))
        connection = await connected(self, dsn)
        lost: list[str] = []
        connection.lost = lost.append
        running = connection.execute(SLEEP, [float8(60)])
        connection.close()
        connection.close()
        await failure_of(running, ConnectionLost)
        self.assertEqual(([], before), (lost, len(os.listdir("/proc/self/fd"))))
        self.assertEqual([], [reader for reader in reactor.getReaders() if isinstance(reader, Connection)])
        # trial fails the test if a timer is left.

    async def test_a_callback_may_close_the_connection(self) -> None:
        connection = await connected(self, database(self))
        first, second = connection.execute(ONE), connection.execute(ONE)
        first.addCallback(lambda _: connection.close())
        await failure_of(second, ConnectionLost)
        await first

    async def test_many_lost_connections_do_not_disturb_each_other(self) -> None:
        dsn = database(self)
        server = shared_server()
        connections = await gatherResults([connected(self, dsn) for _ in range(8)])
        for _ in range(3):
            running = [connection.execute(SLEEP, [float8(0.2)]) for connection in connections]
            for connection in connections[::2]:
                server.run("select pg_terminate_backend(%s)", [connection.backend_pid])
            for position, executed in enumerate(running):
                if position % 2 == 0:
                    await failure_of(executed, ConnectionLost)
                else:
                    await executed
            renewed = await gatherResults([connected(self, dsn) for _ in range(4)])
            connections[::2] = renewed
        self.assertTrue(all(connection.is_open for connection in connections))
