"""The contract, on files."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as running
from twisted.trial.unittest import TestCase

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.testing import DurableStorageContract, settled

SMALL = (1 << 20,)


class Reactor:
    """The running reactor, at the time at which it all began, so that to be opened again renews nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(running, name)

    def seconds(self) -> float:
        return 0.0


class DurableTests(DurableStorageContract, TestCase):
    """A storage that answers when the disk has it."""

    settings = FileSettings(segment_sizes=SMALL)

    def make_storage(self, limits: StorageLimits) -> FileStorage:
        self.directory = self.mktemp()
        return self.opened(limits)

    def opened(self, limits: StorageLimits) -> FileStorage:
        self.limits = limits
        storage = FileStorage(self.directory, Reactor(), limits, self.settings)
        storage.open()
        return storage

    async def reopen(self, storage: IStorage) -> IStorage:
        await settled(storage.close())
        return self.opened(self.limits)


class FastTests(DurableTests):
    """A storage that answers when the operating system has it."""

    settings = FileSettings(durable=False, segment_sizes=SMALL)


class MovedTests(DurableTests):
    """A storage whose bytes have left the journal before it is opened again."""

    settings = FileSettings(segment_sizes=SMALL, checkpoint_bytes=1, slice_streams=2)
