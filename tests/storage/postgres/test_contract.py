"""The contract of storages, on a real server whose clock the tests set."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from durable_streams.server.testing import SharedStorageContract
from durable_streams.server.testing.contract.durable import DurabilityContract
from tests.storage.postgres.databases import Database
from tests.storage.postgres.writers import until


class ContractTests(SharedStorageContract, DurabilityContract, TestCase):
    """One node."""

    async def make_storage(self, limits: StorageLimits) -> PostgresStorage:
        self.database = Database(self)
        self.limits = limits
        return await self.opened(limits)

    async def opened(self, limits: StorageLimits) -> PostgresStorage:
        storage = PostgresStorage(PostgresSettings(self.database.dsn, connections=2), limits, reactor)
        storage.open()
        # Until then it removes nothing that has expired.
        await until(reactor, storage._is_sweeper)
        return storage

    def set_time(self, now: float) -> None:
        self.database.set_time(now)

    async def reopen(self, storage: IStorage) -> IStorage:
        assert isinstance(storage, PostgresStorage)
        await storage.close()
        return await self.opened(self.limits)
