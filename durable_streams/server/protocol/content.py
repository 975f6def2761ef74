"""Content types: how they compare, and what follows from them (PROTOCOL section 9)."""

from __future__ import annotations

import re

from ..errors import InvalidRequest

#: What a stream that is created without a Content-Type has.
DEFAULT_TYPE = "application/octet-stream"

#: The one type whose messages have boundaries. Others that end in ``+json`` are bytes like any other.
JSON_TYPE = "application/json"

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"({_WORD}/{_WORD})[ \t]*(?:;[\t\x20-\x7e]*)?")


def media_type(content_type: str) -> str:
    """
    Take from a Content-Type what is compared: the type, in lower case, without its parameters.

    :raises InvalidRequest: it is not a media type.
    """
    match = _MEDIA_TYPE.fullmatch(content_type)
    if match is None:
        raise InvalidRequest("Content-Type must be a media type, such as application/json or text/plain.")
    return match[1].lower()


def is_text(media: str) -> bool:
    """Tell whether Server-Sent Events carry a type as it is; all others go in base64 (PROTOCOL section 5.8)."""
    return media == JSON_TYPE or media.startswith("text/")
