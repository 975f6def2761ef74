"""The disk space of deleted streams: given back without a restart, and without more writes than the deletions."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.testing import settled
from tests.storage.file.directories import append, checkpointed, contents, create, opened

_STREAMS = 200
_BODY = b"x" * 10_000
SETTINGS = FileSettings(segment_sizes=(1 << 20,), reclaim_bytes=100_000)


def packed_bytes(directory: Path) -> int:
    """Return the bytes of all packs."""
    return sum(path.stat().st_size for path in directory.glob("packs/*"))


class ReclaimingTests(TestCase):
    """Packs take up to twice the bytes that streams read from them, and ``reclaim_bytes``."""

    async def filled(self) -> FileStorage:
        self.directory = Path(self.mktemp())
        storage = opened(self.directory, SETTINGS)
        for number in range(_STREAMS):
            await create(storage, f"{number}", _BODY)
        await checkpointed(storage)
        self.assertGreater(packed_bytes(self.directory), _STREAMS * len(_BODY))
        return storage

    async def at_rest(self, storage: FileStorage) -> None:
        """Wait until no checkpoint is being made."""
        while storage._checkpointer._running is not None:
            await deferLater(reactor, 0.01)

    async def delete(self, storage: FileStorage, first: int, end: int) -> None:
        for number in range(first, end):
            await settled(storage.delete(f"{number}", 0.0))
        await self.at_rest(storage)

    async def test_deleting_most_small_streams_gives_back_their_disk_space(self) -> None:
        storage = await self.filled()
        await self.delete(storage, 10, _STREAMS)
        live = 10 * len(_BODY)
        self.assertLess(packed_bytes(self.directory), 2 * live + SETTINGS.reclaim_bytes)
        await storage.close()
        self.assertEqual(dict.fromkeys(map(str, range(10)), _BODY), await contents(self.directory))

    async def test_deleting_all_small_streams_removes_all_packs(self) -> None:
        storage = await self.filled()
        await self.delete(storage, 0, _STREAMS)
        self.assertLess(packed_bytes(self.directory), SETTINGS.reclaim_bytes)
        await storage.close()

    async def test_streams_deleted_during_a_checkpoint_give_back_their_space_without_another_write(self) -> None:
        storage = await self.filled()
        deletions = [storage.delete(f"{number}", 0.0) for number in range(10, _STREAMS)]
        await append(storage, "0", b"and this")
        storage._checkpointer.start()
        for deletion in deletions:
            await settled(deletion)
        await self.at_rest(storage)
        self.assertLess(packed_bytes(self.directory), 20 * len(_BODY) + SETTINGS.reclaim_bytes)
        await storage.close()

    async def test_deleting_few_small_streams_makes_no_checkpoint(self) -> None:
        storage = await self.filled()
        number = storage._checkpointer._number
        await self.delete(storage, 0, _STREAMS // 3)
        self.assertEqual(number, storage._checkpointer._number)
        await storage.close()

    async def test_dead_bytes_from_before_a_restart_are_counted(self) -> None:
        storage = await self.filled()
        await self.delete(storage, 0, _STREAMS // 3)
        await storage.close()
        storage = opened(self.directory, SETTINGS)
        soon = storage._checkpointer._soon
        assert soon is not None
        soon.cancel()
        await self.delete(storage, _STREAMS // 3, _STREAMS // 3 + 60)
        left = _STREAMS - _STREAMS // 3 - 60
        self.assertLess(packed_bytes(self.directory), 2 * left * len(_BODY) + SETTINGS.reclaim_bytes)
        await storage.close()
