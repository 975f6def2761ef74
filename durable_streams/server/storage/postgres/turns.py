"""Turns of operations that change the same streams: within a node, they are decided one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from ...errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class Turns:
    """
    Locks by stream.

    Without them, a thousand forks of one stream that come together would miss each other's version again and again.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Deferred[None]]] = {}

    async def acquire(self, keys: Iterable[int]) -> bool:
        """
        Acquire locks, in the order of their keys.

        :returns: whether any of them was taken before.
        """
        waited = False
        for key in sorted(keys):
            queue = self._waiting.get(key)
            if queue is None:
                self._waiting[key] = deque()
                continue
            turn: Deferred[None] = Deferred()
            queue.append(turn)
            await turn
            waited = True
        return waited

    def release(self, keys: Iterable[int]) -> None:
        """Release locks."""
        for key in keys:
            queue = self._waiting[key]
            if queue:
                queue.popleft().callback(None)
            else:
                del self._waiting[key]


class Turn:
    """The locks that one operation holds. An asynchronous context manager, which releases them."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held: frozenset[int] = frozenset()

    async def extend(self, keys: Iterable[int]) -> bool:
        """
        Hold locks, besides those that are held.

        :returns: whether others may have changed the streams meanwhile, so that they have to be looked up again.
        """
        wanted = self._held | frozenset(keys)
        if wanted == self._held:
            return False
        # All are acquired in order, or two operations could wait for each other.
        had, self._held = self._held, frozenset()
        self._turns.release(had)
        waited = await self._turns.acquire(wanted)
        self._held = wanted
        return waited or bool(had)

    async def __aenter__(self) -> Turn:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._turns.release(self._held)


class Operations:
    """The operations that are in progress."""

    def __init__(self) -> None:
        self._count = 0
        self._closing: Deferred[None] | None = None

    def begin(
        self, operation: Callable[P, Coroutine[Deferred[Any], Any, T]], *args: P.args, **options: P.kwargs
    ) -> Deferred[T]:
        """
        Begin an operation.

        :returns: its result. Cancelling the Deferred discards the result, not the operation.
        :raises Unavailable: the storage is being closed.
        """
        if self._closing is not None:
            raise Unavailable("The storage is being closed.")
        self._count += 1
        outcome: Deferred[T] = Deferred()
        running = Deferred.fromCoroutine(operation(*args, **options)).addBoth(self._ended)
        running.addCallbacks(outcome.callback, outcome.errback)
        return outcome

    def _ended(self, result: Any) -> Any:
        self._count -= 1
        if self._closing is not None and not self._count:
            self._closing.callback(None)
        return result

    def close(self) -> Deferred[None]:
        """Accept no further operations, and return when all have ended. May be repeated."""
        if self._closing is None:
            self._closing = Deferred()
            if not self._count:
                self._closing.callback(None)
        return self._closing
