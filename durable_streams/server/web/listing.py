"""The list of all streams, for operators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from klein import Klein
from msgspec import Struct
from twisted.web.iweb import IRequest

from ..errors import StreamsError
from ..interfaces import settle
from ..model import StreamStatus
from ..protocol.lifetimes import render_timestamp
from ..streams import Streams
from .answers import Answers
from .app import say_problem

_HEADERS: Final = (
    (b"Content-Type", b"application/json"),
    (b"Cache-Control", b"no-store"),
)


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


def add_list(app: Klein, base_path: str, streams: Streams, answers: Answers) -> None:
    """
    Have the list served.

    :param base_path: the path above it; the list is at ``/streams`` below.
    """

    @app.route(f"{base_path}/streams", methods=["GET", "HEAD"])
    async def listed(request: IRequest) -> bytes:
        try:
            statuses = await settle(streams.statuses())
        except StreamsError as error:
            return say_problem(request, answers, error)
        for name, value in _HEADERS:
            request.setHeader(name, value)
        return render_list(statuses)


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
