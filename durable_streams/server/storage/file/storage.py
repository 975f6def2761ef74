"""The file storage: changes are written to a journal, and checkpoints move their bytes to packs and own files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ...clocks import clock_of
from ...interfaces import IFileRanges, IPacedWrites, IStorage, NowOrLater
from ...model import FileRange, StorageFigures, StorageLimits, StreamFacts
from ..changes import StreamInstalled, ValuesWritten
from ..directory_watch import DirectoryWatch
from ..disk import Disk, RealDisk
from ..logged.content import DiskReads
from ..logged.storage import LoggedStorage
from ..ownership import complete, raise_version, take
from ..workers import ThreadWorker, Worker
from .checkpointer import Checkpointer, Subject
from .content import FileContent
from .files import OpenFiles
from .log import FileLog
from .opening import PARTS, LoadedDirectory, open_directory
from .settings import FileSettings
from .stream import FileStream

KIND: Final = "file"

#: The format of a new directory, and that of a directory with a change of a later kind. The first such change raises
#: the format, so that earlier versions can open a directory that has none.
NEW_VERSION: Final = 1
VERSIONS: Final = {StreamInstalled: 2, ValuesWritten: 3}

#: The latest format that this version knows.
VERSION: Final = max(VERSIONS.values())


@implementer(IStorage, IFileRanges, IPacedWrites)
class FileStorage(LoggedStorage[FileStream]):
    """
    Streams in a directory.

    :param directory: the data directory; created if it does not exist.
    :param reactor: the clock, and where results of threads are delivered.
    :param limits: writes that exceed them are refused.
    :param settings: tuning.
    :param disk: the file system; None for the operating system's.
    :param workers: makes a worker from a name and a number of threads; None for real threads.
    """

    _kind: ClassVar[str] = KIND

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
        self._where = str(directory)
        self._disk: Disk = RealDisk(directory) if disk is None else disk
        self._settings = settings
        self._workers = readers, mover, writer = workers("reader", 4), workers("checkpoint", 1), workers("journal", 1)
        self._files = OpenFiles(self._disk, settings.open_files)
        reads = DiskReads(reactor, readers)
        self._stored = FileContent(reads, self._disk, self._files, mover, settings.verify_reads)
        self._log = FileLog(self._disk, writer, clock_of(reactor), settings, self._stored.remove_durable)
        super().__init__(limits, reactor, FileStream, self._log, reads, self._stored, settings.queued_bytes)
        self._log.queue = self._queue
        self._checkpointer: Checkpointer
        self._opened = False
        self._watch = DirectoryWatch(self._disk, writer, reactor, self._where, self._queue.stop_moved)

    def figures(self) -> StorageFigures:
        figures = super().figures()
        return replace(figures, unsynced_changes=self._log.unsynced_changes) if self._opened else figures

    def congested(self) -> bool:
        return self._opened and self._checkpointer.press()

    # Sending from files

    def file_range(self, facts: StreamFacts, start: int, end: int) -> NowOrLater[FileRange | None]:
        return self._attempt(self._find_file_range, facts.name, facts, start, end)

    def _find_file_range(self, _: str, facts: StreamFacts, start: int, end: int) -> FileRange | None:
        stream = self._catalogue.same_stream(facts)
        owner, stop = stream.owner(start)
        recent = owner.recent
        if recent is not None:
            stop = min(stop, recent.start)
        return self._stored.file_range(owner, start, min(stop, end))

    # Opening and closing

    def load(self) -> None:
        """
        Load the data directory.

        :raises StorageError: the directory cannot be loaded; the message says why and what to do.
        :raises OSError: a system call failed.
        """
        if self._opened:
            return
        version = take(self._disk, KIND, VERSION, self._where, PARTS, NEW_VERSION)
        try:
            self._load(open_directory(self._disk, self._where, self._clock.seconds(), self._catalogue.wall_offset))
            complete(self._disk)
        except BaseException:
            self._disk.unlock()
            raise
        self._log.version = version
        self._log.raise_version = partial(raise_version, self._disk, KIND)
        self._opened = True

    def _prepare_log_for(self, kind: type[StreamInstalled | ValuesWritten]) -> None:
        self._log.require_version(VERSIONS[kind])

    def _load(self, opened: LoadedDirectory) -> None:
        for stream in opened.streams:
            stream.show()
            if stream.recent is not None:
                self._stored.track(stream)
        self._catalogue.load(opened.streams, opened.last_id, opened.values)
        self._queue.restart(opened.lsn)
        self._log.open(opened)
        self._checkpointer = Checkpointer(
            Subject(
                self._catalogue,
                self._stored,
                self._log.sync_accepted,
                self._log.discard_durable,
                self._queue.stop,
            ),
            self._settings,
            self._disk,
            self._files,
            self._log.journal,
            self._workers[1],
            self._clock,
            opened,
        )
        self._log.checkpointer = self._checkpointer

    def _begin_by_itself(self) -> None:
        self._watch.start()
        if self._checkpointer.behind:
            self._checkpointer.start_soon()

    def _close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._let_go())

    async def _let_go(self) -> None:
        if not self._opened:
            for worker in self._workers:
                worker.close()
            return
        self._watch.stop()
        await self._checkpointer.stop()
        await self._log.sync()
        await self._workers[1].do(lambda: None)
        for worker in self._workers:
            worker.close()
        self._log.close()
        self._files.close()
        self._disk.unlock()

    def _discard(self, streams: Sequence[FileStream]) -> None:
        super()._discard(streams)
        self._log.discard_durable()
        self._checkpointer.discard(streams)
