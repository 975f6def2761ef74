"""The public members of the storages: the methods of IStorage, and nothing that only their own parts need."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.interfaces import IStorage
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.file import FileStorage
from durable_streams.server.storage.memory import MemoryStorage

#: Public members beside the methods of IStorage.
OTHERS: frozenset[str] = frozenset()


class MemberTests(SynchronousTestCase):
    def assert_members(self, storage: IStorage) -> None:
        self.assertTrue(verifyObject(IStorage, storage))
        public = {name for name in dir(storage) if not name.startswith("_")}
        self.assertEqual(set(IStorage.names(all=True)) | OTHERS, public)

    def test_memory_storage_has_no_members_beside_istorage(self) -> None:
        self.assert_members(MemoryStorage())

    def test_file_storage_has_no_members_beside_istorage(self) -> None:
        self.assert_members(FileStorage(self.mktemp(), Clock()))

    def test_acid_storage_has_no_members_beside_istorage(self) -> None:
        self.assert_members(AcidStorage(self.mktemp(), Clock()))
