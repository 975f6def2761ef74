"""Tokens for acks: authentic claims about a wake (PROTOCOL section 7).

A token is ``CLAIMS.MAC``, both base64url without padding: the claims as a JSON array, and the HMAC-SHA256 of their
text. It has no end of its own: each use is compared with the current wake and its lease.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from .errors import TokenInvalid
from .model import TokenClaims

#: The size of the secret, in bytes.
SECRET_BYTES: Final = 32

#: The maximum size of a token: an id of 256 bytes, a wake_id and a generation fit with room to spare.
MAX_TOKEN_BYTES: Final = 1024

_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]{4,})\.([A-Za-z0-9_-]{43})")
_BEARER: Final = re.compile(r"bearer +([^ ]+) *", re.IGNORECASE)
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(tuple[str, int, str]).decode


def bearer_token(authorization: str) -> str:
    """
    Return the token in the value of an Authorization header.

    :param authorization: empty if there is no header.
    :raises TokenInvalid: it is not ``Bearer TOKEN``.
    """
    match = _BEARER.fullmatch(authorization)
    if match is None:
        raise TokenInvalid
    return match[1]


class Tokens:
    """
    Issues and verifies tokens.

    :param secret: 32 random bytes, which the storage keeps.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a token secret has {SECRET_BYTES} bytes, not {len(secret)}")
        self._secret = secret

    def issue(self, claims: TokenClaims) -> str:
        """Return the token of a wake: always the same one."""
        encoded = _base64(_encode([claims.subscription_id, claims.generation, claims.wake_id]))
        return f"{encoded}.{self._mac(encoded)}"

    def verify(self, token: str, subscription_id: str) -> TokenClaims:
        """
        Return the claims of a token.

        :param subscription_id: of the request.
        :raises TokenInvalid: the token is malformed, not authentic, or of another subscription.
        """
        match = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_BYTES else None
        if match is None:
            raise TokenInvalid
        encoded, mac = match.groups()
        # The texts are compared, not the bytes: base64 has several texts for the same bytes.
        if not hmac.compare_digest(self._mac(encoded), mac):
            raise TokenInvalid
        try:
            claims = TokenClaims(*_decode(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))))
        except (ValueError, msgspec.MsgspecError):
            raise TokenInvalid from None
        if claims.subscription_id != subscription_id:
            raise TokenInvalid
        return claims

    def _mac(self, encoded: str) -> str:
        return _base64(hmac.digest(self._secret, encoded.encode("ascii"), "sha256"))


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
