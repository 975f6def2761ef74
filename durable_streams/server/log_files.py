"""Opening of files to which lines are appended."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

#: Flags to open a file for fstat and readlink only.
_LOOK: Final = os.O_PATH | os.O_CLOEXEC

#: The maximum number of symbolic links in a path, as in the kernel.
_MAX_LINKS: Final = 40


def open_log_file(path: str, mode: int, flags: int = 0) -> int:
    """
    Open a file for appending, and create it if it is missing.

    :param mode: the permissions of a new file.
    :param flags: further flags of :func:`os.open`.
    :returns: its descriptor.
    :raises OSError: the file cannot be opened.
    """
    flags |= os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return _open_as_root(path, flags, mode) if os.geteuid() == 0 else os.open(path, flags, mode)


def _open_as_root(path: str, flags: int, mode: int) -> int:
    """
    Open a file as root; follow only symbolic links that belong to root.

    With ``--uid``, the log is opened before privileges are dropped. By a symbolic link, another user with write
    permission in a directory of the path could make root append to any file.

    :raises OSError: the file cannot be opened, or a symbolic link in its path belongs to another user.
    """
    names = os.path.abspath(path).split("/")[1:]
    links = 0
    folder = os.open("/", _LOOK | os.O_DIRECTORY)
    try:
        while True:
            name = names.pop(0)
            try:
                found = os.open(name, _LOOK | os.O_NOFOLLOW, dir_fd=folder)
            except FileNotFoundError:
                if names:
                    raise
                return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=folder)
            folder, above = found, folder
            try:
                status = os.fstat(found)
                if not stat.S_ISLNK(status.st_mode):
                    if not names:
                        return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=above)
                    continue
                if status.st_uid != 0 or links >= _MAX_LINKS:
                    raise OSError(
                        errno.ELOOP, "a symbolic link in its path belongs to another user, or there are too many"
                    )
                links += 1
                if not names and status.st_dev == os.stat("/proc").st_dev:
                    # A link in /proc, such as the target of /dev/stdout, refers to an open file, not to a path.
                    return os.open(name, flags, dir_fd=above)
                target = os.readlink("", dir_fd=found)
                names = [part for part in target.split("/") if part] + names or ["."]
                folder = os.open("/" if target[0] == "/" else ".", _LOOK | os.O_DIRECTORY, dir_fd=above)
                os.close(found)
            finally:
                os.close(above)
    finally:
        os.close(folder)
