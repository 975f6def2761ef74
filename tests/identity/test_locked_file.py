"""Changes of files of tokens and keys: locks, owners and modes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity import locked_file as module
from durable_streams.server.identity.locked_file import FileNotChanged, locked_file


class LockedFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "keys"

    def change(self, data: bytes, create: bool = False) -> None:
        with locked_file(str(self.path), create) as file:
            file.replace(data)

    def test_a_file_is_replaced_with_its_mode(self) -> None:
        for mode in (0o600, 0o400, 0o640):
            self.path.unlink(missing_ok=True)
            self.path.write_bytes(b"old")
            self.path.chmod(mode)
            self.change(b"new")
            self.assertEqual((b"new", mode), (self.path.read_bytes(), stat.S_IMODE(self.path.stat().st_mode)))
        self.assertEqual([self.path], list(self.folder.iterdir()))

    def test_a_missing_file_is_created_for_its_owner_only_if_that_is_asked_for(self) -> None:
        self.assertRaises(FileNotFoundError, self.change, b"new")
        self.assertEqual([], list(self.folder.iterdir()))
        self.change(b"new", create=True)
        self.assertEqual((b"new", 0o600), (self.path.read_bytes(), stat.S_IMODE(self.path.stat().st_mode)))

    def test_a_file_that_was_created_is_removed_after_an_error(self) -> None:
        with self.assertRaises(KeyError), locked_file(str(self.path), create=True):
            raise KeyError
        self.assertEqual([], list(self.folder.iterdir()))

    def test_a_file_whose_owner_cannot_be_kept_is_not_changed(self) -> None:
        self.path.write_bytes(b"old")
        refused = OSError(1, "Operation not permitted")
        with patch.object(os, "geteuid", return_value=-1), patch.object(os, "fchown", side_effect=refused):
            error = self.assertRaises(FileNotChanged, self.change, b"new")
        self.assertIn("Operation not permitted. It was not changed.", str(error))
        self.assertEqual(b"old", self.path.read_bytes())
        self.assertEqual([self.path], list(self.folder.iterdir()))

    def test_a_second_change_waits_for_the_first_no_longer_than_the_timeout(self) -> None:
        self.path.write_bytes(b"old")
        with patch.object(module, "LOCK_TIMEOUT", 0.05), locked_file(str(self.path), create=False) as first:
            self.assertIn("Another command has locked", str(self.assertRaises(FileNotChanged, self.change, b"second")))
            first.replace(b"first")
        self.assertEqual(b"first", self.path.read_bytes())
        self.change(b"third")
        self.assertEqual(b"third", self.path.read_bytes())
