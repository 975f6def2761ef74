"""Stream-TTL and Stream-Expires-At: how they are written, and when they are over (PROTOCOL section 5.1)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ..errors import InvalidRequest
from ..model import FOREVER, Lifetime

#: The longest Stream-TTL, in seconds: the largest whole number that every JSON reader keeps.
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
    Read the two headers, of which there may be one.

    :raises InvalidRequest: there are both, or the one there is can't be understood.
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
    Read a number of seconds.

    :raises InvalidRequest: it has a sign, a leading zero, a point, anything but digits, or is too large.
    """
    if _TTL.fullmatch(text) is None or int(text) > MAX_TTL:
        raise InvalidRequest(
            f"Stream-TTL must be whole seconds in plain digits, without leading zeros, up to {MAX_TTL}."
        )
    return int(text)


def parse_timestamp(text: str) -> float:
    """
    Read an RFC 3339 time, as seconds since 1970.

    :raises InvalidRequest: it is not one, or names a time that does not exist.
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
        raise InvalidRequest("Stream-Expires-At names a time that does not exist.") from None
    # The fraction comes last, so that a moment is the same number in whichever zone it is written.
    distance = moment - _EPOCH + (offset if match[8] == "-" else -offset)
    return distance // timedelta(seconds=1) + leap + float(match[7] or 0)


def render_timestamp(seconds: float) -> str:
    """
    Write seconds since 1970 as an RFC 3339 time in UTC, with milliseconds where there are any.

    What is outside the years 1 to 9999, as a time in another zone may be by a day, is written as their first or last.
    """
    moment = _EPOCH + timedelta(milliseconds=round(min(max(seconds, _FIRST), _LAST) * 1000))
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def deadline(lifetime: Lifetime, used_at: float) -> float:
    """Say when a stream that was last used at ``used_at`` is over; infinity for one that never is."""
    if lifetime.ttl is not None:
        return used_at + lifetime.ttl
    if lifetime.expires_at is not None:
        return lifetime.expires_at
    return float("inf")
