"""Operations that are decided against heads, written, and decided again if others were first."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ...clocks import clock_of
from ...errors import Unavailable
from .change_queue import ChangeQueue
from .changesets import ChangeSet
from .changing import HeadOutdated
from .heads import Head
from .queued_changes import Written
from .turns import Turn, Turns

#: How often an operation is decided, and how long, in seconds: another node may hold a lock and be silent. Only other
#: operations of this kind can be first, and one of them always succeeds.
_MAX_MISSES: Final = 30
_MAX_SECONDS: Final = 5.0

#: The longest first pause before an operation is decided again, in seconds. Each may be twice the one before.
_PAUSE: Final = 0.002

T = TypeVar("T")


class Finder(Protocol):
    """Reads heads as they are committed now; expired and deleted ones, too."""

    def fresh(self, name: str) -> Awaitable[Head | None]:
        """Return the head of the stream of a name, or None."""

    def fresh_id(self, stream_id: int) -> Awaitable[Head | None]:
        """Return the head of a stream by its id, or None."""


class HeadCache(Finder, Protocol):
    """Reads heads, and caches them for appends."""

    def cached(self, name: str) -> Head | None:
        """Return the head that was read or written last, or None."""

    def store(self, head: Head) -> None:
        """Cache a head that was written."""

    def forget(self, name: str) -> None:
        """Remove a head from the cache."""


class Decision(Struct, Generic[T], frozen=True):
    """
    What an operation wants to write, and its result.

    :ivar changes: at least one change.
    :ivar finish: returns the result after the write.
    """

    changes: ChangeSet
    finish: Callable[[Written], Awaitable[T]]


class Settled(Struct, Generic[T], frozen=True):
    """The result of an operation that writes nothing."""

    result: T


#: Looks up what an operation depends on, and decides it.
Decide = Callable[[Finder], Awaitable["Decision[T] | Settled[T]"]]


class Performer:
    """
    Performs operations on several streams.

    :param queue: writes their changes.
    :param lookups: reads heads.
    """

    def __init__(self, queue: ChangeQueue, lookups: Finder, clock: IReactorTime) -> None:
        self._queue = queue
        self._lookups = lookups
        self._clock = clock_of(clock)
        self._call_later = clock.callLater
        self._turns = Turns()

    async def perform(self, decide: Decide[T]) -> T:
        """
        Decide an operation, write its changes, and do so again if others were first.

        :raises Unavailable: others were first too often.
        """
        async with Turn(self._turns) as turn:
            until = self._clock.seconds() + _MAX_SECONDS
            for misses in range(_MAX_MISSES):
                try:
                    decision = await self._decide(decide, turn)
                    if isinstance(decision, Settled):
                        return decision.result
                    written = await self._queue.write(decision.changes)
                    if written is not None:
                        return await decision.finish(written)
                except HeadOutdated:
                    pass
                if self._clock.seconds() > until:
                    break
                await self._pause(misses)
        raise Unavailable("The stream is changed by too many others at present. Retry later.")

    async def _decide(self, decide: Decide[T], turn: Turn) -> Decision[T] | Settled[T]:
        """Decide an operation when no other operation of this node changes the same streams."""
        while True:
            decision = await decide(self._lookups)
            if isinstance(decision, Settled):
                return decision
            if not await turn.extend([head.facts.id for head, _ in decision.changes.compared]):
                return decision

    async def _pause(self, misses: int) -> None:
        """Wait, so that nodes that miss each other do not do so again and again."""
        if misses:
            pause: Deferred[None] = Deferred()
            self._call_later(random.uniform(0, _PAUSE * 2 ** min(misses, 5)), pause.callback, None)
            await pause
