"""The writer of appends: one lane for streams that no other node writes, and one that locks streams first."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ...errors import Unavailable
from ...model import Append, Appended
from .append_queue import AppendQueues, StreamQueue
from .commit_statement import CommitStatements
from .fence import WriterConnection
from .lanes import CommitFigures, CommitLane
from .locking_lane import Contention, LockingLane
from .lookups import LookUps

#: A stream that missed so often in a row is locked before its appends are decided.
_MAX_MISSES = 2


class AppendWriter:
    """
    Accepts appends, and commits them in groups.

    :param connections: for the lane that does not wait for locks, and for the one that does; not used otherwise.
    :param patience: how long appends wait for a stream that another transaction holds, in seconds.
    :ivar figures: the figures of all commits.
    """

    def __init__(
        self,
        connections: tuple[WriterConnection, WriterConnection],
        schema: str,
        queues: AppendQueues,
        lookups: LookUps,
        clock: IReactorTime,
        patience: float,
    ) -> None:
        self.figures = CommitFigures()
        self._queues = queues
        queues.ready = self._ready
        statements = CommitStatements(schema)
        contention = self._contention = Contention(clock)
        self._lane = CommitLane(connections[0], queues, statements, lookups, clock, self.figures)
        self._locking_lane = LockingLane(
            connections[1], queues, statements, lookups, clock, self.figures, contention, patience
        )
        self._closing: Deferred[None] | None = None

    def append(self, name: str, append: Append) -> Deferred[Appended]:
        """
        Append to a stream. See :meth:`.IStorage.append`.

        :raises Unavailable: the queue is full, or the storage is being closed.
        """
        if self._closing is not None:
            raise Unavailable("The storage is being closed.")
        return self._queues.add(name, append)

    def close(self) -> Deferred[None]:
        """Accept no further appends, and return when all are answered. May be repeated."""
        if self._closing is None:
            closing = self._closing = Deferred()
            self._queues.drained = lambda: closing.callback(None)
            if not len(self._queues):
                closing.callback(None)
        return self._closing

    def _ready(self, queue: StreamQueue) -> None:
        if queue.misses >= _MAX_MISSES:
            self._contention.note(queue.name)
        if queue.misses >= _MAX_MISSES or queue.name in self._contention:
            self._locking_lane.add(queue)
        else:
            self._lane.add(queue)
