"""Streams in memory. They end with the process."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import islice
from math import inf

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
    StorageFigures,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
)
from ..protocol.offsets import locate
from ..protocol.reading import end_of_read, ends_between, start_of_append
from .catalogue import Catalogue
from .entry import Entry
from .listeners import NullListener
from .values import check_puts


class _Stream(Entry):
    """A stream with its own bytes, and the position at which each of its own appends ends."""

    __slots__ = ("data", "ends")

    def __init__(
        self,
        facts: StreamFacts,
        config: StreamConfig,
        lifetime: Lifetime,
        base: int,
        now: float,
    ) -> None:
        super().__init__(facts, config, lifetime, base, now)
        self.data = bytearray()
        self.ends = array("Q")

    def forget(self) -> None:
        super().forget()
        self.data = bytearray()
        self.ends = array("Q")

    def append_at(self, position: int) -> tuple[int, int]:
        """Return where the append with the byte at ``position`` begins and ends, within this stream."""
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
class MemoryStorage:
    """
    A storage that forgets everything when the process ends.

    :param limits: writes that exceed them are refused.
    """

    def __init__(self, limits: StorageLimits = StorageLimits()) -> None:  # noqa: B008 (frozen)
        catalogue = self._catalogue = Catalogue(limits, _Stream, _append_at, self._removed)
        self._listener: ICommitListener = NullListener()
        # Bound once: looking a method up through the catalogue costs each append about 2 %.
        self._streams, self._find, self._write = catalogue.streams, catalogue.find, catalogue.append

    def load(self) -> None:
        """Do nothing: memory has nothing to load."""

    def open(self) -> None:
        """Do nothing: memory has nothing to load and no background work."""

    def obstacle(self) -> None:
        """Return None: memory does not fail."""

    def figures(self) -> StorageFigures:
        return self._catalogue.figures()

    def set_wall_offset(self, offset: float) -> None:
        self._catalogue.wall_offset = offset

    def listen(self, listener: ICommitListener) -> None:
        self._listener = listener

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> Created:
        stream, data = self._catalogue.create(name, config, body, now, point)
        if data is not None:
            if data:
                stream.data += data
                stream.ends.append(stream.tail)
            self._listener.committed(name)
        return Created(stream.facts, stream.tail, stream.closed, new=data is not None)

    def append(self, name: str, append: Append, now: float) -> Appended:
        stream = self._streams.get(name)
        if stream is None or stream.deleted or stream.deadline != inf:
            # A stream that does not expire is found without this call, which costs an append about 8 %.
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
                whole_end = _end_of_whole(stream, start, limit)
                more = max(0, whole_end - end)
                end = min(end, whole_end)
        return Chunk(facts, start, stream.range(start, end), tail, stream.closed, more)

    def read_range(self, facts: StreamFacts, start: int, end: int, hidden: bool = False) -> bytes:
        return self._catalogue.same_stream(facts, hidden).range(start, end)

    def status(self, name: str, now: float) -> StreamStatus:
        stream = self._find(name, now)
        return stream.status(stream.tail, stream.closed)

    def install(
        self, staged: str, name: str, restoration: StreamRestoration, replace: bool, now: float
    ) -> StreamStatus:
        stream = self._find(staged, now)
        self._catalogue.install(stream, name, restoration, replace, now)
        status = stream.status(stream.tail, stream.closed)
        if restoration.deleted:
            # The removal is announced.
            self._catalogue.remove(stream)
        else:
            self._listener.committed(name)
        return status

    def delete(self, name: str, now: float) -> None:
        self._catalogue.remove(self._find(name, now))

    def renew(self, name: str, now: float) -> None:
        self._catalogue.renew(name, now)

    def sweep(self, now: float, max_count: int) -> int:
        return self._catalogue.sweep(now, max_count)

    def record(self, name: str, now: float, hidden: bool = False) -> StreamRecord:
        catalogue = self._catalogue
        return (catalogue.find_hidden if hidden else self._find)(name, now).record(catalogue.wall_offset)

    def append_ends(self, facts: StreamFacts, start: int, max_count: int, hidden: bool = False) -> list[int]:
        stream = self._catalogue.same_stream(facts, hidden)
        ends: list[int] = []
        for owner, first, stop in stream.parts(start, stream.tail):
            ends += ends_between(owner.ends, first, stop, max_count - len(ends))
        return ends

    def statuses(self, now: float, after: str = "", max_count: int = 1000, prefix: str = "") -> list[StreamStatus]:
        return [
            stream.status(stream.tail, stream.closed)
            for stream in islice(self._catalogue.present(now, after, prefix), max_count)
        ]

    def values(self, prefix: str = "", after: str = "", max_count: int = 1000) -> list[tuple[str, bytes]]:
        return self._catalogue.values.page(prefix, after, max_count)

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        check_puts(puts, expected)
        self._catalogue.write_values(puts, expected)

    def close(self) -> None:
        """Do nothing: memory has no resources to release."""

    def _removed(self, stream: _Stream, gone: list[_Stream]) -> None:
        self._listener.committed(stream.facts.name)


def _append_at(stream: _Stream, position: int) -> tuple[int, bytes]:
    start, end = stream.append_at(position)
    return start, stream.range(start, end)


def _end_of_whole(stream: _Stream, start: int, limit: int) -> int:
    """Return the end of a read of whole appends: the last end within the limit, or else the first one."""
    if start >= stream.base:
        return end_of_read(stream.ends, start, limit)
    for owner, first, stop in stream.parts(start, stream.tail):
        if stop - start > limit:
            end = min(end_of_read(owner.ends, first, start + limit - first), stop)
            return end if end - start <= limit or first == start else first
    return stream.tail
