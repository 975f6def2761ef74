"""The parts of a server, created from its settings, for the daemon and for embedding programs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime

from ..config.quota_sections import QuotaSettings
from ..config.sections import TransportSettings
from ..config.settings import Settings
from ..config.validation import unusable
from ..listening.descriptors import DescriptorBudget
from ..protocol.names import NameLimits
from ..streams import Streams
from ..web.admission import RequestLimits
from ..web.answers import Answers
from ..web.connections import ChannelSettings
from ..web.live import Live, LiveSettings
from ..web.operations import Operations, OperationSettings
from ..web.origins import WritingOrigins
from ..web.proxies import Proxies
from ..web.site.admin.access import AdminAuthorization, AdminGuard, deny_all
from ..web.site.admin.tokens import TokenFile, TokenFileError
from ..web.site.app import Pages
from ..web.site.resource import StreamsResource
from ..web.telemetry import Telemetry

#: ``transport.http.versions`` -> ALPN name.
_ALPN = {"http1": "http/1.1", "http2": "h2"}


def name_limits_from(settings: Settings) -> NameLimits:
    """Return the limits of stream names."""
    return NameLimits(settings.limits.max_stream_name_bytes, settings.limits.max_stream_name_segments)


def request_limits_from(settings: Settings) -> RequestLimits:
    """Return the largest sizes of the parts of a request."""
    limits = settings.limits
    return RequestLimits(
        limits.max_header_bytes,
        limits.max_target_bytes,
        limits.max_request_body_bytes,
        limits.max_incoming_bytes,
        settings.transport.connection.min_body_bytes_per_sec,
    )


def operations_from(
    streams: Streams,
    settings: Settings,
    clock: IReactorTime,
    telemetry: Telemetry = Telemetry(),  # noqa: B008 (it has no state)
) -> Operations:
    """
    Create the operations that all fronts share.

    :param telemetry: is notified of every answer (:func:`.telemetry_from`); by default nothing is.
    """
    connection = settings.transport.connection
    live = Live(
        streams,
        clock,
        LiveSettings(
            connection.long_poll_timeout_secs, connection.sse_reconnect_interval_secs, connection.drain_spread_secs
        ),
    )
    operations = Operations(
        streams,
        live,
        Answers(settings.http.cors_origins, settings.http.cache, settings.http.cors_credentials),
        OperationSettings(name_limits_from(settings), request_limits_from(settings), settings.limits.max_read_bytes),
        telemetry,
        proxies=proxies_from(settings, clock),
        origins=WritingOrigins(settings.http.cors_origins),
    )
    if settings.quotas != QuotaSettings():
        from .limiting import quotas_from  # noqa: PLC0415 (5 ms, and by default nothing is limited)

        quotas = quotas_from(settings, streams, live.clock)
        if quotas is not None:
            operations.limit(quotas)
    return operations


def add_pages_of_operators(
    pages: Pages, base_path: str, operations: Operations, reactor: Any, connections: Callable[[], int | None]
) -> None:
    """
    Add the pages for operators, which :func:`guard_pages` protects.

    :param base_path: the path above them.
    :param connections: returns how many connections there are; None if that is not known.
    """
    from ..web.site.admin.pages import add_admin_pages  # noqa: PLC0415 (7 ms, and they are off by default)

    pages.add(
        partial(add_admin_pages, base_path=base_path, operations=operations, connections=connections, reactor=reactor)
    )


def guard_pages(
    pages: Pages,
    settings: Settings,
    operations: Operations,
    base_path: str | None,
    authorize: AdminAuthorization | None = None,
) -> TokenFile | None:
    """
    Protect the pages for operators.

    Behind a gate, all other pages that are not public are protected as well, unless operators have their own listener.

    :param base_path: of the pages for operators; None if there are none.
    :param authorize: decides alone; None for ``admin.token_file``, or else for clients on this machine. Behind a gate,
        principals with the right ``admin`` may use the pages as well; on the listener of the streams, only they and
        those with a token of the file.
    :returns: the file of tokens if the check reads one.
    :raises ConfigError: the file of tokens cannot be used.
    """
    covers_pages = operations.page_access is not None and settings.admin.bind_address is None
    access = operations.page_access if authorize is None else None
    tokens = None if authorize is not None else _admin_tokens(settings)
    if tokens is not None:
        authorize = tokens.authorize
    elif access is not None and covers_pages:
        authorize = deny_all
    pages.guard = AdminGuard(base_path, authorize, access, covers_pages)
    return tokens


def close_pages(pages: Pages, operations: Operations) -> None:
    """Behind a gate, protect the pages of a listener that has none for operators, unless they are public."""
    if operations.page_access is not None:
        pages.guard = AdminGuard(None, deny_all, operations.page_access, covers_pages=True)


def _admin_tokens(settings: Settings) -> TokenFile | None:
    """
    Return the file of ``admin.token_file``; None without one.

    :raises ConfigError: it cannot be used.
    """
    path = settings.admin.token_file
    if path is None:
        return None
    try:
        return TokenFile(path)
    except TokenFileError as error:
        raise unusable("InvalidTokenFile", f"admin.token_file: {error}") from None


def proxies_from(settings: Settings, clock: IReactorTime) -> Proxies:
    """Create the trusted proxies and the selection of their forwarding headers."""
    proxy = settings.proxy
    if not proxy.enabled:
        return Proxies()
    identity = proxy.identity.header_name if proxy.identity.mode == "header" else None
    methods = settings.auth.methods
    # Otherwise it is for logs only. Without methods, the portal of an embedding program may have a checker for it.
    identifies = not methods or "header" in methods
    return Proxies(clock.seconds, proxy.forwarded_headers, proxy.trusted_proxies, identity, identifies)


def resource_from(operations: Operations, settings: Settings, clock: IReactorTime) -> StreamsResource:
    """Create the resource for any twisted.web Site."""
    return StreamsResource(operations, clock, settings.transport.connection.stall_timeout_secs)


def protocols_from(transport: TransportSettings) -> tuple[bytes, ...]:
    """Return the ALPN names of the protocols of connections, preferred ones first."""
    named = transport.tls.alpn_protocols
    if named is None:
        named = tuple(_ALPN[version] for version in sorted(transport.http.versions, reverse=True))
    return tuple(name.encode() for name in named)


def channel_settings_from(settings: Settings, budget: DescriptorBudget | None = None) -> ChannelSettings:
    """Return the limits and timeouts of the daemon's connections."""
    limits = settings.limits
    connection = settings.transport.connection
    return ChannelSettings(
        connections=limits.max_connections if budget is None else budget.connections,
        refusals=ChannelSettings().refusals if budget is None else budget.refusals,
        protocols=protocols_from(settings.transport),
        header_timeout=connection.header_timeout_secs,
        body_timeout=connection.body_timeout_secs,
        idle_timeout=connection.idle_timeout_secs,
        stall_timeout=connection.stall_timeout_secs,
    )
