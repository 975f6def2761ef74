"""The transfer document: its values, and its text.

The text is what serde_json's pretty printer makes of the document of the Rust server: keys in a fixed order, two spaces
for each level, no newline at the end.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from typing import Final

from msgspec import Struct

from .timestamps import render_time

#: The only version of the format.
FORMAT_VERSION: Final = 1


class StreamEntry(Struct, frozen=True):
    """
    A stream of a document, without its messages. Times are seconds since 1970.

    :ivar content_type: the media type; an export writes it in lower case without parameters.
    :ivar ttl: in seconds; None if the stream has none.
    :ivar expires_at: the absolute expiry, or what the TTL amounts to at the export; None if there is none.
    :ivar created_closed: whether the stream was created closed, which a later create request is compared with.
    :ivar closed: whether the stream is closed.
    """

    name: str
    content_type: str
    ttl: int | None = None
    expires_at: float | None = None
    created_closed: bool = False
    closed: bool = False


class EntryFigures(Struct, frozen=True):
    """
    What an export writes of a stream besides, and an import ignores.

    :ivar updated_at: None if nothing was appended after the creation.
    :ivar total_bytes: the bytes of all messages.
    """

    created_at: float
    updated_at: float | None
    total_bytes: int
    message_count: int


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _time(value: float | None) -> str:
    return "null" if value is None else f'"{render_time(value)}"'


def _flag(value: bool) -> str:
    return "true" if value else "false"


def position(messages: int, size: int) -> str:
    """Render a position as the Rust server's offset: so many messages, and their bytes, are before it."""
    return f"{messages:016x}_{size:016x}"


def document_start(exported_at: float, server_version: str) -> bytes:
    """Return the document up to its first stream."""
    return (
        f'{{\n  "format_version": {FORMAT_VERSION},\n  "exported_at": {_time(exported_at)},\n'
        f'  "server_version": {_text(server_version)},\n  "streams": ['
    ).encode()


def document_end(streams: int) -> bytes:
    """Return the end of a document of so many streams."""
    return b"\n  ]\n}" if streams else b"]\n}"


def stream_start(entry: StreamEntry, figures: EntryFigures, first: bool) -> bytes:
    """
    Return a stream up to its first message.

    :param first: whether it is the document's first stream.
    """
    return (
        f"{'' if first else ','}\n    {{\n"
        f'      "name": {_text(entry.name)},\n'
        f'      "config": {{\n'
        f'        "content_type": {_text(entry.content_type)},\n'
        f'        "ttl_seconds": {"null" if entry.ttl is None else entry.ttl},\n'
        f'        "expires_at": {_time(entry.expires_at)},\n'
        f'        "created_closed": {_flag(entry.created_closed)}\n'
        f"      }},\n"
        f'      "closed": {_flag(entry.closed)},\n'
        f'      "created_at": {_time(figures.created_at)},\n'
        f'      "updated_at": {_time(figures.updated_at)},\n'
        f'      "total_bytes": {figures.total_bytes},\n'
        f'      "message_count": {figures.message_count},\n'
        f'      "next_offset": "{position(figures.message_count, figures.total_bytes)}",\n'
        f'      "messages": ['
    ).encode()


def stream_end(messages: int) -> bytes:
    """Return the end of a stream of so many messages."""
    return b"\n      ]\n    }" if messages else b"]\n    }"


def message_start(number: int, start: int) -> bytes:
    """
    Return a message up to its data.

    :param number: how many messages are before it.
    :param start: how many bytes these have.
    """
    return (
        f'{"," if number else ""}\n        {{\n          "offset": "{position(number, start)}",\n'
        f'          "data_base64": "'
    ).encode()


#: The rest of a message, after its data.
MESSAGE_END: Final = b'"\n        }'


def message(number: int, start: int, data: bytes) -> bytes:
    """Return a whole message; see :func:`message_start`."""
    return b"%b%b%b" % (message_start(number, start), b2a_base64(data, newline=False), MESSAGE_END)
