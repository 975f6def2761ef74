"""The lane for streams that other nodes write at the same time: their rows are locked before appends are decided.

Without this lane, one of two nodes that wrote the same streams wrote 98.8 % of the rows: the appends of the other one
missed again and again. All rows of a transaction are locked first, in the order of their ids: to lock only some
of them leads to deadlocks.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

from psycopg.pq.abc import PGresult
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import Unavailable
from ..repeated_logs import RepeatedLogs
from .append_queue import AppendQueues, Decision, StreamQueue
from .commit_results import CommitResult
from .commit_schedule import CommitSchedule
from .commit_statement import CommitStatements, written_by
from .fence import WriterConnection
from .folding import Fold
from .heads import Head, decode_head
from .known import KnownStream
from .lanes import MAX_APPENDS, MAX_BYTES, CommitFigures
from .lookups import LookUps
from .packing import int8s
from .queries import LOCK_TIMEOUT, Query, QueryFailed

#: The maximum number of streams that one transaction locks.
_MAX_STREAMS: Final = 64

#: How long a stream stays in this lane after another node has written it, in seconds; and how many are remembered.
_CONTENDED_FOR: Final = 1.0
_MAX_CONTENDED: Final = 10_000

#: The pause before a stream is tried again that another transaction holds, in seconds.
_HELD_PAUSE: Final = 0.1

#: How often states of writers are read for one decision.
_MAX_READS: Final = 3

_log = Logger()


class Contention:
    """Streams that another node has written lately."""

    def __init__(self, clock: IReactorTime) -> None:
        self._seconds = clock_of(clock).seconds
        self._until: OrderedDict[str, float] = OrderedDict()

    def note(self, name: str) -> None:
        """Note that another node has written a stream."""
        self._until[name] = self._seconds() + _CONTENDED_FOR
        self._until.move_to_end(name)
        if len(self._until) > _MAX_CONTENDED:
            self._until.popitem(last=False)

    def __contains__(self, name: str) -> bool:
        until = self._until.get(name)
        if until is None:
            return False
        if until > self._seconds():
            return True
        del self._until[name]
        return False


class _Attempt:
    """What one transaction has decided."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.settled: list[tuple[StreamQueue, KnownStream, Fold]] = []
        self.left: list[StreamQueue] = []


