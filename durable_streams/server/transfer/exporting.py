"""Export of streams to a transfer document."""

from __future__ import annotations

import os
from binascii import b2a_base64
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from ..errors import StreamError, StreamGone, StreamNotFound
from ..interfaces import settle
from ..model import StreamFacts, StreamRecord
from ..protocol.messages import single_values
from ..protocol.names import RESERVED_SEGMENT
from ..release import version_of_server
from .context import AnyStreams, Context, spool_directory
from .document import (
    MESSAGE_END,
    EntryFigures,
    StreamEntry,
    document_end,
    document_start,
    message,
    message_start,
    stream_end,
    stream_start,
)
from .errors import ExportFailed
from .pieces import PIECE, Destination, write_pieces
from .progress import ExportStats, Progress, ProgressCallback, Reporter
from .spool import SpoolFile

#: How many ends of appends are asked for at once.
_ENDS: Final = 4096

#: How much is encoded in one step, in bytes: a multiple of three, so that base64 has no padding in the middle.
_STEP: Final = 49_152

#: The size of the pieces of a document, in bytes.
_OUT: Final = 65_536


class DocumentExport:
    """
    An export: an asynchronous iterable of the pieces of a document, of about 64 KiB.

    Each stream is exported as it is at one moment, without what is appended later. A stream that is deleted or expires
    before it is encoded is left out. A stream of more than 256 KiB of text is kept in a temporary file until its
    messages are counted, since their number comes before them.

    :param service: the streams.
    :param names: the streams to export; None for all. Names that do not exist are ignored.
    :param progress: called in intervals.
    :param reactor: None for the installed reactor.
    :param directory: for the temporary file; None for ``TMPDIR``, or else ``/var/tmp``.
    :ivar stats: what was exported so far.
    """

    def __init__(
        self,
        service: AnyStreams,
        names: Iterable[str] | None = None,
        *,
        progress: ProgressCallback | None = None,
        reactor: Any = None,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._context = Context(service, reactor)
        self._streams = self._context.streams
        self._names = None if names is None else sorted(set(names))
        self._reporter = Reporter(progress, self._streams.turns.seconds)
        self._body = SpoolFile(self._context, spool_directory(directory))
        self._totals: tuple[int | None, int | None] = (None, None)
        self._messages = 0
        self._size = 0
        self._done = ExportStats()

    @property
    def stats(self) -> ExportStats:
        """What was exported so far."""
        return self._done

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._pieces()

    async def write(self, destination: Destination) -> ExportStats:
        """
        Write the document; see :func:`export_streams`.

        :returns: what was exported.
        """
        await write_pieces(aiter(self), destination, self._context.reactor)
        return self._done

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            await self._context.opened()
            if self._reporter.wanted:
                self._totals = await self._count()
            out = bytearray(document_start(self._context.clock.wall(), version_of_server()))
            async for record in self._records():
                if not await self._encode(record):
                    continue
                out += self._start(record)
                async for part in self._encoded():
                    out += part
                    while len(out) >= _OUT:
                        yield bytes(out[:_OUT])
                        del out[:_OUT]
                out += stream_end(self._messages)
                self._note_stream()
            yield bytes(out) + document_end(self._done.streams_exported)
            self._reporter.report(self._progress, end=True)
        finally:
            await self._body.close()
            self._context.blocking.close()

    async def _encoded(self) -> AsyncIterator[bytes | bytearray]:
        """Return the encoded messages of the stream in pieces."""
        small = self._body.unwritten()
        if small is not None:
            yield small
            return
        await self._body.flush()
        for position in range(0, self._body.size, PIECE):
            yield await self._body.read(position, PIECE)

    # The streams

    async def _names_to_export(self) -> AsyncIterator[str]:
        if self._names is not None:
            for name in self._names:
                yield name
            return
        async for page in self._streams.status_pages():
            for status in page:
                yield status.facts.name

    async def _records(self) -> AsyncIterator[StreamRecord]:
        async for name in self._names_to_export():
            await self._context.pause()
            if name.split("/", 1)[0] == RESERVED_SEGMENT:
                continue
            try:
                record = await settle(self._streams.record(name))
            except (StreamNotFound, StreamGone):
                continue
            yield record

    async def _count(self) -> tuple[int | None, int | None]:
        """Count the streams and their bytes."""
        if self._names is not None:
            return len(self._names), None
        streams = size = 0
        async for page in self._streams.status_pages():
            streams += len(page)
            size += sum(status.tail for status in page)
            await self._context.pause()
        return streams, size

    def _start(self, record: StreamRecord) -> bytes:
        lifetime = record.lifetime
        expires_at = lifetime.expires_at if lifetime.ttl is None else record.used_at + lifetime.ttl
        closed = record.config.closed
        media = record.facts.media_type
        entry = StreamEntry(record.facts.name, media, lifetime.ttl, expires_at, closed, record.closed)
        updated_at = None if record.updated_at == record.created_at else record.updated_at
        figures = EntryFigures(record.created_at, updated_at, self._size, self._messages)
        return stream_start(entry, figures, first=not self._done.streams_exported)

    def _note_stream(self) -> None:
        done = self._done
        self._done = ExportStats(
            done.streams_exported + 1, done.messages_exported + self._messages, done.bytes_exported + self._size
        )
        self._messages = self._size = 0
        self._reporter.report(self._progress)

    def _progress(self) -> Progress:
        done = self._done
        streams, size = self._totals
        messages = done.messages_exported + self._messages
        return Progress("exporting", done.streams_exported, streams, messages, done.bytes_exported + self._size, size)

    # The messages of a stream

    async def _encode(self, record: StreamRecord) -> bool:
        """Encode the messages of a stream into the body; return false if the stream is deleted meanwhile."""
        self._messages = self._size = 0
        await self._body.clear()
        facts = record.facts
        try:
            async for start, ends in self._groups(facts, record.tail):
                if facts.json:
                    data = await settle(self._streams.read_range(facts, start, ends[-1]))
                    await self._streams.turns.finish(self._encode_values(data))
                elif ends[-1] - start > PIECE:
                    await self._encode_long(facts, start, ends[0])
                else:
                    data = await settle(self._streams.read_range(facts, start, ends[-1]))
                    await self._streams.turns.finish(self._encode_appends(data, start, ends))
                if self._body.full:
                    await self._body.flush()
                self._reporter.report(self._progress)
        except (StreamNotFound, StreamGone):
            return False
        except StreamError as error:
            raise ExportFailed(facts.name, error) from error
        return True

    async def _groups(self, facts: StreamFacts, tail: int) -> AsyncIterator[tuple[int, Sequence[int]]]:
        """Find the stream's appends, as many at once as have 256 KiB: where the first starts, and where each ends."""
        start = 0
        while start < tail:
            ends = await settle(self._streams.append_ends(facts, start, _ENDS))
            first = 0
            for index, end in enumerate(ends):
                if index > first and end - start > PIECE:
                    yield start, ends[first:index]
                    start = ends[index - 1]
                    first = index
                if end >= tail:
                    yield start, ends[first : index + 1]
                    return
            yield start, ends[first:]
            start = ends[-1]

    def _encode_values(self, messages: bytes) -> Generator[None, None, None]:
        size = 0
        for value in single_values(messages):
            if value is None:
                yield
                continue
            self._add(value)
            size += len(value) + 64
            if size >= _STEP:
                size = 0
                yield

    def _encode_appends(self, data: bytes, start: int, ends: Sequence[int]) -> Generator[None, None, None]:
        position = size = 0
        for end in ends:
            self._add(data[position : end - start])
            size += end - start - position + 64
            position = end - start
            if size >= _STEP:
                size = 0
                yield

    def _add(self, data: bytes) -> None:
        self._body.add(message(self._messages, self._size, data))
        self._messages += 1
        self._size += len(data)

    async def _encode_long(self, facts: StreamFacts, start: int, end: int) -> None:
        """Encode one append in pieces."""
        self._body.add(message_start(self._messages, self._size))
        for position in range(start, end, _STEP * 4):
            data = await settle(self._streams.read_range(facts, position, min(position + _STEP * 4, end)))
            self._body.add(b2a_base64(data, newline=False))
            self._size += len(data)
            if self._body.full:
                await self._body.flush()
            await self._context.pause()
        self._body.add(MESSAGE_END)
        self._messages += 1


def export_streams(
    service: AnyStreams,
    destination: Destination,
    names: Iterable[str] | None = None,
    *,
    progress: ProgressCallback | None = None,
    reactor: Any = None,
    directory: str | os.PathLike[str] | None = None,
) -> Deferred[ExportStats]:
    """
    Export streams to a transfer document; see :class:`DocumentExport`.

    :param service: a stream service, or a :class:`durable_streams.server.StreamService`, that is open.
    :param destination: a binary file, which is written in a thread, or a function that is called with each piece, and
        whose result is awaited if it is awaitable.
    :param names: the streams to export; None for all. Names that do not exist are ignored.
    :param progress: called a few times in a second.
    :param reactor: None for the installed reactor.
    :param directory: for a temporary file; None for ``TMPDIR``, or else ``/var/tmp``.
    :returns: fires with the numbers of streams, messages and bytes. To cancel it ends the export.
    :raises ExportFailed: a stream cannot be read. The document is incomplete.
    :raises SpoolFailed: the temporary file cannot be written.
    :raises Unavailable: the service is not open.
    :raises OSError: the destination cannot be written.
    """
    export = DocumentExport(service, names, progress=progress, reactor=reactor, directory=directory)
    return Deferred.fromCoroutine(export.write(destination))
