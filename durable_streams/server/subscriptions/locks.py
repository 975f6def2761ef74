"""Locks by key, and coroutines that their callers cannot cancel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

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
