"""Tests of a full database: failed batches are rolled back, and the storage continues."""

from __future__ import annotations

import sqlite3

from twisted.internet.defer import maybeDeferred

from durable_streams.server.errors import InsufficientStorage, StreamNotFound, Unavailable
from durable_streams.server.model import Append, Fork, Lifetime, Offset, StreamConfig, Writer
from durable_streams.server.protocol.forks import LongSearch
from durable_streams.server.storage.acid.rollback import Rollback
from durable_streams.server.storage.acid.schema import DATABASE
from durable_streams.server.storage.disk import RealDisk

from .turns import NOW, TEXT, DatabaseTestCase


class FullTests(DatabaseTestCase):
    def test_a_full_disk_refuses_writes_before_they_are_accepted(self) -> None:
        self.create("a", body=b"one")
        free = RealDisk(self.directory).free()
        self.patch(RealDisk, "free", lambda disk: 4 << 20)
        self.turns.clock.advance(1)
        self.assertRaises(InsufficientStorage, self.storage.append, "a", Append("text/plain", b"two"), NOW)
        self.assertRaises(InsufficientStorage, self.storage.create, "b", TEXT, b"", NOW)
        self.assertEqual(self.content(self.storage, "a"), b"one")
        self.now(self.storage.delete("a", NOW))
        self.patch(RealDisk, "free", lambda disk: free)
        self.turns.clock.advance(1)
        self.create("b")
        self.assertIsNone(self.storage.obstacle())

    def test_a_write_waits_for_the_room_that_a_checkpoint_of_the_log_frees(self) -> None:
        self.create("a")
        self.patch(RealDisk, "free", lambda disk: 12 << 20)
        self.turns.clock.advance(1)
        for _ in range(50):
            self.storage._log._grow(100_000)
        appended = self.begin(self.storage.append("a", Append("text/plain", b"one"), NOW))
        self.assertNoResult(appended)
        self.turns.run()
        self.assertEqual(self.successResultOf(appended).tail, 3)

    def test_writes_do_not_wait_again_for_a_checkpoint_that_has_failed(self) -> None:
        self.create("a")
        self.patch(RealDisk, "free", lambda disk: 12 << 20)
        self.turns.clock.advance(1)
        self.storage._log._grow(5_000_000)
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        appended = self.begin(self.storage.append("a", Append("text/plain", b"one"), NOW))
        self.turns._jobs.pop()[1].errback(full)
        self.failureResultOf(appended, InsufficientStorage)
        self.assertRaises(InsufficientStorage, self.storage.append, "a", Append("text/plain", b"one"), NOW)
        self.turns.clock.advance(1)
        self.now(self.storage.append("a", Append("text/plain", b"one"), NOW))

    def limit(self) -> None:
        """Limit the database to its present size."""
        pages = self.rows("PRAGMA page_count")[0][0]
        self.storage._database.execute(f"PRAGMA max_page_count = {pages}")

    def unlimit(self) -> None:
        self.storage._database.execute("PRAGMA max_page_count = 1000000")
        self.turns.clock.advance(1)

    def test_a_batch_that_fills_the_disk_is_rolled_back_and_the_storage_continues(self) -> None:
        self.create("a", body=b"one")
        self.append("a", b"two", writer=Writer("w", 0, 0), sequence=b"1")
        self.create("b", body=b"b")
        self.limit()
        storage = self.storage
        attempts = [
            lambda: storage.append("a", Append("text/plain", b"x" * 100_000, writer=Writer("w", 0, 1)), NOW),
            lambda: storage.append("a", Append("text/plain", b"y", sequence=b"2"), NOW),
            lambda: storage.create("c", StreamConfig(fork=Fork("a")), b"c", NOW),
            lambda: storage.append("a", Append(None, b"", close=True), NOW),
            lambda: storage.delete("b", NOW),
        ]
        answers = [maybeDeferred(attempt) for attempt in attempts]
        self.turns.clock.advance(0)
        # These are accepted while the others are on their way.
        answers.append(maybeDeferred(storage.delete, "a", NOW))
        answers.append(maybeDeferred(storage.delete, "c", NOW))
        self.turns.run()
        for answer in answers:
            self.failureResultOf(answer, InsufficientStorage)
        self.assertIsNone(storage.obstacle())
        self.assertRaises(StreamNotFound, storage.status, "c", NOW)
        # Not before the disk was asked again.
        self.assertRaises(InsufficientStorage, storage.append, "a", Append("text/plain", b"x"), NOW)
        for again in range(3):
            self.assertEqual((self.content(storage, "a"), self.content(storage, "b")), (b"onetwo", b"b"))
            self.unlimit()
            if again < 2:
                self.limit()
                failed = maybeDeferred(storage.append, "a", Append("text/plain", b"x" * 100_000), NOW)
                self.turns.run()
                self.failureResultOf(failed, InsufficientStorage)
        self.append("a", b"three", writer=Writer("w", 0, 1), sequence=b"11")
        self.create("c", StreamConfig(fork=Fork("a")), b"!")
        self.assertEqual(self.content(storage, "c"), b"onetwothree!")
        self.now(storage.delete("b", NOW))
        self.close(storage)
        self.assertEqual(self.check(self.directory)[1], [])
        self.assertEqual(self.content(self.opened(self.directory), "c"), b"onetwothree!")

    def test_a_rollback_lists_each_stream_once_and_counts_written_bytes_once(self) -> None:
        self.create("a", body=b"one")
        self.create("b", body=b"b")
        before = self.storage.figures()
        self.limit()
        failed = maybeDeferred(self.storage.append, "a", Append("text/plain", b"x" * 100_000), NOW)
        self.turns.run()
        self.failureResultOf(failed, InsufficientStorage)
        listed = self.now(self.storage.statuses(NOW))
        self.assertEqual(["a", "b"], [status.facts.name for status in listed])
        after = self.storage.figures()
        self.assertEqual((before.bytes, before.streams), (after.bytes, after.streams))
        self.assertGreaterEqual(after.written_bytes, before.written_bytes)

    def test_a_fork_search_does_not_use_an_uncommitted_append(self) -> None:
        self.create("j", StreamConfig("application/json"), b"0")
        made = self.now(self.storage.create("j", StreamConfig("application/json"), b"", NOW))
        fork = StreamConfig(fork=Fork("j", Offset(made.facts.incarnation, 2), 49_999))
        append = Append("application/json", b"[" + b"1," * 49_999 + b"1]")
        self.limit()
        appended = self.begin(self.storage.append("j", append, NOW))
        forked = self.begin(self.storage.create("f", fork, b"", NOW))
        self.turns.run()
        for answer in (appended, forked):
            self.failureResultOf(answer, InsufficientStorage)
        self.unlimit()
        appended = self.begin(self.storage.append("j", append, NOW))
        forked = self.begin(self.storage.create("f", fork, b"", NOW))
        self.turns.run()
        self.successResultOf(appended)
        self.failureResultOf(forked, LongSearch)

    def test_ids_are_not_reused_after_a_rollback(self) -> None:
        self.create("a")
        made = self.now(self.storage.create("b", TEXT, b"", NOW)).facts
        self.limit()
        failed = self.begin(self.storage.create("c", TEXT, b"x" * 100_000, NOW))
        self.turns.run()
        self.failureResultOf(failed, InsufficientStorage)
        self.unlimit()
        self.assertEqual(self.now(self.storage.create("c", TEXT, b"", NOW)).facts.id, made.id + 2)

    def test_rows_of_deleted_streams_count_as_free_space(self) -> None:
        self.create("a", body=b"x" * (20 << 20))
        self.create("b")
        self.patch(RealDisk, "free", lambda disk: 4 << 20)
        self.turns.clock.advance(1)
        self.storage._log._log_bytes = 0
        self.assertRaises(InsufficientStorage, self.storage.append, "b", Append("text/plain", b"two"), NOW)
        self.now(self.storage.delete("a", NOW))
        self.turns.run()
        self.append("b", b"two")
        self.assertEqual(self.content(self.storage, "b"), b"two")

    def test_the_write_ahead_log_needs_free_disk_space(self) -> None:
        self.create("a", body=b"x" * (20 << 20))
        self.create("b", body=b"one")
        self.now(self.storage.delete("a", NOW))
        self.turns.run()
        self.patch(RealDisk, "free", lambda disk: 0)
        self.turns.clock.advance(1)
        refused = maybeDeferred(self.storage.append, "b", Append("text/plain", b"two"), NOW)
        self.turns.run()
        self.failureResultOf(refused, InsufficientStorage)
        # Deleting may do with what the log has.
        self.now(self.storage.delete("b", NOW))
        self.assertRaises(StreamNotFound, self.storage.status, "b", NOW)

    def test_a_failed_batch_renews_no_ttl(self) -> None:
        self.create("a", StreamConfig("text/plain", Lifetime(ttl=100)), b"one")
        self.turns.clock.advance(60)
        self.limit()
        failed = self.begin(self.storage.create("b", TEXT, b"x" * 100_000, NOW + 60))
        self.turns.run()
        self.failureResultOf(failed, InsufficientStorage)
        self.assertEqual(self.storage._catalogue.streams["a"].deadline, NOW + 100)
        self.unlimit()
        late = self.begin(self.storage.append("a", Append("text/plain", b"two"), NOW + 100))
        self.turns.run()
        self.failureResultOf(late, StreamNotFound)

    def test_a_rollback_is_complete_before_the_next_batch_is_written(self) -> None:
        self.create("a", body=b"one")
        self.limit()
        failed = self.begin(self.storage.append("a", Append("text/plain", b"x" * 100_000), NOW))
        self.turns.clock.advance(0)
        work, done = self.turns._jobs.pop(0)
        error = self.assertRaises(Rollback, work)
        self.unlimit()
        # The writer has gone on to something else by the time that it is told.
        self.storage._database.execute("BEGIN IMMEDIATE")
        done.errback(error)
        self.storage._database.execute("ROLLBACK")
        self.failureResultOf(failed, InsufficientStorage)
        self.assertIsNone(self.storage.obstacle())
        self.turns.clock.advance(1)
        self.append("a", b"two")
        self.assertEqual(self.content(self.storage, "a"), b"onetwo")

    def test_a_lock_of_another_program_refuses_writes_after_a_timeout(self) -> None:
        self.create("a", body=b"one")
        self.storage._database.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(self.directory / DATABASE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        appended = self.begin(self.storage.append("a", Append("text/plain", b"two"), NOW))
        self.turns.run()
        self.failureResultOf(appended, Unavailable)
        other.execute("ROLLBACK")
        other.close()
        self.append("a", b"three")
        self.assertEqual(self.content(self.storage, "a"), b"onethree")

    def test_any_other_error_stops_the_storage(self) -> None:
        self.create("a", body=b"one")
        self.storage._database.execute("DROP TABLE writers")
        appended = self.begin(self.storage.append("a", Append("text/plain", b"two", writer=Writer("w", 0, 0)), NOW))
        self.turns.run()
        self.failureResultOf(appended, Unavailable)
        self.assertIsNotNone(self.storage.obstacle())
        refused = maybeDeferred(self.storage.append, "a", Append("text/plain", b"x"), NOW)
        self.failureResultOf(refused, Unavailable)
        self.assertEqual(self.content(self.storage, "a"), b"one")
