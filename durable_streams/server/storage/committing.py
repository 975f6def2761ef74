"""A catalogue whose changes go into a log: nothing is answered, and nothing shown, before the log has it.

A change waits, with all that come meanwhile, for the log to commit them together. What was accepted and what is
committed are two states of a stream; readers see the second only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeVar

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clocks import clock_of
from ..errors import StreamsError, Unavailable
from ..model import StorageFigures, StorageLimits
from .catalogue import Catalogue
from .changes import OVERHEAD, Change, DataAppended, StreamCreated, StreamRemoved
from .logged.stream import LoggedStream
from .measuring import Measure

T = TypeVar("T")
K = TypeVar("K", bound=LoggedStream)

#: What is done when a batch is committed: a stream, what its change came to and who wants to know; or some other deed.
_Answer = tuple[LoggedStream | None, Any, "Deferred[Any] | None"]

#: The classes of how many changes are committed together, and of how long that takes in seconds.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

_log = Logger()


class NotYet(Exception):
    """
    What a step needs is not there yet: try it again when ``ready`` fires.

    :ivar ready: fires with what is at hand then, a mapping by key; or with None.
    """

    def __init__(self, ready: Deferred[Any]) -> None:
        super().__init__()
        self.ready = ready


class Committing(Catalogue[K]):
    """
    The queue of what was accepted, and what becomes of it.

    :param clock: the reactor, or a Clock.
    :param most_queued: how many bytes of changes may wait; what comes beyond that is refused.
    :ivar committed_lsn: the number of the last change that the log has.
    """

    #: What the provider is called in the log.
    kind: ClassVar[str]

    def __init__(
        self, limits: StorageLimits, clock: IReactorTime, entry_type: Callable[..., K], most_queued: int
    ) -> None:
        super().__init__(limits, entry_type)
        self._clock = clock_of(clock)
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
        self._commit_sizes = Measure(_SIZES)
        self._commit_seconds = Measure(_SECONDS)

    def figures(self) -> StorageFigures:
        """See :meth:`.IStorage.figures`."""
        return replace(
            super().figures(),
            queued_bytes=self._queued_bytes,
            commit_sizes=self._commit_sizes.distribution(),
            commit_seconds=self._commit_seconds.distribution(),
        )

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

    def _discard(self, streams: Sequence[K]) -> None:
        """Take away what is kept of streams whose removal is committed."""

    # The queue

    def _check_writable(self, size: int, removal: bool = False) -> None:
        if self._failed is not None:
            raise Unavailable(self._failed)
        if self._closing is not None:
            raise Unavailable("The storage is being closed.")
        if self._queued_bytes + size > self._most_queued and self._queued_bytes and not removal:
            raise Unavailable("The disk has more to write than it keeps up with. Come back in a moment.")
        credit = self._check_room(size, removal)
        if not removal:
            # What there is for removals only is no credit to others.
            self._credit = min(credit, self._most_queued - self._queued_bytes)

    def _log_change(self, change: StreamCreated | DataAppended, stream: K, outcome: T, room: int) -> Deferred[T]:
        answer: Deferred[T] = Deferred()
        self._lsn = stream.lsn = self._lsn + 1
        self._changes.append(change)
        self._answers.append((stream, outcome, answer))
        self._queue(room)
        return answer

    def _queue(self, room: int) -> None:
        """Count what was queued, and have all that comes in this turn of the reactor committed together."""
        self._queued_bytes += room
        self._credit -= room
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._begin)

    def _check_immutable(self, stream: K, end: int) -> None:
        if stream.shown < end:
            raise NotYet(self._after(lambda: None))

    def _purged(self, stream: K) -> None:
        self._purging.append(stream)

    def _removed(self, stream: K) -> None:
        purged, self._purging = self._purging, []
        self._lsn = self._removal_lsn = stream.lsn = self._lsn + 1
        self._changes.append(StreamRemoved(stream.facts.id, self._clock.wall()))

        def gone() -> None:
            self._discard(purged)
            self._listener.committed(stream.facts.name)

        self._answers.append((None, gone, None))
        self._queue(OVERHEAD)

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
        began_at = self._clock.seconds()
        committed = self._commit(changes, lsn, size)
        committed.addCallback(self._measured, len(changes), began_at)
        committed.addCallbacks(self._committed, self._not_committed, (answers, lsn), {}, (answers,))
        committed.addErrback(lambda failure: _log.failure("Announcing a commit failed.", failure=failure))

    def _measured(self, _: None, size: int, began_at: float) -> None:
        self._commit_sizes.add(size)
        self._commit_seconds.add(self._clock.seconds() - began_at)

    def _committed(self, _: None, answers: list[_Answer], lsn: int) -> None:
        self.committed_lsn = lsn
        if not self._changes:
            # These rest on what is committed now.
            answers += self._answers
            self._answers = []
        for changed, outcome, _answer in answers:
            if changed is not None:
                changed.shown = outcome.tail
                if outcome.closed:
                    changed.shown_closed = True
        try:
            self._tell_all(answers)
        finally:
            # Not before: while it has work, the log's thread would fight this one for the interpreter with every answer
            # that goes out. It is what a third of all appends were lost by.
            self._busy = False
            self._begin()

    def _tell_all(self, answers: list[_Answer]) -> None:
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

    def directory_moved(self, failure: Failure) -> None:
        """Write nothing more until the storage is opened again: its directory is no longer at its path."""
        self._credit = 0
        if self._failed is None:
            self._failed = "The data directory was moved. Nothing is written until the server is restarted."
            _log.critical("{reason}", reason=failure.getErrorMessage())
        self._begin()

    def _give_up(self, failure: Failure) -> None:
        self._credit = 0
        if self._failed is None:
            self._failed = "The storage has failed to write, and takes no more until the server is restarted."
            _log.critical(
                "The {kind} storage has failed and takes no more writes: {reason}. Streams can still be read. "
                "Repair the disk, then restart the server.",
                kind=self.kind,
                reason=failure.getErrorMessage(),
            )


def _tell(answer: Deferred[T], outcome: Callable[[], T]) -> None:
    try:
        told = outcome()
    except Exception:
        answer.errback()
    else:
        answer.callback(told)
