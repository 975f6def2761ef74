"""Import of a transfer document."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from secrets import token_hex
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from ..errors import StreamExists, StreamGone, StreamNotFound, Unavailable
from ..interfaces import settle
from ..model import Append, Lifetime, StreamConfig, StreamRestoration
from ..protocol.content import media_type
from ..protocol.names import RESERVED_PREFIX
from .context import AnyStreams, Context, spool_directory
from .document import StreamEntry
from .errors import Conflict, PartialImport
from .intake import Batch, Intake, SpooledEntry
from .lanes import LaneFailed, Lanes
from .limits import DEFAULT_LIMITS, ImportLimits
from .parsing import is_json
from .pieces import Source, read_pieces
from .policies import ConflictPolicy, check_policy
from .progress import ImportStats, Progress, ProgressCallback, Reporter
from .staging import STAGING_TTL, remove_staged, shielded

#: Appends in progress: at most so many, and so many bytes.
_MAX_APPENDS: Final = 1024
_MAX_BYTES: Final = 4_194_304

#: The messages of a stream with at most so many bytes are read before it is begun.
_SMALL: Final = 131_072

#: If the storage is overloaded, a stream is tried again after so many seconds each.
_RETRIES: Final = (0.5, 1.0, 2.0, 4.0)


def import_streams(  # noqa: PLR0913 (all after the third are keywords)
    service: AnyStreams,
    source: Source,
    on_conflict: ConflictPolicy = "skip",
    *,
    limits: ImportLimits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    skipped: Callable[[str], object] | None = None,
    size: int | None = None,
    reactor: Any = None,
    directory: str | os.PathLike[str] | None = None,
) -> Deferred[ImportStats]:
    """
    Import the streams of a transfer document.

    The whole document is validated, and kept in temporary files, before anything is written. Then each stream becomes
    visible in one atomic step, with all of its messages. Offsets are new, a TTL begins again, and writers, Stream-Seq
    and times are not in the document. A stream whose ``expires_at`` is in the past is imported, and expired.

    :param service: a stream service, or a :class:`durable_streams.server.StreamService`, that is started.
    :param source: a binary file, which is read in a thread, or an asynchronous iterable of bytes.
    :param on_conflict: what to do with streams that exist: ``skip`` them, ``fail`` before anything is written, or
        ``replace`` each in the step in which the new one becomes visible. The limits must allow for both.
    :param limits: the limits of names and messages.
    :param progress: called a few times in a second.
    :param skipped: called with the name of each stream that is skipped.
    :param size: the length of the document in bytes, for the progress; None if it is not known, or that of a file.
    :param reactor: None for the installed reactor.
    :param directory: for temporary files; None for ``TMPDIR``, or else ``/var/tmp``.
    :returns: fires with the numbers of streams and messages. To cancel it ends the import; every stream is whole.
    :raises InvalidDocument: the document is not valid; nothing was written.
    :raises UnsupportedVersion: it has another version; nothing was written.
    :raises Conflict: a stream exists and the policy is ``fail``, or it cannot be created or replaced because of forks;
        nothing was written.
    :raises PartialImport: a stream could not be written. Those before it are imported, and some after it may be.
    :raises SpoolFailed: the temporary files cannot be written; nothing was written.
    :raises Unavailable: the service is not open, or its storage has failed; nothing was written.
    :raises OSError: the source cannot be read; nothing was written.
    :raises ValueError: there is no such policy.
    """
    check_policy(on_conflict)
    context = Context(service, reactor)
    intake = Intake(context, limits, spool_directory(directory))
    reporter = Reporter(progress, context.streams.turns.seconds)
    run = _Import(context, on_conflict, intake, reporter, skipped)
    return Deferred.fromCoroutine(run.run(source, size))


class _Import:
    """One import. Its methods are in the order in which they run."""

    def __init__(
        self,
        context: Context,
        policy: ConflictPolicy,
        intake: Intake,
        reporter: Reporter,
        skipped: Callable[[str], object] | None,
    ) -> None:
        self._context = context
        self._streams = context.streams
        self._policy = policy
        self._intake = intake
        self._reporter = reporter
        self._skipped = skipped
        self._done = ImportStats()
        self._lanes = Lanes()
        # Of streams that are not done.
        self._messages = self._size = 0

    async def run(self, source: Source, size: int | None) -> ImportStats:
        try:
            await self._context.opened()
            self._context.check_writable()
            await self._validate(source, size)
            await self._look_for_conflicts()
            await self._import_all()
            self._reporter.report(self._progress, end=True)
            return self._done
        finally:
            await self._intake.close()
            self._context.blocking.close()

    # Before the first write

    async def _validate(self, source: Source, size: int | None) -> None:
        intake = self._intake
        if size is None:
            size = _size_of(source)

        def progress() -> Progress:
            return Progress("validating", intake.index.count, None, intake.messages, intake.position, size)

        async with aclosing(read_pieces(source, self._context.reactor)) as pieces:
            async for piece in pieces:
                await intake.feed(piece)
                self._reporter.report(progress)
        await intake.finish()
        self._reporter.report(progress, end=True)

    async def _look_for_conflicts(self) -> None:
        async for page in self._intake.index.pages():
            for spooled in page:
                await self._check_conflict(spooled.entry.name)
                await self._context.pause()

    async def _check_conflict(self, name: str) -> None:
        try:
            record = await settle(self._streams.record(name))
        except StreamNotFound:
            return
        except StreamGone:
            raise Conflict(name, "was deleted, but has forks", "Nothing was written. Delete the forks first.") from None
        if self._policy == "fail":
            raise Conflict(name)
        if self._policy == "replace" and (record.forks or record.source is not None):
            reason = "has forks" if record.forks else "is a fork"
            raise Conflict(
                name, f"{reason}, and cannot be replaced", "Nothing was written. Delete it first, or skip it."
            )

    # Streams

    async def _import_all(self) -> None:
        lanes = self._lanes
        try:
            async for page in self._intake.index.pages():
                for spooled in page:
                    size = spooled.end - spooled.start
                    await lanes.room(size)
                    batches = None
                    if size <= _SMALL:
                        await self._context.relieve()
                        batches = [batch async for batch in self._intake.batches(spooled)]
                    lanes.start(spooled.entry.name, size, partial(self._import, spooled, batches))
                    await self._context.pause()
            await lanes.finish()
        except LaneFailed as failed:
            error = failed.error
            if isinstance(error, StreamExists):
                error = Conflict(failed.name, remedy="It was created during the import.")
            done = self._done.streams_imported
            raise PartialImport(failed.name, done, error, self._policy, failed.later) from failed.error
        finally:
            await lanes.stop()

    async def _import(self, spooled: SpooledEntry, batches: list[Batch] | None) -> None:
        name = spooled.entry.name
        if self._policy == "skip" and await self._exists(name):
            self._note_skipped(name)
            return
        try:
            await self._write(spooled, batches)
        except StreamExists:
            if self._policy != "skip":
                raise
            self._note_skipped(name)
        self._reporter.report(self._progress)

    async def _exists(self, name: str) -> bool:
        try:
            await settle(self._streams.status(name))
        except StreamNotFound:
            return False
        return True

    async def _write(self, spooled: SpooledEntry, batches: list[Batch] | None) -> None:
        for delay in (*_RETRIES, None):
            try:
                await self._stage_and_install(spooled, batches)
                break
            except Unavailable:
                if delay is None or self._streams.obstacle() is not None:
                    raise
                await deferLater(self._context.clock, delay)
        done = self._done
        self._done = ImportStats(
            done.streams_imported + 1,
            done.streams_skipped,
            done.messages_imported + spooled.messages,
            done.bytes_imported + spooled.size,
        )

    async def _stage_and_install(self, spooled: SpooledEntry, batches: list[Batch] | None) -> None:
        entry = spooled.entry
        staged = f"{RESERVED_PREFIX}import/{token_hex(16)}"
        config = StreamConfig(entry.content_type, Lifetime(ttl=STAGING_TTL))
        body = b""
        if batches is not None and len(batches) == 1:
            # With its creation, a stream of one append waits for two commits instead of three.
            body = batches[0].data
            if body and is_json(entry.content_type):
                body = b"[%b]" % body[:-1]
            batches = []
        installed = False
        try:
            await shielded(self._streams.create(staged, config, body))
            if batches is None:
                await self._append_all(spooled, staged, self._intake.batches(spooled))
            elif batches:
                await self._append_all(spooled, staged, _each(batches), small=True)
            await settle(self._streams.install(staged, entry.name, _restoration(entry), self._policy == "replace"))
            installed = True
        finally:
            if not installed:
                await remove_staged(self._streams, staged)

    async def _append_all(
        self, spooled: SpooledEntry, staged: str, batches: AsyncIterator[Batch], small: bool = False
    ) -> None:
        """Append all messages, and wait for their commits; there are many in progress at once, in their order."""
        media = media_type(spooled.entry.content_type)
        waiting: deque[tuple[Deferred[Any], int]] = deque()
        size = appended_messages = appended_bytes = 0
        try:
            async for batch in batches:
                if not small:
                    await self._context.relieve()
                # An empty message of a byte stream leaves nothing to append.
                outcome = self._streams.append(staged, Append(media, batch.data)) if batch.data else None
                if isinstance(outcome, Deferred):
                    waiting.append((outcome, len(batch.data)))
                    size += len(batch.data)
                while len(waiting) >= _MAX_APPENDS or size > _MAX_BYTES:
                    oldest, length = waiting.popleft()
                    size -= length
                    await oldest
                appended_messages += batch.messages
                appended_bytes += len(batch.data)
                self._messages += batch.messages
                self._size += len(batch.data)
                self._reporter.report(self._progress)
                await self._context.pause()
            while waiting:
                await waiting.popleft()[0]
        finally:
            self._messages -= appended_messages
            self._size -= appended_bytes
            if waiting:
                await DeferredList([outcome for outcome, _ in waiting], consumeErrors=True)

    def _note_skipped(self, name: str) -> None:
        done = self._done
        self._done = ImportStats(
            done.streams_imported, done.streams_skipped + 1, done.messages_imported, done.bytes_imported
        )
        if self._skipped is not None:
            self._skipped(name)

    def _progress(self) -> Progress:
        done, index = self._done, self._intake.index
        streams = done.streams_imported + done.streams_skipped
        messages = done.messages_imported + self._messages
        return Progress("importing", streams, index.count, messages, done.bytes_imported + self._size, index.size)


async def _each(batches: list[Batch]) -> AsyncIterator[Batch]:
    for batch in batches:
        yield batch


def _restoration(entry: StreamEntry) -> StreamRestoration:
    """Return the state of an imported stream. A TTL begins again, whenever it would have ended."""
    lifetime = Lifetime(expires_at=entry.expires_at) if entry.ttl is None else Lifetime(ttl=entry.ttl)
    return StreamRestoration(StreamConfig(entry.content_type, lifetime, entry.created_closed), lifetime, entry.closed)


def _size_of(source: Source) -> int | None:
    """Return how many bytes a regular file has from its position on, or None for any other source."""
    try:
        status = os.fstat(source.fileno())  # type: ignore[union-attr]
        return status.st_size - source.tell() if stat.S_ISREG(status.st_mode) else None  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return None
