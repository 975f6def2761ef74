"""Reads the journal, when a data directory is opened or checked, and finds out whether changes are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..changes import Change, DataAppended, StreamCreated, ValuesWritten
from ..frontier import ADVICE, FRONTIER_FILE, Mark, read_frontier
from ..ownership import FORMAT_FILE, is_complete
from . import checkpoint as checkpoints
from . import journal
from .checkpoint import CheckpointEnd
from .checkpoint_reader import ANY_CHANGE
from .frames import BATCH, BLOCK, HEADER_SIZE, OPENING, Header, padded
from .places import PACKS, STREAMS
from .rebuilding import StreamBuilder
from .recovery import (
    JournalSummary,
    SegmentSummary,
    UnfinishedWrite,
    broken_frame,
    end_of_data,
    opening_of,
    segment_numbers,
    whole_frames,
)
from .report import Report, some

_changes: Final = msgspec.msgpack.Decoder(list[Change])


class JournalReader:
    """
    Applies the changes in the journal to the streams of a checkpoint.

    :param closing: how the checkpoint ends.
    """

    def __init__(self, report: Report, builder: StreamBuilder, closing: CheckpointEnd) -> None:
        self._report = report
        self._builder = builder
        self._start = closing.segment
        # All changes up to this one are in the checkpoint.
        self._covered = 0 if closing.lsn == ANY_CHANGE else closing.lsn - 1
        # The LSN of the last change so far.
        self._last = closing.lsn - 1
        self._replayed = JournalSummary(self._covered)

    def read(self) -> JournalSummary:
        """Read all segments that the checkpoint does not cover."""
        replayed = self._replayed
        numbers = segment_numbers(self._report.disk)
        replayed.last_number = max(numbers, default=0)
        numbers = [number for number in numbers if number >= self._start]
        firsts = {number: first for number in numbers if (first := self._first_of(number)) is not None}
        mark = self._frontier()
        for number in numbers:
            path = journal.path_of(number)
            data = self._report.whole(path)
            opening = opening_of(data)
            found = [(at, header) for at, header, _ in whole_frames(data, None if opening is None else opening.number)]
            if not found or (opening is None and end_of_data(data, BLOCK) == BLOCK):
                self._take_as_unused(path, data, number == mark.segment)
                continue
            # A change that was on the disk at the end of this segment, as were all before it.
            floor = next((first - 1 for other, first in firsts.items() if other > number), -1)
            advice = ""
            if floor < 0:
                floor = self._builder.known if self._builder.complete else 0
                if mark.segment <= number and mark.lsn > floor:
                    floor, advice = mark.lsn, ADVICE
            self._check_opening(path, found, bool(replayed.segments))
            first = self._last + 1
            batches = [(position, header) for position, header in found if header.magic == BATCH]
            end = self._read_batches(path, data, batches, 0 if floor <= self._covered else floor, advice)
            replayed.segments.append(SegmentSummary(number, first, end))
            replayed.size += end
        begun = replayed.segments[-1].number if replayed.segments else 0
        replayed.lsn = max(self._covered, self._last) if begun else self._covered
        if not begun:
            self._miss_all(numbers)
        elif mark.lsn > replayed.lsn or mark.segment > begun:
            what = "The last segment that was written to is missing, or has lost its beginning"
            lost = ""
            if mark.lsn > replayed.lsn:
                lost = f": changes {replayed.lsn + 1} to {mark.lsn}, at least, were on the disk"
            path = journal.path_of(max(mark.segment, begun))
            replayed.unused = [unused for unused in replayed.unused if unused != path]
            self._report.damage(path, f"{what}{lost}.", ADVICE)
        return replayed

    def _frontier(self) -> Mark:
        """Read the position that the journal had reached."""
        try:
            mark = read_frontier(self._report.disk)
        except OSError as error:
            self._report.unreadable(FRONTIER_FILE, error)
            return Mark(0, 0)
        return mark if mark.segment >= self._start else Mark(0, mark.lsn)

    def _first_of(self, number: int) -> int | None:
        """Return the LSN of the first change of a segment, if its opening can be read."""
        try:
            file = self._report.disk.open(journal.path_of(number))
        except OSError:
            return None
        try:
            opening = opening_of(file.read(0, BLOCK))
        except OSError:
            return None
        finally:
            file.close()
        return None if opening is None else opening.first

    def _miss_all(self, numbers: Sequence[int]) -> None:
        report = self._report
        if self._start:
            report.damage(
                journal.FOLDER,
                f"There is no segment that can be read from number {self._start} on, and the journal is never without "
                "one: all changes after the checkpoint are missing.",
            )
        elif not checkpoints.latest(report.disk) and (report.disk.names(PACKS) or report.disk.names(STREAMS)):
            self._builder.complete = False
            report.damage(
                "the directory",
                "There is neither a checkpoint nor a journal, but there are bytes of streams.",
            )
        elif is_complete(report.disk):
            report.damage(
                journal.FOLDER,
                "There is no segment that can be read, and the journal is never without one: all streams are missing.",
                f"Restore the data directory from a backup; if nothing was ever stored in it, remove {FORMAT_FILE}.",
            )

    def _take_as_unused(self, path: str, data: bytes, lost: bool) -> None:
        """
        Treat a segment without an undamaged frame as unused.

        :param lost: whether the frontier says that it was; that is reported later.
        """
        self._replayed.unused.append(path)
        size = end_of_data(data)
        if size > BLOCK:
            self._report.damage(f"{path} at 0", "The segment has lost its beginning.")
        if lost or not 0 < size <= BLOCK:
            return
        self._report.note(
            f"{path} at 0",
            f"The segment has {size} bytes, and nothing that can be read as a whole.",
            "If the server was killed or the power failed as it was begun, nothing is missing. It is removed at the "
            "next start; keep a copy, if you have any doubt.",
        )

    def _check_opening(self, path: str, found: list[tuple[int, Header]], begun: bool) -> None:
        position, opening = found[0]
        if position or opening.magic != OPENING:
            self._report.damage(f"{path} at 0", "The segment has lost its beginning.")
            if not begun:
                self._last = min(self._last, opening.first - 1)
            return
        self._report.counts.frames += 1
        expected = self._last + 1
        if opening.first > expected or (begun and opening.first != expected):
            self._report.damage(
                f"{path} at 0",
                f"The segment begins with change {opening.first}, where {expected} comes next"
                + (f": changes {expected} to {opening.first - 1} are missing." if opening.first > expected else "."),
            )
        self._last = opening.first - 1

    def _read_batches(self, path: str, data: bytes, found: list[tuple[int, Header]], floor: int, advice: str) -> int:
        """
        Apply the batches of a segment.

        :param floor: the LSN of a change that was on the disk at the end of this segment, as were all before it.
        :param advice: what to do if it is missing.
        :returns: the position after the last batch.
        """
        # The last LSN that was synced when this frame, or a later one, was written.
        proven = [floor]
        for _, header in reversed(found):
            proven.append(max(proven[-1], header.durable))
        proven.reverse()
        end = BLOCK
        for number, (position, header) in enumerate(found):
            if header.first <= self._last:
                continue
            if header.first != self._last + 1 or position != end:
                if proven[number] <= self._last:
                    break
                self._tell_hole(path, data, end, header.first - 1)
            end = position + padded(HEADER_SIZE + header.size)
            self._report.counts.frames += 1
            payload = data[position + HEADER_SIZE : position + HEADER_SIZE + header.size]
            self._read_batch(f"{path} at {position}", header, payload)
        if floor > self._last:
            self._tell_hole(path, data, end, floor, advice)
        elif (last := end_of_data(data, end)) > end:
            rest = data[end:last].lstrip(b"\0")
            self._replayed.unfinished.append(UnfinishedWrite(path, end, last - end))
            self._report.note(
                f"{path} at {end}",
                f"The segment ends with {len(rest)} bytes of a write that was not finished.",
                "It was never acknowledged, so nothing is missing. A killed server, or a power failure, leaves these.",
            )
        return end

    def _read_batch(self, where: str, header: Header, payload: bytes) -> None:
        try:
            changes = _changes.decode(payload)
        except ValueError as error:
            self._report.damage(where, f"Changes {header.first} to {header.last} cannot be decoded: {error}.")
            self._last = header.last
            return
        if len(changes) != header.last - header.first + 1:
            self._report.damage(
                where, f"The batch has {len(changes)} changes, and says that it has {header.first} to {header.last}."
            )
        for lsn, change in enumerate(changes, header.first):
            self._builder.apply(change, lsn, where)
        self._replayed.changes += len(changes)
        self._last = header.last

    def _tell_hole(self, path: str, data: bytes, position: int, up_to: int, advice: str = "") -> None:
        """Report synced changes that cannot be read, and apply those that can be decoded despite the damage."""
        where = f"{path} at {position}"
        first = self._last + 1
        what = f"Changes {first} to {up_to} were on the disk, and can't be read as they were written."
        changes = self._salvage(data, position, up_to)
        if changes is None:
            self._report.damage(
                where,
                f"{what} The streams concerned are unknown, unless their bytes are reported missing.",
                advice,
            )
        else:
            told = {self._concern(change) for change in changes}
            self._report.damage(where, f"{what} They probably concern {some(sorted(told))}.", advice)
            for lsn, change in enumerate(changes, first):
                self._builder.apply(change, lsn, where)
        self._last = up_to

    def _concern(self, change: Change) -> str:
        if isinstance(change, StreamCreated):
            return f"the stream {change.name}, bytes {change.base} to {change.base + len(change.data)}"
        if isinstance(change, ValuesWritten):
            return f"the values {some(list(change.puts))}"
        name = self._builder.name_of(change.id)
        return (
            f"{name}, bytes {change.start} to {change.start + len(change.data)}"
            if isinstance(change, DataAppended)
            else name
        )

    def _salvage(self, data: bytes, position: int, up_to: int) -> list[Change] | None:
        """Decode a damaged batch if its header has exactly the missing LSNs."""
        broken = broken_frame(data, position)
        if broken is None or (broken[0].magic, broken[0].first, broken[0].last) != (BATCH, self._last + 1, up_to):
            return None
        try:
            changes = _changes.decode(broken[1])
        except ValueError:
            return None
        return changes if len(changes) == up_to - self._last else None
