"""The start and end of a read, which are boundaries of appends."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def start_of_append(ends: Sequence[int], position: int) -> int:
    """
    Return the start of the append that contains a position; the position itself if it is a boundary.

    :param ends: the end positions of consecutive appends, ascending. The first of them is assumed to start at 0; a
        caller with a later start takes the maximum of the two.
    """
    index = bisect_left(ends, position)
    if index == len(ends) or ends[index] == position:
        return position
    return ends[index - 1] if index else 0


def end_of_read(ends: Sequence[int], start: int, limit: int) -> int:
    """
    Return the end of a read of whole appends: the last end within the limit, or the first end if none is.

    :param start: the start of an append, before the last of the ``ends``.
    """
    index = bisect_right(ends, start + limit)
    end = ends[index - 1] if index else 0
    return end if end > start else ends[bisect_right(ends, start)]


def ends_between(ends: Sequence[int], start: int, stop: int, max_count: int) -> list[int]:
    """
    Return the ends of the appends that have the bytes between two positions; an append that goes on ends at ``stop``.

    :param stop: at most the last of the ``ends``.
    :param max_count: the maximum number of ends; the rest is left out.
    """
    first = bisect_right(ends, start)
    found = list(ends[first : min(bisect_left(ends, stop), first + max_count)])
    if start < stop and len(found) < max_count:
        found.append(stop)
    return found
