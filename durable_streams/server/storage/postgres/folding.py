"""The decision of all appends of one stream that wait for a commit, as one change of its row.

A fold is computed from a head that may be out of date. The statement that writes it compares the head's version: if the
stream was changed meanwhile, nothing is written and the appends are decided again.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final, Protocol

from msgspec import Struct

from ...errors import StreamGone, StreamNotFound, StreamsError
from ...model import Append, Appended, StorageLimits, Writer, WriterState
from ...protocol.writing import is_new
from ..limits import check_data_room, check_metadata_room
from ..metadata import writers_size
from .chunk_index import ChunkRow, split
from .heads import Head
from .known import KnownStream, check_present

#: The maximum number of writers that are evicted for one new writer, as in the other storages.
_MAX_EVICTED: Final = 2

#: The maximum number of writers whose states are wanted at once, and that of the least recently seen writers.
MAX_WANTED: Final = 64

#: The maximum number of writers of one stream that are remembered after a write.
_MAX_KNOWN: Final = 1_000


class Totals(Protocol):
    """
    The data and metadata of all streams together, as far as this node knows.

    :ivar bytes: bytes of data, with those of writes in progress.
    :ivar metadata: bytes of metadata, with those of writes in progress.
    :ivar written: bytes of data that this node has written.
    """

    bytes: int
    metadata: int
    written: int

    def add(self, streams: int, size: int, metadata: int) -> None:
        """Count a write that begins; or, with negative numbers, one that has failed."""


class Wanted(Struct, frozen=True, gc=False):
    """
    What a look-up must read before appends can be decided.

    :ivar writers: the ids of writers.
    :ivar oldest: whether the writers that were seen least recently are wanted, to evict some of them.
    """

    writers: tuple[str, ...] = ()
    oldest: bool = False


class _Unknown(Exception):
    """The state of a writer is needed to decide an append and was not read."""


class Fold:
    """
    The outcomes of appends of one stream, and the change that they make together.

    :param known: the head that they are decided against.
    :param totals: are read, not changed.
    :ivar head: the head before the appends.
    :ivar outcomes: the result or the error of each decided append, in order.
    :ivar writes: whether anything is to be written. If not, the outcomes are those of the head.
    :ivar renews: whether any outcome renews the stream's TTL.
    :ivar wanted: what must be looked up before the next append can be decided; None if all were decided.
    :ivar states: the final states of the writers that have changed, in the order of their last appends.
    :ivar evicted: the ids of writers that are to be removed; none is in ``states``.
    :ivar size: by how many bytes the stream grows.
    :ivar metadata: by how many bytes its metadata grows; may be negative.
    """

    __slots__ = (
        "_candidates",
        "_data",
        "_known",
        "_limits",
        "_next_candidate",
        "_totals",
        "closed",
        "evicted",
        "head",
        "metadata",
        "outcomes",
        "renews",
        "sequence",
        "size",
        "states",
        "tail",
        "wanted",
        "writers",
        "writes",
    )

    def __init__(self, known: KnownStream, limits: StorageLimits, totals: Totals) -> None:
        head = self.head = known.head
        self._known = known
        self._limits = limits
        self._totals = totals
        self._data: list[bytes] = []
        self._candidates = known.oldest or []
        self._next_candidate = 0
        self.tail = head.tail
        self.closed = head.closed
        self.sequence = head.sequence
        self.writers = head.writers
        self.outcomes: list[Appended | StreamsError] = []
        self.writes = False
        self.renews = False
        self.wanted: Wanted | None = None
        self.states: dict[str, WriterState] = {}
        self.evicted: dict[str, None] = {}
        self.size = 0
        self.metadata = 0

    def chunks(self) -> list[ChunkRow]:
        """Return the data as rows, with their checksums."""
        return split(self.head.tail, self.head.tail, self._data) if self._data else []

    def _decide(self, append: Append) -> Appended:
        writer = append.writer
        known = None if writer is None else self._state_of(writer)
        facts = self.head.facts
        if not is_new(append, facts, self.tail, self.closed, self.sequence, known):
            self.renews = True
            return Appended(facts, self.tail, self.closed, known, duplicate=True)
        data, sequence = append.data, append.sequence
        size = len(data)
        if size:
            total = self._totals.bytes + self.size
            check_data_room(facts.name, self.tail - self.head.base, total, size, self._limits)
        evicted: tuple[str, ...] = ()
        if sequence is not None or (writer is not None and known is None):
            growth = 0 if sequence is None else len(sequence) - len(self.sequence or b"")
            if writer is not None and known is None:
                evicted = self._evicted_by_one()
                growth += writers_size((writer.id,)) - writers_size(evicted)
            check_metadata_room(self._totals.metadata + self.metadata, growth, self._limits)
            self.metadata += growth
        if writer is not None:
            known = self._record(writer, known is None, evicted)
        if size:
            self._data.append(data)
            self.size += size
            self.tail += size
        if append.close:
            self.closed = True
        if sequence is not None:
            self.sequence = sequence
        self.writes = self.renews = True
        return Appended(facts, self.tail, self.closed, known)

    def _state_of(self, writer: Writer) -> WriterState | None:
        writer_id = writer.id
        state = self.states.get(writer_id)
        if state is not None:
            return state
        if writer_id in self.evicted:
            return None
        if not self._known.knows(writer_id):
            raise _Unknown
        return self._known.writers.get(writer_id)

    def _record(self, writer: Writer, new: bool, evicted: tuple[str, ...]) -> WriterState:
        """Record a writer's state as the latest one, and evict others."""
        for other in evicted:
            self.states.pop(other, None)
            self.evicted[other] = None
        self.writers += new - len(evicted)
        self.states.pop(writer.id, None)
        self.evicted.pop(writer.id, None)
        state = self.states[writer.id] = WriterState(writer.epoch, writer.seq, self.head.read_at)
        return state

    def _evicted_by_one(self) -> tuple[str, ...]:
        """Return the ids of the least recently seen writers, which are evicted for a new one."""
        excess = self.writers + 1 - self._limits.writers
        if excess <= 0:
            return ()
        if self._known.oldest is None and self.head.writers:
            raise _Unknown
        count = min(excess, self.writers, _MAX_EVICTED)
        found: list[str] = []
        candidates = self._candidates
        index = self._next_candidate
        while len(found) < count and index < len(candidates):
            candidate = candidates[index]
            index += 1
            if candidate not in self.states and candidate not in self.evicted:
                found.append(candidate)
        if len(found) < count:
            if not self._known.complete and self.head.writers:
                raise _Unknown
            # All others are writers of this fold.
            found += islice(self.states, count - len(found))
        return tuple(found)

    def _wanted_for(self, appends: Iterable[Append]) -> Wanted:
        """Return what is needed to decide these appends, of which the first one cannot be decided."""
        known = self._known
        writers: dict[str, None] = {}
        new = 0
        for append in appends:
            writer = append.writer
            if writer is None:
                continue
            if not known.knows(writer.id):
                writers[writer.id] = None
            new += known.writers.get(writer.id) is None
            if len(writers) >= MAX_WANTED:
                break
        return Wanted(tuple(writers), oldest=self.writers + new > self._limits.writers)


