"""Tests of the check of a data directory: each kind of damage is reported, and nothing is changed."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import ClassVar, Final

from twisted.trial.unittest import TestCase

from durable_streams.server.storage.disk import RealFile
from durable_streams.server.storage.file import checkpoint as checkpoints
from durable_streams.server.storage.file.checking import check_files
from durable_streams.server.storage.file.frames import BLOCK, HEADER_SIZE, read_header
from durable_streams.server.storage.file.places import INDEX_ENTRY_SIZE
from durable_streams.server.storage.findings import Counts, Finding
from durable_streams.server.storage.frontier import FRONTIER_FILE
from durable_streams.server.storage.ownership import StorageDamaged
from durable_streams.server.storage.readonly import ReadOnlyDisk

from .directories import append, checkpointed, contents, create, digests, fill, flip, only, opened

JOURNAL: Final = "journal/0000000000000002"
CHECKPOINT: Final = "checkpoint/0000000000000001"
PACK: Final = "packs/0000000000000001"

#: All bytes of the streams that are made by :func:`.directories.fill`, and what the journal alone has.
BYTES: Final = (
    *(120_000, 30_000),
    *(5 * len(b"first0, second"), 5 * len(b", third of 0, fourth of 0")),
    *(len(b"what others begin with"), len(b", and go on"), len(b"it isnevertoolatefor")),
)


def checked(directory: Path) -> tuple[Counts, list[Finding]]:
    """Check a directory."""
    findings: list[Finding] = []
    return check_files(ReadOnlyDisk(directory), findings.append), findings


class CheckTestCase(TestCase):
    """A directory of its own for each test, all of them alike."""

    made: ClassVar[Path | None] = None

    async def setUp(self) -> None:  # type: ignore[override]
        if CheckTestCase.made is None or not CheckTestCase.made.exists():
            CheckTestCase.made = Path(self.mktemp()).absolute()
            await fill(CheckTestCase.made)
        self.directory = Path(self.mktemp()).absolute()
        shutil.copytree(CheckTestCase.made, self.directory)
        self.data = only(self.directory, "streams/*/*.data")
        self.index = only(self.directory, "streams/*/*.index")

    def check(self) -> list[Finding]:
        """Check, and see that this changes nothing."""
        before = digests(self.directory)
        self.counts, findings = checked(self.directory)
        self.assertEqual(before, digests(self.directory))
        return findings

    def assert_one(self, serious: bool, where: str, *parts: str) -> None:
        """One thing is found, and it says all that."""
        findings = self.check()
        self.assertEqual(1, len(findings), findings)
        self.assert_told(findings[0], serious, where, *parts)

    def assert_told(self, finding: Finding, serious: bool, where: str, *parts: str) -> None:
        self.assertEqual((serious, where), (finding.serious, finding.where), finding)
        for part in parts:
            self.assertIn(part, finding.what)
        self.assertTrue(finding.advice)

    async def assert_refused_or_whole(self) -> None:
        """Assert that the server does not load damaged streams."""
        with self.assertRaises(StorageDamaged):
            opened(self.directory)

    def batches(self) -> list[int]:
        """Return the positions of the journal's frames after its opening."""
        data = (self.directory / JOURNAL).read_bytes()
        found = []
        position = BLOCK
        while (header := read_header(data[position : position + HEADER_SIZE])) is not None:
            found.append(position)
            position += (HEADER_SIZE + header[0].size + BLOCK - 1) // BLOCK * BLOCK
        return found


class WholeTests(CheckTestCase):
    def test_an_undamaged_directory_passes_and_is_counted(self) -> None:
        self.assertEqual([], self.check())
        pieces, entries = 5 + 2, 6
        self.assertEqual(
            Counts(streams=10, appends=31, bytes=sum(BYTES), frames=1 + len(self.batches()) + pieces + entries),
            self.counts,
        )
        self.assertEqual(16, len(self.batches()))

    async def test_a_directory_without_a_checkpoint_passes(self) -> None:
        directory = Path(self.mktemp())
        storage = opened(directory)
        await create(storage, "s", b"one")
        await append(storage, "s", b"two")
        await storage.close()
        self.assertEqual((Counts(streams=1, appends=2, bytes=6, frames=3), []), checked(directory))

    async def test_an_empty_directory_passes(self) -> None:
        directory = Path(self.mktemp())
        await opened(directory).close()
        self.assertEqual((Counts(frames=1), []), checked(directory))

    async def test_a_directory_with_many_checkpoints_passes(self) -> None:
        directory = Path(self.mktemp())
        storage = opened(directory)
        await create(storage, "s")
        for number in range(20):
            await append(storage, "s", b"%05d" % number * (number + 1))
            await checkpointed(storage)
        await storage.close()
        counts, findings = checked(directory)
        self.assertEqual([], findings)
        self.assertEqual((1, 20, 5 * 210), (counts.streams, counts.appends, counts.bytes))

    async def test_a_directory_of_a_start_that_was_killed_passes(self) -> None:
        # Opened again, and nothing after it: a segment with its opening only.
        storage = opened(self.directory)
        shutil.copytree(self.directory, self.directory.with_suffix(".copy"))
        await storage.close()
        counts, findings = checked(self.directory.with_suffix(".copy"))
        self.assertEqual([], findings)
        self.assertEqual((10, 31, sum(BYTES)), (counts.streams, counts.appends, counts.bytes))


