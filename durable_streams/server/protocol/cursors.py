"""Cursors, which let caches collapse live readers and never loop (PROTOCOL section 10.1)."""

from __future__ import annotations

import re

#: How long one cursor lasts, in seconds.
INTERVAL = 20

#: When the intervals are counted from: 2024-10-09T00:00:00Z, in seconds since 1970.
EPOCH = 1_728_432_000

#: How far, in seconds, a cursor that a client is ahead with may be moved on.
JITTER = (1, 3600)

_CURSOR = re.compile(r"[0-9]{1,18}")


def next_cursor(now: float, given: str | None, jitter: int) -> int:
    """
    Choose the cursor for a live answer.

    :param given: the client's; what is not a number counts as none.
    :param jitter: a random number of seconds within :data:`JITTER`.
    :returns: the current interval's number, or one greater than the client's where that is as great already.
    """
    current = max(0, int((now - EPOCH) // INTERVAL))
    if given is not None and _CURSOR.fullmatch(given) and int(given) >= current:
        return int(given) + max(1, jitter // INTERVAL)
    return current