def fold(
    known: KnownStream,
    appends: Iterable[Append],
    limits: StorageLimits,
    totals: Totals,
    used_at: float = 0.0,
    max_bytes: int = 8 << 20,
) -> Fold:
    """
    Decide appends of one stream, in order, by the rules of the protocol and the limits.

    :param known: the head that they are decided against, and writers.
    :param used_at: the last use of the stream that this node knows of, which may not be written yet.
    :param max_bytes: decide no further append after this number of bytes, but at least one.
    :returns: the outcomes, perhaps of the first appends only.
    """
    result = Fold(known, limits, totals)
    outcomes = result.outcomes
    try:
        check_present(known.head, known.head.facts.name, used_at)
    except (StreamNotFound, StreamGone) as refusal:
        outcomes += [type(refusal)(known.head.facts.name) for _ in appends]
        return result
    waiting = list(appends)
    for append in waiting:
        if result.size and result.size + len(append.data) > max_bytes:
            break
        try:
            outcomes.append(result._decide(append))
        except StreamsError as refusal:
            # With its traceback the error would refer to itself, by way of this frame.
            outcomes.append(refusal.with_traceback(None))
        except _Unknown:
            result.wanted = result._wanted_for(waiting[len(outcomes) :])
            break
    return result


def advance(known: KnownStream, folded: Fold, version: int, at: float) -> None:
    """
    Update what is known of a stream after a fold was written.

    :param known: what the fold was decided against.
    :param version: the stream's version now.
    :param at: the database's time of the write.
    """
    head = known.head
    known.head = Head(
        head.facts,
        head.config,
        head.lifetime,
        head.created_at,
        at,
        at,
        folded.closed,
        False,
        head.base,
        folded.tail,
        folded.sequence,
        folded.writers,
        head.source_id,
        head.depth,
        head.forks,
        version,
        at,
    )
    states = folded.states
    if not states:
        return
    if len(known.writers) > _MAX_KNOWN or (known.oldest is not None and len(known.oldest) > _MAX_KNOWN):
        known.forget_writers()
    elif known.oldest is not None:
        known.oldest = [each for each in known.oldest if each not in states and each not in folded.evicted]
        if known.complete:
            known.oldest += states
    elif not head.writers:
        # The stream had no writers, so all that it has are those of the fold.
        known.oldest, known.complete = list(states), True
    known.remember(states)
    known.remember(folded.evicted)
