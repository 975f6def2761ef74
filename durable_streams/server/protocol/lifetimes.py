"""Stream-TTL and Stream-Expires-At: parsing, rendering, and deadlines (PROTOCOL section 5.1)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ..errors import InvalidRequest
from ..model import FOREVER, Lifetime

#: The longest Stream-TTL, in seconds: the largest integer that every JSON parser represents exactly.
MAX_TTL = 2**53 - 1

_TTL = re.compile(r"0|[1-9][0-9]{0,15}")
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,18})?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH).total_seconds()
_LAST = (datetime.max.replace(tzinfo=UTC, microsecond=999_000) - _EPOCH).total_seconds()


def parse_lifetime(ttl: str | None, expires_at: str | None) -> Lifetime:
    """
    Parse Stream-TTL and Stream-Expires-At, of which at most one may be given.

    :raises InvalidRequest: both are given, or the given one is malformed.
    """
    if ttl is not None:
        if expires_at is not None:
            raise InvalidRequest("Send either Stream-TTL or Stream-Expires-At, not both.")
        return Lifetime(ttl=parse_ttl(ttl))
    if expires_at is not None:
        return Lifetime(expires_at=parse_timestamp(expires_at))
    return FOREVER


def parse_ttl(text: str) -> int:
    """
    Parse Stream-TTL, in seconds.

    :raises InvalidRequest: it is not an integer in plain digits without leading zeros, or it is too large.
    """
    if _TTL.fullmatch(text) is None or int(text) > MAX_TTL:
        raise InvalidRequest(
            f"Stream-TTL must be whole seconds in plain digits, without leading zeros, up to {MAX_TTL}."
        )
    return int(text)


def parse_timestamp(text: str) -> float:
    """
    Parse an RFC 3339 time and return it as seconds since 1970.

    :raises InvalidRequest: it is malformed, or the time does not exist.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise InvalidRequest("Stream-Expires-At must be an RFC 3339 time, such as 2030-01-31T12:00:00Z.")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    leap = second == 60
    try:
        moment = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC)
        offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
        if offset >= timedelta(days=1) or int(match[10] or 0) > 59:
            raise ValueError(text)
    except ValueError:
        raise InvalidRequest("Stream-Expires-At is a time that does not exist.") from None
    # Add the fraction last, so that one time is the same float in every time zone.
    distance = moment - _EPOCH + (offset if match[8] == "-" else -offset)
    return distance // timedelta(seconds=1) + leap + float(match[7] or 0)


def render_timestamp(seconds: float) -> str:
    """
    Render seconds since 1970 as an RFC 3339 time in UTC, with milliseconds if they are not 0.

    A time outside the years 1 to 9999, as one in another time zone may be by a day, is rendered as their first or last.
    """
    moment = _EPOCH + timedelta(milliseconds=round(min(max(seconds, _FIRST), _LAST) * 1000))
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def deadline(lifetime: Lifetime, used_at: float) -> float:
    """Return when a stream that was last used at ``used_at`` expires; infinity if it does not expire."""
    if lifetime.ttl is not None:
        return used_at + lifetime.ttl
    if lifetime.expires_at is not None:
        return lifetime.expires_at
    return float("inf")
