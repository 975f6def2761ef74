"""The composition root: settings become services. The only place where concrete classes meet."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Site

from .config.settings import Settings
from .config.validation import parse_bind_address
from .interfaces import IStorage
from .model import StorageLimits
from .protocol.names import NameLimits
from .storage.memory import MemoryStorage
from .streams import Streams
from .web.answers import Answers
from .web.app import Tree, build_app
from .web.intake import IntakeLimits
from .web.listener import ChannelFactory, ChannelSettings
from .web.live import Live, LiveSettings
from .web.operations import Operations, OperationSettings
from .web.request_log import LoggedOperations
from .web.resource import StreamsResource

_log = Logger()


def storage_from(settings: Settings) -> IStorage:
    """Make the storage that the settings name."""
    limits = settings.limits
    return MemoryStorage(
        StorageLimits(
            total_bytes=limits.max_memory_bytes,
            stream_bytes=limits.max_stream_bytes,
            streams=limits.max_streams,
            writers=limits.max_producers_per_stream,
        )
    )


def name_limits_from(settings: Settings) -> NameLimits:
    """Say how long the names of streams may be."""
    return NameLimits(settings.limits.max_stream_name_bytes, settings.limits.max_stream_name_segments)


def operations_from(streams: Streams, settings: Settings, clock: IReactorTime) -> Operations:
    """Put together what both fronts do with a request."""
    connection = settings.transport.connection
    live = Live(streams, clock, LiveSettings(connection.long_poll_timeout_secs, connection.sse_reconnect_interval_secs))
    kind = LoggedOperations if settings.observability.log_level == "debug" else Operations
    return kind(
        streams,
        live,
        Answers(settings.http.cors_origins),
        OperationSettings(name_limits_from(settings), settings.limits.max_request_body_bytes),
    )


def resource_from(operations: Operations, settings: Settings, clock: IReactorTime) -> StreamsResource:
    """Make front 1: the streams, for any twisted.web Site."""
    return StreamsResource(operations, clock, settings.transport.connection.stall_timeout_secs)


def channel_settings_from(settings: Settings) -> ChannelSettings:
    """Say what a connection of front 2 may do."""
    limits = settings.limits
    connection = settings.transport.connection
    return ChannelSettings(
        intake=IntakeLimits(limits.max_header_bytes, limits.max_target_bytes, limits.max_request_body_bytes),
        connections=limits.max_connections,
        header_timeout=connection.header_timeout_secs,
        body_timeout=connection.body_timeout_secs,
        idle_timeout=connection.idle_timeout_secs,
        stall_timeout=connection.stall_timeout_secs,
    )


class Daemon(Service):
    """
    The whole server on one port.

    :ivar streams: the streams that it serves.
    :ivar tree: everything that it serves, as one resource for a twisted.web Site.
    """

    name = "durable-streams"

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._port: IListeningPort | None = None
        self.streams = Streams(storage_from(settings), reactor)
        operations = operations_from(self.streams, settings, reactor)
        base_path = settings.http.stream_base_path
        self.tree: IResource = Tree(
            resource_from(operations, settings, reactor),
            build_app(operations.answers, self.obstacle),
            operations.answers,
            base_path,
        )
        self.factory = ChannelFactory(operations, Site(self.tree), base_path, reactor, channel_settings_from(settings))

    @property
    def address(self) -> IAddress:
        """Where it listens; there is no such thing before it is started."""
        assert self._port is not None
        return self._port.getHost()

    def obstacle(self) -> str | None:
        """Say what keeps the server from taking requests; None when nothing does."""
        if not self.running:
            return "The server is not started yet, or stopping."
        return None

    def privilegedStartService(self) -> None:
        """
        Bind the port.

        :raises CannotListenError: it can't be had.
        """
        host, port = parse_bind_address(self._settings.server.bind_address)
        self._port = self._reactor.listenTCP(port, self.factory, backlog=1024, interface=host)

    def start_without_port(self) -> None:
        """Start to serve :attr:`tree`, for a Site that has a port of its own."""
        super().startService()
        self.streams.startService()

    def startService(self) -> None:
        if self._port is None:
            self.privilegedStartService()
        self.start_without_port()
        _log.info(
            "Streams are served at {address}{base_path}.",
            address=self._settings.server.bind_address,
            base_path=self._settings.http.stream_base_path,
        )

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
            self._port = None
        self.streams.drain()
        drained = self.factory.drain()
        too_late = self._reactor.callLater(self._settings.transport.connection.drain_timeout_secs, self.factory.abort)
        await drained
        if too_late.active():
            too_late.cancel()
        await self.streams.stopService()
        _log.info("The server has stopped.")

    def stopService(self) -> Deferred[None]:
        """Take no more connections, let the ones that are there end, then close the storage."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())
