"""Streams in memory: gone with the process, and the yardstick for every other provider."""

from __future__ import annotations

from array import array
from itertools import islice

from zope.interface import implementer

from ..interfaces import ICommitListener, IStorage
from ..model import (
    Append,
    Appended,
    Chunk,
    Created,
    ForkPoint,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    StreamStatus,
)
from ..protocol.offsets import locate
from ..protocol.reading import end_of_read, start_of_append
from .catalogue import Catalogue, Entry


class _Stream(Entry):
    """One stream, with its own bytes and where its own appends end."""

    __slots__ = ("data", "ends")

    def __init__(
        self,
        facts: StreamFacts,
        config: StreamConfig,
        lifetime: Lifetime,
        source: _Stream | None,
        base: int,
        now: float,
    ) -> None:
        super().__init__(facts, config, lifetime, source, base, now)
        self.data = bytearray()
        self.ends = array("Q")

    def forget(self) -> None:
        super().forget()
        self.data = bytearray()
        self.ends = array("Q")

    def append_at(self, position: int) -> tuple[int, int]:
        """Say where the append that has the byte at ``position`` begins and ends, as far as it is in this stream."""
        owner, end = self.owner(position)
        start = start_of_append(owner.ends, position)
        return max(start, owner.base), min(end_of_read(owner.ends, start, 0), end)

    def slice(self, start: int, end: int) -> bytes:
        with memoryview(self.data) as data:
            return bytes(data[start - self.base : end - self.base])

    def range(self, start: int, end: int) -> bytes:
        if start >= self.base:
            return bytes(self.data) if start == self.base and end == self.tail else self.slice(start, end)
        return b"".join([owner.slice(first, stop) for owner, first, stop in self.parts(start, end)])


@implementer(IStorage)
class MemoryStorage(Catalogue[_Stream]):
    """
    A storage that forgets everything when the process ends.

    :param limits: what it takes; over it, writes are refused and nothing that is there suffers.
    """

    def __init__(self, limits: StorageLimits = StorageLimits()) -> None:  # noqa: B008 (frozen)
        super().__init__(limits, _Stream)

    def load(self) -> None:
        """Do nothing: memory has nothing to load."""

    def open(self) -> None:
        """Do nothing: memory has nothing to load and no background work."""

    def obstacle(self) -> None:
        """Memory does not fail."""

    def listen(self, listener: ICommitListener) -> None:
        self._listener = listener

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> Created:
        stream, data = self._make(name, config, body, now, point)
        if data is not None:
            if data:
                stream.data += data
                stream.ends.append(stream.tail)
            self._listener.committed(name)
        return Created(stream.facts, stream.tail, stream.closed, new=data is not None)

    def append(self, name: str, append: Append, now: float) -> Appended:
        stream = self._find(name, now)
        appended = self._write(stream, append, now)
        if not appended.duplicate:
            if append.data:
                stream.data += append.data
                stream.ends.append(appended.tail)
            self._listener.committed(name)
        return appended

    def read(self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True) -> Chunk:
        stream = self._find(name, now)
        if renew:
            stream.use(now)
        facts = stream.facts
        tail = stream.base + len(stream.data)
        start = locate(offset, facts, tail)
        if start == tail:
            return Chunk(facts, start, b"", tail, stream.closed)
        if start > stream.base:
            start = max(start_of_append(stream.ends, start), stream.base)
        elif start < stream.base:
            start = stream.append_at(start)[0]
        end = tail
        more = 0
        if tail - start > limit:
            end = start + limit
            if whole:
                whole_end = self._end_of_whole(stream, start, limit)
                more = max(0, whole_end - end)
                end = min(end, whole_end)
        return Chunk(facts, start, stream.range(start, end), tail, stream.closed, more)

    def read_range(self, facts: StreamFacts, start: int, end: int) -> bytes:
        return self._same_stream(facts).range(start, end)

    def status(self, name: str, now: float) -> StreamStatus:
        return self._status(self._find(name, now))

    def delete(self, name: str, now: float) -> None:
        self._remove(self._find(name, now))

    def renew(self, name: str, now: float) -> None:
        self._renew(name, now)

    def sweep(self, now: float, max_count: int) -> int:
        return self._sweep(now, max_count)

    def statuses(self, now: float, after: str = "", max_count: int = 1000) -> list[StreamStatus]:
        return [self._status(stream) for stream in islice(self._present(now, after), max_count)]

    def close(self) -> None:
        """There is nothing to let go of."""

    # How it is done

    def _append_at(self, stream: _Stream, position: int) -> tuple[int, bytes]:
        start, end = stream.append_at(position)
        return start, stream.range(start, end)

    def _removed(self, stream: _Stream) -> None:
        self._listener.committed(stream.facts.name)

    def _end_of_whole(self, stream: _Stream, start: int, limit: int) -> int:
        if start >= stream.base:
            return end_of_read(stream.ends, start, limit)
        for owner, first, stop in stream.parts(start, stream.tail):
            if stop - start > limit:
                end = min(end_of_read(owner.ends, first, start + limit - first), stop)
                return end if end - start <= limit or first == start else first
        return stream.tail
