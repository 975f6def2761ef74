"""The streams of a storage as a catalogue: what is known of each but its bytes, and how a write changes it.

All of it is in memory and all of it at once: a provider has one catalogue, and adds where the bytes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf
from typing import Final, Generic, Self, TypeVar

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
from ..interfaces import ICommitListener
from ..model import (
    Append,
    Appended,
    Fork,
    ForkPoint,
    Lifetime,
    StorageFigures,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    StreamStatus,
    Writer,
    WriterState,
)
from ..protocol.content import DEFAULT_TYPE, JSON_TYPE, media_type
from ..protocol.creating import check_same
from ..protocol.forks import LongSearch, divergence
from ..protocol.lifetimes import deadline
from ..protocol.messages import first_data
from ..protocol.offsets import locate
from ..protocol.writing import is_new
from .metadata import stream_size, writers_size
from .name_index import NameIndex

#: How many writers a stream forgets at the most when it takes in a new one. More than one, so that their number shrinks
#: after the limit was lowered; few, so that the change that records them stays small.
_FORGOTTEN_AT_ONCE: Final = 2


class Entry:
    """
    One stream: its own bytes, which begin at ``base``, and the source that has those before.

    :ivar tail: where the next append begins.
    :ivar writers: the idempotent writers by id, the least recently accepted one first.
    :ivar deleted: it is there for its forks only.
    :ivar forks: how many streams have it for their source.
    :ivar deadline: when it is over: by the steady clock for a stream with a TTL, by the wall clock for one with
        Stream-Expires-At, never (infinity) for others.
    :ivar metadata: how many bytes it has besides its data (:mod:`.metadata`); counted when it enters the catalogue.
    """

    __slots__ = (
        "base",
        "closed",
        "config",
        "created_at",
        "deadline",
        "deleted",
        "facts",
        "forks",
        "lifetime",
        "metadata",
        "sequence",
        "source",
        "tail",
        "updated_at",
        "writers",
    )

    def __init__(
        self,
        facts: StreamFacts,
        config: StreamConfig,
        lifetime: Lifetime,
        source: Self | None,
        base: int,
        now: float,
    ) -> None:
        self.facts = facts
        self.config = config
        self.lifetime = lifetime
        self.source: Self | None = source
        self.base = self.tail = base
        self.closed = config.closed
        self.deleted = False
        self.forks = 0
        self.metadata = 0
        self.sequence: bytes | None = None
        self.writers: dict[str, WriterState] | None = None
        self.created_at = self.updated_at = now
        self.deadline = deadline(lifetime, now)

    @property
    def size(self) -> int:
        """How many bytes are its own."""
        return self.tail - self.base

    def owner(self, position: int) -> tuple[Self, int]:
        """Find who has the byte at ``position``, and up to where its bytes are this stream's too."""
        stream, end = self, self.tail
        while position < stream.base and stream.source is not None:
            end = min(end, stream.base)
            stream = stream.source
        return stream, end

    def parts(self, start: int, end: int) -> list[tuple[Self, int, int]]:
        """Say who has the bytes between two positions: each with the first and the end of its part, in order."""
        parts = []
        stream: Self | None = self
        while stream is not None and start < end:
            first = max(start, stream.base)
            if first < end:
                parts.append((stream, first, end))
                end = first
            stream = stream.source
        parts.reverse()
        return parts

    def use(self, now: float) -> None:
        """Begin a sliding lifetime anew."""
        if self.lifetime.ttl is not None:
            self.deadline = deadline(self.lifetime, now)

    def order_writers(self) -> None:
        """Put writers that were loaded in any order into the order in which they were seen last."""
        if self.writers is not None and len(self.writers) > 1:
            self.writers = dict(sorted(self.writers.items(), key=lambda item: item[1].seen))

    def forget(self) -> None:
        """Let go of what nobody can ask for any more; a deadline may still hold on to the rest for a while."""
        self.writers = self.source = None


S = TypeVar("S", bound=Entry)


def facts_of(name: str, stream_id: int, incarnation: int, content_type: str) -> StreamFacts:
    """Put together what never changes of a stream."""
    media = media_type(content_type)
    return StreamFacts(name, stream_id, incarnation, content_type, media, media == JSON_TYPE)


class Silence:
    """An :class:`.ICommitListener` that does not care."""

    def committed(self, name: str) -> None:
        """Nobody listens yet."""


