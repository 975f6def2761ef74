"""Reading of regular files that a setting or an option names: a path may lead to a directory, a pipe or a device."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO


class NotAFileError(Exception):
    """The path leads to a directory, a pipe or a device."""


def open_regular_file(path: str | os.PathLike[str]) -> BinaryIO:
    """
    Open a file for reading, without waiting for the writer of a pipe.

    :raises OSError: the file cannot be opened.
    :raises NotAFileError: the path does not lead to a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFileError(path)
    return open(descriptor, "rb")


@contextmanager
def file_errors_as(error: Callable[[str], Exception], where: str, needed: str) -> Iterator[None]:
    """
    Replace the errors of opening and reading a file in the block by one whose message says what to change.

    :param error: makes the error from its message.
    :param where: the setting and the path, with which the message begins.
    :param needed: what the path must lead to, such as ``a PEM file``.
    """
    try:
        yield
    except FileNotFoundError:
        raise error(f"{where}: no such file. Give the path of {needed}.") from None
    except OSError as failure:
        raise error(f"{where}: cannot be read: {failure.strerror}. Give the server's user read permission.") from None
    except NotAFileError:
        raise error(f"{where}: not a regular file. Give the path of {needed}.") from None


def file_signature(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """Return the times and the identity of a file, which differ when it is changed or replaced; None if missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
