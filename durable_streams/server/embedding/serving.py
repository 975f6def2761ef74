"""Streams over HTTP in another program: below a path of its Site, or as a whole server on ports of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.web.resource import IResource

from ..config.layers import THE_PROGRAM
from ..config.settings import Settings
from ..config.validation import ConfigError, validate, warnings_about
from ..daemon.assembly import add_pages_of_operators, guard_pages, operations_from, resource_from
from ..daemon.server import Server
from ..daemon.subscribing import serve_subscriptions
from ..errors import StorageOwned
from ..identity.control import AccessControl
from ..identity.policy import Policy
from ..interfaces import IStorage
from ..startup import StartupError
from ..web.operations import Operations
from ..web.site.admin.access import AdminAuthorization
from ..web.site.app import Pages
from ..web.site.pages_resource import PagesResource
from ..web.wire import NO_STREAMS
from .access import given_access
from .owning import release
from .ports import EndpointPorts
from .service import StreamService

#: The default of ``http.stream_base_path``.
DEFAULT_STREAM_BASE_PATH = Settings().http.stream_base_path

_log = Logger()


def build_resource(
    streams: StreamService | IStorage,
    portal: Portal | None = None,
    policy: Policy | None = None,
    access: AccessControl | None = None,
) -> IResource:
    """
    Create a resource that serves streams at a path of a twisted.web Site; the rest of the path is the stream's name.

    :param streams: a service that the program starts and stops; or a storage, for which a service is created and
        started that is never stopped.
    :param portal: authenticates requests; None for the methods of the settings (``auth.methods``). It needs a policy.
        See :func:`.build_access_control`.
    :param policy: decides what principals may do, such as :func:`.parse_rules` returns.
    :param access: instead of portal and policy, what :func:`.build_access_control` has returned.
    :raises ValueError: there is a portal without a policy, or more than one access control.
    :raises ConfigError: a file that the settings name cannot be used.
    :raises StorageOwned: the storage has another service.
    :raises StorageError: the storage cannot be opened.
    """
    if isinstance(streams, StreamService):
        service = streams
    else:
        service = StreamService(streams)
        service.startService()
    _warn(service.settings)
    operations = _operations_of(service, portal, policy, access)
    if service.subscription_service is not None:
        serve_subscriptions(operations, service.subscription_service)
    return resource_from(operations, service.settings, service.clock)


def _operations_of(
    service: StreamService, portal: Portal | None, policy: Policy | None, access: AccessControl | None
) -> Operations:
    settings = service.settings
    control = given_access(portal, policy, access, settings, service.reactor) or service.access.of_settings
    operations = operations_from(service.streams, settings, service.clock)
    if control is not None:
        try:
            audit = service.access.add(control)
        except StartupError as error:
            raise ConfigError(error.cause, rule="AuditFileUnusable", phase=error.phase) from None
        operations.guard(control, settings.auth.hide_forbidden, audit)
    return operations


def build_admin_resource(
    streams: StreamService,
    authorize_admin: AdminAuthorization | None = None,
    portal: Portal | None = None,
    policy: Policy | None = None,
    access: AccessControl | None = None,
) -> IResource:
    """
    Create a resource that serves the pages for operators at a path of a twisted.web Site.

    A Site receives the body of a request before the request is checked. Put an authentication of your own around the
    resource if strangers can reach it.

    :param streams: a service that the program starts and stops. ``admin.enabled`` in its settings is ignored.
    :param authorize_admin: as for :func:`build_service`.
    :param portal: as for :func:`build_resource`; principals with the right ``admin`` may use the pages.
    :param policy: as for :func:`build_resource`.
    :param access: as for :func:`build_resource`.
    :raises ValueError: there is a portal without a policy, or more than one access control.
    :raises ConfigError: the file of ``admin.token_file`` cannot be used.
    """
    settings = streams.settings
    operations = _operations_of(streams, portal, policy, access)
    pages = Pages(operations.answers, None)
    guard_pages(pages, settings, operations, "", authorize_admin)
    add_pages_of_operators(pages, "", operations, streams.reactor, lambda: None)
    stall_timeout = settings.transport.connection.stall_timeout_secs
    return PagesResource(pages, operations, NO_STREAMS, streams.clock, stall_timeout)


def build_service(
    streams: StreamService | IStorage,
    settings: Settings | None = None,
    listeners: Sequence[str | IStreamServerEndpoint] = (),
    reactor: Any = None,
    authorize_admin: AdminAuthorization | None = None,
    portal: Portal | None = None,
    policy: Policy | None = None,
    access: AccessControl | None = None,
) -> StreamServer:
    """
    Create the whole server as a service.

    It serves what the daemon does: streams below ``http.stream_base_path``, ``/healthz``, ``/readyz`` and ``/metrics``.

    :param streams: a storage, or a service that is not started: it is started and stopped with the server.
    :param settings: None for those of the service, or the defaults. Addresses, TLS and storage in them are ignored.
    :param listeners: endpoints, or their descriptions such as ``tcp:4437``. All serve the same streams.
    :param reactor: None for the reactor of the service, or the installed one.
    :param authorize_admin: with ``admin.enabled``, decides who may use the pages of operators. It is called with each
        :class:`.PageRequest` and returns True or False, or an awaitable of that; it may raise
        :exc:`.errors.NotAuthenticated` or :exc:`.errors.NotAllowed`. None for principals with the right ``admin`` and
        the tokens of ``admin.token_file``; without an access control and such tokens, for clients on this machine only.
    :param portal: as for :func:`build_resource`.
    :param policy: as for :func:`build_resource`.
    :param access: as for :func:`build_resource`.
    :raises StorageOwned: the storage, or the service, has another owner.
    :raises ConfigError: a setting is invalid.
    :raises ValueError: the description of a listener is invalid, there is a portal without a policy, or more than one
        access control.
    """
    chosen = settings or (streams.settings if isinstance(streams, StreamService) else Settings())
    validate(chosen, _FromTheProgram())
    _warn(chosen)
    if isinstance(streams, StreamService):
        if streams.parent is not None or streams.running:
            raise StorageOwned(
                "The StreamService is started, or has a parent service. Pass build_service one that is neither."
            )
        control = given_access(portal, policy, access, chosen, streams.reactor)
        return StreamServer(streams, chosen, listeners, authorize_admin=authorize_admin, access=control)
    service = StreamService(streams, reactor, chosen)
    try:
        control = given_access(portal, policy, access, chosen, service.reactor)
        return StreamServer(service, chosen, listeners, authorize_admin=authorize_admin, access=control)
    except BaseException:
        release(streams, service)
        raise


def _place(address: IAddress) -> str:
    """Return an address as it is written in URLs and endpoints."""
    match address:
        case IPv4Address():
            return f"{address.host}:{address.port}"
        case IPv6Address():
            return f"[{address.host}]:{address.port}"
        case UNIXAddress():
            return os.fsdecode(address.name or b"")
        case _:
            return str(address)


def _warn(settings: Settings) -> None:
    """Log settings that are valid but risky."""
    for warning in warnings_about(settings):
        _log.warn("{text}", text=warning)


class _FromTheProgram(Mapping[str, str]):
    """Names the program as the source of every setting."""

    def __getitem__(self, name: str) -> str:
        return THE_PROGRAM

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class StreamServer(Server):
    """
    The server that :func:`build_service` returns: a MultiService.

    :param streams: a service that is not started.
    :param listeners: endpoints, or their descriptions.
    :param keep_connections: whether HTTP/1.1 connections stay open after an answer.
    :param authorize_admin: as for :func:`build_service`.
    :param access: as for :func:`build_service`; None for what the section ``auth`` of the settings asks for.
    :ivar streams: the service for Python code.
    :ivar tree: everything that is served, as a resource for a Site with a port of its own.
    :raises ValueError: the description of a listener is invalid.
    """

    def __init__(
        self,
        streams: StreamService,
        settings: Settings,
        listeners: Sequence[str | IStreamServerEndpoint],
        keep_connections: bool = True,
        authorize_admin: AdminAuthorization | None = None,
        access: AccessControl | None = None,
    ) -> None:
        self._endpoint_ports = EndpointPorts(listeners, streams.reactor)
        super().__init__(
            streams.streams,
            settings,
            streams.reactor,
            self._endpoint_ports,
            keep_connections=keep_connections,
            authorize_admin=authorize_admin,
            subscriptions=streams.subscription_service,
            access=access,
        )
        self.streams = streams
        streams.setServiceParent(self)

    @property
    def ports(self) -> list[IListeningPort]:
        """The ports that listen."""
        return self._endpoint_ports.ports

    def _open(self) -> Deferred[None]:
        """
        Start the streams and all other child services.

        :raises StorageError: the storage cannot be opened.
        """
        for child in self:
            child.startService()
        _log.info("Listening on {places}.", places=", ".join(map(_place, self.addresses)))
        return self.streams.when_open()
