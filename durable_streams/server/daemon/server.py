"""A server on ports: bind, open the storage, serve, drain, close. The daemon and an embedded server are both one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from ..config.settings import Settings
from ..listening.descriptors import DescriptorBudget
from ..startup import StartupError
from ..streams import Streams
from ..telemetry import Metrics
from ..web.site.admin.access import AdminAuthorization
from .access import access_control_from, log_access
from .fronts import Fronts
from .subscribing import log_subscriptions, subscriptions_from

if TYPE_CHECKING:
    from ..identity.control import AccessControl
    from ..subscriptions import SubscriptionService

_log = Logger()


class Ports(Protocol):
    """The ports of a server."""

    @property
    def bound(self) -> bool:
        """Whether :meth:`bind` was called, and :meth:`stop` was not called since."""

    @property
    def addresses(self) -> list[IAddress]:
        """The addresses of the ports for clients, without the port of ``admin.bind_address``."""

    def bind(self, factory: Any, admin_factory: Any, /) -> None:
        """
        Bind all ports, or none.

        :param admin_factory: for ``admin.bind_address``; None if operators have no port of their own.
        """

    def stop(self) -> Deferred[Any]:
        """Close the ports; open connections stay open."""


class Server(MultiService):
    """
    An HTTP server: the streams of a storage, served on its ports.

    Its child services are stopped after the drain. A subclass opens the storage in :meth:`_open`.

    :param budget: the number of descriptors of each part; None for no division.
    :param keep_connections: whether HTTP/1.1 connections stay open after an answer.
    :param authorize_admin: decides who may use the pages of operators; see :class:`.Fronts`.
    :param subscriptions: the service of subscriptions if :meth:`_open` starts it; None to create one.
    :param access: authenticates and authorizes requests; None for what the section ``auth`` of the settings asks for.
    :raises ConfigError: a file that the settings name cannot be used, or a rule is invalid.
    :ivar subscriptions: the service of subscriptions; None if there are none.
    :ivar access: authenticates and authorizes requests; None if everybody may do everything.
    :ivar metrics: the metrics; None if they are not served.
    :ivar tree: everything that is served, as one resource for a twisted.web Site.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the parts of a server)
        self,
        streams: Streams,
        settings: Settings,
        reactor: Any,
        ports: Ports,
        budget: DescriptorBudget | None = None,
        keep_connections: bool = True,
        authorize_admin: AdminAuthorization | None = None,
        subscriptions: SubscriptionService | None = None,
        access: AccessControl | None = None,
    ) -> None:
        super().__init__()
        self._ports = ports
        self._stopped: Deferred[None] | None = None
        self._obstacle_of_streams: Callable[[], str | None] = streams.obstacle
        self._settings = settings
        self._starts_subscriptions = subscriptions is None
        self.subscriptions = subscriptions or subscriptions_from(streams, settings, reactor)
        self.access = access or access_control_from(settings, reactor)
        self._fronts = Fronts(
            streams,
            settings,
            reactor,
            self.obstacle,
            budget,
            keep_connections,
            authorize_admin,
            self.subscriptions,
            self.access,
        )
        self.tree: IResource = self._fronts.tree
        self.metrics: Metrics | None = self._fronts.metrics

    @property
    def addresses(self) -> list[IAddress]:
        """The addresses of the bound ports, in the order of the listeners if all listen at once."""
        return self._ports.addresses

    def obstacle(self) -> str | None:
        """Return the reason for which ``/readyz`` reports not ready, or None if the server accepts requests."""
        if self._stopped is not None:
            return "The server is stopping."
        if not self.running:
            return "The server is not started yet."
        obstacle = self._obstacle_of_streams()
        return obstacle if obstacle is not None or self.subscriptions is None else self.subscriptions.obstacle()

    def privilegedStartService(self) -> None:
        """
        Bind the ports.

        :raises StartupError: the audit log cannot be opened.
        :raises Exception: a port cannot be bound; then none is.
        """
        super().privilegedStartService()
        self._fronts.load()
        self._fronts.open_audit_log()
        try:
            self._ports.bind(self._fronts.factory, self._fronts.admin)
        except BaseException:
            self._fronts.close_audit_log()
            raise

    def start(self) -> Deferred[None]:
        """
        Bind the ports if they are not bound yet, then open the storage.

        Until the storage is open, requests are answered with 503, and ``/readyz`` says why.

        :returns: fires when streams are served; fails if the storage cannot be opened.
        :raises Exception: a port cannot be bound, or it is known at once that the storage cannot be opened.
        """
        if not self._ports.bound:
            self.privilegedStartService()
        Service.startService(self)
        log_access(self._settings, self.access)
        try:
            opened = self._open().addCallback(self._start_access)
            return opened if self.subscriptions is None else opened.addCallback(self._start_subscriptions)
        except BaseException:
            Service.stopService(self)
            self._ports.stop()
            raise

    def _open(self) -> Deferred[None]:
        raise NotImplementedError

    def _start_access(self, _: None) -> None:
        """Start to fetch keys and to check files for changes, once the storage is open."""
        if self.access is not None:
            self.access.start()

    def _start_subscriptions(self, _: None) -> Deferred[None]:
        """
        Load the subscriptions, once the storage is open.

        :returns: fails with :exc:`StartupError`.
        """
        assert self.subscriptions is not None
        log_subscriptions(self._settings, is_open=self.access is None)
        if not self._starts_subscriptions:
            return succeed(None)
        return self.subscriptions.start().addErrback(self._raise_not_loaded)

    def _log_not_loaded(self, failure: Failure) -> None:
        if self.subscriptions is not None and self.subscriptions.running:
            _log.critical("{reason}", reason=failure.value)

    def _raise_not_loaded(self, failure: Failure) -> None:
        """
        Raise the error of subscriptions that cannot be loaded.

        :raises StartupError: always.
        """
        raise StartupError("start_server", f"Cannot load the subscriptions: {failure.getErrorMessage()}")

    def startService(self) -> None:
        # _open logs why the storage cannot be opened.
        self.start().addErrback(self._log_not_loaded)

    def stopService(self) -> Deferred[None]:
        """
        Close the ports, let open connections end, then close the storage. Further calls wait for the first.

        Connections that have not ended after ``transport.connection.drain_timeout_secs`` are aborted.
        """
        if self._stopped is None:
            Service.stopService(self)
            # Set first: obstacle() may be called while the parts stop.
            self._stopped = Deferred()
            Deferred.fromCoroutine(self._stop()).chainDeferred(self._stopped)
        stopped: Deferred[None] = Deferred()
        self._stopped.chainDeferred(stopped)
        return stopped

    async def _stop(self) -> None:
        await self._ports.stop()
        draining = self._fronts.drain()
        if self.subscriptions is not None:
            # No delivery begins while connections drain; those that run end before the storage is closed.
            stopped = self.subscriptions.stopService()
            await draining
            await stopped
        else:
            await draining
        ending = [maybeDeferred(child.stopService) for child in reversed(list(self))]
        for success, outcome in await DeferredList(ending, consumeErrors=True):
            if not success:
                outcome.raiseException()
        if self.access is not None:
            self.access.stop()
        await self._fronts.close()
        _log.info("The server has stopped.")

    def reload(self) -> Deferred[None]:
        """
        Read the files of ``auth``, of ``admin.token_file`` and of subscriptions again; log errors.

        :returns: fires when those of ``auth``, which are read in threads, are in use.
        """
        self._fronts.reload()
        if self.subscriptions is not None:
            self.subscriptions.reload()
        return succeed(None) if self.access is None else self.access.reload()

    def reopen_audit_log(self) -> None:
        """Go on in a new audit log of the same path, as :meth:`reload` does."""
        self._fronts.reopen_audit_log()

    def abort_connections(self) -> None:
        """Close all connections at once, also those whose answers are not finished."""
        self._fronts.abort()
