"""The claims of a token: which must be there, and what they say about the principal (RFC 7519 section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..claims import claim_texts, find_claim
from .errors import TokenRefused
from .settings import JwtSettings

#: The latest date, in UNIX seconds: beyond it, floats do not have each second.
_MAX_DATE: Final = 2**53

#: The longest subject, and the longest group, in characters.
_MAX_NAME: Final = 512

#: Claims whose one string is a list, separated by blanks (RFC 8693 section 4.2).
_SCOPES: Final = frozenset({"scope", "scp"})


def check_claims(claims: Mapping[str, object], settings: JwtSettings, now: float) -> float:
    """
    Check the registered claims and the required ones.

    :param now: the wall clock's time, in UNIX seconds.
    :returns: when the token ceases to be valid, with the leeway, in UNIX seconds.
    :raises TokenRefused: the token is not valid now, or not for this server.
    """
    expires_at = _date(claims, "exp")
    if expires_at is None:
        raise TokenRefused("The token has no exp.")
    expires_at += settings.leeway_secs
    if expires_at <= now:
        raise TokenRefused("The token has expired.")
    for name in ("nbf", "iat"):
        date = _date(claims, name)
        if date is not None and date > now + settings.leeway_secs:
            raise TokenRefused(f"The token is not yet valid ({name}).")
    if settings.issuer is not None and claims.get("iss") != settings.issuer:
        raise TokenRefused("The token is of another issuer (iss).")
    _check_audience(claims, settings)
    for required in settings.required_claims:
        path, equals, wanted = required.partition("=")
        found = find_claim(claims, path)
        if found is None or (equals and wanted not in claim_texts(found)):
            # The claim's name is a setting, which may have any characters.
            raise TokenRefused("The token lacks a required claim, or the claim has another value.")
    return expires_at


def _date(claims: Mapping[str, object], name: str) -> float | None:
    """Return a date in UNIX seconds, or None."""
    if name not in claims:
        return None
    value = claims[name]
    # A boolean is an int; of NaN and infinities the comparison is false.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_DATE:
        raise TokenRefused(f"The {name} of the token is not a date: seconds since 1970, as a number.")
    return float(value)


def _check_audience(claims: Mapping[str, object], settings: JwtSettings) -> None:
    value = claims.get("aud")
    if "aud" not in claims and not settings.audience:
        return
    audiences = [value] if isinstance(value, str) else value
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise TokenRefused("The token has no aud, or it is not a string or a list of strings.")
    if not set(audiences) & set(settings.audience):
        raise TokenRefused("The token is for another audience (aud).")


def subject_of(claims: Mapping[str, object], settings: JwtSettings) -> str:
    """
    Return the principal's subject.

    :raises TokenRefused: it is missing, not a string, empty, too long, or has control characters.
    """
    subject = find_claim(claims, settings.subject_claim)
    if not _is_name(subject):
        raise TokenRefused(f"The subject of the token is not a string of 1 to {_MAX_NAME} printable characters.")
    return str(subject)


def groups_of(claims: Mapping[str, object], settings: JwtSettings) -> frozenset[str]:
    """
    Return the principal's groups; none if the claim is missing or null.

    :raises TokenRefused: the claim is neither a string nor a list of strings.
    """
    found = find_claim(claims, settings.groups_claim)
    if found is None:
        return frozenset()
    if isinstance(found, str):
        found = found.split() if settings.groups_claim.rpartition(".")[2] in _SCOPES else [found]
    if not isinstance(found, list) or not all(map(_is_name, found)):
        raise TokenRefused(
            f"The groups of the token are not a list of strings of 1 to {_MAX_NAME} printable characters."
        )
    return frozenset(map(str, found))


def token_id_of(claims: Mapping[str, object]) -> str:
    """
    Return the token's id (``jti``); empty if it has none.

    :raises TokenRefused: it is not a string, too long, or has control characters.
    """
    token_id = claims.get("jti", "")
    if "jti" in claims and not _is_name(token_id):
        raise TokenRefused(f"The jti of the token is not a string of 1 to {_MAX_NAME} printable characters.")
    return str(token_id)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value.isprintable()
