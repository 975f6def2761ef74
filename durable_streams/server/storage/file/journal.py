"""The journal: all changes in order. A change is on the disk before it is acknowledged.

It is a row of segments. A batch of changes is one frame, written and made durable by one system call; what comes
meanwhile is the next batch. Segments have their room reserved beforehand, so that a full disk is found out before
anything is accepted, and not in the middle of a write.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from secrets import randbits
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import InsufficientStorage, Unavailable
from ..changes import Change
from ..disk import Disk, File, is_full
from ..frontier import Frontier
from ..logged.commit_queue import NotYet
from ..shortages import RETRY_INTERVAL, SHORT, is_shortage
from ..workers import Worker
from .frames import BATCH, BLOCK, OPENING, Header, frame, frame_size
from .names import name_of

T = TypeVar("T")

FOLDER: Final = "journal"

#: How large segments are, in bytes; on a disk that has no room for the first, the next is tried.
SEGMENT_SIZES: Final = (64 << 20, 16 << 20, 4 << 20, 1 << 20)

#: What is kept for removals when there is no room for anything else, in bytes.
RESERVE: Final = 128 << 10

#: How large the first segment may be on a full disk, in bytes.
_SMALL_SIZES: Final = (RESERVE, RESERVE // 2, RESERVE // 4, RESERVE // 8)

#: How long, in seconds, a full disk is left alone before it is asked again.
_PATIENCE: Final = 0.5

encode: Final = msgspec.msgpack.Encoder().encode

_log = Logger()


#: What a client is told if the disk has no room.
FULL: Final = "The disk is full. Delete streams that are not needed, or free disk space."


class NothingWritten(Exception):
    """A shortage or a full disk kept a batch from being written: nothing of it is there, and it can be retried."""


def path_of(number: int) -> str:
    """Return the path of a segment's file."""
    return f"{FOLDER}/{name_of(number)}"


class _Segment:
    """
    A file that batches are written to.

    :ivar room: how many bytes are reserved.
    :ivar position: where the next frame begins.
    :ivar first: the LSN of the first change that is in it, or will be.
    :ivar mark: what its frames have for their number. Nobody can guess it, so that no bytes that a client has sent can
        be taken for a frame when what is around them is torn.
    """

    __slots__ = ("file", "first", "mark", "number", "position", "room")

    def __init__(self, number: int, file: File, room: int) -> None:
        self.number = number
        self.file = file
        self.room = room
        self.position = 0
        self.first = 0
        self.mark = randbits(63)


class JournalState(Struct, frozen=True, gc=False):
    """
    The state of the journal after a batch.

    :ivar left: bytes left in the segment.
    :ivar spare: bytes in the next one, if it is there.
    :ivar frame: bytes that the batch took.
    """

    left: int
    spare: int
    frame: int


