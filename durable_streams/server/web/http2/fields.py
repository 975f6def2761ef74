"""Validation of the header fields of HTTP/2 requests (RFC 9113 sections 8.2 and 8.3), and HPACK's static table."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

#: What a field counts for beside its name and its value (RFC 9113 section 6.5.2, RFC 7541 section 4.1).
FIELD_OVERHEAD: Final = 32

#: Kinds of fields.
MALFORMED: Final = 0
REGULAR: Final = 1
CONTENT_LENGTH: Final = 2
HOST: Final = 3
COOKIE: Final = 4
#: Kinds from here on are pseudo-header fields.
METHOD: Final = 5
SCHEME: Final = 6
AUTHORITY: Final = 7
PATH: Final = 8

#: Name, value, kind, and the size as RFC 7541 section 4.1 defines it.
Field: TypeAlias = tuple[bytes, bytes, int, int]

#: A field name (RFC 9113 section 8.2.1): no upper case, no white space, no colon.
_NAME: Final = re.compile(rb"[!-9;-@\[-~]+")

#: A field value: no NUL, CR or LF, and no white space at its ends.
_VALUE: Final = re.compile(rb"(?:[^\0\r\n \t](?:[^\0\r\n]*[^\0\r\n \t])?)?")

_NO_MATCH: Final = re.compile(rb"(?!)")

#: Values that a client may send with a name, where that is known.
_TRAILERS: Final = re.compile(rb"trailers", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"[0-9]{1,4000}")
_NOT_EMPTY: Final = re.compile(rb"[^\0\r\n \t](?:[^\0\r\n]*[^\0\r\n \t])?")

_SPECIAL: Final = {
    b":method": (METHOD, _VALUE),
    b":scheme": (SCHEME, _VALUE),
    b":authority": (AUTHORITY, _VALUE),
    b":path": (PATH, _NOT_EMPTY),
    b"content-length": (CONTENT_LENGTH, _DIGITS),
    b"host": (HOST, _VALUE),
    b"cookie": (COOKIE, _VALUE),
    b"te": (REGULAR, _TRAILERS),
    # Connection-specific fields (RFC 9113 section 8.2.2).
    b"connection": (MALFORMED, _NO_MATCH),
    b"keep-alive": (MALFORMED, _NO_MATCH),
    b"proxy-connection": (MALFORMED, _NO_MATCH),
    b"transfer-encoding": (MALFORMED, _NO_MATCH),
    b"upgrade": (MALFORMED, _NO_MATCH),
}

_ORDINARY: Final = REGULAR, _VALUE


def make_field(name: bytes, value: bytes) -> Field:
    """Make a field, of the kind :data:`MALFORMED` if no request may have it."""
    kind, values = _SPECIAL.get(name) or _ORDINARY
    if values.fullmatch(value) is None or (kind == REGULAR and _NAME.fullmatch(name) is None):
        kind = MALFORMED
    return name, value, kind, len(name) + len(value) + FIELD_OVERHEAD


#: HPACK's static table (RFC 7541 appendix A); its first field has the index 1.
_STATIC_TABLE: Final = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)

STATIC_FIELDS: Final[tuple[Field, ...]] = tuple(make_field(name, value) for name, value in _STATIC_TABLE)

#: Name -> its first index in the static table.
STATIC_NAMES: Final[dict[bytes, int]] = {
    name: index for index, (name, _) in reversed(list(enumerate(_STATIC_TABLE, 1)))
}
