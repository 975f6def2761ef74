"""Verification of appends as they are read from disk: in a stream's own file by its index, in a pack by the frame.

A read takes any range of a stream, and a checksum is an append's, which may have one byte or a hundred million. So
appends are verified once, and a CRC-32 is computed meanwhile for each block of the file. Later reads compare blocks.
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from ..checksums import crc32
from .places import AppendRun, Index

#: The errors for unreadable parts of a file; btrfs and ZFS detect flipped bits themselves.
UNREADABLE: Final = frozenset([errno.EIO, errno.EBADMSG, errno.EUCLEAN])

#: The bytes of a block of a stream's own file. A read is extended to whole blocks at both of its ends.
BLOCK: Final = 16_384

#: How many bytes, and at most how many appends, are verified past the requested range.
_AHEAD: Final = 1 << 20
_APPENDS_AHEAD: Final = 16_384

#: How many bytes are read at a time while appends are verified.
_WINDOW: Final = 16 * BLOCK

#: How many blocks are known of all files together, at eight bytes each: those of 8 GiB.
_MAX_BLOCKS: Final = 1 << 19

#: How many appends are known of all files together.
_MAX_APPENDS: Final = 4096


class Flaw(Struct, frozen=True, gc=False):
    """
    A place of damaged bytes.

    :ivar where: the file, and the position in it.
    :ivar what: which bytes of the stream, and what is wrong with them.
    """

    where: str
    what: str

    @classmethod
    def of_checksum(cls, path: str, position: int, start: int, end: int) -> Flaw:
        """Return the flaw for bytes with a wrong checksum; ``position`` is that in the file."""
        return cls(f"{path} at {position}", f"bytes {start} to {end} do not have their checksum")


class VerifiedBlocks:
    """
    A bounded cache of the checksums of verified blocks and of the places of verified appends.

    A file only grows, so that they stay true. The last block of a file may be a part of one.
    """

    def __init__(self, max_blocks: int = _MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._count = 0
        # By stream: for each block its size in the upper half and its checksum in the lower; 0, if it is not known.
        self._files: OrderedDict[int, array[int]] = OrderedDict()
        self._appends: OrderedDict[tuple[int, int, int], None] = OrderedDict()

    def known(self, stream_id: int, start: int, end: int) -> array[int] | None:
        """
        Return the known blocks that contain the bytes from ``start`` to ``end`` of a file.

        :returns: for each, its size in the upper half and its checksum in the lower; None, if one is not known.
        """
        blocks = self._files.get(stream_id)
        if blocks is None:
            return None
        self._files.move_to_end(stream_id)
        last = (end - 1) // BLOCK
        found = blocks[start // BLOCK : last + 1]
        if len(found) <= last - start // BLOCK or 0 in found or found[-1] >> 32 < end - last * BLOCK:
            return None
        if any(entry >> 32 != BLOCK for entry in found[:-1]):
            return None
        return found

    def add(self, stream_id: int, first: int, entries: array[int]) -> None:
        """Record blocks that follow each other; ``first`` is the number of the first."""
        blocks = self._files.get(stream_id)
        if blocks is None:
            blocks = self._files[stream_id] = array("Q")
        missing = first + len(entries) - len(blocks)
        if missing > 0:
            blocks.frombytes(bytes(8 * missing))
            self._count += missing
        blocks[first : first + len(entries)] = entries
        while self._count > self._max_blocks and len(self._files) > 1:
            self.forget(next(iter(self._files)))

    def forget(self, stream_id: int) -> None:
        """Drop the entries of a file."""
        self._count -= len(self._files.pop(stream_id, ()))

    def has_append(self, stream_id: int, start: int, end: int) -> bool:
        """Return whether an append from ``start`` to ``end`` of a stream was verified."""
        key = (stream_id, start, end)
        if key not in self._appends:
            return False
        self._appends.move_to_end(key)
        return True

    def add_append(self, stream_id: int, start: int, end: int) -> None:
        """Record that a stream has an append from ``start`` to ``end``."""
        self._appends[stream_id, start, end] = None
        if len(self._appends) > _MAX_APPENDS:
            self._appends.popitem(last=False)


class OwnFile:
    """
    A stream's own file, as it is read by a thread that may wait for the disk.

    :param base: the position in the stream of its first byte.
    :param filed: how many bytes of it count.
    :param index: where its appends end.
    :param read: reads some of the file, by position and size; less, if there is less.
    """

    def __init__(self, path: str, base: int, filed: int, index: Index, read: Callable[[int, int], bytes]) -> None:
        self._path = path
        self._base = base
        self._edge = base + filed
        self._index = index
        self._read = read

    def _entries_from(self, position: int) -> Iterator[tuple[int, int, int]]:
        """Yield the start, end and checksum of each append, beginning with the one that contains ``position``."""
        index = self._index
        number = bisect_right(index, position)
        start = index[number - 1] if number else self._base
        for end, checksum in index.entries(number):
            yield start, end, checksum
            start = end

    def blocks(self, start: int, end: int) -> tuple[int, array[int]]:
        """
        Verify appends, and compute the checksums of the blocks that contain the bytes from ``start`` to ``end``.

        :returns: the number of the first block, and the entries of :class:`VerifiedBlocks`: up to the first damaged
            append, or some more than needed.
        """
        base, edge = self._base, self._edge
        first = (start - base) // BLOCK
        wanted = min(edge, base + -((base - end) // BLOCK) * BLOCK)
        ahead = min(edge, end + _AHEAD)
        found = array("Q")
        try:
            verified = self._scan(base + first * BLOCK, wanted, ahead, found)
        except IndexError:
            return first, array("Q")
        whole = 0
        for entry in found:
            if base + (first + whole) * BLOCK + (entry >> 32) > verified:
                break
            whole += 1
        return first, found[:whole]

    def _scan(self, start: int, wanted: int, ahead: int, blocks: array[int]) -> int:
        """
        Read from the beginning of a block, and return the end of the last undamaged append.

        :param blocks: is given the entries of the blocks that were read on the way.
        """
        base = self._base
        entries = self._entries_from(start)
        position, append_end, checksum = next(entries)
        verified = position
        count = crc = 0
        while verified < ahead:
            if not position < append_end <= self._edge:
                return verified
            low = position
            high = min((low - base) // _WINDOW * _WINDOW + _WINDOW + base, self._edge)
            data = self._read(low - base, high - low)
            if len(data) < high - low:
                return verified
            whole = True
            with memoryview(data) as view:
                while append_end <= high:
                    whole = position < append_end and crc32(view[position - low : append_end - low], crc) == checksum
                    if not whole:
                        break
                    verified = position = append_end
                    crc = 0
                    count += 1
                    entry = next(entries, None)
                    if entry is None:
                        break
                    _, append_end, checksum = entry
                if position < high:
                    crc = crc32(view[position - low :], crc)
                    position = high
                for block in range(max(low, start), high, BLOCK):
                    size = min(BLOCK, high - block)
                    blocks.append(size << 32 | crc32(view[block - low : block - low + size]))
            if not whole or high == self._edge or (verified >= wanted and count > _APPENDS_AHEAD):
                break
        return verified

    def bytes_between(self, start: int, end: int) -> bytes | Flaw:
        """Read the bytes from ``start`` to ``end``, and verify the appends that contain them."""
        parts = []
        position = start
        try:
            for append_start, append_end, checksum in self._entries_from(start):
                if not append_start <= position < append_end <= self._edge:
                    break
                crc = 0
                for low in range(append_start, append_end, _WINDOW):
                    data = self._read(low - self._base, min(_WINDOW, append_end - low))
                    crc = crc32(data, crc)
                    parts.append(data[max(position - low, 0) : max(end - low, 0)])
                if crc != checksum:
                    return self._flaw(append_start, append_end)
                position = append_end
                if position >= end:
                    return b"".join(parts)
        except IndexError:
            pass
        return self._flaw(position, end)

    def append_between(self, start: int, end: int) -> tuple[int, int] | Flaw:
        """Verify the append that contains the bytes from ``start`` to ``end``, and return its start and end."""
        data = self.bytes_between(start, end)
        if isinstance(data, Flaw):
            return data
        first, stop, _ = next(self._entries_from(start))
        return first, stop

    def _flaw(self, start: int, end: int) -> Flaw:
        return Flaw.of_checksum(self._path, start - self._base, start, end)


def have_checksums(data: bytes | memoryview, blocks: array[int]) -> bool:
    """Return whether the blocks in ``data`` have the checksums of ``blocks``."""
    with memoryview(data) as view:
        return all(
            crc32(view[place : place + (entry >> 32)]) == entry & 0xFFFFFFFF
            for place, entry in zip(range(0, len(data), BLOCK), blocks, strict=True)
        )


def whole_appends(content: AppendRun, end: int) -> list[tuple[int, int]]:
    """
    Verify the appends of a piece one by one, and return the start and end of each undamaged one.

    :param end: where the last of them ends.
    """
    found = []
    start = position = content.start
    for append_end, checksum in zip(content.ends, content.checksums, strict=False):
        if position <= start < append_end <= end:
            data = content.data[start - content.start : append_end - content.start]
            if len(data) == append_end - start and crc32(data) == checksum:
                found.append((start, append_end))
                position = append_end
        start = append_end
    return found


def whole_part(content: AppendRun, whole: list[tuple[int, int]], start: int, end: int) -> AppendRun | None:
    """
    Return the undamaged appends of a damaged piece that contain the bytes from ``start`` to ``end``.

    :param whole: what :func:`whole_appends` has found.
    :returns: None, if one of these appends is damaged.
    """
    ends, checksums = AppendRun.no_numbers("Q"), AppendRun.no_numbers("I")
    first = position = -1
    for append_start, append_end in whole:
        if append_start <= start < append_end:
            first = position = append_start
        if append_start == position < end:
            data = content.data[append_start - content.start : append_end - content.start]
            ends.append(append_end)
            checksums.append(crc32(data))
            position = append_end
    if position < end or first < 0:
        return None
    return AppendRun(first, content.data[first - content.start : position - content.start], ends, checksums)


def with_damage_kept(content: AppendRun, end: int) -> AppendRun:
    """
    Return a damaged piece's content for a move; damaged parts get a wrong checksum, so that they stay detectable.

    :param end: where the piece ends.
    """
    ends, checksums = AppendRun.no_numbers("Q"), AppendRun.no_numbers("I")
    position = content.start
    for append_start, append_end in [*whole_appends(content, end), (end, end)]:
        for first, stop, wrong in ((position, append_start, 0xFFFFFFFF), (append_start, append_end, 0)):
            if first < stop:
                ends.append(stop)
                checksums.append(crc32(content.data[first - content.start : stop - content.start]) ^ wrong)
        position = append_end
    return AppendRun(content.start, content.data, ends, checksums)
