"""Uncertain commits on a real server: each has one outcome, which is true, and is written once at most."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import psycopg
from psycopg.pq.abc import PGresult
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.commit_results import CommitResult, LandedResult, NothingWritten
from durable_streams.server.storage.postgres.connection import Connection
from durable_streams.server.storage.postgres.fence import WriterConnection
from durable_streams.server.storage.postgres.packing import INT8, UUID, float8, int8
from durable_streams.server.storage.postgres.queries import Query, QueryFailed, Statement
from tests.support.cutting_proxy import CuttingProxy
from tests.support.holding_proxy import HoldingProxy
from tests.support.postgres_server import database, shared_server

from .connections import failure_of
from .writers import (
    ADD,
    SCHEMA,
    Ledger,
    add,
    add_in_transaction,
    connection_of,
    create_tables,
    hold_gate,
    numbers,
    open_writer,
    until,
)


class NaiveConnection(WriterConnection):
    """Looks up what was written, and does not wait for a statement that still runs."""

    def start(self) -> None:
        [schema] = re.findall(r"(\w+)\.nodes", self._fence.sql)
        look_up = f"SELECT epoch, batch, {schema}.clock(), written FROM {schema}.nodes WHERE id = $1 OR $2 < 0"
        self._fence = Statement("look_up", look_up, (UUID, INT8))
        super().start()


class TrustingConnection(WriterConnection):
    """Takes no notice of warnings."""

    def _noticed(self, sqlstate: str, text: str) -> None:
        """Ignore it."""


async def until_lost(connection: Connection) -> None:
    """Wait until a connection is lost."""
    await until(reactor, lambda: not connection.is_open)


class FenceTestCase(TestCase):
    """A database with the tables."""

    def setUp(self) -> None:
        self.dsn = database(self)
        create_tables(self.dsn)

    async def writer(self, kind: type[WriterConnection] = WriterConnection, **options: float) -> WriterConnection:
        """Return a connection that is ready."""
        writer = open_writer(self, self.dsn, reactor, kind, **options)
        await until(reactor, lambda: writer.obstacle() is None)
        return writer


class CommitTests(FenceTestCase):
    async def test_a_commit_before_the_connection_is_open_waits_for_it(self) -> None:
        writer = open_writer(self, self.dsn, reactor)
        self.assertEqual("The storage is not connected to its database yet.", writer.obstacle())
        result = await add(writer, 1)
        self.assertEqual((1, 3, b"answered"), (result.ntuples, result.nfields, result.get_value(0, 2)))
        self.assertIsNone(writer.obstacle())
        self.assertEqual([1], numbers(self.dsn))

    async def test_each_commit_has_the_next_number_in_the_row_of_the_connection(self) -> None:
        writer = await self.writer()
        for number in range(3):
            await add(writer, number)
        row = f"select epoch, batch, written from {SCHEMA}.nodes where id = %s"
        found = shared_server().run(row, [writer.node], database=self.dsn.partition("dbname=")[2].split()[0])
        self.assertEqual([(1, 3, [2])], found)

    async def test_a_refused_statement_fails_and_the_next_one_is_written(self) -> None:
        writer = await self.writer()
        refused = Statement("refused", "SELECT 1 / ($3 - $3), $1, $2", (UUID, INT8, INT8))
        error = await failure_of(writer.commit(refused, []), QueryFailed)
        self.assertEqual("22012", error.sqlstate)
        await add(writer, 1)
        self.assertEqual([1], numbers(self.dsn))

    async def test_without_a_database_nothing_is_written_and_the_commit_fails_after_the_wait(self) -> None:
        writer = open_writer(self, "host=127.0.0.1 port=1 user=u", reactor, wait=0.3)
        error = await failure_of(add(writer, 1), NothingWritten)
        self.assertEqual("The database cannot be reached. Retry later.", str(error))
        self.assertIn("Connection refused", writer.obstacle() or "")

    async def test_a_stopped_connection_fails_its_commit_and_accepts_none(self) -> None:
        writer = await self.writer()
        running = add(writer, 1, 60)
        await deferLater(reactor, 0.1)
        writer.stop()
        self.assertNotIsInstance(await failure_of(running, Unavailable), NothingWritten)
        await failure_of(add(writer, 2), NothingWritten)

    async def test_two_connections_have_rows_of_their_own(self) -> None:
        first, second = await self.writer(), await self.writer()
        self.assertNotEqual(first.node, second.node)
        await add(first, 1)
        await add(second, 2)
        self.assertEqual([1, 2], numbers(self.dsn))


class UncertainTests(FenceTestCase):
    async def test_a_statement_that_is_terminated_before_its_commit_is_sent_again(self) -> None:
        writer = await self.writer()
        release = hold_gate(self, self.dsn)
        adding = add(writer, 1)
        await self.until_held()
        shared_server().run("select pg_terminate_backend(%s)", [connection_of(writer).backend_pid])
        await until(reactor, lambda: writer.outcomes.repeated == 1)
        release()
        result = await adding
        self.assertEqual(b"answered", result.get_value(0, 2))
        self.assertEqual([1], numbers(self.dsn))

    async def test_a_statement_that_loses_its_connection_twice_fails_and_has_written_nothing(self) -> None:
        writer = await self.writer()
        hold_gate(self, self.dsn)
        adding = add(writer, 1)
        for _ in range(2):
            await self.until_held()
            shared_server().run("select pg_terminate_backend(%s)", [connection_of(writer).backend_pid])
            lost = connection_of(writer)
            await until_lost(lost)
        error = await failure_of(adding, NothingWritten)
        self.assertEqual("The database has interrupted a write twice. Retry later.", str(error))
        self.assertEqual((1, 1), (writer.outcomes.repeated, writer.outcomes.refused))
        self.assertEqual([], numbers(self.dsn))

    async def until_held(self) -> None:
        """Wait until a statement waits for the gate."""
        waiting = "select count(*) from pg_stat_activity where datname = %s and wait_event_type = 'Lock'"
        name = self.dsn.partition("dbname=")[2].split()[0]
        await until(reactor, lambda: shared_server().run(waiting, [name])[0][0] > 0)

    async def cut_while_the_statement_runs(self, kind: type[WriterConnection]) -> tuple[WriterConnection, CommitResult]:
        """Lose the connection of a running statement, which commits later; return the outcome."""
        writer = await self.writer(kind)
        release = hold_gate(self, self.dsn)
        adding = add(writer, 1)
        await self.until_held()
        connection_of(writer).abandon("cut")
        # Longer than the first attempt to connect, the look-up and a lock_timeout.
        await deferLater(reactor, 0.7)
        self.assertFalse(adding.called)
        release()
        return writer, await adding

    async def test_a_statement_that_still_runs_when_its_connection_is_lost_is_waited_for(self) -> None:
        writer, result = await self.cut_while_the_statement_runs(WriterConnection)
        self.assertIsInstance(result, LandedResult)
        self.assertEqual((1, 2), (result.ntuples, result.nfields))
        self.assertIsNotNone(result.get_value(0, 0))
        self.assertEqual(int8(1), (result.get_value(0, 1) or b"")[-8:])
        self.assertEqual((1, 0), (writer.outcomes.landed, writer.outcomes.repeated))
        self.assertEqual([1], numbers(self.dsn))
        await add(writer, 2)
        self.assertEqual([1, 2], numbers(self.dsn))

    async def test_a_look_up_that_does_not_wait_would_write_twice(self) -> None:
        await self.cut_while_the_statement_runs(NaiveConnection)
        self.assertEqual([1, 1], numbers(self.dsn))

    async def test_a_statement_that_arrives_after_its_epoch_writes_nothing(self) -> None:
        self.assertEqual([1], await self.release_late(WriterConnection))

    async def test_a_statement_that_arrives_late_would_be_written_twice_without_an_epoch(self) -> None:
        self.assertEqual([1, 1], await self.release_late(NaiveConnection))

    async def release_late(self, kind: type[WriterConnection]) -> list[int]:
        """Hold a statement back until the client has connected again and sent it again."""
        direct = self.dsn
        with HoldingProxy(shared_server().port) as proxy:
            self.dsn = f"{direct} host=127.0.0.1 port={proxy.port} sslmode=disable"
            writer = await self.writer(kind)
            # The statement is prepared.
            await add(writer, 0)
            proxy.hold()
            adding = add(writer, 1)
            await until(reactor, lambda: proxy.held > 0)
            connection_of(writer).abandon("cut")
            await adding
            self.assertEqual(1, writer.outcomes.repeated)
            proxy.release()
            writer.stop()
        return numbers(direct)[1:]

    async def test_a_transaction_whose_connection_is_lost_before_its_commit_is_executed_again(self) -> None:
        writer = await self.writer()
        release = hold_gate(self, self.dsn)
        adding = add_in_transaction(writer, 1)
        await self.until_held()
        connection_of(writer).abandon("cut")
        await until(reactor, lambda: writer.outcomes.repeated == 1)
        release()
        result = await adding
        assert result is not None
        self.assertEqual(b"answered", result.get_value(0, 2))
        self.assertEqual([1], numbers(self.dsn))

    async def test_a_transaction_that_fails_is_undone_and_the_next_one_is_written(self) -> None:
        writer = await self.writer()

        async def work(execute: Query, node: Sequence[bytes]) -> PGresult:
            await execute(ADD, [*node, int8(1), float8(0)])
            raise ValueError("changed my mind")

        await failure_of(writer.transact(work), ValueError)
        await add_in_transaction(writer, 2)
        self.assertEqual([2], numbers(self.dsn))

    async def test_a_row_that_was_removed_is_made_again(self) -> None:
        writer = await self.writer()
        await add(writer, 1)
        shared_server().run(f"delete from {SCHEMA}.nodes", database=self.dsn.partition("dbname=")[2].split()[0])
        node = writer.node
        await add(writer, 2)
        self.assertNotEqual(node, writer.node)
        self.assertEqual([1, 2], numbers(self.dsn))

    async def test_a_row_that_was_removed_during_a_commit_leaves_it_unknown(self) -> None:
        writer = await self.writer()
        release = hold_gate(self, self.dsn)
        adding = add(writer, 1)
        await self.until_held()
        # A trigger would be needed to remove it between the statement and the fence: the fence finds another id.
        writer.node = type(writer.node)(int=1)
        connection_of(writer).abandon("cut")
        release()
        self.assertNotIsInstance(await failure_of(adding, Unavailable), NothingWritten)
        self.assertEqual(1, writer.outcomes.unknown)
        await add(writer, 2)

    async def test_an_uncertain_commit_without_an_outcome_fails_and_is_decided_before_the_next(self) -> None:
        writer = await self.writer(wait=0.5)
        release = hold_gate(self, self.dsn)
        adding = add(writer, 1)
        await self.until_held()
        connection_of(writer).abandon("cut")
        error = await failure_of(adding, Unavailable)
        self.assertNotIsInstance(error, NothingWritten)
        self.assertIn("may have been made", str(error))
        second = await failure_of(add(writer, 2), Unavailable)
        self.assertIsInstance(second, NothingWritten)
        self.assertIsNotNone(writer.obstacle())
        release()
        await until(reactor, lambda: writer.obstacle() is None)
        await add(writer, 3)
        self.assertEqual([1, 3], numbers(self.dsn))

    async def test_a_fence_that_times_out_waiting_for_the_row_is_tried_again(self) -> None:
        writer = await self.writer()
        blocker = psycopg.connect(self.dsn)
        self.addCleanup(blocker.close)
        blocker.execute(f"SELECT FROM {SCHEMA}.nodes FOR UPDATE")
        second = open_writer(self, self.dsn, reactor, lock_timeout=100)
        second.node, second._epoch = writer.node, 1
        await until(reactor, lambda: "An earlier commit of this server has not ended" in (second.obstacle() or ""))
        adding = add(second, 1)
        await deferLater(reactor, 0.5)
        self.assertFalse(adding.called)
        blocker.rollback()
        await adding
        self.assertEqual([1], numbers(self.dsn))

    async def test_the_deadline_of_a_commit_makes_it_uncertain(self) -> None:
        writer = await self.writer(deadline=0.5)
        release = hold_gate(self, self.dsn)
        adding = add(writer, 1)
        await deferLater(reactor, 0.9)
        self.assertFalse(adding.called)
        release()
        await adding
        self.assertEqual([1], numbers(self.dsn))


class CutTests(FenceTestCase):
    async def test_connections_that_are_cut_at_random_leave_no_commit_in_doubt(self) -> None:
        with CuttingProxy(shared_server().port, (3_000, 9_000), seed=7) as proxy:
            proxy.is_cutting = False
            direct = self.dsn
            self.dsn = f"{direct} host=127.0.0.1 port={proxy.port} sslmode=disable"
            writer = await self.writer()
            ledger = Ledger(writer)
            proxy.is_cutting = True
            while proxy.cuts < 60:
                await ledger.add()
            proxy.is_cutting = False
            await ledger.add()
            writer.stop()
        self.assertEqual(set(), ledger.unknown)
        ledger.check(numbers(direct))
        self.assertGreater(writer.outcomes.landed + writer.outcomes.repeated, 0)

    async def test_sessions_that_are_terminated_at_random_leave_no_commit_in_doubt(self) -> None:
        writer = await self.writer()
        ledger = Ledger(writer)
        dice = random.Random(3)
        terminate = "select pg_terminate_backend(%s)"
        for _ in range(60):
            adding = Deferred.fromCoroutine(ledger.add(0.002))
            pid = connection_of(writer).backend_pid
            await deferLater(reactor, dice.uniform(0, 0.005))
            shared_server().run(terminate, [pid])
            await adding
            await until(reactor, lambda: writer.obstacle() is None)
        self.assertEqual(set(), ledger.unknown)
        ledger.check(numbers(self.dsn))
        self.assertGreater(writer.outcomes.repeated, 0)
