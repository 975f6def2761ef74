"""Strict parser of signed tokens in JWS compact serialization (RFC 7515 section 3.1)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from msgspec import Struct

from .errors import TokenRefused
from .strict_json import StrictJsonError, parse_object

#: The largest token, in bytes. It is compared before anything else is done with the token.
MAX_TOKEN_BYTES: Final = 8192

#: The longest key id, in characters.
MAX_KEY_ID: Final = 256

_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")

#: The types of tokens that grant access (RFC 7519 section 5.1, RFC 9068). Other types, as of logout tokens, are signed
#: with the same keys, but for another purpose (RFC 8725 section 3.11).
_TYPES: Final = frozenset({"jwt", "application/jwt", "at+jwt", "application/at+jwt"})


class SignedToken(Struct, frozen=True):
    """
    A token whose signature has not been verified.

    :ivar algorithm: ``alg`` of the header.
    :ivar key_id: ``kid`` of the header, or None.
    :ivar signed: what is signed: header and payload, still encoded.
    :ivar payload: the payload, still encoded.
    """

    algorithm: str
    key_id: str | None
    signed: bytes
    payload: bytes
    signature: bytes

    def claims(self) -> dict[str, object]:
        """
        Parse the payload. To be done after the signature was verified.

        :raises TokenRefused: it is not a JSON object.
        """
        try:
            return parse_object(_decoded(self.payload, "payload"))
        except StrictJsonError as error:
            raise TokenRefused(f"The payload of the token {error}.") from None


def parse_compact(token: bytes) -> SignedToken:
    """
    Parse a token up to its signature.

    Header parameters that bring a key or its address (``jwk``, ``jku``, ``x5c``, ``x5u``) are ignored: keys are those
    of the settings.

    :raises TokenRefused: it is not a signed token, or has a critical extension.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenRefused(f"The token is larger than {MAX_TOKEN_BYTES} bytes.")
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise TokenRefused("The token is not a signed JWT: three parts in base64url, joined by dots.")
    header, payload, signature = match.groups()
    try:
        fields = parse_object(_decoded(header, "header"))
    except StrictJsonError as error:
        raise TokenRefused(f"The header of the token {error}.") from None
    algorithm = fields.get("alg")
    if not isinstance(algorithm, str):
        raise TokenRefused("The header of the token has no alg.")
    _check_header(fields)
    return SignedToken(algorithm, _key_id(fields), token[: match.end(2)], payload, _decoded(signature, "signature"))


def _key_id(fields: dict[str, object]) -> str | None:
    if "kid" not in fields:
        return None
    key_id = fields["kid"]
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        raise TokenRefused(f"The kid of the token is not a string of 1 to {MAX_KEY_ID} characters.")
    return key_id


def _check_header(fields: dict[str, object]) -> None:
    """
    Check the header parameters that change what the token means.

    :raises TokenRefused: one of them is not supported.
    """
    if "crit" in fields:
        raise TokenRefused("The token has critical extensions (crit), of which none is supported.")
    if fields.get("b64", True) is not True:
        raise TokenRefused("The payload of the token is not encoded (b64), which is not supported.")
    kind = fields.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefused("The typ of the token is neither JWT nor at+jwt, so it is not for access.")


def _decoded(part: bytes, name: str) -> bytes:
    """
    Decode base64url without padding; each value has one encoding only.

    :raises TokenRefused: it is not the encoding of any bytes.
    """
    padded = part + b"=" * (-len(part) % 4)
    try:
        decoded = urlsafe_b64decode(padded)
    except ValueError:
        decoded = b""
    if urlsafe_b64encode(decoded) != padded:
        raise TokenRefused(f"The {name} of the token is not valid base64url.")
    return decoded
