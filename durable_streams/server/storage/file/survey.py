"""What a check makes of a data directory: whatever is left, put together, and what is told of it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final
from zlib import crc32

from ..changes import Change, DataAppended, StreamCreated
from ..disk import Disk, File
from ..findings import Counts, Finding
from ..logged.stream import Recent
from ..ownership import StorageDamaged
from . import journal
from .checkpoint import MoreWriters
from .frames import BLOCK, HEADER_SIZE, Header, padded, read_header
from .opening import Rebuilding
from .recovery import frames, whole_file
from .stream import FileStream

RESTORE: Final = "Restore the data directory from a backup; what the check does not complain of can be read until then."


class Report:
    """What has been found, and what has been looked at."""

    def __init__(self, disk: Disk, found: Callable[[Finding], None], looked_at: Callable[[int], None]) -> None:
        self.disk = disk
        self.looked_at = looked_at
        self.counts = Counts()
        self.damaged = 0
        self._found = found

    def damage(self, where: str, what: str, advice: str = RESTORE) -> None:
        self.damaged += 1
        self._found(Finding(True, where, what, advice))

    def note(self, where: str, what: str, advice: str) -> None:
        self._found(Finding(False, where, what, advice))

    def open(self, path: str, what_is_lost: str) -> File | None:
        try:
            return self.disk.open(path)
        except PermissionError:
            raise
        except FileNotFoundError:
            self.damage(path, f"The file is missing. {what_is_lost}")
        except OSError as error:
            self.unreadable(path, error)
        return None

    def whole(self, path: str) -> bytes:
        """Read all of a file; nothing, if it can't be read, which is told."""
        try:
            data = whole_file(self.disk, path)
        except PermissionError:
            raise
        except OSError as error:
            self.unreadable(path, error)
            return b""
        self.looked_at(len(data))
        return data

    def unreadable(self, path: str, error: OSError) -> None:
        why = error.strerror or str(error)
        self.damage(path, f"The file can't be read: {why}.", "See to the disk first. " + RESTORE)


def whole_frames(data: bytes, number: int | None) -> Iterator[tuple[int, Header, bytes]]:
    """
    Find the frames of a file that are whole, past those that are not.

    :param number: the one that they have; None, if that is not known.
    """
    position = 0
    while position < len(data):
        found = read_header(data[position : position + HEADER_SIZE])
        end = position + HEADER_SIZE + (0 if found is None else found[0].size)
        mark = found[0].number if found is not None and number is None else number
        whole = None if mark is None else next(frames(data[position:end], mark), None)
        if whole is None:
            position += BLOCK
        else:
            yield position, whole[1], whole[2]
            position = padded(end)


def broken_frame(data: bytes, position: int) -> tuple[Header, bytes] | None:
    """Take apart a frame that is not whole, as far as that can be done."""
    found = read_header(data[position : position + HEADER_SIZE])
    if found is None:
        return None
    start = position + HEADER_SIZE
    return found[0], data[start : start + found[0].size]


class Survey(Rebuilding):
    """
    A catalogue that is put together from whatever is left.

    :ivar complete: whether it is known what the checkpoint had.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(0.0, 0.0)
        self._report = report
        self.complete = True
        self._where = ""

    def name_of(self, stream_id: int) -> str:
        """Say how to call a stream."""
        stream = self._streams.get(stream_id)
        return f"a stream of the id {stream_id}" if stream is None else f"the stream {stream.facts.name}"

    def take(self, change: Change, lsn: int, where: str) -> None:
        """Carry out a change; what it does not follow from is told, and then it is taken for true."""
        if isinstance(change, StreamCreated | DataAppended) and crc32(change.data) != change.checksum:
            name = f"the stream {change.name}" if isinstance(change, StreamCreated) else self.name_of(change.id)
            start = change.base if isinstance(change, StreamCreated) else change.start
            self._report.damage(
                where,
                f"Change {lsn}: bytes {start} to {start + len(change.data)} of {name} do not have their checksum.",
            )
        try:
            self.apply(change, lsn)
        except StorageDamaged:
            assert isinstance(change, StreamCreated | DataAppended)
            self._go_on_after_gap(change, lsn, where)

    def _go_on_after_gap(self, change: StreamCreated | DataAppended, lsn: int, where: str) -> None:
        stream = self._streams[change.id]
        start = change.base if isinstance(change, StreamCreated) else change.start
        end = stream.tail
        if lsn <= stream.lsn:
            end = stream.settled if stream.recent is None else stream.recent.start + len(stream.recent.data)
        self._report.damage(
            where,
            f"Change {lsn} appends to the stream {stream.facts.name} at {start}, and what there is of it before ends "
            f"at {end}" + (f": bytes {end} to {start} are missing." if start > end else "."),
        )
        if lsn > stream.lsn:
            stream.tail = start
        stream.recent = Recent(start)
        self.apply(change, lsn)

    def hold_writers(self, more: MoreWriters) -> None:
        # If the entry before is not whole, that was reported already.
        with suppress(StorageDamaged):
            super().hold_writers(more)

    def finish(self) -> list[FileStream]:
        unknown, self._unknown = sorted(self._unknown), set()
        if unknown:
            self._report.damage(
                journal.FOLDER,
                f"The journal has changes of {len(unknown)} streams that neither it nor the checkpoint knows: ids "
                f"{some(unknown)}.",
            )
        return super().finish()

    def _check(self, streams: list[FileStream]) -> None:
        report = self._report
        names: set[str] = set()
        for stream in streams:
            name = stream.facts.name
            if name in names:
                report.damage("the catalogue", f"There are two streams of the name {name}.")
            names.add(name)
            source_id = self._sources.get(stream.facts.id)
            if source_id is not None and (stream.source is None or stream.source.tail < stream.base):
                report.damage(
                    "the catalogue",
                    f"The stream {name} was forked at {stream.base} from a stream of the id {source_id}, which is not "
                    "there, or ends before: the fork's bytes before that are missing.",
                )
            self._check_extent(stream)

    def _check_extent(self, stream: FileStream) -> None:
        """See that a stream's places follow on each other up to its tail."""
        end = stream.base + stream.filed
        missing = []
        for piece in stream.pieces:
            if piece.start != end:
                missing.append((end, piece.start))
            end = piece.end
        if stream.recent is not None and stream.recent.ends:
            end = stream.recent.ends[-1]
        if end != stream.tail:
            missing.append((end, stream.tail))
        for first, last in missing:
            what = f"bytes {first} to {last} of it are in no place" if first < last else f"its bytes go on to {first}"
            self._report.damage(
                "the catalogue", f"The stream {stream.facts.name} ends at {stream.tail}, but {what} that is known of."
            )


def some(items: Sequence[object]) -> str:
    """List some things in a sentence."""
    shown = ", ".join(str(item) for item in items[:8])
    return f"{shown} and {len(items) - 8} more" if len(items) > 8 else shown
