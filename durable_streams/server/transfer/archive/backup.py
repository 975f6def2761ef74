"""Backup of the streams of a running service."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from operator import sub
from typing import Any, Final

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from ...errors import StreamError, StreamGone, StreamNotFound
from ...interfaces import settle
from ...model import StreamRecord
from ...protocol.names import RESERVED_PREFIX
from ...release import version_of_server
from ..context import AnyStreams, Context
from ..pieces import Destination, write_pieces
from ..progress import Progress, ProgressCallback, Reporter
from .errors import BackupFailed
from .layout import PART_BYTES
from .name_table import NameTable
from .packing import DEFAULT_LEVEL, ArchiveTotals
from .writer import ArchiveWriter

#: How many ends of appends are asked for at once.
_ENDS: Final = 16_384

#: How much is compressed in one call of the thread: bytes of data, and streams and groups of appends.
_BATCH_BYTES: Final = PART_BYTES
_BATCH_STEPS: Final = 512

#: What a writer counts towards a batch, in bytes.
_WRITER_BYTES: Final = 64

#: The size of the pieces of an archive, in bytes.
_OUT: Final = 131_072


class ArchiveBackup:
    """
    A backup: an asynchronous iterable of the pieces of an archive, of at most 128 KiB.

    Each stream is in the archive as it was at one committed moment; appends go on meanwhile. Streams that are created
    during the backup may be in it or not. A stream that is deleted while it is read is left out. A fork's source is
    always in the archive, even if it was deleted or is not among the names.

    :param service: the streams.
    :param names: the streams to back up, besides the sources of forks; None for all. Names that do not exist are
        ignored.
    :param prefix: back up only streams whose name begins with it; for all names.
    :param level: the level of compression, from 1 to 19.
    :param progress: called in intervals.
    :param reactor: None for the installed reactor.
    """

    def __init__(
        self,
        service: AnyStreams,
        names: Iterable[str] | None = None,
        *,
        prefix: str = "",
        level: int = DEFAULT_LEVEL,
        progress: ProgressCallback | None = None,
        reactor: Any = None,
    ) -> None:
        self._context = Context(service, reactor)
        self._streams = self._context.streams
        self._selected = None if names is None else sorted(set(names))
        self._prefix = prefix
        self._writer = ArchiveWriter(self._context.clock.wall(), version_of_server(), level)
        self._reporter = Reporter(progress, self._streams.turns.seconds)
        # The streams that were written: the id, and the tail.
        self._written = NameTable(columns=2)
        self._steps: list[Callable[[], None]] = []
        self._size = 0
        self._bytes = 0

    @property
    def totals(self) -> ArchiveTotals:
        """What the archive has so far."""
        return self._writer.totals

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._pieces()

    async def write(self, destination: Destination) -> ArchiveTotals:
        """
        Write the archive; see :func:`backup_streams`.

        :returns: what the archive has.
        """
        await write_pieces(aiter(self), destination, self._context.reactor)
        return self.totals

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            await self._context.opened()
            async for record in self._records():
                async for piece in self._write_stream(record):
                    yield piece
            self._steps.append(self._writer.finish)
            async for piece in self._compressed():
                yield piece
            self._reporter.report(self._progress, end=True)
        finally:
            self._context.blocking.close()

    # The streams

    async def _names(self) -> AsyncIterator[str]:
        if self._selected is not None:
            for name in self._selected:
                if name.startswith(self._prefix) and not name.startswith(RESERVED_PREFIX):
                    yield name
            return
        async for page in self._streams.status_pages(prefix=self._prefix):
            for status in page:
                yield status.facts.name

    async def _records(self) -> AsyncIterator[StreamRecord]:
        """Find the streams, each source before its forks."""
        async for name in self._names():
            await self._context.pause()
            if name not in self._written:
                try:
                    lineage = await self._lineage(await settle(self._streams.record(name)))
                except (StreamNotFound, StreamGone):
                    continue
                for record in lineage:
                    # A source may have been left out meanwhile, and its forks with it.
                    if self._is_written(record.source, record):
                        yield record

    async def _lineage(self, record: StreamRecord) -> list[StreamRecord]:
        """
        Return a stream and those of its sources that are not written yet, the first source first.

        The list is empty if a source was written as it was before the fork was made: the stream was created during
        the backup.
        """
        lineage = [record]
        while record.source is not None and not self._is_written(record.source, record):
            if record.source in self._written:
                return []
            source = await settle(self._streams.record(record.source, hidden=True))
            if source.facts.id != record.source_id:
                return []
            if source.facts.name.startswith(RESERVED_PREFIX):
                # A restore has staged it, and has not deleted it yet.
                source = replace(source, deleted=True)
            lineage.append(source)
            record = source
        return lineage[::-1]

    def _is_written(self, source: str | None, fork: StreamRecord) -> bool:
        """Return whether a fork's source is written, up to the fork point; true if it is no fork."""
        if source is None:
            return True
        written = self._written.get(source)
        return written is not None and written[0] == fork.source_id and written[1] >= fork.base

    async def _write_stream(self, record: StreamRecord) -> AsyncIterator[bytes]:
        facts = record.facts
        self._written.add(facts.name, facts.id, record.tail)
        self._add(partial(self._writer.begin_stream, record), _WRITER_BYTES * len(record.writers))
        try:
            async for step, size in self._appends(record):
                self._add(step, size)
                if self._size >= _BATCH_BYTES or len(self._steps) >= _BATCH_STEPS:
                    async for piece in self._compressed():
                        yield piece
        except (StreamNotFound, StreamGone):
            self._written.put(facts.name, 0, 0)
            self._steps.append(self._writer.leave_stream_out)
        except StreamError as error:
            raise BackupFailed(facts.name, error) from error
        else:
            self._steps.append(self._writer.end_stream)

    # The appends of a stream

    async def _appends(self, record: StreamRecord) -> AsyncIterator[tuple[Callable[[], None], int]]:
        """Read a stream's own appends; return the steps that write them, each with its number of bytes."""
        position, tail = record.base, record.tail
        while position < tail:
            ends = await settle(self._streams.append_ends(record.facts, position, _ENDS, hidden=True))
            ends = ends[: bisect_right(ends, tail)]
            first = 0
            while first < len(ends):
                past = max(bisect_right(ends, position + PART_BYTES, first), first + 1)
                sizes = _sizes(position, ends[first:past])
                data = await self._read(record, position, min(ends[past - 1], position + PART_BYTES))
                yield partial(self._writer.add_appends, sizes, data), len(data)
                position += len(data)
                while position < ends[past - 1]:
                    data = await self._read(record, position, min(ends[past - 1], position + PART_BYTES))
                    yield partial(self._writer.add_data, data), len(data)
                    position += len(data)
                first = past

    async def _read(self, record: StreamRecord, start: int, end: int) -> bytes:
        await self._context.pause()
        return await settle(self._streams.read_range(record.facts, start, end, hidden=True))

    # The archive

    def _add(self, step: Callable[[], None], size: int) -> None:
        self._steps.append(step)
        self._size += size
        self._bytes += size

    async def _compressed(self) -> AsyncIterator[bytes]:
        """Compress what was read, in the thread; return the archive's next pieces."""
        steps, self._steps, self._size = self._steps, [], 0
        packed = memoryview(await self._context.blocking.do(partial(_run, steps, self._writer)))
        self._reporter.report(self._progress)
        for start in range(0, len(packed), _OUT):
            yield bytes(packed[start : start + _OUT])

    def _progress(self) -> Progress:
        totals, figures = self._writer.totals, self._streams.figures()
        streams, size = (
            (figures.streams, figures.bytes) if self._selected is None and not self._prefix else (None, None)
        )
        return Progress("backing up", totals.streams, streams, totals.appends, self._bytes, size)


