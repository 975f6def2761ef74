"""The position at which a fork diverges from its source (PROTOCOL section 4.2)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from ..errors import InvalidOffset, InvalidRequest, OffsetGone
from ..model import Fork, StreamFacts
from .messages import scan
from .offsets import locate

#: The number of steps after which :func:`divergence` returns the rest of a search to its caller.
_STEPS_AT_ONCE: Final = 4


class LongSearch(Exception):
    """
    Finding the position at which a fork diverges takes long. The search continues outside the storage's atomic step.

    Appends never change, so the result is valid as long as the source stream exists.

    :ivar source_id: the id of the source stream.
    :ivar steps: the rest of the search; see :func:`find_divergence`.
    """

    def __init__(self, source_id: int, steps: Generator[None, None, int]) -> None:
        super().__init__()
        self.source_id = source_id
        self.steps = steps


def anchor_of(fork: Fork, facts: StreamFacts, tail: int) -> int:
    """
    Return the position of Stream-Fork-Offset in the source; the tail if the request has none.

    :param facts: of the source.
    :param tail: of the source.
    :raises InvalidRequest: it is not an offset of the source, or past its tail.
    """
    if fork.offset is None:
        return tail
    try:
        anchor = locate(fork.offset, facts, tail)
    except (InvalidOffset, OffsetGone):
        raise InvalidRequest("Stream-Fork-Offset is not an offset of the source.") from None
    if anchor < fork.offset.position:
        raise InvalidRequest("Stream-Fork-Offset is past the source's tail.")
    return anchor


def divergence(
    anchor: int, sub_offset: int, append: tuple[int, bytes] | None, json: bool
) -> int | Generator[None, None, int]:
    """
    Find the position at which a fork diverges, or return the rest of a long search; see :func:`find_divergence`.

    :returns: the position, or the remaining steps if the search takes more than some milliseconds.
    :raises InvalidRequest: the anchor is inside a message, or the sub-offset goes past the append's end.
    """
    steps = find_divergence(anchor, sub_offset, append, json)
    try:
        for _ in range(_STEPS_AT_ONCE):
            next(steps)
    except StopIteration as stop:
        position: int = stop.value
        return position
    return steps


def find_divergence(
    anchor: int, sub_offset: int, append: tuple[int, bytes] | None, json: bool
) -> Generator[None, None, int]:
    """
    Find the position at which a fork diverges, in steps of about half a millisecond.

    :param anchor: the position of Stream-Fork-Offset, not past the source's tail.
    :param sub_offset: messages of a JSON source, bytes of any other, past the anchor.
    :param append: the position and bytes of the append that contains or starts at the anchor; None at the tail.
    :param json: whether the source is in JSON mode.
    :returns: the position, as the generator's return value.
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
            raise InvalidRequest("Stream-Fork-Sub-Offset goes past the end of the append at Stream-Fork-Offset.")
        return position
    if anchor == start and not sub_offset:
        return anchor
    # A message has at least one byte, and a comma.
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
