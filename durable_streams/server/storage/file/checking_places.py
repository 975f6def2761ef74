"""Checks the bytes of streams: every append in packs and in streams' own files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ...model import FOREVER, StreamConfig
from ...protocol.content import DEFAULT_TYPE
from ..checksums import crc32
from ..disk import Disk, File
from ..entry import facts_of
from .frames import HEADER_SIZE, PIECE, read_header
from .names import numbers_of
from .places import (
    INDEX_ENTRY_SIZE,
    PACKS,
    STREAMS,
    Piece,
    data_path,
    index_path,
    is_piece,
    pack_path,
    read_index,
    read_piece,
    stream_id_of,
)
from .report import Report
from .stream import FileStream

#: How much is read at a time, in bytes.
_READ: Final = 1 << 20

#: How many entries of an index are read at a time.
_ENTRIES_AT_A_TIME: Final = 65_536


def check_packs(report: Report, streams: Sequence[FileStream], packs: dict[int, int]) -> None:
    """
    Check the appends that are in packs.

    :param packs: the packs that there should be, with their sizes.
    """
    wanted: dict[int, list[tuple[Piece, FileStream]]] = {number: [] for number in packs}
    for stream in streams:
        for piece in stream.pieces:
            wanted.setdefault(piece.pack, []).append((piece, stream))
    for number, pieces in sorted(wanted.items()):
        pieces.sort(key=lambda item: item[0].position)
        path = pack_path(number)
        file = report.open(path, f"It has bytes of {len(pieces)} streams, which come next.")
        if file is None:
            for piece, stream in pieces:
                report.damage(f"{path} at {piece.position}", _lost(stream, piece.start, piece.end, "are missing"))
            continue
        try:
            size = file.size()
            if size < packs.get(number, 0):
                report.damage(path, f"The pack has {size} of {packs[number]} bytes.")
            for piece, stream in pieces:
                _check_piece(report, path, file, piece, stream)
        finally:
            file.close()


def _lost(stream: FileStream, start: int, end: int, how: str) -> str:
    hidden = ", which was deleted and has forks," if stream.deleted else ""
    return f"Bytes {start} to {end} of the stream {stream.facts.name}{hidden} {how}."


def _check_piece(report: Report, path: str, file: File, piece: Piece, stream: FileStream) -> None:
    where = f"{path} at {piece.position}"
    try:
        data = file.read(piece.position, piece.frame)
    except OSError as error:
        report.unreadable(where, error)
        return
    report.looked_at(len(data))
    if len(data) < piece.frame:
        report.damage(where, _lost(stream, piece.start, piece.end, "are missing, or the last of them"))
        return
    content = read_piece(data, piece.appends, piece.start)
    whole = is_piece(data, stream.facts.id, piece)
    report.counts.frames += whole
    start = piece.start
    bad = 0
    for end, checksum in zip(content.ends, content.checksums, strict=True):
        if not start < end <= piece.end or (crc32(content.data[start - piece.start : end - piece.start]) != checksum):
            bad += 1
            report.damage(where, _lost(stream, start, end, "do not have their checksum"))
        start = end
    if not bad and (not whole or start != piece.end):
        report.damage(
            where,
            _lost(stream, piece.start, piece.end, "have their own checksums, but the piece that they are in has not"),
        )


def check_stream(report: Report, stream: FileStream) -> None:
    """Count a stream, and verify the appends in its own file."""
    counts = report.counts
    counts.streams += 1
    counts.bytes += stream.size
    counts.appends += stream.filed_appends + sum(piece.appends for piece in stream.pieces)
    if stream.recent is not None:
        counts.appends += len(stream.recent.ends)
    if not stream.filed:
        return
    lost = _lost(stream, stream.base, stream.base + stream.filed, "are in it, or told apart by it")
    data = report.open(data_path(stream.facts.id), lost)
    index = report.open(index_path(stream.facts.id), lost)
    try:
        if data is not None and index is not None:
            _OwnFileCheck(report, stream, data).check(index)
    finally:
        for file in (data, index):
            if file is not None:
                file.close()


class _OwnFileCheck:
    """The check of a stream's own file against its index."""

    def __init__(self, report: Report, stream: FileStream, data: File) -> None:
        self._report = report
        self._stream = stream
        self._data = data
        self._path = data_path(stream.facts.id)
        self._index_path = index_path(stream.facts.id)
        self._window = b""
        self._window_at = 0
        self._bad: tuple[int, int, int, int] | None = None

    def check(self, index: File) -> None:
        """Verify every append of the data file against the index."""
        stream = self._stream
        limit = stream.base + stream.filed
        try:
            size = self._data.size()
            if size < stream.filed:
                self._report.damage(self._path, _lost(stream, stream.base + size, limit, "are missing from its end"))
                limit = stream.base + size
            start = stream.base
            for number, end, checksum in self._entries(index):
                if end > limit and limit < stream.base + stream.filed:
                    return
                start = self._check_append(number, start, end, checksum, limit)
            if start < limit:
                self._tell_bad()
                self._report.damage(
                    f"{self._index_path} at {stream.filed_appends * INDEX_ENTRY_SIZE}",
                    _lost(stream, start, limit, "can't be told apart, nor proven: the index does not have them"),
                )
        except PermissionError:
            raise
        except OSError as error:
            self._report.unreadable(f"{self._path}, or {self._index_path}", error)
        finally:
            self._tell_bad()

    def _entries(self, index: File) -> Iterator[tuple[int, int, int]]:
        count = self._stream.filed_appends
        for first in range(0, count, _ENTRIES_AT_A_TIME):
            size = min(_ENTRIES_AT_A_TIME, count - first) * INDEX_ENTRY_SIZE
            data = index.read(first * INDEX_ENTRY_SIZE, size)
            self._report.looked_at(len(data))
            whole = len(data) // INDEX_ENTRY_SIZE
            for number, (end, checksum) in enumerate(read_index(data[: whole * INDEX_ENTRY_SIZE]), first):
                yield number, end, checksum
            if whole * INDEX_ENTRY_SIZE < size:
                self._report.damage(self._index_path, f"The index has {first + whole} of {count} appends.")
                return

    def _check_append(self, number: int, start: int, end: int, checksum: int, limit: int) -> int:
        """Verify the checksum of an append, and return the start of the next one."""
        if not start < end <= limit:
            self._tell_bad()
            self._report.damage(
                f"{self._index_path} at {number * INDEX_ENTRY_SIZE}",
                f"Append {number} of the stream {self._stream.facts.name} begins at {start}, and can't end at {end}.",
            )
            return start
        if self._checksum(start, end) == checksum:
            self._tell_bad()
        elif self._bad is None:
            self._bad = (start, end, number, number)
        else:
            self._bad = (self._bad[0], end, self._bad[2], number)
        return end

    def _checksum(self, start: int, end: int) -> int:
        checksum = 0
        base = self._stream.base
        while start < end:
            if not self._window_at <= start < self._window_at + len(self._window):
                self._window = self._data.read(start - base, _READ)
                self._window_at = start
                self._report.looked_at(len(self._window))
                if not self._window:
                    return -1
            part = self._window[start - self._window_at : end - self._window_at]
            checksum = crc32(part, checksum)
            start += len(part)
        return checksum

    def _tell_bad(self) -> None:
        """Report the run of damaged appends found so far as one finding."""
        if self._bad is not None:
            start, end, first, last = self._bad
            self._bad = None
            self._report.damage(
                f"{self._path} at {start - self._stream.base}",
                _lost(
                    self._stream,
                    start,
                    end,
                    f"do not have the checksums that {self._index_path} has for them, at {first * INDEX_ENTRY_SIZE} to "
                    f"{(last + 1) * INDEX_ENTRY_SIZE}: one or the other is not as it was written",
                ),
            )


