"""The file system as storages use it. Tests replace it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from .shortages import SyncFailed

#: How many buffers one system call takes.
_VECTOR: Final = 1024

#: The errors of a file system, or of a sandbox, without ``sendfile``.
_NO_SENDFILE: Final = frozenset([errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])

#: The errors of a full disk or quota.
NO_ROOM: Final = frozenset([errno.ENOSPC, errno.EDQUOT])


def is_full(error: BaseException | None) -> bool:
    """Return whether the error means that the disk is full."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


class File(Protocol):
    """
    An open file. Every method may raise OSError; how much of the call was done is then unknown.

    A sync that failed, of a durable write as well, raises :exc:`.SyncFailed`.
    """

    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        """
        Write all parts, one after the other.

        :param durable: return only when it is on the disk, with what it takes to find it again.
        """

    def read(self, position: int, size: int) -> bytes:
        """Read ``size`` bytes, or fewer at the end of the file."""

    def read_now(self, position: int, size: int) -> bytes | None:
        """Read ``size`` bytes from the page cache; None if that would wait for the disk."""

    def fill_now(self, buffer: memoryview, position: int) -> bool:
        """Fill a buffer from the page cache; return False if that would wait for the disk, or the file ends before."""

    def send(self, socket: int, position: int, size: int) -> int:
        """
        Send at most ``size`` bytes to a socket's descriptor without waiting for it.

        :returns: how many were sent; 0 if the file system has no ``sendfile``.
        """

    def sync(self) -> None:
        """Sync all written data."""

    def forget(self) -> None:
        """Drop the file from the operating system's page cache, so that later reads come from the disk."""

    def reserve(self, size: int) -> None:
        """Reserve room for a number of bytes, so that writing them does not fail on a full disk."""

    def cut(self, size: int) -> None:
        """Truncate the file."""

    def size(self) -> int:
        """Return the size of the file in bytes."""

    def close(self) -> None:
        """Close the file. If it is closed already, do nothing."""


