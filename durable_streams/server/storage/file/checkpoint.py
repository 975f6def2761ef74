"""A checkpoint: the state of the catalogue at a moment. Later changes are in the journal.

While it is made, the server goes on. Streams are written down one after the other, each with the number of the last
change that it had by then; when the journal is replayed on top, a change that a stream has had already is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from ...model import Lifetime, StreamConfig, WriterState
from ..disk import Disk, File
from .frames import CLOSING, ENTRIES, VALUES, WRITERS, Header, frame, frame_size
from .names import name_of, numbers_of
from .places import Piece

FOLDER: Final = "checkpoint"
_NEW: Final = ".new"

encode: Final = msgspec.msgpack.Encoder().encode


class CheckpointEntry(Struct, array_like=True, gc=False):
    """
    A stream's entry in a checkpoint.

    :ivar used_at: when its lifetime began to count.
    :ivar lsn: the number of the last change that is in this.
    :ivar filed: how many bytes are in its own file, from ``base`` on.
    :ivar filed_appends: of how many appends these are.
    :ivar pieces: the appends that come after, in packs. What comes after these is in the journal.
    """

    id: int
    name: str
    incarnation: int
    content_type: str
    config: StreamConfig
    lifetime: Lifetime
    source: int | None
    base: int
    tail: int
    closed: bool
    deleted: bool
    sequence: bytes | None
    writers: dict[str, WriterState] | None
    created_at: float
    updated_at: float
    used_at: float
    lsn: int
    filed: int
    filed_appends: int
    pieces: tuple[Piece, ...]


class MoreWriters(Struct, array_like=True, gc=False):
    """Writers of a stream whose entry comes before, and does not have all of them."""

    stream: int
    writers: dict[str, WriterState]


class CheckpointEnd(Struct, array_like=True, gc=False):
    """
    The last frame of a checkpoint.

    :ivar streams: how many there are in it.
    :ivar segment: the number of the journal segment from which on to replay.
    :ivar lsn: the number of the first change in that segment.
    :ivar last_id: the greatest id that a stream has had.
    :ivar packs: the packs that have pieces, by number, with their sizes in bytes.
    :ivar values: how many values there are in it.
    :ivar values_lsn: the LSN of the last change of values that may be in it, as far as it is in the journal.
    """

    streams: int
    segment: int
    lsn: int
    last_id: int
    packs: dict[int, int]
    values: int = 0
    values_lsn: int = 0


def path_of(number: int) -> str:
    """Return the path of a checkpoint's file."""
    return f"{FOLDER}/{name_of(number)}"


def numbers(disk: Disk) -> list[int]:
    """List the checkpoints that are complete."""
    return numbers_of(disk.names(FOLDER))


def latest(disk: Disk) -> int | None:
    """Return the number of the latest checkpoint, or None."""
    return max(numbers(disk), default=None)


def unfinished(disk: Disk) -> list[str]:
    """List the files of checkpoints that were never completed."""
    return [f"{FOLDER}/{name}" for name in disk.names(FOLDER) if name.endswith(_NEW)]


class CheckpointFile:
    """A checkpoint that is being written. Every method blocks, and may raise OSError."""

    def __init__(self, disk: Disk, number: int) -> None:
        self._disk = disk
        self.number = number
        disk.make_folder(FOLDER)
        # The file of a failed attempt may be there still.
        disk.remove(path_of(number) + _NEW)
        self._file: File = disk.open(path_of(number) + _NEW, new=True)
        self.size = 0
        self._streams = self._values = 0

    def add(self, entries: Sequence[CheckpointEntry]) -> None:
        """Write the entries of some streams."""
        self._write(ENTRIES, encode(entries))
        self._streams += len(entries)

    def add_writers(self, more: MoreWriters) -> None:
        """Write more writers of a stream whose entry was added before."""
        self._write(WRITERS, encode(more))

    def add_values(self, values: dict[str, bytes]) -> None:
        """Write some values. Their keys come after those that were added before."""
        self._write(VALUES, encode(values))
        self._values += len(values)

    def _write(self, magic: bytes, payload: bytes) -> None:
        self._file.write(frame(Header(magic, len(payload), self.number, 0, 0, 0), payload), self.size)
        self.size += frame_size(len(payload))

    def complete(self, segment: int, lsn: int, last_id: int, packs: dict[int, int], values_lsn: int) -> None:
        """Sync the checkpoint, and rename it so that it becomes the latest one."""
        end = CheckpointEnd(self._streams, segment, lsn, last_id, packs, self._values, values_lsn)
        self._write(CLOSING, encode(end))
        self._file.sync()
        self._file.close()
        self._disk.rename(path_of(self.number) + _NEW, path_of(self.number))
        self._disk.sync_folder(FOLDER)

    def abandon(self) -> None:
        """Remove the incomplete checkpoint."""
        self._file.close()
        self._disk.remove(path_of(self.number) + _NEW)
