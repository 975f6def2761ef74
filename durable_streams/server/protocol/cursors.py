"""Cursors, with which caches collapse the requests of live readers without loops (PROTOCOL section 10.1)."""

from __future__ import annotations

import re

#: The length of a cursor's interval, in seconds.
INTERVAL = 20

#: The start of interval 0: 2024-10-09T00:00:00Z, in seconds since 1970.
EPOCH = 1_728_432_000

#: The minimum and maximum, in seconds, by which a client's cursor is advanced if it is not behind the current one.
JITTER = (1, 3600)

_CURSOR = re.compile(r"[0-9]{1,18}")


def next_cursor(now: float, given: str | None, jitter: int) -> int:
    """
    Return the cursor for a live answer.

    :param given: the client's cursor; None or a malformed one if it has none.
    :param jitter: a random number of seconds within :data:`JITTER`.
    :returns: the number of the current interval; if the client's cursor is not less than that, a greater number than
        the client's.
    """
    current = max(0, int((now - EPOCH) // INTERVAL))
    if given is not None and _CURSOR.fullmatch(given) and int(given) >= current:
        return int(given) + max(1, jitter // INTERVAL)
    return current
