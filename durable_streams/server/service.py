"""The daemon: everything that serves streams on ports of its own."""

from __future__ import annotations

from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Site

from .assembly import channel_settings_from, operations_from, resource_from, storage_from
from .config.settings import Settings
from .listeners import Listeners
from .startup import StartupError
from .storage.ownership import StorageError
from .streams import Streams
from .telemetry import metrics_from, telemetry_from
from .web.app import Tree, build_app
from .web.listener import ChannelFactory
from .web.listing import add_list

#: How long, in seconds, a start waits for the storage before it serves what can be served without it.
PATIENCE: Final = 1.0

_log = Logger()


class Daemon(Service):
    """
    The whole server on all of its ports.

    :ivar streams: the streams that it serves.
    :ivar tree: everything that it serves, as one resource for a twisted.web Site.
    :raises StartupError: the settings do not lead to something to listen on.
    """

    name = "durable-streams"

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._stopping = False
        self.listeners = Listeners(settings, reactor)
        self.streams = Streams(storage_from(settings, reactor), reactor)
        self._telemetry = telemetry_from(settings)
        operations = operations_from(self.streams, settings, reactor, self._telemetry)
        answers = operations.answers
        base_path = settings.http.stream_base_path
        apart = settings.admin.bind_address is not None
        metrics = metrics_from(settings, operations)
        render = None if metrics is None else metrics.render
        for_all = build_app(answers, self.obstacle, None if apart else render)
        for_operators = build_app(answers, self.obstacle, render) if apart else for_all
        if settings.admin.enabled:
            add_list(for_operators, settings.admin.base_path, self.streams, answers)
        proxies = operations.proxies
        resource = resource_from(operations, settings, reactor)
        self.tree: IResource = Tree(resource, for_all, answers, base_path, proxies)
        self.factory = ChannelFactory(operations, Site(self.tree), base_path, reactor, channel_settings_from(settings))
        self._admin: Any = Site(Tree(None, for_operators, answers, base_path, proxies)) if apart else None
        if metrics is not None:
            metrics.watch(self.factory)

    @property
    def address(self) -> IAddress:
        """Where it listens first; there is no such thing before the ports are bound."""
        return self.listeners.addresses[0]

    def obstacle(self) -> str | None:
        """Say what keeps the server from taking requests; None when nothing does."""
        if self._stopping:
            return "The server is stopping."
        return self.streams.obstacle()

    def privilegedStartService(self) -> None:
        """
        Bind the ports.

        :raises StartupError: one of them can't be had; then none is.
        """
        self.listeners.bind(self.factory, self._admin)

    def start(self) -> Deferred[None]:
        """
        Bind the ports, if that was not done, and have the storage taken up, in a thread if it takes its time.

        Requests are answered meanwhile: with 503, and ``/readyz`` says why.

        :returns: fires when everything is served; fails with :exc:`StartupError`.
        """
        if not self.listeners.addresses:
            self.privilegedStartService()
        Service.startService(self)
        _log.info("Listening on {places}.", places=self.listeners.describe())
        return self.streams.take_up(PATIENCE, self._reactor).addCallbacks(self._serving, self._not_opened)

    def startService(self) -> None:
        self.start().addErrback(self._not_served)

    def start_without_port(self) -> None:
        """
        Start to serve :attr:`tree`, for a Site that has a port of its own.

        :raises StorageError: the storage can't be opened.
        """
        self.streams.startService()
        super().startService()

    def reload(self) -> None:
        """Take up certificates that have changed."""
        self.listeners.reload()

    def _serving(self, _: None) -> None:
        _log.info(
            "Streams are served below {base_path}, and kept in {mode}.",
            base_path=self._settings.http.stream_base_path,
            mode=self._settings.storage.mode,
        )

    def _not_opened(self, failure: Failure) -> None:
        """
        :raises StartupError: always.
        """
        storage = self._settings.storage
        where = "" if storage.mode == "memory" else f" and storage.data_dir {storage.data_dir}"
        if not failure.check(StorageError, OSError):
            _log.failure("The storage could not be opened.", failure=failure)
        raise StartupError(
            "open_storage",
            f"storage.mode is {storage.mode}{where}, which can't be opened: {failure.getErrorMessage()}",
        )

    def _not_served(self, failure: Failure) -> None:
        _log.critical("{reason}", reason=failure.value)

    async def _stop(self) -> None:
        await self.listeners.stop()
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
        self._stopping = True
        super().stopService()
        return Deferred.fromCoroutine(self._stop())
