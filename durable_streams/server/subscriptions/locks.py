"""Locks by key, coroutines that their callers cannot cancel, and coroutines that run at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

_T = TypeVar("_T")


class KeyedLocks:
    """One lock for each key that is in use."""

    def __init__(self) -> None:
        self._locks: dict[str, list[Deferred[None]]] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncGenerator[None, None]:
        """Hold the lock of a key."""
        waiting = self._locks.get(key)
        if waiting is None:
            waiting = self._locks[key] = []
        else:
            turn: Deferred[None] = Deferred()
            waiting.append(turn)
            await turn
        try:
            yield
        finally:
            if waiting:
                waiting.pop(0).callback(None)
            else:
                del self._locks[key]


def shielded(work: Coroutine[Any, Any, _T]) -> Deferred[_T]:
    """Run a coroutine that goes on when its caller has cancelled the result."""
    result: Deferred[_T] = Deferred()
    Deferred.fromCoroutine(work).chainDeferred(result)
    return result


async def together(works: Iterable[Coroutine[Deferred[Any], Any, _T]]) -> list[_T]:
    """
    Run coroutines at the same time.

    :returns: their results, when all have one; the first error is raised at once.
    """
    try:
        return await gatherResults([Deferred.fromCoroutine(work) for work in works], consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
        raise
