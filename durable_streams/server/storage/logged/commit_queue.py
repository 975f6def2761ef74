"""Group commit: changes are queued, written to the log in batches, then acknowledged and made visible to readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import StreamsError, Unavailable
from ...interfaces import ICommitListener, NowOrLater
from ...model import StorageFigures
from ..changes import OVERHEAD, Change, DataAppended, StreamCreated, StreamInstalled, StreamRemoved, ValuesWritten
from ..listeners import NullListener
from ..measuring import Measure
from .stream import LoggedStream

T = TypeVar("T")
K = TypeVar("K", bound=LoggedStream)

#: A pending acknowledgement: a stream, the outcome of its change, and the Deferred for it; or None, a function to call
#: after the commit, and the Deferred for its result, if any.
_Answer = tuple[LoggedStream | None, Any, "Deferred[Any] | None"]

#: Buckets of the histograms: changes in a batch, and seconds of a commit.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

_log = Logger()


class NotYet(Exception):
    """
    An operation needs something that is not available yet. Retry it when ``ready`` fires.

    :ivar ready: fires with a mapping of what was read, by key; or with None.
    """

    def __init__(self, ready: Deferred[Any]) -> None:
        super().__init__()
        self.ready = ready


class BatchRefused(Exception):
    """
    The log has rolled back a batch as a whole, and the provider has restored the committed state.

    :ivar reason: the error for the writers of the batch, and of all changes queued after it.
    """

    def __init__(self, reason: StreamsError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Log(Protocol):
    """The provider's part: the log that changes are written to."""

    def check_room(self, size: int, queued_bytes: int, removal: bool) -> int:
        """
        Check that the log has room for a change, beside the bytes that are queued.

        :param removal: whether the change removes a stream.
        :returns: how many bytes of changes, including this one, may be queued before the next check.
        :raises NotYet: retry later.
        :raises Unavailable: a temporary shortage.
        :raises InsufficientStorage: the log has no room.
        """

    def commit(self, changes: Sequence[Change], lsn: int, max_bytes: int) -> Deferred[None]:
        """
        Write changes to the log, all or none. At most one batch is written at a time.

        :param lsn: the LSN of the last of them.
        :param max_bytes: an upper bound of their size.
        :returns: fails with :exc:`BatchRefused` if the batch was rolled back; any other failure is final.
        """

    async def sync(self) -> None:
        """Make everything committed durable, as the last step before the log is closed."""

    def close(self) -> None:
        """Close the log."""


