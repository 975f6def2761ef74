"""Chunks: immutable rows with consecutive bytes of a stream, and where appends end in them."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from ..checksums import crc32

#: The maximum size of a chunk, in bytes. A longer append has several chunks.
MAX_CHUNK: Final = 1 << 20


class StoredChunk(Struct, frozen=True):
    """
    Consecutive bytes of a stream, in one row that never changes.

    :ivar start: the position of the first byte.
    :ivar first: where the append begins that has the first byte; less than ``start`` if the append has earlier chunks.
    :ivar ends: the positions at which appends end in it, ascending, as ``array("Q")`` or another sequence.
    :ivar data: the bytes, at least one.
    """

    start: int
    first: int
    ends: Sequence[int]
    data: bytes

    @property
    def finish(self) -> int:
        """The position after the last byte."""
        return self.start + len(self.data)

    def append_start(self, position: int) -> int:
        """
        Return where the append with the byte at a position begins; the position itself if it is a boundary of appends.

        :param position: from ``start`` to ``finish``.
        """
        index = bisect_right(self.ends, position)
        return self.ends[index - 1] if index else self.first

    def append_end(self, position: int) -> int | None:
        """Return the first end of an append after a position, or None if no append ends after it in this chunk."""
        index = bisect_right(self.ends, position)
        return self.ends[index] if index < len(self.ends) else None


def encode_ends(start: int, ends: Iterable[int]) -> bytes:
    """Return the column of the ends: their distances from the chunk's start, 32 bits each, little-endian."""
    packed = array("I", [end - start for end in ends])
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def decode_ends(start: int, column: bytes) -> Sequence[int]:
    """
    Return the positions from the column of the ends.

    :raises ValueError: the column's length is not a multiple of 4.
    """
    packed = array("I", column)
    if sys.byteorder == "big":
        packed.byteswap()
    return array("Q", [start + distance for distance in packed])


def checksum_of(start: int, first: int, ends: bytes, data: bytes) -> int:
    """
    Return the checksum of a chunk: CRC-32 of its data, then of its ends and both positions.

    :param ends: as :func:`encode_ends` returns them.
    """
    return crc32(b"%d %d" % (start, first), crc32(ends, crc32(data)))


def decode_chunk(
    start: int, finish: int, first: int, ends: bytes, checksum: int, data: bytes, verify: bool = True
) -> StoredChunk | None:
    """
    Return a chunk from the columns of its row, or None if they are not as they were written.

    :param verify: whether to compare the checksum; the lengths are compared in any case.
    """
    if finish - start != len(data) or len(ends) % 4:
        return None
    if verify and checksum_of(start, first, ends, data) != checksum:
        return None
    return StoredChunk(start, first, decode_ends(start, ends), data)


#: The columns of a chunk: its start, first, ends, checksum and data.
ChunkRow: TypeAlias = tuple[int, int, bytes, int, bytes]


def split(start: int, first: int, appends: Sequence[bytes], max_size: int = MAX_CHUNK) -> list[ChunkRow]:
    """
    Put appends, in order, into as few chunks as their maximum size allows.

    :param start: the position of the first append's first byte.
    :param first: where the append begins that has that byte; ``start``, unless it continues an earlier one.
    :returns: the start, first, ends, checksum and data of each chunk, as its row has them.
    """
    if len(appends) == 1 and 0 < len(appends[0]) <= max_size:
        packed = encode_ends(start, [start + len(appends[0])])
        return [(start, first, packed, checksum_of(start, first, packed, appends[0]), appends[0])]
    rows: list[ChunkRow] = []
    parts: list[bytes] = []
    ends: list[int] = []
    size = 0
    place = start

    def finish_chunk() -> None:
        nonlocal start, first, size
        data = b"".join(parts)
        packed = encode_ends(start, ends)
        rows.append((start, first, packed, checksum_of(start, first, packed, data), data))
        start += len(data)
        first = ends[-1] if ends else first
        parts.clear()
        ends.clear()
        size = 0

    for append in appends:
        if size and size + len(append) > max_size:
            finish_chunk()
        view = memoryview(append)
        for begin in range(0, len(append), max_size):
            part = view[begin : begin + max_size]
            if size and size + len(part) > max_size:
                finish_chunk()
            parts.append(bytes(part))
            size += len(part)
        place += len(append)
        if append:
            ends.append(place)
    if parts:
        finish_chunk()
    return rows
