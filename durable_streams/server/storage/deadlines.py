"""When streams expire: two heaps, one by the steady clock (Stream-TTL), one by the wall clock (Stream-Expires-At)."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Generic, TypeAlias, TypeVar

from .entry import Entry

S = TypeVar("S", bound=Entry)

#: How many deadlines that have moved are handled at once; they take some milliseconds.
MAX_STALE: Final = 5_000

#: A heap of deadlines, each with a key that makes the entry unique, and the stream.
Heap: TypeAlias = "list[tuple[float, int, S]]"


class Deadlines(Generic[S]):
    """
    The deadlines of all streams that expire. A stream may be renewed, removed or installed by then.

    :ivar steady: those by the steady clock.
    :ivar wall: those by the wall clock.
    """

    __slots__ = ("steady", "wall")

    def __init__(self) -> None:
        self.steady: Heap[S] = []
        self.wall: Heap[S] = []

    def clear(self) -> None:
        """Remove all deadlines."""
        self.steady.clear()
        self.wall.clear()

    def heap_of(self, stream: S) -> Heap[S] | None:
        """Return the heap for a stream; None if it does not expire."""
        if stream.deadline == inf:
            return None
        return self.steady if stream.lifetime.expires_at is None else self.wall

    def add(self, stream: S) -> None:
        """Add the deadline of a new stream, if it has one."""
        heap = self.heap_of(stream)
        if heap is not None:
            heappush(heap, (stream.deadline, stream.facts.id, stream))

    def change(self, stream: S, heap: Heap[S] | None, deadline: float) -> None:
        """
        Add the deadline of a stream whose lifetime has changed.

        :param heap: where the stream was before.
        :param deadline: its deadline before.
        """
        other = self.heap_of(stream)
        # An entry with an earlier deadline is put back with the present one.
        if other is not None and (other is not heap or stream.deadline < deadline):
            # The negative id keeps it apart from the entry from before, should both have one deadline.
            heappush(other, (stream.deadline, -stream.facts.id, stream))

    def release(self, count: int) -> None:
        """Forget removed streams, if there are many more deadlines than this number of streams."""
        for heap in (self.steady, self.wall):
            if len(heap) > 2 * count + 1000:
                heap[:] = [entry for entry in heap if not entry[2].deleted]
                heapify(heap)

    def is_due(self, now: float, wall: float) -> bool:
        """Return whether any stream may have expired, at these times of the two clocks."""
        return bool((self.steady and self.steady[0][0] <= now) or (self.wall and self.wall[0][0] <= wall))

    def pop_expired(self, heap: Heap[S], now: float) -> S | None:
        """
        Remove the first entry of a heap whose stream has expired, and return the stream; None if there is none.

        Of the other entries that are due, such as those of an import an hour ago, only some thousands are handled.
        """
        for _ in range(MAX_STALE):
            if not heap or heap[0][0] > now:
                break
            _, key, stream = heappop(heap)
            if self.heap_of(stream) is not heap:
                # It was removed or hidden, or installed with another lifetime.
                continue
            if now >= stream.deadline:
                return stream
            heappush(heap, (stream.deadline, key, stream))
        return None
