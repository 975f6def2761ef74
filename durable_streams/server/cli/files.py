"""Files that commands read and write. What is written is complete under its name, or not there at all."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from .errors import CommandError
from .output import note
from .terminal import is_terminal

#: The end of the name of a file that is not complete yet.
PARTIAL: Final = ".partial"

_STDOUT: Final = frozenset({"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})
_DESCRIPTOR: Final = re.compile("/(?:dev|proc/self)/fd/([0-9]{1,9})")


@contextmanager
def output_file(path: str | None, label: str = "failed to create output file") -> Iterator[BinaryIO]:
    """
    Open a file for the output of a command; it gets its name when the block ends without an error.

    It is written beside its place, as ``.NAME.XXXXXXXX.partial``, with the mode 0600 or that of the file that it
    replaces, and synced before it is renamed. After an error or a signal it is removed. A device, a pipe or a socket is
    written directly.

    :param path: None or ``-`` for stdout.
    :param label: the label of errors.
    :raises CommandError: the file cannot be created or completed.
    """
    if path is None or path == "-" or path in _STDOUT:
        if sys.stdout is None:
            raise CommandError("the standard output is closed", label)
        sys.stdout.flush()
        # Unbuffered: nothing is left to write when the interpreter ends.
        with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as stdout:
            yield stdout
        return
    descriptor_path = _DESCRIPTOR.fullmatch(path)
    if descriptor_path is not None:
        # To open the path would truncate the file, and write from its start.
        with _duplicate(int(descriptor_path[1]), path, label) as duplicate:
            yield duplicate
        return
    # A symbolic link stays; what it leads to is replaced.
    place = Path(os.path.realpath(path))
    try:
        status = place.stat() if place.exists() else None
        if status is not None and not stat.S_ISREG(status.st_mode):
            with place.open("wb", buffering=0) as direct:
                yield direct
            return
        descriptor, name = tempfile.mkstemp(PARTIAL, f".{place.name[:100]}.", place.parent)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", label) from None
    try:
        with os.fdopen(descriptor, "w+b", buffering=0) as file:
            if status is not None:
                _keep_mode(descriptor, status)
            yield file
            _complete(descriptor, name, place, label)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


@contextmanager
def input_file(path: str | None, label: str = "failed to open input file") -> Iterator[BinaryIO]:
    """
    Open a file that a command reads.

    :param path: None or ``-`` for stdin.
    :param label: the label of errors.
    :raises CommandError: the file cannot be opened.
    """
    if path is None or path == "-":
        if sys.stdin is None:
            raise CommandError("the standard input is closed", label)
        if is_terminal(sys.stdin):
            note("Reading from the terminal. End the input with Ctrl-D.")
        # Unbuffered: a thread that waits for more does not keep the interpreter from ending.
        with os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0) as stdin:
            yield stdin
        return
    try:
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115 (it is closed below)
        if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", label) from None
    with file:
        yield file


def size_of(file: BinaryIO) -> int | None:
    """Return the size of a regular file in bytes; None for a pipe or a device."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _duplicate(number: int, path: str, label: str) -> BinaryIO:
    try:
        return os.fdopen(os.dup(number), "wb", buffering=0)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", label) from None


def _keep_mode(descriptor: int, status: os.stat_result) -> None:
    with suppress(OSError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def _complete(descriptor: int, name: str, place: Path, label: str) -> None:
    try:
        os.fsync(descriptor)
        os.rename(name, place)
        folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise CommandError(f"{place}: {error.strerror}", label) from None