def _sizes(start: int, ends: Sequence[int]) -> list[int]:
    """Return the sizes of appends that follow each other."""
    return list(map(sub, ends, [start, *ends[:-1]]))


def _run(steps: list[Callable[[], None]], writer: ArchiveWriter) -> bytes:
    for step in steps:
        step()
    return writer.take()


def backup_streams(
    service: AnyStreams,
    destination: Destination,
    names: Iterable[str] | None = None,
    *,
    prefix: str = "",
    level: int = DEFAULT_LEVEL,
    progress: ProgressCallback | None = None,
    reactor: Any = None,
) -> Deferred[ArchiveTotals]:
    """
    Write an archive of streams; see :class:`ArchiveBackup`.

    :param service: a stream service, or a :class:`durable_streams.server.StreamService`, that is open.
    :param destination: a binary file, which is written in a thread, or a function that is called with each piece, and
        whose result is awaited if it is awaitable.
    :param names: the streams to back up; None for all. Names that do not exist are ignored.
    :param prefix: back up only streams whose name begins with it.
    :param level: the level of compression, from 1 to 19.
    :param progress: called a few times in a second.
    :param reactor: None for the installed reactor.
    :returns: fires with what the archive has. To cancel it ends the backup.
    :raises BackupFailed: a stream cannot be read. The archive is incomplete, and is recognised as such.
    :raises Unavailable: the service is not open.
    :raises OSError: the destination cannot be written.
    """
    backup = ArchiveBackup(service, names, prefix=prefix, level=level, progress=progress, reactor=reactor)
    return Deferred.fromCoroutine(backup.write(destination))
