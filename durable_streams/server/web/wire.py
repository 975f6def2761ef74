"""Constants of HTTP/1.1's framing, and the paths of streams."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

#: Statuses whose answers have no body, nor a length.
BODILESS: Final = frozenset([204, 304])

#: Status lines, ready to send.
STATUS_LINES: Final[dict[int, bytes]] = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}

#: Paths that are never a stream's, even where streams have all the others.
PROBES: Final = frozenset([b"/healthz", b"/readyz", b"/metrics"])

#: The prefix of the paths of streams where there are none: a path has no line break.
NO_STREAMS: Final = b"\n"

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE: Final = b"Connection: close\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"


def below(base_path: str) -> bytes:
    """Return the prefix that the paths of all streams have."""
    return base_path.rstrip("/").encode() + b"/"


def is_stream(path: bytes, base: bytes) -> bool:
    """
    Return whether a path is that of a stream.

    :param path: with or without its query.
    :param base: the prefix of the paths of streams.
    """
    return path.startswith(base) and (base != b"/" or path.partition(b"?")[0] not in PROBES)
