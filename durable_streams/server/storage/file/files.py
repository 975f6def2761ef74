"""A limited number of open files: those read last stay open, others are opened again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from ..disk import Disk, File


class _Open:
    __slots__ = ("dropped", "file", "users")

    def __init__(self, file: File) -> None:
        self.file = file
        self.users = 0
        self.dropped = False


class OpenFiles:
    """
    Files that are open for reading, for several threads.

    :param max_files: the maximum number of open files that no thread is reading.
    """

    def __init__(self, disk: Disk, max_files: int) -> None:
        self._disk = disk
        self._max_files = max_files
        self._lock = Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    @contextmanager
    def using(self, path: str) -> Iterator[File]:
        """
        Open a file unless it is open. May block.

        :raises OSError: it can't be opened.
        """
        entry = self._take(path)
        if entry is None:
            file = self._disk.open(path)
            with self._lock:
                entry = self._open.get(path)
                if entry is None:
                    entry = self._open[path] = _Open(file)
                else:
                    file.close()
                entry.users += 1
                self._shrink()
        try:
            yield entry.file
        finally:
            self._give_back(entry)

    def read_now(self, path: str, position: int, size: int) -> bytes | None:
        """Read from the page cache; None if that would wait for the disk."""
        entry = self._take(path)
        if entry is None:
            return None
        try:
            return entry.file.read_now(position, size)
        finally:
            self._give_back(entry)

    def fill_now(self, path: str, buffer: memoryview, position: int) -> bool:
        """Fill a buffer from the page cache; return False if that would wait for the disk, or the file ends before."""
        entry = self._take(path)
        if entry is None:
            return False
        try:
            return entry.file.fill_now(buffer, position)
        finally:
            self._give_back(entry)

    def send(self, path: str, position: int, size: int, socket: int) -> int:
        """
        Send bytes of an open file to a socket, as far as it takes them at once.

        :returns: how many were sent; 0 if the file is not open.
        """
        entry = self._take(path)
        if entry is None:
            return 0
        try:
            return entry.file.send(socket, position, size)
        finally:
            self._give_back(entry)

    def read(self, path: str, position: int, size: int) -> bytes:
        """Read, and wait for the disk."""
        with self.using(path) as file:
            return file.read(position, size)

    def drop(self, path: str) -> None:
        """Close a file that is about to be removed."""
        with self._lock:
            entry = self._open.pop(path, None)
            if entry is not None:
                self._close(entry)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._open:
                self._close(self._open.popitem()[1])

    def _take(self, path: str) -> _Open | None:
        with self._lock:
            entry = self._open.get(path)
            if entry is not None:
                self._open.move_to_end(path)
                entry.users += 1
            return entry

    def _give_back(self, entry: _Open) -> None:
        with self._lock:
            entry.users -= 1
            if entry.dropped and not entry.users:
                entry.file.close()

    def _shrink(self) -> None:
        while len(self._open) > self._max_files:
            self._close(self._open.popitem(last=False)[1])

    def _close(self, entry: _Open) -> None:
        entry.dropped = True
        if not entry.users:
            entry.file.close()
