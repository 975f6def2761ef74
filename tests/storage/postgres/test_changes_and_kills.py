"""Changes of streams on two nodes while the server's processes for their connections are terminated at random."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import StreamGone, StreamNotFound, Unavailable
from durable_streams.server.model import Append, Fork, StorageLimits, StreamConfig
from durable_streams.server.storage.postgres.commit_results import NothingWritten
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from durable_streams.server.testing.values import TEXT

from .databases import Database
from .writers import until

_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND application_name = 'durable-streams-server' ORDER BY random() LIMIT 1"
)


class Client:
    """
    A client with streams of its own, which knows what was acknowledged.

    :ivar there: whether a stream exists, by its name; no entry if that is not known.
    """

    def __init__(self, case: TestCase, node: PostgresStorage, number: int) -> None:
        self.case = case
        self.node = node
        self.random = Random(number)
        self.names = [f"{number}/source", *(f"{number}/{each}" for each in range(3))]
        self.there: dict[str, bool] = dict.fromkeys(self.names, False)
        self.acknowledged = 0

    async def step(self) -> None:
        name = self.random.choice(self.names)
        there = self.there.get(name)
        if there is None:
            self.there[name] = await self.exists(name)
        elif there:
            await self.perform(name, self.node.delete(name, 0.0), False)
        else:
            source = self.names[0]
            fork = name != source and self.there.get(source) and self.random.random() < 0.7
            config = StreamConfig(fork=Fork(source)) if fork else TEXT
            await self.perform(name, self.node.create(name, config, b"x", 0.0), True)

    async def exists(self, name: str) -> bool:
        try:
            await self.node.status(name, 0.0)
        except (StreamNotFound, StreamGone):
            return False
        return True

    async def perform(self, name: str, writing: Deferred[Any], there: bool) -> None:
        before = self.there.pop(name)
        try:
            result = await writing
        except NothingWritten:
            self.there[name] = before
        except Unavailable:
            return
        except Exception as error:
            # A deleted source keeps its name while it has forks. Nothing else may be refused.
            self.case.assertEqual((type(error).__name__, name), ("PathBlocked", self.names[0]))
            self.there[name] = before
        else:
            self.acknowledged += 1
            self.there[name] = there
            if there:
                self.case.assertTrue(getattr(result, "new", None), f"{name} was created by nobody else")


class KillTests(TestCase):
    timeout = 120

    async def test_acknowledged_changes_are_made_and_refused_ones_are_not(self) -> None:
        database = Database(self, frozen=False)
        settings = PostgresSettings(database.dsn, connections=2)
        nodes = [PostgresStorage(settings, StorageLimits(), reactor) for _ in range(2)]
        for node in nodes:
            node.open()
            self.addCleanup(node.close)
            await node.values()
        clients = [Client(self, nodes[number % 2], number) for number in range(12)]
        over: list[bool] = []

        async def work(client: Client) -> None:
            while not over:
                try:
                    await client.step()
                except Unavailable:
                    continue

        working = [Deferred.fromCoroutine(work(client)) for client in clients]
        for _ in range(60):
            await deferLater(reactor, 0.04, lambda: None)
            database.run(_TERMINATE)
        over.append(True)
        await gatherResults(working, consumeErrors=True)
        await until(reactor, lambda: all(node.obstacle() is None for node in nodes))
        for client in clients:
            for name, there in client.there.items():
                self.assertEqual(await client.exists(name), there, name)
        self.assertGreater(sum(client.acknowledged for client in clients), 200)
        outcomes = [node._writers[-1].outcomes for node in nodes]
        self.assertGreater(sum(each.landed + each.repeated for each in outcomes), 0)
        await self.check(database, nodes)

    async def check(self, database: Database, nodes: list[PostgresStorage]) -> None:
        """Check that the rows agree with each other and with the counters, and that the streams can be written."""
        wrong = database.run(
            "SELECT s.name FROM streams AS s LEFT JOIN streams AS f ON f.source_id = s.id GROUP BY s.id "
            "HAVING s.forks <> count(f.id) OR (s.deleted AND count(f.id) = 0)"
        )
        self.assertEqual(wrong, [])
        counted = database.run("SELECT sum(streams)::int, sum(bytes)::int FROM nodes")
        self.assertEqual(counted, database.run("SELECT count(*)::int, sum(tail - base)::int FROM streams"))
        for (name,) in database.run("SELECT name FROM streams WHERE NOT deleted"):
            for node in nodes:
                before = (await node.status(name, 0.0)).tail
                self.assertEqual((await node.append(name, Append("text/plain", b"y"), 0.0)).tail, before + 1)
