"""Where a fork leaves its source (PROTOCOL section 4.2)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from ..errors import InvalidRequest
from .messages import scan

#: The longest append of JSON messages, in bytes, in which a place is found within about 5 ms, whatever it has.
SHORT_APPEND: Final = 16_384


def divergence(anchor: int, sub_offset: int, append: tuple[int, bytes] | None, json: bool) -> int:
    """
    Find the position at which a fork diverges, in one go: see :func:`find_divergence`.

    :raises InvalidRequest: the anchor is inside a message, or the sub-offset goes past the append's end.
    """
    steps = find_divergence(anchor, sub_offset, append, json)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            position: int = stop.value
            return position


def find_divergence(
    anchor: int, sub_offset: int, append: tuple[int, bytes] | None, json: bool
) -> Generator[None, None, int]:
    """
    Find the position at which a fork diverges, in steps of about half a millisecond.

    :param anchor: the position that Stream-Fork-Offset means, not past the source's tail.
    :param sub_offset: messages of a JSON source, bytes of any other, past the anchor.
    :param append: the position and the bytes of the append that the anchor is in or at the start of; None at the tail.
    :param json: whether the source is in JSON mode.
    :returns: the position; by StopIteration, after the last step.
    :raises InvalidRequest: the anchor is inside a message, or the sub-offset goes past the append's end.
    """
    if append is None:
        if sub_offset:
            raise InvalidRequest("Stream-Fork-Sub-Offset goes past the source's tail.")
        return anchor
    start, data = append
    if not json:
        position = anchor + sub_offset
        if position > start + len(data):
            raise InvalidRequest("Stream-Fork-Sub-Offset goes past the end of the append that it counts in.")
        return position
    if anchor == start and not sub_offset:
        return anchor
    # A message has a byte at least, and a comma.
    past_the_end = 2 * sub_offset > len(data)
    left = -1
    for edge in scan(data):
        if edge is None:
            yield
            continue
        if left < 0:
            if start + edge < anchor:
                continue
            if start + edge > anchor:
                raise InvalidRequest("Stream-Fork-Offset lies inside a message of the source.")
            left = sub_offset
            if past_the_end:
                break
        else:
            left -= 1
        if not left:
            return start + edge
    raise InvalidRequest("Stream-Fork-Sub-Offset counts more messages than the append has.")
