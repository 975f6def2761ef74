"""A stream as an async iterator: stored data, then new data, until the stream is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from twisted.internet.defer import Deferred, succeed

from ..errors import InvalidOffset, OffsetGone, StreamNotFound, Unavailable
from ..model import Chunk, Offset, StreamFacts
from ..streams import Streams
from .readings import Reading, read_appends, reading_of


class Tail(AsyncIterator[Reading]):
    """
    The iterator that :meth:`.StreamService.tail` returns.

    It holds an offset and no data, and is registered with the service only while a step waits. So leaving the loop
    needs no clean-up, and a slow loop costs no memory. A cancelled step can be repeated.
    """

    def __init__(
        self, streams: Streams, name: str, place: Offset, limit: int, wait_until_open: Callable[[], Awaitable[None]]
    ) -> None:
        self._streams = streams
        self._name = name
        self._place = place
        self._limit = limit
        self._wait_until_open = wait_until_open
        self._facts: StreamFacts | None = None
        self._stepping = False
        self._over = False

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> Reading:
        if self._stepping:
            raise RuntimeError("The tail is already waiting for a step. Await that one first, or create another tail.")
        if self._over:
            raise StopAsyncIteration
        self._stepping = True
        try:
            chunk = await self._step()
        finally:
            self._stepping = False
        self._over = chunk.closed and self._place.position == chunk.tail
        if not chunk.data:
            raise StopAsyncIteration
        return reading_of(chunk)

    async def _step(self) -> Chunk:
        """Read from the current offset; if there is no data, wait until there is, or until the stream is closed."""
        if self._facts is not None:
            # Take turns with others, however much data is left.
            await self._streams.turns.turn()
        else:
            await self._wait_until_open()
        wake = _Wake()
        self._streams.watch(self._name, wake.fire)
        try:
            while True:
                if self._streams.draining:
                    raise Unavailable("The service stops. Read on from the last next_offset when it runs again.")
                chunk = await self._read()
                if chunk.data or chunk.closed:
                    return chunk
                await wake.fired()
        finally:
            self._streams.unwatch(self._name, wake.fire)

    async def _read(self) -> Chunk:
        try:
            chunk = await read_appends(self._streams, self._name, self._place, self._limit)
        except (OffsetGone, InvalidOffset):
            if self._facts is None:
                raise
            raise StreamNotFound(self._name) from None
        if self._facts is None:
            self._facts = chunk.facts
        elif chunk.facts.id != self._facts.id:
            # The stream was deleted, and its name was used again.
            raise StreamNotFound(self._name)
        self._place = Offset(chunk.facts.incarnation, chunk.start + len(chunk.data))
        return chunk


class _Wake:
    """A one-shot event that may fire before it is awaited; awaiting it resets it."""

    def __init__(self) -> None:
        self._has_fired = False
        self._waiting: Deferred[None] | None = None

    def fire(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self._has_fired = True
        else:
            waiting.callback(None)

    def fired(self) -> Deferred[None]:
        """Wait until it has fired since the last wait."""
        if self._has_fired:
            self._has_fired = False
            return succeed(None)
        self._waiting = Deferred()
        return self._waiting
