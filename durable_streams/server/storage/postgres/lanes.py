"""Group commit: the decided appends of many streams are written by one statement, one at a time on a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import InsufficientStorage, StreamsError, Unavailable
from ..measuring import Measure
from .append_queue import AppendQueues, Decision, StreamQueue
from .commit_statement import CommitStatements, written_by
from .connection import QueryFailed, Statement
from .lookups import LookUps

#: The maximum number of streams in a commit, and of bytes, about. Larger commits make no more rows a second, but take
#: longer: 1,024 streams 20 ms, 64 streams 1.5 ms.
MAX_STREAMS: Final = 256
MAX_BYTES: Final = 8 << 20

#: How often a refused statement is sent again, if the reason may pass.
_MAX_FAILURES: Final = 3

_FENCED: Final = "This node may not write at present: it was taken for lost. Retry later."

#: The SQLSTATE of a full disk.
_DISK_FULL: Final = "53100"

#: Buckets of the histograms: appends in a commit, and seconds of a commit.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

_log = Logger()


class CommitConnection(Protocol):
    """A connection for statements that write, fenced by a row of its node."""

    def commit(self, statement: Statement, parameters: Sequence[bytes | None]) -> Deferred[PGresult]:
        """
        Execute a statement whose first three parameters are the node's id, its epoch, and the number of the batch.

        :param parameters: all others.
        :returns: the result. It fails with :exc:`.NothingWritten` if it is certain that nothing was written.
        """


class CommitFigures:
    """
    Figures of all commits of a node.

    :ivar sizes: appends in a commit.
    :ivar seconds: durations of commits.
    :ivar misses: how many streams were not written because another node had changed or locked them.
    """

    def __init__(self) -> None:
        self.sizes = Measure(_SIZES)
        self.seconds = Measure(_SECONDS)
        self.misses = 0


class CommitLane:
    """
    One connection that writes, and the queues whose appends it writes.

    It does not wait for a stream that another node has locked: that stream counts as missed.
    """

    def __init__(
        self,
        connection: CommitConnection,
        queues: AppendQueues,
        statements: CommitStatements,
        lookups: LookUps,
        clock: IReactorTime,
        figures: CommitFigures,
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._statements = statements
        self._lookups = lookups
        self._clock = clock_of(clock)
        self._figures = figures
        self._ready: deque[StreamQueue] = deque()
        self._busy = False
        self._scheduled = False

    def add(self, queue: StreamQueue) -> None:
        """Decide and write the appends of a queue as soon as no statement runs."""
        self._ready.append(queue)
        self._schedule()

    def _schedule(self) -> None:
        """Begin a commit of all that is queued in this turn of the reactor."""
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self._busy:
            return
        decisions: list[Decision] = []
        room = MAX_BYTES
        while self._ready and len(decisions) < MAX_STREAMS and room > 0:
            if self._ready[0].alone and decisions:
                break
            queue = self._ready.popleft()
            decision = self._queues.decide(queue, room)
            if decision is not None:
                decisions.append(decision)
                room -= decision.fold.size
                if queue.alone:
                    break
        if decisions:
            self._commit(decisions)

    def _commit(self, decisions: list[Decision]) -> None:
        self._busy = True
        uses = list(map(self._queues.last_use, decisions))
        statement, parameters = self._statements.build([each.fold for each in decisions], uses)
        began_at = self._clock.seconds()
        moment = self._lookups.tick()
        sent = self._connection.commit(statement, parameters)
        sent.addCallbacks(
            lambda result: self._committed(result, decisions, moment, began_at),
            lambda failure: self._failed(failure, decisions),
        ).addErrback(lambda failure: _log.failure("Answering appends failed.", failure=failure))

    def _committed(self, result: PGresult, decisions: list[Decision], moment: int, began_at: float) -> None:
        self._busy = False
        outcome = written_by(result)
        if outcome is None:
            self._failed(Failure(Unavailable(_FENCED)), decisions)
            return
        now, ids = outcome
        figures = self._figures
        figures.seconds.add(self._clock.seconds() - began_at)
        figures.sizes.add(sum(len(each.fold.outcomes) for each in decisions))
        queues = self._queues
        self._schedule()
        for decision in decisions:
            if ids is None or decision.fold.head.facts.id in ids:
                queues.written(decision, moment, now)
            else:
                figures.misses += 1
                queues.missed(decision)

    def _failed(self, failure: Failure, decisions: list[Decision]) -> None:
        self._busy = False
        self._schedule()
        error = failure.value
        for decision in decisions:
            self._queues.undo(decision)
        if isinstance(error, QueryFailed) and error.sqlstate != _DISK_FULL:
            self._refused(error, decisions)
            return
        reason = refusal_of(error)
        for decision in decisions:
            self._queues.refuse(decision.queue, len(decision.fold.outcomes), lambda: reason)

    def _refused(self, error: QueryFailed, decisions: list[Decision]) -> None:
        """Send the appends of a refused statement again: each stream alone, if one of them may be the reason."""
        reason = refusal_of(error)
        for decision in decisions:
            queue = decision.queue
            queue.failures += 1
            if queue.failures > _MAX_FAILURES or (queue.alone and not error.is_transient):
                _log.error("The database refused appends to {name}: {error}.", name=queue.name, error=error)
                self._queues.refuse(queue, len(decision.fold.outcomes), lambda: reason)
            else:
                queue.alone = not error.is_transient
                self._queues.again(queue)


def refusal_of(error: BaseException | None) -> BaseException:
    """Return the error for callers whose statement has failed."""
    if isinstance(error, StreamsError):
        return error
    if isinstance(error, QueryFailed):
        if error.sqlstate == _DISK_FULL:
            return InsufficientStorage("The database's disk is full. Delete streams that are not needed.")
        return Unavailable("The database refuses writes at present. Retry later.")
    assert error is not None
    return error
