"""A stream as an async iterator: what is there, then what comes, until it is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from twisted.internet.defer import Deferred, succeed

from ..errors import InvalidOffset, OffsetGone, StreamNotFound, Unavailable
from ..model import Chunk, Offset, StreamFacts
from ..streams import Streams
from .readings import Reading, read_appends, reading_of


class Tail(AsyncIterator[Reading]):
    """
    What :meth:`.StreamService.tail` gives.

    It is an offset and nothing more: it holds no data between two steps, and nobody knows of it but while a step waits.
    So whoever leaves the loop leaves nothing behind, and whoever is slow costs nothing. A step that was cancelled can
    be taken again.
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
            raise RuntimeError("A tail takes one step at a time: wait for the last one, or make another tail.")
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
        """Read on; wait for something to be there, or for the stream's end."""
        if self._facts is not None:
            # Others get their turn, however much there is to be read.
            await self._streams.turns.turn()
        else:
            await self._wait_until_open()
        alarm = _Alarm()
        self._streams.watch(self._name, alarm.ring)
        try:
            while True:
                if self._streams.draining:
                    raise Unavailable("The service stops. Read on from the last next_offset when it runs again.")
                chunk = await self._read()
                if chunk.data or chunk.closed:
                    return chunk
                await alarm.rung()
        finally:
            self._streams.unwatch(self._name, alarm.ring)

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
            # Another stream has the name by now.
            raise StreamNotFound(self._name)
        self._place = Offset(chunk.facts.incarnation, chunk.start + len(chunk.data))
        return chunk


class _Alarm:
    """Something that rings, maybe before anybody listens, and is heard once."""

    def __init__(self) -> None:
        self._rung = False
        self._listening: Deferred[None] | None = None

    def ring(self) -> None:
        listening, self._listening = self._listening, None
        if listening is None:
            self._rung = True
        else:
            listening.callback(None)

    def rung(self) -> Deferred[None]:
        """Wait until it has rung since this was asked last."""
        if self._rung:
            self._rung = False
            return succeed(None)
        self._listening = Deferred()
        return self._listening
