"""The acid storage: one database, one thread that writes it, and others that read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import InsufficientStorage, StreamsError, Unavailable
from ...interfaces import IStorage
from ...model import StorageLimits
from ..changes import Change
from ..directory_watch import DirectoryWatch
from ..disk import RealDisk
from ..frontier import Frontier
from ..logged.commit_queue import BatchRefused, NotYet
from ..logged.content import DiskReads
from ..logged.storage import LoggedStorage
from ..ownership import StorageDamaged, StorageError, complete, is_complete, take
from ..workers import ThreadWorker, Worker
from .content import AcidContent
from .loading import Loaded, load
from .rollback import FULL, Rollback, attempt, pauses, reason_of
from .schema import DATABASE, KIND, PARTS, VERSION, check_frontier, connect, prepare, sync_log
from .stream import AcidStream
from .transactions import collect_leftovers, free_bytes, log_bytes

#: How much is left free on the disk, in bytes, for appends and for anything.
_KEPT_FREE: Final = 8 << 20
_KEPT_FREE_FROM_REMOVALS: Final = 1 << 20

#: How long, in seconds, an answer about the room on the disk counts.
_ROOM_INTERVAL: Final = 0.5

#: How much may be accepted before the disk is asked again, in bytes.
_CREDIT: Final = 4 << 20

#: How large the write-ahead log may grow before it is brought home, in bytes; and how large where there is little room.
_LOG_SIZE: Final = 16 << 20
_LEAST_LOG_SIZE: Final = 1 << 20

#: How long, in milliseconds, the writer waits for those who read the log to be done, so that it can be begun anew.
_PATIENCE: Final = 50

_log = Logger()


@implementer(IStorage)
class AcidStorage(LoggedStorage[AcidStream]):
    """
    Streams in SQLite.

    :param directory: where the database is; None for one in memory, which is gone with the process.
    :param reactor: the time, and where the outcomes of threads are told.
    :param queued_bytes: how much may wait to be written; what comes beyond that is refused.
    :param workers: makes whoever writes and reads, by name and number of hands; None for threads.
    :param verify_reads: whether bytes that are read from the database are compared with their checksums.
    """

    kind: ClassVar[str] = KIND

    def __init__(
        self,
        directory: str | Path | None,
        reactor: Any,
        limits: StorageLimits = StorageLimits(),  # noqa: B008 (frozen)
        queued_bytes: int = 67_108_864,
        workers: Callable[[str, int], Worker] | None = None,
        verify_reads: bool = True,
    ) -> None:
        if workers is None:
            workers = partial(ThreadWorker, reactor)
        self._writer = workers("sqlite-writer", 1)
        readers = self._writer if directory is None else workers("sqlite-reader", 3)
        super().__init__(limits, reactor, AcidStream, readers, queued_bytes)
        reads = DiskReads(reactor, readers, _read_refusal)
        self._stored = AcidContent(reads, self._connection, verify_reads)
        self._bring(reads, self._stored)
        self._directory = None if directory is None else Path(directory)
        self._disk: RealDisk | None = None
        self._watch: DirectoryWatch | None = None
        self._frontier: Frontier | None = None
        self._database: sqlite3.Connection
        self._here = threading.local()
        self._reading: list[sqlite3.Connection] = []
        # How much is in the write-ahead log, about, and how much of that is on its way home.
        self._log_bytes = self._moving_bytes = 0
        self._bringing_home = False
        self._waiting: list[Deferred[None]] = []
        self._collecting = self._collecting_later = False
        self._opened = False
        self._asked_at = inf
        # Why nothing is taken until the disk is asked again.
        self._refusal: Callable[[], StreamsError] | None = None
        # What the disk has said that it has, and what was written since; and what is free in the database's own file.
        self._room = self._spent = self._free_bytes = 0

    # Opening and closing

    def load(self) -> None:
        """
        Load the database.

        :raises StorageError: the database cannot be loaded; the message says why and what to do.
        """
        if self._opened:
            return
        if self._directory is None:
            self._database = connect(":memory:")
            prepare(self._database, new=True)
        else:
            self._disk = RealDisk(self._directory)
            where = str(self._directory)
            self._watch = DirectoryWatch(self._disk, self._writer, self._clock, where, self._queue.stop_moved)
            take(self._disk, KIND, VERSION, where, PARTS)
            try:
                self._load(self._disk, self._directory / DATABASE)
                complete(self._disk)
            except BaseException:
                self._disk.unlock()
                raise
        self._opened = True

    def _load(self, disk: RealDisk, path: Path) -> None:
        began_at = monotonic()
        try:
            new = not is_complete(disk)
            sync_log(disk, path)
            if DATABASE not in disk.names(""):
                if not new:
                    raise StorageDamaged("it is missing, and all streams with it")
                # SQLite would let others read it.
                disk.open(DATABASE, new=True).close()
                disk.sync_folder("")
            check_frontier(disk, path)
            self._database = connect(path)
            try:
                prepare(self._database, new)
                loaded = load(self._database, self._clock.seconds(), self.wall_offset)
                self._take_over(loaded)
                self._queue.restart(loaded.lsn)
                self._frontier = Frontier(disk)
                self._frontier.open()
                self._frontier.secure(0, loaded.lsn)
            except BaseException:
                self._database.close()
                raise
        except (sqlite3.DatabaseError, StorageDamaged) as error:
            if reason_of(error) is not None:
                raise StorageError(f"The database {path} can't be opened: {error}. {_remedy(error)}") from None
            what = str(error).rstrip(".")
            raise StorageError(
                f"The database {path} can't be opened: {what}. See what durable-streams-server check says of it, or "
                "restore it from a backup."
            ) from None
        except StorageError as error:
            raise StorageError(f"The database {path} can't be opened. {error}") from None
        _log.info(
            "Loaded {streams} streams from {where} in {seconds:.1f} s.",
            streams=len(self._streams),
            where=str(path),
            seconds=monotonic() - began_at,
        )

    def _begin_by_itself(self) -> None:
        if self._watch is not None:
            self._watch.start()
        self._collect()

    def _take_over(self, loaded: Loaded) -> None:
        """Have in the catalogue what is in the database, and nothing else."""
        # What reads have renewed counts on, and what has come to nothing renews nothing.
        deadlines = {stream.facts.id: stream.deadline for stream in self._streams.values()}
        self._streams.clear()
        self._deadlines.clear()
        self._wall_deadlines.clear()
        self._bytes = self._metadata = 0
        self._purging.clear()
        self._stored.forget_all()
        for stream in loaded.streams:
            stream.deadline = min(stream.deadline, deadlines.get(stream.facts.id, inf))
            self._enter(stream)
        # An id that somebody was told of, even in vain, does not come back.
        self._last_id = max(self._last_id, loaded.last_id)

    def _close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._let_go())

    async def _let_go(self) -> None:
        self._go_on()
        if self._watch is not None:
            self._watch.stop()
        await self._writer.do(lambda: None)
        self._readers.close()
        for connection in self._reading:
            connection.close()
        if self._opened and self._directory is not None and self._queue.failure is None:
            try:
                await self._writer.do(partial(_checkpoint, self._database, "TRUNCATE"))
            except sqlite3.Error:
                # It is all in the log, from which the next one to open it takes it.
                _log.failure("Copying the write-ahead log into the database failed.")
        self._writer.close()
        if self._opened:
            self._database.close()
            if self._frontier is not None:
                self._frontier.close()
        if self._disk is not None and self._opened:
            self._disk.unlock()

    # The log

    def _check_room(self, size: int, removal: bool) -> int:
        if self._directory is None:
            return 1 << 62
        now = self._clock.seconds()
        least = _KEPT_FREE_FROM_REMOVALS if removal else _KEPT_FREE
        if not self._asked_at <= now < self._asked_at + _ROOM_INTERVAL:
            self._ask(now)
            self._refusal = None
        if self._refusal is not None:
            raise self._refusal()
        left = self._left(size)
        if left < least and self._spent:
            self._ask(now)
            left = self._left(size)
        if left < least <= left + self._log_bytes + self._moving_bytes:
            # When the log is at home, it may turn out that there is room.
            ready: Deferred[None] = Deferred()
            self._waiting.append(ready)
            self._bring_home()
            raise NotYet(ready)
        # The log takes room on the disk, whatever is free in the database.
        if left < least or (self._room < _KEPT_FREE_FROM_REMOVALS and not removal):
            raise InsufficientStorage(FULL)
        return max(size, min(_CREDIT, (left - _KEPT_FREE) // 3))

    def _ask(self, now: float) -> None:
        """Ask the disk how much room it has."""
        assert self._disk is not None
        self._room = self._disk.free()
        self._asked_at = now
        self._spent = 0
        if self._collecting_later:
            self._collect()

    def _refuse(self, reason: StreamsError) -> None:
        """Refuse all writes until the disk is asked again."""
        self._refusal = partial(type(reason), str(reason))
        self._asked_at = self._clock.seconds()

    def _go_on(self) -> None:
        """Let those try again who wait for the log to be at home."""
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            ready.callback(None)

    def _left(self, size: int) -> int:
        # What is written is in the log first, then in the tables.
        to_come = 3 * (self._queue.queued_bytes + size) + self._log_bytes + self._moving_bytes
        return self._room + self._free_bytes - self._spent - to_come

    def _commit(self, changes: Sequence[Change], lsn: int, max_bytes: int) -> Deferred[None]:
        self._grow(log_bytes(changes, max_bytes))
        done = self._writer.do(partial(self._attempt_batch, changes, lsn, self._clock.seconds(), self.wall_offset))
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
        _log.warn("A batch of writes was refused and undone: {reason}", reason=str(rollback.reason))
        if pauses(rollback.reason):
            self._refuse(rollback.reason)
        if isinstance(rollback.reason, InsufficientStorage):
            # A checkpoint of the write-ahead log may free its room.
            self._bring_home()
        self._take_over(rollback.loaded)
        return Failure(BatchRefused(rollback.reason))

    def _grow(self, size: int) -> None:
        """Count what the write-ahead log grows by."""
        self._log_bytes += size
        self._spent += size

    def _consider_log(self) -> None:
        """Bring the write-ahead log home when it has grown; earlier, where there is little room."""
        if self._directory is None:
            return
        most = min(_LOG_SIZE, max(_LEAST_LOG_SIZE, self._room // 4))
        if self._log_bytes > most:
            self._bring_home()

    def _bring_home(self) -> None:
        """Copy the write-ahead log into the tables: most of it beside the writer, then the rest in its turn."""
        if self._directory is None or self._bringing_home or self._closing is not None:
            return
        self._bringing_home = True
        self._moving_bytes, self._log_bytes = self._log_bytes, 0

        def over(outcome: object) -> None:
            size, self._moving_bytes = self._moving_bytes, 0
            self._bringing_home = False
            if not isinstance(outcome, Failure):
                self._spent += size
            elif (reason := reason_of(outcome.value)) is None:
                self._queue.stop(outcome)
            else:
                self._log_bytes += size
                self._refuse(reason)
            self._go_on()

        self._readers.do(lambda: _checkpoint(self._connection())).addCallback(
            lambda _: self._writer.do(partial(_begin_log_anew, self._database))
        ).addBoth(over)

    # What nobody needs any more

    def _discard(self, streams: Sequence[AcidStream]) -> None:
        self._stored.discard(streams, self._queue.committed_lsn)
        self._collect()

    def _collect(self) -> None:
        """Remove the rows of deleted streams, bit by bit, between the batches."""
        if self._collecting:
            return
        self._collecting, self._collecting_later = True, False

        def work() -> tuple[int | None, int]:
            return collect_leftovers(self._database), free_bytes(self._database)

        def go_on(outcome: tuple[int | None, int]) -> None:
            self._collecting = False
            grown, self._free_bytes = outcome
            if grown is not None and self._closing is None and self._queue.failure is None:
                self._grow(grown)
                self._consider_log()
                self._collect()

        def not_now(failure: Failure) -> None:
            self._collecting, self._collecting_later = False, True
            self._unless_undone(failure)

        self._writer.do(work).addCallbacks(go_on, not_now)

    def _unless_undone(self, failure: Failure) -> None:
        if reason_of(failure.value) is None:
            self._queue.stop(failure)

    # The readers

    def _connection(self) -> sqlite3.Connection:
        """Give the calling reader's thread its own connection."""
        if self._disk is None:
            return self._database
        connection: sqlite3.Connection | None = getattr(self._here, "connection", None)
        if connection is None:
            connection = connect(self._disk.path / DATABASE)
            try:
                connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                connection.close()
                raise
            self._here.connection = connection
            self._reading.append(connection)
        return connection


def _read_refusal(error: BaseException | None) -> StreamsError | None:
    """Return the answer for a reader if its read failed for a temporary reason, else None."""
    reason = reason_of(error)
    return reason if isinstance(reason, Unavailable) else None


def _remedy(error: BaseException) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return "See who else has it open."
    if code == sqlite3.SQLITE_FULL:
        return "Make room on the disk."
    return "See who may open it, and whether the process may open more files (ulimit -n)."


def _end_of(change: Change) -> int:
    start: int = getattr(change, "start", getattr(change, "base", 0))
    return start + len(getattr(change, "data", b""))


def _checkpoint(connection: sqlite3.Connection, kind: str = "PASSIVE") -> None:
    connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()


def _begin_log_anew(connection: sqlite3.Connection) -> None:
    """Copy what is left in the log, and have it begun anew by what is written next, if nobody reads it for long."""
    patience = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
    try:
        _checkpoint(connection, "RESTART")
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")
