"""The list of streams: all of them, a page of them, or those that match, as JSON or NDJSON."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from msgspec import Struct

from ....errors import InvalidRequest
from ....model import StreamStatus
from ....protocol.content import media_type
from ....protocol.lifetimes import render_timestamp
from ....streams import Streams
from ...answers import Answer
from ...bodies import GeneratedBody
from ...pages import PageRequest
from ..app import Routes
from .heads import JSON_HEAD, NO_STORE
from .query import Query

#: How many streams are read and rendered at a time, which takes about a millisecond.
PAGE: Final = 128

#: The largest ``limit``. Such a page is rendered before it is sent, since a header has its last name.
MAX_LIMIT: Final = 1000

_PARAMETERS: Final = ("limit", "after", "prefix", "status", "content_type", "order")

_VARY: Final = b"Vary: Accept\r\n"
_JSON: Final = JSON_HEAD + _VARY
_NDJSON: Final = b"Content-Type: application/x-ndjson\r\n" + NO_STORE + _VARY

_NDJSON_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_QUALITY: Final = re.compile(r"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)


class ListEntry(Struct):
    """
    A stream in the list.

    :ivar message_count: always null: messages are not counted.
    :ivar total_bytes: all that a reader gets from the start, as it is stored: of JSON, each message and a comma.
    """

    name: str
    closed: bool
    message_count: int | None
    total_bytes: int
    content_type: str
    created_at: str
    updated_at: str
    ttl_seconds: int | None
    expires_at: str | None


class Selection(Struct, frozen=True):
    """
    Which streams are listed.

    :ivar after: only those whose name comes after this one; empty for all.
    :ivar prefix: only those whose name begins with it.
    :ivar closed: only those that are closed, or not closed; None for both.
    :ivar media_type: only those of this media type; None for all.
    """

    after: str = ""
    prefix: str = ""
    closed: bool | None = None
    media_type: str | None = None

    def matches(self, status: StreamStatus) -> bool:
        """Return whether a stream whose name is right is listed."""
        return (self.closed is None or status.closed is self.closed) and (
            self.media_type is None or status.facts.media_type == self.media_type
        )


def add_list(app: Routes, base_path: str, streams: Streams) -> None:
    """
    Add the list of streams.

    :param base_path: the path above it; the list is at ``/streams`` below.
    """

    @app.route(f"{base_path}/streams", methods=["GET", "HEAD"])
    async def streams_list(request: PageRequest) -> Answer:
        """Answer with a JSON array of streams, or with a line for each."""
        query = Query(request, _PARAMETERS)
        selection, limit = _selection_of(query), query.number("limit", MAX_LIMIT)
        as_lines = _prefers_lines(request)
        head = _NDJSON if as_lines else _JSON
        if limit is None:
            # Before the answer begins, an error of the storage still has a status.
            pages = select(streams, selection)
            first: list[StreamStatus] = await anext(pages, [])
            return Answer(200, head, GeneratedBody(_rendered(first, pages, as_lines), streams.turns))
        found, is_last = await _page_of(streams, selection, limit)
        if not is_last:
            head += query.next_page(found[-1].facts.name)
        return Answer(200, head, _lines(found) if as_lines else b"[%b]" % _items(found))


def _selection_of(query: Query) -> Selection:
    """
    Return which streams a request asks for.

    :raises InvalidRequest: a parameter is malformed.
    """
    status = query.word("status", ("open", "closed"))
    if query.text("order") not in ("", "name"):
        raise InvalidRequest("The parameter order must be name: streams are listed by name, ascending, only.")
    content_type = query.text("content_type")
    try:
        wanted = media_type(content_type) if content_type else None
    except InvalidRequest:
        raise InvalidRequest("The parameter content_type must be a media type, such as text/plain.") from None
    return Selection(query.text("after"), query.text("prefix"), status == "closed" if status else None, wanted)


def _prefers_lines(request: PageRequest) -> bool:
    """Return whether the client accepts NDJSON, and does not prefer JSON."""
    qualities: dict[str, float] = {}
    for item in (request.header(b"accept") or b"").decode("latin-1").split(","):
        kind, _, parameters = item.partition(";")
        quality = next(filter(None, map(_QUALITY.fullmatch, parameters.split(";"))), None)
        qualities[kind.strip().lower()] = 1.0 if quality is None else float(quality[1])
    lines = max(qualities.get(kind, 0) for kind in _NDJSON_TYPES)
    return lines > 0 and lines >= qualities.get("application/json", 0)


async def select(streams: Streams, selection: Selection) -> AsyncGenerator[list[StreamStatus], None]:
    """Yield the streams of a selection by name, at most :data:`PAGE` at a time, and not for longer than that."""
    async for page in streams.status_pages(selection.after, selection.prefix, PAGE):
        found = [status for status in page if selection.matches(status)]
        if found:
            yield found
        else:
            await streams.turns.turn()


async def _page_of(streams: Streams, selection: Selection, limit: int) -> tuple[list[StreamStatus], bool]:
    """Return at most ``limit`` streams of a selection, and whether there are no more after them."""
    found: list[StreamStatus] = []
    pages = select(streams, selection)
    async for page in pages:
        found += page
        if len(found) > limit:
            await pages.aclose()
            return found[:limit], False
        await streams.turns.turn()
    return found, True


async def _rendered(
    first: list[StreamStatus], pages: AsyncGenerator[list[StreamStatus], None], as_lines: bool
) -> AsyncGenerator[bytes, None]:
    """Render all pages, as fast as the client reads them."""
    if not as_lines:
        yield b"[%b" % _items(first)
    elif first:
        yield _lines(first)
    try:
        async for page in pages:
            yield _lines(page) if as_lines else b",%b" % _items(page)
    finally:
        await pages.aclose()
    if not as_lines:
        yield b"]"


def _items(page: list[StreamStatus]) -> bytes:
    # An array without its brackets.
    return msgspec.json.encode([_entry(status) for status in page])[1:-1]


def _lines(page: list[StreamStatus]) -> bytes:
    return msgspec.json.Encoder().encode_lines([_entry(status) for status in page])


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
