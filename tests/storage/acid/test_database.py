"""What is the database's own: its copies, its checks, its leftovers, and what it is told by the disk."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InsufficientStorage, Unavailable
from durable_streams.server.model import START, Append, Fork, StorageLimits, StreamConfig, Writer
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.acid import storage as module
from durable_streams.server.storage.acid.checking import check_acid
from durable_streams.server.storage.acid.schema import DATABASE
from durable_streams.server.storage.disk import RealFile
from durable_streams.server.storage.findings import Counts, Finding
from durable_streams.server.storage.ownership import StorageError

NOW = 1_800_000_000.0
TEXT = StreamConfig("text/plain")
ROOMY = StorageLimits(total_bytes=2**40, stream_bytes=2**40)


class Turns:
    """Workers that do their work when the test says so, all in this thread."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self._jobs: list[tuple[Any, Deferred[Any]]] = []

    def do(self, work: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._jobs.append((work, done))
        return done

    def close(self) -> None:
        pass

    def run(self) -> None:
        """Let time stand still until all is done."""
        for _ in range(10_000):
            self.clock.advance(0)
            if not self._jobs:
                return
            work, done = self._jobs.pop(0)
            try:
                outcome = work()
            except Exception as error:
                done.errback(error)
            else:
                done.callback(outcome)
        raise AssertionError("There is no end of work.")


class DatabaseTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns()
        self.directory = Path(self.mktemp())
        self.storage = self.opened(self.directory)

    def opened(self, directory: Path) -> AcidStorage:
        storage = AcidStorage(directory, self.turns.clock, ROOMY, workers=lambda name, hands: self.turns)
        storage.open()
        self.addCleanup(self.close, storage)
        return storage

    def close(self, storage: AcidStorage) -> None:
        storage.close()
        self.turns.run()

    def now(self, outcome: Any) -> Any:
        if isinstance(outcome, Deferred):
            self.turns.run()
            return self.successResultOf(outcome)
        return outcome

    def create(self, name: str, config: StreamConfig = TEXT, body: bytes = b"") -> None:
        self.now(self.storage.create(name, config, body, NOW))

    def append(self, name: str, data: bytes, **more: Any) -> None:
        self.now(self.storage.append(name, Append("text/plain", data, **more), NOW))

    def content(self, storage: AcidStorage, name: str) -> bytes:
        data: bytes = self.now(storage.read(name, START, 2**40, NOW)).data
        return data

    def check(self, directory: Path) -> tuple[Counts, list[Finding]]:
        findings: list[Finding] = []
        return check_acid(directory, findings.append), findings

    def rows(self, statement: str) -> list[Any]:
        return self.storage._database.execute(statement).fetchall()


class CopyTests(DatabaseTestCase):
    def fill(self) -> None:
        self.create("a", body=b"one")
        self.append("a", b"two", writer=Writer("w", 0, 0))
        self.create("b", StreamConfig(fork=Fork("a")), b"!")
        self.now(self.storage.delete("a", NOW))

    def assert_whole(self, directory: Path) -> None:
        counts, findings = self.check(directory)
        self.assertEqual(findings, [])
        self.assertEqual((counts.streams, counts.appends, counts.bytes), (2, 3, 7))
        self.assertEqual(self.content(self.opened(directory), "b"), b"onetwo!")

    def test_what_lies_on_the_disk_is_whole_at_any_time(self) -> None:
        self.fill()
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        self.assertTrue((copy / f"{DATABASE}-wal").stat().st_size)
        self.assert_whole(copy)

    def test_an_online_backup_is_a_data_directory(self) -> None:
        self.fill()
        copy = Path(self.mktemp())
        copy.mkdir()
        shutil.copy(self.directory / "FORMAT", copy)
        source, target = sqlite3.connect(self.directory / DATABASE), sqlite3.connect(copy / DATABASE)
        source.backup(target)
        source.close()
        target.close()
        self.append("b", b"later")
        self.assert_whole(copy)

    def test_the_log_is_brought_home_when_it_is_closed(self) -> None:
        self.fill()
        self.close(self.storage)
        self.assertFalse((self.directory / f"{DATABASE}-wal").exists())
        self.assert_whole(self.directory)

    def test_the_log_is_brought_home_when_it_has_grown(self) -> None:
        self.patch(module, "_LOG_SIZE", 200_000)
        self.create("a")
        for _ in range(100):
            self.append("a", b"x" * 20_000)
        self.turns.run()
        self.assertLess((self.directory / f"{DATABASE}-wal").stat().st_size, 1_000_000)
        self.assertEqual(len(self.content(self.storage, "a")), 2_000_000)

    def test_only_its_owner_can_read_it(self) -> None:
        self.fill()
        for path in self.directory.iterdir():
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)


