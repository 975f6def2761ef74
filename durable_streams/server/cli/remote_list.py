"""The list of streams of a running server, read as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from .errors import CommandError
from .listing import ListedStream

if TYPE_CHECKING:
    from ..client.http import Answer

#: Preferred: one stream a line. Servers that do not know it send a JSON array.
ACCEPT: Final = "application/x-ndjson, application/json;q=0.5"

#: The longest entry, in bytes.
_MAX_ENTRY: Final = 1_048_576


class _Entry(Struct):
    """A stream as the page describes it."""

    name: str
    closed: bool
    total_bytes: int
    content_type: str
    created_at: str
    message_count: int | None = None
    updated_at: str | None = None
    ttl_seconds: int | None = None
    expires_at: str | None = None


_decode: Final = msgspec.json.Decoder(_Entry).decode


async def pages_of(answer: Answer) -> AsyncIterator[list[ListedStream]]:
    """
    Read the streams of an answer as they arrive.

    :raises CommandError: the answer is no list of streams.
    :raises ClientError: the answer is broken off, or the server is silent for too long.
    """
    from ..client.values import media_type  # noqa: PLC0415 (imports Twisted, which --help does not need)

    is_lines = media_type(answer.header("content-type") or "") == "application/x-ndjson"
    try:
        texts = _lines(answer.body) if is_lines else _elements(answer.body)
        async for page in texts:
            yield [_listed(_decode(text)) for text in page]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_list(str(error)) from None


async def _lines(body: Any) -> AsyncIterator[list[bytes]]:
    rest = b""
    async for piece in body:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _MAX_ENTRY:
            raise _no_list(f"it has a line of more than {_MAX_ENTRY} bytes")
        if lines:
            yield [line for line in lines if line.strip()]
    if rest.strip():
        yield [rest]


async def _elements(body: Any) -> AsyncIterator[list[bytes]]:
    from ..client import InvalidAnswer  # noqa: PLC0415 (imports Twisted, which --help does not need)
    from ..client.arrays import ArraySplitter  # noqa: PLC0415 (as above)

    splitter = ArraySplitter(_MAX_ENTRY)
    try:
        async for piece in body:
            elements = splitter.feed(piece)
            if elements:
                yield elements
        yield splitter.finish()
    except InvalidAnswer:
        raise _no_list("it is not a JSON array") from None


def _listed(entry: _Entry) -> ListedStream:
    return ListedStream(
        entry.name,
        "closed" if entry.closed else "open",
        entry.message_count,
        entry.total_bytes,
        entry.content_type,
        _with_offset(entry.created_at),
        None if entry.updated_at is None else _with_offset(entry.updated_at),
        entry.ttl_seconds,
        None if entry.expires_at is None else _with_offset(entry.expires_at),
    )


def _with_offset(time: str) -> str:
    return f"{time[:-1]}+00:00" if time.endswith("Z") else time


def _no_list(reason: str) -> CommandError:
    return CommandError(
        f"The answer is no list of streams: {reason}. Check that --url is the URL of the list, such as "
        "http://HOST:PORT/admin/streams."
    )
