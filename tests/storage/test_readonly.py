"""Tests of a directory that is opened read-only."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.disk import RealDisk
from durable_streams.server.storage.readonly import ReadOnlyDisk


class ReadOnlyDiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        (self.root / "x").write_bytes(b"some bytes")
        self.disk = ReadOnlyDisk(self.root)

    def test_a_read_only_disk_reads_files(self) -> None:
        file = self.disk.open("x")
        self.assertEqual((10, b"bytes"), (file.size(), file.read(5, 100)))
        file.close()
        self.assertEqual(["x"], self.disk.names(""))

    def test_a_read_only_disk_changes_nothing(self) -> None:
        file = self.disk.open("x")
        self.addCleanup(file.close)
        attempts: list[Callable[[], object]] = [
            lambda: self.disk.open("x", new=True),
            lambda: self.disk.make_folder("y"),
            lambda: self.disk.rename("x", "y"),
            lambda: self.disk.remove("x"),
            lambda: file.write([b"other"], 0),
            lambda: file.cut(0),
            lambda: file.reserve(4096),
        ]
        for attempt in attempts:
            self.assertRaises(OSError, attempt)
        self.assertEqual((["x"], b"some bytes"), (os.listdir(self.root), (self.root / "x").read_bytes()))

    def test_a_read_only_disk_uses_the_same_lock(self) -> None:
        self.assertIsNone(self.disk.lock("LOCK", b"me\n"))
        self.assertEqual(b"me\n", RealDisk(self.root).lock("LOCK", b"you\n"))
        self.disk.unlock()
        other = RealDisk(self.root)
        self.assertIsNone(other.lock("LOCK", b"you\n"))
        self.assertEqual(b"you\n", self.disk.lock("LOCK", b"me\n"))
        other.unlock()
        self.assertEqual(b"", (self.root / "LOCK").read_bytes())

    def test_a_read_only_file_system_can_be_locked_and_read(self) -> None:
        refusal = OSError(errno.EROFS, "Read-only file system")
        with patch.object(RealDisk, "lock", side_effect=refusal):
            self.assertIsNone(self.disk.lock("LOCK", b"me\n"))
            self.disk.unlock()
            self.assertFalse((self.root / "LOCK").exists())
            # As a copy of a running server's has it.
            (self.root / "LOCK").write_bytes(b"12\n")
            self.assertIsNone(self.disk.lock("LOCK", b"me\n"))
            self.assertEqual(b"12\n", ReadOnlyDisk(self.root).lock("LOCK", b"you\n"))
        self.disk.unlock()
        self.assertEqual(b"12\n", (self.root / "LOCK").read_bytes())
        descriptor = os.open(self.root / "LOCK", os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_failing_disk_is_not_treated_as_read_only(self) -> None:
        with patch.object(RealDisk, "lock", side_effect=OSError(errno.EIO, "Input/output error")):
            self.assertRaises(OSError, self.disk.lock, "LOCK", b"me\n")
