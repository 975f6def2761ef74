"""The list of all streams, for operators."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from msgspec import Struct

from ....errors import InvalidRequest
from ....interfaces import settle
from ....model import StreamStatus
from ....protocol.lifetimes import render_timestamp
from ....streams import Streams
from ...answers import Answer
from ...bodies import GeneratedBody
from ...pages import PageRequest
from ..app import Routes

#: How many streams are read and rendered at a time, which takes about a millisecond.
_PAGE: Final = 128

_LIMIT: Final = re.compile(rb"[1-9][0-9]{0,8}")

_HEAD: Final = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"


class ListEntry(Struct):
    """
    A stream in the list.

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


def add_list(app: Routes, base_path: str, streams: Streams) -> None:
    """
    Add the list of streams.

    :param base_path: the path above it; the list is at ``/streams`` below.
    """

    @app.route(f"{base_path}/streams", methods=["GET", "HEAD"])
    async def streams_list(request: PageRequest) -> Answer:
        """Answer with a JSON array of streams."""
        after, limit = _read_query(request)
        # Before the answer begins, an error of the storage still has a status.
        first = await settle(streams.statuses(after, min(limit, _PAGE)))
        return Answer(200, _HEAD, GeneratedBody(_render(streams, first, limit), streams.turns))


def _read_query(request: PageRequest) -> tuple[str, int]:
    """
    Return the name after which the list begins, and its maximum length.

    :raises InvalidRequest: a parameter is malformed.
    """
    arguments = request.arguments()
    for name in (b"after", b"limit"):
        if len(arguments.get(name, ())) > 1:
            raise InvalidRequest(f"The parameter {name.decode()} was sent twice. Send it once.")
    try:
        after = arguments.get(b"after", [b""])[0].decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The parameter after must be a stream's name: UTF-8, percent-encoded.") from None
    limit = arguments.get(b"limit", [b""])[0]
    if limit and not _LIMIT.fullmatch(limit):
        raise InvalidRequest("The parameter limit must be a number from 1 to 999999999.")
    return after, int(limit) if limit else sys.maxsize


async def _render(streams: Streams, page: list[StreamStatus], left: int) -> AsyncGenerator[bytes, None]:
    """
    Render the array a page at a time.

    :param page: the first page.
    :param left: the maximum number of streams.
    """
    begin = b"["
    while page:
        # An array without its brackets.
        yield begin + msgspec.json.encode([_entry(status) for status in page])[1:-1]
        begin = b","
        left -= len(page)
        if len(page) < _PAGE or not left:
            break
        page = await settle(streams.statuses(page[-1].facts.name, min(left, _PAGE)))
    yield b"]" if begin == b"," else b"[]"


def _entry(status: StreamStatus) -> ListEntry:
    lifetime = status.lifetime
    return ListEntry(
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
