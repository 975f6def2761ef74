"""The file storage: a journal that everything goes through, and the places where bytes come to rest."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final
from zlib import crc32

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import InsufficientStorage, StreamNotFound, Unavailable
from ...interfaces import IStorage
from ...model import StorageLimits
from ..changes import Change
from ..directory_watch import DirectoryWatch
from ..disk import Disk, RealDisk, is_full
from ..logged.storage import CommittedStorage
from ..logged.stream import Recent
from ..ownership import complete, take
from ..shortages import RETRY_INTERVAL, SHORT
from ..workers import ThreadWorker, Worker
from .files import OpenFiles
from .journal import SEGMENT_SIZES, Journal, NothingWritten
from .moving import Mover
from .opening import PARTS, Opened, open_directory
from .places import (
    STREAMS,
    Content,
    Index,
    Piece,
    data_path,
    index_path,
    is_piece,
    pack_path,
    read_piece,
    stream_folder,
)
from .stream import FileStream
from .verifying import (
    BLOCK,
    UNREADABLE,
    Blocks,
    Flaw,
    OwnFile,
    have_checksums,
    whole_appends,
    whole_part,
)

KIND: Final = "file"
VERSION: Final = 1

#: How long, in seconds, file-fast leaves to the operating system what it has answered.
SYNC_INTERVAL: Final = 0.1

_log = Logger()


class FileSettings(Struct, frozen=True, gc=False):
    """
    How the file storage goes about it.

    :ivar durable: whether an answer waits for the disk; else for the operating system only.
    :ivar queued_bytes: how much may wait to be written; what comes beyond that is refused.
    :ivar checkpoint_bytes: how much the journal may grow before a checkpoint is made.
    :ivar reclaim_bytes: how much packs may take beyond twice their live bytes before a checkpoint is made.
    :ivar most_behind_bytes: how much it may grow while it waits for one; what comes beyond that is refused.
    :ivar open_files: how many files stay open for reading.
    :ivar segment_sizes: how large journal segments are, and what is tried when the disk has no room for that.
    :ivar verify_reads: whether bytes that are read from disk are compared with their checksums before they are served.
    :ivar slice_streams: how many streams a checkpoint looks at before others get their turn.
    :ivar slice_bytes: how many bytes of entries it writes before others get their turn, about.
    """

    durable: bool = True
    queued_bytes: int = 67_108_864
    checkpoint_bytes: int = 67_108_864
    reclaim_bytes: int = 4_194_304
    most_behind_bytes: int = 536_870_912
    open_files: int = 128
    segment_sizes: tuple[int, ...] = SEGMENT_SIZES
    slice_streams: int = 128
    slice_bytes: int = 524_288
    verify_reads: bool = True


@implementer(IStorage)
class FileStorage(CommittedStorage[FileStream]):
    """
    Streams in a directory.

    :param directory: where they are; it is made, if it is not there.
    :param reactor: the time, and where the outcomes of threads are told.
    :param disk: None for the operating system's.
    :param workers: makes whoever writes, reads and moves, by name and number of hands; None for threads.
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
        self.settings = settings
        self._writer = workers("journal", 1)
        self._moving_worker = workers("checkpoint", 1)
        self._files = OpenFiles(self._disk, settings.open_files)
        self._blocks = Blocks()
        # The piece that was verified last, with its frame.
        self._last_piece: tuple[Piece, bytes] | None = None
        self._last_content: Content
        self._dirty: dict[int, FileStream] = {}
        self._journal: Journal
        self._mover: Mover
        self._opened = False
        self._watch = DirectoryWatch(self._disk, self._writer, reactor, self._where, self._queue.stop_moved)
        self._syncing: IDelayedCall | None = None
        # Whether a batch waits for a temporary shortage to pass.
        self._postponed = False
        self._to_discard: list[tuple[int, Sequence[FileStream]]] = []

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
                self._dirty[stream.facts.id] = stream
        self._last_id = opened.last_id
        self._queue.restart(opened.lsn)
        self._journal = Journal(
            self._disk,
            self._writer,
            self._clock.seconds,
            self.settings.durable,
            opened.next_segment,
            opened.lsn,
            self.settings.segment_sizes,
        )
        self._journal.refused = self._no_segment  # type: ignore[method-assign]
        self._journal.open()
        self._journal.kept_free = lambda: self._mover.room  # type: ignore[method-assign]
        self._mover = Mover(self, self._disk, self._files, self._journal, self._moving_worker, self._clock, opened)

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
            self.discard_durable()
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
        if self._mover.behind > self.settings.most_behind_bytes and not removal:
            # The last checkpoint may have failed, and no write comes that would begin another.
            self._mover.consider()
            raise Unavailable("The disk is behind with what it has taken. Come back in a moment.")
        return self._journal.check_room(size, self._queue.queued_bytes, removal)

    async def committed_and_synced(self) -> None:
        """Wait until all that was accepted so far is on the disk."""
        await self._queue.after(lambda: None)
        if not self.settings.durable:
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
            # Later changes rest on these, which can't be taken back.
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
        if not self.settings.durable and self._syncing is None:
            self._syncing = self._clock.callLater(SYNC_INTERVAL, self._sync)
        if self._to_discard:
            self.discard_durable()
        self._mover.consider()

    def _sync(self) -> None:
        self._syncing = None
        if self._queue.failure is None:
            self._journal.sync().addCallbacks(lambda _: self.discard_durable(), self._queue.stop)

    # Removal

    def _discard(self, streams: Sequence[FileStream]) -> None:
        for stream in streams:
            self._dirty.pop(stream.facts.id, None)
            self._blocks.forget(stream.facts.id)
        filed = [stream for stream in streams if stream.filed or stream.begun]
        if filed:
            self._to_discard.append((self._queue.committed_lsn, filed))
            self.discard_durable()
        self._mover.discard(streams)

    def stop_writing(self, failure: Failure) -> None:
        """Write nothing more until the storage is opened again."""
        self._queue.stop(failure)

    def discard_durable(self) -> None:
        """Take away the files of streams whose removal is on the disk."""
        durable = self._journal.durable_lsn
        while self._to_discard and self._to_discard[0][0] <= durable:
            self.remove_files(self._to_discard.pop(0)[1])

    def remove_files(self, streams: Sequence[FileStream]) -> None:
        """Take away streams' own files, in the background."""
        ids = [stream.facts.id for stream in streams]

        def work() -> None:
            for stream_id in ids:
                for path in (data_path(stream_id), index_path(stream_id)):
                    self._files.drop(path)
                    self._disk.remove(path)
            # The next checkpoint, which knows nothing of them any more, comes after this.
            folders = {f"{STREAMS}/{name}" for name in self._disk.names(STREAMS)}
            for folder in sorted(folders.intersection(map(stream_folder, ids))):
                self._disk.sync_folder(folder)

        self._moving_worker.do(work).addErrback(
            lambda failure: _log.warn(
                "The files of deleted streams could not be removed: {reason}. They are removed at the next start.",
                reason=failure.getErrorMessage(),
            )
        )

    # Bytes

    def _begin_recent(self, stream: FileStream, start: int) -> Recent:
        self._dirty[stream.facts.id] = stream
        return super()._begin_recent(stream, start)

    @property
    def dirty(self) -> dict[int, FileStream]:
        """The streams that have bytes in the journal only, by id."""
        return self._dirty.copy()

    @property
    def all_streams(self) -> list[FileStream]:
        """All streams, hidden ones too."""
        return list(self._streams.values())

    @property
    def newest_id(self) -> int:
        """The greatest id that a stream has had."""
        return self._last_id

    def settle(self, stream: FileStream) -> None:
        """Let go of the bytes in memory that have left the journal."""
        recent = stream.recent
        if recent is not None:
            recent.drop(bisect_right(recent.ends, stream.settled))
            if not recent.ends:
                stream.recent = None
                self._dirty.pop(stream.facts.id, None)

    def _look(self, stream: FileStream, path: str, position: int, size: int) -> bytes:
        key = (path, position, size)
        data: bytes | Flaw | None = self._hand.get(key)
        if data is None:
            try:
                data = self._files.read_now(path, position, size)
            except OSError as error:
                data = _unreadable(path, position, error)
        if data is None:
            self._fetch(key, partial(self._read_file, path, position, size))
        if isinstance(data, Flaw):
            self._refuse_damaged(stream, data.where, data.what)
        if len(data) != size:
            self._refuse_damaged(stream, f"{path} at {position}", f"the file ends before {position + size}")
        return data

    def _read_file(self, path: str, position: int, size: int) -> bytes | Flaw:
        try:
            return self._files.read(path, position, size)
        except FileNotFoundError:
            # What was in it may have another place by now, and then nobody asks for this again.
            return b""
        except OSError as error:
            return _unreadable(path, position, error)

    # Bytes in packs

    def _content(self, stream: FileStream, piece: Piece, start: int, end: int) -> Content:
        """Read a piece, and verify the appends that have the bytes from ``start`` to ``end``: all of them, or these."""
        path = pack_path(piece.pack)
        data = self._look(stream, path, piece.position, piece.frame)
        if self._last_piece == (piece, data):
            return self._last_content
        content = read_piece(data, piece.appends, piece.start)
        if self.settings.verify_reads and not is_piece(data, stream.facts.id, piece):
            part = whole_part(content, whole_appends(content, piece.end), start, end)
            if part is None:
                flaw = Flaw.of_checksum(path, piece.position, start, end)
                self._refuse_damaged(stream, flaw.where, flaw.what)
            return part
        # One read looks at a piece twice, and to compare bytes takes less than to compute their checksum.
        self._last_piece, self._last_content = (piece, data), content
        return content

    # Bytes in a stream's own file

    def _own_file(self, stream: FileStream) -> OwnFile:
        """Return a stream's own file, for a thread that may wait for the disk."""
        stream_id = stream.facts.id
        path = data_path(stream_id)
        return OwnFile(
            path,
            stream.base,
            stream.filed,
            Index(stream.filed_appends, partial(self._files.read, index_path(stream_id))),
            partial(self._files.read, path),
        )

    def _fetch_from_file(self, stream: FileStream, what: str, start: int, end: int) -> Any:
        """
        Return what a method of :class:`.OwnFile` returns.

        :raises NotYet: it is called in a thread first.
        """
        key = (what, stream.facts.id, stream.filed, start, end)
        found = self._hand.get(key)
        if found is None:
            work = partial(getattr(self._own_file(stream), what), start, end)
            path = data_path(stream.facts.id)

            def guarded() -> Any:
                try:
                    return work()
                except FileNotFoundError:
                    # Its stream is gone, or else that shows when this is taken again.
                    return Flaw(path, "the file is missing")
                except OSError as error:
                    return _unreadable(path, start - stream.base, error)

            self._fetch(key, guarded)
        if isinstance(found, Flaw):
            self._refuse_damaged(stream, found.where, found.what)
        return found

    def _append_in_file(self, stream: FileStream, position: int) -> tuple[int, int]:
        index = Index(stream.filed_appends, partial(self._look, stream, index_path(stream.facts.id)))
        number = bisect_right(index, position)
        if number < len(index):
            start = index[number - 1] if number else stream.base
            end, checksum = index.entry(number)
            if start <= position < end <= stream.base + stream.filed:
                stream_id = stream.facts.id
                if not self.settings.verify_reads or self._blocks.has_append(stream_id, start, end):
                    return start, end
                if end - start <= BLOCK and checksum == crc32(
                    self._look(stream, data_path(stream_id), start - stream.base, end - start)
                ):
                    self._blocks.add_append(stream_id, start, end)
                    return start, end
        found: tuple[int, int] = self._fetch_from_file(stream, "append_between", position, position + 1)
        self._blocks.add_append(stream.facts.id, *found)
        return found

    def _bytes_in_file(self, stream: FileStream, start: int, end: int) -> bytes:
        stream_id = stream.facts.id
        path = data_path(stream_id)
        low, high = start - stream.base, end - stream.base
        if not self.settings.verify_reads:
            return self._look(stream, path, low, high - low)
        known = self._blocks.known(stream_id, low, high)
        if known is None:
            first, entries = self._fetch_from_file(stream, "blocks", start, end)
            self._blocks.add(stream_id, first, entries)
            known = self._blocks.known(stream_id, low, high)
        if known is not None:
            edge = low // BLOCK * BLOCK
            data = self._look(stream, path, edge, (len(known) - 1) * BLOCK + (known[-1] >> 32))
            if have_checksums(data, known):
                return data[low - edge : high - edge]
            self._blocks.forget(stream_id)
        # Something in these blocks is damaged, or in the appends that they have parts of. These bytes may not be.
        found: bytes = self._fetch_from_file(stream, "bytes_between", start, end)
        return found

    # Bytes, wherever they are

    def _append_bounds(self, stream: FileStream, position: int) -> tuple[int, int]:
        if position < stream.base + stream.filed:
            return self._append_in_file(stream, position)
        for piece in stream.pieces:
            if position < piece.end:
                content = self._content(stream, piece, position, position + 1)
                ends = content.ends
                number = bisect_right(ends, position)
                return ends[number - 1] if number else content.start, ends[number]
        raise StreamNotFound(stream.facts.name)

    def _own_bytes(self, stream: FileStream, start: int, end: int) -> bytes:
        parts = []
        edge = stream.base + stream.filed
        if start < edge:
            stop = min(edge, end)
            parts.append(self._bytes_in_file(stream, start, stop))
            start = stop
        for piece in stream.pieces:
            if start < end and start < piece.end:
                stop = min(piece.end, end)
                content = self._content(stream, piece, start, stop)
                parts.append(content.data[start - content.start : stop - content.start])
                start = stop
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _unreadable(path: str, position: int, error: OSError) -> Flaw:
    """
    Describe what the disk can't read.

    :raises OSError: the error is of another kind.
    """
    if error.errno not in UNREADABLE:
        raise error
    return Flaw(f"{path} at {position}", f"bytes can't be read: {error.strerror}")


def _say_full(failure: Failure) -> Failure:
    """There was room for it, by what the file system has promised; there was not."""
    if is_full(failure.value):
        return Failure(InsufficientStorage("The disk is full. The server writes nothing until it is started again."))
    return failure
