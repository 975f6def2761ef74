"""The writer of appends: one lane for those that meet no other node, and one that locks streams first."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from ...errors import Unavailable
from ...model import Append, Appended, StorageLimits
from .append_queue import AppendQueues, StreamQueue, Uses
from .commit_statement import CommitStatements
from .folding import Totals
from .lanes import CommitConnection, CommitFigures, CommitLane
from .lookups import LookUps


class AppendWriter:
    """
    Accepts appends, and commits them in groups.

    :param connection: for the lane that does not wait for locks.
    :ivar queues: the appends that are not answered yet.
    :ivar figures: the figures of all commits.
    """

    def __init__(
        self,
        connection: CommitConnection,
        schema: str,
        lookups: LookUps,
        limits: StorageLimits,
        totals: Totals,
        uses: Uses,
        clock: IReactorTime,
        max_bytes: int,
    ) -> None:
        self.figures = CommitFigures()
        self.queues = AppendQueues(lookups, limits, totals, uses, max_bytes, self._ready)
        self._lane = CommitLane(connection, self.queues, CommitStatements(schema), lookups, clock, self.figures)
        self._closing: Deferred[None] | None = None

    def append(self, name: str, append: Append) -> Deferred[Appended]:
        """
        Append to a stream. See :meth:`.IStorage.append`.

        :raises Unavailable: the queue is full, or the storage is being closed.
        """
        if self._closing is not None:
            raise Unavailable("The storage is being closed.")
        return self.queues.add(name, append)

    def close(self) -> Deferred[None]:
        """Accept no further appends, and return when all are answered."""
        if self._closing is None:
            closing = self._closing = Deferred()
            self.queues.drained = lambda: closing.callback(None)
            if not len(self.queues):
                return succeed(None)
        return self._closing

    def _ready(self, queue: StreamQueue) -> None:
        self._lane.add(queue)
