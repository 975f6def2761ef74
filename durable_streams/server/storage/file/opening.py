"""Opens a data directory: reads the checkpoint and the journal, then removes superseded files.

Files that neither of them explains are moved to a directory of their own, and never deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from time import monotonic
from typing import Final

from msgspec import Struct
from twisted.logger import Logger

from ..disk import Disk
from ..frontier import FRONTIER_FILE
from ..ownership import FORMAT_FILE, LOCK_FILE, NEW_FORMAT_FILE, StorageDamaged
from ..values import ValueTable
from . import checkpoint as checkpoints
from . import journal
from .checkpoint_reader import read_checkpoint
from .journal_reader import JournalReader
from .names import number_of, numbers_of
from .places import (
    INDEX_ENTRY_SIZE,
    PACKS,
    STREAMS,
    data_path,
    index_path,
    pack_path,
    stream_folder,
    stream_id_of,
)
from .rebuilding import StreamBuilder
from .recovery import JournalSummary, segment_numbers
from .report import Report, StrictReport
from .stream import FileStream

SET_ASIDE: Final = "set-aside"

#: What the storage makes at the top of a data directory.
PARTS: Final = frozenset([journal.FOLDER, checkpoints.FOLDER, PACKS, STREAMS, SET_ASIDE, FRONTIER_FILE])

#: What belongs there.
_KNOWN: Final = PARTS | {FORMAT_FILE, NEW_FORMAT_FILE, LOCK_FILE, "lost+found"}

_STREAM_FOLDER: Final = re.compile("[0-9a-f]{2}")

_log = Logger()


class LoadedDirectory(Struct):
    """
    The content of a data directory.

    :ivar last_id: the greatest id that a stream has had.
    :ivar lsn: of the last change.
    :ivar next_segment: the number of the segment to be made.
    :ivar checkpoint: the number of the latest checkpoint; 0 for none.
    :ivar packs: the packs that there are, with their sizes.
    :ivar purged: the ids of the streams whose removal is in the journal.
    :ivar values: the values beside the streams.
    """

    streams: list[FileStream]
    last_id: int
    lsn: int
    next_segment: int
    checkpoint: int
    packs: dict[int, int]
    purged: set[int]
    replayed: JournalSummary
    first_segment: int
    values: ValueTable

    @property
    def journal_size(self) -> int:
        """The number of bytes of the journal that no checkpoint covers."""
        return self.replayed.size


def read_directory(report: Report, opened_at: float = 0.0, wall_offset: float = 0.0) -> tuple[LoadedDirectory, bool]:
    """
    Read a data directory, except the bytes in packs and own files, and change nothing.

    :param report: what is damaged is reported to it, and it decides whether to go on.
    :param opened_at: the time, by the clock that TTLs use.
    :param wall_offset: how many seconds the wall clock, which stored times are of, is ahead of that.
    :returns: what was read, and whether that is all that the checkpoint had.
    """
    builder = StreamBuilder(report, opened_at, wall_offset)
    closing = read_checkpoint(report, builder)
    replayed = JournalReader(report, builder, closing).read()
    streams = builder.finish()
    opened = LoadedDirectory(
        streams,
        max(builder.last_id, closing.last_id),
        replayed.lsn,
        replayed.last_number + 1,
        checkpoints.latest(report.disk) or 0,
        closing.packs,
        builder.purged,
        replayed,
        closing.segment,
        ValueTable(builder.values),
    )
    return opened, builder.complete


def load(disk: Disk, opened_at: float, wall_offset: float = 0) -> LoadedDirectory:
    """
    Read a data directory as a start does, and change nothing. See :func:`read_directory`.

    :raises StorageDamaged: it is not whole.
    """
    opened, _ = read_directory(StrictReport(disk), opened_at, wall_offset)
    check_places(disk, opened.streams, opened.packs)
    return opened


def check_places(disk: Disk, streams: list[FileStream], packs: dict[int, int]) -> None:
    """
    Check that each file with bytes of streams exists and is long enough.

    :raises StorageDamaged: one is not.
    """
    wanted = {pack_path(number): size for number, size in packs.items()}
    for stream in streams:
        if stream.filed:
            wanted[data_path(stream.facts.id)] = stream.filed
            wanted[index_path(stream.facts.id)] = stream.filed_appends * INDEX_ENTRY_SIZE
    for path, size in wanted.items():
        try:
            file = disk.open(path)
        except (FileNotFoundError, NotADirectoryError):
            raise StorageDamaged(f"The file {path} is missing. Restore it from a backup.") from None
        try:
            found = file.size()
        finally:
            file.close()
        if found < size:
            raise StorageDamaged(f"The file {path} has {found} of {size} bytes. Restore it from a backup.")


def open_directory(disk: Disk, where: str, opened_at: float, wall_offset: float = 0) -> LoadedDirectory:
    """
    Open a data directory that is locked already.

    :param where: what it is called in the log.
    :raises StorageDamaged: something is missing that was there once.
    """
    began_at = monotonic()
    # What a killed process has left with the operating system must not be shown before it is on the disk; and what
    # could not be put there may still be remembered, and taken for written.
    for number in segment_numbers(disk):
        file = disk.open(journal.path_of(number))
        try:
            file.sync()
            file.forget()
        finally:
            file.close()
    opened = load(disk, opened_at, wall_offset)
    for segment in opened.replayed.segments:
        file = disk.open(journal.path_of(segment.number))
        try:
            if not any(rest.path == journal.path_of(segment.number) for rest in opened.replayed.unfinished):
                # Room that was reserved and is not needed may be all that there is for the next segment.
                file.cut(segment.end)
        finally:
            file.close()
    disk.make_folder(journal.FOLDER)
    # The same goes for names: that of a folder, or of the checkpoint in whose favour others are about to be removed.
    disk.sync_folder("")
    for folder in (journal.FOLDER, checkpoints.FOLDER, STREAMS, PACKS):
        if folder in disk.names(""):
            try:
                # Only its owner may read it.
                disk.make_folder(folder)
            except NotADirectoryError:
                raise StorageDamaged(f"{folder} is not a directory. Move it away.") from None
            disk.sync_folder(folder)
    tidy(disk, opened)
    replayed = opened.replayed
    _log.info(
        "Loaded {streams} streams from {where} in {seconds:.1f} s (checkpoint {checkpoint}, {changes} changes from "
        "{segments} journal segments).",
        streams=len(opened.streams),
        where=where,
        seconds=monotonic() - began_at,
        checkpoint=opened.checkpoint or "none",
        changes=replayed.changes,
        segments=len(replayed.segments),
    )
    for rest in replayed.unfinished:
        _log.info(
            "{path} ends with {size} bytes of an unfinished, unacknowledged write at {position}. They are ignored.",
            path=rest.path,
            size=rest.size,
            position=rest.position,
        )
    return opened


def tidy(disk: Disk, opened: LoadedDirectory) -> None:
    """Remove files that are not needed any more, and move unknown files to :data:`SET_ASIDE`."""
    # A killed process may have taken away the files of removed streams, and not come to have that on the disk.
    emptied = {stream_folder(stream_id) for stream_id in opened.purged}
    emptied &= {f"{STREAMS}/{folder}" for folder in disk.names(STREAMS)}
    for path in superseded(disk, opened):
        disk.remove(path)
        emptied.add(path.rpartition("/")[0])
    for folder in sorted(emptied):
        # What tells that they were not needed is not kept for ever.
        disk.sync_folder(folder)
    for path in unexplained(disk, opened):
        disk.make_folder(SET_ASIDE)
        place = f"{SET_ASIDE}/{path.replace('/', '-')}"
        taken = set(disk.names(SET_ASIDE))
        while place.partition("/")[2] in taken:
            place += "+"
        disk.rename(path, place)
        disk.sync_folder(SET_ASIDE)
        _log.warn(
            "Moved the unknown file {path} to {place}. Remove it there if it is not needed.",
            path=path,
            place=place,
        )


def superseded(disk: Disk, opened: LoadedDirectory) -> Iterator[str]:
    """Yield the files that a later file replaces, and those that were never finished."""
    yield from checkpoints.unfinished(disk)
    yield from (checkpoints.path_of(number) for number in checkpoints.numbers(disk) if number < opened.checkpoint)
    yield from (journal.path_of(number) for number in segment_numbers(disk) if number < opened.first_segment)
    yield from opened.replayed.unused
    yield from (pack_path(number) for number in numbers_of(disk.names(PACKS)) if number not in opened.packs)
    filed = {stream.facts.id: stream.filed for stream in opened.streams}
    for path, stream_id in _stream_files(disk):
        # The file of a stream that was removed; or one that was begun, of bytes that the journal still has.
        if stream_id is not None and (stream_id in opened.purged or filed.get(stream_id) == 0):
            yield path


def unexplained(disk: Disk, opened: LoadedDirectory) -> Iterator[str]:
    """Yield the files that do not belong to a data directory."""
    yield from (name for name in disk.names("") if name not in _KNOWN)
    for folder in (journal.FOLDER, checkpoints.FOLDER, PACKS):
        yield from (f"{folder}/{name}" for name in disk.names(folder) if number_of(name) is None)
    known = {stream.facts.id for stream in opened.streams}
    for path, stream_id in _stream_files(disk):
        if stream_id not in known:
            yield path


def _stream_files(disk: Disk) -> Iterator[tuple[str, int | None]]:
    for folder in disk.names(STREAMS):
        if not _STREAM_FOLDER.fullmatch(folder):
            yield f"{STREAMS}/{folder}", None
            continue
        names = disk.names(f"{STREAMS}/{folder}")
        if not names and _is_file(disk, f"{STREAMS}/{folder}"):
            yield f"{STREAMS}/{folder}", None
        for name in names:
            path = f"{STREAMS}/{folder}/{name}"
            yield path, stream_id_of(path)


def _is_file(disk: Disk, path: str) -> bool:
    try:
        file = disk.open(path)
    except OSError:
        return False
    try:
        # A directory can be opened to be read, too.
        file.read(0, 1)
    except OSError:
        return False
    finally:
        file.close()
    return True
