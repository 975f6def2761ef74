"""The daemon: everything that serves streams on a port of its own."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Site

from .assembly import channel_settings_from, operations_from, resource_from, storage_from
from .config.settings import Settings
from .config.validation import parse_bind_address
from .streams import Streams
from .telemetry import metrics_from, telemetry_from
from .web.app import Tree, build_app
from .web.gathering import listen
from .web.listener import ChannelFactory

_log = Logger()


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
        self.streams = Streams(storage_from(settings, reactor), reactor)
        self._telemetry = telemetry_from(settings)
        operations = operations_from(self.streams, settings, reactor, self._telemetry)
        metrics = metrics_from(settings, operations)
        base_path = settings.http.stream_base_path
        self.tree: IResource = Tree(
            resource_from(operations, settings, reactor),
            build_app(operations.answers, self.obstacle, None if metrics is None else metrics.render),
            operations.answers,
            base_path,
        )
        self.factory = ChannelFactory(operations, Site(self.tree), base_path, reactor, channel_settings_from(settings))
        if metrics is not None:
            metrics.watch(self.factory)

    @property
    def address(self) -> IAddress:
        """Where it listens; there is no such thing before it is started."""
        assert self._port is not None
        return self._port.getHost()

    def obstacle(self) -> str | None:
        """Say what keeps the server from taking requests; None when nothing does."""
        if not self.running:
            return "The server is not started yet, or stopping."
        return self.streams.obstacle()

    def privilegedStartService(self) -> None:
        """
        Bind the port.

        :raises CannotListenError: it can't be had.
        """
        host, port = parse_bind_address(self._settings.server.bind_address)
        self._port = listen(self._reactor, port, self.factory, 1024, host)

    def start_without_port(self) -> None:
        """
        Start to serve :attr:`tree`, for a Site that has a port of its own.

        :raises StorageError: the storage can't be opened.
        """
        self.streams.startService()
        super().startService()

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
        await maybeDeferred(self._telemetry.stop)
        _log.info("The server has stopped.")

    def stopService(self) -> Deferred[None]:
        """Take no more connections, let the ones that are there end, then close the storage."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())
