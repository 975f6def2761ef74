"""The acid storage: an SQLite database with one writer thread and several reader threads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from ...clocks import clock_of
from ...errors import StreamsError, Unavailable
from ...interfaces import IStorage
from ...model import StorageLimits
from ..directory_watch import DirectoryWatch
from ..disk import RealDisk
from ..frontier import Frontier
from ..logged.content import DiskReads
from ..logged.storage import LoggedStorage
from ..ownership import StorageDamaged, StorageError, complete, is_complete, take
from ..workers import ThreadWorker, Worker
from .content import AcidContent
from .loading import load
from .log import AcidLog
from .rollback import reason_of
from .schema import DATABASE, DIRECTORY_VERSION, KIND, PARTS, check_frontier, connect, prepare, sync_log
from .stream import AcidStream

_log = Logger()


@implementer(IStorage)
class AcidStorage(LoggedStorage[AcidStream]):
    """
    Streams in SQLite.

    :param directory: the data directory; None for a database in memory, which ends with the process.
    :param reactor: the clock, and where results of threads are delivered.
    :param limits: writes that exceed them are refused.
    :param queued_bytes: how many bytes of changes may be queued; more are refused.
    :param workers: makes a worker from a name and a number of threads; None for real threads.
    :param verify_reads: whether bytes are compared with their checksums before they are served.
    """

    _kind: ClassVar[str] = KIND

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
        reads = DiskReads(reactor, readers, _read_refusal)
        self._readers = readers
        self._stored = AcidContent(reads, self._connection, verify_reads)
        self._log = AcidLog(
            clock_of(reactor),
            self._writer,
            readers,
            self._stored,
            self._connection,
        )
        super().__init__(limits, reactor, AcidStream, self._log, reads, self._stored, queued_bytes)
        self._log.queue, self._log.catalogue = self._queue, self._catalogue
        self._directory = None if directory is None else Path(directory)
        self._disk: RealDisk | None = None
        self._watch: DirectoryWatch | None = None
        self._database: sqlite3.Connection
        self._here = threading.local()
        self._reading: list[sqlite3.Connection] = []
        self._opened = False

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
            self._log.open(self._database)
        else:
            self._disk = RealDisk(self._directory)
            where = str(self._directory)
            self._watch = DirectoryWatch(self._disk, self._writer, self._clock, where, self._queue.stop_moved)
            take(self._disk, KIND, DIRECTORY_VERSION, where, PARTS)
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
                # SQLite would create it readable by other users.
                disk.open(DATABASE, new=True).close()
                disk.sync_folder("")
            check_frontier(disk, path)
            self._database = connect(path)
            try:
                prepare(self._database, new)
                loaded = load(self._database, self._clock.seconds(), self._catalogue.wall_offset)
                self._catalogue.load(loaded.streams, loaded.last_id, loaded.values)
                self._queue.restart(loaded.lsn)
                frontier = Frontier(disk)
                frontier.open()
                frontier.secure(0, loaded.lsn)
                self._log.open(self._database, disk, frontier)
            except BaseException:
                self._database.close()
                raise
        except (sqlite3.DatabaseError, StorageDamaged) as error:
            if reason_of(error) is not None:
                raise StorageError(f"The database {path} can't be opened: {error}. {_remedy(error)}") from None
            what = str(error).rstrip(".")
            raise StorageError(
                f"The database {path} can't be opened: {what}. Run durable-streams-server check for details, or "
                "restore it from a backup."
            ) from None
        except StorageError as error:
            raise StorageError(f"The database {path} can't be opened. {error}") from None
        _log.info(
            "Loaded {streams} streams from {where} in {seconds:.1f} s.",
            streams=len(self._catalogue.streams),
            where=str(path),
            seconds=monotonic() - began_at,
        )

    def _begin_by_itself(self) -> None:
        if self._watch is not None:
            self._watch.start()
        self._log.collect()

    def _close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._let_go())

    async def _let_go(self) -> None:
        self._log.resume()
        if self._watch is not None:
            self._watch.stop()
        await self._writer.do(lambda: None)
        self._readers.close()
        for connection in self._reading:
            connection.close()
        if self._opened:
            await self._log.sync()
        self._writer.close()
        if self._opened:
            self._log.close()
            if self._disk is not None:
                self._disk.unlock()

    def _discard(self, streams: Sequence[AcidStream]) -> None:
        super()._discard(streams)
        self._log.collect()

    # The readers

    def _connection(self) -> sqlite3.Connection:
        """Return the connection of the calling reader thread."""
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
