"""One stream of a storage that has a log: what was accepted of it, what of that is committed, and what is in memory."""

from __future__ import annotations

from array import array
from typing import Any

from ..model import Lifetime, StreamConfig, StreamFacts
from .catalogue import Entry


class Recent:
    """
    The end of a stream's own bytes, in memory.

    :ivar start: the position of the first of them.
    :ivar ends: where the appends end, ascending; the first of them begins at ``start``.
    :ivar checksums: a CRC-32 for each append.
    """

    __slots__ = ("checksums", "data", "ends", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.data = bytearray()
        self.ends = array("Q")
        self.checksums = array("I")

    def add(self, data: bytes, end: int, checksum: int) -> None:
        """Append."""
        self.data += data
        self.ends.append(end)
        self.checksums.append(checksum)

    def slice(self, start: int, end: int) -> bytes:
        """Copy what is between two positions."""
        with memoryview(self.data) as data:
            return bytes(data[start - self.start : end - self.start])

    def drop(self, count: int) -> None:
        """Let go of the first appends."""
        if count:
            end = self.ends[count - 1]
            del self.data[: end - self.start]
            del self.ends[:count], self.checksums[:count]
            self.start = end


class Kept(Entry):
    """
    One stream of a storage that has a log.

    :ivar lsn: the number of the last change that it had.
    :ivar shown: the tail that readers see; -1 before there is any.
    :ivar shown_closed: whether they see it closed.
    :ivar recent: the end of its bytes, if any are in memory.
    """

    __slots__ = ("lsn", "recent", "shown", "shown_closed")

    def __init__(
        self, facts: StreamFacts, config: StreamConfig, lifetime: Lifetime, source: Any, base: int, now: float
    ) -> None:
        super().__init__(facts, config, lifetime, source, base, now)
        self.lsn = 0
        self.shown = -1
        self.shown_closed = False
        self.recent: Recent | None = None

    def forget(self) -> None:
        super().forget()
        self.recent = None

    def show(self) -> None:
        """Let readers see it as it is."""
        self.shown = self.tail
        self.shown_closed = self.closed