class Catalogue(Generic[S]):
    """
    All streams of a storage, and the rules by which they change.

    A provider says in :meth:`_append_at` how bytes are found, and in :meth:`_removed` and :meth:`_purged` what becomes
    of those that are deleted.

    :param limits: what it takes; over it, writes are refused and nothing that is there suffers.
    :param entry_type: what it has for each stream.
    """

    def __init__(self, limits: StorageLimits, entry_type: Callable[..., S]) -> None:
        self._limits = limits
        self._entry_type = entry_type
        self._listener: ICommitListener = Silence()  # type: ignore[assignment]
        self._streams: dict[str, S] = {}
        self._names = NameIndex()
        self._last_id = 0
        self._bytes = 0
        self._metadata = 0
        # The writers that the append under way made its stream forget.
        self._forgotten: tuple[str, ...] = ()
        self.wall_offset = 0.0
        # By how much that differs from what was written: what was there already is in it, what was removed is not.
        self._unwritten = 0
        # When streams may be over, by the steady clock and by the wall clock. What is in here may be renewed or deleted
        # by the time that it comes up.
        self._deadlines: list[tuple[float, int, S]] = []
        self._wall_deadlines: list[tuple[float, int, S]] = []

    def figures(self) -> StorageFigures:
        """See :meth:`.IStorage.figures`."""
        return StorageFigures(
            len(self._streams), self._bytes, self._bytes - self._unwritten, metadata_bytes=self._metadata
        )

    def set_wall_offset(self, offset: float) -> None:
        """See :meth:`.IStorage.set_wall_offset`."""
        self.wall_offset = offset

    # What a provider says

    def _append_at(self, stream: S, position: int) -> tuple[int, bytes]:
        """Say where the append with a byte begins, and its bytes, as far as they are this stream's."""
        raise NotImplementedError

    def _expiring(self) -> None:
        """Hear that a stream is about to be removed, because its time is over; what is raised here keeps it."""

    def _removed(self, stream: S) -> None:
        """Hear that a stream is deleted. Those that go with it are told by :meth:`_purged` before this."""

    def _check_immutable(self, stream: S, end: int) -> None:
        """Break a step off as long as the append of a stream that ends at ``end`` may be undone."""

    def _purged(self, stream: S) -> None:
        """Hear that nobody can read a stream's bytes any more."""

    # Finding

    def _find(self, name: str, now: float) -> S:
        stream = self._streams.get(name)
        if stream is None:
            raise StreamNotFound(name)
        if stream.deadline != inf and self._is_over(stream, now):
            self._expiring()
            self._remove(stream)
            if stream.forks == 0:
                raise StreamNotFound(name)
        if stream.deleted:
            raise StreamGone(name)
        return stream

    def _same_stream(self, facts: StreamFacts) -> S:
        """
        Find the very stream that was found before.

        :raises StreamNotFound: it was deleted meanwhile.
        """
        stream = self._streams.get(facts.name)
        if stream is None or stream.facts.id != facts.id or stream.deleted:
            raise StreamNotFound(facts.name)
        return stream

    def _present(self, now: float, after: str) -> Iterator[S]:
        """Iterate over the streams that can be found and whose names are after another, in the order of their names."""
        streams = self._streams
        for name in self._names.after(after):
            stream = streams[name]
            if not stream.deleted and not self._is_over(stream, now):
                yield stream

    def _is_over(self, stream: S, now: float) -> bool:
        """Return whether a stream's lifetime is over."""
        return (now if stream.lifetime.expires_at is None else now + self.wall_offset) >= stream.deadline

    def _status(self, stream: S) -> StreamStatus:
        return StreamStatus(
            stream.facts, stream.tail, stream.closed, stream.lifetime, stream.created_at, stream.updated_at
        )

    # Creating

    def _make(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None
    ) -> tuple[S, bytes | None]:
        """
        Make a stream, or find it.

        :raises LongSearch: the fork's position takes a long search.
        :returns: the stream, and its first bytes; None for these, when it was there already.
        """
        stream = self._streams.get(name)
        if stream is not None and self._is_over(stream, now):
            self._expiring()
            self._remove(stream)
            stream = self._streams.get(name)
        if stream is not None:
            if stream.deleted:
                raise PathBlocked(name)
            same_point = self._same_point(config, stream, point)
            check_same(config, stream.config, stream.facts, stream.lifetime, stream.closed, same_point)
            return stream, None
        stream = self._new(name, config, now, point)
        data = first_data(body, stream.facts.json)
        self._make_room(stream, len(data))
        if len(self._streams) >= self._limits.streams:
            raise InsufficientStorage(
                f"There are {self._limits.streams} streams, which is the limit (limits.max_streams). Delete some, or "
                "let them expire."
            )
        self._make_metadata_room(stream_size(stream.facts, config, None, None))
        stream.tail += len(data)
        if stream.source is not None:
            stream.source.forks += 1
        self._enter(stream)
        self._unwritten -= stream.size
        return stream, data

    def _enter(self, stream: S) -> None:
        """Put a stream that is complete into the catalogue."""
        self._bytes += stream.size
        self._unwritten += stream.size
        stream.metadata = stream_size(stream.facts, stream.config, stream.sequence, stream.writers)
        self._metadata += stream.metadata
        self._streams[stream.facts.name] = stream
        self._names.add(stream.facts.name)
        if stream.deadline != inf:
            deadlines = self._deadlines if stream.lifetime.expires_at is None else self._wall_deadlines
            heappush(deadlines, (stream.deadline, stream.facts.id, stream))

    def _new(self, name: str, config: StreamConfig, now: float, point: ForkPoint | None) -> S:
        wall = now + self.wall_offset
        # Microseconds, so that a stream made after a restart sorts after the ones before it; after the last one in any
        # case, should the clock have been set back.
        self._last_id = max(self._last_id + 1, int(wall * 1_000_000))
        if config.fork is None:
            content_type = config.content_type or DEFAULT_TYPE
            facts = self._facts(name, self._last_id, content_type)
            stream = self._entry_type(facts, config, config.lifetime, None, 0, wall)
            stream.use(now)
            return stream
        source = self._source(config.fork, now)
        if config.content_type is not None and media_type(config.content_type) != source.facts.media_type:
            raise ContentTypeMismatch(name, source.facts.media_type, media_type(config.content_type))
        facts = self._facts(name, source.facts.incarnation, source.facts.content_type)
        base = self._fork_point(config.fork, source, point)
        lifetime = config.lifetime if config.lifetime != Lifetime() else source.lifetime
        stream = self._entry_type(facts, config, lifetime, source, base, wall)
        stream.use(now)
        return stream

    def _facts(self, name: str, incarnation: int, content_type: str) -> StreamFacts:
        return facts_of(name, self._last_id, incarnation, content_type)

    def _source(self, fork: Fork, now: float) -> S:
        try:
            return self._find(fork.source, now)
        except StreamGone:
            raise ForkFromDeleted(fork.source) from None

    def _fork_point(self, fork: Fork, source: S, point: ForkPoint | None) -> int:
        if point is not None and point.source_id == source.facts.id and point.fork == fork:
            if isinstance(point.result, str):
                raise InvalidRequest(point.result)
            return point.result
        tail = source.tail
        anchor = tail
        if fork.offset is not None:
            try:
                anchor = locate(fork.offset, source.facts, tail)
            except (InvalidOffset, OffsetGone):
                raise InvalidRequest("Stream-Fork-Offset is not an offset of the source.") from None
            if anchor < fork.offset.position:
                raise InvalidRequest("Stream-Fork-Offset is past the source's tail.")
        append = None if anchor == tail else self._append_at(source, anchor)
        found = divergence(anchor, fork.sub_offset, append, source.facts.json)
        if isinstance(found, int):
            return found
        if append is not None:
            self._check_immutable(source, append[0] + len(append[1]))
        raise LongSearch(source.facts.id, found)

    def _same_point(self, asked: StreamConfig, stream: S, point: ForkPoint | None) -> bool:
        made_with = stream.config.fork
        if asked.fork == made_with:
            return True
        source = stream.source
        if asked.fork is None or made_with is None or asked.fork.source != made_with.source or source is None:
            return False
        try:
            return self._fork_point(asked.fork, source, point) == stream.base
        except InvalidRequest:
            return False

    def _make_room(self, stream: S, size: int) -> None:
        if self._bytes + size > self._limits.total_bytes:
            raise StorageFull(stream.facts.name, self._limits.total_bytes)
        if stream.tail - stream.base + size > self._limits.stream_bytes:
            raise StreamFull(stream.facts.name, self._limits.stream_bytes)

    def _make_metadata_room(self, size: int) -> None:
        if size > 0 and self._metadata + size > self._limits.metadata_bytes:
            raise InsufficientStorage(
                "The names, content types, Stream-Seqs and producers of all streams together would take more than "
                f"{self._limits.metadata_bytes} bytes (limits.max_metadata_bytes). Delete streams that are done with, "
                "or reuse a Producer-Id."
            )

    # Writing

    def _write(self, stream: S, append: Append, now: float) -> Appended:
        """Carry out an append, but for its bytes, which the provider has yet to put where ``tail`` now says."""
        writer = append.writer
        writers = stream.writers
        known = writers.get(writer.id) if writer is not None and writers is not None else None
        if not is_new(append, stream.facts, stream.tail, stream.closed, stream.sequence, known):
            stream.use(now)
            return Appended(stream.facts, stream.tail, stream.closed, known, duplicate=True)
        size = len(append.data)
        if size:
            self._make_room(stream, size)
        if append.sequence is not None or (writer is not None and known is None):
            self._grow_metadata(stream, append, known)
        if writer is not None:
            known = self._remember(stream, writer, known, now)
        if size:
            stream.tail += size
            self._bytes += size
        if append.sequence is not None:
            stream.sequence = append.sequence
        if append.close:
            stream.closed = True
        if stream.lifetime.ttl is not None:
            stream.use(now)
        stream.updated_at = now + self.wall_offset
        return Appended(stream.facts, stream.tail, stream.closed, known)

    def _grow_metadata(self, stream: S, append: Append, known: WriterState | None) -> None:
        """Count what a stream has more to remember after an append: another Stream-Seq, and a writer that is new."""
        size = 0
        if append.sequence is not None:
            size = len(append.sequence) - len(stream.sequence or b"")
        if append.writer is not None and known is None:
            size += writers_size([append.writer.id])
            if stream.writers is not None and len(stream.writers) >= self._limits.writers:
                size -= writers_size(self._writers_to_forget(stream.writers))
        self._make_metadata_room(size)
        stream.metadata += size
        self._metadata += size

    def _remember(self, stream: S, writer: Writer, known: WriterState | None, now: float) -> WriterState:
        """Record a writer's append. A stream that has too many writers forgets those seen least recently."""
        writers = stream.writers
        if writers is None:
            writers = stream.writers = {}
        elif known is None:
            if len(writers) >= self._limits.writers:
                self._forgotten = self._writers_to_forget(writers)
                for writer_id in self._forgotten:
                    del writers[writer_id]
        elif len(writers) > 1:
            # The one seen last is at the end.
            del writers[writer.id]
        state = writers[writer.id] = WriterState(writer.epoch, writer.seq, now)
        return state

    def _writers_to_forget(self, writers: dict[str, WriterState]) -> tuple[str, ...]:
        count = min(len(writers) + 1 - self._limits.writers, _FORGOTTEN_AT_ONCE)
        return tuple(islice(writers, count))

    # Removing

    def _remove(self, stream: S) -> None:
        """Delete a stream, or only hide it while it has forks; and every hidden source that has none left then."""
        stream.deleted = True
        stream.deadline = inf
        gone: S | None = stream
        while gone is not None and gone.deleted and not gone.forks:
            del self._streams[gone.facts.name]
            self._names.remove(gone.facts.name)
            self._bytes -= gone.size
            self._unwritten -= gone.size
            self._metadata -= gone.metadata
            source = gone.source
            self._purged(gone)
            gone.forget()
            if source is not None:
                source.forks -= 1
            gone = source
        for deadlines in (self._deadlines, self._wall_deadlines):
            if len(deadlines) > 2 * len(self._streams) + 1000:
                deadlines[:] = [entry for entry in deadlines if not entry[2].deleted]
                heapify(deadlines)
        self._removed(stream)

    def _renew(self, name: str, now: float) -> None:
        stream = self._streams.get(name)
        if stream is not None and not stream.deleted and not self._is_over(stream, now):
            stream.use(now)

    def _may_sweep(self, now: float) -> bool:
        """Return whether the time of any stream may be over."""
        return bool(
            (self._deadlines and self._deadlines[0][0] <= now)
            or (self._wall_deadlines and self._wall_deadlines[0][0] <= now + self.wall_offset)
        )

    def _sweep(self, now: float, most: int) -> int:
        removed = self._sweep_until(self._deadlines, now, most)
        return removed + self._sweep_until(self._wall_deadlines, now + self.wall_offset, most - removed)

    def _sweep_until(self, deadlines: list[tuple[float, int, S]], now: float, most: int) -> int:
        removed = 0
        while deadlines and removed < most and deadlines[0][0] <= now:
            _, stream_id, stream = heappop(deadlines)
            if stream.deleted or self._streams.get(stream.facts.name) is not stream:
                continue
            if now >= stream.deadline:
                self._remove(stream)
                removed += 1
            else:
                heappush(deadlines, (stream.deadline, stream_id, stream))
        return removed
