"""The archive that a restore reads twice: a file, or a temporary copy of what comes from a pipe or a request."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import BinaryIO, Final

from ..context import Context
from ..errors import SpoolFailed
from ..pieces import Source, read_pieces
from ..spool import private_file
from .errors import ArchiveInvalid, ArchiveTooLarge
from .layout import PART_BYTES, ZSTD_MAGIC
from .reader import AppendSlice, ArchiveLimits, ArchiveReader, Event, check_ends
from .unpacking import NOT_AN_ARCHIVE

#: How many events are read in one call of the thread. A slice of appends counts by its size.
_EVENTS: Final = 256


class ArchiveFile:
    """
    An archive that can be read from its beginning several times.

    :param context: its thread reads the file.
    :param directory: for the temporary file.
    """

    def __init__(self, context: Context, source: Source, limits: ArchiveLimits, directory: str) -> None:
        self._context = context
        self._blocking = context.blocking
        self._source = source
        self._limits = limits
        self._directory = directory
        self._file: BinaryIO | None = None
        self._is_copy = False
        self._first = b""
        self.size = 0

    async def open(self) -> None:
        """
        Copy the source into a temporary file if it cannot be read twice, and check its first and last bytes.

        :raises ArchiveInvalid: it is cut off, or not an archive.
        :raises SpoolFailed: the temporary file cannot be written.
        :raises OSError: the source cannot be read.
        """
        source = self._source
        if not isinstance(source, AsyncIterable) and await self._blocking.do(source.seekable):
            self._file = source
        else:
            await self._begin_copy()
            async with aclosing(read_pieces(source, self._context.reactor)) as pieces:
                async for piece in pieces:
                    await self._copy(piece)
        assert self._file is not None
        self.size = await self._blocking.do(partial(check_ends, self._file))

    async def _begin_copy(self) -> None:
        try:
            descriptor = await self._blocking.do(partial(private_file, self._directory))
        except OSError as error:
            raise SpoolFailed(self._directory, error) from error
        self._file, self._is_copy = os.fdopen(descriptor, "w+b"), True

    async def _copy(self, piece: bytes) -> None:
        assert self._file is not None
        if self.size < len(ZSTD_MAGIC):
            # An endless source that is no archive must not fill the disk.
            self._first += piece[: len(ZSTD_MAGIC)]
            if not ZSTD_MAGIC.startswith(self._first[: len(ZSTD_MAGIC)]):
                raise ArchiveInvalid(NOT_AN_ARCHIVE)
        self.size += len(piece)
        if self._limits.max_bytes is not None and self.size > self._limits.max_bytes:
            raise ArchiveTooLarge(
                f"The archive has more than {self._limits.max_bytes} bytes, which is the limit. Raise the limit if the "
                "archive is expected to be so large."
            )
        try:
            await self._blocking.do(partial(self._file.write, piece))
        except OSError as error:
            raise SpoolFailed(self._directory, error) from error

    async def events(self, check_messages: bool) -> AsyncIterator[tuple[Event, int]]:
        """
        Read the archive from its beginning.

        :param check_messages: whether to validate the messages of JSON streams.
        :raises ArchiveInvalid: it is damaged, incomplete or impossible.
        :returns: each event, and how many bytes of the file were read.
        """
        file = self._file
        assert file is not None
        await self._blocking.do(partial(file.seek, 0))
        reader = ArchiveReader(file, self._limits, check_messages)
        events = reader.events()
        while batch := await self._blocking.do(lambda: _next(events)):
            for event in batch:
                yield event, reader.position

    async def close(self) -> None:
        """Remove the temporary file, if there is one. The source is left open."""
        file, self._file = self._file, None
        if file is not None and self._is_copy:
            await self._blocking.do(file.close)


def _next(events: Iterator[Event]) -> list[Event]:
    """Read the next events, until they have about a part's bytes."""
    batch: list[Event] = []
    size = 0
    for event in islice(events, _EVENTS):
        batch.append(event)
        if isinstance(event, AppendSlice):
            size += len(event.data)
            if size >= PART_BYTES:
                break
    return batch
