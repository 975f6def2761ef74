"""Streams in memory: gone with the process, and the yardstick for every other provider."""

from __future__ import annotations

from array import array
from heapq import heapify, heappop, heappush
from math import inf

from zope.interface import implementer

from ..errors import (
    ContentTypeMismatch,
    ForkFromDeleted,
    InsufficientStorage,
    InvalidOffset,
    InvalidRequest,
    OffsetGone,
    PathBlocked,
    StorageFull,
    StreamFull,
    StreamGone,
    StreamNotFound,
)
from ..interfaces import ICommitListener, IStorage
from ..model import (
    Append,
    Appended,
    Chunk,
    Created,
    Fork,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    StreamStatus,
    WriterState,
)
from ..protocol.content import DEFAULT_TYPE, JSON_TYPE, media_type
from ..protocol.creating import check_same
from ..protocol.forks import divergence
from ..protocol.lifetimes import deadline
from ..protocol.messages import first_data
from ..protocol.offsets import locate
from ..protocol.reading import end_of_read, start_of_append
from ..protocol.writing import WRITER_MEMORY, is_new


class _Stream:
    """One stream: its own bytes, which begin at ``base``, and the source that has those before."""

    __slots__ = (
        "base",
        "closed",
        "config",
        "created_at",
        "data",
        "deadline",
        "deleted",
        "ends",
        "facts",
        "forks",
        "lifetime",
        "sequence",
        "source",
        "updated_at",
        "writers",
    )

    def __init__(
        self,
        facts: StreamFacts,
        config: StreamConfig,
        lifetime: Lifetime,
        source: _Stream | None,
        base: int,
        now: float,
    ) -> None:
        self.facts = facts
        self.config = config
        self.lifetime = lifetime
        self.source = source
        self.base = base
        self.data = bytearray()
        self.ends = array("Q")
        self.closed = config.closed
        self.deleted = False
        self.forks = 0
        self.sequence: bytes | None = None
        self.writers: dict[str, WriterState] | None = None
        self.created_at = self.updated_at = now
        self.deadline = deadline(lifetime, now)

    @property
    def tail(self) -> int:
        return self.base + len(self.data)

    def add(self, data: bytes) -> int:
        """Append, and say where the tail is now."""
        self.data += data
        tail = self.base + len(self.data)
        self.ends.append(tail)
        return tail

    def use(self, now: float) -> None:
        """Begin a sliding lifetime anew."""
        if self.lifetime.ttl is not None:
            self.deadline = deadline(self.lifetime, now)

    def forget(self) -> None:
        """Let go of the data; a deadline may still hold on to the rest for a while."""
        self.data = bytearray()
        self.ends = array("Q")
        self.writers = self.source = None

    def owner(self, position: int) -> tuple[_Stream, int]:
        """Find who has the byte at ``position``, and up to where its bytes are this stream's too."""
        stream, end = self, self.tail
        while position < stream.base and stream.source is not None:
            end = min(end, stream.base)
            stream = stream.source
        return stream, end

    def append_at(self, position: int) -> tuple[int, int]:
        """Say where the append that has the byte at ``position`` begins and ends, as far as it is in this stream."""
        owner, end = self.owner(position)
        start = start_of_append(owner.ends, position)
        return max(start, owner.base), min(end_of_read(owner.ends, start, 0), end)

    def pieces(self, start: int, end: int) -> list[tuple[_Stream, int, int]]:
        """Say who has the bytes between two positions: each with the first and the end of its part, in order."""
        pieces = []
        stream: _Stream | None = self
        while stream is not None and start < end:
            first = max(start, stream.base)
            if first < end:
                pieces.append((stream, first, end))
                end = first
            stream = stream.source
        pieces.reverse()
        return pieces

    def slice(self, start: int, end: int) -> bytes:
        with memoryview(self.data) as data:
            return bytes(data[start - self.base : end - self.base])

    def range(self, start: int, end: int) -> bytes:
        if start >= self.base:
            return bytes(self.data) if start == self.base and end == self.tail else self.slice(start, end)
        return b"".join([owner.slice(first, stop) for owner, first, stop in self.pieces(start, end)])


class _Silence:
    def committed(self, name: str) -> None:
        """Nobody listens yet."""


