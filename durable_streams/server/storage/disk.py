"""The one place where a storage touches files, so that a test can put another in its stead."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from .shortages import SyncFailed

#: How many buffers one system call takes.
_VECTOR: Final = 1024

#: What a full disk, or a full quota, says.
NO_ROOM: Final = frozenset([errno.ENOSPC, errno.EDQUOT])


def is_full(error: BaseException | None) -> bool:
    """Tell whether it was for want of room that the disk refused."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


class File(Protocol):
    """
    An open file. Every method may raise OSError, and then says nothing of what it has done.

    A sync that failed, of a durable write as well, raises :exc:`.SyncFailed`.
    """

    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        """
        Write all of it.

        :param durable: return only when it is on the disk, with what it takes to find it again.
        """

    def read(self, position: int, size: int) -> bytes:
        """Read that much, or what there is."""

    def read_now(self, position: int, size: int) -> bytes | None:
        """Read that much without waiting for the disk; None, when that can't be done."""

    def sync(self) -> None:
        """Have all that was written on the disk."""

    def forget(self) -> None:
        """Read from now on what the disk has, and not what the operating system remembers to have written there."""

    def reserve(self, size: int) -> None:
        """Have room for so many bytes, so that writing them does not fail for want of it."""

    def cut(self, size: int) -> None:
        """Let the file be so long."""

    def size(self) -> int:
        """Say how long it is, in bytes."""

    def close(self) -> None:
        """Let go of it; again, do nothing."""


class Disk(Protocol):
    """A folder, and what is in it. Paths are relative, with slashes. Every method may raise OSError."""

    def open(self, path: str, new: bool = False) -> File:
        """
        Open a file.

        :param new: make it; one that is there is emptied.
        """

    def names(self, folder: str) -> list[str]:
        """List a folder, in order; nothing, if it is not there."""

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it, if they are not there."""

    def rename(self, path: str, new_path: str) -> None:
        """Give a file another name, in place of whatever has it."""

    def remove(self, path: str) -> None:
        """Take away a file."""

    def sync_folder(self, path: str) -> None:
        """Have on the disk which names are in a folder."""

    def free(self) -> int:
        """Say how many bytes there is room for, about."""

    def lock(self, path: str, owner: bytes) -> bytes | None:
        """
        Be the only one who has this lock, until the process ends or :meth:`unlock`.

        :returns: None; or, if somebody else has it, what they said of themselves.
        """

    def unlock(self) -> None:
        """Give the lock back."""


class RealFile:
    """A file of the operating system."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        flags = os.RWF_DSYNC if durable else 0
        waiting: list[bytes | memoryview] = list(parts)
        while waiting:
            try:
                written = os.pwritev(self._descriptor, waiting[:_VECTOR], position, flags)
            except OSError as error:
                if durable:
                    # Whether the write or its sync failed is not known.
                    raise SyncFailed(error.errno, error.strerror) from None
                raise
            position += written
            while waiting and written >= len(waiting[0]):
                written -= len(waiting.pop(0))
            if written:
                waiting[0] = memoryview(waiting[0])[written:]

    def read(self, position: int, size: int) -> bytes:
        pieces = []
        while size and (piece := os.pread(self._descriptor, size, position)):
            pieces.append(piece)
            position += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_now(self, position: int, size: int) -> bytes | None:
        buffer = bytearray(size)
        try:
            count = os.preadv(self._descriptor, [buffer], position, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                return None
            raise
        return bytes(buffer) if count == size else None

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror) from None

    def forget(self) -> None:
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def reserve(self, size: int) -> None:
        os.posix_fallocate(self._descriptor, 0, size)

    def cut(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        # Its number may be another file's by the next time.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RealDisk:
    """
    A folder of the operating system's. What is made in it only its owner can read.

    :param root: the folder; it is made, if it is not there, by the first :meth:`make_folder`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._lock: int | None = None

    def open(self, path: str, new: bool = False) -> RealFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if new else 0)
        return RealFile(os.open(self.root / path, flags, 0o600))

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []

    def make_folder(self, path: str) -> None:
        folder = self.root / path
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in missing:
            _sync_folder(place.parent)

    def rename(self, path: str, new_path: str) -> None:
        (self.root / path).rename(self.root / new_path)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def sync_folder(self, path: str) -> None:
        _sync_folder(self.root / path)

    def free(self) -> int:
        return shutil.disk_usage(self.root).free

    def lock(self, path: str, owner: bytes) -> bytes | None:
        descriptor = os.open(self.root / path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        holder = self._take_lock(descriptor)
        if holder is None:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner, 0)
        return holder

    def _take_lock(self, descriptor: int) -> bytes | None:
        """Lock an open file; if somebody else has it, close it, and say what they said of themselves."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1024, 0)
            os.close(descriptor)
            return holder
        self._lock = descriptor
        return None

    def unlock(self) -> None:
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from None
    finally:
        os.close(descriptor)