class Disk(Protocol):
    """A folder and everything below it. Paths are relative, with slashes. Every method may raise OSError."""

    def open(self, path: str, new: bool = False) -> File:
        """
        Open a file. A symbolic link is not followed.

        :param new: create it.
        :raises FileExistsError: ``new``, and there is one of this name.
        """

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder; empty if it does not exist or is not a folder."""

    def make_folder(self, path: str) -> None:
        """Create a folder and its missing parents; only their owner can read them."""

    def rename(self, path: str, new_path: str) -> None:
        """Rename a file, replacing an existing one."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def sync_folder(self, path: str) -> None:
        """Sync a folder: the names in it."""

    def free(self) -> int:
        """Return about how many bytes are free."""

    def lock(self, path: str, owner: bytes) -> bytes | None:
        """
        Take the lock, exclusively, until the process ends or :meth:`unlock`.

        :returns: None; or, if another process has the lock, the content that it wrote to the lock file.
        """

    def unlock(self) -> None:
        """Release the lock."""

    def in_place(self) -> bool:
        """
        Return whether the path of the directory still leads to the locked lock file.

        It is not when the directory was moved, or the lock file removed: another process can then lock that path.
        """

    def mode(self) -> int:
        """Return the permission bits of the directory."""


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
        return bytes(buffer) if self.fill_now(memoryview(buffer), position) else None

    def fill_now(self, buffer: memoryview, position: int) -> bool:
        try:
            count = os.preadv(self._descriptor, [buffer], position, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise
        return count == len(buffer)

    def send(self, socket: int, position: int, size: int) -> int:
        try:
            return os.sendfile(socket, self._descriptor, position, size)
        except OSError as error:
            if error.errno in _NO_SENDFILE:
                return 0
            raise

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
    A folder of the operating system. Only its owner can read files created in it.

    While it is locked, its descriptor is held and every path is relative to that: if the directory is renamed, files
    are still opened in it, not in what has its name now.

    :param root: the folder; it is made, if it is not there, by the first :meth:`make_folder`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._folder: int | None = None
        self._lock: int | None = None
        self._lock_path = ""

    @property
    def path(self) -> Path:
        """The path of the directory now, which another process may have renamed since it was locked."""
        if self._folder is None:
            return self.root
        try:
            return Path(os.readlink(f"/proc/self/fd/{self._folder}"))
        except OSError:
            return self.root

    def _at(self, path: str) -> str:
        """Return a path for system calls that are given :attr:`_folder` as ``dir_fd``."""
        return str(self.root / path) if self._folder is None else path or "."

    def descriptor(self, path: str, flags: int) -> int:
        """Open a file and return its descriptor."""
        return os.open(self._at(path), flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._folder)

    def _open_folder(self, path: str) -> int:
        return os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)

    def open(self, path: str, new: bool = False) -> RealFile:
        return RealFile(self.descriptor(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if new else 0)))

    def names(self, folder: str) -> list[str]:
        try:
            descriptor = self._open_folder(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def make_folder(self, path: str) -> None:
        if not path:
            missing = [place for place in (self.root, *self.root.parents) if not place.exists()]
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for place in missing:
                _sync_folder(os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            return
        above = ""
        for name in path.split("/"):
            folder = f"{above}/{name}" if above else name
            try:
                os.mkdir(self._at(folder), 0o700, dir_fd=self._folder)
            except FileExistsError:
                self._restrict(folder)
            else:
                try:
                    self.sync_folder(above)
                except OSError:
                    # The next attempt would find it and take its name for synced.
                    with suppress(OSError):
                        os.rmdir(self._at(folder), dir_fd=self._folder)
                    raise
            above = folder

    def _restrict(self, path: str) -> None:
        """Remove a folder's permissions for others if this user owns it: earlier versions used the umask."""
        descriptor = self._open_folder(path)
        try:
            found = os.fstat(descriptor)
            if found.st_mode & 0o077 and found.st_uid == os.geteuid():
                os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)

    def rename(self, path: str, new_path: str) -> None:
        os.rename(self._at(path), self._at(new_path), src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._at(path), dir_fd=self._folder)

    def sync_folder(self, path: str) -> None:
        _sync_folder(self._open_folder(path))

    def free(self) -> int:
        found = os.statvfs(self.root if self._folder is None else self._folder)
        return found.f_bavail * found.f_frsize

    def mode(self) -> int:
        return os.stat(self.root if self._folder is None else self._folder).st_mode & 0o7777

    def lock(self, path: str, owner: bytes) -> bytes | None:
        holder = self._take_lock(path, os.O_RDWR | os.O_CREAT)
        if holder is None:
            assert self._lock is not None
            try:
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, owner, 0)
            except OSError:
                self._release()
                raise
        return holder

    def _take_lock(self, path: str, flags: int) -> bytes | None:
        """
        Lock the lock file and the directory itself, so that removing the lock file does not let a second server in.

        :returns: None; or, if one of them is locked by another process, what that wrote into the lock file.
        """
        lock: int | None = None
        self._folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock = self.descriptor(path, flags)
            for descriptor in (lock, self._folder):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert lock is not None
            return os.pread(lock, 1024, 0)
        else:
            self._lock, lock = lock, None
            self._lock_path = os.path.abspath(self.root / path)
            return None
        finally:
            if self._lock is None:
                os.close(self._folder)
                self._folder = None
            if lock is not None:
                os.close(lock)

    def unlock(self) -> None:
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            self._release()

    def _release(self) -> None:
        """Close the lock file and the directory."""
        for descriptor in (self._lock, self._folder):
            if descriptor is not None:
                os.close(descriptor)
        self._lock = self._folder = None

    def in_place(self) -> bool:
        if self._lock is None:
            return True
        try:
            return os.path.samestat(os.stat(self._lock_path), os.fstat(self._lock))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            # Whether it is there is not known.
            return True


def _sync_folder(descriptor: int) -> None:
    """Sync an open folder, and close it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from None
    finally:
        os.close(descriptor)
