"""The contract, on SQLite."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.testing import DurableStorageContract, StorageContract, settled
from tests.storage.file.test_contract import Reactor


class FileTests(DurableStorageContract, TestCase):
    """A database in a file."""

    def make_storage(self, limits: StorageLimits) -> AcidStorage:
        self.directory = self.mktemp()
        return self.opened(limits)

    def opened(self, limits: StorageLimits) -> AcidStorage:
        self.limits = limits
        storage = AcidStorage(self.directory, Reactor(), limits)
        storage.open()
        return storage

    async def reopen(self, storage: IStorage) -> IStorage:
        await settled(storage.close())
        return self.opened(self.limits)


class InMemoryTests(StorageContract, TestCase):
    """A database in memory."""

    def make_storage(self, limits: StorageLimits) -> AcidStorage:
        storage = AcidStorage(None, Reactor(), limits)
        storage.open()
        return storage
