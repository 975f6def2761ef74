"""The frontier: the position that a log has reached, in a file beside it, so that the loss of the log's end is noticed.

The file ``FRONTIER`` has three records, a block each. Two are written in turn and synced; the third is overwritten
after each commit and not synced: it survives a kill, and may be lost in a power failure. What a record says was on the
disk before it was written, so a record that is lost or old can only make the note say less.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from twisted.logger import Logger

from .checksums import crc32
from .disk import Disk, File

FRONTIER_FILE: Final = "FRONTIER"

#: A record: magic and checksum of the rest, then segment and LSN.
_HEAD: Final = Struct("<4sI")
_MARK: Final = Struct("<QQ")
_MAGIC: Final = b"DSf1"
_SIZE: Final = _HEAD.size + _MARK.size

#: How far the records are apart, and how many there are.
_BLOCK: Final = 4096
_SYNCED: Final = 2
_RECORDS: Final = 3

#: What to do when the log ends before the frontier.
ADVICE: Final = (
    "Restore it from a backup. If this directory was put together from an older backup, and what came later is given "
    f"up, remove the file {FRONTIER_FILE}."
)

_log = Logger()


class Mark(NamedTuple):
    """
    The position that a log has reached.

    :ivar segment: the journal segment that was begun last; 0 where there are none.
    :ivar lsn: the number of a change that is on the disk, as are all before it.
    """

    segment: int
    lsn: int


def _encode(mark: Mark) -> bytes:
    rest = _MARK.pack(*mark)
    return _HEAD.pack(_MAGIC, crc32(rest)) + rest


def _decode(data: bytes) -> Mark | None:
    rest = data[_HEAD.size : _SIZE]
    if len(rest) < _MARK.size or data[: _HEAD.size] != _HEAD.pack(_MAGIC, crc32(rest)):
        return None
    return Mark(*_MARK.unpack(rest))


def _read_marks(file: File) -> list[Mark]:
    marks = (_decode(file.read(number * _BLOCK, _SIZE)) for number in range(_RECORDS))
    return [mark or Mark(0, 0) for mark in marks]


def read_frontier(disk: Disk) -> Mark:
    """
    Read the position that the log had reached; zeros if it is unknown.

    :raises OSError: it can't be read.
    """
    if FRONTIER_FILE not in disk.names(""):
        return Mark(0, 0)
    file = disk.open(FRONTIER_FILE)
    try:
        marks = _read_marks(file)
    finally:
        file.close()
    return Mark(max(mark.segment for mark in marks), max(mark.lsn for mark in marks))


class Frontier:
    """
    The frontier of a log that is being written. Every method blocks.

    An error is logged and ends it: what it has said is true still, and the log is written without it.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._file: File | None = None
        self._mark = Mark(0, 0)
        self._turn = 0

    def open(self) -> None:
        """Open the file, or create it."""
        try:
            if FRONTIER_FILE in self._disk.names(""):
                self._file = self._disk.open(FRONTIER_FILE)
            else:
                self._file = self._disk.open(FRONTIER_FILE, new=True)
                # Writing over it takes no more room.
                self._file.write([bytes(_RECORDS * _BLOCK)], 0)
                self._file.sync()
                self._disk.sync_folder("")
            marks = _read_marks(self._file)
            self._turn = marks.index(min(marks[:_SYNCED]))
        except OSError as error:
            self._end(error)

    def secure(self, segment: int, lsn: int) -> None:
        """Write the position of the log, and sync it."""
        self._mark = Mark(segment, lsn)
        if self._file is not None:
            try:
                self._file.write([_encode(self._mark)], self._turn * _BLOCK)
                self._file.sync()
            except OSError as error:
                self._end(error)
            # The other one stays as it is until this one is on the disk.
            self._turn = (self._turn + 1) % _SYNCED

    def advance(self, lsn: int) -> None:
        """Write the position of the log, without a sync."""
        self._mark = Mark(self._mark.segment, lsn)
        if self._file is not None:
            try:
                self._file.write([_encode(self._mark)], _SYNCED * _BLOCK)
            except OSError as error:
                self._end(error)

    def close(self) -> None:
        """Sync the last mark, and close the file."""
        self.secure(*self._mark)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _end(self, error: OSError) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        _log.warn(
            "Cannot write {file}: {reason}. Writes continue without it; the next start may not detect that the "
            "end of the log was lost.",
            file=FRONTIER_FILE,
            reason=str(error),
        )
