"""Tests of the reading of files with secrets."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.regular_files import NotAFileError
from durable_streams.server.secret_files import SharedFileError, is_shared, read_secret_file


class ReadSecretFileTests(SynchronousTestCase):
    def file(self, mode: int, data: bytes = b"secret") -> str:
        path = Path(self.mktemp())
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)

    def test_a_file_of_the_owner_alone_is_read(self) -> None:
        for mode in (0o400, 0o600, 0o700):
            self.assertEqual(b"secret", read_secret_file(self.file(mode), 100))

    def test_a_file_that_others_may_use_is_refused_with_its_mode(self) -> None:
        for mode in (0o604, 0o620, 0o640, 0o610, 0o601, 0o777):
            error = self.assertRaises(SharedFileError, read_secret_file, self.file(mode), 100)
            self.assertEqual(f"{mode:04o}", error.mode)

    def test_the_group_may_read_a_file_of_root_that_another_user_reads(self) -> None:
        found = os.stat(self.file(0o600))

        def shared(mode: int, owner: int) -> bool:
            parts = list(found)
            parts[stat.ST_MODE], parts[stat.ST_UID] = stat.S_IFREG | mode, owner
            return is_shared(os.stat_result(parts))

        self.patch(os, "geteuid", lambda: 4437)
        for mode, owner, expected in (
            (0o440, 0, False),
            (0o640, 0, False),
            (0o400, 4437, False),
            (0o640, 4437, True),
            (0o660, 0, True),
            (0o644, 0, True),
            (0o444, 0, True),
        ):
            self.assertEqual(expected, shared(mode, owner), (oct(mode), owner))
        self.patch(os, "geteuid", lambda: 0)
        self.assertTrue(shared(0o640, 0))

    def test_a_larger_file_is_recognised_by_one_more_byte(self) -> None:
        for size, read in ((9, 9), (10, 10), (11, 11), (12, 11)):
            self.assertEqual(read, len(read_secret_file(self.file(0o600, b"x" * size), 10)))

    def test_directories_and_pipes_are_refused_without_waiting(self) -> None:
        pipe = self.mktemp()
        os.mkfifo(pipe, 0o600)
        for path in (os.getcwd(), pipe):
            self.assertRaises(NotAFileError, read_secret_file, path, 100)

    def test_a_missing_file_is_an_oserror(self) -> None:
        error = self.assertRaises(OSError, read_secret_file, self.mktemp(), 100)
        self.assertIsInstance(error, FileNotFoundError)
