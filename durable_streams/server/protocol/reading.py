"""Where a read begins and ends among the appends that a stream is made of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def start_of_append(ends: Sequence[int], position: int) -> int:
    """
    Step back from a position inside an append to where that append begins.

    :param ends: the positions at which appends end, ascending; all of them after ``position`` or the first of them.
    """
    index = bisect_left(ends, position)
    if index == len(ends) or ends[index] == position:
        return position
    return ends[index - 1] if index else 0


def end_of_read(ends: Sequence[int], start: int, limit: int) -> int:
    """
    Choose the end of a read of whole appends: the last one that fits, or the first one if none does.

    :param start: an append's start, before the last of the ``ends``.
    """
    index = bisect_right(ends, start + limit)
    end = ends[index - 1] if index else 0
    return end if end > start else ends[bisect_right(ends, start)]
