"""The file of ``--save-offset``: how far a tail has printed its stream."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from .errors import CommandError


class SavedOffset(Struct, frozen=True):
    """
    The place after what was printed.

    :ivar url: the stream's URL.
    :ivar offset: an offset.
    :ivar skip: how many bytes, or messages of a JSON stream, after it were printed as well.
    """

    url: str
    offset: str
    skip: int = 0


def read_file(path: Path) -> bytes:
    """
    Return the content of a file.

    :raises FileNotFoundError: there is none.
    :raises OSError: it cannot be read, or is a device or a pipe, which may never end.
    """
    # A pipe would wait for its writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        return file.read()


def load_offset(path: Path, url: str) -> SavedOffset | None:
    """
    Return what a file has; None if there is none.

    :raises CommandError: it cannot be read, is damaged, or is of another stream.
    """
    try:
        saved = msgspec.json.decode(read_file(path), type=SavedOffset)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"Cannot read {path} (--save-offset): {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CommandError(f"{path} (--save-offset) has no saved offset. Remove it, or name another file.") from None
    if saved.url != url:
        raise CommandError(
            f"{path} (--save-offset) is of the stream {saved.url}. Name another file, or correct the URL in it if the "
            "stream has moved."
        )
    return saved


def replace_file(path: Path, content: bytes, sync: bool) -> None:
    """
    Replace a file by another content in one step. A new file can be read by its owner only.

    :param sync: whether to wait until it is on disk.
    :raises CommandError: it cannot be written.
    """
    try:
        # A symbolic link stays; what it leads to is replaced.
        place = Path(os.path.realpath(path))
        mode = stat.S_IMODE(place.stat().st_mode) if place.is_file() else None
        # Nobody else can have made a file, or a link to one, of this name.
        descriptor, beside = tempfile.mkstemp(".new", f".{place.name[:100]}.", place.parent)
    except OSError as error:
        raise CommandError(f"Cannot write {path}: {error.strerror}.") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.write(content)
            if sync:
                file.flush()
                os.fsync(descriptor)
        os.replace(beside, place)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(beside)
        if not isinstance(error, OSError):
            raise
        raise CommandError(f"Cannot write {path}: {error.strerror}.") from None


def save_offset(path: Path, saved: SavedOffset, sync: bool = False) -> None:
    """
    Write the file, in one step.

    :param sync: whether to wait until it is on disk.
    :raises CommandError: it cannot be written.
    """
    replace_file(path, msgspec.json.encode(saved) + b"\n", sync)
