"""Installations of staged streams in SQLite: kills at any statement, rolled back batches, and the order in a batch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred

from durable_streams.server.errors import InsufficientStorage, StreamNotFound
from durable_streams.server.model import (
    FOREVER,
    START,
    Append,
    Fork,
    Lifetime,
    StreamConfig,
    StreamRestoration,
    Writer,
    WriterState,
)
from durable_streams.server.storage.acid.transactions import log_bytes
from durable_streams.server.storage.changes import StreamInstalled

from .turns import NOW, TEXT, DatabaseTestCase

STAGED = "__ds/1"
HOUR = StreamConfig("text/plain", Lifetime(ttl=3600))
RESTORED = StreamRestoration(
    TEXT, FOREVER, sequence=b"5", writers={"w": WriterState(3, 5, NOW - 9)}, incarnation=int(NOW * 2_000_000)
)


class InstallTestCase(DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.create("a", body=b"old")
        self.append("a", b" data", writer=Writer("v", 0, 0))
        self.create(STAGED, HOUR, b"new")
        self.append(STAGED, b" content", writer=Writer("staged", 0, 0))

    def install(self, restoration: StreamRestoration = RESTORED) -> Deferred[Any]:
        return maybeDeferred(self.storage.install, STAGED, "a", restoration, True, NOW)

    def assert_installed(self, data: bytes = b"new content") -> None:
        self.assertEqual(self.content(self.storage, "a"), data)
        self.assertRaises(StreamNotFound, self.storage.status, STAGED, NOW)
        record = self.now(self.storage.record("a", NOW))
        self.assertEqual((record.writers["w"], record.sequence), (RESTORED.writers["w"], b"5"))
        self.assertNotIn("staged", record.writers)
        self.assertEqual(record.facts.incarnation, RESTORED.incarnation)

    def assert_not_installed(self) -> None:
        self.assertEqual(
            (self.content(self.storage, "a"), self.content(self.storage, STAGED)), (b"old data", b"new content")
        )
        self.assertEqual(list(self.now(self.storage.record("a", NOW)).writers), ["v"])
        staged = self.now(self.storage.record(STAGED, NOW))
        self.assertEqual((list(staged.writers), staged.lifetime), (["staged"], HOUR.lifetime))


class KillTests(InstallTestCase):
    def copies(self, installed: Deferred[Any]) -> list[Path]:
        """Return copies of the directory at each statement of an installation that was begun, and after it."""
        copies: list[Path] = []

        def copy(_: str) -> None:
            copies.append(Path(self.mktemp()))
            shutil.copytree(self.directory, copies[-1])

        self.storage._database.set_trace_callback(copy)
        self.turns.run()
        self.storage._database.set_trace_callback(None)
        self.successResultOf(installed)
        copy("")
        self.assertGreater(len(copies), 8)
        return copies

    def test_a_kill_at_any_statement_leaves_the_old_stream_or_the_new_one(self) -> None:
        found = []
        for each in self.copies(self.install()):
            self.assertEqual(self.check(each)[1], [])
            self.storage = self.opened(each)
            if STAGED in self.storage._catalogue.streams:
                self.assert_not_installed()
                found.append("old")
            else:
                self.assert_installed()
                found.append("new")
        self.assertEqual((found[0], found[-1], sorted(found, reverse=True)), ("old", "new", found))

    def test_a_kill_at_any_statement_never_leaves_a_deleted_stream_live(self) -> None:
        self.create("fork", StreamConfig(fork=Fork(STAGED)))
        installed = maybeDeferred(self.storage.install, STAGED, "b", replace(RESTORED, deleted=True), False, NOW)
        found = []
        for each in self.copies(installed):
            self.assertEqual(self.check(each)[1], [])
            self.storage = self.opened(each)
            found.append({name: stream.deleted for name, stream in self.storage._catalogue.streams.items()})
            self.assertEqual(self.content(self.storage, "fork"), b"new content")
        old, new = {"a": False, STAGED: False, "fork": False}, {"a": False, "b": True, "fork": False}
        self.assertEqual((found[0], found[-1]), (old, new))
        self.assertTrue(all(each in (old, new) for each in found), found)

    def test_the_rows_of_the_replaced_stream_are_removed(self) -> None:
        self.now(self.install())
        self.close(self.storage)
        self.assertEqual(self.check(self.directory)[1], [])
        self.storage = self.opened(self.directory)
        self.turns.run()
        self.assert_installed()
        for table in ("appends", "writers"):
            self.assertEqual(len(self.rows(f"SELECT DISTINCT stream FROM {table}")), 1)
        self.assertEqual(self.rows("SELECT count(*) FROM streams"), [(1,)])
        self.create("b")
        self.assertGreater(self.now(self.storage.record("b", NOW)).facts.id, RESTORED.incarnation or 0)


class BatchTests(InstallTestCase):
    def test_changes_after_an_installation_in_its_batch_are_to_the_installed_stream(self) -> None:
        storage = self.storage
        outcomes = [
            maybeDeferred(storage.append, "a", Append("text/plain", b"!", writer=Writer("v", 0, 1)), NOW),
            self.install(),
            maybeDeferred(storage.append, "a", Append("text/plain", b"?", writer=Writer("w", 3, 6)), NOW),
            maybeDeferred(storage.create, STAGED, HOUR, b"again", NOW),
        ]
        self.turns.run()
        outcomes.append(maybeDeferred(storage.install, STAGED, "b", StreamRestoration(TEXT, FOREVER), False, NOW))
        outcomes.append(maybeDeferred(storage.append, "b", Append("text/plain", b"b", close=True), NOW))
        outcomes.append(maybeDeferred(storage.delete, "a", NOW))
        self.turns.run()
        results = [self.successResultOf(outcome) for outcome in outcomes]
        self.assertEqual([results[0].tail, results[1].tail, results[2].tail], [9, 11, 12])
        self.assertEqual(results[4].tail, 5)
        for _ in range(2):
            self.assertEqual(self.content(self.storage, "b"), b"againb")
            self.assertTrue(self.now(self.storage.status("b", NOW)).closed)
            self.assertEqual(list(self.storage._catalogue.streams), ["b"])
            self.close(self.storage)
            self.assertEqual(self.check(self.directory)[1], [])
            self.storage = self.opened(self.directory)

    def test_the_stream_is_not_visible_before_it_is_committed(self) -> None:
        installed = self.install()
        read = self.begin(self.storage.read("a", START, 100, NOW))
        status = self.begin(self.storage.status("a", NOW))
        page = self.begin(self.storage.statuses(NOW))
        missing = self.begin(maybeDeferred(self.storage.status, STAGED, NOW))
        for waiting in (installed, read, status, page, missing):
            self.assertNoResult(waiting)
        self.turns.run()
        self.assertEqual(self.successResultOf(installed), self.successResultOf(status))
        self.assertEqual(self.successResultOf(read).data, b"new content")
        self.assertEqual([one.tail for one in self.successResultOf(page)], [11])
        self.failureResultOf(missing, StreamNotFound)

    def test_the_room_for_an_installation_in_the_log_is_estimated(self) -> None:
        change = StreamInstalled(1, "a", RESTORED, 2)
        self.assertGreater(log_bytes([change], 1000), 1000 + 4 * 4096)


class RollbackTests(InstallTestCase):
    def limit(self, pages: int) -> None:
        self.storage._database.execute(f"PRAGMA max_page_count = {pages}")
        self.turns.clock.advance(1)

    def test_an_installation_that_is_rolled_back_changes_nothing_and_can_be_repeated(self) -> None:
        for lifetime in (FOREVER, Lifetime(ttl=1), Lifetime(expires_at=NOW + 1)):
            figures = self.storage.figures()
            self.limit(self.rows("PRAGMA page_count")[0][0])
            storage = self.storage
            restoration = StreamRestoration(TEXT, lifetime, True, incarnation=5)
            outcomes = [
                self.install(restoration),
                maybeDeferred(storage.append, "other", Append("text/plain", b"x"), NOW),
                maybeDeferred(storage.create, "large", TEXT, b"x" * 200_000, NOW),
            ]
            waiting = maybeDeferred(storage.status, "a", NOW)
            self.turns.run()
            self.failureResultOf(outcomes[0], InsufficientStorage)
            self.failureResultOf(outcomes[1], StreamNotFound, InsufficientStorage)
            self.failureResultOf(outcomes[2], InsufficientStorage)
            self.failureResultOf(waiting, InsufficientStorage)
            self.assert_not_installed()
            after = self.storage.figures()
            self.assertEqual(
                (after.streams, after.bytes, after.metadata_bytes),
                (figures.streams, figures.bytes, figures.metadata_bytes),
            )
            self.assertEqual([one.facts.name for one in self.now(storage.statuses(NOW))], ["a"])
            # The staged stream has its own lifetime again.
            self.assertEqual(self.now(storage.sweep(NOW + 3000, 10)), 0)
            self.limit(1_000_000)
        self.now(self.install())
        self.assert_installed()
        self.close(self.storage)
        self.assertEqual(self.check(self.directory)[1], [])
        self.storage = self.opened(self.directory)
        self.assert_installed()
