"""The deadlines of all subscriptions: one heap, and one delayed call for the earliest."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Outdated deadlines are removed from the heap if there are more than this and they are more than half of it.
_MAX_OUTDATED: Final = 64

_T = TypeVar("_T")


class Timers(Generic[_T]):
    """
    One deadline for each subscription.

    :param due: is called with a subscription at its deadline, which is removed before.
    """

    def __init__(self, clock: IReactorTime, due: Callable[[_T], None]) -> None:
        self._clock = clock
        self._due = due
        self._deadlines: dict[_T, float] = {}
        self._heap: list[tuple[float, int, _T]] = []
        self._number = count()
        self._call: IDelayedCall | None = None
        self._call_at = 0.0

    def __len__(self) -> int:
        return len(self._deadlines)

    def deadline(self, subscription: _T) -> float | None:
        """Return the deadline of a subscription, or None."""
        return self._deadlines.get(subscription)

    def set(self, subscription: _T, deadline: float | None) -> None:
        """
        Set the deadline of a subscription, which replaces the one before.

        :param deadline: in seconds of the clock; None for none.
        """
        if deadline is None:
            self._deadlines.pop(subscription, None)
            return
        if self._deadlines.get(subscription) == deadline:
            return
        self._deadlines[subscription] = deadline
        if len(self._heap) > 2 * len(self._deadlines) + _MAX_OUTDATED:
            self._heap = [item for item in self._heap if self._deadlines.get(item[2]) == item[0]]
            heapify(self._heap)
        heappush(self._heap, (deadline, next(self._number), subscription))
        self._schedule()

    def stop(self) -> None:
        """Remove all deadlines."""
        self._deadlines.clear()
        self._heap.clear()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _schedule(self) -> None:
        if not self._heap:
            return
        at = self._heap[0][0]
        if self._call is not None and self._call.active():
            if self._call_at <= at:
                return
            self._call.cancel()
        self._call_at = at
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._run)

    def _run(self) -> None:
        self._call = None
        now = self._clock.seconds()
        while self._heap and self._heap[0][0] <= now:
            deadline, _, subscription = heappop(self._heap)
            if self._deadlines.get(subscription) == deadline:
                del self._deadlines[subscription]
                self._due(subscription)
        self._schedule()
