"""Tests that syncs, timers, descriptors and checkpoint writes do not grow with the number of streams."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from durable_streams.server.model import START, Append, Lifetime, StorageLimits, StreamConfig
from durable_streams.server.storage.disk import RealDisk, RealFile
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.testing import settled
from tests.storage.file.directories import checkpointed

reactor = cast(Any, running)
ROOMY = StorageLimits(total_bytes=2**40, stream_bytes=2**40)


class CountingFile(RealFile):
    """A disk that counts writes and syncs."""

    __slots__ = ("_counts", "_folder")

    def __init__(self, descriptor: int, folder: str, counts: Counter[str]) -> None:
        super().__init__(descriptor)
        self._folder = folder
        self._counts = counts

    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        self._counts[f"{self._folder} bytes"] += sum(map(len, parts))
        self._counts[f"{self._folder} syncs"] += durable
        super().write(parts, position, durable)

    def sync(self) -> None:
        self._counts[f"{self._folder} syncs"] += 1
        super().sync()


class CountingDisk(RealDisk):
    """A disk that makes such files."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.counts: Counter[str] = Counter()

    def open(self, path: str, new: bool = False) -> CountingFile:
        file = super().open(path, new)
        return CountingFile(file._descriptor, path.partition("/")[0], self.counts)

    def sync_folder(self, path: str) -> None:
        self.counts["folder syncs"] += 1
        super().sync_folder(path)


class CostTests(TestCase):
    def setUp(self) -> None:
        self.disk = CountingDisk(Path(self.mktemp()))
        self.storage = FileStorage(
            "here", reactor, ROOMY, FileSettings(segment_sizes=(16 << 20,), open_files=8), disk=self.disk
        )
        self.storage.open()
        self.addCleanup(self.storage.close)

    async def create(self, count: int, size: int = 10, config: StreamConfig = StreamConfig("text/plain")) -> None:  # noqa: B008
        """Make streams, all at once."""
        body = b"x" * size
        await gatherResults(
            [cast("Deferred[Any]", self.storage.create(f"{size}/{n}", config, body, 0.0)) for n in range(count)]
        )

    async def test_concurrent_creates_share_syncs(self) -> None:
        self.disk.counts.clear()
        await self.create(1000)
        self.assertLessEqual(self.disk.counts["journal syncs"], 4)
        self.assertEqual(self.disk.counts["folder syncs"], 0)

    async def test_appends_sync_nothing_but_the_journal(self) -> None:
        await self.create(10)
        self.disk.counts.clear()
        append = Append("text/plain", b"x")
        for _ in range(50):
            await settled(self.storage.append("10/0", append, 0.0))
        self.assertEqual(set(+self.disk.counts), {"journal bytes", "journal syncs", "FRONTIER bytes"})
        self.assertEqual(self.disk.counts["journal syncs"], 50)

    async def test_a_checkpoint_of_many_small_streams_costs_a_few_syncs(self) -> None:
        costs = []
        for count in (20, 2000):
            await self.create(count, size=10 + count)
            self.disk.counts.clear()
            await checkpointed(self.storage)
            costs.append(sum(number for name, number in self.disk.counts.items() if name.endswith("syncs")))
            self.assertEqual(self.disk.counts["streams syncs"], 0)
        self.assertLessEqual(costs[1], costs[0] + 2)
        self.assertLess(costs[1], 20)

    async def test_a_checkpoint_writes_only_new_bytes(self) -> None:
        await self.create(200, size=5000)
        await checkpointed(self.storage)
        self.disk.counts.clear()
        await settled(self.storage.append("5000/0", Append("text/plain", b"x" * 100), 0.0))
        await checkpointed(self.storage)
        self.assertLess(self.disk.counts["packs bytes"], 1000)
        self.assertEqual(self.disk.counts["streams bytes"], 0)

    async def test_streams_have_no_timers(self) -> None:
        before = len(reactor.getDelayedCalls())
        await self.create(500, config=StreamConfig("text/plain", Lifetime(ttl=10**6)))
        self.assertLessEqual(len(reactor.getDelayedCalls()), before + 1)

    async def test_streams_have_no_descriptors(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        await self.create(100, size=70_000)
        await checkpointed(self.storage)
        for number in range(100):
            chunk = await settled(self.storage.read(f"70000/{number}", START, 1000, 0.0))
            self.assertEqual(len(chunk.data), 1000)
        # Eight may stay open, and a thread or two may be about to close one.
        self.assertLess(len(os.listdir("/proc/self/fd")), before + 20)
