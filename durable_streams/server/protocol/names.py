"""Parsing, validation and quoting of stream names."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from ..errors import EmptyName, InvalidName

#: The first segment of paths that the protocol reserves (PROTOCOL section 6).
RESERVED_SEGMENT = "__ds"

#: What reserved names begin with. A storage lists no stream of such a name.
RESERVED_PREFIX = f"{RESERVED_SEGMENT}/"

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class NameLimits(Struct, frozen=True, gc=False):
    """The maximum length of a name, in bytes of UTF-8, and its maximum number of segments."""

    name_bytes: int = 1024
    segments: int = 8


def parse_name(path: bytes, limits: NameLimits) -> str:
    """
    Return the stream's name from the part of a URL's path after the base path.

    The path is percent-decoded once, so ``%2F`` separates segments as ``/`` does.

    :raises InvalidName: the path is not a valid name; the message says why.
    """
    if _BAD_ESCAPE.search(path):
        raise InvalidName("A % in a stream's name must be followed by two hexadecimal digits.")
    try:
        name = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise InvalidName("A stream's name must be UTF-8 once percent-decoded.") from None
    check_name(name, limits)
    return name


def is_reserved(path: bytes) -> bool:
    """Return whether the part of a URL's path after the base path is in the reserved segment."""
    return unquote_to_bytes(path).partition(b"/")[0] == RESERVED_SEGMENT.encode()


def check_name(name: str, limits: NameLimits) -> None:
    """
    Check that a text is a valid stream name.

    :raises InvalidName: the name is invalid; the message says why.
    :raises EmptyName: the name is empty.
    """
    segments = name.split("/")
    if not name:
        raise EmptyName("The path has no stream name.")
    if segments[0] == RESERVED_SEGMENT:
        raise InvalidName(f"Names that begin with {RESERVED_SEGMENT} are reserved for the protocol.")
    for segment in segments:
        if segment in ("", ".", ".."):
            raise InvalidName("A stream's name must not have an empty, . or .. segment, nor begin or end with a slash.")
    if _CONTROL.search(name):
        raise InvalidName("A stream's name must not have control characters.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName("A stream's name must be Unicode without lone surrogates.") from None
    if size > limits.name_bytes:
        raise InvalidName(
            f"A stream's name must not be longer than {limits.name_bytes} bytes (limits.max_stream_name_bytes)."
        )
    if len(segments) > limits.segments:
        raise InvalidName(
            f"A stream's name must not have more than {limits.segments} segments (limits.max_stream_name_segments)."
        )


def quote_name(name: str) -> bytes:
    """Percent-encode a name for a URL's path."""
    return quote(name, safe="/-._~!$&'()*+,;=:@").encode()
