"""Restore of an archive into the streams of a running service."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore

from ...errors import PathBlocked, ReplacementHasForks, StreamExists, StreamGone, StreamNotFound
from ...interfaces import settle
from ...model import StreamRestoration, WriterState
from ...protocol.names import RESERVED_PREFIX
from ...streams import Streams
from ..context import AnyStreams, Context, spool_directory
from ..importing import ConflictPolicy
from ..progress import Progress, ProgressCallback, Reporter
from .entries import StreamEntry, config_of, lifetime_of, sequence_of, writer_states
from .errors import PartialRestore, RestoreInProgress
from .plan import Flag, Plan, find
from .reader import AppendSlice, ArchiveLimits, Event, StreamEnd, StreamStart, WriterSlice
from .source import ArchiveFile, ArchiveSource
from .staging import StagedStream, remove_leftover

#: The streams into which an archive is being restored.
_active: Final[WeakSet[Streams]] = WeakSet()


#: How many streams are installed at a time.
_COMPLETIONS: Final = 32


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


class _Waiting(Struct, frozen=True):
    """A staged stream that is complete. It is installed, or deleted, when its forks are made."""

    name: str
    staged: StagedStream
    restoration: StreamRestoration | None


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
        self._policy: ConflictPolicy = policy
        self._new_incarnation = new_incarnation
        self._reporter = Reporter(progress, streams.turns.seconds)
        self._plan = Plan(streams, policy, new_incarnation, context.clock.wall, partial(remove_leftover, streams))
        self.stats = RestoreStats()
        self._totals = (0, 0)
        self._done = (0, 0, 0)
        # The present stream of the archive.
        self.name = ""
        self._number = 0
        self._stream: StagedStream | None = None
        self._writers: dict[str, WriterState] = {}
        # Streams that are being installed while the next ones are staged.
        self._free = DeferredSemaphore(_COMPLETIONS)
        self._failures: list[tuple[_Waiting, Exception]] = []
        # Sources that are not installed before their forks are made, by number.
        self._private: dict[int, _Waiting] = {}
        # Streams that replace another one after the forks of that are replaced, by number.
        self._blocked: dict[int, _Waiting] = {}

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
            await self._wait_for_completions()
            self._check_completions()
            for waiting in self._blocked.values():
                self.name = waiting.name
                raise ReplacementHasForks(waiting.name)
            self._reporter.report(self._progress, end=True)
        finally:
            await self._clean_up()

    def _progress(self) -> Progress:
        streams, appends, size = self._done
        return Progress("restoring", streams, self._totals[0], appends, size, self._totals[1])

    async def _clean_up(self) -> None:
        """Delete what is staged."""
        await self._wait_for_completions()
        failed = [waiting for waiting, _ in self._failures]
        left = [waiting.staged for waiting in (*self._private.values(), *self._blocked.values(), *failed)]
        if self._stream is not None:
            left.append(self._stream)
        for staged in reversed(left):
            await staged.discard()

    # The events of a stream

    async def _take(self, event: Event) -> None:
        if isinstance(event, StreamStart):
            await self._begin(event)
        elif isinstance(event, WriterSlice):
            if self._stream is not None:
                self._writers.update(writer_states(event.writers))
        elif isinstance(event, AppendSlice):
            if self._stream is not None:
                await self._context.relieve()
                await self._stream.append(event)
                self._count(appends_restored=len(event.sizes), bytes_restored=len(event.data))
            streams, appends, size = self._done
            self._done = streams, appends + len(event.sizes), size + len(event.data)
        else:
            await self._end(event.entry)

    async def _begin(self, event: StreamStart) -> None:
        await self._context.pause()
        entry, self._number, self.name = event.entry, event.number, event.entry.name
        self._writers = {}
        if self._plan.flags[self._number] & Flag.MADE:
            self._stream = StagedStream(self._context, entry)
            await self._stream.create(self._source(entry))

    def _source(self, entry: StreamEntry) -> str | None:
        """Return the present name of a fork's source."""
        number = self._plan.parents[self._number]
        for waiting in (self._private.get(number), self._blocked.get(number)):
            if waiting is not None:
                return waiting.staged.name
        return entry.source

    async def _end(self, entry: StreamEntry) -> None:
        number, staged = self._number, self._stream
        flags = self._plan.flags[number]
        streams, appends, size = self._done
        self._done = streams + 1, appends, size
        if flags & Flag.EXISTS:
            self._count(streams_skipped=1)
        elif flags & Flag.EXPIRED:
            self._count(streams_expired=1)
        if staged is None:
            return
        waiting = _Waiting(entry.name, staged, self._restoration(entry, flags))
        self._writers = {}
        is_family = self._plan.parents[number] or self._plan.needed[number]
        if flags & Flag.VISIBLE and not is_family and self._policy != "replace":
            await self._begin_completion(number, waiting)
            return
        await staged.finish()
        if flags & Flag.VISIBLE:
            await self._install(number, waiting)
        else:
            staged.hold()
            self._private[number] = waiting
        self._stream = None

    def _count(self, **more: int) -> None:
        stats = self.stats
        self.stats = replace(stats, **{name: getattr(stats, name) + count for name, count in more.items()})

    def _restoration(self, entry: StreamEntry, flags: int) -> StreamRestoration | None:
        """
        Return the state of a stream besides its bytes. To restore a stream counts as a use of it.

        :returns: None if the stream does not get its name.
        """
        is_deleted = entry.deleted and not flags & Flag.EXPIRED and not entry.name.startswith(RESERVED_PREFIX)
        if not flags & Flag.VISIBLE and not is_deleted:
            return None
        return StreamRestoration(
            config_of(entry),
            lifetime_of(entry.lifetime),
            entry.closed,
            sequence_of(entry),
            {} if entry.deleted else self._writers,
            entry.created_at,
            entry.updated_at,
            None,
            None if self._new_incarnation else entry.incarnation,
        )

    # Installing

    async def _begin_completion(self, number: int, waiting: _Waiting) -> None:
        """Install a stream that no other one depends on, while the next ones are staged: they share commits."""
        await self._free.acquire()
        # Until now, a cancellation leaves it to the clean-up as the present stream.
        self._stream = None
        Deferred.fromCoroutine(self._complete(number, waiting)).addBoth(lambda _: self._free.release())
        self._check_completions()

    async def _complete(self, number: int, waiting: _Waiting) -> None:
        try:
            await waiting.staged.finish()
            await self._install(number, waiting)
        except Exception as error:
            self._failures.append((waiting, error))

    async def _wait_for_completions(self) -> None:
        acquired = 0
        try:
            while acquired < _COMPLETIONS:
                await self._free.acquire()
                acquired += 1
        finally:
            # Also if it is cancelled: the clean-up waits again.
            for _ in range(acquired):
                self._free.release()

    def _check_completions(self) -> None:
        """Raise the error of the first stream that could not be installed."""
        if self._failures:
            waiting, error = self._failures[0]
            self.name = waiting.name
            raise error

    async def _install(self, number: int, waiting: _Waiting) -> None:
        """Install a stream, and those that waited for the removal of what it replaces."""
        while True:
            existing = await find(self._streams, waiting.name) if self._policy == "replace" else None
            if existing is not None and (existing.forks or existing.deleted):
                waiting.staged.hold()
                self._blocked[number] = waiting
                return
            if self._policy == "replace":
                self.name = waiting.name
            assert waiting.restoration is not None
            is_replaced = existing is not None
            staged = waiting.staged
            try:
                await settle(self._streams.install(staged.name, waiting.name, waiting.restoration, replace=is_replaced))
            except StreamExists:
                if self._policy != "skip":
                    raise
                await self._skip(number, waiting)
                return
            staged.release()
            self._blocked.pop(number, None)
            self._count(streams_restored=1, streams_replaced=is_replaced)
            await self._made(self._plan.parents[number])
            # The replaced stream may have been the last fork of one that is to be replaced as well.
            number = 0 if existing is None or existing.source is None else self._plan.number(existing.source)
            blocked = self._blocked.get(number)
            if blocked is None:
                return
            waiting = blocked

    async def _skip(self, number: int, waiting: _Waiting) -> None:
        """Leave a stream as it is that was created during the restore."""
        self._count(streams_skipped=1)
        if self._plan.needed[number]:
            waiting.staged.hold()
            self._private[number] = _Waiting(waiting.name, waiting.staged, None)
        else:
            await waiting.staged.discard()
            await self._made(self._plan.parents[number])

    async def _made(self, number: int) -> None:
        """Note that a fork of a stream was made. After the last one, a source that is not visible is removed."""
        while number:
            self._plan.needed[number] -= 1
            if self._plan.needed[number] or number not in self._private:
                return
            await self._remove(self._private.pop(number))
            number = self._plan.parents[number]

    async def _remove(self, waiting: _Waiting) -> None:
        """Delete a source, which its forks keep; under its name if it was deleted and no other stream has the name."""
        staged, name = waiting.staged, waiting.staged.name
        staged.release()
        if waiting.restoration is not None:
            with suppress(StreamExists, PathBlocked):
                await settle(self._streams.install(name, waiting.name, waiting.restoration, replace=False))
                name = waiting.name
                self._count(streams_deleted=1)
        with suppress(StreamNotFound, StreamGone):
            await settle(self._streams.delete(name))


def restore_streams(
    service: AnyStreams,
    source: ArchiveSource,
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
    """
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
        except Exception as error:
            raise PartialRestore(restore.name, restore.stats.streams_restored, error, policy) from error
        return restore.stats
    finally:
        _active.discard(context.streams)
        await file.close()
        context.blocking.close()
