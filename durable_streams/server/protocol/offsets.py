"""Parsing of offsets, and their positions in a stream (PROTOCOL section 8)."""

from __future__ import annotations

import re

from ..errors import InvalidOffset, InvalidRequest, OffsetGone
from ..model import NOW, START, Offset, StreamFacts

_FORM = re.compile(r"([0-9]{16})_([0-9]{16})")


def parse_offset(text: str) -> Offset:
    """
    Parse an offset from a request.

    :raises InvalidOffset: it is neither ``-1`` nor ``now`` nor of the form that this server returns.
    """
    if text == "-1":
        return START
    if text == "now":
        return NOW
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidOffset("The offset is malformed. Send -1, now, or the value of a Stream-Next-Offset header.")
    return Offset(int(match[1]), int(match[2]))


def parse_expected(text: str) -> Offset:
    """
    Parse the offset that an append expects to be the stream's tail.

    :raises InvalidRequest: it is not the offset of a place in a stream.
    """
    try:
        expected = parse_offset(text)
    except InvalidOffset:
        expected = NOW
    if expected == NOW:
        raise InvalidRequest(
            "Stream-Expected-Offset must be the stream's last Stream-Next-Offset, or -1 for its start."
        )
    return expected


def locate(offset: Offset, facts: StreamFacts, tail: int) -> int:
    """
    Return the position of an offset in a stream; the tail for an offset past it.

    :raises OffsetGone: the offset belongs to an earlier stream of this name.
    :raises InvalidOffset: no stream of this name ever had the offset.
    """
    if offset.incarnation == facts.incarnation:
        position = offset.position
        return position if position < tail else tail
    if offset == START:
        return 0
    if offset == NOW:
        return tail
    if 0 < offset.incarnation < facts.incarnation:
        raise OffsetGone(facts.name)
    raise InvalidOffset("The offset belongs to another stream. Read from -1, or from an offset of this stream.")
