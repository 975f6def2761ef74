"""Where a fork leaves its source (PROTOCOL section 4.2)."""

from __future__ import annotations

from itertools import islice

from ..errors import InvalidRequest
from .messages import boundaries


def divergence(anchor: int, sub_offset: int, append: tuple[int, bytes] | None, json: bool) -> int:
    """
    Find the position at which a fork diverges.

    :param anchor: the position that Stream-Fork-Offset means, not past the source's tail.
    :param sub_offset: messages of a JSON source, bytes of any other, past the anchor.
    :param append: the position and the bytes of the append that the anchor is in or at the start of; None at the tail.
    :param json: whether the source is in JSON mode.
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
    edges = boundaries(data)
    if next(edge for edge in edges if start + edge >= anchor) != anchor - start:
        raise InvalidRequest("Stream-Fork-Offset lies inside a message of the source.")
    if not sub_offset:
        return anchor
    # A message has a byte at least, and a comma.
    edge = next(islice(edges, sub_offset - 1, None), None) if 2 * sub_offset <= len(data) else None
    if edge is None:
        raise InvalidRequest("Stream-Fork-Sub-Offset counts more messages than the append has.")
    return start + edge
