"""Checkpoints: bytes are moved from the journal to packs and own files, the streams are listed, and the journal is cut.

The catalogue is read in slices between other work, and files are written in a thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from msgspec import Struct
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import InsufficientStorage, Unavailable
from ..catalogue import Catalogue
from ..disk import Disk, File, is_full
from ..shortages import is_shortage
from ..workers import Worker
from . import checkpoint as checkpoints
from . import journal
from .checkpoint import CheckpointFile, MoreWriters
from .content import FileContent
from .files import OpenFiles
from .journal import Journal
from .opening import LoadedDirectory
from .places import (
    INDEX_ENTRY_SIZE,
    OWN_FILE,
    PACKS,
    AppendRun,
    Piece,
    data_path,
    index_entries,
    index_path,
    is_piece,
    pack_path,
    piece_frame,
    read_piece,
    stream_folder,
)
from .recovery import segment_numbers
from .settings import FileSettings
from .snapshots import entry_slices
from .stream import FileStream
from .verifying import UNREADABLE, Flaw, whole_appends, with_damage_kept

#: How many pieces a stream may have before they become one.
_PIECES: Final = 8

#: How much is written at a time, in bytes, before others get their turn.
_SLICE_BYTES: Final = 4 << 20

#: How many appends of a stream are moved at a time, at the most.
_SLICE_APPENDS: Final = 16_384

#: How many bytes the journal may grow before a checkpoint is made for a writer of much data.
_PRESSED_BYTES: Final = 8 << 20

#: When less than this share of a pack is needed, the rest is written anew.
_LIVE_SHARE: Final = 0.5

#: How long, in seconds, after one that failed for want of room a checkpoint is tried again.
_PATIENCE: Final = 5.0

#: The fixed overhead of a checkpoint, in bytes.
_SLACK: Final = 1 << 20

_log = Logger()


class Move(Struct):
    """
    A move of a stream's bytes: its ``old`` pieces and ``recent`` bytes become one run of appends.

    :ivar kept: the pieces that stay as they are.
    :ivar filed: where the stream's own file ends, if it has one.
    :ivar to_file: whether they go there, instead of into the pack.
    """

    stream: FileStream
    old: tuple[Piece, ...]
    kept: tuple[Piece, ...]
    recent: AppendRun
    filed: int
    filed_appends: int
    to_file: bool


class Relocation(Struct):
    """
    The new places of a stream's bytes.

    :ivar flaws: places whose bytes are damaged or unreadable.
    """

    stream: FileStream
    pieces: tuple[Piece, ...]
    filed: int
    filed_appends: int
    flaws: Sequence[Flaw] = ()


class FileEnd(NamedTuple):
    """The end of a stream's own file before a checkpoint wrote to it: its bytes and appends."""

    stream_id: int
    filed: int
    filed_appends: int


class Pack:
    """A pack that is being filled. Every method blocks, and may raise OSError."""

    def __init__(self, disk: Disk, number: int) -> None:
        self._disk = disk
        self.number = number
        self.size = 0
        self._file: File | None = None

    def add(self, frames: Sequence[bytes]) -> None:
        """Append frames of pieces."""
        if self._file is None:
            self._disk.make_folder(PACKS)
            self._file = self._disk.open(pack_path(self.number), new=True)
        self._file.write(frames, self.size)
        self.size += sum(map(len, frames))

    def complete(self) -> None:
        """Sync and close the pack."""
        if self._file is not None:
            self._file.sync()
            self._file.close()
            self._disk.sync_folder(PACKS)

    def abandon(self) -> None:
        """Remove the incomplete pack."""
        if self._file is not None:
            self._file.close()
            self._disk.remove(pack_path(self.number))


class Subject(NamedTuple):
    """
    The parts of the storage that a checkpoint needs.

    :ivar catalogue: all streams, hidden ones too.
    :ivar content: the bytes of the streams.
    :ivar sync: waits until all changes accepted so far are committed and synced.
    :ivar discard: removes the files of streams whose removal is on the disk.
    :ivar stop: stops all writing after a failure.
    """

    catalogue: Catalogue[FileStream]
    content: FileContent
    sync: Callable[[], Awaitable[None]]
    discard: Callable[[], None]
    stop: Callable[[Failure], None]


