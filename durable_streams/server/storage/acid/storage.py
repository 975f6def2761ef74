"""The acid storage: one database, one thread that writes it, and others that read."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import InsufficientStorage
from ...interfaces import IStorage
from ...model import Lifetime, StorageLimits, StreamConfig, StreamFacts, WriterState
from ...protocol.lifetimes import deadline
from ..catalogue import facts_of
from ..changes import Change
from ..committed import CommittedStorage
from ..disk import RealDisk
from ..kept import Kept, Recent
from ..ownership import StorageDamaged, StorageError, take
from ..workers import ThreadWorker, Worker
from .schema import DATABASE, KIND, VERSION, connect, prepare
from .transactions import collect_leftovers, commit

#: How many bytes of one stream, and of all, are in memory for live readers.
_RECENT_OF_ONE: Final = 65_536
_RECENT_OF_ALL: Final = 32 << 20

#: How much is left free on the disk, in bytes, for appends and for anything.
_KEPT_FREE: Final = 8 << 20
_KEPT_FREE_FROM_REMOVALS: Final = 1 << 20

#: How long, in seconds, an answer about the room on the disk counts.
_ROOM_INTERVAL: Final = 0.5

#: How much may be accepted before the disk is asked again, in bytes.
_CREDIT: Final = 4 << 20

#: How large the write-ahead log may grow before it is brought home, in bytes.
_LOG_SIZE: Final = 16 << 20

_log = Logger()


class AcidStream(Kept):
    """
    One stream in the database.

    :ivar stored: up to where its bytes are in the database.
    :ivar counted: how many of its bytes in memory were counted.
    """

    __slots__ = ("counted", "stored")

    def __init__(
        self, facts: StreamFacts, config: StreamConfig, lifetime: Lifetime, source: Any, base: int, now: float
    ) -> None:
        super().__init__(facts, config, lifetime, source, base, now)
        self.stored = base
        self.counted = 0


@implementer(IStorage)
class AcidStorage(CommittedStorage[AcidStream]):
    """
    Streams in SQLite.

    :param directory: where the database is; None for one in memory, which is gone with the process.
    :param reactor: the time, and where the outcomes of threads are told.
    :param queued_bytes: how much may wait to be written; what comes beyond that is refused.
    :param workers: makes whoever writes and reads, by name and number of hands; None for threads.
    """

    kind: ClassVar[str] = KIND

    def __init__(
        self,
        directory: str | Path | None,
        reactor: Any,
        limits: StorageLimits = StorageLimits(),  # noqa: B008 (frozen)
        queued_bytes: int = 67_108_864,
        workers: Callable[[str, int], Worker] | None = None,
    ) -> None:
        if workers is None:
            workers = partial(ThreadWorker, reactor)
        self._writer = workers("sqlite-writer", 1)
        readers = self._writer if directory is None else workers("sqlite-reader", 3)
        super().__init__(limits, reactor, AcidStream, readers, queued_bytes)
        self._directory = None if directory is None else Path(directory)
        self._disk: RealDisk | None = None
        self._database: sqlite3.Connection
        self._here = threading.local()
        self._reading: list[sqlite3.Connection] = []
        self._recent: OrderedDict[int, AcidStream] = OrderedDict()
        self._recent_bytes = 0
        self._log_bytes = 0
        self._bringing_home = False
        self._collecting = False
        self._opened = False
        self._room_until = 0.0
        self._room = 0

    # Opening and closing

    def take_up(self) -> None:
        """
        Take up what is in the database.

        :raises StorageError: it can't be taken up; the message says why.
        """
        if self._opened:
            return
        if self._directory is None:
            self._database = connect(":memory:")
            prepare(self._database)
        else:
            self._disk = RealDisk(self._directory)
            take(self._disk, KIND, VERSION, str(self._directory))
            try:
                self._take_up(self._directory / DATABASE)
            except BaseException:
                self._disk.unlock()
                raise
        self._opened = True

    def _take_up(self, path: Path) -> None:
        began_at = monotonic()
        new = not path.exists()
        self._sync_log(path)
        try:
            self._database = connect(path)
            if new:
                path.chmod(0o600)
            prepare(self._database)
            self._load()
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"The database {path} can't be opened: {error}. See what durable-streams-server check says of it, or "
                "restore it from a backup."
            ) from None
        _log.info(
            "{streams} streams were taken up from {where} in {seconds:.1f} s.",
            streams=len(self._streams),
            where=str(path),
            seconds=monotonic() - began_at,
        )

    def _begin_by_itself(self) -> None:
        self._collect()

    def _sync_log(self, path: Path) -> None:
        """
        Have on the disk what a killed process has left in the write-ahead log with the operating system only.

        It is shown from now on, and what is shown must not be taken back.
        """
        assert self._disk is not None
        log = f"{path.name}-wal"
        if log not in self._disk.names(""):
            return
        if not path.exists():
            raise StorageDamaged(
                f"The database {path} is missing, and its write-ahead log is there. Put back all of its files, or "
                "restore a backup."
            )
        file = self._disk.open(log)
        try:
            file.sync()
        finally:
            file.close()

    def _load(self) -> None:
        opened_at = self._clock.seconds()
        streams: dict[int, AcidStream] = {}
        sources: dict[int, int] = {}
        configs = msgspec.json.Decoder(StreamConfig)
        lifetimes = msgspec.json.Decoder(Lifetime)
        for row in self._database.execute("SELECT * FROM streams"):
            (stream_id, name, incarnation, content_type, config, lifetime, source) = row[:7]
            (base, tail, closed, deleted, sequence, created_at, updated_at) = row[7:]
            facts = facts_of(name, stream_id, incarnation, content_type)
            stream = AcidStream(facts, configs.decode(config), lifetimes.decode(lifetime), None, base, created_at)
            stream.tail = stream.stored = tail
            stream.closed = bool(closed)
            stream.deleted = bool(deleted)
            stream.sequence = sequence
            stream.updated_at = updated_at
            # What a read has renewed is not written down: to be taken up counts as use.
            used_at = max(updated_at, opened_at)
            stream.deadline = float("inf") if deleted else deadline(stream.lifetime, used_at)
            stream.show()
            streams[stream_id] = stream
            if source is not None:
                sources[stream_id] = source
        for stream_id, writer, epoch, seq, seen in self._database.execute("SELECT * FROM writers"):
            written = streams.get(stream_id)
            if written is not None:
                if written.writers is None:
                    written.writers = {}
                written.writers[writer] = WriterState(epoch, seq, seen)
        for stream_id, source_id in sources.items():
            found = streams.get(source_id)
            if found is None:
                raise StorageDamaged(f"The stream {streams[stream_id].facts.name} has lost its source.")
            streams[stream_id].source = found
            found.forks += 1
        for stream in streams.values():
            self._enter(stream)
        self._last_id = self._database.execute("SELECT value FROM numbers WHERE name = 'last_id'").fetchone()[0]

    def _close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._let_go())

    async def _let_go(self) -> None:
        await self._writer.do(lambda: None)
        self._readers.close()
        self._writer.close()
        if not self._opened:
            return
        for connection in self._reading:
            connection.close()
        try:
            if self._directory is not None and self._failed is None:
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            # It is all in the log, from which the next one to open it takes it.
            _log.failure("The write-ahead log could not be brought home.")
        self._database.close()
        if self._disk is not None:
            self._disk.unlock()

    # The log

    def _check_room(self, size: int, removal: bool) -> int:
        if self._directory is None:
            return 1 << 62
        now = self._clock.seconds()
        if not self._room_until - _ROOM_INTERVAL <= now < self._room_until:
            self._room = shutil.disk_usage(self._directory).free
            self._room_until = now + _ROOM_INTERVAL
        # What is written is in the log first, then in the tables.
        left = self._room - 3 * (self._queued_bytes + size) - self._log_bytes
        if left < (_KEPT_FREE_FROM_REMOVALS if removal else _KEPT_FREE):
            raise InsufficientStorage("The disk is full. Delete streams that are done with, or make room on it.")
        return max(size, min(_CREDIT, (left - _KEPT_FREE) // 3))

    def _commit(self, changes: Sequence[Change], lsn: int, most: int) -> Deferred[None]:
        self._log_bytes += most
        done = self._writer.do(partial(commit, self._database, changes))
        return done.addCallbacks(self._written, _say_full, (changes,))

    def _written(self, _: None, changes: Sequence[Change]) -> None:
        for change in changes:
            stream = self._recent.get(change.id)
            if stream is not None and stream.recent is not None:
                # A creation without a body, or a close, has stored none of what is queued behind it.
                stream.stored = max(stream.stored, _end_of(change))
                self._recent.move_to_end(change.id)
                self._shorten(stream)
        self._forget_oldest()
        if self._log_bytes > _LOG_SIZE and not self._bringing_home:
            self._bring_home()

    def _bring_home(self) -> None:
        """Copy the write-ahead log into the tables: most of it beside the writer, then the rest in its turn."""
        self._bringing_home = True

        def over(outcome: object) -> None:
            self._bringing_home = False
            if isinstance(outcome, Failure):
                if not _is_full(outcome):
                    self.stop_writing(outcome)
                else:
                    self._log_bytes += size

        size = self._log_bytes
        self._log_bytes = 0
        if self._directory is None:
            self._bringing_home = False
            return
        self._readers.do(lambda: _checkpoint(self._connection())).addCallback(
            lambda _: self._writer.do(partial(_checkpoint, self._database))
        ).addBoth(over)

    def _discard(self, streams: Sequence[AcidStream]) -> None:
        for stream in streams:
            if self._recent.pop(stream.facts.id, None) is not None:
                self._recent_bytes -= stream.counted
        if not self._collecting:
            self._collect()

    def _collect(self) -> None:
        """Remove the rows of deleted streams, bit by bit, between the batches."""
        self._collecting = True

        def go_on(more: bool) -> None:
            self._collecting = False
            if more and self._closing is None and self._failed is None:
                self._collect()

        def not_now(failure: Failure) -> None:
            self._collecting = False
            if not _is_full(failure):
                self.stop_writing(failure)

        self._writer.do(partial(collect_leftovers, self._database)).addCallbacks(go_on, not_now)

    # Bytes in memory

    def _begin_recent(self, stream: AcidStream, start: int) -> Recent:
        self._recent[stream.facts.id] = stream
        stream.counted = 0
        return super()._begin_recent(stream, start)

    def _shorten(self, stream: AcidStream) -> None:
        recent = stream.recent
        assert recent is not None
        if len(recent.data) > _RECENT_OF_ONE:
            least = min(stream.stored, stream.tail - _RECENT_OF_ONE // 2)
            recent.drop(bisect_right(recent.ends, least))
        self._recent_bytes += len(recent.data) - stream.counted
        stream.counted = len(recent.data)
        if not recent.ends:
            self._forget_recent(stream)

    def _forget_oldest(self) -> None:
        while self._recent_bytes > _RECENT_OF_ALL:
            stream = next(iter(self._recent.values()))
            if stream.stored != stream.tail:
                return
            self._forget_recent(stream)

    def _forget_recent(self, stream: AcidStream) -> None:
        del self._recent[stream.facts.id]
        self._recent_bytes -= stream.counted
        stream.counted = 0
        stream.recent = None

    # Bytes in the database

    def _connection(self) -> sqlite3.Connection:
        """Give the calling reader's thread its own connection."""
        if self._directory is None:
            return self._database
        connection: sqlite3.Connection | None = getattr(self._here, "connection", None)
        if connection is None:
            connection = self._here.connection = connect(self._directory / DATABASE)
            connection.execute("PRAGMA synchronous = FULL")
            self._reading.append(connection)
        return connection

    def _query(self, statement: str, *parameters: int) -> list[tuple[Any, ...]]:
        key = (statement, parameters)
        rows: list[tuple[Any, ...]] | None = self._hand.get(key)
        if rows is None:
            self._fetch(key, lambda: self._connection().execute(statement, parameters).fetchall())
        return rows

    def _append_bounds(self, stream: AcidStream, position: int) -> tuple[int, int]:
        rows = self._query(
            "SELECT start, start + length(data) FROM appends WHERE stream = ? AND start <= ? "
            "ORDER BY start DESC LIMIT 1",
            stream.facts.id,
            position,
        )
        if not rows or rows[0][1] <= position:
            raise StorageDamaged(f"The stream {stream.facts.name} has no byte {position}, and had one once.")
        start, end = rows[0]
        return start, end

    def _last_end(self, stream: AcidStream, start: int, most: int) -> int:
        # An append ends where the next one begins.
        rows = self._query(
            "SELECT max(start), start + length(data) FROM appends WHERE stream = ? AND start <= ?",
            stream.facts.id,
            most,
        )
        first: int | None = rows[0][0]
        if first is None:
            return start
        end: int = rows[0][1]
        return max(start, end if end <= most else first)

    def _own_bytes(self, stream: AcidStream, start: int, end: int) -> bytes:
        rows = self._query(
            "SELECT substr(data, max(?2 - start, 0) + 1, ?3 - max(start, ?2)) FROM appends WHERE stream = ?1 "
            "AND start < ?3 AND start >= (SELECT max(start) FROM appends WHERE stream = ?1 AND start <= ?2) "
            "ORDER BY start",
            stream.facts.id,
            start,
            end,
        )
        data = b"".join([row[0] for row in rows])
        if len(data) != end - start:
            raise StorageDamaged(f"Bytes of the stream {stream.facts.name} are missing between {start} and {end}.")
        return data


def _end_of(change: Change) -> int:
    start: int = getattr(change, "start", getattr(change, "base", 0))
    return start + len(getattr(change, "data", b""))


def _checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _is_full(failure: Failure) -> bool:
    """Tell whether it was for want of room that nothing was done."""
    return getattr(failure.value, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _say_full(failure: Failure) -> Failure:
    if _is_full(failure):
        return Failure(InsufficientStorage("The disk is full. The server writes nothing until it is started again."))
    return failure
