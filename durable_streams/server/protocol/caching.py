"""ETags of reads (PROTOCOL section 10.1)."""

from __future__ import annotations

import re

_ENTITY_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def etag_prefix(stream_id: int) -> bytes:
    """
    Return the beginning of all ETags of a stream.

    :param stream_id: unique per stream, so that equal ranges of two forks have different ETags.
    """
    return b'"%d:' % stream_id


def etag(prefix: bytes, start: int, end: int, closed: bool) -> bytes:
    """Return the ETag of a read: its range, and whether the stream was closed at its end."""
    return b'%b%d:%d:c"' % (prefix, start, end) if closed else b'%b%d:%d"' % (prefix, start, end)


def matches(if_none_match: bytes, tag: bytes) -> bool:
    """Return whether If-None-Match contains ``tag`` or is ``*`` (RFC 9110 section 13.1.2, weak comparison)."""
    if if_none_match == tag:
        return True
    return if_none_match.strip() == b"*" or tag in _ENTITY_TAG.findall(if_none_match)
