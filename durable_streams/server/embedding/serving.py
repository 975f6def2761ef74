"""What a program puts on the web: streams below a path of its Site, or the whole server on ports of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from ..config.layers import THE_PROGRAM
from ..config.settings import Settings
from ..config.showing import concealed
from ..config.validation import validate, warnings_about
from ..daemon.assembly import operations_from, resource_from
from ..errors import StorageOwned
from ..interfaces import IStorage
from .owning import release
from .service import StreamService

#: Where the streams of a whole server are, unless ``http.stream_base_path`` says otherwise.
DEFAULT_STREAM_BASE_PATH = Settings().http.stream_base_path

_log = Logger()


def build_resource(streams: StreamService | IStorage) -> IResource:
    """
    Make a resource that serves streams at any path of any twisted.web Site: what follows in a URL is a stream's name.

    :param streams: a service that the program runs; or a storage, for which one is made and started, and lives as long
        as the program.
    :raises StorageOwned: the storage has another service.
    :raises StorageError: the storage can't be taken up.
    """
    if isinstance(streams, StreamService):
        service = streams
    else:
        service = StreamService(streams)
        service.startService()
    _warn(service.settings)
    operations = operations_from(service.streams, service.settings, service.clock)
    return resource_from(operations, service.settings, service.clock)


def build_service(
    streams: StreamService | IStorage,
    settings: Settings | None = None,
    listeners: Sequence[str | IStreamServerEndpoint] = (),
    reactor: Any = None,
) -> StreamServer:
    """
    Make the whole server, as a service.

    It serves what the daemon does: streams below ``http.stream_base_path``, ``/healthz``, ``/readyz`` and ``/metrics``.

    :param streams: a storage, or a service that nobody has started: it is started and stopped with the server.
    :param settings: those of the service, or the defaults. Where it listens and where it keeps its streams is not read
        from them.
    :param listeners: where to listen: endpoints, or their descriptions, such as ``tcp:4437``. All have the same
        streams.
    :param reactor: that of the service, or the running one.
    :raises StorageOwned: the storage, or the service, has another owner.
    :raises ConfigError: a setting is wrong.
    :raises ValueError: a listener's description can't be understood.
    """
    chosen = settings or (streams.settings if isinstance(streams, StreamService) else Settings())
    validate(chosen, _FromTheProgram())
    _warn(chosen)
    if isinstance(streams, StreamService):
        if streams.parent is not None or streams.running:
            raise StorageOwned("The StreamService is run by somebody else. Give build_service one that nobody runs.")
        return StreamServer(streams, chosen, listeners)
    service = StreamService(streams, reactor, chosen)
    try:
        return StreamServer(service, chosen, listeners)
    except BaseException:
        release(streams, service)
        raise


def _warn(settings: Settings) -> None:
    """Log what the settings allow although it may not be meant."""
    for warning in warnings_about(settings):
        _log.warn("{text}", text=warning)


def _endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    """
    Make an endpoint of its description.

    :raises ValueError: it can't be understood.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except Exception as error:  # whatever an endpoint's parser makes of what it is given
        cause = concealed(str(error)).rstrip(".") or type(error).__name__
        raise ValueError(
            f"The listener {concealed(text)} is no endpoint: {cause}. Give one such as tcp:4437."
        ) from error
    return endpoint


class _FromTheProgram(Mapping[str, str]):
    """The source of every setting."""

    def __getitem__(self, name: str) -> str:
        return THE_PROGRAM

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class StreamServer(MultiService):
    """
    What :func:`build_service` makes.

    :ivar streams: the streams, to be used from Python.
    :ivar tree: everything that is served, for a Site with a port of its own.
    :ivar ports: where it listens, while it does.
    """

    def __init__(
        self,
        streams: StreamService,
        settings: Settings,
        listeners: Sequence[str | IStreamServerEndpoint],
        keep_connections: bool = True,
    ) -> None:
        from ..daemon.fronts import Fronts  # noqa: PLC0415 (Klein, which it needs, chooses a reactor when it is imported)

        super().__init__()
        reactor: Any = streams.reactor
        self._fronts = Fronts(streams.streams, settings, reactor, self.obstacle, keep_connections=keep_connections)
        self.tree: IResource = self._fronts.tree
        self._endpoints = [
            _endpoint(reactor, listener) if isinstance(listener, str) else listener for listener in listeners
        ]
        self._listening: list[Deferred[None]] | None = None
        self._stopped: Deferred[None] | None = None
        self.ports: list[IListeningPort] = []
        self.streams = streams
        streams.setServiceParent(self)

    @property
    def addresses(self) -> list[IAddress]:
        """The addresses where it listens; in the order of the listeners, if they all listen at once."""
        return [port.getHost() for port in self.ports]

    def obstacle(self) -> str | None:
        """Say what keeps the server from taking requests, as ``/readyz`` does; None when nothing does."""
        if not self.running:
            return "The server is not started yet, or stopping."
        return self.streams.streams.obstacle()

    def privilegedStartService(self) -> None:
        """
        Listen.

        :raises CannotListenError: a port can't be had; none is kept.
        """
        super().privilegedStartService()
        self._listening = []
        refused: list[Failure] = []
        tried = False

        def refuse(failure: Failure) -> None:
            if not tried:
                refused.append(failure)
            elif not failure.check(CancelledError):
                _log.failure("Listening failed.", failure=failure)

        for endpoint in self._endpoints:
            opening = endpoint.listen(self._fronts.factory)
            self._listening.append(opening.addCallbacks(self.ports.append, refuse))
        tried = True
        if refused:
            self._close_ports()
            refused[0].raiseException()

    def startService(self) -> None:
        """
        Listen, and open the storage.

        :raises CannotListenError: a port can't be had.
        :raises StorageError: the storage can't be taken up.
        """
        if self._listening is None:
            self.privilegedStartService()
        try:
            super().startService()
        except BaseException:
            Service.stopService(self)
            self._close_ports()
            raise
        _log.info("Serving streams at {addresses}.", addresses=self.addresses)

    def stopService(self) -> Deferred[None]:
        """
        Take no more connections, let the ones that are there end, then close the storage; again, wait for the same.

        Those that do not end in ``transport.connection.drain_timeout_secs`` are hung up on.
        """
        if self._stopped is None:
            Service.stopService(self)
            self._stopped = Deferred.fromCoroutine(self._stop())
        stopped: Deferred[None] = Deferred()
        self._stopped.chainDeferred(stopped)
        return stopped

    def _close_ports(self) -> Deferred[Any]:
        for opening in self._listening or ():
            opening.cancel()
        self._listening = None
        ports, self.ports = self.ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])

    async def _stop(self) -> None:
        await self._close_ports()
        await self._fronts.drain()
        ending = [maybeDeferred(child.stopService) for child in reversed(list(self))]
        for success, outcome in await DeferredList(ending, consumeErrors=True):
            if not success:
                outcome.raiseException()
        await self._fronts.close()
        _log.info("The server has stopped.")
