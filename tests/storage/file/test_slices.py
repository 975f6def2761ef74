"""Tests of the slices of a checkpoint, and of its completion in time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import START, Append, StorageLimits, StreamConfig, Writer
from durable_streams.server.storage.disk import RealDisk, RealFile
from durable_streams.server.storage.file import FileSettings, FileStorage, recovery
from durable_streams.server.storage.file import checkpoint as checkpoints
from durable_streams.server.storage.file.frames import ENTRIES, WRITERS
from durable_streams.server.testing import settled
from tests.storage.file.directories import checkpointed

reactor = cast(Any, running)
ROOMY = StorageLimits(total_bytes=2**40, stream_bytes=2**40)
TEXT = StreamConfig("text/plain")


class MeasuredFile(RealFile):
    """Records how much is written at a time."""

    __slots__ = ("_path", "_writes")

    def __init__(self, descriptor: int, path: str, writes: list[tuple[str, int]]) -> None:
        super().__init__(descriptor)
        self._path = path
        self._writes = writes

    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        self._writes.append((self._path, sum(map(len, parts))))
        super().write(parts, position, durable)


class MeasuredDisk(RealDisk):
    """A disk of such files."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.writes: list[tuple[str, int]] = []

    def open(self, path: str, new: bool = False) -> MeasuredFile:
        file = super().open(path, new)
        return MeasuredFile(file._descriptor, path, self.writes)


class SliceTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.disk = MeasuredDisk(self.directory)

    def opened(self, **settings: Any) -> FileStorage:
        storage = FileStorage(self.directory, reactor, ROOMY, FileSettings(**settings), disk=self.disk)
        storage.open()
        self.addCleanup(storage.close)
        return storage

    async def together(self, outcomes: list[Any]) -> None:
        await gatherResults([cast("Deferred[Any]", outcome) for outcome in outcomes])

    def writer_frames(self) -> list[tuple[bytes, int]]:
        number = checkpoints.latest(self.disk)
        assert number is not None
        data = recovery.whole_file(self.disk, checkpoints.path_of(number))
        return [(header.magic, header.size) for _, header, _ in recovery.whole_frames(data, number)]

    async def test_the_producers_of_a_stream_are_written_in_frames_of_a_slice(self) -> None:
        storage = self.opened(slice_bytes=100_000)
        await settled(storage.create("a", TEXT, b"", 0.0))
        await settled(storage.create("b", TEXT, b"", 0.0))
        ids = [f"{number:04d}{'x' * 1000}" for number in range(1000)]
        append = storage.append
        await self.together(
            [append("a", Append("text/plain", b"x", writer=Writer(one, 3, 0)), float(at)) for at, one in enumerate(ids)]
        )
        await checkpointed(storage)
        frames = self.writer_frames()
        self.assertLess(max(size for _, size in frames), 110_000)
        self.assertEqual([magic for magic, _ in frames].count(WRITERS), 10)
        await storage.close()
        again = self.opened()
        self.assertEqual(list(again._catalogue.streams["a"].writers or ()), ids)
        self.assertIsNone(again._catalogue.streams["b"].writers)
        self.assertTrue((await settled(append_to(again, "a", Writer(ids[999], 3, 0)))).duplicate)

    async def test_the_entries_of_streams_with_long_names_are_written_in_frames_of_a_slice(self) -> None:
        storage = self.opened(slice_bytes=50_000)
        await self.together([storage.create(f"{n}/{'y' * 2000}", TEXT, b"", 0.0) for n in range(128)])
        await checkpointed(storage)
        sizes = [size for magic, size in self.writer_frames() if magic == ENTRIES]
        self.assertLess(max(sizes), 60_000)
        self.assertGreater(len(sizes), 5)

    async def test_a_large_stream_is_moved_to_its_file_in_parts(self) -> None:
        storage = self.opened()
        pieces = [bytes([number]) * 1_000_000 for number in range(30)]
        await settled(storage.create("a", TEXT, pieces[0], 0.0))
        for piece in pieces[1:]:
            await settled(storage.append("a", Append("text/plain", piece), 0.0))
        await checkpointed(storage)
        sizes = [size for path, size in self.disk.writes if path.endswith(".data")]
        self.assertEqual(sum(sizes), 30_000_000)
        self.assertLess(max(sizes), 5_000_000)
        await storage.close()
        again = self.opened()
        self.assertEqual((await settled(again.read("a", START, 1 << 30, 0.0))).data, b"".join(pieces))

    async def test_the_parts_of_a_stream_are_freed_as_soon_as_they_are_written(self) -> None:
        storage = self.opened()
        await settled(storage.create("a", TEXT, bytes(30_000_000), 0.0))
        for _ in range(30):
            await settled(storage.append("a", Append("text/plain", bytes(1_000_000)), 0.0))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        await checkpointed(storage)
        self.assertLess(tracemalloc.get_traced_memory()[1], 45_000_000)

    async def test_a_storage_is_congested_while_a_checkpoint_is_late(self) -> None:
        storage = self.opened(checkpoint_bytes=1_000_000)
        self.assertFalse(storage.congested())
        await settled(storage.create("a", TEXT, bytes(900_000), 0.0))
        self.assertFalse(storage.congested())
        await settled(storage.append("a", Append("text/plain", bytes(900_000)), 0.0))
        self.assertTrue(storage.congested())
        await checkpointed(storage)
        self.assertFalse(storage.congested())

    async def test_a_checkpoint_is_made_early_for_a_writer_that_asks(self) -> None:
        storage = self.opened(checkpoint_bytes=1 << 30)
        await settled(storage.create("a", TEXT, bytes(7_000_000), 0.0))
        self.assertFalse(storage.congested())
        self.assertIsNone(storage._checkpointer._running)
        await settled(storage.append("a", Append("text/plain", bytes(2_000_000)), 0.0))
        self.assertIsNone(storage._checkpointer._running)
        self.assertFalse(storage.congested())
        self.assertIsNotNone(storage._checkpointer._running)
        await settled(storage.append("a", Append("text/plain", bytes(5_000_000)), 0.0))
        self.assertTrue(storage.congested())
        await checkpointed(storage)
        self.assertFalse(storage.congested())

    async def test_writes_go_on_when_a_checkpoint_is_larger_than_the_journal_may_grow(self) -> None:
        storage = self.opened(checkpoint_bytes=50_000, max_behind_bytes=200_000)
        await self.together([storage.create(f"{n}/{'y' * 2000}", TEXT, b"", 0.0) for n in range(200)])
        await checkpointed(storage)
        refused = 0
        for _ in range(40):
            while True:
                try:
                    await settled(storage.append("0/" + "y" * 2000, Append("text/plain", b"x" * 20_000), 0.0))
                    break
                except Unavailable:
                    refused += 1
                    ended = storage._checkpointer._end_of_running()
                    self.assertIsNotNone(ended, "Appends are refused, and no checkpoint is under way.")
                    await ended  # type: ignore[misc]
        self.assertLess(refused, 40)


def append_to(storage: FileStorage, name: str, writer: Writer) -> Any:
    """Append as a writer."""
    return storage.append(name, Append("text/plain", b"x", writer=writer), 0.0)
