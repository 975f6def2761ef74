"""What is taken up, what is refused, and what is set aside, when a directory is opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from twisted.trial.unittest import TestCase

from durable_streams.server.model import START
from durable_streams.server.storage.changes import Wrote
from durable_streams.server.storage.file import FileStorage, recovery
from durable_streams.server.storage.file.checkpoint import CheckpointFile
from durable_streams.server.storage.file.frames import BATCH, BLOCK, HEADER_SIZE, Header, frame
from durable_streams.server.storage.ownership import StorageDamaged
from durable_streams.server.testing import settled
from tests.storage.file.directories import append, checkpointed, create, fill, opened


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

    async def test_bytes_that_a_client_has_sent_prove_nothing(self) -> None:
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
        again = self.opened()
        self.assertEqual((await settled(again.read("a", START, 100, 0.0))).data, b"kept")

    def test_an_append_that_was_logged_before_forgotten_writers_were_is_read(self) -> None:
        logged = msgspec.msgpack.encode([[2, 7, 0, b"x", 5, 1.0, False, None, "w", 3, 4]])
        (wrote,) = recovery._changes.decode(logged)
        self.assertEqual(wrote, Wrote(7, 0, b"x", 5, 1.0, False, None, "w", 3, 4, ()))

    async def test_packs_without_a_journal_are_no_empty_directory(self) -> None:
        await fill(self.directory)
        shutil.rmtree(self.directory / "checkpoint")
        shutil.rmtree(self.directory / "journal")
        self.assertIn("There is neither a checkpoint nor a journal", self.refused())
        self.assertTrue(list((self.directory / "packs").iterdir()))

    async def test_a_journal_that_ends_before_the_checkpoint_is_not_gone_on_with(self) -> None:
        storage = self.opened()
        await create(storage, "a", b"one")
        # The checkpoint has a stream that was made after it was begun.
        write_down = storage._mover._write_down

        async def later(file: CheckpointFile) -> dict[int, int]:
            await create(storage, "b")
            return await write_down(file)

        self.patch(storage._mover, "_write_down", later)
        await checkpointed(storage)
        await storage.close()
        self.journal().write_bytes(self.journal().read_bytes()[:BLOCK])
        self.assertIn("The journal ends with change 1, and change 2 was on the disk", self.refused())

    async def test_what_is_not_known_is_set_aside(self) -> None:
        await fill(self.directory)
        for path in ("notes.txt", "journal/notes", "streams/00/12345.data", "packs/x"):
            (self.directory / path).parent.mkdir(exist_ok=True)
            (self.directory / path).write_text(path)
        self.opened()
        aside = {path.name: path.read_text() for path in (self.directory / "set-aside").iterdir()}
        self.assertEqual(set(aside.values()), {"notes.txt", "journal/notes", "streams/00/12345.data", "packs/x"})
        self.assertEqual(set(aside), {"notes.txt", "journal-notes", "streams-00-12345.data", "packs-x"})
