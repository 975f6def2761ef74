"""Tests of the database: copies, checks, removal of rows, and damage."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from msgspec.structs import replace

from durable_streams.server.errors import StreamNotFound
from durable_streams.server.model import Append, Fork, StreamConfig, Writer
from durable_streams.server.storage.acid import log as log_module
from durable_streams.server.storage.acid import storage as storage_module
from durable_streams.server.storage.acid.schema import DATABASE
from durable_streams.server.storage.disk import RealFile
from durable_streams.server.storage.frontier import FRONTIER_FILE
from durable_streams.server.storage.ownership import StorageError

from .turns import NOW, ROOMY, TEXT, DatabaseTestCase


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

    def test_a_copy_of_an_open_directory_is_undamaged(self) -> None:
        self.fill()
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        self.assertTrue((copy / f"{DATABASE}-wal").stat().st_size)
        self.assert_whole(copy)

    def test_an_online_backup_is_a_data_directory(self) -> None:
        self.fill()
        copies = [Path(self.mktemp()) for _ in range(2)]
        for copy in copies:
            copy.mkdir()
            shutil.copy(self.directory / "FORMAT", copy)
        source, target = sqlite3.connect(self.directory / DATABASE), sqlite3.connect(copies[0] / DATABASE)
        source.backup(target)
        source.execute("VACUUM INTO ?", (str(copies[1] / DATABASE),))
        source.close()
        target.close()
        self.append("b", b"later")
        for copy in copies:
            self.assert_whole(copy)

    def test_closing_checkpoints_the_write_ahead_log(self) -> None:
        self.fill()
        self.close(self.storage)
        self.assertFalse((self.directory / f"{DATABASE}-wal").exists())
        self.assert_whole(self.directory)

    def test_a_large_write_ahead_log_is_checkpointed(self) -> None:
        self.patch(log_module, "_LOG_SIZE", 200_000)
        self.create("a")
        for _ in range(100):
            self.append("a", b"x" * 20_000)
        self.turns.run()
        self.assertLess((self.directory / f"{DATABASE}-wal").stat().st_size, 1_000_000)
        self.assertEqual(len(self.content(self.storage, "a")), 2_000_000)

    def test_a_long_reader_delays_the_checkpoint_only_for_a_limited_time(self) -> None:
        self.patch(log_module, "_LOG_SIZE", 200_000)
        self.patch(log_module, "_PATIENCE", 1)
        self.create("a")
        log = self.directory / f"{DATABASE}-wal"
        other = sqlite3.connect(self.directory / DATABASE, isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT * FROM streams").fetchall()
        for _ in range(50):
            self.append("a", b"x" * 20_000)
        self.assertGreater(log.stat().st_size, 1_000_000)
        other.close()
        # The next time that it is brought home, it is begun anew.
        for _ in range(20):
            self.append("a", b"x" * 20_000)
        size = log.stat().st_size
        for _ in range(50):
            self.append("a", b"x" * 20_000)
        self.assertEqual(log.stat().st_size, size)
        self.assertEqual(self.rows("PRAGMA busy_timeout"), [(5000,)])

    def test_only_the_owner_can_read_the_files(self) -> None:
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

    def test_the_check_finds_damaged_bytes(self) -> None:
        self.assert_found("UPDATE appends SET data = x'00aaff' WHERE start = 3", "bytes 3 to 6 are damaged")

    def test_the_check_finds_missing_bytes(self) -> None:
        self.assert_found("DELETE FROM appends WHERE start = 3", "its bytes end at 3, and it ends at 6")

    def test_the_check_finds_an_append_whose_rows_disagree(self) -> None:
        self.assert_found("UPDATE appends SET append = 1 WHERE start = 3", "began at 0 goes on as another")

    def test_the_check_finds_a_source_that_is_too_short(self) -> None:
        self.create("s", body=b"sss")
        self.create("f", StreamConfig(fork=Fork("s")))
        self.close(self.storage)
        connection = sqlite3.connect(self.directory / DATABASE, isolation_level=None)
        connection.execute("UPDATE streams SET tail = 2 WHERE name = 's'")
        connection.close()
        found = {finding.what for finding in self.check(self.directory)[1]}
        self.assertIn("The stream f leaves its source at 3, and that ends at 2.", found)

    def test_the_check_finds_a_missing_source(self) -> None:
        self.assert_found("UPDATE streams SET source = 7", "The source of the stream a, id 7, is missing")

    def test_the_check_finds_a_file_that_is_not_a_database(self) -> None:
        self.close(self.storage)
        (self.directory / DATABASE).write_bytes(b"no database" * 1000)
        finding = self.check(self.directory)[1][0]
        self.assertTrue(finding.serious)
        self.assertIn("can't be read", finding.what)
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("durable-streams-server check", str(error))

    def test_the_check_finds_a_missing_database(self) -> None:
        self.assertIn("missing", self.check(Path(self.mktemp()))[1][0].what)


class LeftoverTests(DatabaseTestCase):
    def test_the_rows_of_a_deleted_stream_are_removed_in_small_transactions(self) -> None:
        self.create("a")
        for number in range(1200):
            self.storage.append("a", Append("text/plain", b"x", writer=Writer(f"{number % 3}", 0, number // 3)), NOW)
        self.turns.run()
        self.assertEqual(self.rows("SELECT count(*) FROM appends"), [(1200,)])
        self.now(self.storage.delete("a", NOW))
        self.turns.run()
        for table in ("streams", "appends", "writers", "leftovers"):
            self.assertEqual(self.rows(f"SELECT count(*) FROM {table}"), [(0,)], table)

    def test_the_write_ahead_log_is_checkpointed_while_rows_are_removed(self) -> None:
        self.create("a")
        for _ in range(200):
            self.storage.append("a", Append("text/plain", b"x" * 100_000), NOW)
        self.turns.run()
        self.patch(log_module, "_LOG_SIZE", 100_000)
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        self.now(self.storage.delete("a", NOW))
        self.turns.run()
        self.assertEqual(self.rows("SELECT count(*) FROM appends"), [(0,)])
        self.assertLess((self.directory / f"{DATABASE}-wal").stat().st_size, 1_000_000)

    def test_a_failed_removal_of_rows_is_retried(self) -> None:
        self.create("a", body=b"x")
        self.storage._database.execute("PRAGMA busy_timeout = 1")
        deleting = self.begin(self.storage.delete("a", NOW))
        self.turns.clock.advance(0)
        self.turns.step()
        self.successResultOf(deleting)
        other = sqlite3.connect(self.directory / DATABASE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        self.turns.run()
        other.execute("ROLLBACK")
        other.close()
        self.assertEqual(self.rows("SELECT count(*) FROM leftovers"), [(1,)])
        self.turns.clock.advance(1)
        self.create("b")
        self.turns.run()
        self.assertEqual(self.rows("SELECT count(*) FROM appends") + self.rows("SELECT * FROM leftovers"), [(0,)])

    def test_rows_of_deleted_streams_are_removed_after_a_restart(self) -> None:
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
    """The write-ahead log that a killed process leaves may not be synced."""

    def copied(self, *names: str) -> Path:
        self.create("a", body=b"one")
        copy = Path(self.mktemp())
        copy.mkdir()
        for name in names:
            shutil.copy(self.directory / name, copy)
        return copy

    def test_the_write_ahead_log_is_synced_before_its_changes_are_visible(self) -> None:
        copy = self.copied("FORMAT", DATABASE, f"{DATABASE}-wal")
        synced: list[int] = []
        sync = RealFile.sync

        def count(file: RealFile) -> None:
            synced.append(file.size())
            sync(file)

        self.patch(RealFile, "sync", count)
        self.assertEqual(self.content(self.opened(copy), "a"), b"one")
        self.assertEqual(synced[:1], [(self.directory / f"{DATABASE}-wal").stat().st_size])

    def test_a_write_ahead_log_without_its_database_is_kept(self) -> None:
        copy = self.copied("FORMAT", f"{DATABASE}-wal")
        error = self.assertRaises(StorageError, self.opened, copy)
        self.assertIn("is missing, but its write-ahead log exists", str(error))
        self.assertEqual(sorted(path.name for path in copy.iterdir()), ["FORMAT", "LOCK", f"{DATABASE}-wal"])


class MissingTests(DatabaseTestCase):
    """A server does not start if a part of the database is missing after a kill."""

    def killed(self) -> Path:
        """Copy the directory as a killed process leaves it: the last appends are in the write-ahead log."""
        self.create("a", body=b"one")
        for number in range(5):
            self.append("a", b"%d" % number)
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        return copy

    def assert_refused(self, copy: Path, what: str) -> None:
        """Assert that two starts fail, that the check reports it, and that nothing is changed."""
        for _ in range(2):
            before = {path.name: path.read_bytes() for path in copy.iterdir() if path.name != "LOCK"}
            self.assertIn(what, str(self.assertRaises(StorageError, self.opened, copy)))
            after = {path.name: path.read_bytes() for path in copy.iterdir() if path.name != "LOCK"}
            for files in (before, after):
                files.pop(f"{DATABASE}-shm", None)
            self.assertEqual(after, before)
        self.assertTrue([finding for finding in self.check(copy)[1] if finding.serious])

    def test_an_undamaged_copy_starts(self) -> None:
        copy = self.killed()
        self.assertEqual(self.check(copy)[1], [])
        self.assertEqual(self.content(self.opened(copy), "a"), b"one01234")

    def test_a_missing_database_is_not_recreated(self) -> None:
        self.close(self.storage)
        (self.directory / DATABASE).unlink()
        self.assert_refused(self.directory, "it is missing, and all streams with it")

    def test_an_emptied_database_is_not_recreated(self) -> None:
        self.close(self.storage)
        (self.directory / DATABASE).write_bytes(b"")
        self.assert_refused(self.directory, "it is empty, and all streams are missing")

    def test_an_emptied_database_without_a_frontier_is_not_recreated(self) -> None:
        self.close(self.storage)
        (self.directory / FRONTIER_FILE).unlink()
        (self.directory / DATABASE).write_bytes(b"")
        self.assert_refused(self.directory, "it is empty, and all streams are missing")

    def test_a_removed_write_ahead_log_is_detected(self) -> None:
        copy = self.killed()
        (copy / f"{DATABASE}-wal").unlink()
        self.assert_refused(copy, f"its write-ahead log {DATABASE}-wal is missing or truncated")

    def test_an_emptied_write_ahead_log_is_detected(self) -> None:
        copy = self.killed()
        (copy / f"{DATABASE}-wal").write_bytes(b"")
        self.assert_refused(copy, f"its write-ahead log {DATABASE}-wal is missing or truncated")

    def test_a_truncated_write_ahead_log_is_detected(self) -> None:
        copy = self.killed()
        log = copy / f"{DATABASE}-wal"
        log.write_bytes(log.read_bytes()[:-4120])
        self.assert_refused(copy, "it ends with change 5, but change 6 was synced")

    def test_an_older_copy_of_the_database_is_refused(self) -> None:
        self.create("a", body=b"one")
        self.close(self.storage)
        older = (self.directory / DATABASE).read_bytes()
        self.storage = self.opened(self.directory)
        self.append("a", b"two")
        self.close(self.storage)
        (self.directory / DATABASE).write_bytes(older)
        self.assert_refused(self.directory, "or the database is an older copy")
        # Whoever gives up what came later says so.
        (self.directory / FRONTIER_FILE).unlink()
        self.assertEqual(self.content(self.opened(self.directory), "a"), b"one")

    def test_a_start_interrupted_before_the_database_existed_is_completed(self) -> None:
        self.close(self.storage)
        for path in self.directory.iterdir():
            if path.name != "FORMAT":
                path.unlink()
        (self.directory / "FORMAT").rename(self.directory / "FORMAT.new")
        self.storage = self.opened(self.directory)
        self.create("a", body=b"one")
        self.assertEqual(self.content(self.storage, "a"), b"one")
        self.assertFalse((self.directory / "FORMAT.new").exists())


class KillTests(DatabaseTestCase):
    def test_a_batch_is_stored_completely_or_not_at_all(self) -> None:
        self.create("a", body=b"one")
        self.create("b", StreamConfig(fork=Fork("a")), b"b")
        self.now(self.storage.delete("a", NOW))
        copies: dict[str, Path] = {}

        def copy(statement: str) -> None:
            moment = statement.partition(" ")[0]
            if moment in ("BEGIN", "COMMIT", "DELETE") and moment not in copies:
                copies[moment] = Path(self.mktemp())
                shutil.copytree(self.directory, copies[moment])

        self.storage._database.set_trace_callback(copy)
        written = self.begin(self.storage.append("b", Append("text/plain", b"x" * 5_000_000, close=True), NOW))
        made = self.begin(self.storage.create("c", TEXT, b"c", NOW))
        deleted = self.begin(self.storage.delete("b", NOW))
        self.turns.run()
        self.storage._database.set_trace_callback(None)
        for answer in (written, made, deleted):
            self.successResultOf(answer)
        # Some of it is in the log before it is committed.
        size = (copies["COMMIT"] / f"{DATABASE}-wal").stat().st_size
        self.assertGreater(size, (copies["BEGIN"] / f"{DATABASE}-wal").stat().st_size + 2_000_000)
        for moment in ("BEGIN", "DELETE", "COMMIT"):
            self.assertEqual(self.check(copies[moment])[1], [])
            storage = self.opened(copies[moment])
            self.assertEqual(self.content(storage, "b"), b"oneb")
            self.assertRaises(StreamNotFound, storage.status, "c", NOW)
        after = Path(self.mktemp())
        shutil.copytree(self.directory, after)
        storage = self.opened(after)
        self.assertEqual(list(storage._catalogue.streams), ["c"])


class FirstStartTests(DatabaseTestCase):
    """A first start that is killed at any point can be completed."""

    def test_a_start_after_a_kill_at_any_statement_succeeds(self) -> None:
        copies: list[Path] = []

        def copy(_: str) -> None:
            copies.append(Path(self.mktemp()))
            shutil.copytree(directory, copies[-1])

        def traced(path: Path | str) -> sqlite3.Connection:
            connection = connect(path)
            connection.set_trace_callback(copy)
            return connection

        connect = storage_module.connect  # type: ignore[attr-defined]
        self.patch(storage_module, "connect", traced)
        directory = Path(self.mktemp())
        storage = self.opened(directory)
        storage._database.set_trace_callback(None)
        self.patch(storage_module, "connect", connect)
        self.assertGreater(len(copies), 10)
        for each in copies:
            self.storage = self.opened(each)
            self.create("a", body=b"one")
            self.assertEqual(self.content(self.storage, "a"), b"one")
            for path in each.iterdir():
                self.assertEqual(path.stat().st_mode & 0o077, 0, path)
            self.assertEqual(self.check(each)[1], [])


class OwnershipTests(DatabaseTestCase):
    def test_a_second_owner_of_a_directory_is_refused(self) -> None:
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("in use by process", str(error))

    def test_a_later_format_is_refused(self) -> None:
        self.close(self.storage)
        (self.directory / "FORMAT").write_text('{"storage":"acid","version":2}\n')
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("is in format 2 of the acid storage", str(error))

    def test_a_later_format_in_the_database_is_refused(self) -> None:
        self.change("PRAGMA user_version = 3")
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("is in format 3", str(error))
        self.assertIn(
            "can't be checked. It is in format 3", str(self.assertRaises(StorageError, self.check, self.directory))
        )

    def test_a_database_from_before_the_first_release_is_refused(self) -> None:
        self.create("a", body=b"one")
        self.change("PRAGMA user_version = 0; ALTER TABLE appends DROP COLUMN append")
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertEqual(
            str(error),
            f"The database {self.directory / DATABASE} can't be opened. It was made by a development version of this "
            "server, in a format that was never released. Set storage.data_dir to an empty directory, or use the "
            "version that made it.",
        )
        error = self.assertRaises(StorageError, self.check, self.directory)
        self.assertEqual(
            str(error),
            f"The database {self.directory / DATABASE} can't be checked. It was made by a development version of this "
            "server, in a format that was never released. Set storage.data_dir to an empty directory, or use the "
            "version that made it.",
        )

    def test_another_programs_database_is_refused(self) -> None:
        self.change("PRAGMA application_id = 1")
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("It is another program's", str(error))
        self.assertEqual([finding.what for finding in self.check(self.directory)[1]], ["It is another program's."])

    def test_a_database_locked_by_another_program_is_refused(self) -> None:
        self.change("PRAGMA journal_mode = DELETE")
        other = sqlite3.connect(self.directory / DATABASE, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        connect = sqlite3.connect
        self.patch(sqlite3, "connect", lambda path, **more: connect(path, timeout=0.01, **more))
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("database is locked. See who else has it open.", str(error))

    def test_the_write_ahead_log_of_an_emptied_database_is_kept(self) -> None:
        self.create("a", body=b"one")
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        (copy / DATABASE).write_bytes(b"")
        log = (copy / f"{DATABASE}-wal").read_bytes()
        for _ in range(2):
            error = self.assertRaises(StorageError, self.opened, copy)
            self.assertIn("its write-ahead log exists", str(error))
        self.assertEqual((copy / f"{DATABASE}-wal").read_bytes(), log)

    def test_an_inconsistent_database_is_refused(self) -> None:
        self.create("a", body=b"one")
        self.create("b")
        for statement, what in (
            ("UPDATE streams SET config = '{' WHERE name = 'a'", "the configuration of the stream a"),
            ("UPDATE streams SET name = 'b', config = '{}'", "two streams have the same name"),
            ("UPDATE streams SET name = id, source = 7", "is missing"),
            (
                "UPDATE streams SET source = NULL; DELETE FROM numbers WHERE name = 'last_id'",
                "last used stream id is missing",
            ),
            ("DROP TABLE streams", "no such table: streams"),
        ):
            self.change(statement)
            error = self.assertRaises(StorageError, self.opened, self.directory)
            self.assertIn(what, str(error))
            self.assertIn("durable-streams-server check", str(error))

    def change(self, statements: str) -> None:
        self.close(self.storage)
        connection = sqlite3.connect(self.directory / DATABASE, isolation_level=None)
        connection.executescript(statements)
        connection.close()


class WriterTests(DatabaseTestCase):
    def test_a_start_keeps_writers_of_any_age(self) -> None:
        self.create("a")
        for number in range(600):
            self.append("a", b"x", writer=Writer(f"{number}", 0, 0))
        self.close(self.storage)
        self.turns.clock.advance(10 * 365 * 24 * 3600)
        self.storage = self.opened(self.directory)
        self.assertEqual(len(self.storage._catalogue.streams["a"].writers or ()), 600)
        self.turns.run()
        self.assertEqual(self.rows("SELECT count(*) FROM writers"), [(600,)])

    def test_a_writer_evicted_and_added_again_in_one_batch_is_stored(self) -> None:
        self.storage._catalogue._limits = replace(ROOMY, writers=1)
        self.create("a")
        for epoch, writer in enumerate("uvuvu"):
            self.storage.append("a", Append("text/plain", b"x", writer=Writer(writer, epoch, 0)), NOW)
        self.turns.run()
        self.assertEqual(self.rows("SELECT id, epoch FROM writers"), [("u", 4)])

    def test_writers_beyond_a_lowered_limit_are_evicted_step_by_step(self) -> None:
        self.create("a")
        for number in range(5):
            self.now(
                self.storage.append("a", Append("text/plain", b"x", writer=Writer(f"{number}", 0, 0)), NOW + number)
            )
        self.storage._catalogue._limits = replace(ROOMY, writers=2)
        for number, left in ((5, ["2", "3", "4", "5"]), (6, ["4", "5", "6"]), (7, ["6", "7"]), (8, ["7", "8"])):
            self.append("a", b"x", writer=Writer(f"{number}", 0, 0))
            self.assertEqual(self.rows("SELECT id FROM writers ORDER BY id"), [(one,) for one in left])

    def test_the_writer_rows_of_a_deleted_stream_are_removed_in_small_transactions(self) -> None:
        self.create("a")
        for number in range(1200):
            self.storage.append("a", Append("text/plain", b"x", writer=Writer(f"{number}", 0, 0)), NOW)
        self.turns.run()
        self.storage.delete("a", NOW)
        counts = []
        for _ in range(12):
            self.turns.clock.advance(0)
            self.turns.step()
            counts.append(self.rows("SELECT count(*) FROM writers")[0][0])
            if not counts[-1]:
                break
        self.assertEqual(list(dict.fromkeys(counts)), [1200, 700, 200, 0])
        self.turns.run()
        self.assertEqual(self.rows("SELECT count(*) FROM leftovers"), [(0,)])
