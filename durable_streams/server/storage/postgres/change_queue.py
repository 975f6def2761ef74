"""The queue of changes besides appends: creations and removals in groups, change sets one by one, on one connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import Unavailable
from .change_statement import change_parameters, change_statements, statement_key
from .changesets import ChangeSet, NewStream, counters_of
from .commit_results import CommitConnection
from .commit_schedule import CommitSchedule
from .fork_changes import PlainFork, fork_parameters, fork_statement, unfork_parameters, unfork_statement
from .packing import to_float, to_int, to_ints
from .plain_changes import (
    PlainRemoval,
    create_parameters,
    create_statement,
    remove_parameters,
    remove_statement,
)
from .queries import DISK_FULL, QueryFailed, Statement
from .queued_changes import QueuedChange, Written, gather
from .refusals import refusal_of
from .totals import Totals

#: About how many bytes of memory a queued change takes besides its data.
_OVERHEAD: Final = 1_000

#: The SQLSTATE of a name that another transaction has taken.
_UNIQUE_VIOLATION: Final = "23505"

#: How many columns a result has whose connection was lost.
_LOST_FIELDS: Final = 2

_log = Logger()

T = TypeVar("T")


class ChangeQueue:
    """
    Writes changes, one statement at a time.

    A change that was not written because another transaction was first is answered with None, and the caller decides
    again. What a change adds to the totals is added when it is queued, and what it subtracts when it was written.

    :param connection: is not used for anything else.
    :param schema: the name of the schema, which needs no quotes.
    :param max_bytes: how many bytes of changes may be queued; more are refused.
    :ivar bytes: about how many bytes of memory the queued changes take.
    :ivar misses: how many changes were not written because another transaction was first.
    :ivar measured: is called with the number of changes in a commit, and its duration in seconds.
    :ivar refused: is called with the error of each statement that the database refuses.
    """

    def __init__(
        self, connection: CommitConnection, schema: str, totals: Totals, clock: IReactorTime, max_bytes: int
    ) -> None:
        self._connection = connection
        self._totals = totals
        self._max_bytes = max_bytes
        self._change = change_statements(schema)
        self._creations: deque[QueuedChange[NewStream]] = deque()
        self._removals: deque[QueuedChange[PlainRemoval]] = deque()
        self._forks: deque[QueuedChange[PlainFork]] = deque()
        self._unforks: deque[QueuedChange[PlainRemoval]] = deque()
        self._sets: deque[QueuedChange[ChangeSet]] = deque()
        self._others: deque[QueuedChange[tuple[Statement, Sequence[bytes | None]]]] = deque()
        self._senders = (
            partial(self._send_created, self._creations, create_statement(schema), create_parameters, _name_of),
            partial(self._send_created, self._forks, fork_statement(schema), fork_parameters, _name_of_fork),
            partial(self._send_removed, self._removals, remove_statement(schema), remove_parameters),
            partial(self._send_removed, self._unforks, unfork_statement(schema), unfork_parameters),
            self._send_set,
            self._send_other,
        )
        self._turn = 0
        self._schedule = CommitSchedule(clock, self._begin, "changes")
        self._closing: Deferred[None] | None = None
        self.bytes = 0
        self.misses = 0
        self.measured: Callable[[int, float], None] = lambda _count, _seconds: None
        self.refused: Callable[[QueryFailed], object] = lambda _: None

    # Queueing

    def create(self, new: NewStream) -> Deferred[Written | None]:
        """
        Create a stream that is no fork and has at most one chunk.

        :returns: None if the name is taken.
        :raises Unavailable: the queue is full.
        """
        return self._add(self._creations, QueuedChange(new, new.size, (1, new.size, new.metadata)))

    def fork(self, fork: PlainFork) -> Deferred[Written | None]:
        """
        Create a fork that has at most one chunk.

        :returns: None if the name is taken, or the source was removed or renamed.
        :raises Unavailable: the queue is full.
        """
        new = fork.new
        return self._add(self._forks, QueuedChange(fork, new.size, (1, new.size, new.metadata)))

    def remove(self, removal: PlainRemoval) -> Deferred[Written | None]:
        """
        Remove a stream that has no forks.

        :returns: None if it was changed or locked by others meanwhile, or its source is hidden.
        :raises Unavailable: the queue is full.
        """
        queue = self._removals if removal.head.source_id is None else self._unforks
        return self._add(queue, QueuedChange(removal, 0, (0, 0, 0)))

    def write(self, changes: ChangeSet) -> Deferred[Written | None]:
        """
        Write a change set.

        :returns: None if one of its streams was changed by others meanwhile, or the new name is taken.
        :raises Unavailable: the queue is full.
        """
        return self._add(self._sets, QueuedChange(changes, changes.growth[1], changes.growth))

    async def execute(self, statement: Statement, parameters: Sequence[bytes | None], size: int) -> bool:
        """
        Execute another statement that writes everything or nothing.

        :param parameters: those after the node's.
        :param size: about how many bytes they take.
        :returns: False if another transaction was first.
        :raises Unavailable: the queue is full.
        """
        queued = QueuedChange((statement, parameters), size, (0, 0, 0))
        return await self._add(self._others, queued) is not None

    def _add(self, queue: deque[QueuedChange[T]], queued: QueuedChange[T]) -> Deferred[Written | None]:
        if self._closing is not None:
            raise Unavailable("The storage is being closed.")
        queued.size += _OVERHEAD
        if self.bytes and self.bytes + queued.size > self._max_bytes:
            raise Unavailable("The write queue is full: the database is too slow. Try again in a moment.")
        self.bytes += queued.size
        self._totals.add(*queued.growth)
        queued.queue = queue
        queue.append(queued)
        self._schedule.request()
        return queued.answer

    def close(self) -> Deferred[None]:
        """Accept no further changes, and return when all are answered."""
        if self._closing is None:
            self._closing = Deferred()
            self._schedule.request()
        return self._closing

    # Sending

    def _begin(self) -> None:
        # Each kind in turn, so that none of them waits for long.
        for _ in self._senders:
            self._turn = (self._turn + 1) % len(self._senders)
            if self._senders[self._turn]():
                return
        if self._closing is not None and not self._closing.called:
            self._closing.callback(None)

    def _send_created(
        self,
        queue: deque[QueuedChange[T]],
        statement: Statement,
        parameters: Callable[[Sequence[T]], list[bytes | None]],
        name: Callable[[T], str],
    ) -> bool:
        batch = gather(queue)
        if not batch:
            return False
        # By name, so that two nodes that create the same names do not wait for each other.
        batch.sort(key=lambda queued: name(queued.change))
        self._send(statement, parameters([queued.change for queued in batch]), batch, self._created)
        return True

    def _send_removed(
        self,
        queue: deque[QueuedChange[PlainRemoval]],
        statement: Statement,
        parameters: Callable[[Sequence[PlainRemoval]], list[bytes | None]],
    ) -> bool:
        batch = gather(queue)
        if not batch:
            return False
        by_id = {queued.change.head.facts.id: queued for queued in batch}
        for queued in batch:
            if by_id[queued.change.head.facts.id] is not queued:
                # A second removal of the same stream finds that it is gone.
                self._answer(queued, None)
        ordered = [by_id[key] for key in sorted(by_id)]
        self._send(statement, parameters([queued.change for queued in ordered]), ordered, self._removed)
        return True

    def _send_set(self) -> bool:
        if not self._sets:
            return False
        queued = self._sets.popleft()
        changes = queued.change
        self._send(self._change[statement_key(changes)], change_parameters(changes), [queued], self._changed)
        return True

    def _send_other(self) -> bool:
        if not self._others:
            return False
        queued = self._others.popleft()
        self._send(*queued.change, [queued], self._executed)
        return True

    def _send(
        self,
        statement: Statement,
        parameters: Sequence[bytes | None],
        batch: list[QueuedChange[T]],
        use: Callable[[list[QueuedChange[T]], Any], None],
    ) -> None:
        """Send a statement, and answer its changes when it has ended."""

        def succeeded(result: Any, seconds: float) -> None:
            self.measured(len(batch), seconds)
            use(batch, result)

        def failed(failure: Failure) -> None:
            assert failure.value is not None
            self._failed(batch, failure.value)

        self._schedule.follow(self._connection.commit(statement, parameters), succeeded, failed)

    # Answering

    def _created(self, batch: list[QueuedChange[T]], result: Any) -> None:
        at, places = _outcome(result)
        ids = _ids(result)
        if places is None:
            places = list(range(1, len(batch) + 1))
        found: dict[int, int | None] = dict.fromkeys(places)
        if ids is not None:
            found.update(zip(places, ids, strict=True))
        for place, queued in enumerate(batch, 1):
            if place in found:
                self._totals.written += queued.growth[1]
                self._answer(queued, Written(at, found[place]))
            else:
                self._answer(queued, None)

    def _removed(self, batch: list[QueuedChange[PlainRemoval]], result: Any) -> None:
        at, ids = _outcome(result)
        heads = {queued.change.head.facts.id: queued.change.head for queued in batch}
        removed = heads if ids is None else {stream_id: heads[stream_id] for stream_id in ids}
        self._subtract(counters_of(removed.values()), result)
        for queued in batch:
            self._answer(queued, Written(at) if queued.change.head.facts.id in removed else None)

    def _changed(self, batch: list[QueuedChange[ChangeSet]], result: Any) -> None:
        at, written = _outcome(result)
        (queued,) = batch
        if written is not None:
            self._answer(queued, None)
            return
        changes = queued.change
        self._subtract(changes.freed, result)
        self._totals.written += changes.growth[1]
        stream_id = result.get_value(0, 4) if result.nfields > _LOST_FIELDS else None
        self._answer(queued, Written(at, None if stream_id is None else to_int(stream_id)))

    def _executed(self, batch: list[QueuedChange[tuple[Statement, Sequence[bytes | None]]]], result: Any) -> None:
        at, written = _outcome(result)
        self._answer(batch[0], Written(at) if written is None else None)

    def _subtract(self, freed: tuple[int, int, int], result: Any) -> None:
        """
        Subtract what was removed from the totals.

        :param freed: the streams, bytes and bytes of metadata; the last two as they were when the heads were read.
        """
        streams, size, metadata = freed
        if result.nfields > _LOST_FIELDS:
            size, metadata = to_int(result.get_value(0, 2)), to_int(result.get_value(0, 3))
        self._totals.add(-streams, -size, -metadata)

    def _answer(self, queued: QueuedChange[Any], written: Written | None) -> None:
        self.bytes -= queued.size
        if written is None:
            self.misses += 1
            self._release(queued)
        queued.answer.callback(written)

    def _release(self, queued: QueuedChange[Any]) -> None:
        streams, size, metadata = queued.growth
        self._totals.add(-streams, -size, -metadata)

    def _failed(self, batch: list[QueuedChange[Any]], error: BaseException) -> None:
        """Answer changes whose statement has failed, or send each of them alone, if one of them may be the reason."""
        if isinstance(error, QueryFailed):
            self.refused(error)
        if isinstance(error, QueryFailed) and error.sqlstate != DISK_FULL:
            if error.is_transient or error.sqlstate == _UNIQUE_VIOLATION:
                for queued in batch:
                    self._answer(queued, None)
                return
            _log.error("The database refused {count} changes of streams: {error}.", count=len(batch), error=error)
            if len(batch) > 1:
                for queued in reversed(batch):
                    queued.alone = True
                    assert queued.queue is not None
                    queued.queue.appendleft(queued)
                return
        reason = refusal_of(error)
        for queued in batch:
            self.bytes -= queued.size
            self._release(queued)
            queued.answer.errback(reason)


def _name_of(new: NewStream) -> str:
    return new.name


def _name_of_fork(fork: PlainFork) -> str:
    return fork.new.name


def _outcome(result: Any) -> tuple[float, list[int] | None]:
    """Return the time, and what was written, or None if all was."""
    written = result.get_value(0, 1)
    return to_float(result.get_value(0, 0)), None if written is None else to_ints(written)


def _ids(result: Any) -> list[int] | None:
    """Return the ids of the created streams; None if the answer was lost."""
    if result.nfields <= _LOST_FIELDS:
        return None
    ids = result.get_value(0, 2)
    return [] if ids is None else to_ints(ids)
