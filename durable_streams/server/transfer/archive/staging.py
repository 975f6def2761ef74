"""Staged streams: a stream is made under a reserved name, which no client can reach, and installed as a whole."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.python.failure import Failure

from ...errors import PathBlocked, StreamError, StreamExists, StreamGone, StreamNotFound, StreamsError
from ...interfaces import settle
from ...model import Append, Fork, Lifetime, Offset, StreamConfig
from ...protocol.content import media_type
from ...streams import Streams
from ..context import Context
from ..staging import STAGING_TTL, remove_staged, shielded
from .entries import StreamEntry
from .layout import STAGING_PREFIX, bare_name
from .reader import AppendSlice

#: How many appends are made between two looks at the clock.
_APPENDS: Final = 16

#: The maximum number of appends in a group. They are acknowledged in about 2 ms.
_GROUP: Final = 1024


def staged_name(name: str, attempt: int = 0) -> str:
    """Return the reserved name under which a stream is staged."""
    return f"{STAGING_PREFIX}{attempt}/{bare_name(name)}"


async def remove_leftover(streams: Streams, name: str) -> None:
    """Delete what an earlier, interrupted restore has staged for a stream."""
    attempt = 0
    while True:
        try:
            await settle(streams.delete(staged_name(name, attempt)))
        except StreamNotFound:
            return
        except StreamGone:
            pass
        attempt += 1


class StagedStream:
    """
    A stream that is being staged. Each append renews its TTL; after :meth:`hold` the service does.

    :ivar name: the reserved name.
    """

    def __init__(self, context: Context, entry: StreamEntry) -> None:
        self._context = context
        self._streams = context.streams
        self._entry = entry
        self._media = media_type(entry.content_type)
        self._groups: list[Deferred[Any]] = []
        self._failure: Failure | None = None
        self.name = ""

    async def create(self, source: str | None, data: bytes = b"") -> None:
        """
        Create the stream.

        :param source: the present name of its source, if it is a fork.
        :param data: its first append, or nothing; not for a fork.
        :raises StreamsError: it cannot be created.
        """
        entry = self._entry
        fork = None
        if source is not None:
            incarnation = (await settle(self._streams.status(source))).facts.incarnation
            fork = Fork(source, Offset(incarnation, entry.base))
        config = StreamConfig(entry.content_type, Lifetime(ttl=STAGING_TTL), fork=fork)
        body = b"[%b]" % data[:-1] if data and entry.json else data
        attempt = 0
        while True:
            self.name = name = staged_name(entry.name, attempt)
            try:
                created = await shielded(self._streams.create(name, config, body))
                if created.new:
                    break
            except StreamExists:
                pass
            except PathBlocked:
                # An earlier restore was interrupted after forks of it were made.
                attempt += 1
                continue
            with suppress(StreamNotFound):
                await settle(self._streams.delete(name))
        if created.tail != entry.base + len(data):
            raise StreamError(entry.name, f"The fork begins at {created.tail}, not at {entry.base}.")

    async def append(self, appends: AppendSlice) -> None:
        """
        Append data. At most two groups of appends are in flight, of which each is acknowledged in one reactor turn.

        :raises StreamsError: an earlier append failed.
        """
        waiting: list[Deferred[Any]] = []
        start = 0
        for number, size in enumerate(appends.sizes, 1):
            data = appends.data if size == len(appends.data) else appends.data[start : start + size]
            start += size
            outcome = self._streams.append(self.name, Append(self._media, data))
            if isinstance(outcome, Deferred):
                outcome.addErrback(self._failed)
                waiting.append(outcome)
            if number % _APPENDS == 0:
                await self._context.pause()
            if len(waiting) >= _GROUP:
                self._groups.append(DeferredList(waiting))
                waiting = []
                await self._wait(1)
        if waiting:
            self._groups.append(DeferredList(waiting))
        await self._wait(1)

    async def finish(self) -> None:
        """
        Wait for all appends.

        :raises StreamsError: one failed.
        """
        await self._wait(0)
        tail = (await settle(self._streams.status(self.name))).tail
        if tail != self._entry.tail:
            raise StreamError(self._entry.name, f"It has {tail} bytes instead of {self._entry.tail}.")

    def hold(self) -> None:
        """Renew the TTL from now on: the service renews that of each stream that somebody watches."""
        self._streams.watch(self.name, _ignore)

    def release(self) -> None:
        """End the renewal of the TTL."""
        self._streams.unwatch(self.name, _ignore)

    async def discard(self) -> None:
        """Delete the stream, after all appends have ended."""
        self.release()
        # An append in progress is cancelled with the restore.
        with suppress(StreamsError, CancelledError):
            await self._wait(0)
        if self.name:
            await remove_staged(self._streams, self.name)

    async def _wait(self, max_groups: int) -> None:
        while len(self._groups) > max_groups:
            await self._groups.pop(0)
        if self._failure is not None:
            self._failure.raiseException()

    def _failed(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure


def _ignore() -> None:
    """Be woken by a commit of a staged stream, for which nobody waits."""