class CheckpointTests(CheckTestCase):
    async def test_a_flipped_byte_in_a_checkpoint_is_found(self) -> None:
        path = self.directory / CHECKPOINT
        position = path.read_bytes().index(b"small/2")
        flip(path, position)
        findings = self.check()
        frame = position // BLOCK * BLOCK
        self.assert_told(findings[0], True, f"{CHECKPOINT} at {frame}", "probably concerns", "small/")
        await self.assert_refused_or_whole()

    async def test_a_damaged_frame_without_a_header_is_found(self) -> None:
        path = self.directory / CHECKPOINT
        flip(path, path.read_bytes().index(b"small/2") // BLOCK * BLOCK)
        findings = self.check()
        self.assertIn("streams concerned are unknown", findings[0].what)
        self.assertTrue(any("has 8 streams" not in f.what and f.where == CHECKPOINT for f in findings), findings)
        self.assertTrue(any("neither it nor the checkpoint knows" in finding.what for finding in findings), findings)
        await self.assert_refused_or_whole()

    async def test_a_truncated_checkpoint_is_found(self) -> None:
        path = self.directory / CHECKPOINT
        path.write_bytes(path.read_bytes()[: -2 * BLOCK])
        findings = self.check()
        self.assert_told(
            findings[-1] if len(findings) == 1 else findings[0],
            True,
            CHECKPOINT,
            "The end of the checkpoint is missing",
        )
        await self.assert_refused_or_whole()

    async def test_a_missing_checkpoint_is_found(self) -> None:
        (self.directory / CHECKPOINT).unlink()
        findings = self.check()
        self.assert_told(findings[0], True, f"{JOURNAL} at 0", "where 1 comes next")
        await self.assert_refused_or_whole()

    async def test_a_checkpoint_ahead_of_the_journal_is_accepted(self) -> None:
        directory = Path(self.mktemp())
        storage = opened(directory)
        await create(storage, "s", b"one")
        await append(storage, "s", b"two")
        writing = storage._checkpointer._write_down

        async def append_meanwhile(file: checkpoints.CheckpointFile) -> dict[int, int]:
            # It leaves no bytes behind by which it would be missed.
            await create(storage, "empty")
            return await writing(file)

        storage._checkpointer._write_down = append_meanwhile  # type: ignore[method-assign]
        await checkpointed(storage)
        await storage.close()
        self.assertEqual([], checked(directory)[1])
        path = directory / JOURNAL
        path.write_bytes(path.read_bytes()[:BLOCK])
        [finding] = checked(directory)[1]
        self.assertTrue(finding.serious)
        self.assertIn("Changes 3 to 3 were on the disk", finding.what)


class JournalTests(CheckTestCase):
    async def test_a_damaged_batch_before_a_later_batch_is_found(self) -> None:
        path = self.directory / JOURNAL
        flip(path, path.read_bytes().index(b", third of 2"))
        findings = self.check()
        where = f"{JOURNAL} at {self.batches()[4]}"
        self.assertEqual(2, len(findings), findings)
        self.assert_told(
            findings[0], True, where, "were on the disk", "probably concern the stream small/2, bytes 14 to 26"
        )
        self.assert_told(findings[1], True, where, "bytes 14 to 26 of the stream small/2 do not have their checksum")
        await self.assert_refused_or_whole()

    async def test_a_damaged_batch_without_a_header_is_found(self) -> None:
        flip(self.directory / JOURNAL, self.batches()[4])
        findings = self.check()
        self.assertEqual(2, len(findings), findings)
        self.assert_told(findings[0], True, f"{JOURNAL} at {self.batches()[3] + BLOCK}", "were on the disk")
        self.assert_told(
            findings[1],
            True,
            f"{JOURNAL} at {self.batches()[3] + 2 * BLOCK}",
            "the stream small/2 at 26",
            "bytes 14 to 26 are missing",
        )
        await self.assert_refused_or_whole()

    async def test_an_unfinished_write_at_the_end_is_not_damage(self) -> None:
        path = self.directory / JOURNAL
        data = bytearray(path.read_bytes())
        last = self.batches()[-1]
        data[last + BLOCK : last + BLOCK + 50] = data[last : last + 50]
        path.write_bytes(data)
        self.assert_one(False, f"{JOURNAL} at {last + BLOCK}", "a write that was not finished")
        self.assertEqual((10, 31, sum(BYTES)), (self.counts.streams, self.counts.appends, self.counts.bytes))
        self.assertEqual(b"it isnevertoolatefor", (await contents(self.directory))["late"])

    async def test_a_damaged_end_that_was_synced_is_damage(self) -> None:
        last = self.batches()[-1]
        flip(self.directory / JOURNAL, last + HEADER_SIZE + 3)
        found = [finding for finding in self.check() if finding.serious]
        self.assert_told(found[0], True, f"{JOURNAL} at {last}", "Changes 36 to 36 were on the disk")
        await self.assert_refused_or_whole()

    async def test_a_truncated_journal_is_damage(self) -> None:
        path = self.directory / JOURNAL
        for position in (self.batches()[-1], self.batches()[3], BLOCK):
            path.write_bytes(path.read_bytes()[:position])
            found = [finding for finding in self.check() if finding.serious]
            self.assert_told(found[0], True, f"{JOURNAL} at {position}", "to 36 were on the disk")
            await self.assert_refused_or_whole()

    async def test_a_last_segment_that_is_removed_or_emptied_is_damage(self) -> None:
        storage = opened(self.directory)
        storage._checkpointer.stop()
        await append(storage, "late", b"more")
        await storage.close()
        last = max((self.directory / "journal").iterdir())
        size = last.stat().st_size
        for emptied in (b"", bytes(size), None):
            if emptied is None:
                last.unlink()
            else:
                last.write_bytes(emptied)
            self.assert_one(True, f"journal/{last.name}", "is missing, or has lost its beginning", "change")
            await self.assert_refused_or_whole()

    async def test_a_truncated_journal_is_not_detected_without_a_frontier(self) -> None:
        path = self.directory / JOURNAL
        path.write_bytes(path.read_bytes()[: self.batches()[-1]])
        (self.directory / FRONTIER_FILE).unlink()
        self.assertEqual([], self.check())
        self.assertEqual(30, self.counts.appends)
        self.assertEqual(b"it isnevertoolate", (await contents(self.directory))["late"])

    async def test_a_directory_without_its_journal_is_refused(self) -> None:
        directory = Path(self.mktemp())
        storage = opened(directory)
        await create(storage, "a", b"one")
        await storage.close()
        for names in (["journal"], ["journal", FRONTIER_FILE]):
            for name in names:
                path = directory / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            self.assertIn("is never without one: all streams are missing", checked(directory)[1][0].what)
            self.assertIn("is never without one", str(self.assertRaises(StorageDamaged, opened, directory)))

    async def test_a_damaged_opening_of_a_segment_is_found(self) -> None:
        flip(self.directory / JOURNAL, 20)
        findings = self.check()
        self.assertEqual(1, len(findings), findings)
        self.assert_told(findings[0], True, f"{JOURNAL} at 0", "has lost its beginning")
        self.assertEqual(31, self.counts.appends)
        await self.assert_refused_or_whole()

    async def test_a_missing_journal_is_found(self) -> None:
        (self.directory / JOURNAL).unlink()
        self.assert_one(True, "journal", "no segment that can be read from number 2 on")
        await self.assert_refused_or_whole()

    async def test_a_missing_segment_between_others_is_found(self) -> None:
        directory = Path(self.mktemp())
        for number in range(3):
            storage = opened(directory)
            storage._checkpointer.stop()
            await create(storage, f"s{number}", b"some")
            await append(storage, "s0", b"more")
            await storage.close()
        self.assertEqual([], checked(directory)[1])
        (directory / JOURNAL).unlink()
        counts, findings = checked(directory)
        self.assertEqual(2, len(findings), findings)
        self.assert_told(findings[0], True, "journal/0000000000000001 at 12288", "Changes 3 to 4 were on the disk")
        self.assert_told(findings[1], True, "journal/0000000000000003 at 8192", "bytes 8 to 12 are missing")
        self.assertEqual(2, counts.streams)

    async def test_a_directory_with_neither_journal_nor_checkpoint_is_found(self) -> None:
        shutil.rmtree(self.directory / "journal")
        shutil.rmtree(self.directory / "checkpoint")
        self.assert_one(True, "the directory", "neither a checkpoint nor a journal")


class PlaceTests(CheckTestCase):
    def test_a_damaged_piece_of_a_pack_is_found(self) -> None:
        data = (self.directory / PACK).read_bytes()
        position = data.index(b"3, second")
        flip(self.directory / PACK, position + 2)
        frame = data.rindex(b"DSp1", 0, position)
        self.assert_one(True, f"{PACK} at {frame}", "Bytes 5 to 14 of the stream small/3 do not have their checksum")

    def test_a_damaged_header_of_a_piece_is_found(self) -> None:
        frame = (self.directory / PACK).read_bytes().rindex(b"DSp1")
        flip(self.directory / PACK, frame + 30)
        self.assert_one(True, f"{PACK} at {frame}", "the piece that they are in has not")

    async def test_a_truncated_pack_is_found(self) -> None:
        path = self.directory / PACK
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        findings = self.check()
        self.assertEqual(2, len(findings), findings)
        self.assert_told(findings[0], True, PACK, f"{len(data) - 1} of {len(data)} bytes")
        self.assert_told(findings[1], True, f"{PACK} at {data.rindex(b'DSp1')}", "are missing")
        await self.assert_refused_or_whole()

    async def test_a_missing_pack_is_found(self) -> None:
        (self.directory / PACK).unlink()
        findings = self.check()
        self.assertEqual(8, len(findings), findings)
        self.assert_told(findings[0], True, PACK, "is missing", "7 streams")
        told = "\n".join(finding.what for finding in findings)
        for name in (*(f"small/{number}" for number in range(5)), "source", "fork"):
            self.assertIn(f"of the stream {name}", told)
        self.assertIn("stream source, which was deleted and has forks, are missing", told)
        await self.assert_refused_or_whole()

    def test_damaged_appends_in_an_own_file_are_found(self) -> None:
        flip(self.data, 40_000)
        flip(self.data, 90_000)
        name = self.data.relative_to(self.directory).as_posix()
        self.assert_one(True, f"{name} at 40000", "Bytes 40000 to 120000 of the stream large do not have")

    def test_one_damaged_append_in_an_own_file_is_found(self) -> None:
        flip(self.data, 79_999)
        name = self.data.relative_to(self.directory).as_posix()
        self.assert_one(True, f"{name} at 40000", "Bytes 40000 to 80000 of the stream large", "at 12 to 24")

    async def test_a_truncated_own_file_is_found(self) -> None:
        self.data.write_bytes(self.data.read_bytes()[:100_000])
        name = self.data.relative_to(self.directory).as_posix()
        self.assert_one(True, name, "Bytes 100000 to 120000 of the stream large are missing")
        await self.assert_refused_or_whole()

    async def test_a_missing_own_file_or_index_is_found(self) -> None:
        for path in (self.data, self.index):
            kept = path.read_bytes()
            path.unlink()
            self.assert_one(True, path.relative_to(self.directory).as_posix(), "is missing", "0 to 120000", "large")
            await self.assert_refused_or_whole()
            path.write_bytes(kept)

    def test_a_damaged_end_in_an_index_is_found(self) -> None:
        flip(self.index, INDEX_ENTRY_SIZE + 1)
        self.assert_one(True, f"{self._data_name()} at 40000", "Bytes 40000 to 120000 of the stream large")

    def test_an_impossible_end_in_an_index_is_found(self) -> None:
        flip(self.index, INDEX_ENTRY_SIZE + 6)
        findings = self.check()
        name = self.index.relative_to(self.directory).as_posix()
        self.assert_told(findings[0], True, f"{name} at 12", "Append 1 of the stream large begins at 40000, and can't")
        self.assert_told(findings[1], True, f"{self._data_name()} at 40000", "Bytes 40000 to 120000")

    def test_a_damaged_last_end_in_an_index_is_found(self) -> None:
        flip(self.index, 2 * INDEX_ENTRY_SIZE + 6)
        name = self.index.relative_to(self.directory).as_posix()
        findings = self.check()
        self.assert_told(findings[0], True, f"{name} at 24", "can't end at")
        self.assert_told(findings[1], True, f"{name} at 36", "Bytes 80000 to 120000", "nor proven")

    def test_a_damaged_checksum_in_an_index_is_found(self) -> None:
        flip(self.index, 9)
        self.assert_one(True, f"{self._data_name()} at 0", "Bytes 0 to 40000 of the stream large")

    async def test_a_truncated_index_is_found(self) -> None:
        self.index.write_bytes(self.index.read_bytes()[:30])
        findings = self.check()
        name = self.index.relative_to(self.directory).as_posix()
        self.assert_told(findings[0], True, name, "has 2 of 3 appends")
        self.assert_told(findings[1], True, f"{name} at 36", "Bytes 80000 to 120000")
        await self.assert_refused_or_whole()

    def _data_name(self) -> str:
        return self.data.relative_to(self.directory).as_posix()


class ManyTests(CheckTestCase):
    def test_packs_and_files_are_checked_without_a_readable_checkpoint(self) -> None:
        (self.directory / CHECKPOINT).write_bytes(bytes(BLOCK))
        findings = self.check()
        self.assertNotIn(PACK, str(findings))
        self.assertNotIn("streams/", str(findings))
        flip(self.directory / PACK, (self.directory / PACK).read_bytes().index(b"3, second"))
        flip(self.data, 90_000)
        told = "\n".join(finding.what for finding in self.check())
        self.assertIn("Bytes 5 to 14 of the stream of the id 5 do not have their checksum", told)
        self.assertIn("Bytes 80000 to 120000 of the stream of the id 1 do not have", told)

    def test_several_damaged_files_are_all_reported(self) -> None:
        flip(self.directory / CHECKPOINT, 8)
        flip(self.directory / JOURNAL, self.batches()[4])
        flip(self.directory / PACK, (self.directory / PACK).read_bytes().index(b", second") + 3)
        flip(self.data, 100)
        places = {finding.where.partition(" ")[0] for finding in self.check() if finding.serious}
        self.assertLessEqual({CHECKPOINT, JOURNAL, PACK, self.data.relative_to(self.directory).as_posix()}, places)


class Unreadable(RealFile):
    """A file whose blocks have gone bad."""

    def read(self, position: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


class FailingDisk(ReadOnlyDisk):
    """A disk with one file that cannot be read or opened."""

    def __init__(self, root: Path, path: str, opens: bool) -> None:
        super().__init__(root)
        self._failing = path
        self._opens = opens

    def open(self, path: str, new: bool = False) -> RealFile:
        if path != self._failing:
            return super().open(path, new)
        if not self._opens:
            raise OSError(errno.EIO, "Input/output error", path)
        return Unreadable(self.descriptor(path, os.O_RDONLY))


class UnreadableTests(CheckTestCase):
    def test_files_that_the_disk_cannot_read_are_reported(self) -> None:
        own = [path.relative_to(self.directory).as_posix() for path in (self.data, self.index)]
        for path in (CHECKPOINT, JOURNAL, PACK, *own):
            for opens in (True, False):
                findings: list[Finding] = []
                check_files(FailingDisk(self.directory, path, opens), findings.append)
                told = [finding for finding in findings if path in finding.where and "can't be read: " in finding.what]
                self.assertTrue(told, (path, opens, findings))
                self.assertTrue(told[0].serious)
                self.assertIn("See to the disk first.", told[0].advice)


class LeftoverTests(CheckTestCase):
    def test_an_unknown_file_is_reported(self) -> None:
        for name in ("notes.txt", "journal/x", "packs/0000000000000001.old", "streams/01/1.bak", "streams/4d/77.data"):
            path = self.directory / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"?")
            self.assert_one(False, name, "does not belong")
            path.unlink()

    def test_an_empty_folder_of_removed_streams_is_not_reported(self) -> None:
        (self.directory / "streams" / "00").mkdir()
        self.assertEqual([], self.check())

    def test_superseded_files_are_noted(self) -> None:
        for name in (
            "checkpoint/0000000000000000",
            "checkpoint/0000000000000002.new",
            "journal/0000000000000001",
            "packs/0000000000000007",
        ):
            path = self.directory / name
            path.write_bytes(b"?")
            self.assert_one(False, name, "not needed any more")
            path.unlink()

    def test_an_unused_segment_is_noted(self) -> None:
        path = self.directory / "journal/0000000000000003"
        path.write_bytes(bytes(BLOCK))
        self.assert_one(False, "journal/0000000000000003", "not needed any more")
        path.write_bytes(b"DSj" + bytes(BLOCK))
        findings = self.check()
        self.assertEqual([False, False], [finding.serious for finding in findings])
        self.assertIn("nothing that can be read as a whole", findings[0].what)

    def test_files_that_were_set_aside_are_noted(self) -> None:
        path = self.directory / "set-aside" / "journal-x"
        path.parent.mkdir()
        path.write_bytes(b"?")
        self.assert_one(False, "set-aside/journal-x", "was set aside")