@implementer(IStorage)
class MemoryStorage:
    """
    A storage that forgets everything when the process ends.

    :param limits: what it takes; over it, writes are refused and nothing that is there suffers.
    """

    def __init__(self, limits: StorageLimits = StorageLimits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._listener: ICommitListener = _Silence()  # type: ignore[assignment]
        self._streams: dict[str, _Stream] = {}
        self._last_id = 0
        self._bytes = 0
        # When streams may be over: what is in here may be renewed or deleted by the time that it comes up.
        self._deadlines: list[tuple[float, int, _Stream]] = []

    # What IStorage asks for

    def listen(self, listener: ICommitListener) -> None:
        self._listener = listener

    def create(self, name: str, config: StreamConfig, body: bytes, now: float) -> Created:
        stream = self._streams.get(name)
        if stream is not None and now >= stream.deadline:
            self._remove(stream)
            stream = self._streams.get(name)
        if stream is not None:
            if stream.deleted:
                raise PathBlocked(name)
            check_same(
                config, stream.config, stream.facts, stream.lifetime, stream.closed, self._same_point(config, stream)
            )
            return Created(stream.facts, stream.tail, stream.closed, new=False)
        stream = self._new_stream(name, config, now)
        data = first_data(body, stream.facts.json)
        self._make_room(stream, len(data))
        if len(self._streams) >= self._limits.streams:
            raise InsufficientStorage(
                f"There are {self._limits.streams} streams, which is the limit. Delete some, or let them expire."
            )
        if data:
            stream.add(data)
            self._bytes += len(data)
        if stream.source is not None:
            stream.source.forks += 1
        self._streams[name] = stream
        if stream.deadline != inf:
            heappush(self._deadlines, (stream.deadline, stream.facts.id, stream))
        self._listener.committed(name)
        return Created(stream.facts, stream.tail, stream.closed, new=True)

    def append(self, name: str, append: Append, now: float) -> Appended:
        stream = self._find(name, now)
        writer = append.writer
        known = self._writer_state(stream, writer.id, now) if writer is not None else None
        tail = stream.base + len(stream.data)
        if not is_new(append, stream.facts, tail, stream.closed, stream.sequence, known):
            stream.use(now)
            return Appended(stream.facts, tail, stream.closed, known, duplicate=True)
        data = append.data
        if data:
            self._make_room(stream, len(data))
        if writer is not None:
            known = WriterState(writer.epoch, writer.seq, now)
            self._remember(stream, writer.id, known, now)
        if data:
            tail = stream.add(data)
            self._bytes += len(data)
        if append.sequence is not None:
            stream.sequence = append.sequence
        if append.close:
            stream.closed = True
        stream.use(now)
        stream.updated_at = now
        self._listener.committed(name)
        return Appended(stream.facts, tail, stream.closed, known)

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
        if tail - start > limit:
            end = self._end_of_whole(stream, start, limit) if whole else start + limit
        return Chunk(facts, start, stream.range(start, end), tail, stream.closed)

    def read_range(self, facts: StreamFacts, start: int, end: int) -> bytes:
        stream = self._streams.get(facts.name)
        if stream is None or stream.facts.id != facts.id or stream.deleted:
            raise StreamNotFound(facts.name)
        return stream.range(start, end)

    def status(self, name: str, now: float) -> StreamStatus:
        return self._status(self._find(name, now))

    def delete(self, name: str, now: float) -> None:
        self._remove(self._find(name, now))

    def renew(self, name: str, now: float) -> None:
        stream = self._streams.get(name)
        if stream is not None and not stream.deleted and now < stream.deadline:
            stream.use(now)

    def sweep(self, now: float, most: int) -> int:
        removed = 0
        while self._deadlines and removed < most and self._deadlines[0][0] <= now:
            _, stream_id, stream = heappop(self._deadlines)
            if stream.deleted or self._streams.get(stream.facts.name) is not stream:
                continue
            if now >= stream.deadline:
                self._remove(stream)
                removed += 1
            else:
                heappush(self._deadlines, (stream.deadline, stream_id, stream))
        return removed

    def statuses(self, now: float) -> list[StreamStatus]:
        return [
            self._status(stream)
            for _, stream in sorted(self._streams.items())
            if not stream.deleted and now < stream.deadline
        ]

    def close(self) -> None:
        """There is nothing to let go of."""

    # How it is done

    def _find(self, name: str, now: float) -> _Stream:
        stream = self._streams.get(name)
        if stream is None:
            raise StreamNotFound(name)
        if now >= stream.deadline:
            self._remove(stream)
            if stream.forks == 0:
                raise StreamNotFound(name)
        if stream.deleted:
            raise StreamGone(name)
        return stream

    def _status(self, stream: _Stream) -> StreamStatus:
        return StreamStatus(
            stream.facts, stream.tail, stream.closed, stream.lifetime, stream.created_at, stream.updated_at
        )

    def _new_stream(self, name: str, config: StreamConfig, now: float) -> _Stream:
        # Microseconds, so that a stream made after a restart sorts after the ones before it.
        self._last_id = max(self._last_id + 1, int(now * 1_000_000))
        if config.fork is None:
            content_type = config.content_type or DEFAULT_TYPE
            facts = self._facts(name, self._last_id, content_type)
            return _Stream(facts, config, config.lifetime, None, 0, now)
        source = self._source(config.fork, now)
        if config.content_type is not None and media_type(config.content_type) != source.facts.media_type:
            raise ContentTypeMismatch(name, source.facts.media_type, media_type(config.content_type))
        facts = self._facts(name, source.facts.incarnation, source.facts.content_type)
        base = self._fork_point(config.fork, source)
        lifetime = config.lifetime if config.lifetime != Lifetime() else source.lifetime
        return _Stream(facts, config, lifetime, source, base, now)

    def _facts(self, name: str, incarnation: int, content_type: str) -> StreamFacts:
        media = media_type(content_type)
        return StreamFacts(name, self._last_id, incarnation, content_type, media, media == JSON_TYPE)

    def _source(self, fork: Fork, now: float) -> _Stream:
        try:
            return self._find(fork.source, now)
        except StreamGone:
            raise ForkFromDeleted(fork.source) from None

    def _fork_point(self, fork: Fork, source: _Stream) -> int:
        tail = source.tail
        anchor = tail
        if fork.offset is not None:
            try:
                anchor = locate(fork.offset, source.facts, tail)
            except (InvalidOffset, OffsetGone):
                raise InvalidRequest("Stream-Fork-Offset is not an offset of the source.") from None
            if anchor < fork.offset.position:
                raise InvalidRequest("Stream-Fork-Offset is past the source's tail.")
        if anchor == tail:
            return divergence(anchor, fork.sub_offset, None, source.facts.json)
        start, end = source.append_at(anchor)
        return divergence(anchor, fork.sub_offset, (start, source.range(start, end)), source.facts.json)

    def _same_point(self, asked: StreamConfig, stream: _Stream) -> bool:
        made_with = stream.config.fork
        if asked.fork == made_with:
            return True
        if asked.fork is None or made_with is None or asked.fork.source != made_with.source or stream.source is None:
            return False
        try:
            return self._fork_point(asked.fork, stream.source) == stream.base
        except InvalidRequest:
            return False

    def _end_of_whole(self, stream: _Stream, start: int, limit: int) -> int:
        if start >= stream.base:
            return end_of_read(stream.ends, start, limit)
        for owner, first, stop in stream.pieces(start, stream.tail):
            if stop - start > limit:
                end = min(end_of_read(owner.ends, first, start + limit - first), stop)
                return end if end - start <= limit or first == start else first
        return stream.tail

    def _make_room(self, stream: _Stream, size: int) -> None:
        if self._bytes + size > self._limits.total_bytes:
            raise StorageFull(stream.facts.name, self._limits.total_bytes)
        if len(stream.data) + size > self._limits.stream_bytes:
            raise StreamFull(stream.facts.name, self._limits.stream_bytes)

    def _writer_state(self, stream: _Stream, writer_id: str, now: float) -> WriterState | None:
        known = stream.writers.get(writer_id) if stream.writers is not None else None
        return known if known is not None and now - known.seen < WRITER_MEMORY else None

    def _remember(self, stream: _Stream, writer_id: str, state: WriterState, now: float) -> None:
        writers = stream.writers
        if writers is None:
            writers = stream.writers = {}
        elif writer_id not in writers and len(writers) >= self._limits.writers:
            for other, known in list(writers.items()):
                if now - known.seen >= WRITER_MEMORY:
                    del writers[other]
            if len(writers) >= self._limits.writers:
                raise InsufficientStorage(
                    f"The stream remembers {self._limits.writers} producers, which is the limit. Reuse a Producer-Id."
                )
        writers[writer_id] = state

    def _remove(self, stream: _Stream) -> None:
        """Delete a stream, or only hide it while it has forks; and every hidden source that has none left then."""
        name = stream.facts.name
        stream.deleted = True
        stream.deadline = inf
        gone: _Stream | None = stream
        while gone is not None and gone.deleted and not gone.forks:
            del self._streams[gone.facts.name]
            self._bytes -= len(gone.data)
            source = gone.source
            gone.forget()
            if source is not None:
                source.forks -= 1
            gone = source
        if len(self._deadlines) > 2 * len(self._streams) + 1000:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].deleted]
            heapify(self._deadlines)
        self._listener.committed(name)
