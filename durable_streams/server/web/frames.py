"""Where HTTP/2's frames begin (RFC 9113 section 4.1), as far as h2 can't be left to find it."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from hyperframe.frame import GoAwayFrame

#: What a client sends before its first frame, in bytes; what a frame begins with; and how long it may be.
_PREFACE: Final = 24
_FRAME_HEAD: Final = 9
_FRAME: Final = 16_384


class Framing:
    """
    Looks at where frames begin, before h2 sees them.

    Of one that is longer than any may be, h2 would wait until it had it all, up to 16 MiB. And after a GOAWAY it lets
    nothing be sent, not even the answers to what came before it, so that frame goes to h2 alone.
    """

    __slots__ = ("_begun", "_in_goodbye", "_left")

    def __init__(self) -> None:
        # How many bytes there are to the next frame; the first ones of it, if they are too few to tell what it is; and
        # whether the bytes to it are those of a GOAWAY.
        self._left = _PREFACE
        self._begun = b""
        self._in_goodbye = False

    def cut(self, data: bytes) -> list[bytes] | None:
        """Cut what comes next before each GOAWAY and behind it; None if a frame begins in it that is too long."""
        begun = len(self._begun)
        whole = self._begun + data
        place = self._left
        cuts = [place] if self._in_goodbye else []
        while place + 3 <= len(whole):
            length = int.from_bytes(whole[place : place + 3], "big")
            if length > _FRAME:
                return None
            if place + 3 == len(whole):
                break
            end = place + _FRAME_HEAD + length
            self._in_goodbye = whole[place + 3] == GoAwayFrame.type
            if self._in_goodbye:
                cuts += place, end
            place = end
        self._begun = whole[place:]
        self._left = max(0, place - len(whole))
        if not self._left:
            self._in_goodbye = False
        if not cuts:
            return [data]
        edges = [0, *(max(0, place - begun) for place in cuts), len(data)]
        return [data[start:end] for start, end in pairwise(edges) if data[start:end]]
