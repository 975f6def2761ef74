"""ETags (PROTOCOL section 10.1)."""

from __future__ import annotations


def etag(stream_id: int, start: int, end: int, closed: bool) -> bytes:
    """
    Name what a read answered: the range, and whether the stream was closed at its end.

    :param stream_id: differs even between forks of one source, whose ranges may read the same and not be.
    """
    return b'"%d:%d:%d:c"' % (stream_id, start, end) if closed else b'"%d:%d:%d"' % (stream_id, start, end)


def matches(if_none_match: bytes, tag: bytes) -> bool:
    """Tell whether a reader has what ``tag`` names already (RFC 9110 section 13.1.2, weak comparison)."""
    if if_none_match == tag:
        return True
    candidates = [candidate.strip() for candidate in if_none_match.split(b",")]
    return b"*" in candidates or tag in candidates or b"W/" + tag in candidates
