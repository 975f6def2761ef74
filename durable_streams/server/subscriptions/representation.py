"""The JSON values of answers and webhooks, to be encoded as they are."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from .decisions import Current
from .model import Acked, Claimed, DeliverWebhook, Snapshot, SnapshotEntry

#: The maximum number of streams in one representation.
MAX_STREAMS_SHOWN = 1000


def jwks_url(base_url: str) -> str:
    """
    Return the URL of the public signing keys.

    :param base_url: the subscription's origin with the base path, such as ``https://streams.example/v1/stream``.
    """
    return f"{base_url}/__ds/jwks.json"


def callback_url(base_url: str, subscription_id: str) -> str:
    """Return the URL to which the receiver of a webhook sends acks."""
    return f"{base_url}/__ds/subscriptions/{quote(subscription_id, safe='')}/callback"


def described(current: Current, base_url: str, kid: str, after: str = "") -> dict[str, object]:
    """
    Return the representation of a subscription, with at most 1,000 of its streams, sorted by path.

    :param kid: the id of the active signing key.
    :param after: streams up to this path are left out.
    """
    subscription, config = current.subscription, current.subscription.config
    links = current.links
    paths = links.page(after, MAX_STREAMS_SHOWN + 1)
    streams = []
    for path in paths[:MAX_STREAMS_SHOWN]:
        link = links.get(path)
        if link is not None:
            offset = link.acked_offset(links.tail(path))
            streams.append({"path": path, "link_type": link.link_type, "acked_offset": offset})
    signing = {"alg": "ed25519", "kid": kid, "jwks_url": jwks_url(base_url)}
    webhook = {"url": config.webhook_url, "signing": signing} if config.type == "webhook" else None
    value: dict[str, object] = {
        "id": subscription.id,
        "subscription_id": subscription.id,
        "type": config.type,
        "pattern": config.pattern,
        "streams": streams,
        "webhook": webhook,
        "wake_stream": config.wake_stream,
        "lease_ttl_ms": config.lease_ttl_ms,
        "created_at": timestamp(subscription.created_at),
        "status": current.state.status,
        "description": config.description,
    }
    if len(paths) > MAX_STREAMS_SHOWN:
        value["streams_truncated"] = True
    return value


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def webhook_body(subscription_id: str, delivery: DeliverWebhook, callback: str, token: str) -> bytes:
    """
    Return the body of a webhook request. It is the same for each attempt of a wake if the token is.

    :param callback: the URL of :func:`callback_url`.
    """
    return msgspec.json.encode(
        {
            "subscription_id": subscription_id,
            "wake_id": delivery.wake_id,
            "generation": delivery.generation,
            "streams": _streams(delivery.snapshot),
            "callback_url": callback,
            "callback_token": token,
        }
    )


def claimed(claim: Claimed, token: str) -> dict[str, object]:
    """Return the answer to a claim."""
    return {
        "wake_id": claim.wake_id,
        "generation": claim.generation,
        "token": token,
        "streams": _streams(claim.snapshot),
        "lease_ttl_ms": claim.lease_ttl_ms,
    }


def acked(answer: Acked) -> dict[str, object]:
    """Return the answer to an ack or a callback."""
    return {"ok": True, "next_wake": answer.next_wake}


def _streams(snapshot: Snapshot) -> list[dict[str, object]]:
    return list(_entries(snapshot.entries))


def _entries(entries: Iterable[SnapshotEntry]) -> Iterable[dict[str, object]]:
    for entry in entries:
        yield {
            "path": entry.path,
            "link_type": entry.link_type,
            "acked_offset": entry.acked_offset,
            "tail_offset": entry.tail_offset,
            "has_pending": entry.has_pending,
        }
