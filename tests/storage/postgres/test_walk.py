"""Random walks beside the model, on one node and on two."""

from __future__ import annotations

from inspect import signature
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from durable_streams.server.testing import settled, storage_machine
from tests.storage.postgres.databases import Database
from tests.storage.postgres.test_contract import TwoNodes
from tests.storage.postgres.writers import until

#: Its type does not say that it takes calls from threads.
THREADS: Any = reactor


class FromThread:
    """A storage for calls from a thread, which wait for their results. The database has the time that they pass."""

    def __init__(self, storage: Any, database: Database) -> None:
        self.storage = storage
        self._database = database
        self._now = 0.0

    def __getattr__(self, name: str) -> Any:
        bind = signature(getattr(PostgresStorage, name)).bind
        method = getattr(self.storage, name)

        def call(*arguments: Any, **options: Any) -> Any:
            now = bind(self.storage, *arguments, **options).arguments.get("now", self._now)
            if now != self._now:
                self._now = now
                self._database.set_time(now)
            return blockingCallFromThread(
                THREADS, lambda: Deferred.fromCoroutine(settled(method(*arguments, **options)))
            )

        return call


class RandomWalkTests(TestCase):
    timeout = 100

    def setUp(self) -> None:
        self.database = Database(self)
        self.walked = 0

    async def opened(self, nodes: int, limits: StorageLimits) -> Any:
        self.database.empty()
        self.walked += 1
        settings = PostgresSettings(self.database.dsn, connections=1)
        storages = [PostgresStorage(settings, limits, reactor) for _ in range(nodes)]
        for storage in storages:
            storage.open()
        await until(reactor, lambda: any(storage._is_sweeper() for storage in storages))
        return storages[0] if nodes == 1 else TwoNodes(storages)

    def walk(self, nodes: int, examples: int) -> None:
        """Walk in a thread, in which the calls can wait for the reactor."""
        machine = storage_machine(lambda limits: self.make(nodes, limits), run=cast("Any", lambda outcome: outcome))
        health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        chosen = settings(
            max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=health, database=None
        )
        run_state_machine_as_test(machine, settings=chosen)

    def make(self, nodes: int, limits: StorageLimits) -> IStorage:
        storage = blockingCallFromThread(THREADS, lambda: Deferred.fromCoroutine(self.opened(nodes, limits)))
        return cast("IStorage", FromThread(storage, self.database))

    async def test_random_operations_on_one_node_agree_with_the_model(self) -> None:
        await deferToThread(self.walk, 1, 4)
        self.assertGreater(self.walked, 2)

    async def test_random_operations_on_two_nodes_agree_with_the_model(self) -> None:
        await deferToThread(self.walk, 2, 4)
        self.assertGreater(self.walked, 2)
