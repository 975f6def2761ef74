"""A shortage of descriptors or memory refuses what could not be done, and does not stop the storage."""

from __future__ import annotations

import sqlite3
from typing import Any

from twisted.internet.defer import maybeDeferred

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import START, Append
from durable_streams.server.storage.acid import storage as acid
from tests.support.descriptors import no_more_descriptors

from .turns import NOW, TEXT, DatabaseTestCase


class ShortConnection(sqlite3.Connection):
    """A connection whose inserts, or checkpoints, fail as long as ``failing`` has an SQLite error code."""

    failing = 0

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if "wal_checkpoint" in statement:
            self._fail()
        return super().execute(statement, *parameters)

    def executemany(self, statement: str, rows: Any) -> sqlite3.Cursor:
        self._fail()
        return super().executemany(statement, rows)

    def _fail(self) -> None:
        if self.failing:
            error = sqlite3.OperationalError("made to be short of something")
            error.sqlite_errorcode = self.failing
            raise error


class ShortageTests(DatabaseTestCase):
    def setUp(self) -> None:
        def connect(path: Any) -> sqlite3.Connection:
            return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=ShortConnection)

        self.patch(acid, "connect", connect)
        super().setUp()
        self.create("a", TEXT, b"one")

    def fail_with(self, code: int) -> None:
        for connection in (self.storage._database, *self.storage._reading):
            assert isinstance(connection, ShortConnection)
            connection.failing = code

    def try_to_append(self, data: bytes) -> Any:
        answer = maybeDeferred(self.storage.append, "a", Append("text/plain", data), NOW)
        self.turns.run()
        return answer

    def test_a_batch_is_refused_during_a_shortage_and_the_next_one_is_written(self) -> None:
        for code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR_NOMEM):
            self.fail_with(code)
            self.failureResultOf(self.try_to_append(b"never"), Unavailable)
            self.assertIsNone(self.storage.obstacle())
            # Not before the disk is asked again.
            self.fail_with(0)
            self.failureResultOf(self.try_to_append(b"never"), Unavailable)
            self.turns.clock.advance(1)
            self.successResultOf(self.try_to_append(b", more"))
        self.assertEqual(self.content(self.storage, "a"), b"one" + b", more" * 3)

    def test_a_disk_error_is_not_a_shortage(self) -> None:
        for code in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE):
            self.fail_with(code)
            self.failureResultOf(self.try_to_append(b"never"), Unavailable)
            self.assertIsNotNone(self.storage.obstacle())

    def test_a_checkpoint_postponed_by_a_shortage_is_made_later(self) -> None:
        self.storage._log._copy_log()
        self.turns.run()
        self.fail_with(sqlite3.SQLITE_NOMEM)
        self.storage._log._copy_log()
        self.turns.run()
        self.assertIsNone(self.storage.obstacle())
        self.failureResultOf(self.try_to_append(b"never"), Unavailable)
        self.fail_with(0)
        self.turns.clock.advance(1)
        self.successResultOf(self.try_to_append(b", two"))

    def test_a_read_without_a_free_descriptor_is_refused_and_succeeds_later(self) -> None:
        self.storage._stored.forget_all()
        with no_more_descriptors():
            reading = maybeDeferred(self.storage.read, "a", START, 100, NOW)
            self.turns.run()
        self.failureResultOf(reading, Unavailable)
        self.assertEqual(self.content(self.storage, "a"), b"one")
