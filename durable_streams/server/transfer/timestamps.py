"""Times of transfer documents: RFC 3339 in UTC, with 0, 3 or 6 digits of a second's fraction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = Decimal((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1))
_LAST = Decimal((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1))
_MICROSECOND = Decimal("0.000001")


def render_time(seconds: float) -> str:
    """
    Render seconds since 1970 to the microsecond, without digits that are 0.

    A time outside the years 1 to 9999 is rendered as their first or last second.
    """
    exact = min(max(Decimal(repr(seconds)), _FIRST), _LAST).quantize(_MICROSECOND)
    moment = _EPOCH + timedelta(microseconds=int(exact / _MICROSECOND))
    precision = "seconds" if not moment.microsecond else "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
