"""What an export and an import have in common: the service, the clock, the thread, and slices of time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ..blocking_calls import BlockingCalls
from ..clocks import clock_of
from ..errors import Unavailable
from ..run_queue import SLICE
from ..streams import Streams

#: If the storage is congested, it is asked again after so many seconds.
_CONGESTED: Final = 0.005


class HasStreams(Protocol):
    """An object with a stream service, such as :class:`durable_streams.server.StreamService`."""

    @property
    def streams(self) -> Streams:
        """The stream service."""


#: The streams to transfer.
AnyStreams: TypeAlias = "Streams | HasStreams"


def streams_of(service: AnyStreams) -> Streams:
    """Return the stream service of either kind of object."""
    return service if isinstance(service, Streams) else service.streams


def spool_directory(directory: str | os.PathLike[str] | None) -> str:
    """
    Return the directory for temporary files.

    :param directory: None for ``TMPDIR``, or else ``/var/tmp``, since ``/tmp`` may be in memory.
    """
    if directory is not None:
        return os.fspath(directory)
    named = os.environ.get("TMPDIR", "")
    for path in (named, "/var/tmp"):  # noqa: S108 (each file in it has an unpredictable name, and is unlinked)
        if path and os.access(path, os.W_OK | os.X_OK):
            return path
    return tempfile.gettempdir()


class Context:
    """
    The surroundings of one transfer.

    :param reactor: None for the installed reactor.
    :ivar reactor: the reactor.
    :ivar streams: the stream service.
    :ivar clock: the reactor's clock.
    :ivar blocking: runs blocking calls in a thread; close it at the end.
    """

    def __init__(self, service: AnyStreams, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor as running  # noqa: PLC0415 (the program may choose one until now)

            reactor = running
        self.reactor = reactor
        self.streams = streams_of(service)
        self._when_open: Callable[[], Deferred[None]] | None = getattr(service, "when_open", None)
        self.clock = clock_of(reactor)
        self.blocking = BlockingCalls(reactor)
        self._turns = self.streams.turns
        self._end = self._turns.seconds() + SLICE

    async def opened(self) -> None:
        """Wait for a storage that is being opened."""
        if self._when_open is not None:
            await self._when_open()

    def check_writable(self) -> None:
        """
        Check that the storage takes writes.

        :raises Unavailable: the service is not open, or its storage has failed.
        """
        obstacle = self.streams.obstacle()
        if obstacle is not None:
            raise Unavailable(obstacle)

    async def relieve(self) -> None:
        """Wait while the storage has more data in memory than it is set for; see :meth:`.Streams.congested`."""
        while self.streams.congested():
            await deferLater(self.clock, _CONGESTED)

    async def pause(self) -> None:
        """Let the reactor do other work if this transfer has used its slice of time."""
        if self._turns.seconds() >= self._end:
            await self._turns.turn()
            self._end = self._turns.seconds() + SLICE
