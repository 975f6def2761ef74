"""The files in which ``tail`` and ``append`` note how far they have come."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.cli.append_state import RunState
from durable_streams.server.cli.errors import CommandError
from durable_streams.server.cli.files import replace_file
from durable_streams.server.cli.saved_offset import SavedOffset, load_offset, save_offset

URL = "http://localhost/v1/stream/a"


class SavedOffsetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "offset"

    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def mode(self, path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    def test_what_was_saved_is_loaded_and_nothing_is_left_beside_it(self) -> None:
        for skip in (1, 2):
            save_offset(self.path, SavedOffset(URL, "1_2", skip), sync=True)
            self.assertEqual(load_offset(self.path, URL), SavedOffset(URL, "1_2", skip))
        self.assertEqual(self.names(), ["offset"])

    def test_a_new_file_is_private_and_the_mode_of_an_existing_one_stays(self) -> None:
        replace_file(self.path, b"1", sync=False)
        self.assertEqual(self.mode(self.path), 0o600)
        self.path.chmod(0o640)
        replace_file(self.path, b"2", sync=False)
        self.assertEqual((self.mode(self.path), self.path.read_bytes()), (0o640, b"2"))

    def test_the_owner_of_an_existing_file_stays(self) -> None:
        self.path.write_bytes(b"1")
        if os.geteuid() == 0:
            os.chown(self.path, 1, 2)
        before = self.path.stat()
        replace_file(self.path, b"2", sync=False)
        after = self.path.stat()
        self.assertEqual((before.st_uid, before.st_gid), (after.st_uid, after.st_gid))

    def test_a_link_that_another_user_has_put_there_is_not_written_through(self) -> None:
        # In a directory that all users can write, such as /tmp.
        victim = self.directory / "victim"
        victim.write_bytes(b"important")
        planted = [f"offset.{os.getpid()}.new", f"offset.{os.getpid()}.partial", "offset.new"]
        for name in planted:
            (self.directory / name).symlink_to("victim")
        save_offset(self.path, SavedOffset(URL, "1_2"))
        self.assertEqual(victim.read_bytes(), b"important")
        self.assertEqual(self.names(), sorted(["offset", "victim", *planted]))

    def test_the_lock_of_a_state_file_is_not_made_where_a_link_leads(self) -> None:
        (self.directory / "state.lock").symlink_to("elsewhere")
        with self.assertRaisesRegex(CommandError, "Cannot write .*state.lock: Too many levels of symbolic links"):
            RunState(self.directory / "state", URL, "p")
        self.assertEqual(self.names(), ["state.lock"])

    def test_the_target_of_a_link_is_replaced_and_the_link_stays(self) -> None:
        target = self.directory / "target"
        self.path.symlink_to("target")
        replace_file(self.path, b"1", sync=False)
        self.assertEqual((target.read_bytes(), self.path.is_symlink()), (b"1", True))

    def test_devices_and_pipes_are_refused_at_once(self) -> None:
        os.mkfifo(self.path)
        for path in (self.path, Path("/dev/full"), Path("/dev/zero")):
            with self.assertRaisesRegex(CommandError, f"Cannot read {path} .--save-offset.: Not a regular file"):
                load_offset(path, URL)
        with self.assertRaisesRegex(CommandError, f"Cannot read {self.path} .--state.: Not a regular file"):
            RunState(self.path, URL, "p")

    def test_a_directory_that_cannot_be_written_is_named(self) -> None:
        missing = self.directory / "missing" / "offset"
        with self.assertRaisesRegex(CommandError, f"Cannot write {missing}: No such file or directory"):
            replace_file(missing, b"1", sync=False)
