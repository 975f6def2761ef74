"""File names that are numbers."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile("[0-9]{16}")


def name_of(number: int) -> str:
    """Return the file name of a segment, a checkpoint or a pack."""
    return f"{number:016d}"


def number_of(name: str) -> int | None:
    """Return the number in a file name; None if the name is not one that :func:`name_of` returns."""
    return int(name) if _NUMBER.fullmatch(name) else None


def numbers_of(names: list[str]) -> list[int]:
    """Return, in order, the numbers among some file names."""
    return sorted(number for name in names if (number := number_of(name)) is not None)
