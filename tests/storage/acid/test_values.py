"""Values in SQLite: the format, kills at any statement, rolled back batches, and the order in a batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from durable_streams.server.errors import InsufficientStorage, StorageError, ValuesChanged
from durable_streams.server.storage.acid import schema
from durable_streams.server.storage.acid.transactions import log_bytes
from durable_streams.server.storage.changes import ValuesWritten

from .turns import NOW, TEXT, DatabaseTestCase

NOTHING: Mapping[str, bytes | None] = {}


class ValuesTestCase(DatabaseTestCase):
    def begin_write(
        self, puts: dict[str, bytes | None], expected: Mapping[str, bytes | None] = NOTHING
    ) -> Deferred[Any]:
        return maybeDeferred(self.storage.write_values, puts, expected)

    def write(self, puts: dict[str, bytes | None], expected: Mapping[str, bytes | None] = NOTHING) -> None:
        self.assertIsNone(self.now(self.begin_write(puts, expected)))

    def values(self) -> dict[str, bytes]:
        return dict(self.now(self.storage.values()))

    def reopen(self) -> None:
        self.close(self.storage)
        self.assertEqual(self.check(self.directory)[1], [])
        self.storage = self.opened(self.directory)

    @property
    def version(self) -> int:
        found: int = self.rows("PRAGMA user_version")[0][0]
        return found


class FormatTests(ValuesTestCase):
    def test_a_database_without_values_stays_in_format_1(self) -> None:
        self.create("a", body=b"x")
        self.write({"a": None}, {"a": None})
        self.assertEqual((self.version, self.values()), (1, {}))
        self.reopen()
        self.assertEqual((self.version, self.values()), (1, {}))

    def test_the_first_value_raises_the_format_to_2(self) -> None:
        self.write({"a": b"1"})
        self.assertEqual(self.version, 2)
        self.write({"a": None})
        self.reopen()
        self.assertEqual((self.version, self.values()), (2, {}))
        self.write({"b": b"1"})
        self.reopen()
        self.assertEqual((self.version, self.values()), (2, {"b": b"1"}))

    def test_an_earlier_version_refuses_a_database_with_values(self) -> None:
        self.write({"a": b"1"})
        self.close(self.storage)
        self.patch(schema, "VERSION", 1)
        error = self.assertRaises(StorageError, self.opened, self.directory)
        self.assertIn("It is in format 2; this server knows formats up to 1.", str(error))

    def test_a_database_without_its_table_of_values_is_refused(self) -> None:
        self.write({"a": b"1"})
        self.storage._database.execute("DROP TABLE key_values")
        self.close(self.storage)
        self.assertRaises(StorageError, self.opened, self.directory)
        [finding] = self.check(self.directory)[1]
        self.assertTrue(finding.serious)
        self.assertEqual(finding.where, "key_values")


class KillTests(ValuesTestCase):
    def test_a_kill_at_any_statement_leaves_all_values_of_a_call_or_none(self) -> None:
        for puts in ({"a": b"1", "b": b"1"}, {"a": b"2", "b": None, "c": b"2" * 5000}):
            copies: list[Path] = []

            def copy(_: str, copies: list[Path] = copies) -> None:
                copies.append(Path(self.mktemp()))
                shutil.copytree(self.directory, copies[-1])

            before = self.values()
            written = self.begin_write(dict(puts))
            self.storage._database.set_trace_callback(copy)
            self.turns.run()
            self.storage._database.set_trace_callback(None)
            self.successResultOf(written)
            after = self.values()
            copy("")
            self.assertGreater(len(copies), 5)
            found = []
            for each in copies:
                self.assertEqual(self.check(each)[1], [])
                storage = self.opened(each)
                found.append(dict(self.now(storage.values())))
            self.assertEqual((found[0], found[-1]), (before, after))
            self.assertEqual([one for one in found if one not in (before, after)], [])


class BatchTests(ValuesTestCase):
    def test_the_last_of_several_writes_of_a_batch_counts(self) -> None:
        self.write({"a": b"0", "b": b"0"})
        written = [
            self.begin_write({"a": None, "b": b"1", "c": b"1"}),
            self.begin_write({"a": b"2", "b": None, "d": b"2"}, {"a": None}),
            self.begin_write({"c": None, "d": b"3"}, {"d": b"2"}),
        ]
        refused = self.begin_write({"x": b""}, {"d": b"2"})
        page = self.begin(self.storage.values())
        self.assertNoResult(refused)
        self.turns.run()
        for each in written:
            self.successResultOf(each)
        self.failureResultOf(refused, ValuesChanged)
        expected = {"a": b"2", "d": b"3"}
        self.assertEqual(dict(self.successResultOf(page)), expected)
        self.reopen()
        self.assertEqual(self.values(), expected)

    def test_the_room_for_values_in_the_log_is_estimated(self) -> None:
        self.assertGreater(log_bytes([ValuesWritten({"a": b"1", "b": None})], 1000), 1000 + 4 * 4096)


class RollbackTests(ValuesTestCase):
    def limit(self, pages: int) -> None:
        self.storage._database.execute(f"PRAGMA max_page_count = {pages}")
        self.turns.clock.advance(1)

    def test_values_that_are_rolled_back_are_as_before_and_can_be_written_again(self) -> None:
        for before in ({}, {"a": b"1", "b": b"1"}):
            if before:
                self.write(dict(before))
            version = self.version
            size = self.storage.figures().metadata_bytes
            self.limit(self.rows("PRAGMA page_count")[0][0])
            outcomes = [
                self.begin_write({"a": b"2", "b": None, "c": b"2"}, {"c": None}),
                maybeDeferred(self.storage.create, "large", TEXT, b"x" * 200_000, NOW),
                self.begin_write({"c": b"3"}, {"c": b"2"}),
            ]
            waiting = maybeDeferred(self.storage.values)
            refused = self.begin_write({"c": b"4"}, {"c": None})
            self.turns.run()
            for outcome in (*outcomes, waiting, refused):
                self.failureResultOf(outcome, InsufficientStorage)
            self.assertEqual((self.values(), self.version), (before, version))
            self.assertEqual(self.storage.figures().metadata_bytes, size)
            self.limit(1_000_000)
            self.write({"a": b"1", "b": b"1"}, {"c": None, **({} if before else {"a": None})})
            self.reopen()
            self.assertEqual(self.values(), {"a": b"1", "b": b"1"})

    def test_values_of_a_database_in_memory_are_rolled_back_too(self) -> None:
        self.directory = None  # type: ignore[assignment]
        self.storage = self.opened(self.directory)
        self.write({"a": b"1"})
        self.limit(self.rows("PRAGMA page_count")[0][0])
        written = self.begin_write({"a": b"2" * 100_000})
        self.turns.run()
        self.failureResultOf(written, InsufficientStorage)
        self.assertEqual(self.values(), {"a": b"1"})
