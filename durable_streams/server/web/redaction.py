"""Queries without the signatures of signed URLs, for error documents, logs and traces."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

#: The parameter with the signature of a signed URL.
_SIGNATURE: Final = b"ds_sig"

#: How many times a pair may have been percent-encoded.
_ENCODINGS: Final = 3

#: The replacement of a signature.
REDACTED: Final = b"REDACTED"


def redacted_query(query: bytes) -> bytes:
    """
    Return a query in which the value of each signature is replaced.

    :param query: what follows the question mark, percent-encoded.
    """
    if b"ds" not in query.lower() and b"%" not in query:
        return query
    return b"&".join(map(_redacted, query.split(b"&")))


def redacted_name(name: str) -> str:
    """
    Return the name of a stream in which what looks like the signature of a signed URL is replaced.

    A client that encodes the question mark of a URL makes its query a part of the name.
    """
    if "?" not in name:
        return name
    path, _, query = name.partition("?")
    return f"{path}?{redacted_query(query.encode('utf-8', 'backslashreplace')).decode('utf-8', 'backslashreplace')}"


def _redacted(pair: bytes) -> bytes:
    key, equals, value = pair.partition(b"=")
    # Every spelling: a client may have written a name that the server does not read, or have encoded a query twice.
    name = _decoded(key).lower()
    if _SIGNATURE in name and (equals or b"=" in name):
        return REDACTED if b"=" in name else key + equals + REDACTED
    return key + equals + REDACTED if _SIGNATURE + b"=" in _decoded(value).lower() else pair


def _decoded(text: bytes) -> bytes:
    for _ in range(_ENCODINGS):
        text = unquote_to_bytes(text)
    return text
