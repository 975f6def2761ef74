"""Taking up what is in a data directory: the catalogue is put together again, and what is left over is dealt with.

What the journal and the checkpoint explain is tidied up. What they do not is set aside under a name that says so, and
never deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from time import monotonic
from typing import Final

from msgspec import Struct
from twisted.logger import Logger

from ...model import WriterState
from ..changes import Change, DataAppended, StreamCreated, StreamRemoved
from ..disk import Disk
from ..entry import facts_of
from ..frontier import ADVICE, FRONTIER_FILE, read_frontier
from ..logged.stream import Recent
from ..ownership import FORMAT_FILE, LOCK_FILE, NEW_FORMAT_FILE, StorageDamaged, is_complete
from . import checkpoint as checkpoints
from . import journal
from .checkpoint import CheckpointEntry, Closing, MoreWriters
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
from .recovery import Replayed, read_checkpoint, replay, segment_numbers
from .stream import FileStream

SET_ASIDE: Final = "set-aside"

#: What the storage makes at the top of a data directory.
PARTS: Final = frozenset([journal.FOLDER, checkpoints.FOLDER, PACKS, STREAMS, SET_ASIDE, FRONTIER_FILE])

#: What belongs there.
_KNOWN: Final = PARTS | {FORMAT_FILE, NEW_FORMAT_FILE, LOCK_FILE, "lost+found"}

_STREAM_FOLDER: Final = re.compile("[0-9a-f]{2}")

_log = Logger()


class Opened(Struct):
    """
    What was taken up.

    :ivar last_id: the greatest id that a stream has had.
    :ivar lsn: of the last change.
    :ivar next_segment: the number of the segment to be made.
    :ivar checkpoint: the number of the latest checkpoint; 0 for none.
    :ivar packs: the packs that there are, with their sizes.
    :ivar purged: the ids of the streams whose removal the journal tells of.
    """

    streams: list[FileStream]
    last_id: int
    lsn: int
    next_segment: int
    checkpoint: int
    packs: dict[int, int]
    purged: set[int]
    replayed: Replayed
    first_segment: int

    @property
    def journal_size(self) -> int:
        """How many bytes of the journal no checkpoint covers."""
        return self.replayed.size


class Rebuilding:
    """A catalogue that is put together from a checkpoint and the changes after it."""

    def __init__(self, opened_at: float, wall_offset: float) -> None:
        self._opened_at = opened_at
        self._wall_offset = wall_offset
        self._streams: dict[int, FileStream] = {}
        self._sources: dict[int, int] = {}
        self._unknown: set[int] = set()
        self.purged: set[int] = set()
        self.last_id = 0
        # The last change that the checkpoint knows.
        self.known = 0

    def hold(self, held: CheckpointEntry) -> None:
        """Take up a stream as a checkpoint has it."""
        facts = facts_of(held.name, held.id, held.incarnation, held.content_type)
        stream = FileStream(facts, held.config, held.lifetime, held.base, held.created_at)
        used_at = self._used_at(held.used_at)
        stream.restore(held.tail, held.closed, held.deleted, held.sequence, held.updated_at, used_at)
        stream.writers = held.writers
        stream.lsn = held.lsn
        self.known = max(self.known, held.lsn)
        stream.filed = held.filed
        stream.filed_appends = held.filed_appends
        stream.pieces = held.pieces
        self._add(stream, held.source)

    def hold_writers(self, more: MoreWriters) -> None:
        """
        Add writers to a stream that a checkpoint has.

        :raises StorageDamaged: there is no entry of the stream before.
        """
        stream = self._streams.get(more.stream)
        if stream is None or stream.writers is None:
            raise StorageDamaged(f"The checkpoint has producers of a stream, {more.stream}, that it does not have.")
        stream.writers.update(more.writers)

    def _used_at(self, at: float) -> float:
        # A renewal by a read is not stored, so opening counts as use.
        return max(at - self._wall_offset, self._opened_at)

    def _add(self, stream: FileStream, source: int | None) -> None:
        self._streams[stream.facts.id] = stream
        if source is not None:
            self._sources[stream.facts.id] = source
        self.last_id = max(self.last_id, stream.facts.id)

    def apply(self, change: Change, lsn: int) -> None:
        """
        Carry out a change, as far as the checkpoint has not seen it.

        :raises StorageDamaged: it does not follow from what was before.
        """
        stream = self._streams.get(change.id)
        if isinstance(change, StreamCreated):
            self._make(stream, change, lsn)
        elif stream is None:
            # Its stream was gone when the checkpoint came to it, so that its removal must follow.
            if isinstance(change, DataAppended):
                self._unknown.add(change.id)
            else:
                self._unknown.discard(change.id)
                self.purged.add(change.id)
        elif isinstance(change, DataAppended):
            self._write(stream, change, lsn)
        elif isinstance(change, StreamRemoved):
            stream.hide()
            stream.lsn = max(stream.lsn, lsn)

    def _make(self, stream: FileStream | None, made: StreamCreated, lsn: int) -> None:
        if stream is None:
            stream = FileStream(made.facts, made.config, made.lifetime, made.base, made.at)
            stream.tail += len(made.data)
            stream.lsn = lsn
            stream.use(self._used_at(made.at))
            self._add(stream, made.source)
        if made.data:
            self._put(stream, made.base, made.data, made.checksum, lsn)

    def _write(self, stream: FileStream, wrote: DataAppended, lsn: int) -> None:
        if lsn > stream.lsn:
            if wrote.start != stream.tail:
                raise _gap(stream, lsn, wrote.start)
            stream.lsn = lsn
            if wrote.writer is not None:
                state = WriterState(wrote.epoch, wrote.seq, wrote.at)
                stream.record_writer(wrote.writer, state, wrote.forgotten)
            stream.extend(len(wrote.data), wrote.close, wrote.sequence, wrote.at)
            stream.use(self._used_at(wrote.at))
        if wrote.data:
            self._put(stream, wrote.start, wrote.data, wrote.checksum, lsn)

    def _put(self, stream: FileStream, start: int, data: bytes, checksum: int, lsn: int) -> None:
        if start < stream.settled:
            return
        recent = stream.recent
        if recent is None:
            recent = stream.recent = Recent(stream.settled)
        if start != recent.start + len(recent.data):
            raise _gap(stream, lsn, start)
        recent.add(data, start + len(data), checksum)

    def finish(self) -> list[FileStream]:
        """
        Put the streams together, and leave out those that are gone.

        :raises StorageDamaged: something is missing.
        """
        if self._unknown:
            raise StorageDamaged(
                f"The journal has changes of a stream, {min(self._unknown)}, that neither it nor the checkpoint knows."
            )
        for stream_id, source_id in self._sources.items():
            source = self._streams.get(source_id)
            if source is not None:
                self._streams[stream_id].fork_from(source)
        for stream in list(self._streams.values()):
            if stream.facts.id in self._streams:
                for gone in stream.purge():
                    del self._streams[gone.facts.id]
                    self.purged.add(gone.facts.id)
        streams = list(self._streams.values())
        self._check(streams)
        for stream in streams:
            stream.order_writers()
        return streams

    def _check(self, streams: list[FileStream]) -> None:
        names: set[str] = set()
        for stream in streams:
            name = stream.facts.name
            if name in names:
                raise StorageDamaged(f"There are two streams of the name {name}.")
            names.add(name)
            if stream.source is None and stream.facts.id in self._sources:
                raise StorageDamaged(f"The stream {name} was forked from one that is not there any more.")
            end = stream.settled if stream.recent is None else stream.recent.ends[-1]
            if end != stream.tail:
                raise StorageDamaged(f"The stream {name} ends at {stream.tail}, but its bytes end at {end}.")


def _gap(stream: FileStream, lsn: int, start: int) -> StorageDamaged:
    return StorageDamaged(
        f"Change {lsn} appends to the stream {stream.facts.name} at {start}, and ends at {stream.tail}."
    )


def load(disk: Disk, opened_at: float, wall_offset: float = 0) -> Opened:
    """
    Read what there is, and change nothing.

    :param opened_at: the time, by the clock that TTLs go by.
    :param wall_offset: how many seconds the wall clock, which stored times are of, is ahead of that.
    :raises StorageDamaged: it is not whole.
    """
    rebuilding = Rebuilding(opened_at, wall_offset)
    closing = read_checkpoint(disk, rebuilding.hold, rebuilding.hold_writers)
    if closing is None:
        closing = Closing(0, 0, 1, 0, {})
        if not segment_numbers(disk) and (disk.names(PACKS) or disk.names(STREAMS)):
            raise StorageDamaged(
                "There is neither a checkpoint nor a journal, but there are bytes of streams. Restore the whole "
                "directory from a backup."
            )
    replayed = replay(disk, closing.segment, closing.lsn, rebuilding.apply)
    if rebuilding.known > replayed.lsn:
        raise StorageDamaged(
            f"The journal ends with change {replayed.lsn}, and change {rebuilding.known} was on the disk when the "
            "checkpoint was made. Restore the whole directory from a backup."
        )
    check_frontier(disk, closing, replayed)
    streams = rebuilding.finish()
    check_places(disk, streams, closing.packs)
    return Opened(
        streams,
        max(rebuilding.last_id, closing.last_id),
        replayed.lsn,
        replayed.last_number + 1,
        checkpoints.latest(disk) or 0,
        closing.packs,
        rebuilding.purged,
        replayed,
        closing.segment,
    )


def check_frontier(disk: Disk, closing: Closing, replayed: Replayed) -> None:
    """
    See that the end of the journal was not lost.

    :raises StorageDamaged: it was.
    """
    if not replayed.segments:
        if is_complete(disk):
            raise StorageDamaged(
                "The journal has no segment that can be read, and it is never without one. Restore the directory from "
                f"a backup; if nothing was ever stored in it, remove the file {FORMAT_FILE}."
            )
        return
    mark = read_frontier(disk)
    last = replayed.segments[-1]
    if mark.segment > last.number and mark.segment >= closing.segment:
        raise StorageDamaged(
            f"The journal segment {journal.path_of(mark.segment)}, which was the last that was written to, is missing "
            f"or has lost its beginning. {ADVICE}"
        )
    if mark.lsn > replayed.lsn:
        raise StorageDamaged(
            f"The journal segment {journal.path_of(last.number)} ends at {last.end} with change {replayed.lsn}, and "
            f"change {mark.lsn} was on the disk: the end of the segment is missing. {ADVICE}"
        )


def check_places(disk: Disk, streams: list[FileStream], packs: dict[int, int]) -> None:
    """
    See that every place that streams are in is there, and long enough.

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
            raise StorageDamaged(f"The file {path} has {found} bytes, and had {size} once. Restore it from a backup.")


def open_directory(disk: Disk, where: str, opened_at: float, wall_offset: float = 0) -> Opened:
    """
    Take up a data directory that is locked already.

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


def tidy(disk: Disk, opened: Opened) -> None:
    """Take away what is explained and not needed, and set aside what is not explained."""
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


def superseded(disk: Disk, opened: Opened) -> Iterator[str]:
    """List the files that something later has taken the place of, or that were never finished."""
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


def unexplained(disk: Disk, opened: Opened) -> Iterator[str]:
    """List what is there, and why is not known."""
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
        disk.open(path).close()
    except OSError:
        return False
    return True
