"""Backup and restore between all storages, with the real reactor, threads and files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from durable_streams.server.interfaces import IStorage, settle
from durable_streams.server.model import Append, StorageLimits, Writer
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.transfer.archive.backup import backup_streams
from durable_streams.server.transfer.archive.reader import verify_archive
from durable_streams.server.transfer.archive.restore import RestoreStats, restore_streams

from .families import contents, create, make_world, write

LIMITS = StorageLimits(total_bytes=1 << 30, stream_bytes=1 << 30)

STORAGES: dict[str, Callable[[str], IStorage]] = {
    "memory": lambda _: MemoryStorage(LIMITS),
    "file-durable": lambda path: FileStorage(path, reactor, LIMITS),
    "file-fast": lambda path: FileStorage(path, reactor, LIMITS, FileSettings(durable=False)),
    "acid": lambda path: AcidStorage(path, reactor, LIMITS),
}


class StorageCase(TestCase):
    """Tests with a folder and services that are stopped at the end."""

    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def start(self, mode: str, name: str) -> Streams:
        streams = Streams(STORAGES[mode](str(self.folder / name)), reactor)
        streams.startService()
        self.addCleanup(streams.stopService)
        return streams

    async def backup(self, streams: Streams, **options: Any) -> Path:
        path = self.folder / "backup.tar.zst"
        with path.open("wb") as file:
            totals = await backup_streams(streams, file, **options)
        with path.open("rb") as file:
            self.assertEqual(verify_archive(file)[1], totals)
        return path

    async def restore(self, streams: Streams, path: Path, **options: Any) -> RestoreStats:
        with path.open("rb") as file:
            return await restore_streams(streams, file, **options)


class AcrossStoragesTests(StorageCase):
    async def round_trip(self, source: str, target: str) -> None:
        streams = self.start(source, "source")
        names = await make_world(streams)
        before = await contents(streams, names)
        path = await self.backup(streams)
        restored = self.start(target, "target")
        await self.restore(restored, path)
        self.assertEqual(await contents(restored, names), before)
        self.assertTrue((await write(restored, "text/\u00e4 b", b"w2", writer=Writer("writer", 7, 2))).duplicate)
        if target != "memory":
            await restored.stopService()
            self.assertEqual(await contents(self.start(target, "target"), names), before)

    async def test_memory_to_memory(self) -> None:
        await self.round_trip("memory", "memory")

    async def test_memory_to_file_durable(self) -> None:
        await self.round_trip("memory", "file-durable")

    async def test_file_durable_to_acid(self) -> None:
        await self.round_trip("file-durable", "acid")

    async def test_acid_to_file_fast(self) -> None:
        await self.round_trip("acid", "file-fast")

    async def test_file_fast_to_memory(self) -> None:
        await self.round_trip("file-fast", "memory")

    async def test_file_durable_to_file_durable(self) -> None:
        await self.round_trip("file-durable", "file-durable")

    async def test_acid_to_acid(self) -> None:
        await self.round_trip("acid", "acid")

    async def replaced(self, mode: str) -> None:
        streams = self.start(mode, "one")
        names = await make_world(streams)
        before = await contents(streams, names)
        path = await self.backup(streams)
        for name in ("a", "live-source", "json"):
            record = await settle(streams.record(name))
            await settle(streams.append(name, changed_append(record.facts.media_type)))
        await self.restore(streams, path, on_conflict="replace")
        self.assertEqual(await contents(streams, names), before)
        await streams.stopService()
        if mode != "memory":
            self.assertEqual(await contents(self.start(mode, "one"), names), before)

    async def test_a_family_is_replaced_in_file_durable(self) -> None:
        await self.replaced("file-durable")

    async def test_a_family_is_replaced_in_acid(self) -> None:
        await self.replaced("acid")


def changed_append(media: str) -> Any:
    return Append(media, b"1," if media == "application/json" else b"changed")


class RunningServerTests(StorageCase):
    """What goes on during a backup."""

    async def test_appends_go_on_during_a_backup(self) -> None:
        streams = self.start("file-durable", "source")
        await create(streams, "a", *[os.urandom(100_000) for _ in range(50)])
        await create(streams, "b", b"0")
        count = 0

        async def piece(_: bytes) -> None:
            nonlocal count
            count += 1
            await write(streams, "a", b"more")
            await write(streams, "b", b"1")

        totals = await backup_streams(streams, piece)
        self.assertGreater(count, 30)
        self.assertEqual((await settle(streams.record("a"))).tail, 5_000_000 + 4 * count)
        self.assertEqual(totals.streams, 2)
        self.assertGreaterEqual(totals.bytes, 5_000_001)
        self.assertLess(totals.bytes, 5_000_000 + 5 * count)
