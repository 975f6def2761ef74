"""Restore of an archive into the streams of a running service."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred

from ...errors import ReplacementHasForks, StreamNotFound
from ...model import StreamRestoration, WriterState
from ...protocol.names import RESERVED_PREFIX
from ...streams import Streams
from ..context import AnyStreams, Context, spool_directory
from ..lanes import LaneFailed, Lanes
from ..pieces import Source
from ..policies import ConflictPolicy, check_policy
from ..progress import Progress, ProgressCallback, Reporter
from .entries import StreamEntry, config_of, lifetime_of, sequence_of, writer_states
from .errors import PartialRestore, RestoreInProgress
from .installing import CompleteStream, Installer
from .plan import Flag, Plan
from .reader import AppendSlice, ArchiveLimits, Event, StreamEnd, StreamStart, WriterSlice
from .source import ArchiveFile
from .staging import StagedStream, remove_leftover

#: A stream of at most so many bytes is read before it is staged, and staged while others are.
_SMALL: Final = 262_144

#: A writer takes about so many bytes.
_WRITER: Final = 200

#: The streams into which an archive is being restored.
_active: Final[WeakSet[Streams]] = WeakSet()


class RestoreStats(Struct, frozen=True):
    """
    The result of a restore.

    :ivar streams_restored: the streams that were made; ``streams_replaced`` of them replaced another.
    :ivar streams_skipped: the streams whose name another stream has, which was left as it was.
    :ivar streams_deleted: the deleted streams of the archive that were made for their forks, and deleted again.
    :ivar streams_expired: the streams that have expired since the backup. They are made for their forks only.
    :ivar appends_restored: the appends of all streams that were made.
    :ivar bytes_restored: the data of these.
    """

    streams_restored: int = 0
    streams_replaced: int = 0
    streams_skipped: int = 0
    streams_deleted: int = 0
    streams_expired: int = 0
    appends_restored: int = 0
    bytes_restored: int = 0


class _Unit(Struct):
    """
    A stream of the archive that is being read.

    :ivar flags: what is done with it.
    :ivar slices: its appends, as long as they are few bytes.
    :ivar staged: it is staged while it is read, since it is large.
    :ivar failure: an error after it was made.
    """

    number: int
    entry: StreamEntry
    flags: int
    writers: dict[str, WriterState] = {}
    slices: list[AppendSlice] = []
    appends: int = 0
    size: int = 0
    staged: StagedStream | None = None
    failure: BaseException | None = None

    @property
    def weight(self) -> int:
        """About how many bytes it takes in memory."""
        return self.size + _WRITER * len(self.writers)


class _Restore:
    """One restore."""

    def __init__(
        self,
        context: Context,
        file: ArchiveFile,
        policy: ConflictPolicy,
        new_incarnation: bool,
        progress: ProgressCallback | None,
    ) -> None:
        self._context = context
        self._streams = streams = context.streams
        self._file = file
        self._new_incarnation = new_incarnation
        self._reporter = Reporter(progress, streams.turns.seconds)
        self._plan = Plan(streams, policy, new_incarnation, context.clock.wall, partial(remove_leftover, streams))
        self.stats = RestoreStats()
        self._totals = (0, 0)
        self._done = (0, 0, 0)
        self._lanes = Lanes()
        self._installer = Installer(streams, policy, self._plan, self._count)
        # The present stream of the archive.
        self.name = ""
        self._unit: _Unit | None = None

    async def verify(self) -> None:
        """
        Verify the whole archive, and plan the restore.

        :raises TransferError: it cannot be restored. Nothing was written.
        """
        streams = size = 0
        async for event, position in self._file.events(check_messages=True):
            await self._plan.note(event)
            if isinstance(event, StreamEnd):
                streams += 1
                size += event.entry.tail - event.entry.base
                await self._context.pause()
            self._reporter.report(lambda: Progress("verifying", streams, None, 0, position, self._file.size))  # noqa: B023 (called at once)
        await self._plan.finish()
        self._totals = (streams, size)

    async def run(self) -> None:
        """
        Restore the streams.

        :raises StreamsError: one cannot be restored.
        """
        try:
            async for event, _ in self._file.events(check_messages=False):
                await self._take(event)
                self._reporter.report(self._progress)
            await self._lanes.finish()
            for number, name in self._installer.blocked():
                self.name = name
                await self._installer.install_blocked(number)
            for _, name in self._installer.blocked():
                self.name = name
                raise ReplacementHasForks(name)
            self._reporter.report(self._progress, end=True)
        finally:
            await self._lanes.stop()
            await self._clean_up()

    def _progress(self) -> Progress:
        streams, appends, size = self._done
        return Progress("restoring", streams, self._totals[0], appends, size, self._totals[1])

    async def _clean_up(self) -> None:
        """Delete what is staged."""
        if self._unit is not None and self._unit.staged is not None:
            await self._unit.staged.discard()
        await self._installer.discard()

    # The events of a stream

    async def _take(self, event: Event) -> None:
        if isinstance(event, StreamStart):
            await self._context.pause()
            self.name = event.entry.name
            self._unit = _Unit(event.number, event.entry, self._plan.flags[event.number])
        unit = self._unit
        assert unit is not None
        if isinstance(event, WriterSlice):
            if unit.flags & Flag.MADE:
                unit.writers.update(writer_states(event.writers))
        elif isinstance(event, AppendSlice):
            if unit.flags & Flag.MADE:
                await self._append(unit, event)
            streams, appends, size = self._done
            self._done = streams, appends + len(event.sizes), size + len(event.data)
        elif isinstance(event, StreamEnd):
            await self._end(unit)

    async def _append(self, unit: _Unit, appends: AppendSlice) -> None:
        unit.appends += len(appends.sizes)
        unit.size += len(appends.data)
        unit.slices.append(appends)
        if unit.size <= _SMALL:
            return
        await self._context.relieve()
        if unit.staged is None:
            # It is larger than what may be under way: alone.
            await self._lanes.finish()
            self.name = unit.entry.name
            unit.staged = StagedStream(self._context, unit.entry)
            await self._stage(unit, unit.staged)
        else:
            await unit.staged.append(unit.slices.pop())

    async def _stage(self, unit: _Unit, staged: StagedStream) -> None:
        """Create a stream, and make the appends that were read; the first one with the creation."""
        source = self._installer.staged_name(self._plan.parents[unit.number]) or unit.entry.source
        slices, first = unit.slices, b""
        if source is None and slices and len(slices[0].sizes) == 1:
            first = slices[0].data
        await staged.create(source, first)
        for appends in slices[1 if first else 0 :]:
            await staged.append(appends)
        if unit.staged is not None:
            unit.slices = []

    async def _end(self, unit: _Unit) -> None:
        streams, appends, size = self._done
        self._done = streams + 1, appends, size
        self._unit = None
        if unit.flags & Flag.EXISTS:
            self._count(streams_skipped=1)
        elif unit.flags & Flag.EXPIRED:
            self._count(streams_expired=1)
        if not unit.flags & Flag.MADE:
            return
        if unit.staged is not None:
            await self._finish(unit, unit.staged)
            return
        await self._context.relieve()
        await self._lanes.room(unit.weight)
        self._lanes.start(unit.entry.name, unit.weight, partial(self._make, unit), unit.number)

    async def _make(self, unit: _Unit) -> None:
        """Stage and install a stream that was read."""
        if unit.failure is not None:
            raise unit.failure
        parent = self._plan.parents[unit.number]
        await self._lanes.running(parent)
        if self._lanes.is_open(parent):
            # It failed, and is tried again before this one is.
            raise StreamNotFound(unit.entry.source or "")
        await self._finish(unit, StagedStream(self._context, unit.entry))

    async def _finish(self, unit: _Unit, staged: StagedStream) -> None:
        """Complete a staged stream, and install it, or keep it for its forks."""
        number = unit.number
        try:
            if unit.staged is None:
                await self._stage(unit, staged)
            await staged.finish()
        except BaseException:
            await staged.discard()
            raise
        complete = CompleteStream(unit.entry.name, staged, self._restoration(unit))
        if not unit.flags & Flag.VISIBLE:
            self._installer.keep(number, complete)
        else:
            try:
                made = await self._installer.install(number, complete)
            except BaseException:
                await staged.discard()
                raise
            try:
                await self._installer.note_made(made)
            except BaseException as error:
                unit.failure = error
                raise
        self._count(appends_restored=unit.appends, bytes_restored=unit.size)

    def _count(self, **more: int) -> None:
        stats = self.stats
        self.stats = replace(stats, **{name: getattr(stats, name) + count for name, count in more.items()})

    def _restoration(self, unit: _Unit) -> StreamRestoration | None:
        """
        Return the state of a stream besides its bytes. To restore a stream counts as a use of it.

        :returns: None if the stream does not get its name.
        """
        entry, flags = unit.entry, unit.flags
        is_deleted = entry.deleted and not flags & Flag.EXPIRED and not entry.name.startswith(RESERVED_PREFIX)
        if not flags & Flag.VISIBLE and not is_deleted:
            return None
        return StreamRestoration(
            config_of(entry),
            lifetime_of(entry.lifetime),
            entry.closed,
            sequence_of(entry),
            {} if entry.deleted else unit.writers,
            entry.created_at,
            entry.updated_at,
            None,
            None if self._new_incarnation else entry.incarnation,
            is_deleted,
        )


def restore_streams(
    service: AnyStreams,
    source: Source,
    *,
    on_conflict: ConflictPolicy = "skip",
    new_incarnation: bool = False,
    limits: ArchiveLimits = ArchiveLimits(),  # noqa: B008 (frozen)
    progress: ProgressCallback | None = None,
    reactor: Any = None,
    directory: str | os.PathLike[str] | None = None,
) -> Deferred[RestoreStats]:
    """
    Restore the streams of an archive.

    The whole archive is verified first; if anything is wrong with it, nothing is written. Then each stream is staged
    and installed in one step: at each moment, and after a crash, it is as it was before or as it is in the archive. A
    second restore of the same archive completes one that was interrupted.

    Clients go on at their offsets, and idempotent producers at their epochs and sequence numbers. To restore a stream
    counts as a use of it, so its TTL begins again. A stream that has expired since the backup is not restored.

    :param service: a stream service, or a :class:`durable_streams.server.StreamService`, that is open.
    :param source: a binary file, which is read in a thread, or an asynchronous iterable of pieces. What cannot be read
        twice is copied into a temporary file.
    :param on_conflict: what is done if a stream exists: leave it as it is, restore nothing at all, or replace it.
    :param new_incarnation: whether restored streams get new offsets; then old ones answer 410 Gone.
    :param limits: what an archive may have.
    :param progress: called a few times in a second, in the phases ``verifying`` and ``restoring``.
    :param reactor: None for the installed reactor.
    :param directory: for a temporary file; None for ``TMPDIR``, or else ``/var/tmp``.
    :returns: fires with what was restored. To cancel it ends the restore, between streams or within one.
    :raises ArchiveInvalid: the archive is damaged, incomplete or impossible. Nothing was written.
    :raises RestoreConflict: a stream exists, or cannot be replaced. Nothing was written.
    :raises RestoreInProgress: another restore has not ended. Nothing was written.
    :raises PartialRestore: a stream could not be restored. Those before it are, and each is whole.
    :raises SpoolFailed: the temporary file cannot be written. Nothing was written.
    :raises Unavailable: the service is not open, or its storage has failed. Nothing was written.
    :raises OSError: the source cannot be read.
    :raises ValueError: there is no such policy.
    """
    check_policy(on_conflict)
    context = Context(service, reactor)
    file = ArchiveFile(context, source, limits, spool_directory(directory))
    restore = _Restore(context, file, on_conflict, new_incarnation, progress)
    return Deferred.fromCoroutine(_restore(context, file, restore, on_conflict))


async def _restore(context: Context, file: ArchiveFile, restore: _Restore, policy: ConflictPolicy) -> RestoreStats:
    if context.streams in _active:
        raise RestoreInProgress
    _active.add(context.streams)
    try:
        await context.opened()
        context.check_writable()
        await file.open()
        await restore.verify()
        try:
            await restore.run()
        except CancelledError:
            raise
        except LaneFailed as failed:
            done, error = restore.stats.streams_restored, failed.error
            raise PartialRestore(failed.name, done, error, policy, failed.later) from error
        except Exception as error:
            raise PartialRestore(restore.name, restore.stats.streams_restored, error, policy) from error
        return restore.stats
    finally:
        _active.discard(context.streams)
        await file.close()
        context.blocking.close()
