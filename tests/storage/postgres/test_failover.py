"""Commits on servers with standbys, and on servers that are killed, frozen or replaced by their standby."""

from __future__ import annotations

import os
import signal

from psycopg.conninfo import make_conninfo
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.commit_results import CommitResult, LandedResult, NothingWritten
from durable_streams.server.storage.postgres.fence import WriterConnection
from tests.support.postgres_server import PostgresServer, started_server

from .connections import failure_of
from .writers import Ledger, add, connection_of, create_tables, numbers, open_writer, until

#: A standby that does not exist.
MISSING = "no_such_standby"


class TrustingConnection(WriterConnection):
    """Takes no notice of warnings."""

    def _noticed(self, sqlstate: str, text: str) -> None:
        """Ignore it."""


class ServerTestCase(TestCase):
    """A server of the test's own, with the tables."""

    def setUp(self) -> None:
        self.server = started_server(self)
        self.dsn = self.create_database(self.server)

    def create_database(self, server: PostgresServer) -> str:
        dsn = server.dsn(server.create_database())
        create_tables(dsn)
        return dsn

    async def writer(
        self, kind: type[WriterConnection] = WriterConnection, dsn: str = "", **options: float
    ) -> WriterConnection:
        """Return a connection that is ready."""
        writer = open_writer(self, dsn or self.dsn, reactor, kind, **options)
        await until(reactor, lambda: writer.obstacle() is None)
        return writer

    async def run_ledger(self, ledger: Ledger, seconds: float) -> None:
        """Add numbers for some time."""
        over: Deferred[None] = deferLater(reactor, seconds)
        while not over.called:
            await ledger.add()


class MissingStandbyTests(ServerTestCase):
    async def waiting(
        self, kind: type[WriterConnection], deadline: float = 20.0, wait: float = 20.0
    ) -> tuple[WriterConnection, Deferred[CommitResult]]:
        """Begin a commit that waits for a standby which is not there."""
        writer = await self.writer(kind, deadline=deadline, wait=wait)
        self.server.set(synchronous_standby_names=MISSING)
        await self.until_setting(MISSING)
        adding = add(writer, 1)
        await self.until_waiting()
        return writer, adding

    async def until_setting(self, names: str) -> None:
        await until(reactor, lambda: self.server.run("show synchronous_standby_names") == [(names,)])

    async def until_waiting(self) -> None:
        """Wait until a commit waits for the standby."""
        waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
        await until(reactor, lambda: self.server.run(waits) == [(1,)])

    async def continue_alone(self) -> None:
        """Have commits wait for no standby."""
        self.server.set(synchronous_standby_names="")

    def cancel(self, writer: WriterConnection) -> None:
        self.server.run("select pg_cancel_backend(%s)", [connection_of(writer).backend_pid])

    async def test_a_commit_whose_wait_for_the_standby_is_cancelled_is_not_acknowledged(self) -> None:
        writer, adding = await self.waiting(WriterConnection)
        for _ in range(2):
            self.cancel(writer)
            # The fence waits for the standby, too.
            await deferLater(reactor, 0.3)
            await self.until_waiting()
            self.assertFalse(adding.called)
            self.assertIsNotNone(writer.obstacle())
        await self.continue_alone()
        result = await adding
        self.assertNotIsInstance(result, LandedResult)
        self.assertEqual((1, 0), (writer.outcomes.landed, writer.outcomes.repeated))
        self.assertEqual([1], numbers(self.dsn))

    async def test_a_connection_that_ignores_warnings_would_acknowledge_it(self) -> None:
        writer, adding = await self.waiting(TrustingConnection)
        self.cancel(writer)
        await adding
        await self.continue_alone()

    async def test_a_commit_whose_session_is_terminated_while_it_waits_is_acknowledged_after_the_fence(self) -> None:
        writer, adding = await self.waiting(WriterConnection)
        self.server.run("select pg_terminate_backend(%s)", [connection_of(writer).backend_pid])
        await deferLater(reactor, 0.5)
        await self.until_waiting()
        # Everybody can see it, but it is on one machine only.
        self.assertEqual([1], numbers(self.dsn))
        self.assertFalse(adding.called)
        await self.continue_alone()
        self.assertIsInstance(await adding, LandedResult)
        self.assertEqual([1], numbers(self.dsn))

    async def test_a_missing_standby_makes_commits_unknown_after_the_deadline_and_the_wait(self) -> None:
        writer, adding = await self.waiting(WriterConnection, deadline=0.5, wait=0.5)
        error = await failure_of(adding, Unavailable)
        self.assertNotIsInstance(error, NothingWritten)
        self.assertIsNotNone(writer.obstacle())
        await failure_of(add(writer, 2), NothingWritten)
        await self.continue_alone()
        await until(reactor, lambda: writer.obstacle() is None)
        await add(writer, 3)
        self.assertEqual([1, 3], numbers(self.dsn))


