"""Reader of archives: parts to streams. It writes nothing, and keeps one part, or one append, at a time."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import BinaryIO, TypeAlias

from msgspec import Struct

from ...errors import EmptyArray, InvalidJson
from ...protocol.content import media_type
from ...protocol.messages import wire_form
from ...protocol.names import NameLimits
from .entries import ArchiveHeader, StreamEntry, WriterEntry, parse_time, read_header, read_stream, read_writers
from .errors import ArchiveInvalid, ArchiveTooLarge
from .layout import PART_APPENDS, PART_BYTES, TRAILER_BYTES, ZSTD_MAGIC, parse_trailer, stream_folder
from .name_table import NameTable
from .packing import ArchiveTotals
from .unpacking import CUT_OFF, NOT_AN_ARCHIVE, Part, PartReader, Readable


class ArchiveLimits(Struct, frozen=True, gc=False):
    """
    What a reader accepts.

    :ivar max_bytes: the maximum size of the unpacked archive; None for no limit.
    :ivar max_append_bytes: the maximum size of one append, which is in memory as a whole.
    :ivar max_writers: the maximum number of idempotent producers of one stream, which are in memory together.
    :ivar names: the limits of stream names.
    """

    max_bytes: int | None = None
    max_append_bytes: int = 67_108_864
    max_writers: int = 1_000_000
    names: NameLimits = NameLimits(65_536, 1_024)


class StreamStart(Struct, frozen=True, gc=False):
    """The beginning of a stream."""

    number: int
    entry: StreamEntry


class WriterSlice(Struct, frozen=True, gc=False):
    """Some of the stream's writers."""

    writers: list[WriterEntry]


class AppendSlice(Struct, frozen=True, gc=False):
    """The next appends of the stream: their sizes, and their bytes one after the other."""

    sizes: array[int]
    data: bytes


class StreamEnd(Struct, frozen=True, gc=False):
    """The end of a stream; ``complete`` is false if it was deleted during the backup and is to be ignored."""

    entry: StreamEntry
    complete: bool


Event: TypeAlias = "StreamStart | WriterSlice | AppendSlice | StreamEnd"


class ArchiveReader:
    """
    A reader of one archive.

    :param source: the archive, from its beginning.
    :param check_messages: whether to validate the messages of JSON streams.
    :ivar header: the first part, after the first event, or the end, was read.
    :ivar totals: of the complete streams so far.
    """

    header: ArchiveHeader

    def __init__(self, source: Readable, limits: ArchiveLimits = ArchiveLimits(), check_messages: bool = True) -> None:  # noqa: B008 (frozen)
        self._reader = PartReader(source, limits.max_bytes)
        self._limits = limits
        self._check_messages = check_messages
        self._names = NameTable(columns=2)
        self.totals = ArchiveTotals()

    @property
    def position(self) -> int:
        """How many bytes of the file were read."""
        return self._reader.position

    def events(self) -> Iterator[Event]:
        """
        Yield the streams. Only after the last event the archive is known to be whole.

        :raises ArchiveInvalid: the archive is damaged, incomplete or impossible.
        """
        parts = self._reader.parts()
        self.header = read_header(next(parts).data)
        if parse_time(self.header) != self._reader.modified_at:
            raise ArchiveInvalid("The archive's parts have another time than archive.json. Use another copy.")
        stream: _StreamParts | None = None
        number = 0
        for part in parts:
            if part.name == f"{stream_folder(number + 1)}/record.json":
                if stream is not None:
                    yield self._end(stream)
                number += 1
                stream = self._start(part)
                yield StreamStart(number, stream.entry)
            elif stream is None:
                raise ArchiveInvalid(f"The archive's part {part.name!r} is not in its place.")
            else:
                yield from stream.read(part, stream_folder(number))
        if stream is not None:
            yield self._end(stream)
        if self.totals != self._reader.manifest.totals:
            raise ArchiveInvalid("The archive's manifest does not count what the archive has.")

    def _start(self, part: Part) -> _StreamParts:
        entry = read_stream(part.data, part.name, self._limits.names)
        kind = _kind(entry)
        if entry.source is not None:
            source = self._names.get(entry.source)
            if source is None:
                raise ArchiveInvalid(
                    f"The archive has the fork {entry.name} before its source {entry.source}, or without it."
                )
            if source[0] < entry.base or source[1] != kind:
                raise ArchiveInvalid(
                    f"The archive's fork {entry.name} does not fit its source {entry.source}: it begins after the "
                    "source's end, or has another content type."
                )
        if not self._names.add(entry.name, entry.tail, kind):
            raise ArchiveInvalid(f"The archive has the stream {entry.name} twice.")
        return _StreamParts(entry, self._limits, entry.json and self._check_messages)

    def _end(self, stream: _StreamParts) -> StreamEnd:
        entry = stream.entry
        stream.check_complete()
        if stream.complete:
            self.totals = self.totals.with_stream(entry, stream.appends)
        else:
            # No fork can have it as its source.
            self._names.put(entry.name, 0, 0)
            self.totals = self.totals.with_incomplete_stream()
        return StreamEnd(entry, stream.complete)


def _kind(entry: StreamEntry) -> int:
    """Return a hash of the media type, which a fork has in common with its source."""
    return int.from_bytes(blake2b(media_type(entry.content_type).encode(), digest_size=8).digest())


