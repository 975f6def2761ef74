"""Temporary files of transfers: private, without a name, and used in a thread."""

from __future__ import annotations

import os
import tempfile

from .context import Context
from .errors import SpoolFailed
from .pieces import PIECE


class SpoolFile:
    """
    A temporary file that is written at its end and read anywhere.

    It is made when it is first written: readable by its owner only, and unlinked at once, so that nothing is left of it
    when the process ends.

    :param directory: where it is.
    :ivar size: the bytes in it, with those that are not written yet.
    """

    def __init__(self, context: Context, directory: str) -> None:
        self._blocking = context.blocking
        self._directory = directory
        self._file: int | None = None
        self._pending = bytearray()
        self.size = 0
        # What was read last, and where it begins.
        self._window = b""
        self._window_start = 0

    def add(self, data: bytes | bytearray) -> None:
        """Append data in memory; :meth:`flush` writes it."""
        self._pending += data
        self.size += len(data)

    def unwritten(self) -> bytearray | None:
        """Return all data if none of it was written yet, else None."""
        return self._pending if len(self._pending) == self.size else None

    @property
    def full(self) -> bool:
        """Whether so much is in memory that it is to be written."""
        return len(self._pending) >= PIECE

    async def flush(self) -> None:
        """
        Write what is in memory.

        :raises SpoolFailed: it cannot be written.
        """
        if self._pending:
            data, self._pending = self._pending, bytearray()
            self._window = b""
            try:
                await self._blocking.do(lambda: self._write(data, self.size - len(data)))
            except OSError as error:
                raise SpoolFailed(self._directory, error) from error

    def _write(self, data: bytearray, start: int) -> None:
        if self._file is None:
            self._file = private_file(self._directory)
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._file, rest, start)
            rest = rest[written:]
            start += written

    async def read(self, start: int, size: int) -> bytes:
        """
        Read from what was flushed; less only at its end. More is read, and kept, for short reads one after the other.

        :raises SpoolFailed: it cannot be read.
        """
        file = self._file
        if file is None:
            return b""
        place = start - self._window_start
        if place < 0 or place + size > len(self._window):
            try:
                data = await self._blocking.do(lambda: _read(file, start, max(size, PIECE)))
            except OSError as error:
                raise SpoolFailed(self._directory, error) from error
            if size >= PIECE:
                return data
            self._window, self._window_start = data, start
            place = 0
        return self._window[place : place + size]

    async def clear(self) -> None:
        """Remove all data, and keep the file for more."""
        file = self._file
        written = self.size > len(self._pending)
        self._pending = bytearray()
        self._window = b""
        self.size = 0
        if file is not None and written:
            await self._blocking.do(lambda: os.ftruncate(file, 0))

    async def close(self) -> None:
        """Remove the file."""
        file, self._file = self._file, None
        if file is not None:
            await self._blocking.do(lambda: os.close(file))


def private_file(directory: str) -> int:
    """Open a new file without a name, which only its owner could open; return its descriptor."""
    file, path = tempfile.mkstemp(prefix="durable-streams-", dir=directory)
    os.unlink(path)
    return file


def _read(file: int, start: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.pread(file, size, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
        size -= len(part)
    return b"".join(parts)