class Checkpointer:
    """
    Makes checkpoints, one at a time, when the journal has grown enough.

    :ivar packs: the packs that there are, with their sizes in bytes.

    Bytes of deleted streams stay in packs until a checkpoint moves what is live out of them. That happens when the
    journal has grown, or when packs take more than twice their live bytes.
    """

    def __init__(
        self,
        subject: Subject,
        settings: FileSettings,
        disk: Disk,
        files: OpenFiles,
        written: Journal,
        worker: Worker,
        clock: IReactorTime,
        opened: LoadedDirectory,
    ) -> None:
        self._subject = subject
        self._stored = subject.content
        self.settings = settings
        self._disk = disk
        self._files = files
        self._journal = written
        self._worker = worker
        self._clock = clock
        self._number = opened.checkpoint
        self._covered = -opened.journal_size
        self._checkpoint_size = 0
        self.packs = dict(opened.packs)
        # The packs that the last checkpoint needs no more, and whose files are there yet.
        self._unneeded: list[int] = []
        self._next_pack = max(self.packs, default=0) + 1
        # Bytes of frames that streams read, by pack and altogether; and of the packs, which have dead ones as well.
        self._live = dict.fromkeys(self.packs, 0)
        self._live_bytes = 0
        self._packed_bytes = sum(self.packs.values())
        for stream in opened.streams:
            self._count(stream.pieces, 1)
        # Of the running checkpoint: the packs that it empties, and the own files that it has begun.
        self._sparse: set[int] = set()
        self._begun: list[FileEnd] = []
        self._running: Deferred[None] | None = None
        self._soon: IDelayedCall | None = None
        self._not_before = 0.0
        self._stopping = False

    # When

    def consider(self) -> None:
        """Make a checkpoint if the journal has grown enough since the last, or packs have too many dead bytes."""
        settings = self.settings
        # The journal may grow by as much as a checkpoint takes, so that a byte is written some few times. But appends
        # are refused when it has grown by max_behind_bytes, and without appends no checkpoint would ever begin.
        due_at = max(settings.checkpoint_bytes, min(self._checkpoint_size, settings.max_behind_bytes // 2))
        if (
            self.behind >= due_at
            # A checkpoint writes down all streams, so it must give back more than it takes.
            or self._packed_bytes - 2 * self._live_bytes >= max(settings.reclaim_bytes, self._checkpoint_size)
        ):
            self.start()

    def discard(self, streams: Iterable[FileStream]) -> None:
        """Count the packed bytes of purged streams as dead."""
        for stream in streams:
            self._count(stream.pieces, -1)
        self.consider()

    def _count(self, pieces: Iterable[Piece], sign: int) -> None:
        """Add the sizes of pieces to the live bytes of their packs, or subtract them."""
        for piece in pieces:
            self._live[piece.pack] = self._live.get(piece.pack, 0) + sign * piece.frame
            self._live_bytes += sign * piece.frame

    @property
    def behind(self) -> int:
        """The number of bytes that the journal has grown since the last checkpoint."""
        return self._journal.size - self._covered

    def press(self) -> bool:
        """
        Make checkpoints earlier than usual, for a writer of much data that keeps pace with them.

        :returns: whether the journal has grown by half more than one is due at, and one is under way.
        """
        settings = self.settings
        due_at = min(settings.checkpoint_bytes, max(_PRESSED_BYTES, self._checkpoint_size))
        if self.behind >= due_at:
            self.start()
        return self._running is not None and self.behind > due_at * 3 // 2

    @property
    def room(self) -> int:
        """About how many bytes a checkpoint may take: the journal's bytes and an entry for each stream."""
        return self.behind + 2 * self._checkpoint_size + _SLACK

    def make_room(self) -> Deferred[None] | None:
        """
        Make a checkpoint if the journal has grown at all: it gives back the room that the journal takes.

        :returns: a Deferred that fires when it has ended; None if no checkpoint is made.
        """
        if self.behind:
            self.start()
        return self._end_of_running()

    def start_soon(self) -> None:
        """Make a checkpoint when the reactor runs."""
        self._soon = self._clock.callLater(0, self.start)

    def start(self) -> None:
        """Make a checkpoint, if none is under way, and none failed a moment ago."""
        if self._running is None and not self._stopping and self._clock.seconds() >= self._not_before:
            running = self._running = Deferred.fromCoroutine(self._make())
            running.addBoth(self._over)

    def _over(self, outcome: Failure | None) -> None:
        self._running = None
        if not isinstance(outcome, Failure):
            # Streams may have been deleted while it was made, and nothing may be written after that.
            self.consider()
            return
        self._not_before = self._clock.seconds() + _PATIENCE
        if is_full(outcome.value):
            _log.warn("No room on the disk for a checkpoint: {why}", why=outcome.getErrorMessage())
        elif is_shortage(outcome.value):
            _log.warn("Postponed a checkpoint because of a shortage: {why}", why=outcome.getErrorMessage())
        elif not outcome.check(_Stopped):
            if not outcome.check(OSError, Unavailable, InsufficientStorage):
                _log.failure("A checkpoint failed.", failure=outcome)
            self._subject.stop(outcome)

    def stop(self) -> Deferred[None]:
        """Make no more checkpoints; the Deferred fires when the running one has ended."""
        self._stopping = True
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        return self._end_of_running() or succeed(None)

    def _end_of_running(self) -> Deferred[None] | None:
        if self._running is None:
            return None
        ended: Deferred[None] = Deferred()
        self._running.addBoth(lambda _: ended.callback(None))
        return ended

    # How

    async def _make(self) -> None:
        grown = self._journal.size
        segment, lsn = await self._journal.rotate()
        self._subject.discard()
        pack = Pack(self._disk, self._next_pack)
        self._next_pack += 1
        self._begun = []
        try:
            moved = await self._move(pack)
            await self._worker.do(pack.complete)
        except BaseException:
            await self._worker.do(pack.abandon)
            await self._worker.do(self._take_back)
            raise
        if pack.size:
            self.packs[pack.number] = pack.size
            self._packed_bytes += pack.size
        for slice_ in _slices(moved, self.settings.slice_streams):
            for place in slice_:
                self._put(place)
            await self._others_turn()
        file = await self._worker.do(lambda: CheckpointFile(self._disk, self._number + 1))
        try:
            packs = await self._write_down(file)
            values_lsn = await self._write_values(file)
            last_id = self._subject.catalogue.last_id
            await self._subject.sync()
            await self._worker.do(lambda: file.complete(segment, lsn, last_id, packs, values_lsn))
        except BaseException:
            await self._worker.do(file.abandon)
            raise
        self._number = file.number
        self._covered = grown
        self._checkpoint_size = file.size
        self._unneeded += [number for number in self.packs if number not in packs]
        self.packs = dict(packs)
        self._live = {number: self._live.get(number, 0) for number in packs}
        # What could not be moved out of a pack is no reason to try again at once.
        self._packed_bytes = sum(size for number, size in packs.items() if number not in self._sparse)
        await self._worker.do(lambda: self._cut(segment, file.number, self._unneeded))
        self._unneeded = []

    async def _others_turn(self) -> None:
        if self._stopping:
            raise _Stopped
        await deferLater(self._clock, 0)

    async def _move(self, pack: Pack) -> list[Relocation]:
        moved: list[Relocation] = []
        for slice_ in self._work(await self._streams_to_move()):
            moves = slice_
            if not self.settings.durable:
                # After a power failure, nothing would explain bytes of a stream whose creation is not on the disk.
                await self._journal.sync()
            moved += await self._worker.do(lambda moves=moves: self._carry_out(moves, pack))  # type: ignore[misc]
            await self._others_turn()
        return moved

    async def _streams_to_move(self) -> Iterable[FileStream]:
        """Return the streams with bytes in the journal only, or in a pack that has mostly dead bytes."""
        sparse = self._sparse = {
            number for number, size in self.packs.items() if self._live.get(number, 0) < _LIVE_SHARE * size
        }
        chosen = self._stored.dirty
        if sparse:
            for slice_ in _slices(list(self._subject.catalogue.streams.values()), 4 * self.settings.slice_streams):
                for stream in slice_:
                    if any(piece.pack in sparse for piece in stream.pieces):
                        chosen[stream.facts.id] = stream
                await self._others_turn()
        return chosen.values()

    def _work(self, streams: Iterable[FileStream]) -> Iterator[list[Move]]:
        moves: list[Move] = []
        size = 0
        for stream in streams:
            for move in self._plan(stream):
                moves.append(move)
                size += len(move.recent.data) + sum(piece.size for piece in move.old)
                if len(moves) >= self.settings.slice_streams or size >= _SLICE_BYTES:
                    yield moves
                    moves = []
                    size = 0
        if moves:
            yield moves

    def _plan(self, stream: FileStream) -> Iterator[Move]:
        """Yield the moves of a stream's bytes; each is planned when it is requested."""
        if stream.gone:
            return
        packed = sum(piece.size for piece in stream.pieces)
        if packed + max(stream.committed - stream.settled, 0) >= OWN_FILE:
            yield from self._plan_file(stream)
        else:
            move = self._plan_pack(stream)
            if move is not None:
                yield move

    def _plan_file(self, stream: FileStream) -> Iterator[Move]:
        """Plan to move a stream's bytes to its own file, in parts that are copied without holding up others."""
        stream.begun = True
        pieces, filed, filed_appends = stream.pieces, stream.filed, stream.filed_appends
        start, end = stream.settled, stream.committed
        while not stream.gone:
            content = _recent_content(stream, start, _end_of_part(stream, start, end))
            yield Move(stream, pieces, (), content, filed, filed_appends, to_file=True)
            filed += sum(piece.size for piece in pieces) + len(content.data)
            filed_appends += sum(piece.appends for piece in pieces) + len(content.ends)
            pieces = ()
            start += len(content.data)
            if start >= end:
                return

    def _plan_pack(self, stream: FileStream) -> Move | None:
        """Plan to move a stream's new bytes, and small pieces of it, to the pack."""
        content = _recent_content(stream, stream.settled, stream.committed)
        pieces = stream.pieces
        # Pieces get fewer as they get older and larger, so that a byte is written some few times.
        kept = len(pieces)
        size = len(content.data)
        if len(pieces) >= _PIECES or any(piece.pack in self._sparse for piece in pieces):
            kept = 0
        while kept and pieces[kept - 1].size <= size:
            size += pieces[kept - 1].size
            kept -= 1
        if not content.data and kept == len(pieces):
            return None
        return Move(stream, pieces[kept:], pieces[:kept], content, stream.filed, stream.filed_appends, to_file=False)

    def _carry_out(self, moves: Sequence[Move], pack: Pack) -> list[Relocation]:
        """Write the bytes of some moves to the pack and to own files. Runs in the worker's thread."""
        moved = []
        frames: list[bytes] = []
        position = pack.size
        for move in moves:
            kept, to_file = move.kept, move.to_file
            flaws: list[Flaw]
            try:
                content, flaws = self._gathered(move)
            except _CannotReadError as error:
                # What can't be read stays where it is. It may be readable at another time.
                content, flaws = move.recent, [error.flaw]
                kept, to_file = (*kept, *move.old), False
            if to_file:
                self._begun.append(FileEnd(move.stream.facts.id, move.filed, move.filed_appends))
                moved.append(self._file(move, content, flaws))
                continue
            if content.data:
                frames.append(piece_frame(move.stream.facts.id, content, bool(flaws) and content is not move.recent))
                kept = (*kept, Piece(pack.number, position, content.start, len(content.data), len(content.ends)))
                position += len(frames[-1])
            moved.append(Relocation(move.stream, kept, move.filed, move.filed_appends, flaws))
        if frames:
            pack.add(frames)
        return moved

    def _gathered(self, move: Move) -> tuple[AppendRun, list[Flaw]]:
        """
        Collect the old and the recent bytes of a move.

        Bytes that are damaged stay damaged: they get a checksum that is not theirs.

        :returns: the content, and the places where it is damaged.
        :raises _CannotReadError: some of it can't be read.
        """
        flaws: list[Flaw] = []
        if not move.old:
            return move.recent, flaws
        start = move.old[0].start
        parts = []
        ends, checksums = AppendRun.no_numbers("Q"), AppendRun.no_numbers("I")
        for piece in move.old:
            content = self._read_piece(move.stream.facts.id, piece, flaws)
            parts.append(content.data)
            ends += content.ends
            checksums += content.checksums
        data = b"".join([*parts, move.recent.data])
        return AppendRun(start, data, ends + move.recent.ends, checksums + move.recent.checksums), flaws

    def _read_piece(self, stream_id: int, piece: Piece, flaws: list[Flaw]) -> AppendRun:
        path = pack_path(piece.pack)
        where = f"{path} at {piece.position}"
        try:
            data = self._files.read(path, piece.position, piece.frame)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            raise _CannotReadError(Flaw(where, f"bytes can't be read: {error.strerror}")) from None
        if len(data) < piece.frame:
            raise _CannotReadError(Flaw(where, f"the file ends before {piece.position + piece.frame}"))
        content = read_piece(data, piece.appends, piece.start)
        if is_piece(data, stream_id, piece) or len(whole_appends(content, piece.end)) == piece.appends:
            return content
        flaws.append(Flaw.of_checksum(path, piece.position, piece.start, piece.end))
        return with_damage_kept(content, piece.end)

    def _file(self, move: Move, content: AppendRun, flaws: Sequence[Flaw]) -> Relocation:
        stream_id = move.stream.facts.id
        new = not move.filed
        if new:
            self._disk.make_folder(stream_folder(stream_id))
        entries = index_entries(content.ends, content.checksums)
        for path, data, position in (
            (data_path(stream_id), content.data, move.filed),
            (index_path(stream_id), entries, move.filed_appends * INDEX_ENTRY_SIZE),
        ):
            if new:
                # The file of a failed attempt may be there still.
                self._disk.remove(path)
            file = self._disk.open(path, new)
            try:
                file.write([data], position)
                file.sync()
            finally:
                file.close()
        if new:
            self._disk.sync_folder(stream_folder(stream_id))
        return Relocation(
            move.stream, (), move.filed + len(content.data), move.filed_appends + len(content.ends), flaws
        )

    def _take_back(self) -> None:
        """Remove the bytes that a failed checkpoint has written to own files. Runs in the worker's thread."""
        for end in reversed(self._begun):
            for path, size in (
                (data_path(end.stream_id), end.filed),
                (index_path(end.stream_id), end.filed_appends * INDEX_ENTRY_SIZE),
            ):
                with suppress(OSError):
                    if not size:
                        self._disk.remove(path)
                        continue
                    file = self._disk.open(path)
                    try:
                        file.cut(size)
                    finally:
                        file.close()

    def _put(self, moved: Relocation) -> None:
        """Switch a stream's reads to the new places of its bytes."""
        stream = moved.stream
        if stream.gone:
            return
        self._count(stream.pieces, -1)
        self._count(moved.pieces, 1)
        stream.pieces = moved.pieces
        stream.filed = moved.filed
        stream.filed_appends = moved.filed_appends
        for flaw in moved.flaws:
            self._stored.log_damage(stream, flaw.where, flaw.what)
        self._stored.settle(stream)

    async def _write_down(self, file: CheckpointFile) -> dict[int, int]:
        """Write the entries of all streams, and return the packs that they refer to, with their sizes."""
        named: set[int] = set()
        settings = self.settings
        for slice_ in entry_slices(
            list(self._subject.catalogue.streams.values()),
            settings.slice_streams,
            settings.slice_bytes,
            self._subject.catalogue.wall_offset,
        ):
            if isinstance(slice_, MoreWriters):
                await self._worker.do(partial(file.add_writers, slice_))
            else:
                for entry in slice_:
                    named.update(piece.pack for piece in entry.pieces)
                await self._worker.do(partial(file.add, slice_))
            await self._others_turn()
        return {number: self.packs[number] for number in sorted(named)}

    async def _write_values(self, file: CheckpointFile) -> int:
        """
        Write all values, each slice as it is when it is written. Changes meanwhile are in the journal after the start.

        :returns: the LSN of the last change of values.
        """
        values = self._subject.catalogue.values
        last = ""
        while page := values.page("", last, self.settings.slice_streams, self.settings.slice_bytes):
            last = page[-1][0]
            await self._worker.do(partial(file.add_values, dict(page)))
            await self._others_turn()
        return values.lsn

    def _cut(self, segment: int, number: int, packs: Sequence[int]) -> None:
        """Remove the files that the checkpoint replaces. Runs in the worker's thread."""
        for other in checkpoints.numbers(self._disk):
            if other < number:
                self._disk.remove(checkpoints.path_of(other))
        for other in segment_numbers(self._disk):
            if other < segment:
                self._disk.remove(journal.path_of(other))
        for other in packs:
            self._files.drop(pack_path(other))
            self._disk.remove(pack_path(other))


class _CannotReadError(Exception):
    """Bytes that are to be moved can't be read."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.what)
        self.flaw = flaw


class _Stopped(Exception):
    """The storage is being closed."""


def _recent_content(stream: FileStream, start: int, end: int) -> AppendRun:
    """Copy the appends in memory between two positions, each of which is where an append ends."""
    recent = stream.recent
    if recent is None or start >= end:
        return AppendRun(start, b"", AppendRun.no_numbers("Q"), AppendRun.no_numbers("I"))
    first, last = bisect_right(recent.ends, start), bisect_right(recent.ends, end)
    return AppendRun(start, recent.slice(start, end), recent.ends[first:last], recent.checksums[first:last])


def _end_of_part(stream: FileStream, start: int, end: int) -> int:
    """Return the last end of an append, up to ``end``, for which the part that begins at ``start`` fits in a slice."""
    recent = stream.recent
    if recent is None or start >= end:
        return end
    first = bisect_right(recent.ends, start)
    last = min(bisect_right(recent.ends, min(start + _SLICE_BYTES, end)), first + _SLICE_APPENDS)
    # An append that is larger than a slice is a part by itself.
    return recent.ends[max(last - 1, first)]


def _slices(streams: Iterable[object], size: int) -> Iterator[list]:  # type: ignore[type-arg]
    items = list(streams)
    for start in range(0, len(items), size):
        yield items[start : start + size]
