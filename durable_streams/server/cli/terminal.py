"""Terminals: whether one is there, and texts that cannot control it."""

from __future__ import annotations

import os
import re
from typing import IO, Any, Final

#: Characters that move the cursor, change colours or reverse the direction of a terminal's text.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_BUT_LINES: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, lines: bool = True) -> str:
    """
    Return a text with its control characters escaped, so that a stream's name cannot control a terminal.

    :param lines: whether line ends stay.
    """
    return (_CONTROL_BUT_LINES if lines else _CONTROL).sub(lambda found: ascii(found[0])[1:-1], text)


def is_terminal(stream: IO[Any] | None) -> bool:
    """Return whether a stream is a terminal that can show colours and bars."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:
        # It is closed.
        return False


def silence(stream: IO[Any] | None) -> None:
    """Direct a stream that cannot be written to the null device, so that the interpreter's last flush succeeds."""
    try:
        if stream is not None:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
    except (OSError, ValueError):
        # It has no descriptor.
        return
