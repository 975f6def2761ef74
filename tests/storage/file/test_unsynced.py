"""The number of acknowledged changes that are not synced."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import cast

from twisted.internet import reactor as running
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.disk import RealDisk, RealFile
from durable_streams.server.storage.file import FileSettings, FileStorage, log
from durable_streams.server.storage.shortages import SyncFailed
from tests.storage.file.directories import append, create

reactor = cast(IReactorTime, running)


class FailingFile(RealFile):
    """A file whose sync fails as soon as its disk says so."""

    __slots__ = ("disk",)

    disk: FailingDisk

    def sync(self) -> None:
        if self.disk.fails:
            raise SyncFailed(errno.EIO, os.strerror(errno.EIO))
        super().sync()


class FailingDisk(RealDisk):
    """A disk of such files."""

    fails = False

    def open(self, path: str, new: bool = False) -> FailingFile:
        file = FailingFile(super().open(path, new)._descriptor)
        file.disk = self
        return file


class UnsyncedTests(TestCase):
    timeout = 60

    def opened(self, durable: bool) -> FileStorage:
        # Long enough for all appends of a test on a busy machine.
        self.patch(log, "SYNC_INTERVAL", 2.0)
        self.disk = FailingDisk(Path(self.mktemp()))
        settings = FileSettings(durable=durable, segment_sizes=(1 << 20,))
        storage = FileStorage("here", reactor, StorageLimits(), settings, disk=self.disk)
        self.assertEqual(storage.figures().unsynced_changes, 0)
        storage.open()
        self.addCleanup(storage.close)
        return storage

    async def wait_until_synced(self, storage: FileStorage) -> None:
        """Wait for the next sync; trial's time-out bounds it."""
        while storage.figures().unsynced_changes:
            await deferLater(reactor, 0.05)

    async def test_changes_of_file_fast_are_counted_until_they_are_synced(self) -> None:
        storage = self.opened(durable=False)
        await create(storage, "a")
        for _ in range(4):
            await append(storage, "a", b"x")
        self.assertEqual(storage.figures().unsynced_changes, 5)
        await self.wait_until_synced(storage)

    async def test_changes_whose_sync_fails_remain_counted(self) -> None:
        storage = self.opened(durable=False)
        await create(storage, "a")
        await self.wait_until_synced(storage)
        self.disk.fails = True
        for _ in range(3):
            await append(storage, "a", b"x")
        while storage.obstacle() is None:
            await deferLater(reactor, 0.05)
        with self.assertRaises(Unavailable):
            await append(storage, "a", b"x")
        self.assertEqual(storage.figures().unsynced_changes, 3)
        self.flushLoggedErrors()

    async def test_file_durable_has_none(self) -> None:
        storage = self.opened(durable=True)
        await create(storage, "a")
        await append(storage, "a", b"x")
        self.assertEqual(storage.figures().unsynced_changes, 0)
