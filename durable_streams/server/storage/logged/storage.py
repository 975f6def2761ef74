"""The operations of a storage that has a log.

Each operation is one step in one reactor turn: the catalogue decides it by the accepted state and applies it, and the
commit queue (:mod:`.commit_queue`) acknowledges it after the log has it. If a step needs bytes from disk
(:mod:`.content`), it is retried when they are read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ...clocks import clock_of
from ...errors import StreamsError, ValuesChanged
from ...interfaces import ICommitListener, IStorage, NowOrLater
from ...model import (
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
from ...protocol.offsets import locate
from ..catalogue import Catalogue
from ..changes import (
    MAX_CONTENT_TYPE,
    OVERHEAD,
    VALUE,
    WRITER,
    DataAppended,
    StreamCreated,
    StreamInstalled,
    ValuesWritten,
)
from ..checksums import crc32
from ..values import check_puts
from .commit_queue import CommitQueue, K, Log, NotYet
from .content import Content, DiskReads, RecentContent
from .held_appends import HeldAppends

T = TypeVar("T")


@implementer(IStorage)
class LoggedStorage(Generic[K]):
    """
    A storage that writes every change to a log. It has a catalogue, a commit queue and a content.

    :param log: the provider's log.
    :param reads: the reads for operations that are retried.
    :param stored: the provider's content.
    """

    #: The name of the provider in log lines.
    _kind: ClassVar[str]

    _begun = False

    def __init__(
        self,
        limits: StorageLimits,
        clock: IReactorTime,
        entry_type: Callable[[StreamFacts, StreamConfig, Lifetime, int, float], K],
        log: Log,
        reads: DiskReads,
        stored: Content[K],
        max_queued_bytes: int,
    ) -> None:
        self._clock = clock_of(clock)
        self._queue: CommitQueue[K] = CommitQueue(clock, self._kind, max_queued_bytes, log)
        self._reads = reads
        self._stored_content = stored
        self._content = RecentContent(stored)
        catalogue = self._catalogue = Catalogue(
            limits, entry_type, self._content.append_at, self._removed, self._check_removal, self._check_immutable
        )
        # Bound once: each look-up through the catalogue costs an append about 1 %.
        self._find, self._write = catalogue.find, catalogue.append
        self._held = HeldAppends(self._append, lambda refusal, name: self._not_now(refusal, self._append, name))
        self._held_names = self._held.queues
        self._closing: Deferred[None] | None = None

    def _discard(self, streams: Sequence[K]) -> None:
        """Discard the data of streams whose removal is committed."""
        self._stored_content.discard(streams, self._queue.committed_lsn)

    @abstractmethod
    def _close(self) -> Deferred[None]:
        """Release every resource. No change is queued any more."""

    # What IStorage asks for

    @abstractmethod
    def load(self) -> None:
        """See :meth:`.IStorage.load`."""

    def open(self) -> None:
        self.load()
        if not self._begun:
            self._begun = True
            self._begin_by_itself()

    def _begin_by_itself(self) -> None:
        """Start background work."""

    def listen(self, listener: ICommitListener) -> None:
        self._queue.listener = listener

    def figures(self) -> StorageFigures:
        return self._queue.with_figures(self._catalogue.figures())

    def set_wall_offset(self, offset: float) -> None:
        self._catalogue.wall_offset = offset

    def obstacle(self) -> str | None:
        return self._queue.failure

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> NowOrLater[Created]:
        return self._attempt(self._create, name, config, body, now, point)

    def append(self, name: str, append: Append, now: float) -> NowOrLater[Appended]:
        # As _attempt does, without its cost, and in the order of the calls.
        if name in self._held_names:
            return self._held.add(name, append, now)
        try:
            return self._append(name, append, now)
        except NotYet as cause:
            return self._held.add(name, append, now, cause)
        except StreamsError as refusal:
            later = self._not_now(refusal, self._append, name, append, now)
            if later is None:
                raise
            return later

    def read(
        self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True
    ) -> NowOrLater[Chunk]:
        return self._attempt(self._read, name, offset, limit, now, whole, renew)

    def read_range(self, facts: StreamFacts, start: int, end: int, hidden: bool = False) -> NowOrLater[bytes]:
        return self._attempt(self._read_range, facts.name, facts, start, end, hidden)

    def status(self, name: str, now: float) -> NowOrLater[StreamStatus]:
        return self._attempt(self._describe, name, now)

    def install(
        self, staged: str, name: str, restoration: StreamRestoration, replace: bool, now: float
    ) -> NowOrLater[StreamStatus]:
        return self._attempt(self._install, name, staged, restoration, replace, now)

    def delete(self, name: str, now: float) -> NowOrLater[None]:
        return self._attempt(self._delete, name, now)

    def renew(self, name: str, now: float) -> None:
        self._catalogue.renew(name, now)

    def sweep(self, now: float, max_count: int) -> NowOrLater[int]:
        return self._attempt(self._sweep_committed, "", now, max_count)

    def record(self, name: str, now: float, hidden: bool = False) -> NowOrLater[StreamRecord]:
        return self._attempt(self._record, name, now, hidden)

    def append_ends(
        self, facts: StreamFacts, start: int, max_count: int, hidden: bool = False
    ) -> NowOrLater[Sequence[int]]:
        return self._attempt(self._append_ends, facts.name, facts, start, max_count, hidden)

    def statuses(
        self, now: float, after: str = "", max_count: int = 1000, prefix: str = ""
    ) -> NowOrLater[list[StreamStatus]]:
        return self._attempt(self._describe_page, "", now, after, max_count, prefix)

    def values(self, prefix: str = "", after: str = "", max_count: int = 1000) -> NowOrLater[list[tuple[str, bytes]]]:
        # The accepted state, which is returned when it is the committed one.
        values = self._catalogue.values
        return self._queue.when_committed(values.lsn, values.page(prefix, after, max_count))

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> NowOrLater[None]:
        return self._attempt(self._write_values, "", puts, expected)

    def close(self) -> Deferred[None]:
        if self._closing is None:
            self._queue.credit = 0
            self._queue.closing = True
            self._closing = self._queue.after(lambda: None).addBoth(lambda _: self._close())
        return self._closing

    # Each operation, in one step

    def _attempt(self, step: Callable[..., NowOrLater[T]], name: str, *rest: Any) -> NowOrLater[T]:
        """Run an operation; on NotYet retry it later. A refusal waits for the changes that it depends on."""
        try:
            return step(name, *rest)
        except (NotYet, StreamsError) as trouble:
            later = self._not_now(trouble, step, name, *rest)
            if later is None:
                raise
            return later

    def _not_now(
        self, trouble: NotYet | StreamsError, step: Callable[..., NowOrLater[T]], name: str, *rest: Any
    ) -> Deferred[T] | None:
        """
        Retry a step after NotYet, or report a refusal when the changes that it depends on are committed.

        It does not raise the refusal itself: with this frame in its traceback, the error would refer to itself.

        :returns: None if the refusal depends on nothing that is not committed.
        """
        if isinstance(trouble, NotYet):
            return trouble.ready.addCallback(self._attempt_again, step, name, *rest)
        if isinstance(trouble, ValuesChanged):
            lsn = self._catalogue.values.lsn
        else:
            lsn = max(map(self._lsn_of, _names_of(name, *rest)))
        if lsn <= self._queue.committed_lsn:
            return None
        return self._queue.after(lambda: Failure(trouble))  # type: ignore[arg-type, return-value]

    def _lsn_of(self, name: str) -> int:
        """Return the LSN of the last change of a stream, or of the last removal if there is no such stream."""
        stream = self._catalogue.streams.get(name)
        return self._queue.removal_lsn if stream is None else stream.lsn

    def _attempt_again(self, hand: Mapping[Any, Any] | None, step: Callable[..., T], name: str, *rest: Any) -> T:
        self._reads.hand = hand or {}
        try:
            return self._attempt(step, name, *rest)  # type: ignore[return-value]
        finally:
            self._reads.hand = {}

    def _create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None
    ) -> NowOrLater[Created]:
        room = len(body) + _room_of(name, config)
        if name not in self._catalogue.streams:
            self._queue.check_writable(room)
        stream, data = self._catalogue.create(name, config, body, now, point)
        created = Created(stream.facts, stream.tail, stream.closed, new=data is not None)
        if data is None:
            return self._queue.when_committed(stream.lsn, created)
        checksum = crc32(data)
        facts = stream.facts
        source = stream.source
        made = StreamCreated(
            facts.id,
            name,
            facts.incarnation,
            facts.content_type,
            config,
            stream.lifetime,
            None if source is None else source.facts.id,
            stream.base,
            stream.created_at,
            data,
            checksum,
        )
        if data:
            self._content.begin_recent(stream, stream.base).add(data, stream.tail, checksum)
        return self._queue.add(made, stream, created, room)

    def _append(self, name: str, append: Append, now: float) -> NowOrLater[Appended]:
        data = append.data
        writer = append.writer
        stream = self._find(name, now)
        room = len(data) + OVERHEAD
        evicted: tuple[str, ...] = ()
        if append.sequence is not None:
            room += len(append.sequence)
        if writer is not None:
            room += 4 * len(writer.id)
            if stream.writers is not None and writer.id not in stream.writers:
                evicted = self._catalogue.evicted_by(stream, writer)
                room += sum(4 * len(writer_id) + 4 for writer_id in evicted)
        if room > self._queue.credit:
            self._queue.check_writable(room)
        start = stream.tail
        appended = self._write(stream, append, now)
        if appended.duplicate:
            return self._queue.when_committed(stream.lsn, appended)
        checksum = crc32(data)
        if writer is None:
            wrote = DataAppended(
                stream.facts.id, start, data, checksum, stream.updated_at, append.close, append.sequence
            )
        else:
            wrote = DataAppended(
                stream.facts.id,
                start,
                data,
                checksum,
                stream.updated_at,
                append.close,
                append.sequence,
                writer.id,
                writer.epoch,
                writer.seq,
                evicted,
            )
        if data:
            recent = stream.recent
            if recent is None:
                recent = self._content.begin_recent(stream, start)
            recent.data += data
            recent.ends.append(appended.tail)
            recent.checksums.append(checksum)
        return self._queue.add(wrote, stream, appended, room)

    def _install(
        self, name: str, staged: str, restoration: StreamRestoration, replace: bool, now: float
    ) -> NowOrLater[StreamStatus]:
        room = _room_of_installation(name, restoration)
        self._queue.check_writable(room + OVERHEAD * restoration.deleted)
        stream = self._find(staged, now)
        if stream.lsn > self._queue.committed_lsn:
            # Otherwise the commit of a change of the staged stream would make it visible under its new name.
            raise NotYet(self._queue.after(lambda: None))
        self._prepare_log_for(StreamInstalled)
        state, gone = self._catalogue.install(stream, name, restoration, replace, now)
        change = StreamInstalled(stream.facts.id, name, state, gone[0].facts.id if gone else None)
        installed = self._queue.add_installation(
            change, stream, stream.status(stream.tail, stream.closed), room, lambda: self._discard(gone)
        )
        if restoration.deleted:
            # Both changes are queued in one reactor turn, so they are in one batch: the log has both or none.
            self._catalogue.remove(stream)
        return installed

    def _write_values(
        self, _: str, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]
    ) -> NowOrLater[None]:
        room = check_puts(puts, expected) + OVERHEAD + VALUE * len(puts)
        if room > self._queue.credit:
            self._queue.check_writable(room)
        if puts:
            self._prepare_log_for(ValuesWritten)
        table = self._catalogue.values
        changes = self._catalogue.write_values(puts, expected)
        if not changes:
            return self._queue.when_committed(table.lsn, None)
        written = self._queue.add_values(ValuesWritten(changes), room)
        table.lsn = self._queue.lsn
        return written

    def _prepare_log_for(self, kind: type[StreamInstalled | ValuesWritten]) -> None:
        """
        Prepare the log for the first change of a kind that earlier versions of the server cannot read.

        :raises NotYet: retry later.
        """

    def _delete(self, name: str, now: float) -> NowOrLater[None]:
        self._queue.check_writable(OVERHEAD, removal=True)
        stream = self._find(name, now)
        self._catalogue.remove(stream)
        return self._queue.after(lambda: None)

    def _check_immutable(self, stream: K, end: int) -> None:
        if stream.shown < end:
            raise NotYet(self._queue.after(lambda: None))

    def _removed(self, stream: K, gone: list[K]) -> None:
        self._queue.add_removal(stream, lambda: self._discard(gone))

    def _check_removal(self) -> None:
        # A client that got "gone" for a stream must not see it come back.
        self._queue.check_writable(OVERHEAD, removal=True)

    def _shown(self, name: str, now: float) -> K:
        stream = self._find(name, now)
        if stream.shown < 0:
            raise NotYet(self._queue.after(lambda: None))
        return stream

    def _read(self, name: str, offset: Offset, limit: int, now: float, whole: bool, renew: bool) -> Chunk:
        stream = self._shown(name, now)
        if renew:
            stream.use(now)
        facts = stream.facts
        tail = stream.shown
        start = locate(offset, facts, tail)
        if start == tail:
            return Chunk(facts, start, b"", tail, stream.shown_closed)
        start = self._content.start_of_append(stream, start)
        end = tail
        more = 0
        if tail - start > limit:
            end = start + limit
            if whole:
                whole_end = self._content.end_of_whole(stream, start, limit)
                more = max(0, whole_end - end)
                end = min(end, whole_end)
        return Chunk(facts, start, self._content.bytes_between(stream, start, end), tail, stream.shown_closed, more)

    def _read_range(self, name: str, facts: StreamFacts, start: int, end: int, hidden: bool) -> bytes:
        return self._content.bytes_between(self._catalogue.same_stream(facts, hidden), start, end)

    def _describe(self, name: str, now: float) -> StreamStatus:
        stream = self._shown(name, now)
        return stream.status(stream.shown, stream.shown_closed)

    def _record(self, name: str, now: float, hidden: bool) -> NowOrLater[StreamRecord]:
        catalogue = self._catalogue
        stream = (catalogue.find_hidden if hidden else self._find)(name, now)
        # The accepted state, which is returned when it is the committed one.
        return self._queue.when_committed(stream.lsn, stream.record(catalogue.wall_offset))

    def _append_ends(self, name: str, facts: StreamFacts, start: int, max_count: int, hidden: bool) -> list[int]:
        return self._content.append_ends(self._catalogue.same_stream(facts, hidden), start, max_count)

    def _describe_page(self, _: str, now: float, after: str, max_count: int, prefix: str) -> list[StreamStatus]:
        if self._queue.removal_lsn > self._queue.committed_lsn and self._queue.failure is None:
            raise NotYet(self._queue.after(lambda: None))
        shown = (stream for stream in self._catalogue.present(now, after, prefix) if stream.shown >= 0)
        return [stream.status(stream.shown, stream.shown_closed) for stream in islice(shown, max_count)]

    def _sweep_committed(self, _: str, now: float, max_count: int) -> NowOrLater[int]:
        if not self._catalogue.may_sweep(now):
            return 0
        self._queue.check_writable(OVERHEAD * max_count, removal=True)
        removed = self._catalogue.sweep(now, max_count)
        return self._queue.after(lambda: removed) if removed else 0


def _names_of(name: str, *rest: Any) -> list[str]:
    """Return the names of the streams that an operation is about, from the arguments of its step."""
    other = rest[0] if rest else None
    if isinstance(other, StreamConfig) and other.fork is not None:
        return [name, other.fork.source]
    return [name, other] if isinstance(other, str) else [name]


def _room_of_installation(name: str, restoration: StreamRestoration) -> int:
    """Return the maximum size of an installation in a log."""
    writers = sum(4 * len(writer_id) + WRITER for writer_id in restoration.writers)
    return _room_of(name, restoration.config) + OVERHEAD + len(restoration.sequence or b"") + writers


def _room_of(name: str, config: StreamConfig) -> int:
    """Return the maximum size of a creation in a log without its data: a character takes up to four bytes."""
    source = "" if config.fork is None else config.fork.source
    return 2 * OVERHEAD + 4 * (len(name) + len(source) + len(config.content_type or "")) + 4 * MAX_CONTENT_TYPE
