"""Reading of frames from checkpoints and journal segments that may be damaged, and the summary of a journal."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from ..disk import Disk
from .frames import BLOCK, HEADER_SIZE, OPENING, Header, is_whole, padded, read_header
from .journal import FOLDER
from .names import numbers_of


class UnfinishedWrite(Struct, frozen=True):
    """The remains of an unfinished, unacknowledged write at the end of a segment."""

    path: str
    position: int
    size: int


class SegmentSummary(Struct, frozen=True):
    """A segment: ``first`` is the LSN of its first change, ``end`` the position after its last frame."""

    number: int
    first: int
    end: int


class JournalSummary(Struct):
    """
    The result of reading the journal.

    :ivar lsn: of the last change.
    :ivar last_number: the greatest number of a segment that there is.
    :ivar size: bytes of frames.
    :ivar unused: segments that were made ready, and never used.
    """

    lsn: int
    last_number: int = 0
    changes: int = 0
    size: int = 0
    segments: list[SegmentSummary] = []
    unused: list[str] = []
    unfinished: list[UnfinishedWrite] = []


def whole_file(disk: Disk, path: str) -> bytes:
    """Read all of a file."""
    file = disk.open(path)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def end_of_data(data: bytes, start: int = 0) -> int:
    """Return the position after the last byte that is not zero; ``start`` if there is none. It copies little."""
    end = len(data)
    while end > start:
        first = max(start, end - 64 * BLOCK)
        rest = data[first:end].rstrip(b"\0")
        if rest:
            return first + len(rest)
        end = first
    return start


def opening_of(data: bytes) -> Header | None:
    """Return the header of a journal segment's opening frame, or None if that frame is damaged."""
    found = _frame_at(data, 0, None)
    return found[0] if found is not None and found[0].magic == OPENING else None


def _frame_at(data: bytes, position: int, number: int | None) -> tuple[Header, bytes] | None:
    head = data[position : position + HEADER_SIZE]
    found = read_header(head)
    if found is None or found[0].size > len(data) - position - HEADER_SIZE:
        return None
    if number is not None and found[0].number != number:
        return None
    header, checksum = found
    payload = data[position + HEADER_SIZE : position + HEADER_SIZE + header.size]
    return (header, payload) if is_whole(head, checksum, payload) else None


def whole_frames(data: bytes, number: int | None) -> Iterator[tuple[int, Header, bytes]]:
    """
    Yield the undamaged frames of a file, and skip damaged ones.

    :param number: the number that they have; None, if it is not known.
    """
    position = 0
    # The magic of every frame begins with these bytes: runs of zeros are skipped at the speed of `find`.
    while (at := data.find(b"DS", position)) >= 0:
        position = padded(at)
        if position != at:
            continue
        found = _frame_at(data, position, number)
        if found is None:
            position += BLOCK
        else:
            header, payload = found
            yield position, header, payload
            position = padded(position + HEADER_SIZE + header.size)


def broken_frame(data: bytes, position: int) -> tuple[Header, bytes] | None:
    """Return the header and payload of a damaged frame, or None if it has no valid header."""
    found = read_header(data[position : position + HEADER_SIZE])
    if found is None:
        return None
    start = position + HEADER_SIZE
    return found[0], data[start : start + found[0].size]


def segment_numbers(disk: Disk) -> list[int]:
    """Return the numbers of the existing segments."""
    return numbers_of(disk.names(FOLDER))
