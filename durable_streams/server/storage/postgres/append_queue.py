"""The appends that wait for a commit, in a queue for each stream, and their decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import StreamNotFound, Unavailable
from ...interfaces import ICommitListener
from ...model import Append, Appended, StorageLimits
from ..listeners import NullListener
from .folding import Fold, Totals, Wanted, advance, fold
from .heads import Head
from .known import KnownStream
from .lookups import LookUps
from .queries import DISK_FULL, QueryFailed
from .refusals import refusal_of

#: About how many bytes of memory a queued append takes besides its data.
OVERHEAD: Final = 600

#: The maximum number of appends of one stream in a commit. To decide one takes 2 to 4 us.
_MAX_APPENDS: Final = 1_000

#: How often a refused statement is sent again, if the reason may pass.
_MAX_FAILURES: Final = 3

_NOTHING: Final = Wanted()

_log = Logger()


class Uses(Protocol):
    """Uses of streams by this node that are not written yet: they renew TTLs."""

    def last_use(self, stream_id: int) -> float:
        """Return the time of the last use that is not written yet; 0 if there is none."""

    def note(self, head: Head) -> None:
        """Note that a stream is used at the time at which its head was read. If it has no TTL, do nothing."""


class QueuedAppend:
    """
    An append that is not answered yet.

    :ivar moment: that of :class:`.LookUps` when it came.
    """

    __slots__ = ("answer", "append", "moment")

    def __init__(self, append: Append, moment: int) -> None:
        self.append = append
        self.moment = moment
        self.answer: Deferred[Appended] = Deferred()


class StreamQueue:
    """
    The appends of one stream, in order. At most one look-up or commit of them runs at a time.

    :ivar known: the result of the last look-up; None for what is cached.
    :ivar misses: how often in a row the stream was changed by another node before a commit of this one.
    :ivar failures: how often in a row the statement was refused.
    :ivar held_since: since when another transaction has locked the row, by the reactor's clock; None if none has.
    :ivar alone: whether the next commit is to have no other stream, to find out whether this one is the reason why a
        statement was refused.
    """

    __slots__ = ("alone", "appends", "failures", "held_since", "known", "misses", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.appends: deque[QueuedAppend] = deque()
        self.known: KnownStream | None = None
        self.misses = 0
        self.failures = 0
        self.held_since: float | None = None
        self.alone = False

    def succeeded(self) -> None:
        """Forget all failures."""
        self.misses = self.failures = 0
        self.held_since = None
        self.alone = False


class Decision:
    """
    Appends of a stream that were decided and are to be written.

    :ivar known: what they were decided against.
    """

    __slots__ = ("fold", "known", "queue")

    def __init__(self, queue: StreamQueue, known: KnownStream, folded: Fold) -> None:
        self.queue = queue
        self.known = known
        self.fold = folded


class AppendQueues:
    """
    All appends that are not answered yet.

    :param totals: the data and metadata of all streams. Those of a decision are added when it is made, and subtracted
        if it is not written.
    :param max_bytes: how many bytes of appends may be queued; more are refused.
    :ivar bytes: the size of the queued appends.
    :ivar ready: is called with a queue whose first append is to be decided.
    :ivar listener: is notified of each commit.
    :ivar changed: is called with a stream's id and its new version after each commit.
    :ivar refused: is called with the error of each statement that the database refuses.
    :ivar drained: is called when the last append is answered.
    """

    def __init__(
        self,
        lookups: LookUps,
        limits: StorageLimits,
        totals: Totals,
        uses: Uses,
        max_bytes: int,
    ) -> None:
        self._lookups = lookups
        self._limits = limits
        self._totals = totals
        self._uses = uses
        self._max_bytes = max_bytes
        self._queues: dict[str, StreamQueue] = {}
        self._answers = lookups.answers
        self.bytes = 0
        self.ready: Callable[[StreamQueue], None] = lambda _: None
        self.listener: ICommitListener = NullListener()
        self.changed: Callable[[int, int], None] = lambda _id, _version: None
        self.refused: Callable[[QueryFailed], object] = lambda _: None
        self.drained: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, name: str, append: Append) -> Deferred[Appended]:
        """
        Queue an append.

        :raises Unavailable: the queue is full.
        """
        size = len(append.data) + OVERHEAD
        if self.bytes and self.bytes + size > self._max_bytes:
            raise Unavailable("The write queue is full: the database is too slow. Try again in a moment.")
        self.bytes += size
        queued = QueuedAppend(append, self._lookups.moment)
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = StreamQueue(name)
            queue.appends.append(queued)
            self.ready(queue)
        else:
            queue.appends.append(queued)
        return queued.answer

    # Deciding

    def decide(self, queue: StreamQueue, max_bytes: int) -> Decision | None:
        """
        Decide the first appends of a queue.

        :param max_bytes: decide no further append after this number of bytes, but at least one.
        :returns: None if nothing is to be written now. Then they are answered, or wait for a look-up.
        """
        known = queue.known or self._lookups.known(queue.name)
        queue.known = None
        if known is None:
            self.look_up(queue)
            return None
        folded = self.fold(queue, known, max_bytes)
        if folded.writes:
            return self.decision(queue, known, folded)
        # Nothing is written, so nothing but a look-up that began later than they came confirms these outcomes.
        confirmed = 0
        for queued in islice(queue.appends, len(folded.outcomes)):
            if queued.moment >= known.confirmed:
                break
            confirmed += 1
        if confirmed:
            if folded.renews:
                self._uses.note(known.head)
            self._answer(queue, folded, confirmed)
        if confirmed < len(folded.outcomes) or folded.wanted is not None:
            self.look_up(queue, folded.wanted or _NOTHING)
        else:
            self._go_on(queue)
        return None

    def fold(self, queue: StreamQueue, known: KnownStream, max_bytes: int) -> Fold:
        """Decide the first appends of a queue against a head, without any effect."""
        appends = [queued.append for queued in islice(queue.appends, _MAX_APPENDS)]
        used_at = self._uses.last_use(known.head.facts.id)
        return fold(known, appends, self._limits, self._totals, used_at, max_bytes)

    def decision(self, queue: StreamQueue, known: KnownStream, folded: Fold) -> Decision:
        """Return the decision of a fold that is to be written, and count its data."""
        self._totals.add(0, folded.size, folded.metadata)
        return Decision(queue, known, folded)

    def last_uses(self, decisions: Iterable[Decision]) -> list[float]:
        """Return the last use of each decision's stream that is not written yet; 0 if there is none."""
        return [self._uses.last_use(each.fold.head.facts.id) for each in decisions]

    def look_up(self, queue: StreamQueue, wanted: Wanted = _NOTHING) -> None:
        """Look up a stream; then its queue is ready again."""
        count = len(queue.appends)

        def found(known: KnownStream | None) -> None:
            if known is None:
                self.refuse(queue, count, lambda: StreamNotFound(queue.name))
            else:
                queue.known = known
                self.ready(queue)

        def failed(failure: Failure) -> None:
            reason = refusal_of(failure.value)
            self.refuse(queue, count, lambda: reason)

        self._lookups.look_up(queue.name, wanted).addCallbacks(found, failed)

    # The outcome of a commit

    def written(self, decision: Decision, moment: int, now: float) -> None:
        """
        Answer appends that are committed.

        :param moment: that of the statement.
        :param now: the database's time of the statement.
        """
        queue, known, folded = decision.queue, decision.known, decision.fold
        self._totals.written += folded.size
        version = folded.head.version + 1
        advance(known, folded, version, now)
        known.confirmed = moment
        queue.succeeded()
        kept = self._lookups.keep(known)
        self.changed(folded.head.facts.id, version)
        self.listener.committed(queue.name)
        self._answer(queue, folded, len(folded.outcomes))
        if queue.appends:
            queue.known = kept
        self._go_on(queue)

    def undo(self, decision: Decision) -> None:
        """Subtract the data of a decision that was not written."""
        self._totals.add(0, -decision.fold.size, -decision.fold.metadata)

    def missed(self, decision: Decision) -> None:
        """Decide appends again, after a look-up, since another node has changed or locked their stream."""
        self.undo(decision)
        queue = decision.queue
        queue.misses += 1
        self._lookups.forget(queue.name)
        self.look_up(queue)

    def settled(self, queue: StreamQueue, known: KnownStream, folded: Fold) -> None:
        """Answer appends that write nothing, and were decided while their stream was locked."""
        queue.succeeded()
        if folded.renews:
            self._uses.note(known.head)
        queue.known = self._lookups.keep(known)
        self._answer(queue, folded, len(folded.outcomes))
        self._go_on(queue)

    def again(self, queue: StreamQueue) -> None:
        """Decide appends again, since nothing was written."""
        self._lookups.forget(queue.name)
        self.ready(queue)

    def failed(self, queue: StreamQueue, count: int, error: BaseException | None) -> None:
        """
        Refuse appends whose statement has failed, or decide them again: each stream alone, if one may be the reason.

        :param count: the number of appends that were decided.
        """
        reason = refusal_of(error)
        if isinstance(error, QueryFailed):
            self.refused(error)
        if isinstance(error, QueryFailed) and error.sqlstate != DISK_FULL:
            queue.failures += 1
            if queue.failures <= _MAX_FAILURES and (error.is_transient or not queue.alone):
                queue.alone = not error.is_transient
                self.again(queue)
                return
            _log.error("The database refused appends to {name}: {error}.", name=queue.name, error=error)
        self.refuse(queue, count, lambda: reason)

    def refuse(self, queue: StreamQueue, count: int, reason: Callable[[], BaseException]) -> None:
        """Refuse the first appends of a queue, and go on with the others."""
        refused = [queue.appends.popleft() for _ in range(count)]
        self.bytes -= sum(len(queued.append.data) + OVERHEAD for queued in refused)
        queue.succeeded()

        def steps() -> Generator[None, None, None]:
            for queued in refused:
                queued.answer.errback(reason())
                yield
            self._go_on(queue)

        self._answers.give(steps())

    def _go_on(self, queue: StreamQueue) -> None:
        """Decide the other appends of a queue, or remove it."""
        if queue.appends:
            self.ready(queue)
        else:
            del self._queues[queue.name]
            if not self._queues:
                self.drained()

    def _answer(self, queue: StreamQueue, folded: Fold, count: int) -> None:
        for outcome in islice(folded.outcomes, count):
            queued = queue.appends.popleft()
            self.bytes -= len(queued.append.data) + OVERHEAD
            if isinstance(outcome, Appended):
                queued.answer.callback(outcome)
            else:
                queued.answer.errback(outcome)
