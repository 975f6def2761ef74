"""Writer of archives: streams to parts. It is pure: it reads no storage and writes no file."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from ...model import StreamRecord, WriterState
from ...protocol.lifetimes import render_timestamp
from .entries import ArchiveHeader, StreamEntry, WriterEntry, entry_of
from .layout import FORMAT, FORMAT_VERSION, HEADER_NAME, PART_BYTES, stream_folder
from .packing import DEFAULT_LEVEL, ArchiveTotals, PartPacker, rendered

#: How many writers are rendered at a time, and the size at which a part of writers is complete, in bytes.
_WRITERS_AT_ONCE: Final = 64
_WRITERS_BYTES: Final = PART_BYTES // 4


class ArchiveWriter:
    """
    A writer of one archive.

    Call :meth:`begin_stream` for each stream, a source before its forks; then :meth:`add_appends` until the stream's
    tail is reached; then :meth:`end_stream`. Call :meth:`finish` at the end, and :meth:`take` after any call.

    :param created_at: when the backup begins, in seconds since 1970.
    :param server_version: what made the archive.
    :param level: the level of compression, from 1 to 19.
    :ivar totals: of the complete streams so far.
    """

    def __init__(self, created_at: float, server_version: str, level: int = DEFAULT_LEVEL) -> None:
        created_at = max(0, int(created_at))
        self._packer = PartPacker(int(created_at), level)
        self.totals = ArchiveTotals()
        self._number = 0
        self._parts = 0
        self._appends = 0
        self._entry: StreamEntry | None = None
        header = ArchiveHeader(FORMAT, FORMAT_VERSION, server_version, render_timestamp(created_at))
        self._packer.add(HEADER_NAME, rendered(header))

    def begin_stream(self, record: StreamRecord) -> None:
        """Write a stream's record and its writers."""
        self._entry = entry_of(record)
        self._number += 1
        self._parts = self._appends = 0
        self._packer.add(f"{stream_folder(self._number)}/record.json", rendered(self._entry))
        for part in _writer_parts(record.writers):
            self._add("writers", part)

    def add_appends(self, sizes: Sequence[int], data: bytes) -> None:
        """
        Write the next appends of the stream.

        :param sizes: their sizes, at most :data:`.PART_APPENDS`.
        :param data: their bytes, at most :data:`.PART_BYTES` unless it is a single append. The bytes of an append that
            is larger may be written by :meth:`add_data`, all but the last :data:`.PART_BYTES` at a time.
        """
        self._appends += len(sizes)
        self._add("sizes", size_bytes(sizes))
        self.add_data(data)

    def add_data(self, data: bytes) -> None:
        """Write more bytes of an append."""
        for start in range(0, len(data), PART_BYTES):
            self._add("data", data[start : start + PART_BYTES])

    def end_stream(self) -> None:
        """Count the stream, of which all appends up to its tail were written."""
        assert self._entry is not None
        self.totals = self.totals.with_stream(self._entry, self._appends)
        self._entry = None

    def leave_stream_out(self) -> None:
        """Mark the stream, which was deleted while it was read, as incomplete: readers ignore it."""
        self._packer.add(f"{stream_folder(self._number)}/left-out", b"")
        self.totals = self.totals.with_incomplete_stream()
        self._entry = None

    def finish(self) -> None:
        """Write the end of the archive."""
        self._packer.finish(self.totals)

    def take(self) -> bytes:
        """Return the bytes of the archive since the last call."""
        return self._packer.take()

    def _add(self, kind: str, data: bytes) -> None:
        self._parts += 1
        self._packer.add(f"{stream_folder(self._number)}/{kind}-{self._parts:08d}", data)


def size_bytes(sizes: Iterable[int]) -> bytes:
    """Render the sizes of appends: 8 bytes each, the least significant first."""
    numbers = array("Q", sizes)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _writer_parts(writers: dict[str, WriterState]) -> Iterable[bytes]:
    """Render the writers in slices, each a JSON array."""
    items = iter(writers.items())
    rows: list[bytes] = []
    size = 0
    while page := list(islice(items, _WRITERS_AT_ONCE)):
        entries: list[WriterEntry] = [(writer_id, state.epoch, state.seq, state.seen) for writer_id, state in page]
        rows.append(msgspec.json.encode(entries)[1:-1])
        size += len(rows[-1])
        if size >= _WRITERS_BYTES:
            yield b"[" + b",".join(rows) + b"]"
            rows.clear()
            size = 0
    if rows:
        yield b"[" + b",".join(rows) + b"]"
