"""The pool of reading connections: reconnecting, waiting, and repeated reads."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from psycopg.pq.abc import PGresult
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.connecting import ConnectFailed, connect
from durable_streams.server.storage.postgres.connection import Connection
from durable_streams.server.storage.postgres.packing import float8, to_int
from durable_streams.server.storage.postgres.pool import Pool
from durable_streams.server.storage.postgres.queries import QueryFailed, Statement
from durable_streams.server.storage.postgres.reconnecting import MAX_PAUSE, Reconnector
from tests.support.postgres_server import database, shared_server, started_server

from .connections import ONE, SETTINGS, SLEEP, failure_of

PID = Statement("pid", "SELECT pg_backend_pid()")
NO_SERVER = "host=127.0.0.1 port=1 user=u"


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    for _ in range(2_000):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("the condition did not hold within 20 s")


class PoolTests(TestCase):
    def pool(self, dsn: str, size: int = 2, wait: float = 20.0, deadline: float = 20.0) -> Pool:
        """Start a pool that is stopped after the test; ``connections`` has all that it has opened."""
        self.connections: list[Connection] = []

        def keep(connection: Connection) -> Connection:
            self.connections.append(connection)
            return connection

        pool = Pool(lambda: connect(dsn, reactor, SETTINGS, deadline).addCallback(keep), size, reactor, wait)
        pool.start()
        self.addCleanup(pool.stop)
        return pool

    async def pid(self, pool: Pool) -> int:
        value = (await pool.execute(PID)).get_value(0, 0)
        return to_int(value or b"")

    async def open_pool(self, dsn: str, size: int = 2, **options: float) -> Pool:
        pool = self.pool(dsn, size, **options)
        await until(lambda: len(self.connections) == size)
        return pool

    async def test_statements_wait_for_the_first_connection(self) -> None:
        pool = self.pool(database(self))
        self.assertEqual("The storage is not connected to its database yet.", pool.obstacle())
        results = await gatherResults([pool.execute(ONE) for _ in range(100)])
        self.assertEqual([1] * 100, [result.ntuples for result in results])
        self.assertIsNone(pool.obstacle())

    async def test_a_slow_statement_does_not_hold_up_the_others(self) -> None:
        pool = await self.open_pool(database(self))
        slow = pool.execute(SLEEP, [float8(60)])
        await gatherResults([pool.execute(ONE) for _ in range(50)])
        self.assertFalse(slow.called)
        pool.stop()
        await failure_of(slow, Unavailable)

    async def test_a_read_whose_connection_is_lost_is_repeated_on_another(self) -> None:
        pool = await self.open_pool(database(self))
        running = pool.execute(SLEEP, [float8(1)])
        [busy] = [connection for connection in self.connections if connection.pending]
        shared_server().run("select pg_terminate_backend(%s)", [busy.backend_pid])
        self.assertEqual(1, (await running).ntuples)
        self.assertFalse(busy.is_open)
        await until(lambda: len(self.connections) == 3)

    async def test_a_read_is_repeated_only_once(self) -> None:
        pool = await self.open_pool(database(self))
        kill = Statement("kill", "SELECT pg_terminate_backend(pg_backend_pid())")
        error = await failure_of(pool.execute(kill), Unavailable)
        self.assertEqual("The connection to the database was lost twice. Retry later.", str(error))
        self.assertEqual(1, (await pool.execute(ONE)).ntuples)

    async def test_a_server_that_is_killed_and_started_again_is_used_again(self) -> None:
        server = started_server(self)
        pool = await self.open_pool(server.dsn("postgres"))
        server.stop(signal.SIGQUIT)
        await until(lambda: pool.obstacle() is not None)
        self.assertIn("database", pool.obstacle() or "")
        waiting = pool.execute(ONE)
        server.start()
        self.assertEqual(1, (await waiting).ntuples)
        await until(lambda: sum(connection.is_open for connection in self.connections) == 2)
        self.assertIsNone(pool.obstacle())

    async def test_reads_without_a_database_are_unavailable_after_the_wait(self) -> None:
        pool = self.pool(NO_SERVER, wait=0.3)
        errors = await gatherResults([failure_of_later(pool.execute(ONE)) for _ in range(3)])
        self.assertEqual({"The database cannot be reached. Retry later."}, {str(error) for error in errors})
        self.assertIn("Connection refused", pool.obstacle() or "")

    async def test_reads_are_unavailable_if_all_connections_stay_busy(self) -> None:
        pool = await self.open_pool(database(self), size=1, wait=0.3)
        slow = pool.execute(SLEEP, [float8(60)])
        error = await failure_of(pool.execute(ONE), Unavailable)
        self.assertEqual("All connections to the database are busy. Retry later.", str(error))
        pool.stop()
        await failure_of(slow, Unavailable)

    async def test_the_number_of_waiting_reads_is_bounded(self) -> None:
        pool = self.pool(NO_SERVER, wait=0.3)
        pool.waiting_limit = 2
        waiting = [pool.execute(ONE), pool.execute(ONE)]
        error = await failure_of(pool.execute(ONE), Unavailable)
        self.assertEqual("Too many reads wait for the database. Retry later.", str(error))
        for executed in waiting:
            await failure_of(executed, Unavailable)

    async def test_a_stopped_server_process_costs_a_deadline_and_no_read(self) -> None:
        pool = await self.open_pool(database(self), deadline=0.5)
        frozen = await self.pid(pool)
        self.freeze(frozen)
        self.assertEqual(1, (await pool.execute(ONE)).ntuples)
        self.assertNotIn(frozen, [connection.backend_pid for connection in self.connections if connection.is_open])

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)

    async def test_a_wrong_statement_fails_and_the_connection_is_used_again(self) -> None:
        pool = await self.open_pool(database(self), size=1)
        pid = await self.pid(pool)
        error = await failure_of(pool.execute(Statement("divide", "SELECT 1/0")), QueryFailed)
        self.assertEqual("22012", error.sqlstate)
        self.assertEqual(pid, await self.pid(pool))

    async def test_a_cancelled_statement_is_unavailable(self) -> None:
        pool = await self.open_pool(database(self), size=1)
        running = pool.execute(SLEEP, [float8(60)])
        # The statement may only be prepared so far.
        await deferLater(reactor, 0.2)
        shared_server().run("select pg_cancel_backend(%s)", [self.connections[0].backend_pid])
        error = await failure_of(running, Unavailable)
        self.assertEqual("The database cannot answer at present. Retry later.", str(error))
        self.assertEqual(1, (await pool.execute(ONE)).ntuples)

    async def test_a_stopped_pool_closes_its_connections_and_refuses_statements(self) -> None:
        pool = await self.open_pool(database(self), size=1)
        running, waiting = pool.execute(SLEEP, [float8(60)]), pool.execute(ONE)
        pool.stop()
        for executed in (running, waiting, pool.execute(ONE)):
            error = await failure_of(executed, Unavailable)
            self.assertEqual("The storage is closed. Retry later.", str(error))
        self.assertFalse(self.connections[0].is_open)
        self.assertEqual("The storage is closed.", pool.obstacle())

    async def test_a_pool_that_is_stopped_while_it_connects_leaves_no_connection(self) -> None:
        pool = self.pool(database(self), size=3)
        pool.stop()
        await deferLater(reactor, 0.5)
        self.assertFalse(any(connection.is_open for connection in self.connections))

    async def test_reads_of_a_server_that_became_a_standby_are_repeated_on_another_connection(self) -> None:
        pool = await self.open_pool(database(self))
        refuse = Statement(
            "refuse",
            "DO $$BEGIN IF current_setting('jit') = 'off' THEN RAISE read_only_sql_transaction; END IF; END$$",
        )
        # Only connections that are opened later may execute it.
        dsn_settings, SETTINGS["jit"] = SETTINGS["jit"], "on"
        self.addCleanup(SETTINGS.__setitem__, "jit", dsn_settings)
        first = self.connections[:]
        for _ in range(2):
            await pool.execute(refuse).addErrback(lambda failure: failure.trap(Unavailable))
        await until(lambda: not any(connection.is_open for connection in first))
        await pool.execute(refuse)


def failure_of_later(executed: Deferred[PGresult]) -> Deferred[Unavailable]:
    return Deferred.fromCoroutine(failure_of(executed, Unavailable))


class PauseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts: list[Deferred[Connection]] = []
        self.reconnector = Reconnector(self.connect, self.clock, lambda _: None)

    def connect(self) -> Deferred[Connection]:
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def test_pauses_between_attempts_grow_to_a_limit_and_are_not_all_equal(self) -> None:
        self.reconnector.start()
        pauses = []
        for _ in range(12):
            self.attempts[-1].errback(ConnectFailed("no route to host"))
            [call] = self.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.clock.seconds())
            self.clock.advance(pauses[-1])
        self.assertEqual(13, len(self.attempts))
        limits = [min(MAX_PAUSE, 0.1 * 2**n) for n in range(12)]
        for pause, limit in zip(pauses, limits, strict=True):
            self.assertTrue(limit / 2 <= pause <= limit, (pause, limit))
        self.assertGreater(len(set(pauses[6:])), 1)
        self.reconnector.stop()

    def test_the_problem_is_the_reason_of_the_last_failure(self) -> None:
        self.reconnector.start()
        self.attempts[-1].errback(ConnectFailed("no route to host"))
        self.assertEqual("The database cannot be reached: no route to host", self.reconnector.problem)
        self.reconnector.stop()
        self.assertEqual("The storage is closed.", self.reconnector.problem)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_stopping_cancels_the_attempt(self) -> None:
        self.reconnector.start()
        self.reconnector.start()
        self.assertEqual(1, len(self.attempts))
        self.reconnector.stop()
        self.assertTrue(self.attempts[-1].called)
        self.assertEqual([], self.clock.getDelayedCalls())
