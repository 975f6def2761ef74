"""The operating system's disk."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.disk import RealDisk
from durable_streams.server.storage.file.checkpoint import CheckpointFile


def failing_with(number: int) -> Callable[..., int]:
    """Return a system call that fails with an error."""

    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


class RealDiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = RealDisk(Path(self.mktemp()).absolute())
        self.disk.make_folder("")

    def test_a_file_that_is_closed_twice_does_not_close_another(self) -> None:
        first = self.disk.open("first", new=True)
        first.close()
        # It has the descriptor that is free now.
        second = self.disk.open("second", new=True)
        first.close()
        second.write([b"whole"], 0)
        self.assertEqual(second.read(0, 10), b"whole")
        self.assertRaises(OSError, first.read, 0, 1)
        second.close()

    def test_a_file_system_without_sendfile_sends_nothing(self) -> None:
        file = self.disk.open("file", new=True)
        self.addCleanup(file.close)
        file.write([b"whole"], 0)
        sending, receiving = socket.socketpair()
        self.addCleanup(sending.close)
        self.addCleanup(receiving.close)
        for number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            self.patch(os, "sendfile", failing_with(number))
            self.assertEqual(file.send(sending.fileno(), 0, 5), 0)
        self.patch(os, "sendfile", failing_with(errno.EPIPE))
        self.assertRaises(BrokenPipeError, file.send, sending.fileno(), 0, 5)

    def test_a_buffer_is_filled_from_the_page_cache(self) -> None:
        file = self.disk.open("file", new=True)
        self.addCleanup(file.close)
        file.write([b"0123456789"], 0)
        buffer = memoryview(bytearray(4))
        self.assertTrue(file.fill_now(buffer, 3))
        self.assertEqual(bytes(buffer), b"3456")
        self.assertFalse(file.fill_now(buffer, 8), "the file ends within the buffer")
        for number in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
            self.patch(os, "preadv", failing_with(number))
            self.assertFalse(file.fill_now(buffer, 3))
            self.assertIsNone(file.read_now(3, 4))
        self.patch(os, "preadv", failing_with(errno.EIO))
        self.assertRaises(OSError, file.fill_now, buffer, 3)

    def test_a_failed_rename_of_a_checkpoint_closes_no_other_file(self) -> None:
        checkpoint = CheckpointFile(self.disk, 1)
        rename = self.disk.rename

        def fail(old: str, new: str) -> None:
            rename(old, new)
            raise OSError(5, "Input/output error")

        self.patch(self.disk, "rename", fail)
        self.assertRaises(OSError, checkpoint.complete, 1, 1, 1, {}, 0)
        other = self.disk.open("other", new=True)
        checkpoint.abandon()
        other.write([b"whole"], 0)
        other.close()

    def test_a_new_folder_that_cannot_be_synced_is_removed(self) -> None:
        synced: list[str] = []
        sync_folder = self.disk.sync_folder

        def fail_once(path: str) -> None:
            synced.append(path)
            if len(synced) == 2:
                raise OSError(24, "Too many open files")
            sync_folder(path)

        self.patch(self.disk, "sync_folder", fail_once)
        self.assertRaises(OSError, self.disk.make_folder, "streams/01")
        self.assertEqual(self.disk.names("streams"), [])
        self.disk.make_folder("streams/01")
        self.assertEqual(synced, ["", "streams", "streams"])
        self.assertEqual(self.disk.names("streams"), ["01"])
