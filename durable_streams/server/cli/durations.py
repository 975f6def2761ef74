"""Options that are durations, such as ``90d``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import click

#: Unit -> seconds.
UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw])")


def duration_to(max_seconds: int | None = None) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """
    Return the callback of an option that is a duration, which a command gets in seconds; None if it is not given.

    :param max_seconds: the longest one; None for any.
    """

    def seconds_of(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
        if text is None:
            return None
        found = _DURATION.fullmatch(text)
        seconds = int(found[1]) * UNITS[found[2]] if found else 0
        if not seconds:
            raise click.BadParameter(f"{text!r} is not a duration such as 30s, 15m, 1h or 7d.")
        if max_seconds is not None and seconds > max_seconds:
            raise click.BadParameter(f"{text} is more than {_shown(max_seconds)}.")
        return seconds

    return seconds_of


def _shown(seconds: int) -> str:
    """Write a duration in the largest unit, up to days, that it is a multiple of."""
    unit = next(unit for unit in "dhms" if seconds % UNITS[unit] == 0)
    return f"{seconds // UNITS[unit]}{unit}"