class CommitQueue(Generic[K]):
    """
    The queue of accepted changes. At most one batch of them is being committed at a time.

    :param clock: the reactor, or a Clock.
    :param kind: the name of the provider in log lines.
    :param max_bytes: how many bytes of changes may be queued; more are refused.
    :param log: the log that changes are written to.
    :ivar lsn: the LSN of the last accepted change.
    :ivar committed_lsn: the LSN of the last committed change.
    :ivar removal_lsn: the LSN of the last change that removed a name.
    :ivar queued_bytes: the size of the queued changes.
    :ivar credit: how many bytes may still be queued without another check of the room.
    :ivar failure: why nothing more is written, as a sentence for operators; or None.
    :ivar closing: whether the storage is being closed; further changes are refused.
    :ivar listener: is notified of each committed change.
    """

    __slots__ = (
        "_answers",
        "_busy",
        "_changes",
        "_check_room",
        "_clock",
        "_commit",
        "_commit_seconds",
        "_commit_sizes",
        "_kind",
        "_max_bytes",
        "_scheduled",
        "closing",
        "committed_lsn",
        "credit",
        "failure",
        "listener",
        "lsn",
        "queued_bytes",
        "removal_lsn",
    )

    def __init__(
        self,
        clock: IReactorTime,
        kind: str,
        max_bytes: int,
        log: Log,
    ) -> None:
        self._clock = clock_of(clock)
        self._kind = kind
        self._max_bytes = max_bytes
        self._check_room = log.check_room
        self._commit = log.commit
        self.listener: ICommitListener = NullListener()
        self.lsn = self.committed_lsn = self.removal_lsn = 0
        self._changes: list[Change] = []
        self._answers: list[_Answer] = []
        self.queued_bytes = 0
        self.credit = 0
        self._busy = False
        self._scheduled = False
        self.closing = False
        self.failure: str | None = None
        self._commit_sizes = Measure(_SIZES)
        self._commit_seconds = Measure(_SECONDS)

    def restart(self, lsn: int) -> None:
        """Continue after the change with this LSN, which is the last in the log."""
        self.lsn = self.removal_lsn = self.committed_lsn = lsn

    def with_figures(self, figures: StorageFigures) -> StorageFigures:
        """Return a copy of some figures with those of the queue."""
        return replace(
            figures,
            queued_bytes=self.queued_bytes,
            commit_sizes=self._commit_sizes.distribution(),
            commit_seconds=self._commit_seconds.distribution(),
        )

    # Accepting changes

    def check_writable(self, size: int, removal: bool = False) -> None:
        """
        Check that a change of this size can be queued.

        :raises NotYet: retry later.
        :raises Unavailable: the storage has failed, is closing, or the queue is full.
        :raises InsufficientStorage: the log has no room.
        """
        if self.failure is not None:
            raise Unavailable(self.failure)
        if self.closing:
            raise Unavailable("The storage is being closed.")
        if self.queued_bytes + size > self._max_bytes and self.queued_bytes and not removal:
            raise Unavailable("The write queue is full: the disk is too slow. Try again in a moment.")
        credit = self._check_room(size, self.queued_bytes, removal)
        if not removal:
            # Room that is reserved for removals gives no credit to other changes.
            self.credit = min(credit, self._max_bytes - self.queued_bytes)

    def add(
        self, change: StreamCreated | DataAppended | StreamInstalled, stream: K, outcome: T, size: int
    ) -> Deferred[T]:
        """
        Queue a change of a stream.

        :returns: a Deferred that fires with ``outcome`` when the change is committed and visible.
        """
        answer: Deferred[T] = Deferred()
        self.lsn = stream.lsn = self.lsn + 1
        self._changes.append(change)
        self._answers.append((stream, outcome, answer))
        self._schedule(size)
        return answer

    def add_installation(
        self, change: StreamInstalled, stream: K, outcome: T, size: int, discard: Callable[[], None]
    ) -> Deferred[T]:
        """
        Queue the installation of a stream, of which nothing is visible until it is committed.

        :param discard: is called when it is committed, before the listener is notified.
        """
        stream.conceal()
        # The staged name is removed, and perhaps a stream.
        self.removal_lsn = self.lsn + 1
        self._answers.append((None, discard, None))
        return self.add(change, stream, outcome, size)

    def add_removal(self, stream: K, discard: Callable[[], None]) -> None:
        """
        Queue the removal of a stream.

        :param discard: is called when the removal is committed, before the listener is notified.
        """
        self.lsn = self.removal_lsn = stream.lsn = self.lsn + 1
        self._changes.append(StreamRemoved(stream.facts.id, self._clock.wall()))

        def gone() -> None:
            discard()
            self.listener.committed(stream.facts.name)

        self._answers.append((None, gone, None))
        self._schedule(OVERHEAD)

    def add_values(self, change: ValuesWritten, size: int) -> Deferred[None]:
        """
        Queue a write of values, which is not announced.

        :returns: a Deferred that fires when it is committed.
        """
        self.lsn += 1
        self._changes.append(change)
        self._schedule(size)
        return self.after(lambda: None)

    def _schedule(self, size: int) -> None:
        """Count queued bytes, and schedule one commit for all changes of this reactor turn."""
        self.queued_bytes += size
        self.credit -= size
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self.flush)

    def after(self, outcome: Callable[[], T]) -> Deferred[T]:
        """Return a Deferred that fires with the result of a function when all changes so far are committed."""
        answer: Deferred[T] = Deferred()
        if self.failure is not None:
            answer.errback(Unavailable(self.failure))
        elif self.lsn == self.committed_lsn:
            _resolve(answer, outcome)
        else:
            self._answers.append((None, outcome, answer))
        return answer

    def when_committed(self, lsn: int, outcome: T) -> NowOrLater[T]:
        """Return an outcome that depends on a change: at once if the change is committed, or else when it is."""
        return outcome if lsn <= self.committed_lsn else self.after(lambda: outcome)

    # Committing them

    def flush(self) -> None:
        """Start to commit the queued changes, unless a batch is being committed."""
        self._scheduled = False
        if self._busy:
            return
        if self.failure is not None:
            self._refuse_queued(Unavailable(self.failure))
        if not self._changes:
            return
        changes, self._changes = self._changes, []
        answers, self._answers = self._answers, []
        self._busy = True
        self.credit = 0
        size, self.queued_bytes = self.queued_bytes, 0
        lsn = self.lsn
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
            # All that these wait for is committed now.
            answers += self._answers
            self._answers = []
        for changed, outcome, _answer in answers:
            if changed is not None:
                changed.shown = outcome.tail
                if outcome.closed:
                    changed.shown_closed = True
        try:
            self._acknowledge(answers)
        finally:
            # The next batch starts after the answers: the log's thread competes with this one for the interpreter, and
            # starting it earlier made appends a third slower.
            self._busy = False
            self.flush()

    def _acknowledge(self, answers: list[_Answer]) -> None:
        announce = self.listener.committed
        for stream, outcome, answer in answers:
            if answer is None:
                outcome()
            elif stream is not None:
                announce(stream.facts.name)
                answer.callback(outcome)
            else:
                _resolve(answer, outcome)

    def _not_committed(self, failure: Failure, answers: list[_Answer]) -> None:
        self._busy = False
        self._answers = answers + self._answers
        error = failure.value
        if isinstance(error, BatchRefused):
            # Changes accepted meanwhile depend on those that were rolled back.
            self.credit = 0
            self.restart(self.committed_lsn)
            self._refuse_queued(error.reason)
            return
        # Whether the batch is in the log is unknown until the storage is opened again.
        self._give_up(failure)
        self._refuse_queued(error if isinstance(error, StreamsError) else Unavailable(self.failure or ""))

    def _refuse_queued(self, error: StreamsError) -> None:
        answers, self._answers = self._answers, []
        self._changes = []
        self.queued_bytes = 0
        for _, _, waiting in answers:
            if waiting is not None:
                waiting.errback(error)

    # Failure

    def stop(self, failure: Failure) -> None:
        """
        Write nothing more until the storage is opened again.

        After a failed write or sync the state of the disk is unknown, and a second attempt would not reveal it.
        """
        self._give_up(failure)
        self.flush()

    def stop_moved(self, failure: Failure) -> None:
        """Write nothing more until the storage is opened again: its directory is no longer at its path."""
        self.credit = 0
        if self.failure is None:
            self.failure = "The data directory was moved. Nothing is written until the server is restarted."
            _log.critical("{reason}", reason=failure.getErrorMessage())
        self.flush()

    def _give_up(self, failure: Failure) -> None:
        self.credit = 0
        if self.failure is None:
            self.failure = "The storage has failed to write, and takes no more until the server is restarted."
            _log.critical(
                "The {kind} storage has failed and takes no more writes: {reason}. Streams can still be read. "
                "Repair the disk, then restart the server.",
                kind=self._kind,
                reason=failure.getErrorMessage(),
            )


def _resolve(answer: Deferred[T], outcome: Callable[[], T]) -> None:
    try:
        result = outcome()
    except Exception:
        answer.errback()
    else:
        answer.callback(result)
