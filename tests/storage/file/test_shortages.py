"""Tests with a real shortage of descriptors, which delays work and does not stop the storage."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from twisted.internet import reactor as running
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import START
from durable_streams.server.storage.disk import RealDisk
from durable_streams.server.storage.file import FileSettings
from durable_streams.server.storage.shortages import RETRY_INTERVAL, SyncFailed, is_shortage
from durable_streams.server.testing import settled
from tests.support.descriptors import no_more_descriptors

from .directories import append, checkpointed, create, opened

reactor = cast(Any, running)
#: So small that the next segment is made at once.
SMALL = FileSettings(segment_sizes=(1 << 18,), checkpoint_bytes=1 << 30)

#: So large that the next segment is made for a checkpoint.
LARGE = FileSettings(segment_sizes=(4 << 20,), checkpoint_bytes=1 << 30)


class ShortageTests(TestCase):
    async def begin(self, settings: FileSettings) -> None:
        self.storage = opened(Path(self.mktemp()), settings)
        self.addCleanup(self.storage.close)
        await create(self.storage, "a", b"one")

    async def content(self) -> bytes:
        return (await settled(self.storage.read("a", START, 1 << 40, 0.0))).data

    async def test_writes_are_refused_while_no_segment_can_be_created(self) -> None:
        await self.begin(SMALL)
        piece = b"x" * 60_000
        written = refused = 0
        with no_more_descriptors():
            for _ in range(20):
                try:
                    await append(self.storage, "a", piece)
                    written += 1
                except Unavailable:
                    refused += 1
        self.assertGreater(refused, 0)
        self.assertIsNone(self.storage.obstacle())
        await deferLater(reactor, RETRY_INTERVAL)
        await append(self.storage, "a", b"last")
        self.assertEqual(await self.content(), b"one" + piece * written + b"last")

    async def test_a_checkpoint_without_free_descriptors_is_retried_later(self) -> None:
        await self.begin(LARGE)
        with no_more_descriptors():
            await checkpointed(self.storage)
        self.assertIsNone(self.storage.obstacle())
        self.assertGreater(self.storage._checkpointer.behind, 0)
        self.storage._checkpointer._not_before = 0.0
        await checkpointed(self.storage)
        self.assertEqual(self.storage._checkpointer.behind, 0)
        await append(self.storage, "a", b", two")
        self.assertEqual(await self.content(), b"one, two")

    async def test_a_read_without_free_descriptors_is_refused_and_succeeds_later(self) -> None:
        await self.begin(LARGE)
        await checkpointed(self.storage)
        self.storage._files.close()
        with no_more_descriptors(), self.assertRaises(Unavailable):
            await self.content()
        self.assertEqual(await self.content(), b"one")

    async def test_writes_far_ahead_of_a_failed_checkpoint_start_another(self) -> None:
        await self.begin(LARGE)
        with no_more_descriptors():
            await checkpointed(self.storage)
        self.storage._checkpointer._not_before = 0.0
        self.storage._checkpointer.settings = FileSettings(checkpoint_bytes=1, max_behind_bytes=1)
        with self.assertRaises(Unavailable):
            await append(self.storage, "a", b"x")
        running = self.storage._checkpointer._end_of_running()
        assert running is not None
        await running
        await append(self.storage, "a", b", two")
        self.assertEqual(await self.content(), b"one, two")


class SyncTests(SynchronousTestCase):
    """A failed sync is never a shortage, whatever the system calls it: what was written may be lost."""

    def setUp(self) -> None:
        disk = RealDisk(self.mktemp())
        disk.make_folder("")
        self.disk = disk
        self.file = disk.open("a", new=True)
        self.addCleanup(self.file.close)

    def test_syncs_and_durable_writes_that_fail_are_final(self) -> None:
        interrupted = OSError(errno.EINTR, "Interrupted system call")
        for call, work in (
            ("fdatasync", self.file.sync),
            ("pwritev", lambda: self.file.write([b"x"], 0, durable=True)),
            ("fsync", lambda: self.disk.sync_folder("")),
        ):
            with patch(f"os.{call}", side_effect=interrupted):
                error = self.assertRaises(SyncFailed, work)
            self.assertFalse(is_shortage(error))

    def test_a_write_without_sync_is_refused_during_a_shortage_and_can_be_retried(self) -> None:
        with patch("os.pwritev", side_effect=OSError(errno.ENOMEM, "Cannot allocate memory")):
            error = self.assertRaises(OSError, self.file.write, [b"x"], 0)
        self.assertTrue(is_shortage(error))
