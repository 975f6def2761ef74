"""The bytes of streams on disk: in packs of many streams, and in files of their own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import islice, pairwise
from typing import Any

from twisted.logger import Logger

from ...errors import StreamNotFound
from ...model import FileRange
from ..checksums import crc32
from ..disk import Disk
from ..logged.content import DiskReads
from ..workers import Worker
from .files import OpenFiles
from .places import (
    STREAMS,
    AppendRun,
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
    Flaw,
    OwnFile,
    VerifiedBlocks,
    have_checksums,
    whole_appends,
    whole_part,
)

_log = Logger()


class FileContent:
    """
    The bytes of streams that have left memory, and which streams have bytes in the journal only.

    :param worker: the thread that changes files.
    :param verify: whether bytes are compared with their checksums before they are served.
    """

    def __init__(self, reads: DiskReads, disk: Disk, files: OpenFiles, worker: Worker, verify: bool) -> None:
        self._reads = reads
        self._disk = disk
        self._files = files
        self._worker = worker
        self._verify = verify
        self._blocks = VerifiedBlocks()
        # For what is verified and then sent from the file.
        self._buffer = memoryview(bytearray())
        # The piece that was verified last, with its frame.
        self._last_piece: tuple[Piece, bytes] | None = None
        self._last_content: AppendRun
        self._dirty: dict[int, FileStream] = {}
        # Removed streams that have files, with the LSN that must be durable before the files are removed.
        self._to_remove: list[tuple[int, Sequence[FileStream]]] = []
        self.log_damage = reads.log_damage

    # Streams that have bytes in the journal only

    def track(self, stream: FileStream) -> None:
        """See :class:`.logged.content.Content`."""
        self._dirty[stream.facts.id] = stream

    @property
    def dirty(self) -> dict[int, FileStream]:
        """The streams that have bytes in the journal only, by id."""
        return self._dirty.copy()

    def settle(self, stream: FileStream) -> None:
        """Discard the bytes in memory that a checkpoint has moved out of the journal."""
        recent = stream.recent
        if recent is not None:
            recent.drop(bisect_right(recent.ends, stream.settled))
            if not recent.ends:
                stream.recent = None
                self._dirty.pop(stream.facts.id, None)

    # Removal

    def discard(self, streams: Sequence[FileStream], lsn: int) -> None:
        """
        Discard the data of removed streams.

        :param lsn: their files are removed when the change with this LSN is durable.
        """
        for stream in streams:
            self._dirty.pop(stream.facts.id, None)
            self._blocks.forget(stream.facts.id)
        filed = [stream for stream in streams if stream.filed or stream.begun]
        if filed:
            self._to_remove.append((lsn, filed))

    def remove_durable(self, lsn: int) -> None:
        """Remove the files of streams whose removal is durable, which it is up to this LSN."""
        while self._to_remove and self._to_remove[0][0] <= lsn:
            self.remove_files(self._to_remove.pop(0)[1])

    def remove_files(self, streams: Sequence[FileStream]) -> None:
        """Remove the own files of streams in the background."""
        ids = [stream.facts.id for stream in streams]

        def work() -> None:
            for stream_id in ids:
                for path in (data_path(stream_id), index_path(stream_id)):
                    self._files.drop(path)
                    self._disk.remove(path)
            # The next checkpoint, which does not list them, is made after this.
            folders = {f"{STREAMS}/{name}" for name in self._disk.names(STREAMS)}
            for folder in sorted(folders.intersection(map(stream_folder, ids))):
                self._disk.sync_folder(folder)

        self._worker.do(work).addErrback(
            lambda failure: _log.warn(
                "The files of deleted streams could not be removed: {reason}. They are removed at the next start.",
                reason=failure.getErrorMessage(),
            )
        )

    # Reading

    def _look(self, stream: FileStream, path: str, position: int, size: int) -> bytes:
        key = (path, position, size)
        data: bytes | Flaw | None = self._reads.hand.get(key)
        if data is None:
            try:
                data = self._files.read_now(path, position, size)
            except OSError as error:
                data = _unreadable(path, position, error)
        if data is None:
            self._reads.fetch(key, partial(self._read_file, path, position, size))
        if isinstance(data, Flaw):
            self._reads.refuse_damaged(stream, data.where, data.what)
        if len(data) != size:
            self._reads.refuse_damaged(stream, f"{path} at {position}", f"the file ends before {position + size}")
        return data

    def _read_file(self, path: str, position: int, size: int) -> bytes | Flaw:
        try:
            return self._files.read(path, position, size)
        except FileNotFoundError:
            # Its bytes may have moved meanwhile; then this is not read again.
            return b""
        except OSError as error:
            return _unreadable(path, position, error)

    # Bytes in packs

    def _content(self, stream: FileStream, piece: Piece, start: int, end: int) -> AppendRun:
        """Read a piece of a pack, and verify at least the appends that contain the bytes from ``start`` to ``end``."""
        path = pack_path(piece.pack)
        data = self._look(stream, path, piece.position, piece.frame)
        if self._last_piece == (piece, data):
            return self._last_content
        content = read_piece(data, piece.appends, piece.start)
        if self._verify and not is_piece(data, stream.facts.id, piece):
            part = whole_part(content, whole_appends(content, piece.end), start, end)
            if part is None:
                flaw = Flaw.of_checksum(path, piece.position, start, end)
                self._reads.refuse_damaged(stream, flaw.where, flaw.what)
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
        Call a method of :class:`.OwnFile` in a thread, and return its result.

        :raises NotYet: it is called in a thread first.
        """
        key = (what, stream.facts.id, stream.filed, start, end)
        found = self._reads.hand.get(key)
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

            self._reads.fetch(key, guarded)
        if isinstance(found, Flaw):
            self._reads.refuse_damaged(stream, found.where, found.what)
        return found

    def _append_in_file(self, stream: FileStream, position: int) -> tuple[int, int]:
        index = Index(stream.filed_appends, partial(self._look, stream, index_path(stream.facts.id)))
        number = bisect_right(index, position)
        if number < len(index):
            start = index[number - 1] if number else stream.base
            end, checksum = index.entry(number)
            if start <= position < end <= stream.base + stream.filed:
                stream_id = stream.facts.id
                if not self._verify or self._blocks.has_append(stream_id, start, end):
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
        if not self._verify:
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

    def _is_verified(self, stream: FileStream, path: str, start: int, end: int) -> bool:
        """
        Compare a range in the page cache with the known checksums of its blocks, without keeping its bytes.

        :returns: False if the disk must be read, a checksum is not known, or the bytes are damaged.
        """
        low = start - stream.base
        known = self._blocks.known(stream.facts.id, low, end - stream.base)
        if known is None:
            return False
        size = (len(known) - 1) * BLOCK + (known[-1] >> 32)
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        view = self._buffer[:size]
        try:
            return self._files.fill_now(path, view, low // BLOCK * BLOCK) and have_checksums(view, known)
        except OSError:
            return False

    # Bytes, wherever they are

    def place(self, stream: FileStream, position: int) -> tuple[int, int]:
        """See :class:`.logged.content.Content`."""
        if position < stream.base + stream.filed:
            return self._append_in_file(stream, position)
        for piece in stream.pieces:
            if position < piece.end:
                content = self._content(stream, piece, position, position + 1)
                ends = content.ends
                number = bisect_right(ends, position)
                return ends[number - 1] if number else content.start, ends[number]
        raise StreamNotFound(stream.facts.name)

    def ends(self, stream: FileStream, position: int, max_count: int) -> Sequence[int]:
        """See :class:`.logged.content.Content`."""
        if position < stream.base + stream.filed:
            return self._ends_in_file(stream, position, max_count)
        for piece in stream.pieces:
            if position < piece.end:
                ends = self._content(stream, piece, position, piece.end).ends
                return ends[bisect_right(ends, position) :]
        raise StreamNotFound(stream.facts.name)

    def _ends_in_file(self, stream: FileStream, position: int, max_count: int) -> list[int]:
        path = index_path(stream.facts.id)
        edge = stream.base + stream.filed
        index = Index(stream.filed_appends, partial(self._look, stream, path))
        first = bisect_right(index, position)
        ends = [end for end, _ in islice(index.entries(first), max_count)]
        if not ends or any(end >= later for end, later in pairwise([position, *ends])) or ends[-1] > edge:
            self._reads.refuse_damaged(stream, path, f"the ends of appends after {position} are not ascending")
        return ends

    def read(self, stream: FileStream, start: int, end: int) -> bytes:
        """See :class:`.logged.content.Content`."""
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

    def file_range(self, stream: FileStream, start: int, end: int) -> FileRange | None:
        """
        Find the beginning of a range of a stream's own bytes in its own file, and verify it.

        :raises NotYet: the disk must be read.
        :raises DataDamaged: an append that has one of the bytes is not as it was written.
        """
        size = min(end, stream.base + stream.filed) - start
        if size <= 0:
            return None
        path = data_path(stream.facts.id)
        if not (self._verify and self._is_verified(stream, path, start, start + size)):
            self._bytes_in_file(stream, start, start + size)
        return FileRange(size, partial(self._files.send, path, start - stream.base, size))


def _unreadable(path: str, position: int, error: OSError) -> Flaw:
    """
    Return the flaw for bytes that the disk cannot read.

    :raises OSError: the error is of another kind.
    """
    if error.errno not in UNREADABLE:
        raise error
    return Flaw(f"{path} at {position}", f"bytes can't be read: {error.strerror}")