class LockingLane:
    """
    One connection that writes, and the queues whose streams it locks.

    :param connection: is used for nothing else.
    :param patience: how long appends wait for a stream that another transaction holds, in seconds.
    """

    def __init__(
        self,
        connection: WriterConnection,
        queues: AppendQueues,
        statements: CommitStatements,
        lookups: LookUps,
        clock: IReactorTime,
        figures: CommitFigures,
        contention: Contention,
        patience: float,
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._statements = statements
        self._lookups = lookups
        self._clock = clock_of(clock)
        self._figures = figures
        self._contention = contention
        self._patience = patience
        self._logs = RepeatedLogs(clock)
        self._ready: deque[StreamQueue] = deque()
        self._schedule = CommitSchedule(clock, self._begin, "appends")

    def add(self, queue: StreamQueue) -> None:
        """Decide and write the appends of a queue as soon as no transaction runs."""
        self._ready.append(queue)
        self._schedule.request()

    def _begin(self) -> None:
        batch: dict[int, tuple[StreamQueue, KnownStream]] = {}
        while self._ready and len(batch) < _MAX_STREAMS:
            if self._ready[0].alone and batch:
                break
            queue = self._ready.popleft()
            known = queue.known or self._lookups.known(queue.name)
            queue.known = None
            if known is None or known.head.facts.id in batch:
                # In the second case, the stream has been renamed, and one of the two names is the old one.
                self._lookups.forget(queue.name)
                self._queues.look_up(queue)
                continue
            batch[known.head.facts.id] = (queue, known)
            if queue.alone:
                break
        if batch:
            self._transact(batch)

    def _transact(self, batch: dict[int, tuple[StreamQueue, KnownStream]]) -> None:
        attempt = _Attempt()
        moment = 0

        async def work(execute: Query, node: Sequence[bytes]) -> PGresult | None:
            nonlocal attempt, moment
            # Nothing was written by an earlier attempt.
            for decision in attempt.decisions:
                self._queues.undo(decision)
            attempt = _Attempt()
            moment = self._lookups.tick()
            return await self._work(batch, attempt, execute, node)

        def succeeded(result: CommitResult | None, seconds: float) -> None:
            count = sum(len(each.fold.outcomes) for each in attempt.decisions)
            if count:
                self._figures.add(count, seconds)
            self._done(result, attempt, moment)

        def failed(failure: Failure) -> None:
            for decision in attempt.decisions:
                self._queues.undo(decision)
            self._failed(failure, [queue for queue, _ in batch.values()])

        self._schedule.follow(self._connection.transact(work), succeeded, failed)

    async def _work(
        self,
        batch: dict[int, tuple[StreamQueue, KnownStream]],
        attempt: _Attempt,
        execute: Query,
        node: Sequence[bytes],
    ) -> PGresult | None:
        """Lock the streams, decide their appends, and write them."""
        is_held = any(queue.held_since is not None for queue, _ in batch.values())
        lock = self._statements.try_lock if is_held else self._statements.lock
        locked = await execute(lock, [*node, int8s(sorted(batch))])
        if not locked.ntuples:
            return locked
        heads: dict[int, Head] = {}
        for number in range(locked.ntuples):
            if locked.get_value(number, 0) is not None:
                head = decode_head(locked, number)
                heads[head.facts.id] = head
        room, appends = MAX_BYTES, 0
        for stream_id, (queue, known) in batch.items():
            found = heads.get(stream_id)
            if found is None or found.facts.name != queue.name or room <= 0 or appends >= MAX_APPENDS:
                attempt.left.append(queue)
                continue
            if found.version != known.head.version:
                self._contention.note(queue.name)
            decision = await self._decide(attempt, execute, queue, _at(known, found), room)
            if decision is not None:
                room -= decision.fold.size
                appends += len(decision.fold.outcomes)
        if not attempt.decisions:
            return None
        folds = [each.fold for each in attempt.decisions]
        statement, parameters = self._statements.build(folds, self._queues.last_uses(attempt.decisions))
        return await execute(statement, [*node, *parameters])

    async def _decide(
        self, attempt: _Attempt, execute: Query, queue: StreamQueue, known: KnownStream, room: int
    ) -> Decision | None:
        """
        Decide the appends of a stream that is locked, and read the states of writers that this needs.

        :returns: None if nothing is to be written.
        """
        for _ in range(_MAX_READS):
            folded = self._queues.fold(queue, known, room)
            if folded.writes:
                decision = self._queues.decision(queue, known, folded)
                attempt.decisions.append(decision)
                return decision
            if folded.outcomes:
                attempt.settled.append((queue, known, folded))
                return None
            assert folded.wanted is not None
            read = await self._lookups.read(execute, queue.name, folded.wanted)
            assert read is not None
            known.add(read)
        raise AssertionError("the states of writers that were read are not enough to decide an append")

    def _done(self, result: CommitResult | None, attempt: _Attempt, moment: int) -> None:
        self._figures.locked += len(attempt.decisions) + len(attempt.settled)
        if result is not None:
            now, ids = written_by(result)
            for decision in attempt.decisions:
                if ids is None or decision.fold.head.facts.id in ids:
                    self._queues.written(decision, moment, now)
                else:
                    # It has expired since it was locked.
                    self._queues.missed(decision)
        for queue, known, folded in attempt.settled:
            self._queues.settled(queue, known, folded)
        for queue in attempt.left:
            self._leave(queue)

    def _leave(self, queue: StreamQueue) -> None:
        """Try again, with a stream that is gone, or that another transaction holds."""
        if queue.held_since is None:
            self._lookups.forget(queue.name)
            self._queues.look_up(queue)
        elif self._clock.seconds() - queue.held_since > self._patience:
            if self._logs.is_due("held"):
                _log.warn(
                    "Appends to {name} are refused: another transaction of the database has held its row for "
                    "{seconds:.0f} s. See pg_stat_activity, and end it.",
                    name=queue.name,
                    seconds=self._clock.seconds() - queue.held_since,
                )
            self._queues.refuse(
                queue,
                len(queue.appends),
                lambda: Unavailable("Another transaction of the database holds the stream. Retry later."),
            )
        else:
            self._lookups.forget(queue.name)
            self._clock.callLater(_HELD_PAUSE, self._queues.look_up, queue)

    def _failed(self, failure: Failure, queues: list[StreamQueue]) -> None:
        error = failure.value
        is_held = isinstance(error, QueryFailed) and error.sqlstate == LOCK_TIMEOUT
        now = self._clock.seconds()
        for queue in queues:
            if is_held:
                # From now on those that can be locked go on without the others.
                queue.held_since = now if queue.held_since is None else queue.held_since
                self._queues.again(queue)
            else:
                self._queues.failed(queue, len(queue.appends), error)


def _at(known: KnownStream, head: Head) -> KnownStream:
    """Return what is known of a stream at the version that it has, with the writers if they were read at this one."""
    if known.head.version == head.version:
        return KnownStream(head, known.writers, known.oldest, known.complete)
    return KnownStream(head)
