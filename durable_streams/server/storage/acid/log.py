"""The log of the acid storage: transactions of SQLite, its write-ahead log, and the room for both on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import InsufficientStorage, StreamsError
from ..catalogue import Catalogue
from ..changes import Change
from ..disk import RealDisk
from ..frontier import Frontier
from ..logged.commit_queue import BatchRefused, CommitQueue, NotYet
from ..workers import Worker
from .content import AcidContent
from .loading import DatabaseState
from .rollback import FULL, Rollback, attempt, pauses, reason_of
from .stream import AcidStream
from .transactions import collect_leftovers, free_bytes, log_bytes

#: How many bytes of the disk appends leave free, and how many any change leaves free.
_KEPT_FREE: Final = 8 << 20
_KEPT_FREE_FROM_REMOVALS: Final = 1 << 20

#: For how many seconds a query of the free space is valid.
_ROOM_INTERVAL: Final = 0.5

#: How many bytes of changes may be accepted before the free space is queried again.
_CREDIT: Final = 4 << 20

#: At which size, in bytes, the write-ahead log is copied into the tables; and the minimum for that on a small disk.
_LOG_SIZE: Final = 16 << 20
_MIN_LOG_SIZE: Final = 1 << 20

#: How many milliseconds the writer waits for readers of the write-ahead log before it restarts the log.
_PATIENCE: Final = 50

_log = Logger()


class AcidLog:
    """
    A :class:`.Log` that is a database.

    :param connection: returns the connection of the calling reader thread.
    :ivar queue: the queue whose changes it writes; set before it is opened.
    :ivar catalogue: the streams, which get the state of the database after a rollback; set before it is opened.
    """

    queue: CommitQueue[Any]
    catalogue: Catalogue[AcidStream]
    _database: sqlite3.Connection

    def __init__(
        self,
        clock: Any,
        writer: Worker,
        readers: Worker,
        stored: AcidContent,
        connection: Callable[[], sqlite3.Connection],
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._readers = readers
        self._stored = stored
        self._connection = connection
        self._disk: RealDisk | None = None
        self._frontier: Frontier | None = None
        # The approximate size of the write-ahead log, and how much of it is being copied into the tables.
        self._log_bytes = self._copying_bytes = 0
        self._copying = False
        self._waiting: list[Deferred[None]] = []
        self._collecting = self._collecting_later = False
        self._asked_at = inf
        # Makes the error for all writes until the free space is queried again.
        self._refusal: Callable[[], StreamsError] | None = None
        # The free disk space at the last query, the bytes written since, and the free bytes in the database's file.
        self._room = self._spent = self._free_bytes = 0

    def open(
        self, database: sqlite3.Connection, disk: RealDisk | None = None, frontier: Frontier | None = None
    ) -> None:
        """
        Set the connection that is used for writes.

        :param disk: the file system of the database; None for a database in memory.
        """
        self._database = database
        self._disk = disk
        self._frontier = frontier

    async def sync(self) -> None:
        """See :class:`.Log`."""
        if self._disk is not None and self.queue.failure is None:
            try:
                await self._writer.do(partial(_checkpoint, self._database, "TRUNCATE"))
            except sqlite3.Error:
                # The write-ahead log has everything, and the next start reads it.
                _log.failure("Copying the write-ahead log into the database failed.")

    def close(self) -> None:
        """See :class:`.Log`."""
        self._database.close()
        if self._frontier is not None:
            self._frontier.close()

    # The log

    def check_room(self, size: int, queued_bytes: int, removal: bool) -> int:
        """See :class:`.Log`."""
        if self._disk is None:
            return 1 << 62
        now = self._clock.seconds()
        min_left = _KEPT_FREE_FROM_REMOVALS if removal else _KEPT_FREE
        if not self._asked_at <= now < self._asked_at + _ROOM_INTERVAL:
            self._ask(now)
            self._refusal = None
        if self._refusal is not None:
            raise self._refusal()
        left = self._left(size, queued_bytes)
        if left < min_left and self._spent:
            self._ask(now)
            left = self._left(size, queued_bytes)
        if left < min_left <= left + self._log_bytes + self._copying_bytes:
            # A checkpoint of the write-ahead log may free enough room.
            ready: Deferred[None] = Deferred()
            self._waiting.append(ready)
            self._copy_log()
            raise NotYet(ready)
        # The write-ahead log takes room on the disk, even if pages of the database are free.
        if left < min_left or (self._room < _KEPT_FREE_FROM_REMOVALS and not removal):
            raise InsufficientStorage(FULL)
        return max(size, min(_CREDIT, (left - _KEPT_FREE) // 3))

    def _ask(self, now: float) -> None:
        """Query the free space on the disk."""
        assert self._disk is not None
        self._room = self._disk.free()
        self._asked_at = now
        self._spent = 0
        if self._collecting_later:
            self.collect()

    def _refuse(self, reason: StreamsError) -> None:
        """Refuse all writes until the free space is queried again."""
        self._refusal = partial(type(reason), str(reason))
        self._asked_at = self._clock.seconds()

    def resume(self) -> None:
        """Retry the operations that wait for a checkpoint of the write-ahead log."""
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            ready.callback(None)

    def _left(self, size: int, queued_bytes: int) -> int:
        # Changes are written to the write-ahead log first, then to the tables.
        to_come = 3 * (queued_bytes + size) + self._log_bytes + self._copying_bytes
        return self._room + self._free_bytes - self._spent - to_come

    def commit(self, changes: Sequence[Change], lsn: int, max_bytes: int) -> Deferred[None]:
        """See :class:`.Log`."""
        self._grow(log_bytes(changes, max_bytes))
        done = self._writer.do(
            partial(self._attempt_batch, changes, lsn, self._clock.seconds(), self.catalogue.wall_offset)
        )
        return done.addCallbacks(self._written, self._rolled_back, (changes,))

    def _attempt_batch(self, changes: Sequence[Change], lsn: int, now: float, wall_offset: float) -> int:
        """Commit a batch, and note in the frontier that it is on the disk. In the writer's thread."""
        free = attempt(self._database, changes, lsn, now, wall_offset)
        if self._frontier is not None:
            self._frontier.advance(lsn)
        return free

    def _written(self, free: int, changes: Sequence[Change]) -> None:
        self._free_bytes = free
        for change in changes:
            self._stored.stored(change.id, _end_of(change))
        self._stored.forget_oldest()
        self._consider_log()

    def _rolled_back(self, failure: Failure) -> Failure:
        """Restore the committed state if a batch was rolled back; pass any other failure on."""
        rollback = failure.value
        if not isinstance(rollback, Rollback):
            return failure
        _log.warn("Rolled back a batch of writes: {reason}", reason=str(rollback.reason))
        if pauses(rollback.reason):
            self._refuse(rollback.reason)
        if isinstance(rollback.reason, InsufficientStorage):
            # A checkpoint of the write-ahead log may free its room.
            self._copy_log()
        self._restore(rollback.loaded)
        return Failure(BatchRefused(rollback.reason))

    def _restore(self, loaded: DatabaseState) -> None:
        """Replace the catalogue by the state of the database."""
        # Renewals by reads stay; renewals by writes that were rolled back do not.
        accepted = {stream.facts.id: stream for stream in self.catalogue.streams.values()}
        for stream in loaded.streams:
            other = accepted.get(stream.facts.id)
            # An installation that was rolled back may have given it another lifetime.
            if other is not None and other.lifetime == stream.lifetime:
                stream.deadline = min(stream.deadline, other.deadline)
        self._stored.forget_all()
        self.catalogue.load(loaded.streams, loaded.last_id, loaded.values)

    def _grow(self, size: int) -> None:
        """Count the growth of the write-ahead log."""
        self._log_bytes += size
        self._spent += size

    def _consider_log(self) -> None:
        """Make a checkpoint of the write-ahead log if it is large, or if there is little room."""
        if self._disk is None:
            return
        max_bytes = min(_LOG_SIZE, max(_MIN_LOG_SIZE, self._room // 4))
        if self._log_bytes > max_bytes:
            self._copy_log()

    def _copy_log(self) -> None:
        """Copy the write-ahead log into the tables: first in a reader thread, then the rest in the writer thread."""
        if self._disk is None or self._copying or self.queue.closing:
            return
        self._copying = True
        self._copying_bytes, self._log_bytes = self._log_bytes, 0

        def over(outcome: object) -> None:
            size, self._copying_bytes = self._copying_bytes, 0
            self._copying = False
            if not isinstance(outcome, Failure):
                self._spent += size
            elif (reason := reason_of(outcome.value)) is None:
                self.queue.stop(outcome)
            else:
                self._log_bytes += size
                self._refuse(reason)
            self.resume()

        self._readers.do(lambda: _checkpoint(self._connection())).addCallback(
            lambda _: self._writer.do(partial(_restart_log, self._database))
        ).addBoth(over)

    # Rows of removed streams

    def collect(self) -> None:
        """Remove the rows of removed streams in small transactions between the batches."""
        if self._collecting:
            return
        self._collecting, self._collecting_later = True, False

        def work() -> tuple[int | None, int]:
            return collect_leftovers(self._database), free_bytes(self._database)

        def go_on(outcome: tuple[int | None, int]) -> None:
            self._collecting = False
            grown, self._free_bytes = outcome
            if grown is not None and not self.queue.closing and self.queue.failure is None:
                self._grow(grown)
                self._consider_log()
                self.collect()

        def not_now(failure: Failure) -> None:
            self._collecting, self._collecting_later = False, True
            self._unless_undone(failure)

        self._writer.do(work).addCallbacks(go_on, not_now)

    def _unless_undone(self, failure: Failure) -> None:
        if reason_of(failure.value) is None:
            self.queue.stop(failure)


def _end_of(change: Change) -> int:
    start: int = getattr(change, "start", getattr(change, "base", 0))
    return start + len(getattr(change, "data", b""))


def _checkpoint(connection: sqlite3.Connection, kind: str = "PASSIVE") -> None:
    connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()


def _restart_log(connection: sqlite3.Connection) -> None:
    """Copy the rest of the write-ahead log, so that the next write restarts it, unless a reader uses it for long."""
    patience = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
    try:
        _checkpoint(connection, "RESTART")
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")
