"""Data directories that the daemon can't take: it says why in a line, ends, and leaves them as they are."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import tempfile
import time
from pathlib import Path

from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.sections import StorageSettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.service import Daemon
from durable_streams.server.startup import StartupError
from tests.support.daemon import PATIENCE
from tests.support.killed_daemon import KILLED, KilledDaemon, Order
from tests.support.mounts import make_read_only, small_disk

_BLOCK = 4096


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of each file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if not path.is_symlink()
    }


class RefusalTestCase(SynchronousTestCase):
    """A folder for data directories."""

    mode = "file-durable"

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data = Path(folder.name, "data")

    def daemon(self, mode: str | None = None) -> KilledDaemon:
        return KilledDaemon(Order(self.settings(mode or self.mode, self.data)), self.data.parent)

    @staticmethod
    def settings(mode: str, data: Path) -> dict[str, str]:
        return {"storage__mode": mode, "storage__data_dir": str(data)}

    def refusal(self, mode: str | None = None, data: Path | None = None) -> str:
        """Start a daemon that fails to start; return its error line."""
        place = self.data if data is None else data
        before = contents(place)
        with tempfile.TemporaryDirectory() as folder:
            daemon = KilledDaemon(Order(self.settings(mode or self.mode, place), folder=folder), self.data.parent)
            self.assertEqual(daemon.wait(), 1, daemon.log())
            self.assertEqual(os.listdir(folder), [], "The daemon has left something behind")
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", daemon.port))
        output = daemon.log()
        self.assertNotIn("Traceback", output)
        # Once in the log, and once to whoever started it.
        logged = [line for line in output.splitlines() if "Z error [" in line or "Z critical [" in line]
        self.assertEqual(len(logged), 1, output)
        lines = [line for line in output.splitlines() if line.startswith("[open_storage] Cannot open the storage (")]
        self.assertEqual(len(lines), 1, output)
        self.assertTrue(logged[0].endswith(lines[0]), output)
        self.assertIn(str(place), lines[0])
        after = contents(place)
        after.pop("LOCK", None)
        before.pop("LOCK", None)
        self.assertEqual(after, before)
        return lines[0]


class OwnershipTests(RefusalTestCase):
    def test_a_directory_in_use_is_refused_with_the_process_that_uses_it(self) -> None:
        with self.daemon() as daemon:
            daemon.create("kept", b"whole")
            line = self.refusal()
            self.assertIn(f"in use by process {daemon.process.pid}.", line)
            daemon.append("kept", b" and well")
            self.assertEqual(daemon.read("kept"), b"whole and well")

    def test_the_directory_of_a_killed_daemon_can_be_used(self) -> None:
        with self.daemon() as daemon:
            daemon.create("kept", b"whole")
            self.assertEqual(daemon.kill(), KILLED)
        with self.daemon() as daemon:
            self.assertEqual(daemon.read("kept"), b"whole")

    def test_a_directory_of_a_later_format_is_refused(self) -> None:
        with self.daemon() as daemon:
            self.assertEqual(daemon.terminate(), 0)
        known = (self.data / "FORMAT").read_text()
        later = re.sub(r'"version":\d+', '"version":77', known)
        self.assertNotEqual(later, known)
        (self.data / "FORMAT").write_text(later)
        self.assertIn("is in format 77 of the ", self.refusal())

    def test_a_directory_of_another_storage_is_refused(self) -> None:
        for mode, other in (("acid", "file"), ("file-fast", "acid")):
            with self.daemon() as daemon:
                self.assertEqual(daemon.terminate(), 0)
            if mode.partition("-")[0] != self.mode.partition("-")[0]:
                kind = mode.partition("-")[0]
                self.assertIn(f"has the streams of a storage of the kind {other}, not {kind}", self.refusal(mode))

    def test_a_directory_with_a_malformed_format_file_is_refused(self) -> None:
        with self.daemon() as daemon:
            self.assertEqual(daemon.terminate(), 0)
        (self.data / "FORMAT").write_text("\0\0\0\0")
        self.assertIn("The file FORMAT cannot be decoded", self.refusal())

    def test_a_directory_with_other_files_is_refused(self) -> None:
        self.data.mkdir()
        (self.data / "thesis.tex").write_text("Chapter 1")
        line = self.refusal()
        self.assertIn("thesis.tex", line)
        self.assertIn("no data directory of this server", line)

    def test_a_data_directory_that_is_a_file_is_refused(self) -> None:
        self.data.write_text("a file")
        self.assertIn("a file", self.data.read_text())
        for place in (self.data, self.data / "below"):
            line = self.refusal(data=place)
            self.assertIn("Cannot open the storage (", line)
            self.assertTrue(line.endswith("'. Set storage.data_dir to a directory."), line)
        self.assertEqual(self.data.read_text(), "a file")

    def test_a_data_directory_on_a_read_only_disk_is_refused_where_mounting_is_allowed(self) -> None:
        disk = small_disk("1m", self.addCleanup)
        make_read_only(disk)
        self.assertIn("Read-only file system", self.refusal(data=disk / "data"))
        self.assertEqual(os.listdir(disk), [])


class AdviceTests(SynchronousTestCase):
    def test_a_directory_of_another_user_is_refused_with_advice(self) -> None:
        # Who tests may be root, to whom nothing is denied.
        settings = Settings(storage=StorageSettings(mode="file-durable", data_dir="/data"))
        denied = Failure(PermissionError(errno.EACCES, "Permission denied", "/data/LOCK"))
        with self.assertRaises(StartupError) as caught:
            Daemon(settings, MemoryReactorClock())._raise_not_opened(denied)
        self.assertEqual(
            "[open_storage] Cannot open the storage (storage.mode file-durable, storage.data_dir /data): [Errno 13] "
            "Permission denied: '/data/LOCK'. Make the server's user its owner.",
            str(caught.exception),
        )


class AcidOwnershipTests(OwnershipTests):
    mode = "acid"

    def test_a_file_that_is_not_a_database_is_refused(self) -> None:
        with self.daemon() as daemon:
            daemon.create("kept", b"whole")
            self.assertEqual(daemon.terminate(), 0)
        database = self.data / "acid.sqlite"
        with database.open("r+b") as file:
            file.write(bytes(64))
        line = self.refusal()
        self.assertIn(f"The database {database} can't be opened: ", line)
        self.assertIn("restore it from a backup", line)


class DamageTests(RefusalTestCase):
    """A daemon does not start if acknowledged data is missing or damaged."""

    def fill(self, appends: int = 20) -> Path:
        """Write a journal and kill its writer."""
        with self.daemon() as daemon:
            daemon.create("damaged")
            for number in range(appends):
                daemon.append("damaged", b"<%d>" % number)
            self.assertEqual(daemon.kill(), KILLED)
        (journal,) = (self.data / "journal").iterdir()
        return journal

    @staticmethod
    def flip(path: Path, position: int) -> None:
        with path.open("r+b") as file:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 1]))

    def test_damage_in_the_journal_is_refused_with_its_place(self) -> None:
        journal = self.fill()
        position = 5 * _BLOCK
        self.flip(journal, position + 60)
        line = self.refusal()
        self.assertIn(f"journal/{journal.name} at {position}: Changes 5 to 5 were on the disk", line)
        self.assertIn("Restore the data directory from a backup.", line)

    def test_damage_at_the_end_of_a_killed_daemons_journal_is_refused(self) -> None:
        journal = self.fill()
        data = journal.read_bytes()
        last = len(data.rstrip(b"\0")) // _BLOCK * _BLOCK
        self.flip(journal, last + 60)
        self.assertIn("Changes 21 to 21 were on the disk", self.refusal())
        journal.write_bytes(data[:last])
        self.assertIn("Changes 21 to 21 were on the disk", self.refusal())
        for emptied in (b"", bytes(len(data)), None):
            if emptied is None:
                journal.unlink()
            else:
                journal.write_bytes(emptied)
            self.assertIn("There is no segment that can be read", self.refusal())

    def test_damage_at_the_beginning_of_a_segment_is_refused(self) -> None:
        journal = self.fill()
        self.flip(journal, 20)
        self.assertIn(f"journal/{journal.name} at 0: The segment has lost its beginning", self.refusal())

    def checkpoint(self) -> Path:
        """Write a checkpoint, which the start after a kill does."""
        self.fill()
        checkpoint = self.data / "checkpoint" / f"{1:016d}"
        with self.daemon() as daemon:
            deadline = time.monotonic() + PATIENCE
            while not checkpoint.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertEqual(daemon.terminate(), 0)
        self.assertTrue(checkpoint.exists())
        return checkpoint

    def test_a_missing_journal_is_refused(self) -> None:
        self.checkpoint()
        for path in (self.data / "journal").iterdir():
            path.unlink()
        self.assertIn("There is no segment that can be read from number", self.refusal())

    def test_damage_in_a_checkpoint_is_refused_with_its_place(self) -> None:
        checkpoint = self.checkpoint()
        self.flip(checkpoint, 60)
        self.assertIn(f"checkpoint/{checkpoint.name} at 0: The checkpoint is damaged there.", self.refusal())

    def test_a_missing_pack_is_refused(self) -> None:
        self.checkpoint()
        (pack,) = (self.data / "packs").iterdir()
        pack.unlink()
        self.assertIn(f"The file packs/{pack.name} is missing.", self.refusal())

    def test_an_unacknowledged_end_of_the_journal_is_dropped(self) -> None:
        journal = self.fill()
        data = journal.read_bytes()
        last = len(data.rstrip(b"\0")) // _BLOCK * _BLOCK
        with journal.open("r+b") as file:
            file.seek(last + _BLOCK)
            file.write(data[last : last + 60])
        with self.daemon() as daemon:
            body = daemon.read("damaged")
            self.assertEqual(body, b"".join(b"<%d>" % number for number in range(20)))
            self.assertIn("of an unfinished, unacknowledged write at", daemon.log())

    def test_a_stray_file_is_set_aside(self) -> None:
        self.fill()
        (self.data / "journal" / "notes").write_text("do not lose")
        (self.data / "stray").write_text("nor this")
        with self.daemon() as daemon:
            self.assertEqual(daemon.read("damaged"), b"".join(b"<%d>" % number for number in range(20)))
            log = daemon.log()
        for place, text in (("set-aside/journal-notes", "do not lose"), ("set-aside/stray", "nor this")):
            self.assertEqual((self.data / place).read_text(), text)
            self.assertIn(f" to {place}. Remove it there", log)
