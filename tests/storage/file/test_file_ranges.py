"""Ranges of streams that are sent from files to sockets."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import DataDamaged, StreamNotFound
from durable_streams.server.interfaces import IFileRanges
from durable_streams.server.model import START, Append, FileRange, Fork, StreamConfig
from durable_streams.server.storage.disk import RealFile
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.storage.file.places import data_path
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.testing import settled
from durable_streams.server.web.bodies import FILE_PIECE, PIECE, Replay
from tests.storage.file.directories import append, checkpointed, create, flip, opened

ALL = 1 << 30


def received(part: FileRange) -> bytes:
    """Send a range through a pair of sockets, and return what comes out."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.settimeout(10)
        data = b""
        sent = part.send(left.fileno())
        while len(data) < sent:
            data += right.recv(sent - len(data))
        return data


class Collector:
    """
    A sink that takes part of what a file has now and then, as a socket does.

    :ivar sent: what came by :meth:`send_file`.
    """

    def __init__(self, chance: random.Random, body: Replay) -> None:
        self.data = bytearray()
        self.done: Deferred[bytes] = Deferred()
        self.sent = 0
        self._chance = chance
        self._body = body

    def write(self, data: bytes) -> None:
        self.data += data

    def send_file(self, part: FileRange) -> int:
        piece = received(part)[: self._chance.choice([0, 1, 1000, part.size])]
        self.data += piece
        self.sent += len(piece)
        if len(piece) < part.size:
            self._body.pauseProducing()
            from twisted.internet import reactor  # noqa: PLC0415 (the running one)

            clock: Any = reactor
            clock.callLater(0, self._body.resumeProducing)
        return len(piece)

    def finish(self) -> None:
        self.done.callback(bytes(self.data))

    def abort(self) -> None:
        self.done.errback(AssertionError("aborted"))


class FileRangeTests(TestCase):
    settings = FileSettings(segment_sizes=(1 << 20,))

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self.fill())

    async def fill(self) -> None:
        self.directory = Path(self.mktemp())
        self.storage: FileStorage = opened(self.directory, self.settings)
        self.addCleanup(self.storage.close)
        chance = random.Random(5)
        self.whole = b""
        await create(self.storage, "a")
        for _ in range(300):
            data = chance.randbytes(chance.randint(1, 9000))
            self.whole += data
            await append(self.storage, "a", data)
        await checkpointed(self.storage)
        self.filed = len(self.whole)
        self.facts = (await settled(self.storage.status("a", 0.0))).facts

    async def find(self, start: int, end: int) -> FileRange | None:
        return await settled(self.storage.file_range(self.facts, start, end))

    async def test_a_range_of_a_file_is_what_a_read_finds(self) -> None:
        chance = random.Random(6)
        for _ in range(50):
            start = chance.randrange(self.filed)
            end = min(self.filed, start + chance.randint(1, 100_000))
            part = await self.find(start, end)
            assert part is not None
            self.assertEqual(part.size, end - start)
            data = received(part)
            self.assertGreater(len(data), 0)
            self.assertEqual(data, self.whole[start : start + len(data)])

    async def test_what_is_in_memory_is_not_in_a_file(self) -> None:
        await append(self.storage, "a", b"recent")
        self.assertIsNone(await self.find(self.filed, self.filed + 6))
        part = await self.find(self.filed - 3, self.filed + 6)
        assert part is not None
        self.assertEqual((part.size, received(part)), (3, self.whole[-3:]))

    async def test_a_fork_has_its_sources_file(self) -> None:
        await settled(self.storage.create("f", StreamConfig(fork=Fork("a")), b"", 0.0))
        await append(self.storage, "f", b"own")
        self.facts = (await settled(self.storage.status("f", 0.0))).facts
        part = await self.find(10, self.filed + 3)
        assert part is not None
        self.assertEqual(part.size, self.filed - 10)
        self.assertIsNone(await self.find(self.filed, self.filed + 3))

    async def test_a_damaged_range_is_refused(self) -> None:
        flip(self.directory / data_path(self.facts.id), 70_000)
        self.storage._stored._blocks.forget(self.facts.id)
        with self.assertRaises(DataDamaged):
            await self.find(60_000, 80_000)

    async def test_a_range_that_is_damaged_after_it_was_verified_is_refused(self) -> None:
        self.assertIsNotNone(await self.find(60_000, 80_000))
        flip(self.directory / data_path(self.facts.id), 70_000)
        with self.assertRaises(DataDamaged):
            await self.find(60_000, 80_000)

    async def test_an_undamaged_range_beside_a_damaged_one_is_found(self) -> None:
        self.assertIsNotNone(await self.find(0, self.filed))
        flip(self.directory / data_path(self.facts.id), 300_000)
        part = await self.find(0, 100_000)
        assert part is not None
        self.assertEqual(received(part), self.whole[:100_000])

    async def test_a_range_that_the_page_cache_does_not_have_is_read_from_the_disk(self) -> None:
        self.assertIsNotNone(await self.find(0, 50_000))
        tried = []

        def miss(file: RealFile, buffer: memoryview, position: int) -> bool:
            tried.append(position)
            return False

        self.patch(RealFile, "fill_now", miss)
        part = await self.find(0, 50_000)
        assert part is not None
        self.assertEqual(received(part), self.whole[:50_000])
        self.assertEqual(tried[0], 0)

    async def test_a_deleted_stream_has_none(self) -> None:
        await settled(self.storage.delete("a", 0.0))
        with self.assertRaises(StreamNotFound):
            await self.find(0, 10)

    async def test_a_file_that_is_not_open_any_more_sends_nothing(self) -> None:
        part = await self.find(0, 10)
        assert part is not None
        self.storage._files.drop(data_path(self.facts.id))
        self.assertEqual(received(part), b"")

    async def test_only_files_provide_ranges(self) -> None:
        self.assertTrue(IFileRanges.providedBy(self.storage))
        self.assertFalse(IFileRanges.providedBy(MemoryStorage()))

    async def test_a_replay_is_the_same_whatever_goes_by_file(self) -> None:
        await append(self.storage, "a", b"recent")
        whole = self.whole + b"recent"
        self.assertGreater(len(whole), 2 * FILE_PIECE)
        for seed in range(20):
            streams = Streams(self.storage, self.storage._clock)
            streams._storage = self.storage
            chunk = await settled(streams.read("a", START, PIECE))
            body = Replay(streams, chunk)
            sink = Collector(random.Random(seed), body)
            body.start(sink)
            self.assertEqual(await sink.done, whole)
            self.assertGreater(sink.sent, 0)


class JsonRangeTests(TestCase):
    async def test_a_replay_of_json_ends_as_an_array(self) -> None:
        storage = opened(Path(self.mktemp()), FileSettings(segment_sizes=(1 << 20,)))
        self.addCleanup(storage.close)
        await settled(storage.create("j", StreamConfig("application/json"), b"", 0.0))
        message = b'"' + b"x" * 997 + b'",'
        for _ in range(800):
            await settled(storage.append("j", Append("application/json", message), 0.0))
        await checkpointed(storage)
        streams = Streams(storage, storage._clock)
        streams._storage = storage
        chunk = await settled(streams.read("j", START, PIECE))
        body = Replay(streams, chunk)
        sink = Collector(random.Random(1), body)
        body.start(sink)
        self.assertEqual(await sink.done, b"[" + (message * 800)[:-1] + b"]")
        self.assertGreater(sink.sent, 0)
