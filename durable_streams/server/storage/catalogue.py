"""The catalogue: all streams of a storage, without their bytes, and the rules by which a write changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from math import inf
from typing import Final, Generic, TypeVar

from ..errors import (
    ContentTypeMismatch,
    ForkFromDeleted,
    InvalidRequest,
    PathBlocked,
    StreamGone,
    StreamNotFound,
)
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
    StreamRestoration,
    Writer,
    WriterState,
)
from ..protocol.content import DEFAULT_TYPE, media_type
from ..protocol.creating import check_same
from ..protocol.forks import LongSearch, anchor_of, divergence
from ..protocol.messages import first_data
from ..protocol.names import RESERVED_PREFIX
from ..protocol.writing import is_new
from . import installing
from .deadlines import Deadlines
from .entry import Entry, facts_of
from .limits import (
    check_data_room,
    check_fork_depth,
    check_metadata_room,
    check_stream_count,
    check_values_room,
)
from .metadata import stream_size, writers_size
from .name_index import NameIndex
from .values import ValueTable

#: The maximum number of writers that are evicted for one new writer. More than one, so that their number shrinks after
#: the limit was lowered; few, so that the change that records them stays small.
_MAX_EVICTED: Final = 2

#: Not more than any name after those that begin with the reserved prefix: the next character replaces its last one.
_AFTER_RESERVED: Final = RESERVED_PREFIX[:-1] + chr(ord(RESERVED_PREFIX[-1]) + 1)

S = TypeVar("S", bound=Entry)


class Catalogue(Generic[S]):
    """
    The streams of a storage. It decides each operation by the rules of the protocol and the limits, and applies it.

    It has no bytes of streams. A storage provides functions for what it does not know:

    :param entry_type: makes an entry.
    :param append_at: returns where the append with a byte begins, and its bytes, as far as they are the stream's own.
    :param removed: is called with a stream that was removed, and the streams whose bytes cannot be read any more.
    :param check_removal: raises if an expired stream cannot be removed at the moment; then the operation is refused.
    :param check_immutable: raises if the append of a stream that ends at a position may still be rolled back.
    :ivar streams: the streams by name.
    :ivar last_id: the greatest id that a stream has had.
    :ivar values: the values beside the streams.
    :ivar wall_offset: the number of seconds that the wall clock is ahead of the clock that TTLs use.
    """

    def __init__(
        self,
        limits: StorageLimits,
        entry_type: Callable[[StreamFacts, StreamConfig, Lifetime, int, float], S],
        append_at: Callable[[S, int], tuple[int, bytes]],
        removed: Callable[[S, list[S]], None],
        check_removal: Callable[[], None] = lambda: None,
        check_immutable: Callable[[S, int], None] = lambda stream, end: None,
    ) -> None:
        self._limits = limits
        self._max_bytes = limits.total_bytes
        self._max_stream_bytes = limits.stream_bytes
        self._entry_type = entry_type
        self._append_at = append_at
        self._removed = removed
        self._check_removal = check_removal
        self._check_immutable = check_immutable
        self.streams: dict[str, S] = {}
        self._names = NameIndex()
        self.values = ValueTable()
        self.last_id = 0
        self._bytes = 0
        self._metadata = 0
        self.wall_offset = 0.0
        # The difference between the bytes that are there and those that were ever written: bytes that were loaded, less
        # bytes that were removed.
        self._unwritten = 0
        self._deadlines: Deadlines[S] = Deadlines()

    def figures(self) -> StorageFigures:
        """See :meth:`.IStorage.figures`."""
        return StorageFigures(
            len(self.streams), self._bytes, self._bytes - self._unwritten, metadata_bytes=self._metadata
        )

    # Loading

    def load(self, streams: Iterable[S], last_id: int, values: ValueTable | None = None) -> None:
        """Replace all streams and values. An id is never reused, not even that of a creation that was rolled back."""
        written = self._bytes - self._unwritten
        self.streams.clear()
        self._names = NameIndex()
        self._deadlines.clear()
        self.values = ValueTable() if values is None else values
        self._bytes, self._metadata = 0, self.values.size
        for stream in streams:
            self._enter(stream)
        self._unwritten = self._bytes - written
        self.last_id = max(self.last_id, last_id)

    # Finding

    def find(self, name: str, now: float) -> S:
        """
        Find a stream; if it has expired, remove it.

        :raises StreamNotFound: there is none.
        :raises StreamGone: it was deleted and still has forks.
        """
        stream = self.streams.get(name)
        if stream is None:
            raise StreamNotFound(name)
        if stream.deadline != inf and self._is_over(stream, now):
            self._check_removal()
            self.remove(stream)
            if stream.forks == 0:
                raise StreamNotFound(name)
        if stream.deleted:
            raise StreamGone(name)
        return stream

    def same_stream(self, facts: StreamFacts, hidden: bool = False) -> S:
        """
        Find the stream that was found before, and no later one of its name.

        :param hidden: whether to find it, too, if it was deleted and is kept for its forks.
        :raises StreamNotFound: it was deleted meanwhile.
        """
        stream = self.streams.get(facts.name)
        if stream is None or stream.facts.id != facts.id or (stream.deleted and not hidden):
            raise StreamNotFound(facts.name)
        return stream

    def find_hidden(self, name: str, now: float) -> S:
        """
        Find a stream as :meth:`find` does, or a deleted one that is kept for its forks.

        :raises StreamNotFound: there is none.
        """
        try:
            return self.find(name, now)
        except StreamGone:
            return self.streams[name]

    def present(self, now: float, after: str, prefix: str = "") -> Iterator[S]:
        """
        Iterate over the streams that clients can find, by name, from the first name after ``after``.

        :param prefix: only streams whose name begins with it.
        """
        streams = self.streams
        # Names of the reserved segment are jumped over, however many there are.
        for start, end in ((prefix, RESERVED_PREFIX), (max(prefix, _AFTER_RESERVED), None)):
            for name in self._names.after(after, start):
                if not name.startswith(prefix) or (end is not None and name >= end):
                    break
                stream = streams[name]
                if not stream.deleted and not self._is_over(stream, now):
                    yield stream

    def _is_over(self, stream: S, now: float) -> bool:
        """Return whether a stream has expired."""
        return (now if stream.lifetime.expires_at is None else now + self.wall_offset) >= stream.deadline

    # Creating

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None
    ) -> tuple[S, bytes | None]:
        """
        Create a stream, or find an existing one of the same configuration. See :meth:`.IStorage.create`.

        :raises LongSearch: the fork's position takes a long search.
        :returns: the stream and its first bytes, or the existing stream and None.
        """
        stream = self.streams.get(name)
        if stream is not None and self._is_over(stream, now):
            self._check_removal()
            self.remove(stream)
            stream = self.streams.get(name)
        if stream is not None:
            if stream.deleted:
                raise PathBlocked(name)
            same_point = self._same_point(config, stream, point)
            check_same(config, stream.config, stream.facts, stream.lifetime, stream.closed, same_point)
            return stream, None
        stream, source = self._new(name, config, now, point)
        data = first_data(body, stream.facts.json)
        self._check_room(stream, len(data))
        check_stream_count(len(self.streams), self._limits)
        self._check_metadata_room(stream_size(stream.facts, config, None, None))
        stream.tail += len(data)
        if source is not None:
            stream.fork_from(source)
        self._enter(stream)
        return stream, data

    def _enter(self, stream: S) -> None:
        """Add a complete stream to the catalogue."""
        self._bytes += stream.size
        stream.metadata = stream_size(stream.facts, stream.config, stream.sequence, stream.writers)
        self._metadata += stream.metadata
        self.streams[stream.facts.name] = stream
        self._names.add(stream.facts.name)
        self._deadlines.add(stream)

    def _new(self, name: str, config: StreamConfig, now: float, point: ForkPoint | None) -> tuple[S, S | None]:
        """Make an entry for a new stream, and find its source."""
        wall = now + self.wall_offset
        # Microseconds, so that a stream made after a restart sorts after the ones before it; after the last one in any
        # case, should the clock have been set back.
        self.last_id = max(self.last_id + 1, int(wall * 1_000_000))
        source = None
        base = 0
        lifetime = config.lifetime
        if config.fork is None:
            facts = facts_of(name, self.last_id, self.last_id, config.content_type or DEFAULT_TYPE)
        else:
            source = self._source(config.fork, now)
            if config.content_type is not None and media_type(config.content_type) != source.facts.media_type:
                raise ContentTypeMismatch(name, source.facts.media_type, media_type(config.content_type))
            check_fork_depth(source.depth, self._limits)
            facts = facts_of(name, self.last_id, source.facts.incarnation, source.facts.content_type)
            base = self._fork_point(config.fork, source, point)
            if lifetime == Lifetime():
                lifetime = source.lifetime
        stream = self._entry_type(facts, config, lifetime, base, wall)
        stream.use(now)
        return stream, source

    def _source(self, fork: Fork, now: float) -> S:
        try:
            return self.find(fork.source, now)
        except StreamGone:
            raise ForkFromDeleted(fork.source) from None

    def _fork_point(self, fork: Fork, source: S, point: ForkPoint | None) -> int:
        if point is not None and point.source_id == source.facts.id and point.fork == fork:
            if isinstance(point.result, str):
                raise InvalidRequest(point.result)
            return point.result
        tail = source.tail
        anchor = anchor_of(fork, source.facts, tail)
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

    def _check_room(self, stream: S, size: int) -> None:
        check_data_room(stream.facts.name, stream.tail - stream.base, self._bytes, size, self._limits)

    def _check_metadata_room(self, size: int) -> None:
        check_metadata_room(self._metadata, size, self._limits)

    # Writing

    def append(self, stream: S, append: Append, now: float) -> Appended:
        """Decide an append, and apply it unless it is refused or a duplicate. The storage keeps its bytes."""
        writer = append.writer
        writers = stream.writers
        known = writers.get(writer.id) if writer is not None and writers is not None else None
        if not is_new(append, stream.facts, stream.tail, stream.closed, stream.sequence, known):
            stream.use(now)
            return Appended(stream.facts, stream.tail, stream.closed, known, duplicate=True)
        size = len(append.data)
        if size and (self._bytes + size > self._max_bytes or stream.tail - stream.base + size > self._max_stream_bytes):
            self._check_room(stream, size)
        evicted: tuple[str, ...] = ()
        if append.sequence is not None or (writer is not None and known is None):
            evicted = self.evicted_by(stream, writer)
            self._grow_metadata(stream, append, known, evicted)
        if writer is not None:
            known = WriterState(writer.epoch, writer.seq, now + self.wall_offset)
            stream.record_writer(writer.id, known, evicted)
        self._bytes += size
        stream.extend(size, append.close, append.sequence, now + self.wall_offset)
        if stream.lifetime.ttl is not None:
            stream.use(now)
        return Appended(stream.facts, stream.tail, stream.closed, known)

    def _grow_metadata(self, stream: S, append: Append, known: WriterState | None, evicted: tuple[str, ...]) -> None:
        """Count the growth of a stream's metadata by an append: another Stream-Seq, and a writer that is new."""
        size = 0
        if append.sequence is not None:
            size = len(append.sequence) - len(stream.sequence or b"")
        if append.writer is not None and known is None:
            size += writers_size([append.writer.id]) - writers_size(evicted)
        self._check_metadata_room(size)
        stream.metadata += size
        self._metadata += size

    def evicted_by(self, stream: S, writer: Writer | None) -> tuple[str, ...]:
        """Return the ids of the least recently seen writers, which are evicted for a new one."""
        writers = stream.writers
        limit = self._limits.writers
        if writer is None or writers is None or len(writers) < limit or writer.id in writers:
            return ()
        return tuple(islice(writers, min(len(writers) + 1 - limit, _MAX_EVICTED)))

    # Installing

    def install(
        self, stream: S, name: str, wanted: StreamRestoration, replace: bool, now: float
    ) -> tuple[StreamRestoration, list[S]]:
        """
        Decide the installation of a staged stream, and apply it. See :meth:`.IStorage.install`.

        :returns: the state that the stream got, and the removed streams: first the one that it replaces, if any.
        """
        staged = stream.facts.name
        installing.check_names(staged, name)
        wall = now + self.wall_offset
        state = installing.complete(stream, wanted, self._limits.writers, wall)
        existing = self.streams.get(name)
        if existing is not None and self._is_over(existing, now):
            self._check_removal()
            self.remove(existing)
            existing = self.streams.get(name)
        installing.check_replacement(name, existing, replace)
        facts = facts_of(name, stream.facts.id, stream.facts.incarnation, stream.facts.content_type)
        metadata = stream_size(facts, state.config, state.sequence, state.writers)
        self._check_metadata_room(metadata - stream.metadata)
        gone = [] if existing is None else self._take_out(existing)
        heap, deadline = self._deadlines.heap_of(stream), stream.deadline
        del self.streams[staged]
        self._names.remove(staged)
        stream.install(name, state, (state.used_at or 0) - self.wall_offset)
        self.streams[name] = stream
        self._names.add(name)
        self._metadata += metadata - stream.metadata
        stream.metadata = metadata
        self.last_id = max(self.last_id, stream.facts.incarnation)
        self._deadlines.change(stream, heap, deadline)
        return state, gone

    # Values

    def write_values(
        self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]
    ) -> dict[str, bytes | None]:
        """
        Decide a write of values, and apply it. See :meth:`.IStorage.write_values`.

        :returns: those of ``puts`` that change anything.
        """
        values = self.values
        values.check(expected)
        puts = values.changes(puts)
        size = values.growth(puts)
        check_values_room(self._metadata, size, self._limits)
        values.apply(puts)
        self._metadata += size
        return puts

    # Removing

    def remove(self, stream: S) -> None:
        """Remove a stream, or hide it while it has forks; and each hidden source whose last fork this was."""
        self._removed(stream, self._take_out(stream))

    def _take_out(self, stream: S) -> list[S]:
        """Remove or hide a stream, and return the streams that were removed."""
        stream.hide()
        gone = stream.purge()
        for each in gone:
            del self.streams[each.facts.name]
            self._names.remove(each.facts.name)
            self._bytes -= each.size
            self._unwritten -= each.size
            self._metadata -= each.metadata
        self._deadlines.release(len(self.streams))
        return gone

    def renew(self, name: str, now: float) -> None:
        """See :meth:`.IStorage.renew`."""
        stream = self.streams.get(name)
        if stream is not None and not stream.deleted and not self._is_over(stream, now):
            stream.use(now)

    def may_sweep(self, now: float) -> bool:
        """Return whether any stream may have expired."""
        return self._deadlines.is_due(now, now + self.wall_offset)

    def sweep(self, now: float, max_count: int) -> int:
        """See :meth:`.IStorage.sweep`."""
        deadlines = self._deadlines
        removed = 0
        for heap, time in ((deadlines.steady, now), (deadlines.wall, now + self.wall_offset)):
            while removed < max_count and (stream := deadlines.pop_expired(heap, time)) is not None:
                self.remove(stream)
                removed += 1
        return removed
