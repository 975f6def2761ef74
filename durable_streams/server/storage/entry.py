"""One stream of a catalogue: its properties, and the effect of each change on them, live and in a replay."""

from __future__ import annotations

from math import inf
from typing import Self

from msgspec.structs import replace

from ..model import Lifetime, StreamConfig, StreamFacts, StreamRecord, StreamRestoration, StreamStatus, WriterState
from ..protocol.content import JSON_TYPE, media_type
from ..protocol.lifetimes import deadline


def facts_of(name: str, stream_id: int, incarnation: int, content_type: str) -> StreamFacts:
    """Return the immutable properties of a stream."""
    media = media_type(content_type)
    return StreamFacts(name, stream_id, incarnation, content_type, media, media == JSON_TYPE)


class Entry:
    """
    A stream: its own bytes begin at ``base``; those before are its source's.

    :ivar source: the stream that it was forked from, or None.
    :ivar depth: the number of forks from the stream that is not a fork to this one.
    :ivar tail: the position at which the next append begins.
    :ivar writers: the idempotent writers by id, the least recently accepted one first.
    :ivar deleted: whether it was deleted and is kept for its forks only.
    :ivar forks: the number of streams whose source it is.
    :ivar deadline: when it expires: by the steady clock if it has a TTL, by the wall clock if it has Stream-Expires-At,
        else never (infinity).
    :ivar metadata: the number of bytes that it has besides its data (:mod:`.metadata`), counted when it enters the
        catalogue.
    """

    __slots__ = (
        "base",
        "closed",
        "config",
        "created_at",
        "deadline",
        "deleted",
        "depth",
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

    def __init__(self, facts: StreamFacts, config: StreamConfig, lifetime: Lifetime, base: int, now: float) -> None:
        self.facts = facts
        self.config = config
        self.lifetime = lifetime
        self.source: Self | None = None
        self.depth = 0
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
        """The number of its own bytes."""
        return self.tail - self.base

    # What changes do

    def fork_from(self, source: Self) -> None:
        """Set the source."""
        self.source = source
        self.depth = source.depth + 1
        source.forks += 1

    def restore(
        self, tail: int, closed: bool, deleted: bool, sequence: bytes | None, updated_at: float, used_at: float
    ) -> None:
        """
        Set the state that a checkpoint or a table has.

        :param used_at: when a TTL begins to count.
        """
        self.tail = tail
        self.closed = closed
        self.deleted = deleted
        self.sequence = sequence
        self.updated_at = updated_at
        self.deadline = inf if deleted else deadline(self.lifetime, used_at)

    def extend(self, size: int, close: bool, sequence: bytes | None, at: float) -> None:
        """Apply an append, but for its writer: add ``size`` bytes, record Stream-Seq, and close the stream if asked."""
        self.tail += size
        if sequence is not None:
            self.sequence = sequence
        if close:
            self.closed = True
        self.updated_at = at

    def record_writer(self, writer_id: str, state: WriterState, forgotten: tuple[str, ...]) -> None:
        """Apply an append's writer: record its state as the latest one, and evict the given writers."""
        writers = self.writers
        if writers is None:
            writers = self.writers = {}
        elif len(writers) > 1:
            # The latest one is at the end.
            writers.pop(writer_id, None)
        if forgotten:
            for other in forgotten:
                writers.pop(other, None)
        writers[writer_id] = state

    def install(self, name: str, state: StreamRestoration, used_at: float) -> None:
        """
        Apply the installation of a staged stream: it gets a name, and the state that was restored.

        :param state: all of it; neither times nor the incarnation are None.
        :param used_at: when a TTL begins to count, by the steady clock.
        """
        assert state.created_at is not None
        assert state.updated_at is not None
        assert state.incarnation is not None
        self.facts = replace(self.facts, name=name, incarnation=state.incarnation)
        self.config = state.config
        self.lifetime = state.lifetime
        self.closed = state.closed
        self.sequence = state.sequence
        self.writers = dict(state.writers) or None
        self.created_at, self.updated_at = state.created_at, state.updated_at
        self.deadline = deadline(state.lifetime, used_at)

    def hide(self) -> None:
        """Apply the removal of a stream that has forks: it is kept for them, and no operation finds it."""
        self.deleted = True
        self.deadline = inf

    def use(self, now: float) -> None:
        """Renew the TTL, if there is one."""
        if self.lifetime.ttl is not None:
            self.deadline = deadline(self.lifetime, now)

    def purge(self) -> list[Self]:
        """
        Release this deleted stream if it has no forks, and each deleted source whose last fork goes with it.

        :returns: the released streams, whose bytes cannot be read any more.
        """
        gone = []
        stream: Self | None = self
        while stream is not None and stream.deleted and not stream.forks:
            gone.append(stream)
            source = stream.source
            stream.forget()
            if source is not None:
                source.forks -= 1
            stream = source
        return gone

    def forget(self) -> None:
        """Release most of the state of a removed stream, since a list of deadlines may refer to it for a while."""
        self.writers = self.source = None

    def order_writers(self) -> None:
        """Sort loaded writers by the time at which they were last seen."""
        if self.writers is not None and len(self.writers) > 1:
            self.writers = dict(sorted(self.writers.items(), key=lambda item: item[1].seen))

    def used_at(self, wall_offset: float) -> float:
        """Return when a TTL began to count, by the wall clock; without a TTL the time of the last update."""
        ttl = self.lifetime.ttl
        return self.updated_at if ttl is None or self.deleted else self.deadline - ttl + wall_offset

    def status(self, tail: int, closed: bool) -> StreamStatus:
        """Return the status of the stream as readers see it, with this tail and closure."""
        return StreamStatus(self.facts, tail, closed, self.lifetime, self.created_at, self.updated_at)

    def record(self, wall_offset: float) -> StreamRecord:
        """Return all properties, with times of the wall clock."""
        source = self.source
        return StreamRecord(
            self.facts,
            self.config,
            self.lifetime,
            self.tail,
            self.closed,
            self.deleted,
            self.sequence,
            dict(self.writers or {}),
            self.created_at,
            self.updated_at,
            self.used_at(wall_offset),
            self.base,
            None if source is None else source.facts.name,
            None if source is None else source.facts.id,
            self.forks,
        )

    # Where its bytes are

    def owner(self, position: int) -> tuple[Self, int]:
        """Return the stream that owns the byte at ``position``, and the end of its bytes that this stream inherits."""
        stream, end = self, self.tail
        while position < stream.base and stream.source is not None:
            end = min(end, stream.base)
            stream = stream.source
        return stream, end

    def parts(self, start: int, end: int) -> list[tuple[Self, int, int]]:
        """Return the streams that own the bytes of a range, in order, each with the start and end of its part."""
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
