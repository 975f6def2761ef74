"""Frame boundaries of HTTP/2 (RFC 9113 section 4.1), found before h2 parses the frames."""

from __future__ import annotations

from typing import Final

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from msgspec import Struct

#: What a client sends before its first frame, in bytes; the head of a frame, how much of that is looked at, and how
#: long a frame may be.
_PREFACE: Final = 24
_FRAME_HEAD: Final = 9
_LOOKED_AT: Final = 5
_FRAME: Final = 16_384

#: How many frames h2 is given at a time. It takes about 25 us for a PING, and a request takes 100 to 200 us.
_AT_ONCE: Final = 8

#: Flags of frames: a stream ends; there is padding, and it may be so many bytes.
_END_STREAM: Final = 0x1
_PADDED: Final = 0x8
_PADDING: Final = 256

#: Frames that ask for nothing and are of no use to a client that sends many of them.
_IDLE: Final = frozenset([PingFrame.type, SettingsFrame.type, RstStreamFrame.type, GoAwayFrame.type])

#: Frames that ask for something.
_ASKING: Final = frozenset([DataFrame.type, HeadersFrame.type, ContinuationFrame.type])


class Packet(Struct, frozen=True, gc=False):
    """
    A few frames, which h2 parses in one call.

    :ivar goodbye: whether it is a GOAWAY, or a part of one.
    """

    data: bytes
    goodbye: bool


class Framing:
    """
    Cuts received bytes at frame boundaries, and counts frames that request nothing.

    Of one that is longer than any may be, h2 would wait until it had it all, up to 16 MiB. After a GOAWAY it lets
    nothing be sent, not even the answers to what came before it, so that frame goes to h2 alone. And a packet may have
    thousands of frames, so h2 is given a few at a time.

    :ivar idle: how many frames of no use there were: PING, SETTINGS, RST_STREAM, GOAWAY, and DATA that is empty or may
        be nothing but padding.
    :ivar updates: how many there were that belong to other frames but ask for nothing: WINDOW_UPDATE, PRIORITY, and
        those of kinds that are not known.
    :ivar requests: how many requests began.
    """

    __slots__ = ("_begun", "_frames", "_in_goodbye", "_left", "idle", "requests", "updates")

    def __init__(self) -> None:
        # How many bytes there are to the next frame; the first ones of it, if they are too few to tell what it is; how
        # many frames there were since the last cut; and whether the bytes to the next one are those of a GOAWAY.
        self._left = _PREFACE
        self._begun = b""
        self._frames = 0
        self._in_goodbye = False
        self.idle = self.updates = self.requests = 0

    def cut(self, data: bytes) -> list[Packet] | None:
        """Cut received bytes into packets of a few frames, a GOAWAY alone; return None if a frame is too long."""
        begun = len(self._begun)
        whole = self._begun + data
        place = self._left
        packets: list[Packet] = []
        start = 0

        def cut_at(place: int) -> None:
            nonlocal start
            end = min(max(0, place - begun), len(data))
            if end > start:
                packets.append(Packet(data[start:end], self._in_goodbye))
                start = end
            self._frames = 0

        while place + 3 <= len(whole):
            length = int.from_bytes(whole[place : place + 3], "big")
            if length > _FRAME:
                return None
            if place + _LOOKED_AT > len(whole):
                break
            kind = whole[place + 3]
            self._count(kind, whole[place + 4], length)
            if self._in_goodbye or kind == GoAwayFrame.type or self._frames >= _AT_ONCE:
                cut_at(place)
            self._in_goodbye = kind == GoAwayFrame.type
            self._frames += 1
            place += _FRAME_HEAD + length
        if self._in_goodbye:
            cut_at(place)
        self._begun = whole[place:]
        self._left = max(0, place - len(whole))
        if not self._left:
            self._in_goodbye = False
        cut_at(begun + len(data))
        return packets

    def _count(self, kind: int, flags: int, length: int) -> None:
        if kind in _IDLE:
            self.idle += 1
        elif kind == DataFrame.type:
            if not flags & _END_STREAM and (not length or (flags & _PADDED and length <= _PADDING)):
                self.idle += 1
        elif kind == HeadersFrame.type:
            self.requests += 1
        elif kind not in _ASKING:
            self.updates += 1