# What nothing is known of


def check_unknown(report: Report, streams: Sequence[FileStream]) -> None:
    """Check packs and files that no readable checkpoint entry refers to."""
    known = {stream.facts.id for stream in streams}
    claimed: dict[int, set[int]] = {}
    for stream in streams:
        for piece in stream.pieces:
            claimed.setdefault(piece.pack, set()).add(piece.position)
    for number in numbers_of(report.disk.names(PACKS)):
        _check_unknown_pieces(report, number, claimed.get(number, set()))
    for stream_id in sorted(_filed(report.disk) - known):
        _check_unknown_file(report, stream_id)


def _stand_in(stream_id: int, start: int) -> FileStream:
    facts = facts_of(f"of the id {stream_id}", stream_id, stream_id, DEFAULT_TYPE)
    return FileStream(facts, StreamConfig(), FOREVER, start, 0.0)


def _check_unknown_pieces(report: Report, number: int, claimed: set[int]) -> None:
    path = pack_path(number)
    file = report.open(path, "")
    if file is None:
        return
    try:
        size = file.size()
        position = 0
        while position < size:
            found = read_header(file.read(position, HEADER_SIZE))
            header = None if found is None else found[0]
            if header is None or header.magic != PIECE or header.size > size - position - HEADER_SIZE:
                report.damage(f"{path} at {position}", "What follows there is no piece, or not all of one.")
                return
            if position not in claimed:
                piece = Piece(number, position, header.first, header.last - header.first, header.durable)
                if piece.frame == HEADER_SIZE + header.size:
                    _check_piece(report, path, file, piece, _stand_in(header.number, header.first))
                else:
                    report.damage(f"{path} at {position}", "The head of the piece there is not as it was written.")
            position += HEADER_SIZE + header.size
    except OSError as error:
        report.unreadable(path, error)
    finally:
        file.close()


def _filed(disk: Disk) -> set[int]:
    """Return the ids of the streams that have their own files."""
    found = set()
    for folder in disk.names(STREAMS):
        for name in disk.names(f"{STREAMS}/{folder}"):
            path = f"{STREAMS}/{folder}/{name}"
            stream_id = stream_id_of(path)
            if stream_id is not None and path == data_path(stream_id):
                found.add(stream_id)
    return found


def _check_unknown_file(report: Report, stream_id: int) -> None:
    data = report.open(data_path(stream_id), "")
    index = report.open(index_path(stream_id), f"Nothing tells the appends of the stream of the id {stream_id} apart.")
    try:
        if data is None or index is None:
            return
        appends = index.size() // INDEX_ENTRY_SIZE
        last = read_index(index.read((appends - 1) * INDEX_ENTRY_SIZE, INDEX_ENTRY_SIZE)) if appends else []
        size = data.size()
        # Only a fork begins elsewhere.
        stream = _stand_in(stream_id, max(0, last[0][0] - size) if last else 0)
        stream.filed, stream.filed_appends = size, appends
        _OwnFileCheck(report, stream, data).check(index)
    except OSError as error:
        report.unreadable(data_path(stream_id), error)
    finally:
        for file in (data, index):
            if file is not None:
                file.close()