class ChecksumTests(DatabaseTestCase):
    def assert_found(self, change: str, what: str) -> None:
        self.create("a", body=b"one")
        self.append("a", b"two")
        self.close(self.storage)
        connection = sqlite3.connect(self.directory / DATABASE, isolation_level=None)
        connection.execute(change)
        connection.close()
        findings = self.check(self.directory)[1]
        self.assertEqual([finding.serious for finding in findings], [True])
        self.assertIn(what, findings[0].what)

    def test_damaged_bytes(self) -> None:
        self.assert_found("UPDATE appends SET data = x'00aaff' WHERE start = 3", "bytes 3 to 6 are damaged")

    def test_missing_bytes(self) -> None:
        self.assert_found("DELETE FROM appends WHERE start = 3", "its bytes end at 3, and it ends at 6")

    def test_a_missing_source(self) -> None:
        self.assert_found("UPDATE streams SET source = 7", "The source of the stream a, id 7, is missing")

    def test_what_is_no_database(self) -> None:
        self.close(self.storage)
        (self.directory / DATABASE).write_bytes(b"no database" * 1000)
        finding = self.check(self.directory)[1][0]
        self.assertTrue(finding.serious)
        self.assertIn("can't be read", finding.what)
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("durable-streams-server check", str(error))

    def test_a_missing_database(self) -> None:
        self.assertIn("missing", self.check(Path(self.mktemp()))[1][0].what)


