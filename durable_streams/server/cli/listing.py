"""The list of streams: its JSON objects, and its table of columns with a fixed width."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from rich.cells import cell_len, set_cell_size

from .terminal import printable

_NAME_WIDTH: Final = 30
_TYPE_WIDTH: Final = 24
_TIME_WIDTH: Final = 22
_RULE: Final = "-" * 132
_ELLIPSIS: Final = "..."
_UNITS: Final = (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10))


class ListedStream(Struct, frozen=True):
    """
    A stream of the list, as JSON. Times are RFC 3339 with ``+00:00``.

    :ivar status: ``open`` or ``closed``.
    :ivar message_count: None if the storage does not count messages.
    """

    name: str
    status: str
    message_count: int | None
    total_bytes: int
    content_type: str
    created_at: str
    updated_at: str | None
    ttl_seconds: int | None
    expires_at: str | None


def rfc3339(seconds: float) -> str:
    """Render seconds since 1970 with ``+00:00``, and milliseconds if they are not 0."""
    moment = datetime.fromtimestamp(round(seconds * 1000) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def table_head() -> str:
    """Return the titles of the columns and the rule below them."""
    return f"{_row('Name', 'Status', 'Messages', 'Bytes', 'Content-Type', 'Created', 'Updated')}\n{_RULE}\n"


def table_row(stream: ListedStream) -> str:
    """Return the line of a stream."""
    return _row(
        shorten(stream.name, _NAME_WIDTH),
        stream.status,
        "-" if stream.message_count is None else str(stream.message_count),
        amount(stream.total_bytes),
        shorten(stream.content_type, _TYPE_WIDTH),
        _time(stream.created_at),
        _time(stream.updated_at),
    )


def amount(size: int) -> str:
    """Return a number of bytes with its unit: 1,024 bytes are a KB."""
    for unit, bytes_of_unit in _UNITS:
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:.1f} {unit}"
    return f"{size} B"


def shorten(text: str, width: int) -> str:
    """
    Return a text without control characters that takes at most ``width`` columns of a terminal.

    Characters of Chinese, for example, take two columns, and combining ones none; no character is cut.
    """
    shown = printable(text, lines=False)
    if cell_len(shown) <= width:
        return shown
    return set_cell_size(shown, width - len(_ELLIPSIS)).rstrip() + _ELLIPSIS


def _row(*cells: str) -> str:
    name, status, messages, size, content_type, created, updated = cells
    return " ".join(
        (
            set_cell_size(name, _NAME_WIDTH),
            f"{status:<8}",
            f"{messages:>10}",
            f"{size:>12}",
            set_cell_size(content_type, _TYPE_WIDTH),
            set_cell_size(created, _TIME_WIDTH),
            set_cell_size(updated, _TIME_WIDTH),
        )
    )


def _time(moment: str | None) -> str:
    """Return a time in UTC without its fraction; ``-`` if there is none."""
    if moment is None:
        return "-"
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        # It is of a server.
        return shorten(moment, 19)
