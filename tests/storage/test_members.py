"""The public members of the storages: the methods of IStorage, and nothing that only their own parts need."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import providedBy
from zope.interface.verify import verifyObject

from durable_streams.server.interfaces import IStorage
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.file import FileStorage
from durable_streams.server.storage.memory import MemoryStorage


class MemberTests(SynchronousTestCase):
    def assert_members(self, storage: IStorage) -> None:
        members = set()
        for interface in providedBy(storage):
            self.assertTrue(verifyObject(interface, storage))
            members |= set(interface.names(all=True))
        self.assertIn("append", members)
        public = {name for name in dir(storage) if not name.startswith("_")}
        self.assertEqual(members, public)

    def test_memory_storage_has_no_members_beside_istorage(self) -> None:
        self.assert_members(MemoryStorage())

    def test_file_storage_has_no_members_beside_istorage(self) -> None:
        self.assert_members(FileStorage(self.mktemp(), Clock()))

    def test_acid_storage_has_no_members_beside_istorage(self) -> None:
        self.assert_members(AcidStorage(self.mktemp(), Clock()))
