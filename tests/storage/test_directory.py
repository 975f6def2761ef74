"""Tests of data directories that are moved or unlocked while in use, and of exposed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StorageError, Unavailable
from durable_streams.server.model import START, Append, StorageLimits
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.disk import RealDisk
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.storage.logged.storage import LoggedStorage
from durable_streams.server.storage.ownership import FORMAT_FILE, take
from tests.storage.acid.turns import NOW, TEXT, Turns

_ROOMY = StorageLimits(total_bytes=2**40, stream_bytes=2**40)


def heard(case: SynchronousTestCase) -> list[Any]:
    """Return a list that gets all that is logged during a test."""
    events: list[Any] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    case.addCleanup(globalLogPublisher.removeObserver, observer)
    return events


class Server:
    """A storage whose workers run when the test says so."""

    def __init__(self, case: SynchronousTestCase, directory: Path, kind: type[Any]) -> None:
        self.case = case
        self.turns = turns = Turns()
        more = {"settings": FileSettings(segment_sizes=(1 << 18,))} if kind is FileStorage else {}
        self.storage: LoggedStorage[Any] = kind(
            directory, turns.clock, _ROOMY, workers=lambda name, hands: turns, **more
        )
        self.storage.open()
        self.closed = False

    def now(self, outcome: Any) -> Any:
        if isinstance(outcome, Deferred):
            self.turns.run()
            return self.case.successResultOf(outcome)
        return outcome

    def create(self, name: str) -> None:
        self.now(self.storage.create(name, TEXT, b"", NOW))

    def append(self, name: str, data: bytes) -> None:
        self.now(self.storage.append(name, Append("text/plain", data), NOW))

    def content(self, name: str) -> bytes:
        data: bytes = self.now(self.storage.read(name, START, 2**40, NOW)).data
        return data

    def second_later(self) -> None:
        self.turns.clock.advance(1.0)
        self.turns.run()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.now(self.storage.close())


class MovedDirectoryTests(SynchronousTestCase):
    kind: type[Any] = FileStorage

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.moved = self.directory.with_name(f"{self.directory.name}-moved")

    def opened(self, directory: Path | None = None) -> Server:
        server = Server(self, directory or self.directory, self.kind)
        self.addCleanup(server.close)
        return server

    def assert_stopped(self, server: Server) -> None:
        self.assertIn("The data directory was moved", str(server.storage.obstacle()))
        with self.assertRaises(Unavailable):
            server.append("a", b"no more")

    def test_writes_stop_within_a_second_after_the_directory_is_moved(self) -> None:
        server = self.opened()
        server.create("a")
        server.append("a", b"one")
        self.directory.rename(self.moved)
        server.second_later()
        self.assert_stopped(server)
        self.assertEqual(server.content("a"), b"one")

    def test_the_log_names_the_moved_directory_and_what_to_do(self) -> None:
        events = heard(self)
        server = self.opened()
        self.directory.rename(self.moved)
        server.second_later()
        [reason] = [str(event["reason"]) for event in events if event["log_level"].name == "critical"]
        self.assertIn(f"The data directory {self.directory} is no longer at its path", reason)
        self.assertIn("set storage.data_dir to where it is now", reason)

    def test_a_removed_lock_file_stops_writes_and_admits_no_second_server(self) -> None:
        server = self.opened()
        server.create("a")
        (self.directory / "LOCK").unlink()
        self.assertRaises(StorageError, self.opened)
        server.second_later()
        self.assert_stopped(server)

    def test_a_directory_that_is_not_moved_stays_writable(self) -> None:
        server = self.opened()
        server.create("a")
        for _ in range(5):
            server.second_later()
            server.append("a", b"x")
        self.assertIsNone(server.storage.obstacle())

    def test_a_moved_server_and_a_new_one_write_to_their_own_directories(self) -> None:
        first = self.opened()
        first.create("a")
        self.directory.rename(self.moved)
        second = self.opened()
        second.create("b")
        large = b"x" * 100_000
        for _ in range(20):
            first.append("a", large)
            second.append("b", large)
        self.assertEqual(first.content("a"), 20 * large)
        first.close()
        second.append("b", b"!")
        second.close()
        for directory, name, data in ((self.moved, "a", 20 * large), (self.directory, "b", 20 * large + b"!")):
            again = self.opened(directory)
            self.assertEqual(again.content(name), data)
            self.assertEqual(len(again.now(again.storage.statuses(NOW))), 1)

    def test_the_files_of_a_killed_second_server_outlive_the_end_of_a_moved_first(self) -> None:
        first = self.opened()
        first.create("a")
        first.append("a", b"one")
        self.directory.rename(self.moved)
        second = self.opened()
        second.create("b")
        second.append("b", b"two")
        before = {path: path.stat().st_ino for path in self.directory.rglob("*")}
        first.close()
        self.assertEqual({path: path.stat().st_ino for path in self.directory.rglob("*")}, before)


class AcidMovedDirectoryTests(MovedDirectoryTests):
    kind = AcidStorage


class ExposedDirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.events = heard(self)

    def warnings(self, mode: int) -> list[str]:
        self.directory.mkdir(exist_ok=True)
        self.directory.chmod(mode)
        disk = RealDisk(self.directory)
        take(disk, "file", 1, "here", ())
        disk.unlock()
        return [str(event["what"]) for event in self.events if event["log_level"].name == "warn"]

    def test_a_directory_writable_by_every_user_is_warned_about(self) -> None:
        [warning] = self.warnings(0o777)
        self.assertIn("The data directory here has mode 0777: every user of this machine can", warning)

    def test_a_directory_readable_by_every_user_is_not_warned_about(self) -> None:
        self.assertEqual(self.warnings(0o755), [])
        self.assertEqual(self.warnings(0o770), [])


class FormatTests(SynchronousTestCase):
    def test_a_format_version_below_1_is_refused(self) -> None:
        for version in (0, -1):
            directory = Path(self.mktemp())
            directory.mkdir()
            (directory / FORMAT_FILE).write_text(f'{{"storage":"file","version":{version}}}\n')
            error = self.assertRaises(StorageError, take, RealDisk(directory), "file", 1, "here", ())
            self.assertIn(f"is in format {version} of the file storage, which does not exist", str(error))

    def test_links_in_place_of_lock_and_format_files_are_not_followed(self) -> None:
        for name in ("LOCK", FORMAT_FILE, f"{FORMAT_FILE}.new"):
            directory, target = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
            directory.mkdir()
            target.write_bytes(b"precious")
            (directory / name).symlink_to(target)
            disk = RealDisk(directory)
            try:
                take(disk, "file", 1, "here", ())
            except OSError as error:
                self.assertIn("symbolic links", str(error))
            disk.unlock()
            self.assertEqual(target.read_bytes(), b"precious")