class _StreamParts:
    """The parts of one stream, in their order: writers, then sizes of appends, each with its data."""

    def __init__(self, entry: StreamEntry, limits: ArchiveLimits, check_messages: bool) -> None:
        self.entry = entry
        self._limits = limits
        self._check_messages = check_messages
        self._parts = 0
        self._writers = 0
        self._writer_ids: NameTable | None = None
        self._position = entry.base
        self._sizes: array[int] | None = None
        self._data = bytearray()
        self._missing = 0
        self.appends = 0
        self.complete = True
        if entry.writers > limits.max_writers:
            raise ArchiveTooLarge(
                f"The archive's stream {entry.name} has {entry.writers} producers; the limit is {limits.max_writers}."
            )

    def read(self, part: Part, folder: str) -> Iterator[Event]:
        """Read the next part."""
        if self.complete and part.name == f"{folder}/left-out" and not part.data:
            self.complete = False
            return
        self._parts += 1
        kind = part.name.removeprefix(f"{folder}/").removesuffix(f"-{self._parts:08d}")
        if part.name != f"{folder}/{kind}-{self._parts:08d}" or not self.complete:
            kind = ""
        if kind == "writers" and self._writers < self.entry.writers:
            yield self._read_writers(part)
        elif kind == "sizes" and self._writers == self.entry.writers and self._sizes is None:
            self._read_sizes(part)
        elif kind == "data" and self._sizes is not None:
            yield from self._read_data(part, self._sizes)
        else:
            raise ArchiveInvalid(f"The archive's part {part.name!r} is not in its place.")

    def _read_writers(self, part: Part) -> WriterSlice:
        writers = read_writers(part.data, part.name)
        if self._writer_ids is None:
            self._writer_ids = NameTable()
        self._writers += len(writers)
        new = [self._writer_ids.add(writer[0]) for writer in writers]
        if not new or not all(new) or self._writers > self.entry.writers:
            raise ArchiveInvalid(f"The archive's part {part.name} has a producer twice, none, or too many.")
        return WriterSlice(writers)

    def _read_sizes(self, part: Part) -> None:
        sizes = array("Q")
        if not part.data or len(part.data) % 8 or len(part.data) > 8 * PART_APPENDS:
            raise ArchiveInvalid(f"The archive's part {part.name} is not a list of sizes.")
        sizes.frombytes(part.data)
        if sys.byteorder == "big":
            sizes.byteswap()
        total = sum(sizes)
        if not all(sizes) or total > self.entry.tail - self._position or (total > PART_BYTES and len(sizes) > 1):
            raise ArchiveInvalid(f"The archive's part {part.name} has sizes that do not fit the stream.")
        if total > self._limits.max_append_bytes:
            raise ArchiveTooLarge(
                f"The archive's stream {self.entry.name} has an append of {total} bytes; the limit is "
                f"{self._limits.max_append_bytes}. Raise the limit if such an append is expected."
            )
        self._sizes = sizes
        self._missing = total

    def _read_data(self, part: Part, sizes: array[int]) -> Iterator[AppendSlice]:
        if len(part.data) != min(self._missing, PART_BYTES):
            raise ArchiveInvalid(f"The archive's part {part.name} has {len(part.data)} bytes, which are not all.")
        self._missing -= len(part.data)
        data = part.data
        if self._missing or self._data:
            self._data += data
        if self._missing:
            return
        if self._data:
            data = bytes(self._data)
            self._data = bytearray()
        if self._check_messages:
            self._check_json(sizes, data)
        self.appends += len(sizes)
        self._position += len(data)
        self._sizes = None
        yield AppendSlice(sizes, data)

    def _check_json(self, sizes: Sequence[int], data: bytes) -> None:
        start = 0
        for size in sizes:
            messages = data[start : start + size]
            start += size
            try:
                if wire_form(b"[" + messages[:-1] + b"]") == messages:
                    continue
                fault = "it is not in the form that is stored"
            except (InvalidJson, EmptyArray) as error:
                fault = str(error)
            raise ArchiveInvalid(
                f"The archive's stream {self.entry.name} has an append before position {self._position + start} that "
                f"is not JSON: {fault}"
            )

    def check_complete(self) -> None:
        """
        Check that all parts of the stream were there.

        :raises ArchiveInvalid: some are missing.
        """
        if self.complete and (self._position != self.entry.tail or self._writers != self.entry.writers):
            raise ArchiveInvalid(f"The archive's stream {self.entry.name} is incomplete.")


def check_ends(source: BinaryIO) -> int:
    """
    Check the first and the last bytes of a file, and go back to its beginning.

    :param source: a seekable file.
    :raises ArchiveInvalid: it is cut off, or not an archive.
    :returns: the size of the file, in bytes.
    """
    source.seek(0)
    if not source.read(len(ZSTD_MAGIC)).startswith(ZSTD_MAGIC):
        raise ArchiveInvalid(NOT_AN_ARCHIVE)
    size = source.seek(0, 2)
    source.seek(max(0, size - TRAILER_BYTES))
    trailer = parse_trailer(source.read(TRAILER_BYTES))
    if trailer is None or trailer.packed_bytes != size - TRAILER_BYTES:
        raise ArchiveInvalid(CUT_OFF)
    source.seek(0)
    return size


def verify_archive(source: Readable, limits: ArchiveLimits = ArchiveLimits()) -> tuple[ArchiveHeader, ArchiveTotals]:  # noqa: B008 (frozen)
    """
    Read an archive and check everything in it. It needs no server, and blocks until it has read the whole archive.

    :param source: the archive, from its beginning: a file, or a pipe.
    :raises ArchiveInvalid: it is damaged, incomplete or impossible.
    :raises OSError: it cannot be read.
    :returns: what made it and when, and what it has.
    """
    reader = ArchiveReader(source, limits)
    for _ in reader.events():
        pass
    return reader.header, reader.totals
