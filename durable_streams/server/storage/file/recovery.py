"""What is found when a data directory is opened: the last checkpoint, and what the journal says has happened since.

It reads, and says what it makes of it. Nothing that is on the disk is changed by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from ..changes import Change
from ..disk import Disk
from ..ownership import StorageDamaged
from . import checkpoint as checkpoints
from .checkpoint import CheckpointEntry, Closing, MoreWriters
from .frames import (
    BATCH,
    BLOCK,
    CLOSING,
    ENTRIES,
    HEADER_SIZE,
    OPENING,
    WRITERS,
    Header,
    is_whole,
    padded,
    read_header,
)
from .journal import FOLDER, path_of
from .names import numbers_of

_changes: Final = msgspec.msgpack.Decoder(list[Change])
_entries: Final = msgspec.msgpack.Decoder(list[CheckpointEntry])
_writers: Final = msgspec.msgpack.Decoder(MoreWriters)
_closing: Final = msgspec.msgpack.Decoder(Closing)


class Unfinished(Struct, frozen=True):
    """The remains of a write that nobody was told of, at the end of a segment."""

    path: str
    position: int
    size: int


class Segment(Struct, frozen=True):
    """A segment: ``first`` is the LSN of its first change, ``end`` the position after its last frame."""

    number: int
    first: int
    end: int


class Replayed(Struct):
    """
    What the journal had.

    :ivar lsn: of the last change.
    :ivar last_number: the greatest number of a segment that there is.
    :ivar size: bytes of frames.
    :ivar unused: segments that were made ready, and never used.
    """

    lsn: int
    last_number: int = 0
    changes: int = 0
    size: int = 0
    segments: list[Segment] = []
    unused: list[str] = []
    unfinished: list[Unfinished] = []


def whole_file(disk: Disk, path: str) -> bytes:
    """Read all of a file."""
    file = disk.open(path)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def frames(data: bytes, number: int) -> Iterator[tuple[int, Header, bytes]]:
    """Read frames, one after the other, as far as they are whole and have this number."""
    position = 0
    while (found := _frame_at(data, position, number)) is not None:
        header, payload = found
        yield position, header, payload
        position += padded(HEADER_SIZE + header.size)


def opening_of(data: bytes) -> Header | None:
    """Read the opening of a journal segment, whose number all its other frames have; None, if it is not whole."""
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


def read_checkpoint(
    disk: Disk, take: Callable[[CheckpointEntry], None], take_writers: Callable[[MoreWriters], None]
) -> Closing | None:
    """
    Read the latest checkpoint.

    :param take: is given each stream in it.
    :param take_writers: is given the writers that do not fit the entry of their stream, after it.
    :returns: how it ends; None, if there is none.
    :raises StorageDamaged: it is not whole.
    """
    number = checkpoints.latest(disk)
    if number is None:
        return None
    path = checkpoints.path_of(number)
    count = 0
    for _, header, payload in frames(whole_file(disk, path), number):
        if header.magic == ENTRIES:
            for held in _entries.decode(payload):
                take(held)
                count += 1
        elif header.magic == WRITERS:
            take_writers(_writers.decode(payload))
        elif header.magic == CLOSING:
            closing = _closing.decode(payload)
            if closing.streams == count:
                return closing
            break
    raise StorageDamaged(
        f"The checkpoint {path} is not whole: {count} streams of it can be read. It was complete when it was written. "
        "Restore the data directory from a backup."
    )


def segment_numbers(disk: Disk) -> list[int]:
    """List the segments that there are."""
    return numbers_of(disk.names(FOLDER))


def replay(disk: Disk, start: int, first_lsn: int, apply: Callable[[Change, int], None]) -> Replayed:
    """
    Read the journal.

    :param start: the number of the segment that the first change is in, or of an earlier one.
    :param first_lsn: the number of the first change that is wanted, of which there may be none yet.
    :param apply: is given each change, with its number.
    :raises StorageDamaged: changes are missing that were on the disk once.
    """
    replayed = Replayed(first_lsn - 1)
    numbers = segment_numbers(disk)
    replayed.last_number = max(numbers, default=0)
    expected: int | None = None
    for number in numbers:
        if number < start:
            continue
        path = path_of(number)
        data = whole_file(disk, path)
        opening = opening_of(data)
        if opening is None:
            if data[BLOCK:].strip(b"\0"):
                raise StorageDamaged(f"The journal segment {path} has lost its beginning. Restore it from a backup.")
            replayed.unused.append(path)
            continue
        first = opening.first
        if expected is None and first > first_lsn:
            raise _missing(path, first_lsn, first)
        if expected is not None and first != expected:
            raise _missing(path, expected, first)
        last, end, changes = _replay_segment(data, path, opening, apply)
        _judge_rest(data, path, opening.number, end, last, replayed)
        replayed.segments.append(Segment(number, first, end))
        replayed.size += end
        replayed.changes += changes
        expected = last + 1
        replayed.lsn = max(replayed.lsn, last)
    if expected is None and start:
        raise StorageDamaged(
            f"The journal has no segment from number {start} on, and it is never without one. Restore it from a backup."
        )
    return replayed


def _missing(path: str, expected: int, first: int) -> StorageDamaged:
    return StorageDamaged(
        f"The journal segment {path} begins with change {first}, where {expected} comes next. What is between was on "
        "the disk once. Restore the missing segment from a backup."
    )


def _replay_segment(
    data: bytes, path: str, opening: Header, apply: Callable[[Change, int], None]
) -> tuple[int, int, int]:
    last = opening.first - 1
    end = BLOCK
    count = 0
    for position, header, payload in frames(data, opening.number):
        if not position:
            continue
        if header.magic != BATCH or header.first != last + 1:
            break
        changes = _changes.decode(payload)
        if len(changes) != header.last - header.first + 1:
            raise StorageDamaged(f"A batch in {path} at {position} does not have the changes that it names.")
        for lsn, change in enumerate(changes, header.first):
            apply(change, lsn)
        last = header.last
        count += len(changes)
        end = position + padded(HEADER_SIZE + header.size)
    return last, end, count


def _later_frames(data: bytes, number: int, position: int) -> Iterator[Header]:
    """Find whole frames anywhere after a place."""
    for place in range(position, len(data), BLOCK):
        if data[place : place + 2] == b"DS":
            found = _frame_at(data, place, number)
            if found is not None:
                yield found[0]


def _judge_rest(data: bytes, path: str, mark: int, end: int, last: int, replayed: Replayed) -> None:
    """
    Say what comes after the last batch that can be read: nothing, or the remains of a write that nobody was told of.

    :raises StorageDamaged: a later batch says that what should be here was on the disk when it was written.
    """
    rest = data[end:]
    if not rest.strip(b"\0"):
        return
    frontier = max((header.durable for header in _later_frames(data, mark, end)), default=0)
    if frontier > last:
        raise StorageDamaged(
            f"The journal segment {path} can't be read at {end}: changes up to {frontier} were on the disk, "
            f"and those up to {last} are left. Restore it from a backup."
        )
    replayed.unfinished.append(Unfinished(path, end, len(rest.rstrip(b"\0"))))
