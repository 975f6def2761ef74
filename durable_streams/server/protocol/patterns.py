"""Patterns of stream names: ``*`` is one segment, ``**`` any number of segments; all else is literal."""

from __future__ import annotations

from typing import Final

from .names import RESERVED_SEGMENT

#: The segment that matches exactly one segment of a name.
ONE: Final = "*"

#: The segment that matches any number of segments, including none.
ANY: Final = "**"

#: What is wrong with a pattern for which :func:`has_partial_star` returns True.
PARTIAL_STAR: Final = "In a pattern, * and ** must be whole segments, as in events/* or events/**/done."


def has_partial_star(segment: str) -> bool:
    """Return whether a segment has a star beside other characters, which no pattern may have."""
    return ONE in segment and segment not in (ONE, ANY)


def matches(pattern: str, name: str) -> bool:
    """
    Return whether a pattern matches the name of a stream, in time by the product of their segments.

    No pattern matches a reserved name.
    """
    segments = name.split("/")
    if segments[0] == RESERVED_SEGMENT:
        return False
    # reached[i]: whether the pattern up to here matches the first i segments.
    reached = [True] + [False] * len(segments)
    for part in pattern.split("/"):
        if part == ANY:
            for index in range(1, len(reached)):
                reached[index] = reached[index] or reached[index - 1]
        else:
            for index in range(len(segments), 0, -1):
                reached[index] = reached[index - 1] and part in (ONE, segments[index - 1])
            reached[0] = False
    return reached[-1]
