"""Content types: parsing, comparison, and the modes that depend on them (PROTOCOL section 9)."""

from __future__ import annotations

import re

from ..errors import InvalidRequest

#: The content type of a stream that is created without a Content-Type header.
DEFAULT_TYPE = "application/octet-stream"

#: The only type with JSON mode. Streams of types such as ``application/x+json`` are byte streams.
JSON_TYPE = "application/json"

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"({_WORD}/{_WORD})[ \t]*(?:;[\t\x20-\x7e]*)?")


def media_type(content_type: str) -> str:
    """
    Return the media type of a Content-Type header in lower case, without parameters, for comparison.

    :raises InvalidRequest: the header is not a media type.
    """
    match = _MEDIA_TYPE.fullmatch(content_type)
    if match is None:
        raise InvalidRequest("Content-Type must be a media type, such as application/json or text/plain.")
    return match[1].lower()


def is_text(media: str) -> bool:
    """Return whether Server-Sent Events carry a type as text; all others use base64 (PROTOCOL section 5.8)."""
    return media == JSON_TYPE or media.startswith("text/")
