"""The list of all streams, for operators."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from ..model import StreamStatus
from ..protocol.lifetimes import render_timestamp


class Listed(Struct):
    """
    What is said of a stream.

    :ivar message_count: always null: messages are not counted.
    :ivar total_bytes: all that a reader gets from the start, as it is stored: of JSON, each message and a comma.
    """

    name: str
    closed: bool
    message_count: None
    total_bytes: int
    content_type: str
    created_at: str
    updated_at: str
    ttl_seconds: int | None
    expires_at: str | None


def render_list(statuses: Iterable[StreamStatus]) -> bytes:
    """Write a JSON array of all streams, in the order of their names."""
    return msgspec.json.encode([_listed(status) for status in statuses])


def _listed(status: StreamStatus) -> Listed:
    lifetime = status.lifetime
    return Listed(
        status.facts.name,
        status.closed,
        None,
        status.tail,
        status.facts.content_type,
        render_timestamp(status.created_at),
        render_timestamp(status.updated_at),
        lifetime.ttl,
        None if lifetime.expires_at is None else render_timestamp(lifetime.expires_at),
    )
