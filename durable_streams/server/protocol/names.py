"""Which paths name a stream, and which name."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from ..errors import EmptyName, InvalidName

#: The first segment that belongs to the protocol itself (PROTOCOL section 6).
RESERVED_SEGMENT = "__ds"

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class NameLimits(Struct, frozen=True, gc=False):
    """How long a name may be, in bytes of its UTF-8 form, and of how many segments."""

    name_bytes: int = 1024
    segments: int = 8


def parse_name(path: bytes, limits: NameLimits) -> str:
    """
    Take a stream's name from the part of a URL's path that follows the base path.

    It is percent-decoded once, so ``%2F`` separates segments as ``/`` does.

    :raises InvalidName: it names no stream; the message says why.
    """
    if _BAD_ESCAPE.search(path):
        raise InvalidName("A % in a stream's name must be followed by two hexadecimal digits.")
    try:
        name = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise InvalidName("A stream's name must be UTF-8 once percent-decoded.") from None
    check_name(name, limits)
    return name


def check_name(name: str, limits: NameLimits) -> None:
    """
    Refuse what is no stream's name.

    :raises InvalidName: the message says why; :exc:`.EmptyName` if there is none.
    """
    segments = name.split("/")
    if not name:
        raise EmptyName("The path names no stream.")
    if segments[0] == RESERVED_SEGMENT:
        raise InvalidName(f"Names that begin with {RESERVED_SEGMENT} are the protocol's own.")
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
        raise InvalidName(f"A stream's name must not be longer than {limits.name_bytes} bytes.")
    if len(segments) > limits.segments:
        raise InvalidName(f"A stream's name must not have more than {limits.segments} segments.")


def quote_name(name: str) -> bytes:
    """Write a name as it stands in a URL's path."""
    return quote(name, safe="/-._~!$&'()*+,;=:@").encode()
