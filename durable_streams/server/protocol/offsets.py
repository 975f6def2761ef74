"""Offsets: what they look like, and which place in a stream each one means (PROTOCOL section 8)."""

from __future__ import annotations

import re

from ..errors import InvalidOffset, OffsetGone
from ..model import NOW, START, Offset, StreamFacts

_FORM = re.compile(r"([0-9]{16})_([0-9]{16})")


def parse_offset(text: str) -> Offset:
    """
    Read an offset as clients send it.

    :raises InvalidOffset: it is neither ``-1`` nor ``now`` nor of the form that this server gives out.
    """
    if text == "-1":
        return START
    if text == "now":
        return NOW
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidOffset(
            "The offset is not one that this server gives out. Send -1, now, or a Stream-Next-Offset as it came."
        )
    return Offset(int(match[1]), int(match[2]))


def locate(offset: Offset, facts: StreamFacts, tail: int) -> int:
    """
    Say which position in a stream with this tail an offset means.

    :raises OffsetGone: it is one of an earlier stream of this name.
    :raises InvalidOffset: it is of no stream that had this name.
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
    raise InvalidOffset("The offset is of another stream. Read this one from -1, or from an offset that it gave.")
