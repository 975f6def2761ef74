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
from typing import BinaryIO, Final, TypeVar

import msgspec

from ..regular_files import NotAFileError, open_regular_file
from .errors import CommandError
from .output import note
from .terminal import is_terminal

T = TypeVar("T")

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
    try:
        if _is_special(path):
            with Path(path).open("wb", buffering=0) as direct:
                yield direct
            return
        replacement = _Replacement(path)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", label) from None
    with replacement.removed_on_error() as file:
        yield file
        try:
            replacement.complete()
        except OSError as error:
            raise CommandError(f"{replacement.place}: {error.strerror}", label) from None


def replace_file(path: Path, content: bytes, sync: bool) -> None:
    """
    Replace a file by another content in one step. A new file can be read by its owner only.

    :param sync: whether to wait until it is on disk.
    :raises CommandError: it cannot be written.
    """
    try:
        replacement = _Replacement(path)
        with replacement.removed_on_error() as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            replacement.complete(sync)
    except OSError as error:
        raise CommandError(f"Cannot write {path}: {error.strerror}.") from None


def load_file(path: Path, kind: type[T], option: str, content: str) -> T | None:
    """
    Return the JSON value that a file has; None if there is no file.

    :param kind: the type of the value.
    :param option: the option that names the file, for errors.
    :param content: what the file should have, for errors.
    :raises CommandError: it cannot be read, is damaged, or is a device or a pipe, which may never end.
    """
    try:
        with open_regular_file(path) as file:
            return msgspec.json.decode(file.read(), type=kind)
    except FileNotFoundError:
        return None
    except NotAFileError:
        raise CommandError(f"Cannot read {path} ({option}): Not a regular file.") from None
    except OSError as error:
        raise CommandError(f"Cannot read {path} ({option}): {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CommandError(f"{path} ({option}) has no {content}. Remove it, or name another file.") from None


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


def _is_special(path: str) -> bool:
    """Return whether something is there that is not a regular file, such as a device or a pipe."""
    return os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode)


class _Replacement:
    """
    A file beside another one, which it replaces when it is complete. It gets its mode and, if possible, its owner.

    Nobody else can have made a file, or a link to one, of its name: ``.NAME.XXXXXXXX.partial``.

    :ivar place: the path of the other file, which may be missing. A symbolic link stays; what it leads to is replaced.
    :raises OSError: it cannot be created.
    """

    def __init__(self, path: str | Path) -> None:
        self.place = Path(os.path.realpath(path))
        self._replaced = self.place.stat() if self.place.exists() else None
        self._descriptor, self._name = tempfile.mkstemp(PARTIAL, f".{self.place.name[:100]}.", self.place.parent)

    @contextmanager
    def removed_on_error(self) -> Iterator[BinaryIO]:
        """Open it until the block ends; remove it if that is by an exception."""
        try:
            # Unbuffered: nothing is left to write when it is complete.
            with os.fdopen(self._descriptor, "w+b", buffering=0) as file:
                if self._replaced is not None:
                    with suppress(OSError):
                        os.fchown(self._descriptor, self._replaced.st_uid, self._replaced.st_gid)
                    os.fchmod(self._descriptor, stat.S_IMODE(self._replaced.st_mode))
                yield file
        except BaseException:
            with suppress(OSError):
                os.unlink(self._name)
            raise

    def complete(self, sync: bool = True) -> None:
        """
        Give it its name.

        :param sync: whether to wait until the file and its name are on disk.
        :raises OSError: that failed.
        """
        if sync:
            os.fsync(self._descriptor)
        os.replace(self._name, self.place)
        if sync:
            folder = os.open(self.place.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
