"""The storage through pgbouncer. Before version 1.21 it has no prepared statements in ``transaction`` mode."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from durable_streams.server.testing.contract.appending import AppendContract
from durable_streams.server.testing.contract.concurrent import ConcurrencyContract
from durable_streams.server.testing.contract.creating import CreateContract
from durable_streams.server.testing.contract.forks import ForkContract
from durable_streams.server.testing.contract.reading import ReadContract
from durable_streams.server.testing.contract.writers import WriterContract
from tests.storage.postgres.databases import Database
from tests.storage.postgres.writers import until
from tests.support.pgbouncer import Pgbouncer, pool_mode


class ContractTests(
    AppendContract, ConcurrencyContract, CreateContract, ForkContract, ReadContract, WriterContract, TestCase
):
    """One node. In ``transaction`` mode its sessions change connections with each statement."""

    pooler: ClassVar[Pgbouncer | None] = None

    @classmethod
    def tearDownClass(cls) -> None:
        if cls.pooler is not None:
            cls.pooler.remove()
            cls.pooler = None

    async def make_storage(self, limits: StorageLimits) -> PostgresStorage:
        self.database = Database(self)
        cls = type(self)
        if cls.pooler is None:
            cls.pooler = Pgbouncer(self.database.dsn, pool_mode(), default_pool_size=12)
            cls.pooler.start()
        storage = PostgresStorage(PostgresSettings(cls.pooler.dsn, connections=2), limits, reactor)
        storage.open()
        await until(reactor, storage._is_sweeper)
        return storage

    def set_time(self, now: float) -> None:
        self.database.set_time(now)
