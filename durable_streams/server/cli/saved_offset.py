"""The file of ``--save-offset``: how far a tail has printed its stream."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from .errors import CommandError
from .files import load_file, replace_file


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


def load_offset(path: Path, url: str) -> SavedOffset | None:
    """
    Return what a file has; None if there is none.

    :raises CommandError: it cannot be read, is damaged, or is of another stream.
    """
    saved = load_file(path, SavedOffset, "--save-offset", "saved offset")
    if saved is None:
        return None
    if saved.url != url:
        raise CommandError(
            f"{path} (--save-offset) is of the stream {saved.url}. Name another file, or correct the URL in it if the "
            "stream has moved."
        )
    return saved


def save_offset(path: Path, saved: SavedOffset, sync: bool = False) -> None:
    """
    Write the file, in one step.

    :param sync: whether to wait until it is on disk.
    :raises CommandError: it cannot be written.
    """
    replace_file(path, msgspec.json.encode(saved) + b"\n", sync)