class Journal:
    """
    The writing side of the journal. Only the worker uses its segments; the reactor has the last :class:`JournalState`.

    :param durable: whether a batch is on the disk when its Deferred fires; else it is with the operating system.
    :param number: of the first segment that it makes.
    :param lsn: of the last change so far.
    :ivar first_number: of the segment that the latest changes are in.
    :ivar durable_lsn: up to which change all are on the disk.
    :ivar size: how many bytes were written.
    """

    def __init__(
        self,
        disk: Disk,
        worker: Worker,
        seconds: Callable[[], float],
        durable: bool,
        number: int,
        lsn: int,
        sizes: Sequence[int] = SEGMENT_SIZES,
    ) -> None:
        self._disk = disk
        self._worker = worker
        self._seconds = seconds
        self._durable = durable
        self._sizes = sizes
        self._next_number = number
        self._lsn = lsn
        self.durable_lsn = lsn
        self.size = 0
        # The worker's
        self._frontier = Frontier(disk)
        self._segment: _Segment | None = None
        self._spare: _Segment | None = None
        # False after a failed write or sync, whose effect is unknown: later frames could contradict it.
        self._sound = True
        # The reactor's
        self._left = self._spare_room = self._under_way = 0
        self._preparing: Deferred[None] | None = None
        self._rotating: Deferred[None] | None = None
        # Until when no segment is made, after there was no room for one, or a shortage.
        self._refused_until = 0.0
        self._short = False

    def open(self) -> None:
        """
        Create the first segment. May block.

        :raises OSError: it can't be made.
        """
        self._disk.make_folder(FOLDER)
        try:
            self._spare = self._make_segment(0)
        except OSError as error:
            if not is_full(error):
                raise
            # Only removals fit in, and they free space.
            sizes, self._sizes = self._sizes, _SMALL_SIZES
            self._spare = self._make_segment(0)
            self._sizes = sizes
        self._frontier.open()
        self._rotate()
        assert self._segment is not None
        self._left = self._segment.room - self._segment.position

    # Room

    def check_room(self, size: int, queued: int, removal: bool) -> int:
        """
        Check that the disk has room for a change of ``size`` bytes, besides queued changes and the current batch.

        :returns: how many bytes of changes may be queued, this one's among them, before this is asked again.
        :raises NotYet: a segment is being made.
        :raises InsufficientStorage: the disk is full.
        :raises Unavailable: a segment could not be made for a temporary shortage.
        """
        need = frame_size(size + queued)
        kept = 0 if removal else RESERVE
        left, spare = self._left - self._under_way, self._spare_room
        if self._rotating is not None:
            # Which of the two segments it will be is not known yet.
            left, spare = min(left, (spare or self._sizes[-1]) - BLOCK - self._under_way), 0
        if need + kept <= left:
            if left < RESERVE * 8 and not self._spare_room and self._seconds() >= self._refused_until:
                self._prepare(0)
            return max(size, left - kept - frame_size(queued) - BLOCK)
        if self._rotating is not None:
            raise NotYet(self._after(self._rotating))
        if left < 0:
            # The batch in progress goes into the spare segment.
            spare -= self._under_way
        if need + kept + BLOCK <= spare:
            return size
        alone = frame_size(size) + kept + BLOCK
        if self._spare_room and alone <= self._spare_room and (queued or self._under_way):
            # There is room when the queued changes are written.
            raise NotYet(self._prepare(0))
        if self._seconds() < self._refused_until:
            if self._short:
                raise Unavailable(SHORT)
            raise InsufficientStorage(FULL)
        raise NotYet(self._prepare(alone))

    def _prepare(self, min_size: int) -> Deferred[None]:
        """Make the next segment. Fires when it is ready or has failed, or when the batch in progress is written."""
        if self._preparing is None:
            made = self._worker.do(lambda: self._make_spare(min_size)).addBoth(self._prepared)
            self._preparing = made.addBoth(self._end_preparing)
        return self._after(self._preparing)

    def _after(self, waiting: Deferred[None]) -> Deferred[None]:
        """Return a Deferred that fires after another one, which does not fail."""
        ready: Deferred[None] = Deferred()

        def tell(_: None) -> None:
            ready.callback(None)

        waiting.addCallback(tell)
        return ready

    def _prepared(self, outcome: int | Failure) -> Deferred[None] | None:
        if not isinstance(outcome, Failure):
            self._refused_until = 0.0
            self._short = False
            self._spare_room = outcome
            return None
        if is_shortage(outcome.value):
            if not self._short:
                _log.warn(
                    "Cannot create a journal segment: {reason}. Writes are answered 503 until it can be created.",
                    reason=outcome.getErrorMessage(),
                )
            self._short = True
            self._refused_until = self._seconds() + RETRY_INTERVAL
            return None
        self._short = False
        relief = self.refused(outcome)
        if relief is None:
            self._refused_until = self._seconds() + _PATIENCE
        return relief

    def _end_preparing(self, _: object) -> None:
        self._preparing = None

    def refused(self, failure: Failure) -> Deferred[None] | None:
        """
        Handle the failure to create a segment: no room, or a failed disk. The owner replaces this.

        :returns: what fires when there may be room; None, if nothing can be done about it.
        """
        return None

    def kept_free(self) -> int:
        """Return the size in bytes of a checkpoint made now. The owner replaces this."""
        return 0

    def end_credit(self) -> int:
        """
        Let no change be queued without another :meth:`check_room`. The owner replaces this.

        :returns: how many bytes are queued.
        """
        return 0

    def _make_spare(self, min_size: int) -> int:
        if self._spare is not None and self._spare.room < min_size:
            self._check_free(min_size)
            self._spare.file.reserve(min_size)
            self._spare.room = min_size
        if self._spare is None:
            self._spare = self._make_segment(min_size)
        return self._spare.room

    def _make_segment(self, min_size: int) -> _Segment:
        # A number is not used again: if the file of a failed attempt could not be removed, it is there still.
        number, self._next_number = self._next_number, self._next_number + 1
        path = path_of(number)
        file = self._disk.open(path, new=True)
        try:
            room = self._reserve(file, min_size)
            file.sync()
            self._disk.sync_folder(FOLDER)
        except BaseException:
            file.close()
            self._disk.remove(path)
            raise
        return _Segment(number, file, room)

    def _check_free(self, size: int) -> None:
        """
        Check that the disk also has room for a checkpoint of a segment's changes.

        :raises OSError: there would be none: no segment, then, but a checkpoint.
        """
        if self._sizes is not _SMALL_SIZES and self._disk.free() < self.kept_free() + 2 * size:
            raise OSError(errno.ENOSPC, "Not enough room for a checkpoint")

    def _reserve(self, file: File, min_size: int) -> int:
        sizes = [max(size, min_size) for size in self._sizes]
        for size in sizes:
            try:
                self._check_free(size)
                file.reserve(size)
            except OSError as error:
                if not is_full(error) or size == sizes[-1]:
                    raise
                file.cut(0)
            else:
                return size
        raise AssertionError(sizes)

    # Writing

    def write(self, changes: Sequence[Change], lsn: int, max_bytes: int) -> Deferred[None]:
        """
        Write a batch. The Deferred fails with :exc:`NothingWritten` if the batch can be written again later.

        :param lsn: the number of the last change in it.
        :param max_bytes: an upper bound of the size of the changes.
        """
        self._under_way = frame_size(max_bytes)
        durable_lsn = self.durable_lsn
        return self._worker.do(lambda: self._write(changes, lsn, durable_lsn)).addCallback(self._written, lsn)

    def _write(self, changes: Sequence[Change], lsn: int, durable_lsn: int) -> JournalState:
        self._check_sound()
        payload = encode(changes)
        size = frame_size(len(payload))
        segment = self._segment
        assert segment is not None
        if segment.position + size > segment.room:
            try:
                segment = self._rotate(BLOCK + size)
            except OSError as error:
                if self._sound and (is_shortage(error) or is_full(error)):
                    raise NothingWritten(str(error)) from error
                raise
        header = Header(BATCH, len(payload), segment.mark, self._lsn + 1, lsn, durable_lsn)
        self._sound = False
        segment.file.write(frame(header, payload), segment.position, self._durable)
        self._sound = True
        segment.position += size
        self._lsn = lsn
        if self._durable:
            self._frontier.advance(lsn)
        return JournalState(segment.room - segment.position, 0 if self._spare is None else self._spare.room, size)

    def _written(self, written: JournalState, lsn: int) -> None:
        self._left = written.left
        self._spare_room = written.spare
        self._under_way = 0
        self.size += written.frame
        if self._durable:
            self.durable_lsn = lsn

    def _rotate(self, min_size: int = 0) -> _Segment:
        """
        Continue in the spare segment. Everything before it is on the disk then.

        :param min_size: how many bytes it must have.
        :raises OSError: it can't be done. For want of room, things are as they were; else nothing is written any more.
        """
        self._check_sound()
        self._make_spare(min_size)
        old, segment, self._spare = self._segment, self._spare, None
        assert segment is not None
        self._sound = False
        if old is not None:
            old.file.sync()
        segment.first = self._lsn + 1
        opening = Header(OPENING, 0, segment.mark, self._lsn + 1, self._lsn, self._lsn)
        try:
            segment.file.write(frame(opening, b""), 0, durable=True)
        except OSError as error:
            segment.file.close()
            if is_full(error):
                # An opening frame here would mark the end of the segment that is to be continued.
                self._disk.remove(path_of(segment.number))
                self._disk.sync_folder(FOLDER)
                self._sound = True
            raise
        segment.position = BLOCK
        self._segment = segment
        self._sound = True
        self._frontier.secure(segment.number, self._lsn)
        if old is not None:
            try:
                old.file.cut(old.position)
            except OSError as error:
                # What is left over goes with the segment.
                if not is_shortage(error):
                    raise
            finally:
                old.file.close()
        return segment

    def _check_sound(self) -> None:
        if not self._sound:
            raise OSError(errno.EIO, "An earlier write to the journal has failed")

    def rotate(self) -> Deferred[tuple[int, int]]:
        """
        Start a new segment if there is room for one, and in it for all changes that were accepted.

        :returns: the number of the segment, and the LSN of the first change that is in it, or will be.
        """
        min_size = BLOCK + self._under_way + frame_size(self.end_credit())
        rotating: Deferred[None] = Deferred()
        self._rotating = rotating

        def work() -> tuple[_Segment, int, int]:
            try:
                self._rotate(min_size)
            except OSError as error:
                if not is_full(error):
                    raise
            segment = self._segment
            assert segment is not None
            return segment, segment.room - segment.position, 0 if self._spare is None else self._spare.room

        def done(outcome: tuple[_Segment, int, int]) -> tuple[int, int]:
            segment, self._left, self._spare_room = outcome
            self.durable_lsn = max(self.durable_lsn, segment.first - 1)
            return segment.number, segment.first

        def end(outcome: T) -> T:
            self._rotating = None
            rotating.callback(None)
            return outcome

        return self._worker.do(work).addCallback(done).addBoth(end)

    def sync(self) -> Deferred[None]:
        """Sync the written batches."""

        def work() -> int:
            self._check_sound()
            if self._segment is not None:
                self._sound = False
                self._segment.file.sync()
                self._sound = True
                if not self._durable:
                    self._frontier.advance(self._lsn)
            return self._lsn

        def done(lsn: int) -> None:
            self.durable_lsn = max(self.durable_lsn, lsn)

        return self._worker.do(work).addCallback(done)

    def close(self) -> None:
        """Close the segments, and remove the spare one, which is empty. The worker must have finished."""
        if self._segment is not None:
            self._segment.file.close()
        if self._spare is not None:
            self._spare.file.close()
            self._disk.remove(path_of(self._spare.number))
        self._segment = self._spare = None
        self._frontier.close()
