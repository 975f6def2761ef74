"""The check of the journal: every segment that counts, every batch, every change, and that none is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..changes import Change, DataAppended, StreamCreated
from ..frontier import ADVICE, Mark, read_frontier
from ..ownership import is_complete
from . import checkpoint as checkpoints
from . import journal
from .checkpoint import Closing
from .frames import BATCH, BLOCK, HEADER_SIZE, OPENING, Header, padded
from .places import PACKS, STREAMS
from .recovery import opening_of, segment_numbers
from .survey import RESTORE, Report, Survey, broken_frame, some, whole_frames

_changes: Final = msgspec.msgpack.Decoder(list[Change])


class Past:
    """
    The check of the journal.

    :ivar last: the number of the last change so far.
    :ivar unused: the segments that nothing was ever written to.
    """

    def __init__(self, report: Report, catalogue: Survey, closing: Closing) -> None:
        self._report = report
        self._catalogue = catalogue
        self._start = closing.segment
        self._first_wanted = closing.lsn
        self.last = closing.lsn - 1
        self.unused: list[str] = []

    def check(self) -> None:
        """Read all segments that count."""
        numbers = [number for number in segment_numbers(self._report.disk) if number >= self._start]
        firsts = {number: first for number in numbers if (first := self._first_of(number)) is not None}
        begun = 0
        mark = self._frontier()
        for number in numbers:
            path = journal.path_of(number)
            data = self._report.whole(path)
            opening = opening_of(data)
            number_of_frames = None if opening is None else opening.number
            found = [(position, header) for position, header, _ in whole_frames(data, number_of_frames)]
            if not found:
                if number != mark.segment:
                    self._take_as_unused(path, data)
                continue
            floor = next((first - 1 for other, first in firsts.items() if other > number), 0)
            self._check_opening(path, found, bool(begun))
            begun = number
            if not floor and self._catalogue.complete:
                floor = self._catalogue.known
            if number == mark.segment:
                floor = max(floor, mark.lsn)
            batches = [(position, header) for position, header in found if header.magic == BATCH]
            self._check_batches(path, data, batches, floor)
        if not begun:
            self._miss_all(numbers)
        elif mark.lsn > self.last or mark.segment > begun:
            what = "The last segment that was written to is missing, or has lost its beginning"
            lost = (
                f": changes {self.last + 1} to {mark.lsn}, at least, were on the disk" if mark.lsn > self.last else ""
            )
            self._report.damage(journal.path_of(mark.segment), f"{what}{lost}.", ADVICE)

    def _frontier(self) -> Mark:
        try:
            mark = read_frontier(self._report.disk)
        except OSError:
            return Mark(0, 0)
        return mark if mark.segment >= self._start else Mark(0, 0)

    def _first_of(self, number: int) -> int | None:
        """Say with which change a segment begins, if it says so."""
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
                f"There is no segment that can be read from number {self._start} on, and there always was one: all "
                "changes after the checkpoint are missing.",
            )
        elif not checkpoints.latest(report.disk) and (report.disk.names(PACKS) or report.disk.names(STREAMS)):
            self._catalogue.complete = False
            report.damage(
                "the directory",
                "There is neither a checkpoint nor a journal, but there are bytes of streams.",
                RESTORE,
            )
        elif is_complete(report.disk):
            report.damage(
                journal.FOLDER,
                "There is no segment that can be read, and there always is one: all streams are missing.",
            )

    def _take_as_unused(self, path: str, data: bytes) -> None:
        self.unused.append(path)
        rest = data.rstrip(b"\0")
        if rest:
            self._report.note(
                f"{path} at 0",
                f"The segment has {len(rest)} bytes, and nothing that can be read as a whole.",
                "If the server was killed or the power failed as it was begun, nothing is missing. It is removed at "
                "the next start; keep a copy, if you have any doubt.",
            )

    def _check_opening(self, path: str, found: list[tuple[int, Header]], begun: bool) -> None:
        position, opening = found[0]
        if position or opening.magic != OPENING:
            self._report.damage(f"{path} at 0", "The segment has lost its beginning.")
            if not begun:
                self.last = min(self.last, opening.first - 1)
            return
        self._report.counts.frames += 1
        expected = self.last + 1
        if opening.first > expected or (begun and opening.first != expected):
            self._report.damage(
                f"{path} at 0",
                f"The segment begins with change {opening.first}, where {expected} comes next"
                + (f": changes {expected} to {opening.first - 1} are missing." if opening.first > expected else "."),
            )
        self.last = opening.first - 1

    def _check_batches(self, path: str, data: bytes, found: list[tuple[int, Header]], floor: int) -> None:
        """
        Read the batches of a segment.

        :param floor: the number of a change that was on the disk at the end of this segment, as were all before it.
        """
        # What each frame, or a later one, says was on the disk when it was written.
        proven = [floor]
        for _, header in reversed(found):
            proven.append(max(proven[-1], header.durable))
        proven.reverse()
        end = BLOCK
        for number, (position, header) in enumerate(found):
            if header.first <= self.last:
                continue
            if header.first != self.last + 1 or position != end:
                if proven[number] <= self.last:
                    break
                self._tell_hole(path, data, end, header.first - 1)
            end = position + padded(HEADER_SIZE + header.size)
            self._report.counts.frames += 1
            payload = data[position + HEADER_SIZE : position + HEADER_SIZE + header.size]
            self._check_batch(f"{path} at {position}", header, payload)
        if floor > self.last:
            self._tell_hole(path, data, end, floor)
        elif rest := data[end:].strip(b"\0"):
            self._report.note(
                f"{path} at {end}",
                f"The segment ends with {len(rest)} bytes of a write that was not finished.",
                "Nobody was told that it was, so that nothing is missing. A killed server, or a power failure, leaves "
                "such behind.",
            )

    def _check_batch(self, where: str, header: Header, payload: bytes) -> None:
        try:
            changes = _changes.decode(payload)
        except ValueError as error:
            self._report.damage(where, f"Changes {header.first} to {header.last} can't be understood: {error}.")
            self.last = header.last
            return
        if len(changes) != header.last - header.first + 1:
            self._report.damage(
                where, f"The batch has {len(changes)} changes, and says that it has {header.first} to {header.last}."
            )
        for lsn, change in enumerate(changes, header.first):
            self._catalogue.take(change, lsn, where)
        self.last = header.last

    def _tell_hole(self, path: str, data: bytes, position: int, up_to: int) -> None:
        """Tell of changes that were on the disk and can't be read, and take from them what can be guessed."""
        where = f"{path} at {position}"
        first = self.last + 1
        what = f"Changes {first} to {up_to} were on the disk, and can't be read as they were written."
        changes = self._salvage(data, position, up_to)
        if changes is None:
            self._report.damage(
                where, f"{what} Which streams they concern shows in what is missing of these, if anything."
            )
        else:
            told = {self._concern(change) for change in changes}
            self._report.damage(where, f"{what} They seem to concern {some(sorted(told))}.")
            for lsn, change in enumerate(changes, first):
                self._catalogue.take(change, lsn, where)
        self.last = up_to

    def _concern(self, change: Change) -> str:
        if isinstance(change, StreamCreated):
            return f"the stream {change.name}, bytes {change.base} to {change.base + len(change.data)}"
        name = self._catalogue.name_of(change.id)
        return (
            f"{name}, bytes {change.start} to {change.start + len(change.data)}"
            if isinstance(change, DataAppended)
            else name
        )

    def _salvage(self, data: bytes, position: int, up_to: int) -> list[Change] | None:
        """Read a batch that is not whole, if it looks as if it were just what is missing."""
        broken = broken_frame(data, position)
        if broken is None or (broken[0].magic, broken[0].first, broken[0].last) != (BATCH, self.last + 1, up_to):
            return None
        try:
            changes = _changes.decode(broken[1])
        except ValueError:
            return None
        return changes if len(changes) == up_to - self.last else None
