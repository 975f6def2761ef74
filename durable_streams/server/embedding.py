"""Streams inside another Twisted program: a service to use from Python, and a resource to mount in a Site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from .assembly import name_limits_from, operations_from, resource_from
from .config.settings import Settings
from .interfaces import IStorage, settle
from .model import START, Append, Appended, Created, Fork, Lifetime, Offset, StreamConfig, StreamStatus, Writer
from .protocol.content import JSON_TYPE, media_type
from .protocol.messages import document, wire_form
from .protocol.names import check_name
from .protocol.offsets import parse_offset
from .streams import Streams

#: Where the daemon has its streams, unless ``http.stream_base_path`` says otherwise.
DEFAULT_STREAM_BASE_PATH = Settings().http.stream_base_path


class Reading(Struct, frozen=True):
    """
    What a read found.

    :ivar data: bytes; of a JSON stream, one array of messages.
    :ivar next_offset: where to read on.
    :ivar up_to_date: there was nothing more at that moment.
    :ivar closed: there will never be anything more.
    """

    data: bytes
    next_offset: str
    up_to_date: bool
    closed: bool


class StreamService(Service):
    """
    Streams as Python sees them. All methods answer with Deferreds, and fail with the errors of :mod:`.errors`.

    Give it to an application, or start it, so that streams expire and tails end when the program does.

    :param storage: where the streams are kept; it has no other owner.
    :param reactor: the time; the running reactor, unless given.
    """

    name = "durable-streams"

    def __init__(
        self,
        storage: IStorage,
        reactor: IReactorTime | None = None,
        settings: Settings = Settings(),  # noqa: B008
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor as running  # noqa: PLC0415 (the program may choose one until now)

            reactor = running
        assert reactor is not None
        self.reactor: IReactorTime = reactor
        self.settings = settings
        self.streams = Streams(storage, reactor)

    def startService(self) -> None:
        super().startService()
        self.streams.startService()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self.streams.stopService()

    def create(
        self,
        name: str,
        content_type: str | None = None,
        data: bytes = b"",
        *,
        ttl: int | None = None,
        expires_at: float | None = None,
        closed: bool = False,
        fork: Fork | None = None,
    ) -> Deferred[Created]:
        """
        Make a stream, or find it made alike (PROTOCOL section 5.1).

        :param ttl: seconds without use after which it is gone.
        :param expires_at: seconds since 1970 at which it is gone.
        :raises StreamExists: it is there, and differs.
        """
        config = StreamConfig(content_type, Lifetime(ttl, expires_at), closed, fork)
        return self._run(self._create(name, config, data))

    def append(
        self,
        name: str,
        data: bytes,
        *,
        close: bool = False,
        sequence: bytes | None = None,
        writer: Writer | None = None,
    ) -> Deferred[Appended]:
        """
        Append to a stream, in its own content type; for a JSON stream, a message or an array of messages.

        :param close: close it in the same step.
        :raises StreamNotFound: there is no such stream.
        :raises StreamClosed: it takes no more.
        :raises InvalidJson: the stream is JSON, and the data is not.
        """
        return self._run(self._append(name, data, close, sequence, writer))

    def close(self, name: str) -> Deferred[Appended]:
        """Close a stream; again does no harm (PROTOCOL section 5.3)."""
        return self._run(self._settle(self.streams.append, name, Append(None, b"", close=True)))

    def read(self, name: str, offset: str | Offset = START, limit: int = 2**62) -> Deferred[Reading]:
        """
        Read whole appends (PROTOCOL section 5.6).

        :param offset: from where: ``-1``, ``now``, or a ``next_offset``.
        :param limit: about how many bytes at the most.
        :raises InvalidOffset: the offset is none.
        """
        return self._run(self._read(name, offset, limit))

    def head(self, name: str) -> Deferred[StreamStatus]:
        """Describe a stream (PROTOCOL section 5.5)."""
        return self._run(self._settle(self.streams.status, name))

    def delete(self, name: str) -> Deferred[None]:
        """Delete a stream (PROTOCOL section 5.4)."""
        return self._run(self._settle(self.streams.delete, name))

    @staticmethod
    def _run(coroutine: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(coroutine)

    @staticmethod
    async def _settle(operation: Callable[..., Any], *arguments: Any) -> Any:
        return await settle(operation(*arguments))

    async def _create(self, name: str, config: StreamConfig, data: bytes) -> Created:
        check_name(name, name_limits_from(self.settings))
        if config.content_type is not None:
            media_type(config.content_type)
        return await settle(self.streams.create(name, config, data))

    async def _append(
        self, name: str, data: bytes, close: bool, sequence: bytes | None, writer: Writer | None
    ) -> Appended:
        # A stream's type never changes. Should another take its name meanwhile, the append is refused.
        media = (await settle(self.streams.status(name))).facts.media_type
        wire = wire_form(data) if media == JSON_TYPE else data
        return await settle(self.streams.append(name, Append(media, wire, close, sequence, writer)))

    async def _read(self, name: str, offset: str | Offset, limit: int) -> Reading:
        place = parse_offset(offset) if isinstance(offset, str) else offset
        chunk = await settle(self.streams.read(name, place, limit, whole=True))
        end = chunk.start + len(chunk.data)
        at_tail = end == chunk.tail
        return Reading(
            document(chunk.data) if chunk.facts.json else chunk.data,
            str(Offset(chunk.facts.incarnation, end)),
            at_tail,
            at_tail and chunk.closed,
        )


def build_resource(streams: StreamService | IStorage) -> IResource:
    """
    Make a resource that serves streams at any path of any twisted.web Site: what follows in a URL is a stream's name.

    :param streams: a service that the program runs; or a storage, for which one is made and started.
    """
    if isinstance(streams, StreamService):
        service = streams
    else:
        service = StreamService(streams)
        service.startService()
    operations = operations_from(service.streams, service.settings, service.reactor)
    return resource_from(operations, service.settings, service.reactor)
