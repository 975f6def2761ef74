"""Changes that wait in a queue, and the groups of them that one statement writes."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from msgspec import Struct
from twisted.internet.defer import Deferred

#: The maximum number of streams in a statement, and of bytes, about.
MAX_STREAMS: Final = 256
MAX_BYTES: Final = 8 << 20

T = TypeVar("T")


class Written(Struct, frozen=True, gc=False):
    """
    A change that was written.

    :ivar at: the database's time.
    :ivar id: the stream that was created or installed; None if there is none, or if the database's answer was lost.
    """

    at: float
    id: int | None = None


class QueuedChange(Generic[T]):
    """
    A change that waits, and its answer.

    :ivar growth: what was added to the totals.
    :ivar queue: where it waits.
    :ivar alone: whether it is written by a statement of its own, since one with others has failed.
    """

    __slots__ = ("alone", "answer", "change", "growth", "queue", "size")

    def __init__(self, change: T, size: int, growth: tuple[int, int, int]) -> None:
        self.change = change
        self.size = size
        self.growth = growth
        self.alone = False
        self.queue: deque[QueuedChange[T]] | None = None
        self.answer: Deferred[Written | None] = Deferred()


def gather(queue: deque[QueuedChange[T]]) -> list[QueuedChange[T]]:
    """Take the next changes from a queue, as many as one statement may have."""
    batch: list[QueuedChange[T]] = []
    room = MAX_BYTES
    while queue and len(batch) < MAX_STREAMS and room > 0:
        if queue[0].alone and batch:
            break
        queued = queue.popleft()
        room -= queued.size
        batch.append(queued)
        if queued.alone:
            break
    return batch