class CrashTests(ServerTestCase):
    async def test_a_server_that_is_killed_loses_and_repeats_nothing(self) -> None:
        writer = await self.writer()
        ledger = Ledger(writer)
        for seconds in (0.2, 0.31, 0.17, 0.4):
            running = Deferred.fromCoroutine(self.run_ledger(ledger, seconds + 0.2))
            await deferLater(reactor, seconds)
            self.server.kill()
            self.server.start()
            await running
        await ledger.add()
        writer.stop()
        self.assertEqual((set(), set()), (ledger.unknown, ledger.refused))
        ledger.check(numbers(self.dsn))
        self.assertGreater(len(ledger.acknowledged), 100)

    async def test_a_server_that_is_frozen_loses_and_repeats_nothing(self) -> None:
        writer = await self.writer(deadline=0.5)
        ledger = Ledger(writer)
        await ledger.add()
        running = Deferred.fromCoroutine(self.run_ledger(ledger, 2))
        await deferLater(reactor, 0.2)
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        await until(reactor, lambda: writer.obstacle() is not None)
        await deferLater(reactor, 0.5)
        self.server.thaw()
        await running
        writer.stop()
        self.assertEqual((set(), set()), (ledger.unknown, ledger.refused))
        ledger.check(numbers(self.dsn))


class PromotionTests(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.standby = self.server.start_standby(self, "standby_1")
        self.server.set(synchronous_standby_names="standby_1")
        name = self.dsn.partition("dbname=")[2].split()[0]
        self.standby_dsn = self.standby.dsn(name)
        servers = (self.server, self.standby)
        hosts = ",".join(str(server.directory) for server in servers)
        ports = ",".join(str(server.port) for server in servers)
        self.both = make_conninfo(self.dsn, host=hosts, port=ports, connect_timeout=2)

    async def test_a_promoted_standby_has_all_acknowledged_commits_once(self) -> None:
        writer = await self.writer(dsn=self.both)
        ledger = Ledger(writer)
        await self.run_ledger(ledger, 0.5)
        before = len(ledger.acknowledged)
        running = Deferred.fromCoroutine(self.run_ledger(ledger, 1))
        await deferLater(reactor, 0.3)
        self.server.kill()
        self.standby.promote()
        await running
        await self.run_ledger(ledger, 0.3)
        writer.stop()
        self.assertGreater(len(ledger.acknowledged), before)
        self.assertEqual(set(), ledger.unknown)
        ledger.check(numbers(self.standby_dsn))

    async def test_a_commit_that_was_not_answered_before_the_promotion_is_found_after_it(self) -> None:
        writer = await self.writer(dsn=self.both)
        connection = connection_of(writer)
        reactor.removeReader(connection)
        # Prepares the statement, which needs an answer.
        adding = add(writer, 1)
        await deferLater(reactor, 0.3)
        connection.doRead()
        await until(reactor, lambda: numbers(self.standby_dsn) == [1])
        self.assertFalse(adding.called)
        self.server.kill()
        connection.abandon("cut")
        await deferLater(reactor, 0.3)
        self.assertFalse(adding.called)
        self.standby.promote()
        self.assertIsInstance(await adding, LandedResult)
        self.assertEqual([1], numbers(self.standby_dsn))

    async def test_a_commit_that_did_not_reach_the_standby_is_sent_to_it_after_the_promotion(self) -> None:
        writer = await self.writer(dsn=self.both)
        await add(writer, 1)
        # The statement is not executed, since the server's process for the connection stands still.
        os.kill(connection_of(writer).backend_pid, signal.SIGSTOP)
        adding = add(writer, 2)
        await deferLater(reactor, 0.1)
        self.assertFalse(adding.called)
        self.server.kill()
        self.standby.promote()
        await adding
        self.assertEqual((0, 1), (writer.outcomes.landed, writer.outcomes.repeated))
        self.assertEqual([1, 2], numbers(self.standby_dsn))
