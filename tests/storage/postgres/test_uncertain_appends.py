"""Appends of a node whose connections are cut: each acknowledged one is there once, and each refused one is not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import Append, Appended, StorageLimits, Writer
from durable_streams.server.storage.postgres.append_queue import AppendQueues
from durable_streams.server.storage.postgres.commit_results import NothingWritten
from durable_streams.server.storage.postgres.connecting import connect
from durable_streams.server.storage.postgres.fence import WriterConnection
from durable_streams.server.storage.postgres.writer import AppendWriter
from tests.support.cutting_proxy import CuttingProxy
from tests.support.postgres_server import shared_server

from .connections import SETTINGS
from .databases import SCHEMA, Database, lookups_on
from .test_fence import NaiveConnection
from .test_folding import Room
from .test_writer import NoUses
from .writers import until

STREAMS = 8
LENGTH = 8


class Recorder:
    """
    Appends numbered messages of equal length to streams, and keeps what became of each.

    :ivar acknowledged: a message's number -> its position.
    """

    def __init__(self, writer: AppendWriter) -> None:
        self._writer = writer
        self.count = 0
        self.acknowledged: dict[int, int] = {}
        self.refused: set[int] = set()
        self.unknown: set[int] = set()

    async def append(self, name: str, writer: Writer | None = None) -> bool:
        """Append the next message, and return whether it was acknowledged."""
        self.count += 1
        number = self.count
        body = b"%0*d" % (LENGTH, number)
        try:
            appended: Appended = await self._writer.append(name, Append("text/plain", body, writer=writer))
        except NothingWritten:
            self.refused.add(number)
        except Unavailable:
            self.unknown.add(number)
        else:
            self.acknowledged[number] = appended.tail - LENGTH
            return True
        await deferLater(reactor, 0.01)
        return False

    def check(self, database: Database) -> None:
        """Compare what is known of all messages with the streams."""
        found: Counter[int] = Counter()
        for name in names():
            content = database.content(name)
            for position in range(0, len(content), LENGTH):
                number = int(content[position : position + LENGTH])
                found[number] += 1
                assert self.acknowledged.get(number, position) == position, number
        assert not [number for number, times in found.items() if times > 1], "a message was written twice"
        assert set(self.acknowledged) <= set(found), "an acknowledged message was lost"
        assert not self.refused & set(found), "a refused message was written"


def names() -> list[str]:
    return [f"s{number}" for number in range(STREAMS)]


class UncertainAppendTests(TestCase):
    def setUp(self) -> None:
        self.database = Database(self)
        for name in names():
            self.database.add_stream(name)
        self.is_over = False
        self.addCleanup(setattr, self, "is_over", True)
        self.connections: list[WriterConnection] = []

    async def writer(self, dsn: str, kind: type[WriterConnection] = WriterConnection) -> AppendWriter:
        """Return a node's writer, whose commits go by a connection string."""
        lookups = await lookups_on(self, self.database)
        for _ in range(2):
            connection = kind(lambda: connect(dsn, reactor, SETTINGS, 10.0), SCHEMA, reactor, 10.0)
            connection.start()
            self.addCleanup(connection.stop)
            self.connections.append(connection)
        queues = AppendQueues(lookups, StorageLimits(), Room(), NoUses(), 1 << 20)
        first, second = self.connections
        writer = AppendWriter((first, second), SCHEMA, queues, lookups, reactor, 5.0)
        self.addCleanup(writer.close)
        await until(reactor, lambda: not any(each.obstacle() for each in self.connections))
        return writer

    async def append_until(self, recorder: Recorder, is_over: Callable[[], bool]) -> None:
        """Append to all streams in turns; each second stream has an idempotent writer that sends again what failed."""

        async def plain(name: str) -> None:
            while not is_over():
                await recorder.append(name)

        async def idempotent(name: str) -> None:
            sequence = 0
            while not is_over():
                # The outcome of a message is known when a later one is acknowledged, as all are of one epoch.
                if await recorder.append(name, Writer("w", 1, sequence)):
                    sequence += 1

        started = [
            Deferred.fromCoroutine((idempotent if number % 2 else plain)(name)) for number, name in enumerate(names())
        ]
        await gatherResults(started)

    async def test_connections_that_are_cut_at_random_leave_no_append_in_doubt(self) -> None:
        with CuttingProxy(shared_server().port, (4_000, 30_000), seed=5) as proxy:
            proxy.is_cutting = False
            writer = await self.writer(f"{self.database.dsn} host=127.0.0.1 port={proxy.port} sslmode=disable")
            recorder = Recorder(writer)
            proxy.is_cutting = True
            await self.append_until(recorder, lambda: proxy.cuts >= 40 or self.is_over)
            proxy.is_cutting = False
            await gatherResults([Deferred.fromCoroutine(recorder.append(name)) for name in names()[::2]])
            await writer.close()
            for connection in self.connections:
                connection.stop()
        self.assertEqual(set(), recorder.unknown)
        recorder.check(self.database)
        self.assertGreater(self.connections[0].outcomes.landed + self.connections[0].outcomes.repeated, 0)
        self.assertGreater(len(recorder.acknowledged), 100)

    async def test_sessions_that_are_terminated_at_random_leave_no_append_in_doubt(self) -> None:
        writer = await self.writer(self.database.dsn)
        recorder = Recorder(writer)
        dice = random.Random(11)
        for _ in range(30):
            appending = [Deferred.fromCoroutine(recorder.append(name)) for name in names()]
            await deferLater(reactor, dice.uniform(0, 0.004))
            connection = self.connections[0]._reconnector.connection
            if connection is not None:
                shared_server().run("select pg_terminate_backend(%s)", [connection.backend_pid])
            await gatherResults(appending)
            await until(reactor, lambda: self.connections[0].obstacle() is None)
        self.assertEqual(set(), recorder.unknown)
        recorder.check(self.database)

    async def slow_commit(self, kind: type[WriterConnection]) -> Recorder:
        """Cut the connection of a commit whose statement still runs."""
        writer = await self.writer(self.database.dsn, kind)
        recorder = Recorder(writer)
        self.database.run(
            "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(0.6); RETURN NEW; END'"
        )
        # The database is used by other tests later.
        self.addCleanup(self.database.run, "DROP FUNCTION wait_here() CASCADE")
        self.database.run("CREATE TRIGGER slow BEFORE INSERT ON chunks EXECUTE FUNCTION wait_here()")
        appending = Deferred.fromCoroutine(recorder.append("s0"))
        await deferLater(reactor, 0.3)
        connection = self.connections[0]._reconnector.connection
        assert connection is not None
        connection.abandon("cut")
        await appending
        await deferLater(reactor, 0.7)
        return recorder

    async def test_a_commit_that_still_runs_when_its_connection_is_cut_is_answered_as_written(self) -> None:
        recorder = await self.slow_commit(WriterConnection)
        self.assertEqual({1: 0}, recorder.acknowledged)
        recorder.check(self.database)

    async def test_a_look_up_that_does_not_wait_is_caught_by_these_checks(self) -> None:
        # The version of the stream keeps the append from being written twice, but its answer is wrong.
        recorder = await self.slow_commit(NaiveConnection)
        content = self.database.content("s0")
        self.assertTrue(recorder.refused or recorder.unknown or len(content) > LENGTH, content)
