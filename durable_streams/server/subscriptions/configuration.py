"""The configuration of a subscription: parsing, and comparison of a repeated creation with the first one."""

from __future__ import annotations

from hashlib import sha256
from typing import Final, cast

import msgspec

from ..protocol.names import NameLimits
from ..protocol.patterns import matches
from .bodies import is_integer, normal_path, parse_object, read_paths
from .errors import InvalidConfig, InvalidSubscriptionRequest
from .model import DeliveryType, SubscriptionConfig
from .patterns import parse_pattern

DEFAULT_LEASE_TTL_MS: Final = 30_000
MIN_LEASE_TTL_MS: Final = 1_000
MAX_LEASE_TTL_MS: Final = 600_000
MAX_DESCRIPTION_BYTES: Final = 1_024

_FIELDS: Final = frozenset(
    {"type", "pattern", "streams", "webhook", "wake_stream", "lease_ttl_ms", "description"},
)


def read_config(body: bytes, limits: NameLimits) -> SubscriptionConfig:
    """
    Return the normalized configuration in the body of a creation.

    Slashes at the ends of paths are removed; the member of the other delivery type is dropped. Whether the webhook URL
    may be called, and whether the wake stream exists, is checked elsewhere, for it can change.

    :raises SubscriptionError: the body is invalid; the class has the reason.
    """
    members = {name: value for name, value in parse_object(body).items() if value is not None}
    for name in members:
        if name not in _FIELDS:
            raise InvalidConfig(name, f"There is no field {name[:64]!r}. Leave it out, or correct its name.")
    kind = _delivery_type(members)
    config = SubscriptionConfig(
        type=kind,
        pattern=_pattern(members, limits),
        streams=read_paths(members["streams"], limits) if "streams" in members else (),
        webhook_url=_webhook_url(members) if kind == "webhook" else None,
        wake_stream=_wake_stream(members, limits) if kind == "pull-wake" else None,
        lease_ttl_ms=_lease_ttl_ms(members),
        description=_description(members),
    )
    if config.pattern is None and not config.streams:
        raise InvalidConfig("pattern", "The subscription selects no stream. Send a pattern, or the names of streams.")
    _check_wake_stream(config)
    return config


def digest(config: SubscriptionConfig) -> bytes:
    """Return the SHA-256 of the canonical form of a normalized configuration."""
    return sha256(
        msgspec.json.encode(
            [
                config.type,
                config.pattern,
                config.streams,
                config.webhook_url,
                config.wake_stream,
                config.lease_ttl_ms,
                config.description,
            ]
        )
    ).digest()


def _delivery_type(members: dict[str, object]) -> DeliveryType:
    kind = members.get("type")
    if not isinstance(kind, str):
        raise InvalidSubscriptionRequest('type must be "webhook" or "pull-wake".')
    if kind not in ("webhook", "pull-wake"):
        raise InvalidConfig("type", f'type must be "webhook" or "pull-wake", not {kind[:64]!r}.')
    return cast(DeliveryType, kind)


def _text(members: dict[str, object], name: str) -> str | None:
    """Return an optional member that is a string."""
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidSubscriptionRequest(f"{name} must be a string.")
    return value


def _pattern(members: dict[str, object], limits: NameLimits) -> str | None:
    text = _text(members, "pattern")
    return parse_pattern(text, limits) if text is not None and text.strip("/") else None


def _webhook_url(members: dict[str, object]) -> str:
    webhook = members.get("webhook")
    if not isinstance(webhook, dict):
        raise InvalidSubscriptionRequest('webhook must be an object such as {"url": "https://worker.example/hook"}.')
    for name, value in webhook.items():
        if name != "url" and value is not None:
            raise InvalidConfig(f"webhook.{name}", f"There is no field {name[:64]!r} of webhook. Leave it out.")
    url = webhook.get("url")
    if not isinstance(url, str):
        raise InvalidSubscriptionRequest("webhook.url must be a string, the URL that receives wake notifications.")
    return url


def _wake_stream(members: dict[str, object], limits: NameLimits) -> str:
    path = _text(members, "wake_stream")
    if path is None:
        raise InvalidSubscriptionRequest("wake_stream must be a string, the name of the stream that gets wake events.")
    return normal_path(path, limits, "wake_stream")


def _check_wake_stream(config: SubscriptionConfig) -> None:
    path = config.wake_stream
    if path is None:
        return
    if path in config.streams or (config.pattern is not None and matches(config.pattern, path)):
        raise InvalidConfig(
            "wake_stream",
            f"The wake stream {path} is one of the subscription's own streams, so each wake would cause another. Use a "
            "wake stream that neither streams nor pattern select.",
        )


def _lease_ttl_ms(members: dict[str, object]) -> int:
    value = members.get("lease_ttl_ms", DEFAULT_LEASE_TTL_MS)
    if not is_integer(value):
        raise InvalidSubscriptionRequest("lease_ttl_ms must be an integer, in milliseconds.")
    number = int(cast(float, value))
    if not MIN_LEASE_TTL_MS <= number <= MAX_LEASE_TTL_MS:
        raise InvalidConfig(
            "lease_ttl_ms", f"lease_ttl_ms must be between {MIN_LEASE_TTL_MS} and {MAX_LEASE_TTL_MS} (milliseconds)."
        )
    return number


def _description(members: dict[str, object]) -> str | None:
    text = _text(members, "description")
    if text is not None and len(text.encode()) > MAX_DESCRIPTION_BYTES:
        raise InvalidConfig("description", f"description must not be longer than {MAX_DESCRIPTION_BYTES} bytes.")
    return text
