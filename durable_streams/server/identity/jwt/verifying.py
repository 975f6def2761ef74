"""Verification of tokens: parse, look up the key, verify the signature, then check the claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final

from msgspec import Struct
from twisted.internet.defer import Deferred

from ...clocks import IClock
from ...interfaces import NowOrLater
from .claims import check_claims, groups_of, subject_of, token_id_of
from .compact import SignedToken, parse_compact
from .errors import TokenRefused
from .keys import KeySet, VerificationKey
from .settings import JwtSettings

#: How many digests of tokens with a wrong signature are kept, of 16 bytes each: about 1 MB.
_MAX_REFUSED: Final = 10_000

_WRONG_SIGNATURE: Final = "The signature of the token is wrong."


class VerifiedToken(Struct, frozen=True):
    """
    What a token says, after all checks.

    :ivar key: the key that signed it.
    :ivar expires_at: when it ceases to be valid, with the leeway, in UNIX seconds.
    :ivar token_id: its ``jti``; empty if it has none.
    """

    key: VerificationKey
    subject: str
    groups: frozenset[str]
    claims: Mapping[str, object]
    expires_at: float
    token_id: str


class TokenVerifier:
    """
    Verifies tokens.

    A bad token costs little: the size is compared first, the header is parsed once, the key is looked up before any
    signature is computed, and a token whose signature was wrong is known by its digest until the keys change.

    :param lookup: returns the keys for a key id: :meth:`.KeySource.lookup`.
    :param clock: its wall clock is compared with the dates of tokens.
    """

    def __init__(
        self, settings: JwtSettings, lookup: Callable[[str | None], NowOrLater[KeySet]], clock: IClock
    ) -> None:
        self._settings = settings
        self._accepted = frozenset(settings.algorithms)
        self._lookup = lookup
        self._clock = clock
        self._refused: dict[bytes, None] = {}
        self._refused_by: KeySet | None = None

    def verify(self, token: bytes) -> NowOrLater[VerifiedToken]:
        """
        Verify a token, at once if its key is known.

        :raises TokenRefused: it is not valid.
        :raises KeysUnavailable: its key cannot be fetched now.
        """
        signed = parse_compact(token)
        if signed.algorithm not in self._accepted:
            raise TokenRefused("The alg of the token is not accepted.")
        found = self._lookup(signed.key_id)
        if isinstance(found, Deferred):
            return found.addCallback(lambda keys: self._verified(signed, keys))
        return self._verified(signed, found)

    def _verified(self, token: SignedToken, keys: KeySet) -> VerifiedToken:
        key = self._key_of(token, keys)
        claims = token.claims()
        settings = self._settings
        return VerifiedToken(
            key=key,
            expires_at=check_claims(claims, settings, self._clock.wall()),
            subject=subject_of(claims, settings),
            groups=groups_of(claims, settings),
            claims=claims,
            token_id=token_id_of(claims),
        )

    def _key_of(self, token: SignedToken, keys: KeySet) -> VerificationKey:
        """
        Return the key that signed a token.

        :raises TokenRefused: none did.
        """
        candidates = keys.candidates(token.key_id, token.algorithm)
        if keys is not self._refused_by:
            self._refused.clear()
            self._refused_by = keys
        digest = blake2b(token.signed + b"." + token.signature, digest_size=16).digest()
        if digest in self._refused:
            raise TokenRefused(_WRONG_SIGNATURE)
        for key in candidates:
            if key.verifies(token.algorithm, token.signed, token.signature):
                return key
        if len(self._refused) >= _MAX_REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[digest] = None
        raise TokenRefused(_WRONG_SIGNATURE)
