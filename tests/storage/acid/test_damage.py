"""Rows that are changed under a storage: wrong bytes are never served, and the log says where they are."""

from __future__ import annotations

import sqlite3
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import maybeDeferred
from twisted.logger import LogEvent, globalLogPublisher

from durable_streams.server.errors import DataDamaged
from durable_streams.server.model import Fork, Offset, StreamConfig
from durable_streams.server.storage.acid import AcidStorage, content
from durable_streams.server.storage.acid.schema import DATABASE

from .turns import NOW, ROOMY, DatabaseTestCase

PIECES = [b"a" * 10, b"b" * 200_000, b"c", b"d" * 3000]
WHOLE = b"".join(PIECES)
EDGES = [0, 10, 200_010, 200_011, 203_011]


class DamageTests(DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.create("a", body=PIECES[0])
        for piece in PIECES[1:]:
            self.append("a", piece)
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.facts = self.now(self.storage.status("a", NOW)).facts

    def change(self, statement: str) -> None:
        """Change the closed database, and open it again."""
        self.close(self.storage)
        connection = sqlite3.connect(self.directory / DATABASE, isolation_level=None)
        connection.execute(statement)
        connection.close()
        self.storage = self.opened(self.directory)

    def read(self, position: int, limit: int = 1 << 30) -> tuple[int, bytes]:
        offset = Offset(self.facts.incarnation, position)
        chunk = self.now(self.storage.read("a", offset, limit, NOW))
        return chunk.start, chunk.data

    def assert_damaged(self, position: int, limit: int = 1 << 30, whole: bool = False) -> None:
        offset = Offset(self.facts.incarnation, position)
        outcome = maybeDeferred(self.storage.read, "a", offset, limit, NOW, whole)
        self.turns.run()
        self.failureResultOf(outcome, DataDamaged)

    def test_a_damaged_row_is_not_served_and_others_are(self) -> None:
        # The second append has its bytes in four rows.
        self.change("UPDATE appends SET data = zeroblob(3392) WHERE start = 196618")
        self.assert_damaged(0)
        self.assert_damaged(10)
        self.assertEqual(self.read(0, 10), (0, WHOLE[:10]))
        self.assertEqual(self.read(200_010), (200_010, WHOLE[200_010:]))
        where = f"{DATABASE}, appends, stream {self.facts.id}"
        what = "bytes 196618 to 200010 do not have their checksum"
        logged = [(event["where"], event["name"], event["what"]) for event in self.events if "what" in event]
        self.assertEqual(logged, [(where, "a", what)])

    def test_a_range_inside_a_damaged_row_is_not_served(self) -> None:
        self.change("UPDATE appends SET data = zeroblob(3392) WHERE start = 196618")
        outcome = maybeDeferred(self.storage.read_range, self.facts, 200_000, 200_001)
        self.turns.run()
        self.failureResultOf(outcome, DataDamaged)
        self.assertEqual(self.now(self.storage.read_range(self.facts, 100, 196_618)), WHOLE[100:196_618])

    def test_damaged_keys_serve_no_wrong_bytes(self) -> None:
        for statement, positions in (
            ("UPDATE appends SET start = 15 WHERE start = 10", (0, 10)),
            ("UPDATE appends SET append = 8 WHERE start = 10", (10,)),
            ("DELETE FROM appends WHERE start = 10", (0, 10)),
            ("UPDATE appends SET checksum = 1 WHERE start = 10", (0, 10)),
        ):
            before = sqlite3.connect(":memory:")
            self.addCleanup(before.close)
            self.close(self.storage)
            now = sqlite3.connect(self.directory / DATABASE)
            now.backup(before)
            now.close()
            self.storage = self.opened(self.directory)
            self.change(statement)
            for position in positions:
                self.assert_damaged(position)
            self.assertEqual(self.read(200_010), (200_010, WHOLE[200_010:]), statement)
            self.close(self.storage)
            now = sqlite3.connect(self.directory / DATABASE)
            before.backup(now)
            now.close()
            self.storage = self.opened(self.directory)
        self.assertEqual(self.read(0), (0, WHOLE))

    def test_a_fork_does_not_serve_damaged_bytes_of_its_source(self) -> None:
        self.create("f", StreamConfig(fork=Fork("a", Offset(self.facts.incarnation, 10))), b"!")
        self.change("UPDATE appends SET data = zeroblob(10) WHERE start = 0")
        outcome = maybeDeferred(self.storage.read, "f", Offset(0, 0), 1 << 30, NOW)
        self.turns.run()
        self.failureResultOf(outcome, DataDamaged)

    def test_a_page_unreadable_for_sqlite_is_damage_and_does_not_stop_writes(self) -> None:
        self.change("PRAGMA user_version = 1")

        def refuse(*_: object) -> None:
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        with patch.object(content, "_read_verified", refuse):
            self.assert_damaged(0)
        self.assertEqual(self.read(0), (0, WHOLE))
        self.append("a", b"more")

    def test_without_verification_damaged_bytes_are_served(self) -> None:
        self.change("UPDATE appends SET data = zeroblob(10) WHERE start = 0")
        self.close(self.storage)
        workers: Any = lambda *_: self.turns  # noqa: E731
        self.storage = AcidStorage(self.directory, self.turns.clock, ROOMY, workers=workers, verify_reads=False)
        self.storage.open()
        self.assertEqual(self.read(0), (0, bytes(10) + WHOLE[10:]))
