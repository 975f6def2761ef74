"""Bytes that flip on the disk under a storage: they are never served, a checkpoint keeps them damaged, the log says."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.internet.defer import maybeDeferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import DataDamaged
from durable_streams.server.model import START, Fork, Offset, StreamConfig, StreamStatus
from durable_streams.server.storage.disk import RealFile
from durable_streams.server.storage.file import FileSettings, verifying
from durable_streams.server.storage.file.checking import check_files
from durable_streams.server.storage.findings import Finding
from durable_streams.server.storage.readonly import ReadOnlyDisk
from durable_streams.server.testing import settled
from tests.storage.file.directories import append, checkpointed, create, flip, only, opened

ALL = 1 << 30


class DamageTestCase(TestCase):
    """A storage with one stream, whose appends are all in one place."""

    sizes: ClassVar[list[int]]
    settings = FileSettings(segment_sizes=(1 << 20,))

    def setUp(self) -> Any:
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.directory = Path(self.mktemp())
        self.appends = [bytes([97 + number % 26]) * size for number, size in enumerate(self.sizes)]
        self.whole = b"".join(self.appends)
        self.edges = [sum(self.sizes[:count]) for count in range(len(self.sizes) + 1)]
        return self.fill()

    async def fill(self) -> None:
        self.storage = opened(self.directory, self.settings)
        await create(self.storage, "a")
        for data in self.appends:
            await append(self.storage, "a", data)
        await checkpointed(self.storage)
        self.status: StreamStatus = await settled(self.storage.status("a", 0.0))
        self.addCleanup(self.end)

    async def end(self) -> None:
        if self.storage._closing is None:
            await self.storage.close()

    async def reopen(self, settings: FileSettings | None = None) -> None:
        await self.end()
        self.storage = opened(self.directory, settings or self.settings)
        # The checkpoint that follows a start is made when a test asks for it.
        soon = self.storage._checkpointer._soon
        if soon is not None and soon.active():
            soon.cancel()

    async def read(self, position: int, limit: int = ALL, whole: bool = False, name: str = "a") -> tuple[int, bytes]:
        offset = Offset(self.status.facts.incarnation, position)
        chunk = await settled(self.storage.read(name, offset, limit, 0.0, whole))
        return chunk.start, chunk.data

    async def assert_damaged(self, position: int, limit: int = ALL, whole: bool = False, name: str = "a") -> None:
        offset = Offset(self.status.facts.incarnation, position)
        await self.assertFailure(maybeDeferred(self.storage.read, name, offset, limit, 0.0, whole), DataDamaged)

    def logged(self) -> list[tuple[str, str, str]]:
        return [(event["where"], event["name"], event["what"]) for event in self.events if "what" in event]

    def damage(self) -> list[str]:
        """Check the directory, and return the damage that is reported."""
        found: list[Finding] = []
        check_files(ReadOnlyDisk(self.directory), found.append)
        return [finding.what for finding in found if finding.serious]


class OwnFileTests(DamageTestCase):
    """A stream with a file of its own: appends that end within blocks, one that has several, tiny ones."""

    sizes: ClassVar[list[int]] = [10, 20_000, 1, 1, 100_000, 7, 3, 40_000, 300, 5, 16_384, 1000, 200_000, 9]

    @property
    def data(self) -> Path:
        return only(self.directory, "streams/*/*.data")

    @property
    def index(self) -> Path:
        return only(self.directory, "streams/*/*.index")

    async def test_every_append_is_read_back_unchanged(self) -> None:
        for position in sorted({*self.edges, *(edge + 1 for edge in self.edges[:-1])} - {self.edges[-1]}):
            begin = max(edge for edge in self.edges if edge <= position)
            for limit in (1, 300, 20_000, 131_072, ALL):
                start, data = await self.read(position, limit)
                self.assertEqual((start, data == self.whole[begin : begin + limit]), (begin, True))
                offset = Offset(self.status.facts.incarnation, position)
                chunk = await settled(self.storage.read("a", offset, limit, 0.0, True))
                end = begin + len(chunk.data)
                self.assertEqual((chunk.start, chunk.data == self.whole[begin:end]), (begin, True))
                self.assertIn(end + chunk.more, self.edges)

    async def test_a_damaged_append_is_not_served_and_others_are(self) -> None:
        for number, start in enumerate(self.edges[:-1]):
            end = self.edges[number + 1]
            for place in {start, (start + end) // 2, end - 1}:
                flip(self.data, place)
                await self.assert_damaged(start)
                await self.assert_damaged(start, 1)
                await self.assert_damaged(0)
                if end < self.edges[-1]:
                    self.assertEqual((await self.read(end)), (end, self.whole[end:]))
                if start:
                    self.assertEqual((await self.read(0, start)), (0, self.whole[:start]))
                flip(self.data, place)
                self.assertEqual((await self.read(0)), (0, self.whole))

    async def test_ranges_of_a_damaged_append_are_not_served(self) -> None:
        facts = self.status.facts
        flip(self.data, self.edges[12] + 199_999)
        for start, end in ((self.edges[12] + 5, self.edges[12] + 6), (self.edges[12] - 1, self.edges[12] + 1)):
            await self.assertFailure(maybeDeferred(self.storage.read_range, facts, start, end), DataDamaged)

    async def test_damage_after_a_first_read_is_found_by_the_next_read(self) -> None:
        for _ in range(2):
            self.assertEqual((await self.read(0)), (0, self.whole))
        flip(self.data, 150_000)
        await self.assert_damaged(0)

    async def test_damage_is_logged_with_file_position_and_stream_once_a_minute(self) -> None:
        flip(self.data, self.edges[4] + 500)
        for _ in range(3):
            await self.assert_damaged(0)
        path = self.data.relative_to(self.directory).as_posix()
        what = f"bytes {self.edges[4]} to {self.edges[5]} do not have their checksum"
        self.assertEqual(self.logged(), [(f"{path} at {self.edges[4]}", "a", what)])

    async def test_damage_in_any_index_entry_is_found(self) -> None:
        for number in range(len(self.sizes)):
            for byte in range(12):
                place = 12 * number + byte
                flip(self.index, place)
                await self.reopen()
                await self.assert_damaged(self.edges[number])
                await self.assert_damaged(0)
                flip(self.index, place)

    async def test_append_ends_are_read_from_the_index(self) -> None:
        for reopened in (False, True):
            if reopened:
                await self.reopen()
            for start in (0, 5, 10, 20_012, self.edges[-1]):
                for count in (1, 3, 100):
                    ends = await settled(self.storage.append_ends(self.status.facts, start, count))
                    self.assertEqual(list(ends), [edge for edge in self.edges if edge > start][:count])

    async def test_append_ends_of_a_damaged_index_are_not_returned(self) -> None:
        flip(self.index, 3 * 12 + 5)
        await self.reopen()
        await self.assertFailure(maybeDeferred(self.storage.append_ends, self.status.facts, 0, 100), DataDamaged)

    async def test_an_index_of_zeros_serves_no_wrong_bytes(self) -> None:
        content = self.index.read_bytes()
        self.index.write_bytes(bytes(12 * 9) + content[12 * 9 :])
        await self.reopen()
        for number in range(1, 9):
            await self.assert_damaged(self.edges[number], 1)
        self.assertEqual((await self.read(self.edges[10])), (self.edges[10], self.whole[self.edges[10] :]))

    async def test_a_fork_does_not_serve_damaged_bytes_of_its_source(self) -> None:
        await create(self.storage, "f", b"!", Fork("a", Offset(self.status.facts.incarnation, self.edges[5])))
        self.assertEqual((await self.read(0, name="f"))[1], self.whole[: self.edges[5]] + b"!")
        flip(self.data, self.edges[4] + 1)
        await self.assert_damaged(0, name="f")
        self.assertEqual((await self.read(self.edges[5], name="f"))[1], b"!")
        inside = StreamConfig(fork=Fork("a", Offset(self.status.facts.incarnation, self.edges[4]), 10))
        await self.assertFailure(maybeDeferred(self.storage.create, "g", inside, b"", 0.0), DataDamaged)

    async def test_a_damaged_stream_can_be_appended_to_and_moved(self) -> None:
        await self.read(0)
        flip(self.data, self.edges[4] + 1)
        await append(self.storage, "a", b"more")
        await checkpointed(self.storage)
        await self.assert_damaged(0)
        self.assertEqual((await self.read(self.edges[13]))[1], self.whole[self.edges[13] :] + b"more")
        await self.end()
        self.assertEqual(len(self.damage()), 1)

    async def test_without_verification_damaged_bytes_are_served(self) -> None:
        await self.reopen(FileSettings(segment_sizes=(1 << 20,), verify_reads=False))
        flip(self.data, 15)
        start, data = await self.read(10, 20_000)
        self.assertEqual((start, data[:5], data[6:]), (10, b"bbbbb", b"b" * 19_994))

    async def test_a_file_truncated_while_open_is_damaged(self) -> None:
        os.truncate(self.data, self.edges[12])
        await self.assert_damaged(0)
        self.assertEqual((await self.read(0, self.edges[12])), (0, self.whole[: self.edges[12]]))

    async def test_an_unreadable_sector_is_damage(self) -> None:
        def refuse(*_: object) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        for method in ("read", "read_now"):
            with patch.object(RealFile, method, refuse), patch.object(RealFile, "read", refuse):
                await self.assert_damaged(10)
        self.assertIn("bytes can't be read: Input/output error", {what for _, _, what in self.logged()})
        self.assertEqual((await self.read(0)), (0, self.whole))
        self.assertIsNone(self.storage.obstacle())

    async def test_the_cache_of_verified_blocks_is_bounded(self) -> None:
        blocks = verifying.VerifiedBlocks(max_blocks=10)
        self.patch(self.storage._stored, "_blocks", blocks)
        await create(self.storage, "b", b"z" * 70_000)
        await checkpointed(self.storage)
        for _ in range(2):
            self.assertEqual((await self.read(0)), (0, self.whole))
            chunk = await settled(self.storage.read("b", START, ALL, 0.0))
            self.assertEqual(chunk.data, b"z" * 70_000)
        self.assertEqual(list(blocks._files), [(await settled(self.storage.status("b", 0.0))).facts.id])
        self.assertEqual(blocks._count, 5)


class PackTests(DamageTestCase):
    """A stream whose appends are one piece in a pack."""

    sizes: ClassVar[list[int]] = [10, 2000, 1, 300, 20_000, 7]

    @property
    def pack(self) -> Path:
        return max(self.directory.glob("packs/*"))

    def place_of(self, position: int) -> int:
        """Return the position in the pack of a byte of the stream."""
        return 48 + 8 * len(self.sizes) + position

    async def test_a_damaged_append_is_not_served_and_others_are(self) -> None:
        self.assertEqual((await self.read(0)), (0, self.whole))
        for number, start in enumerate(self.edges[:-1]):
            end = self.edges[number + 1]
            flip(self.pack, self.place_of(end - 1))
            await self.assert_damaged(start)
            await self.assert_damaged(start, 1, whole=True)
            await self.assert_damaged(0)
            if end < self.edges[-1]:
                self.assertEqual((await self.read(end)), (end, self.whole[end:]))
            if start:
                self.assertEqual((await self.read(0, start)), (0, self.whole[:start]))
            flip(self.pack, self.place_of(end - 1))
            self.assertEqual((await self.read(0)), (0, self.whole))

    async def test_damage_anywhere_in_a_piece_serves_no_wrong_bytes(self) -> None:
        for place in range(48 + 8 * len(self.sizes)):
            flip(self.pack, place)
            for position in self.edges[:-1]:
                offset = Offset(self.status.facts.incarnation, position)
                try:
                    chunk = await settled(self.storage.read("a", offset, ALL, 0.0))
                except DataDamaged:
                    continue
                self.assertEqual((chunk.start, chunk.data), (position, self.whole[position:]))
            flip(self.pack, place)

    async def test_damage_is_logged_with_pack_position_and_stream(self) -> None:
        flip(self.pack, self.place_of(11))
        await self.assert_damaged(0)
        path = self.pack.relative_to(self.directory).as_posix()
        self.assertEqual([event[:2] for event in self.logged()], [(f"{path} at 0", "a")])

    async def moved(self, more: bytes) -> None:
        """Append, and have all that there is of the stream moved to another place."""
        await append(self.storage, "a", more)
        await checkpointed(self.storage)

    async def test_damaged_bytes_moved_to_another_pack_stay_damaged(self) -> None:
        flip(self.pack, self.place_of(self.edges[1] + 3))
        old = self.pack
        more = b"m" * 30_000
        await self.moved(more)
        self.assertNotEqual(old, self.pack)
        self.assertEqual([event[:2] for event in self.logged()], [(f"packs/{old.name} at 0", "a")])
        await self.assert_damaged(0)
        self.assertEqual((await self.read(0, 10)), (0, self.whole[:10]))
        self.assertEqual((await self.read(self.edges[2])), (self.edges[2], self.whole[self.edges[2] :] + more))
        await self.end()
        self.assertEqual(
            self.damage(), [f"Bytes {self.edges[1]} to {self.edges[2]} of the stream a do not have their checksum."]
        )

    async def test_damaged_bytes_moved_to_an_own_file_stay_damaged(self) -> None:
        flip(self.pack, self.place_of(self.edges[1] + 3))
        more = b"m" * 70_000
        await self.moved(more)
        self.assertEqual(list(self.directory.glob("packs/*")), [])
        await self.assert_damaged(0)
        self.assertEqual((await self.read(0, 10)), (0, self.whole[:10]))
        self.assertEqual((await self.read(self.edges[2])), (self.edges[2], self.whole[self.edges[2] :] + more))
        await self.end()
        self.assertEqual(len(self.damage()), 1)

    async def test_damaged_ends_and_checksums_stay_damaged_when_moved(self) -> None:
        for place in range(48, 48 + 8 * len(self.sizes)):
            self.directory = Path(self.mktemp())
            await self.end()
            await self.fill()
            flip(self.pack, place)
            await self.moved(b"m" * (70_000 if place % 2 else 30_000))
            await self.assert_damaged(0)
            self.assertEqual((await self.read(self.edges[-1]))[1], b"m" * (70_000 if place % 2 else 30_000))
            await self.end()
            self.assertNotEqual(self.damage(), [])

    async def test_unreadable_bytes_are_not_moved(self) -> None:
        read = RealFile.read

        def refuse(file: RealFile, position: int, size: int) -> bytes:
            if size > 20_000:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(file, position, size)

        for more in (b"m" * 70_000, b"n" * 30_000):
            with patch.object(RealFile, "read", refuse):
                await self.moved(more)
        self.assertIsNone(self.storage.obstacle())
        self.assertEqual((await self.read(0)), (0, self.whole + b"m" * 70_000 + b"n" * 30_000))
        await self.moved(b"!")
        self.assertEqual((await self.read(0)), (0, self.whole + b"m" * 70_000 + b"n" * 30_000 + b"!"))
        await self.end()
        self.assertEqual(self.damage(), [])
