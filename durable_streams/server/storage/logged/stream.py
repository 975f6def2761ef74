"""A stream of a logged storage: its accepted state, its committed state, and its recent bytes in memory."""

from __future__ import annotations

from array import array

from ...model import Lifetime, StreamConfig, StreamFacts
from ..entry import Entry


class RecentAppends:
    """
    The last appends of a stream, in memory.

    :ivar start: the position of the first byte.
    :ivar ends: the end positions of the appends, ascending; the first append begins at ``start``.
    :ivar checksums: a CRC-32 for each append.
    """

    __slots__ = ("checksums", "data", "ends", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.data = bytearray()
        self.ends = array("Q")
        self.checksums = array("I")

    def add(self, data: bytes, end: int, checksum: int) -> None:
        """Add one append."""
        self.data += data
        self.ends.append(end)
        self.checksums.append(checksum)

    def slice(self, start: int, end: int) -> bytes:
        """Return the bytes between two positions."""
        with memoryview(self.data) as data:
            return bytes(data[start - self.start : end - self.start])

    def drop(self, count: int) -> None:
        """Discard the first ``count`` appends."""
        if count:
            end = self.ends[count - 1]
            del self.data[: end - self.start]
            del self.ends[:count], self.checksums[:count]
            self.start = end


class LoggedStream(Entry):
    """
    A stream of a logged storage.

    :ivar lsn: the LSN of its last change.
    :ivar shown: the committed tail, which readers see. If it is negative, they do not see the stream, because its
        creation or installation is not committed; the committed tail is ``~shown`` then.
    :ivar shown_closed: whether the close is committed.
    :ivar recent: the appends in memory, or None.
    """

    __slots__ = ("lsn", "recent", "shown", "shown_closed")

    def __init__(self, facts: StreamFacts, config: StreamConfig, lifetime: Lifetime, base: int, now: float) -> None:
        super().__init__(facts, config, lifetime, base, now)
        self.lsn = 0
        self.shown = -1
        self.shown_closed = False
        self.recent: RecentAppends | None = None

    def forget(self) -> None:
        super().forget()
        self.recent = None

    @property
    def committed(self) -> int:
        """The committed tail, whether readers see it or not."""
        return self.shown if self.shown >= 0 else ~self.shown

    def conceal(self) -> None:
        """Make the stream, all of which is committed, invisible until the next change is committed."""
        self.shown = ~self.shown
        self.shown_closed = False

    def show(self) -> None:
        """Make the accepted state visible to readers."""
        self.shown = self.tail
        self.shown_closed = self.closed
