"""Restores of many streams at the same time, with families of forks among them, on the reactor."""

from __future__ import annotations

import os
from typing import Any, cast

from msgspec.structs import replace
from twisted.internet import reactor as running

from durable_streams.server.interfaces import settle
from durable_streams.server.model import Append, StreamConfig
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.streams import Streams
from durable_streams.server.transfer.archive.errors import PartialRestore

from .families import TEXT, contents, fork
from .test_storages import LIMITS, StorageCase

reactor = cast(Any, running)

#: How many families there are, of three streams each, and how many other streams.
FAMILIES = 60
OTHERS = 240


class ManyStreamsTests(StorageCase):
    async def fill(self, streams: Streams) -> list[str]:
        """Make the streams; return the names of those that clients find."""
        for number in range(OTHERS):
            config = StreamConfig("application/json") if number % 2 else TEXT
            name = f"other/{number:03}"
            await settle(streams.create(name, config, b"[1,2]" if number % 2 else b"%d" % number))
            if number % 10 == 0:
                await settle(streams.append(name, Append("text/plain", b"more")))
        await settle(streams.create("other/large", TEXT, os.urandom(400_000)))
        await settle(streams.append("other/large", Append("text/plain", os.urandom(300_000))))
        for number in range(FAMILIES):
            # Their names are before and after those of other streams.
            source, middle, last = f"z/{number}", f"m/{number}", f"a/{number}"
            await settle(streams.create(source, TEXT, b"0123456789"))
            await fork(streams, middle, source, 4, b"m%d" % number)
            await fork(streams, last, middle, 5, b"last")
            if number % 3 == 1:
                await settle(streams.delete(source))
        return [status.facts.name for status in await settle(streams.statuses("", 10_000))]

    def target(self, name: str, **limits: Any) -> Streams:
        storage = FileStorage(
            str(self.folder / name), reactor, replace(LIMITS, **limits), FileSettings(segment_sizes=(1 << 20,))
        )
        streams = Streams(storage, reactor)
        streams.startService()
        self.addCleanup(streams.stopService)
        return streams

    async def assert_restored(self, streams: Streams, names: list[str], before: dict[str, Any]) -> None:
        found = [status.facts.name for status in await settle(streams.statuses("", 10_000))]
        self.assertEqual(found, names)
        self.assertEqual(await contents(streams, names), before)
        hidden = [name for name in streams._owned._catalogue.streams if name.startswith("__ds/")]  # type: ignore[attr-defined]
        self.assertEqual(hidden, [])

    async def test_streams_and_forks_are_restored_and_replaced(self) -> None:
        source = self.start("memory", "source")
        names = await self.fill(source)
        before = await contents(source, names)
        path = await self.backup(source)
        target = self.target("target")
        self.assertEqual((await self.restore(target, path)).streams_restored, len(names))
        await self.assert_restored(target, names, before)
        for number in range(0, FAMILIES, 3):
            await settle(target.append(f"m/{number}", Append("text/plain", b"x")))
        stats = await self.restore(target, path, on_conflict="replace")
        self.assertEqual((stats.streams_restored, stats.streams_replaced), (len(names), len(names)))
        await self.assert_restored(target, names, before)
        self.assertEqual((await self.restore(target, path)).streams_skipped, len(names) + FAMILIES // 3)

    async def test_a_restore_that_stops_is_completed_by_a_second_one(self) -> None:
        source = self.start("memory", "source")
        names = await self.fill(source)
        before = await contents(source, names)
        path = await self.backup(source)
        target = self.target("target", streams=OTHERS)
        with self.assertRaises(PartialRestore) as caught:
            await self.restore(target, path)
        done = [status.facts.name for status in await settle(target.statuses("", 10_000))]
        self.assertGreaterEqual(caught.exception.completed, len(done))
        self.assertNotIn(caught.exception.stream, done)
        self.assertLessEqual(set(caught.exception.later) & set(names), set(done))
        await target.stopService()
        target = self.target("target")
        await self.restore(target, path)
        found = [status.facts.name for status in await settle(target.statuses("", 10_000))]
        self.assertEqual(found, names)
        for name in names:
            self.assertEqual((await contents(target, [name]))[name][1:], before[name][1:])