class LeftoverTests(DatabaseTestCase):
    def test_a_deleted_streams_rows_go_bit_by_bit(self) -> None:
        self.create("a")
        for number in range(1200):
            self.storage.append("a", Append("text/plain", b"x", writer=Writer(f"{number % 3}", 0, number // 3)), NOW)
        self.turns.run()
        self.assertEqual(self.rows("SELECT count(*) FROM appends"), [(1200,)])
        self.now(self.storage.delete("a", NOW))
        self.turns.run()
        for table in ("streams", "appends", "writers", "leftovers"):
            self.assertEqual(self.rows(f"SELECT count(*) FROM {table}"), [(0,)], table)

    def test_they_go_after_a_restart_too(self) -> None:
        self.create("a", body=b"x")
        deleting = self.storage.delete("a", NOW)
        self.turns.clock.advance(0)
        self.turns.do(lambda: None)
        work, done = self.turns._jobs.pop(0)
        work()
        # It ends here.
        self.assertEqual(self.rows("SELECT count(*) FROM leftovers"), [(1,)])
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        done.callback(None)
        self.now(deleting)
        self.storage = self.opened(copy)
        self.turns.run()
        self.assertEqual(self.rows("SELECT count(*) FROM appends") + self.rows("SELECT * FROM leftovers"), [(0,)])


class LogTests(DatabaseTestCase):
    """What a killed process leaves in the write-ahead log may be on no disk yet."""

    def copied(self, *names: str) -> Path:
        self.create("a", body=b"one")
        copy = Path(self.mktemp())
        copy.mkdir()
        for name in names:
            shutil.copy(self.directory / name, copy)
        return copy

    def test_it_is_synced_before_it_is_shown(self) -> None:
        copy = self.copied("FORMAT", DATABASE, f"{DATABASE}-wal")
        synced: list[int] = []
        sync = RealFile.sync

        def count(file: RealFile) -> None:
            synced.append(file.size())
            sync(file)

        self.patch(RealFile, "sync", count)
        self.assertEqual(self.content(self.opened(copy), "a"), b"one")
        self.assertEqual(synced, [(self.directory / f"{DATABASE}-wal").stat().st_size])

    def test_one_without_its_database_is_not_thrown_away(self) -> None:
        copy = self.copied("FORMAT", f"{DATABASE}-wal")
        error = self.assertRaises(StorageError, self.opened, copy)
        self.assertIn("is missing, and its write-ahead log is there", str(error))
        self.assertEqual(sorted(path.name for path in copy.iterdir()), ["FORMAT", "LOCK", f"{DATABASE}-wal"])


class RecentTests(DatabaseTestCase):
    def test_memory_is_bounded(self) -> None:
        self.patch(module, "_RECENT_OF_ALL", 300_000)
        for number in range(20):
            self.create(f"{number}")
            for piece in range(20):
                self.append(f"{number}", bytes([piece]) * 10_000)
        held = sum(len(stream.recent.data) for stream in self.storage._streams.values() if stream.recent is not None)
        self.assertEqual(held, self.storage._recent_bytes)
        self.assertLessEqual(held, 300_000)
        largest = max(len(stream.recent.data) for stream in self.storage._streams.values() if stream.recent is not None)
        self.assertLessEqual(largest, 65_536)
        whole = b"".join(bytes([piece]) * 10_000 for piece in range(20))
        for number in range(20):
            self.assertEqual(self.content(self.storage, f"{number}"), whole)


class FullTests(DatabaseTestCase):
    def test_a_full_disk_is_found_out_before_anything_is_accepted(self) -> None:
        self.create("a", body=b"one")
        free = shutil.disk_usage(self.directory)
        self.patch(shutil, "disk_usage", lambda path: free._replace(free=4 << 20))
        self.turns.clock.advance(1)
        self.assertRaises(InsufficientStorage, self.storage.append, "a", Append("text/plain", b"two"), NOW)
        self.assertRaises(InsufficientStorage, self.storage.create, "b", TEXT, b"", NOW)
        self.assertEqual(self.content(self.storage, "a"), b"one")
        self.now(self.storage.delete("a", NOW))
        self.patch(shutil, "disk_usage", lambda path: free)
        self.turns.clock.advance(1)
        self.create("b")
        self.assertIsNone(self.storage.obstacle())

    def test_one_that_is_full_all_the_same_stops_the_storage(self) -> None:
        self.create("a", body=b"one")
        pages = self.rows("PRAGMA page_count")[0][0]
        self.storage._database.execute(f"PRAGMA max_page_count = {pages}")
        appended = self.storage.append("a", Append("text/plain", b"x" * 100_000), NOW)
        self.turns.run()
        self.failureResultOf(appended, InsufficientStorage)
        refused = maybeDeferred(self.storage.append, "a", Append("text/plain", b"x"), NOW)
        self.failureResultOf(refused, Unavailable)
        self.assertIsNotNone(self.storage.obstacle())
        self.assertEqual(self.content(self.storage, "a"), b"one")
        self.close(self.storage)
        self.assertEqual(self.content(self.opened(self.directory), "a"), b"one")


class OwnershipTests(DatabaseTestCase):
    def test_it_has_one_owner(self) -> None:
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("in use by process", str(error))

    def test_a_later_format_is_refused(self) -> None:
        self.close(self.storage)
        (self.directory / "FORMAT").write_text('{"storage":"acid","version":2}\n')
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("is in format 2 of the acid storage", str(error))
