"""Tests of opening a directory: which files are loaded, refused or set aside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.model import START
from durable_streams.server.storage.changes import DataAppended
from durable_streams.server.storage.file import FileStorage, journal_reader
from durable_streams.server.storage.file.checkpoint import CheckpointFile
from durable_streams.server.storage.file.frames import BATCH, BLOCK, HEADER_SIZE, Header, frame
from durable_streams.server.storage.file.recovery import end_of_data
from durable_streams.server.storage.frontier import FRONTIER_FILE
from durable_streams.server.storage.ownership import StorageDamaged
from durable_streams.server.testing import settled
from tests.storage.file.directories import append, checkpointed, contents, create, fill, opened
from tests.storage.file.test_checking import checked


class OpeningTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    def opened(self) -> FileStorage:
        storage = opened(self.directory)
        self.addCleanup(storage.close)
        return storage

    def journal(self) -> Path:
        """The last segment."""
        return max((self.directory / "journal").iterdir())

    def refused(self) -> str:
        before = sorted(str(path) for path in self.directory.rglob("*"))
        message = str(self.assertRaises(StorageDamaged, opened, self.directory))
        self.assertEqual(sorted(str(path) for path in self.directory.rglob("*")), before)
        return message

    async def test_frames_inside_the_data_of_clients_are_ignored(self) -> None:
        storage = self.opened()
        await create(storage, "a", b"kept")
        path = min((self.directory / "journal").iterdir())
        number = int(path.name)
        start = path.read_bytes().rstrip(b"\0")
        torn_at = (len(start) + BLOCK - 1) // BLOCK * BLOCK
        forged = frame(Header(BATCH, 0, number, 9999, 9999, 9999), b"")[0]
        # Somewhere in this, one begins at a multiple of the block's size.
        await append(storage, "a", b"".join(forged + bytes([shift]) for shift in range(256)) * 20)
        data = bytearray(path.read_bytes())
        data[torn_at : torn_at + 512] = bytes(512)
        at_blocks = [data[place : place + 4] for place in range(torn_at, len(data), BLOCK)]
        if BATCH not in at_blocks:
            # Or is put there.
            data[torn_at + BLOCK : torn_at + BLOCK + HEADER_SIZE] = forged
        await storage.close()
        path.write_bytes(data)
        # As it is when the power fails before that append is on the disk.
        (self.directory / FRONTIER_FILE).unlink()
        again = self.opened()
        self.assertEqual((await settled(again.read("a", START, 100, 0.0))).data, b"kept")

    def test_an_append_record_without_evicted_writers_is_decoded(self) -> None:
        logged = msgspec.msgpack.encode([[2, 7, 0, b"x", 5, 1.0, False, None, "w", 3, 4]])
        (wrote,) = journal_reader._changes.decode(logged)
        self.assertEqual(wrote, DataAppended(7, 0, b"x", 5, 1.0, False, None, "w", 3, 4, ()))

    async def test_a_directory_with_packs_but_no_journal_is_refused(self) -> None:
        await fill(self.directory)
        shutil.rmtree(self.directory / "checkpoint")
        shutil.rmtree(self.directory / "journal")
        self.assertIn("There is neither a checkpoint nor a journal", self.refused())
        self.assertTrue(list((self.directory / "packs").iterdir()))

    async def test_a_journal_that_ends_before_its_checkpoint_is_not_continued(self) -> None:
        storage = self.opened()
        await create(storage, "a", b"one")
        # The checkpoint has a stream that was made after it was begun.
        write_down = storage._checkpointer._write_down

        async def later(file: CheckpointFile) -> dict[int, int]:
            await create(storage, "b")
            return await write_down(file)

        self.patch(storage._checkpointer, "_write_down", later)
        await checkpointed(storage)
        await storage.close()
        self.journal().write_bytes(self.journal().read_bytes()[:BLOCK])
        self.assertIn("at 4096: Changes 2 to 2 were on the disk", self.refused())

    async def test_unknown_files_are_set_aside(self) -> None:
        await fill(self.directory)
        for path in ("notes.txt", "journal/notes", "streams/00/12345.data", "packs/x"):
            (self.directory / path).parent.mkdir(exist_ok=True)
            (self.directory / path).write_text(path)
        self.opened()
        aside = {path.name: path.read_text() for path in (self.directory / "set-aside").iterdir()}
        self.assertEqual(set(aside.values()), {"notes.txt", "journal/notes", "streams/00/12345.data", "packs/x"})
        self.assertEqual(set(aside), {"notes.txt", "journal-notes", "streams-00-12345.data", "packs-x"})

    async def test_files_with_similar_names_are_set_aside_and_do_not_prevent_a_start(self) -> None:
        await fill(self.directory)
        before = await contents(self.directory)
        strays = [
            "streams/.DS_Store",
            "streams/zz",
            "streams/0f",
            f"journal/{'9' * 17}",
            "journal/\u0661\u0662",
            "journal/\u00b2",
            "packs/77",
            "checkpoint/99",
            "streams/04/\u0664.data",
        ]
        for path in strays:
            (self.directory / path).parent.mkdir(exist_ok=True)
            (self.directory / path).write_text(path)
        notes = [finding.where for finding in checked(self.directory)[1] if not finding.serious]
        for path in strays:
            self.assertIn(path, notes)
        self.assertEqual(await contents(self.directory), before)
        aside = {path.read_text() for path in (self.directory / "set-aside").iterdir()}
        self.assertEqual(aside, set(strays))

    async def test_a_file_in_place_of_a_folder_is_an_error_with_its_path(self) -> None:
        await fill(self.directory)
        (self.directory / "packs").rename(self.directory / "set-aside")
        (self.directory / "packs").write_text("no folder")
        self.assertIn("The file packs/0000000000000001 is missing", self.refused())
        self.directory = Path(self.mktemp())
        await opened(self.directory).close()
        (self.directory / "packs").write_text("no folder")
        self.assertIn("packs is not a directory. Move it away", self.refused())

    async def test_only_the_owner_can_read_the_folders_with_any_umask(self) -> None:
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        await fill(self.directory)
        (self.directory / "streams").chmod(0o755)
        await contents(self.directory)
        for path in (self.directory, *self.directory.rglob("*")):
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)


class EndOfDataTests(SynchronousTestCase):
    @given(st.binary(max_size=20), st.integers(0, 3 * 64 * 4096), st.integers(0, 30))
    def test_the_last_byte_that_is_not_zero_is_found(self, data: bytes, zeros: int, start: int) -> None:
        start = min(start, len(data))
        expected = max(start, len(data.rstrip(b"\0")))
        self.assertEqual(end_of_data(data + bytes(zeros), start), expected)
