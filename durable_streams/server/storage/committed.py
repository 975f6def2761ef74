"""A catalogue whose changes go into a log: nothing is answered, and nothing shown, before the log has it.

A change is decided and made in the catalogue in one step, in the reactor's turn, by what was decided before it. Then it
waits, with all that come meanwhile, for the log to commit them together. What was accepted and what is committed are
two states of a stream; readers see the second only.
"""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NoReturn, TypeVar
from zlib import crc32

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import StreamsError, Unavailable
from ..interfaces import ICommitListener, IStorage, NowOrLater
from ..model import (
    Append,
    Appended,
    Chunk,
    Created,
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
from .changes import MOST_OF_A_TYPE, OVERHEAD, Change, Made, Removed, Wrote
from .workers import Worker

T = TypeVar("T")

#: Up to this many changes wait for the end of the reactor's turn, so that they are committed together.
GATHERED_AT_MOST: Final = 32

_log = Logger()


class NotYet(Exception):
    """
    What a step needs is not there yet: try it again when ``ready`` fires.

    :ivar ready: fires with what is at hand then, a mapping by key; or with None.
    """

    def __init__(self, ready: Deferred[Any]) -> None:
        super().__init__()
        self.ready = ready


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


K = TypeVar("K", bound=Kept)

#: What is done when a batch is committed: a stream, what its change came to and who wants to know; or some other deed.
_Answer = tuple[Kept | None, Any, "Deferred[Any] | None"]


@implementer(IStorage)
class CommittedStorage(Catalogue[K]):
    """
    What the storages with a log have in common. A provider says how to commit, and where the bytes are.

    :param clock: the reactor, or a Clock.
    :ivar committed_lsn: the number of the last change that the log has.
    """

    #: What the provider is called in the log.
    kind: ClassVar[str]

    def __init__(
        self,
        limits: StorageLimits,
        clock: IReactorTime,
        entry_type: Callable[..., K],
        readers: Worker,
        most_queued: int,
    ) -> None:
        super().__init__(limits, entry_type)
        self._clock = clock
        self._readers = readers
        self._most_queued = most_queued
        self.committed_lsn = 0
        self._lsn = 0
        self._removal_lsn = 0
        self._changes: list[Change] = []
        self._answers: list[_Answer] = []
        self._queued_bytes = 0
        # How much may be queued before it has to be asked whether there is room.
        self._credit = 0
        self._busy = False
        self._scheduled = False
        self._closing: Deferred[None] | None = None
        self._failed: str | None = None
        self._purging: list[K] = []
        self._hand: Mapping[Any, Any] = {}

    # What a provider says

    @abstractmethod
    def _commit(self, changes: Sequence[Change], lsn: int, most: int) -> Deferred[None]:
        """
        Put changes into the log, all or none. At most one batch of them is under way.

        :param lsn: the number of the last of them.
        :param most: how many bytes they take at the most.
        """

    @abstractmethod
    def _check_room(self, size: int, removal: bool) -> int:
        """
        See that the log has room for a change of this size, beside what is queued.

        :returns: how many bytes of changes, this one's among them, may be queued before this is asked again.
        :raises NotYet: not at the moment.
        :raises InsufficientStorage: no.
        """

    @abstractmethod
    def _append_bounds(self, stream: K, position: int) -> tuple[int, int]:
        """
        Say where the append begins and ends that has one of a stream's own bytes, which is not in memory.

        :raises NotYet: it takes a look at the disk.
        """

    @abstractmethod
    def _last_end(self, stream: K, start: int, most: int) -> int:
        """
        Say where the last of a stream's own appends ends that ends at ``most`` or before.

        :param start: where an append begins; the answer, if none ends after it.

        :raises NotYet: it takes a look at the disk.
        """

    @abstractmethod
    def _own_bytes(self, stream: K, start: int, end: int) -> bytes:
        """
        Read some of a stream's own bytes that are not in memory.

        :raises NotYet: it takes a look at the disk.
        """

    @abstractmethod
    def _close(self) -> Deferred[None]:
        """Let go of everything; nothing is queued any more."""

    def _discard(self, streams: Sequence[K]) -> None:
        """Take away what is kept of streams whose removal is committed."""

    # What IStorage asks for

    @abstractmethod
    def open(self) -> None:
        """See :meth:`.IStorage.open`."""

    def listen(self, listener: ICommitListener) -> None:
        self._listener = listener

    def obstacle(self) -> str | None:
        return self._failed

    def create(self, name: str, config: StreamConfig, body: bytes, now: float) -> NowOrLater[Created]:
        return self._attempt(self._create, name, config, body, now)

    def append(self, name: str, append: Append, now: float) -> NowOrLater[Appended]:
        # As _attempt does, without its cost.
        try:
            return self._append(name, append, now)
        except (NotYet, StreamsError) as trouble:
            return self._not_now(trouble, self._append, name, append, now)

    def read(
        self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True
    ) -> NowOrLater[Chunk]:
        return self._attempt(self._read, name, offset, limit, now, whole, renew)

    def read_range(self, facts: StreamFacts, start: int, end: int) -> NowOrLater[bytes]:
        return self._attempt(self._read_range, facts.name, facts, start, end)

    def status(self, name: str, now: float) -> NowOrLater[StreamStatus]:
        return self._attempt(self._describe, name, now)

    def delete(self, name: str, now: float) -> NowOrLater[None]:
        return self._attempt(self._delete, name, now)

    def renew(self, name: str, now: float) -> None:
        self._renew(name, now)

    def sweep(self, now: float, most: int) -> NowOrLater[int]:
        return self._attempt(self._sweep_committed, "", now, most)

    def statuses(self, now: float) -> NowOrLater[list[StreamStatus]]:
        return self._attempt(self._describe_all, "", now)

    def close(self) -> Deferred[None]:
        if self._closing is None:
            self._credit = 0
            self._closing = self._after(lambda: None).addBoth(lambda _: self._close())
        return self._closing

    # Each operation, in one step

    def _attempt(self, step: Callable[..., NowOrLater[T]], name: str, *rest: Any) -> NowOrLater[T]:
        """Take a step; again, if it can't be taken yet. A refusal waits for the changes that it rests on."""
        try:
            return step(name, *rest)
        except (NotYet, StreamsError) as trouble:
            return self._not_now(trouble, step, name, *rest)

    def _not_now(
        self, trouble: NotYet | StreamsError, step: Callable[..., NowOrLater[T]], name: str, *rest: Any
    ) -> Deferred[T]:
        if isinstance(trouble, NotYet):
            return trouble.ready.addCallback(self._attempt_again, step, name, *rest)
        names = [name]
        if rest and isinstance(rest[0], StreamConfig) and rest[0].fork is not None:
            names.append(rest[0].fork.source)
        if all(self._lsn_of(each) <= self.committed_lsn for each in names):
            raise trouble

        def refuse() -> NoReturn:
            raise trouble

        return self._after(refuse)

    def _lsn_of(self, name: str) -> int:
        """Say which change it was that left a stream, or its absence, as it is; or a later one."""
        stream = self._streams.get(name)
        return self._removal_lsn if stream is None else stream.lsn

    def _attempt_again(self, hand: Mapping[Any, Any] | None, step: Callable[..., T], name: str, *rest: Any) -> T:
        self._hand = hand or {}
        try:
            return self._attempt(step, name, *rest)  # type: ignore[return-value]
        finally:
            self._hand = {}

    def _create(self, name: str, config: StreamConfig, body: bytes, now: float) -> NowOrLater[Created]:
        room = len(body) + _room_of(name, config)
        if name not in self._streams:
            self._check_writable(room)
        stream, data = self._make(name, config, body, now)
        created = Created(stream.facts, stream.tail, stream.closed, new=data is not None)
        if data is None:
            return created if stream.lsn <= self.committed_lsn else self._after(lambda: created)
        checksum = crc32(data)
        facts = stream.facts
        source = stream.source
        made = Made(
            facts.id,
            name,
            facts.incarnation,
            facts.content_type,
            config,
            stream.lifetime,
            None if source is None else source.facts.id,
            stream.base,
            now,
            data,
            checksum,
        )
        if data:
            self._begin_recent(stream, stream.base).add(data, stream.tail, checksum)
        return self._log_change(made, stream, created, room)

    def _append(self, name: str, append: Append, now: float) -> NowOrLater[Appended]:
        data = append.data
        writer = append.writer
        room = len(data) + OVERHEAD
        if append.sequence is not None:
            room += len(append.sequence)
        if writer is not None:
            room += 4 * len(writer.id)
        if room > self._credit:
            self._check_writable(room)
        stream = self._find(name, now)
        start = stream.tail
        appended = self._write(stream, append, now)
        if appended.duplicate:
            return appended if stream.lsn <= self.committed_lsn else self._after(lambda: appended)
        checksum = crc32(data)
        if writer is None:
            wrote = Wrote(stream.facts.id, start, data, checksum, now, append.close, append.sequence)
        else:
            wrote = Wrote(
                stream.facts.id,
                start,
                data,
                checksum,
                now,
                append.close,
                append.sequence,
                writer.id,
                writer.epoch,
                writer.seq,
            )
        if data:
            recent = stream.recent
            if recent is None:
                recent = self._begin_recent(stream, start)
            recent.data += data
            recent.ends.append(appended.tail)
            recent.checksums.append(checksum)
        return self._log_change(wrote, stream, appended, room)

    def _delete(self, name: str, now: float) -> NowOrLater[None]:
        self._check_writable(OVERHEAD, removal=True)
        stream = self._find(name, now)
        self._remove(stream)
        return self._after(lambda: None)

    def _expiring(self) -> None:
        # Who is told that a stream is gone must not see it come back.
        self._check_writable(OVERHEAD, removal=True)

    def _shown(self, name: str, now: float) -> K:
        stream = self._find(name, now)
        if stream.shown < 0:
            raise NotYet(self._after(lambda: None))
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
        start = self._start_of_append(stream, start)
        end = tail
        if tail - start > limit:
            end = self._end_of_whole(stream, start, limit) if whole else start + limit
        return Chunk(facts, start, self._bytes_between(stream, start, end), tail, stream.shown_closed)

    def _read_range(self, name: str, facts: StreamFacts, start: int, end: int) -> bytes:
        return self._bytes_between(self._same_stream(facts), start, end)

    def _describe(self, name: str, now: float) -> StreamStatus:
        return self._status(self._shown(name, now))

    def _describe_all(self, _: str, now: float) -> list[StreamStatus]:
        if self._removal_lsn > self.committed_lsn and self._failed is None:
            raise NotYet(self._after(lambda: None))
        return [self._status(stream) for stream in self._present(now) if stream.shown >= 0]

    def _status(self, stream: K) -> StreamStatus:
        return StreamStatus(
            stream.facts, stream.shown, stream.shown_closed, stream.lifetime, stream.created_at, stream.updated_at
        )

    def _sweep_committed(self, _: str, now: float, most: int) -> NowOrLater[int]:
        if not self._deadlines or self._deadlines[0][0] > now:
            return 0
        self._check_writable(OVERHEAD * most, removal=True)
        removed = self._sweep(now, most)
        return self._after(lambda: removed) if removed else 0

    # Bytes, wherever they are

    def _start_of_append(self, stream: K, position: int) -> int:
        owner, _ = stream.owner(position)
        recent = owner.recent
        if recent is not None and position >= recent.start:
            return max(start_of_append(recent.ends, position), recent.start)
        return max(self._append_bounds(owner, position)[0], owner.base)

    def _end_of_append(self, stream: K, position: int) -> int:
        """Say where the append ends that begins at ``position``, as far as it is this stream's."""
        owner, end = stream.owner(position)
        recent = owner.recent
        if recent is not None and position >= recent.start:
            return min(end_of_read(recent.ends, position, 0), end)
        return min(self._append_bounds(owner, position)[1], end)

    def _end_of_whole(self, stream: K, start: int, limit: int) -> int:
        """Choose the end of a read of whole appends: the last one within the limit, or else the first one."""
        for owner, first, stop in stream.parts(start, stream.shown):
            if stop - start > limit:
                end = self._last_own_end(owner, first, start + limit)
                return end if end > start else self._end_of_append(stream, start)
        return stream.shown

    def _last_own_end(self, stream: K, start: int, most: int) -> int:
        recent = stream.recent
        if recent is not None and most >= recent.start:
            end = end_of_read(recent.ends, recent.start, most - recent.start)
            if end <= most:
                return max(end, start)
            most = recent.start
            if start >= most:
                return start
            # What is not in memory ends with an append where memory begins.
            return most
        return self._last_end(stream, start, most)

    def _bytes_between(self, stream: K, start: int, end: int) -> bytes:
        recent = stream.recent
        if recent is not None and start >= recent.start:
            return recent.slice(start, end)
        pieces = []
        for owner, first, stop in stream.parts(start, end):
            edge = min(stop, stop if owner.recent is None else max(owner.recent.start, first))
            if first < edge:
                pieces.append(self._own_bytes(owner, first, edge))
            if edge < stop:
                assert owner.recent is not None
                pieces.append(owner.recent.slice(edge, stop))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _append_at(self, stream: K, position: int) -> tuple[int, bytes]:
        start = self._start_of_append(stream, position)
        return start, self._bytes_between(stream, start, self._end_of_append(stream, start))

    def _fetch(self, key: Any, work: Callable[[], Any]) -> NoReturn:
        """
        Have something read that a step needs: it finds it in ``_hand`` under ``key`` when it is taken again.

        What it had in hand stays there, so that a step which needs more than stays open, or cached, comes to an end.

        :raises NotYet: always.
        """
        hand = self._hand
        raise NotYet(self._readers.do(work).addCallback(lambda found: {**hand, key: found}))

    def _begin_recent(self, stream: K, start: int) -> Recent:
        """Keep a stream's bytes in memory from a position on."""
        recent = stream.recent = Recent(start)
        return recent

    # The queue

    def _check_writable(self, size: int, removal: bool = False) -> None:
        if self._failed is not None:
            raise Unavailable(self._failed)
        if self._closing is not None:
            raise Unavailable("The storage is being closed.")
        if self._queued_bytes + size > self._most_queued and self._queued_bytes and not removal:
            raise Unavailable("The disk has more to write than it keeps up with. Come back in a moment.")
        self._credit = self._check_room(size, removal)

    def _log_change(self, change: Made | Wrote, stream: K, outcome: T, room: int) -> Deferred[T]:
        answer: Deferred[T] = Deferred()
        self._lsn = stream.lsn = self._lsn + 1
        self._changes.append(change)
        self._answers.append((stream, outcome, answer))
        self._queued_bytes += room
        self._credit -= room
        if not self._busy:
            if not self._scheduled:
                self._scheduled = True
                self._clock.callLater(0, self._begin)
            elif len(self._changes) == GATHERED_AT_MOST:
                self._begin()
        return answer

    def _purged(self, stream: K) -> None:
        self._purging.append(stream)

    def _removed(self, stream: K) -> None:
        purged, self._purging = self._purging, []
        self._lsn = self._removal_lsn = stream.lsn = self._lsn + 1
        self._changes.append(Removed(stream.facts.id, self._clock.seconds()))
        self._queued_bytes += OVERHEAD

        def gone() -> None:
            self._discard(purged)
            self._listener.committed(stream.facts.name)

        self._answers.append((None, gone, None))
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._begin)

    def _after(self, outcome: Callable[[], T]) -> Deferred[T]:
        """Tell something when all that was accepted so far is committed."""
        answer: Deferred[T] = Deferred()
        if self._failed is not None:
            answer.errback(Unavailable(self._failed))
        elif self._lsn == self.committed_lsn:
            _tell(answer, outcome)
        else:
            self._answers.append((None, outcome, answer))
        return answer

    def _begin(self) -> None:
        """Have what is queued committed, if nothing is under way."""
        self._scheduled = False
        if self._busy:
            return
        if self._failed is not None:
            self._refuse_queued(Unavailable(self._failed))
        if not self._changes:
            return
        changes, self._changes = self._changes, []
        answers, self._answers = self._answers, []
        self._busy = True
        self._credit = 0
        size, self._queued_bytes = self._queued_bytes, 0
        lsn = self._lsn
        committed = self._commit(changes, lsn, size)
        committed.addCallbacks(self._committed, self._not_committed, (answers, lsn), {}, (answers,))
        committed.addErrback(lambda failure: _log.failure("What was committed could not be told.", failure=failure))

    def _committed(self, _: None, answers: list[_Answer], lsn: int) -> None:
        self.committed_lsn = lsn
        self._busy = False
        # The disk has work while the answers go out.
        self._begin()
        if not self._busy:
            # These rest on what is committed now.
            answers += self._answers
            self._answers = []
        for changed, outcome, _answer in answers:
            if changed is not None:
                changed.shown = outcome.tail
                if outcome.closed:
                    changed.shown_closed = True
        announce = self._listener.committed
        for stream, outcome, answer in answers:
            if answer is None:
                outcome()
            elif stream is not None:
                announce(stream.facts.name)
                answer.callback(outcome)
            else:
                _tell(answer, outcome)

    def _not_committed(self, failure: Failure, answers: list[_Answer]) -> None:
        """The log has failed. What became of the batch shows when the storage is opened again."""
        self._busy = False
        self._answers = answers + self._answers
        self._give_up(failure)
        self._refuse_queued(
            failure.value if isinstance(failure.value, StreamsError) else Unavailable(self._failed or "")
        )

    def _refuse_queued(self, error: StreamsError) -> None:
        answers, self._answers = self._answers, []
        self._changes = []
        self._queued_bytes = 0
        for _, _, waiting in answers:
            if waiting is not None:
                waiting.errback(error)

    def stop_writing(self, failure: Failure) -> None:
        """
        Write nothing more until the storage is opened again.

        What a failed write or sync has left on the disk is not known, and to try again would not tell.
        """
        self._give_up(failure)
        self._begin()

    def _give_up(self, failure: Failure) -> None:
        self._credit = 0
        if self._failed is None:
            self._failed = "The storage has failed to write, and takes no more until the server is restarted."
            _log.critical(
                "The {kind} storage can't write any more: {reason}. Streams can be read; nothing is written until the "
                "server is started again. See to the disk first.",
                kind=self.kind,
                reason=failure.getErrorMessage(),
            )


def _room_of(name: str, config: StreamConfig) -> int:
    """Say how many bytes a creation takes in a log at the most, besides its data: a character takes up to four."""
    source = "" if config.fork is None else config.fork.source
    return 2 * OVERHEAD + 4 * (len(name) + len(source) + len(config.content_type or "")) + 4 * MOST_OF_A_TYPE


def _tell(answer: Deferred[T], outcome: Callable[[], T]) -> None:
    try:
        told = outcome()
    except Exception:
        answer.errback()
    else:
        answer.callback(told)
