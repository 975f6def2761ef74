"""The settings of the service."""

from __future__ import annotations

from msgspec import Struct


class ServiceSettings(Struct, frozen=True):
    """
    Limits and intervals, in seconds.

    :ivar deliveries: the maximum number of webhooks that are sent at once.
    :ivar request_timeout: the time limit of one delivery attempt.
    :ivar sweep_interval: between two checks of all subscriptions.
    :ivar drain_timeout: how long a stop waits for deliveries.
    :ivar public_url: the URL of the server as clients see it, without the base path; None for that of the request which
        created a subscription.
    :ivar base_path: the path prefix of streams, for ``public_url``.
    """

    max_subscriptions: int = 10_000
    max_links: int = 1_000_000
    deliveries: int = 16
    request_timeout: float = 5.0
    sweep_interval: float = 30.0
    drain_timeout: float = 30.0
    public_url: str | None = None
    base_path: str = "/v1/stream"
