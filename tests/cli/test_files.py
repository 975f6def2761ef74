"""Files that commands write: complete under their name, or not there at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.cli.errors import CommandError
from durable_streams.server.cli.files import output_file


class OutputFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "out.json"

    def write(self, data: bytes, path: Path | None = None) -> None:
        with output_file(str(path or self.path)) as file:
            file.write(data)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def test_the_file_gets_its_name_when_it_is_complete(self) -> None:
        with output_file(str(self.path)) as file:
            file.write(b"first")
            self.assertFalse(self.path.exists())
            [partial] = self.names()
            self.assertRegex(partial, r"^\.out\.json\..*\.partial$")
        self.assertEqual((["out.json"], b"first"), (self.names(), self.path.read_bytes()))

    def test_a_new_file_is_readable_by_its_owner_only(self) -> None:
        self.write(b"x")
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))

    def test_a_replaced_file_keeps_its_mode_and_owner(self) -> None:
        self.path.write_bytes(b"old")
        self.path.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(self.path, 1, 2)
        before = self.path.stat()
        self.write(b"new")
        after = self.path.stat()
        self.assertEqual(b"new", self.path.read_bytes())
        self.assertEqual((before.st_mode, before.st_uid, before.st_gid), (after.st_mode, after.st_uid, after.st_gid))

    def test_after_an_error_or_a_signal_the_old_file_stays_and_no_other_is_left(self) -> None:
        self.path.write_bytes(b"old")
        for error in (ValueError(), KeyboardInterrupt(), SystemExit(130)):
            with self.assertRaises(type(error)), output_file(str(self.path)) as file:
                file.write(b"half")
                raise error
            self.assertEqual((["out.json"], b"old"), (self.names(), self.path.read_bytes()))

    def test_a_symbolic_link_stays_and_its_target_is_replaced(self) -> None:
        link = self.folder / "link"
        link.symlink_to("out.json")
        self.write(b"1", link)
        self.write(b"2", link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(b"2", self.path.read_bytes())

    def test_devices_and_descriptors_are_written_directly(self) -> None:
        self.write(b"gone", Path("/dev/null"))
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))
        self.path.write_bytes(b"line\n")
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self.addCleanup(os.close, descriptor)
        for form in ("/dev/fd/{}", "/proc/self/fd/{}"):
            self.write(b"more\n", Path(form.format(descriptor)))
        self.assertEqual(b"line\nmore\nmore\n", self.path.read_bytes())

    def test_what_cannot_be_created_is_an_error_with_the_path(self) -> None:
        for path in (self.folder / "none" / "x", self.folder, Path("/dev/fd/999999")):
            with self.assertRaises(CommandError) as caught, output_file(str(path)):
                self.fail("it was opened")
            self.assertEqual("failed to create output file", caught.exception.label)
            self.assertTrue(caught.exception.message.startswith(f"{path}: "), caught.exception.message)
