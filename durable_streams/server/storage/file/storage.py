"""The file storage: changes are written to a journal, and checkpoints move their bytes to packs and own files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import InsufficientStorage, Unavailable
from ...interfaces import IStorage
from ...model import StorageLimits
from ..changes import Change
from ..directory_watch import DirectoryWatch
from ..disk import Disk, RealDisk, is_full
from ..logged.content import DiskReads
from ..logged.storage import LoggedStorage
from ..ownership import complete, take
from ..shortages import RETRY_INTERVAL, SHORT
from ..workers import ThreadWorker, Worker
from .content import FileContent
from .files import OpenFiles
from .journal import Journal, NothingWritten
from .moving import Mover, Subject
from .opening import PARTS, Opened, open_directory
from .settings import FileSettings
from .stream import FileStream

KIND: Final = "file"
VERSION: Final = 1

#: After how many seconds file-fast syncs what it has acknowledged.
SYNC_INTERVAL: Final = 0.1

_log = Logger()


@implementer(IStorage)
class FileStorage(LoggedStorage[FileStream]):
    """
    Streams in a directory.

    :param directory: the data directory; created if it does not exist.
    :param reactor: the clock, and where results of threads are delivered.
    :param disk: the file system; None for the operating system's.
    :param workers: makes a worker from a name and a number of threads; None for real threads.
    """

    kind: ClassVar[str] = KIND

    def __init__(
        self,
        directory: str | Path,
        reactor: Any,
        limits: StorageLimits = StorageLimits(),  # noqa: B008 (frozen)
        settings: FileSettings = FileSettings(),  # noqa: B008 (frozen)
        disk: Disk | None = None,
        workers: Callable[[str, int], Worker] | None = None,
    ) -> None:
        if workers is None:
            workers = partial(ThreadWorker, reactor)
        super().__init__(limits, reactor, FileStream, workers("reader", 4), settings.queued_bytes)
        self._where = str(directory)
        self._disk: Disk = RealDisk(directory) if disk is None else disk
        self._settings = settings
        self._writer = workers("journal", 1)
        self._moving_worker = workers("checkpoint", 1)
        self._files = OpenFiles(self._disk, settings.open_files)
        reads = DiskReads(reactor, self._readers)
        self._stored = FileContent(reads, self._disk, self._files, self._moving_worker, settings.verify_reads)
        self._bring(reads, self._stored)
        self._journal: Journal
        self._mover: Mover
        self._opened = False
        self._watch = DirectoryWatch(self._disk, self._writer, reactor, self._where, self._queue.stop_moved)
        self._syncing: IDelayedCall | None = None
        # Whether a batch waits for a temporary shortage to pass.
        self._postponed = False

    # Opening and closing

    def load(self) -> None:
        """
        Load the data directory.

        :raises StorageError: the directory cannot be loaded; the message says why and what to do.
        :raises OSError: a system call failed.
        """
        if self._opened:
            return
        take(self._disk, KIND, VERSION, self._where, PARTS)
        try:
            self._load(open_directory(self._disk, self._where, self._clock.seconds(), self.wall_offset))
            complete(self._disk)
        except BaseException:
            self._disk.unlock()
            raise
        self._opened = True

    def _load(self, opened: Opened) -> None:
        for stream in opened.streams:
            stream.show()
            self._enter(stream)
            if stream.recent is not None:
                self._stored.track(stream)
        self._last_id = opened.last_id
        self._queue.restart(opened.lsn)
        self._journal = Journal(
            self._disk,
            self._writer,
            self._clock.seconds,
            self._settings.durable,
            opened.next_segment,
            opened.lsn,
            self._settings.segment_sizes,
        )
        self._journal.refused = self._no_segment  # type: ignore[method-assign]
        self._journal.open()
        self._journal.kept_free = lambda: self._mover.room  # type: ignore[method-assign]
        self._mover = Mover(
            Subject(
                self._stored,
                lambda: list(self._streams.values()),
                lambda: self._last_id,
                lambda: self.wall_offset,
                self._sync_accepted,
                self._discard_durable,
                self._queue.stop,
            ),
            self._settings,
            self._disk,
            self._files,
            self._journal,
            self._moving_worker,
            self._clock,
            opened,
        )

    def _begin_by_itself(self) -> None:
        self._watch.start()
        if self._mover.behind:
            self._mover.start_soon()

    def _close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._let_go())

    async def _let_go(self) -> None:
        if not self._opened:
            for worker in (self._readers, self._moving_worker, self._writer):
                worker.close()
            return
        self._watch.stop()
        await self._mover.stop()
        if self._syncing is not None:
            self._syncing.cancel()
            self._syncing = None
        if self._queue.failure is None:
            try:
                await self._journal.sync()
            except OSError:
                self._queue.stop(Failure())
            self._discard_durable()
        await self._moving_worker.do(lambda: None)
        for worker in (self._readers, self._moving_worker, self._writer):
            worker.close()
        self._journal.close()
        self._files.close()
        self._disk.unlock()

    # The journal

    def _check_room(self, size: int, removal: bool) -> int:
        if self._postponed:
            raise Unavailable(SHORT)
        if self._mover.behind > self._mover.settings.most_behind_bytes and not removal:
            # If the last checkpoint failed, no accepted write will start another.
            self._mover.consider()
            raise Unavailable("The disk is behind with what it has taken. Come back in a moment.")
        return self._journal.check_room(size, self._queue.queued_bytes, removal)

    async def _sync_accepted(self) -> None:
        """Wait until all changes accepted so far are committed and synced."""
        await self._queue.after(lambda: None)
        if not self._settings.durable:
            await self._journal.sync()

    def _no_segment(self, failure: Failure) -> Deferred[None] | None:
        if is_full(failure.value):
            return self._mover.make_room()
        self._queue.stop(failure)
        return None

    def _commit(self, changes: Sequence[Change], lsn: int, max_bytes: int) -> Deferred[None]:
        written = self._journal.write(changes, lsn, max_bytes)
        return written.addCallbacks(self._wrote, self._not_written, errbackArgs=(changes, lsn, max_bytes))

    def _not_written(
        self, failure: Failure, changes: Sequence[Change], lsn: int, max_bytes: int
    ) -> Failure | Deferred[None]:
        if failure.check(NothingWritten) and self._closing is None:
            # Later changes depend on these, which can't be rolled back.
            if not self._postponed:
                _log.warn(
                    "Writing the journal is postponed until a shortage has passed: {why}", why=failure.getErrorMessage()
                )
            self._postponed = True
            waited: Deferred[None] = deferLater(self._clock, RETRY_INTERVAL)
            return waited.addCallback(lambda _: self._commit(changes, lsn, max_bytes))
        return _say_full(failure)

    def _wrote(self, _: None) -> None:
        self._postponed = False
        if not self._settings.durable and self._syncing is None:
            self._syncing = self._clock.callLater(SYNC_INTERVAL, self._sync)
        self._discard_durable()
        self._mover.consider()

    def _sync(self) -> None:
        self._syncing = None
        if self._queue.failure is None:
            self._journal.sync().addCallbacks(lambda _: self._discard_durable(), self._queue.stop)

    # Removal

    def _discard(self, streams: Sequence[FileStream]) -> None:
        self._stored.discard(streams, self._queue.committed_lsn)
        self._discard_durable()
        self._mover.discard(streams)

    def _discard_durable(self) -> None:
        """Remove the files of streams whose removal is on the disk."""
        self._stored.remove_durable(self._journal.durable_lsn)


def _say_full(failure: Failure) -> Failure:
    """Replace the error of a full disk, which can occur although room was reserved, with one for writers."""
    if is_full(failure.value):
        return Failure(InsufficientStorage("The disk is full. The server writes nothing until it is started again."))
    return failure
