"""The service of subscriptions of a server, created from its settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ..config.settings import Settings
from ..config.validation import unusable
from ..streams import Streams
from ..web.operations import Operations
from ..web.site.app import Routes
from .assembly import name_limits_from

if TYPE_CHECKING:
    from ..subscriptions import SubscriptionService, WebhookSender

_log = Logger()


def subscriptions_from(
    streams: Streams,
    settings: Settings,
    reactor: Any,
    around: Callable[[WebhookSender], WebhookSender] | None = None,
) -> SubscriptionService | None:
    """
    Create the service of subscriptions.

    :param around: returns the sender of webhooks in place of the one over the network, which it is called with.
    :returns: None if ``subscriptions.enabled`` is false; then nothing of it is imported.
    :raises ConfigError: the file of ``subscriptions.webhook_ca_file`` cannot be used.
    """
    chosen = settings.subscriptions
    if not chosen.enabled:
        return None
    from ..subscriptions import ServiceSettings, SubscriptionService  # noqa: PLC0415 (only if it is used)
    from ..subscriptions.addresses import AddressPolicy, parse_networks  # noqa: PLC0415
    from ..subscriptions.authorities import Authorities, AuthoritiesFileError  # noqa: PLC0415
    from ..subscriptions.opening import WebhookSettings, opener  # noqa: PLC0415

    try:
        authorities = Authorities(chosen.webhook_ca_file)
    except AuthoritiesFileError as error:
        raise unusable("InvalidWebhookCaFile", str(error)) from None
    policy = AddressPolicy(
        settings.http.allow_insecure_webhooks,
        parse_networks(chosen.webhook_networks),
        parse_networks(chosen.webhook_http_networks),
    )
    request_timeout = chosen.request_timeout_ms / 1000
    # twistd changes the current directory later.
    key_file = None if chosen.signing_key_file is None else os.path.abspath(chosen.signing_key_file)
    webhooks = WebhookSettings(policy, request_timeout, key_file, authorities)
    return SubscriptionService(
        streams,
        reactor,
        opener(streams, reactor, webhooks, around=around),
        ServiceSettings(
            chosen.max_subscriptions,
            chosen.max_links,
            chosen.deliveries,
            request_timeout,
            chosen.sweep_interval_ms / 1000,
            settings.transport.connection.drain_timeout_secs,
            settings.http.public_url,
            settings.http.stream_base_path,
        ),
        name_limits_from(settings),
        is_eager=chosen.signing_key_file is not None,
    )


def serve_subscriptions(operations: Operations, service: SubscriptionService) -> None:
    """Answer requests for the reserved paths by a service, behind the gate of the operations if they have one."""
    from ..web.subscriptions import SubscriptionRoutes  # noqa: PLC0415 (only if it is used)

    access = operations.page_access
    routes = SubscriptionRoutes(service, operations.answers, operations.origins, access)
    operations.reserved = routes.perform
    if access is not None:
        access.serve_reserved(routes.admit, routes.early)
    operations.traced = service.note_trace


def subscription_pages(base_path: str, service: SubscriptionService) -> Callable[[Routes], None]:
    """Return what adds the pages of subscriptions for operators."""
    from ..web.site.admin.subscriptions import add_key_rotation, add_subscriptions  # noqa: PLC0415 (only if it is used)

    def add(app: Routes) -> None:
        add_subscriptions(app, base_path, service)
        add_key_rotation(app, base_path, service)

    return add


def log_subscriptions(settings: Settings, is_open: bool) -> None:
    """
    Log that subscriptions are served, and to whom.

    :param is_open: whether everybody may do everything.
    """
    base = settings.http.stream_base_path.rstrip("/")
    _log.info(
        "Subscriptions: {base}/__ds/subscriptions/ID. {whoever} can create and claim them.",
        base=base,
        whoever="Whoever can reach the streams" if is_open else "Clients whom a rule allows subscribe",
    )
    if settings.http.public_url is None:
        _log.info(
            "http.public_url is not set: callback URLs have the host of the request that created the subscription."
        )
