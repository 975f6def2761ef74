"""Group commit: the decided appends of many streams are written by one statement, one at a time on a connection."""

from __future__ import annotations

from collections import deque
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..measuring import Measure
from .append_queue import AppendQueues, Decision, StreamQueue
from .commit_results import CommitResult
from .commit_schedule import CommitSchedule
from .commit_statement import CommitStatements, written_by
from .fence import WriterConnection
from .lookups import LookUps

#: The maximum number of streams in a commit, and of bytes, about. Larger commits make no more rows a second, but take
#: longer: 1,024 streams 20 ms, 64 streams 1.5 ms.
MAX_STREAMS: Final = 256
MAX_BYTES: Final = 8 << 20

#: The number of appends after which a commit takes no further stream. To decide and answer one takes about 10 us.
MAX_APPENDS: Final = 2_000

#: Buckets of the histograms: appends in a commit, and seconds of a commit.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class CommitFigures:
    """
    Figures of all commits of a node.

    :ivar sizes: appends in a commit.
    :ivar seconds: durations of commits.
    :ivar misses: how many streams were not written because another node had changed or locked them.
    :ivar locked: how many streams were locked before their appends were decided.
    """

    def __init__(self) -> None:
        self.sizes = Measure(_SIZES)
        self.seconds = Measure(_SECONDS)
        self.misses = 0
        self.locked = 0

    def add(self, count: int, seconds: float) -> None:
        """Count a commit of a number of changes."""
        self.sizes.add(count)
        self.seconds.add(seconds)


class CommitLane:
    """
    One connection that writes, and the queues whose appends it writes.

    It does not wait for a stream that another node has locked: that stream counts as missed.

    :param connection: is used for nothing else.
    """

    def __init__(
        self,
        connection: WriterConnection,
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
        self._figures = figures
        self._ready: deque[StreamQueue] = deque()
        self._schedule = CommitSchedule(clock, self._begin, "appends")

    def add(self, queue: StreamQueue) -> None:
        """Decide and write the appends of a queue as soon as no statement runs."""
        self._ready.append(queue)
        self._schedule.request()

    def _begin(self) -> None:
        decisions: list[Decision] = []
        ids: set[int] = set()
        room, appends = MAX_BYTES, 0
        while self._ready and len(decisions) < MAX_STREAMS and room > 0 and appends < MAX_APPENDS:
            if self._ready[0].alone and decisions:
                break
            queue = self._ready.popleft()
            decision = self._queues.decide(queue, room)
            if decision is not None and decision.fold.head.facts.id in ids:
                # The stream has been renamed, and one of the two names is the old one.
                self._queues.missed(decision)
            elif decision is not None:
                ids.add(decision.fold.head.facts.id)
                decisions.append(decision)
                room -= decision.fold.size
                appends += len(decision.fold.outcomes)
                if queue.alone:
                    break
        if decisions:
            self._commit(decisions)

    def _commit(self, decisions: list[Decision]) -> None:
        uses = self._queues.last_uses(decisions)
        statement, parameters = self._statements.build([each.fold for each in decisions], uses)
        moment = self._lookups.tick()
        self._schedule.follow(
            self._connection.commit(statement, parameters),
            lambda result, seconds: self._committed(result, decisions, moment, seconds),
            lambda failure: self._failed(failure, decisions),
        )

    def _committed(self, result: CommitResult, decisions: list[Decision], moment: int, seconds: float) -> None:
        now, ids = written_by(result)
        figures = self._figures
        figures.add(sum(len(each.fold.outcomes) for each in decisions), seconds)
        queues = self._queues
        for decision in decisions:
            if ids is None or decision.fold.head.facts.id in ids:
                queues.written(decision, moment, now)
            else:
                figures.misses += 1
                queues.missed(decision)

    def _failed(self, failure: Failure, decisions: list[Decision]) -> None:
        for decision in decisions:
            self._queues.undo(decision)
            self._queues.failed(decision.queue, len(decision.fold.outcomes), failure.value)
