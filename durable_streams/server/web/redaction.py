"""Queries without the signatures of signed URLs, for error documents, logs and traces."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

#: The parameter with the signature of a signed URL.
_SIGNATURE: Final = b"ds_sig"

#: What stands in the place of a signature.
REDACTED: Final = b"REDACTED"


def redacted_query(query: bytes) -> bytes:
    """
    Return a query in which the value of each signature is replaced.

    :param query: what follows the question mark, percent-encoded.
    """
    if b"ds" not in query.lower() and b"%" not in query:
        return query
    return b"&".join(map(_redacted, query.split(b"&")))


def _redacted(pair: bytes) -> bytes:
    key, equals, _ = pair.partition(b"=")
    # Every spelling: a client may have written a name that the server does not read.
    return key + equals + REDACTED if equals and _SIGNATURE in unquote_to_bytes(key).lower() else pair
