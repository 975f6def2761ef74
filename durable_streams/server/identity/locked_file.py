"""Changes of files of tokens and keys: by one command at a time, each in one step."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

#: How long a command waits for another one that changes the file, in seconds.
LOCK_TIMEOUT: Final = 10.0

_LOCK_INTERVAL: Final = 0.05

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class FileNotChanged(Exception):
    """The file cannot be opened, locked or written; the message says why. It is as it was."""


class LockedFile:
    """
    A file that other commands cannot change. Readers need no lock, since it is replaced in one step.

    :param path: its path.
    :param descriptor: the open file, which has the lock.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def replace(self, data: bytes) -> None:
        """
        Replace the file by another content in one step, with the same owner and mode; a symbolic link stays.

        :raises FileNotChanged: it cannot be written.
        """
        place = Path(os.path.realpath(self._path))
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(".partial", f".{place.name[:100]}.", place.parent)
            with os.fdopen(descriptor, "wb") as file:
                self._keep_owner_and_mode(descriptor)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, place)
            temporary = None
            _sync_folder(place.parent)
        except OSError as error:
            raise FileNotChanged(f"Cannot write {self._path}: {error.strerror}. It was not changed.") from None
        finally:
            if temporary is not None:
                with suppress(OSError):
                    os.unlink(temporary)

    def _keep_owner_and_mode(self, descriptor: int) -> None:
        """Give a new file the owner and the mode of the old one: the server could not read a file of another user."""
        found = os.fstat(self._descriptor)
        if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))


@contextmanager
def locked_file(path: str, create: bool) -> Iterator[LockedFile]:
    """
    Lock a file against other commands until the block ends.

    :param create: whether to create it, with the mode 0600, if there is none. A file that was created is removed after
        an error.
    :raises FileNotFoundError: there is none, and it is not to be created.
    :raises FileNotChanged: it cannot be opened or locked.
    """
    descriptor, created = _open_locked(path, create)
    try:
        yield LockedFile(path, descriptor)
    except BaseException:
        if created:
            with suppress(OSError):
                os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _open_locked(path: str, create: bool) -> tuple[int, bool]:
    end = time.monotonic() + LOCK_TIMEOUT
    while True:
        descriptor, created = _open(path, create)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            with suppress(FileNotFoundError):
                if os.path.samestat(found, os.stat(path)):
                    return descriptor, created
        except BlockingIOError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise FileNotChanged(f"Cannot lock {path}: {error.strerror}.") from None
        # Another command has the lock, or has replaced the file since it was opened.
        os.close(descriptor)
        if time.monotonic() > end:
            raise FileNotChanged(f"Another command has locked {path} for {LOCK_TIMEOUT:.0f} s. Try again.")
        time.sleep(_LOCK_INTERVAL)


def _open(path: str, create: bool) -> tuple[int, bool]:
    """Open the file, and return whether it was created; the errors are those of :func:`locked_file`."""
    try:
        try:
            return os.open(path, _FLAGS), False
        except FileNotFoundError:
            if not create:
                raise
        try:
            return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), True
        except FileExistsError:
            # Another command was faster; or it is a link to a file that is missing.
            return os.open(path, _FLAGS), False
    except FileNotFoundError as error:
        if not create:
            raise
        raise FileNotChanged(f"Cannot create {path}: {error.strerror}. Create its folder first.") from None
    except OSError as error:
        raise FileNotChanged(f"Cannot open {path}: {error.strerror}.") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
