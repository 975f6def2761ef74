"""Keys that verify signatures, and sets of them in which a token's key is looked up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from .errors import KeysUnusable, TokenRefused

#: The most keys of a set. Google has 2 and Microsoft about 8.
MAX_KEYS: Final = 64

#: The most keys that are tried for a token without a key id; verifying takes about 0.1 ms for each.
MAX_CANDIDATES: Final = 4

#: Sizes of RSA keys, in bits. RFC 7518 section 3.3 asks for 2048; a key of 8192 bits verifies in 0.4 ms.
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192

#: The longest public exponent, in bits: verifying takes time in proportion to it. All that are in use have 17 or 2.
_MAX_EXPONENT_BITS: Final = 32

_RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVE_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

#: Algorithm -> the size of its hash in bytes: a secret must have at least as many (RFC 7518 section 3.2).
_SECRET_SIZES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}


class VerificationKey(Struct, frozen=True):
    """
    A key that verifies signatures.

    :ivar key_id: ``kid``, or None.
    :ivar algorithms: those with which it may verify; a key of a JWK set with ``alg`` has one.
    :ivar material: a public key of cryptography, or the bytes of a secret.
    :ivar identity: equal for equal keys.
    """

    key_id: str | None
    algorithms: frozenset[str]
    material: Any
    identity: bytes

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """
        Return whether a signature is this key's.

        :param algorithm: one of the key's algorithms.
        """
        return jwt.get_algorithm_by_name(algorithm).verify(signed, self.material, signature)

    def __repr__(self) -> str:
        return f"VerificationKey({self.key_id!r}, {sorted(self.algorithms)})"


class KeySet:
    """
    Verification keys by key id.

    :ivar keys: all of them.
    """

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self.keys = tuple(keys)
        self._by_id: dict[str | None, tuple[VerificationKey, ...]] = {}
        for key in self.keys:
            self._by_id[key.key_id] = (*self._by_id.get(key.key_id, ()), key)
        self._identities = frozenset((key.key_id, key.identity, key.algorithms) for key in self.keys)

    def knows(self, key_id: str | None) -> bool:
        """
        Return whether the keys of a key id are in the set.

        PEM keys have no key id, so they are candidates for each.
        """
        return key_id is None or key_id in self._by_id or None in self._by_id

    def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """
        Return the keys of the set that a token can be signed with; there is at least one.

        :param key_id: ``kid`` of the token; None for one without.
        :param algorithm: ``alg`` of the token.
        :raises TokenRefused: no key of the key id is for the algorithm; or the token has no key id, and too many are.
        """
        found: Iterable[VerificationKey] = self.keys
        if key_id is not None:
            found = self._by_id.get(key_id) or self._by_id.get(None, ())
        fitting = tuple(key for key in found if algorithm in key.algorithms)
        if not fitting:
            raise TokenRefused("The token names no key of its issuer, or its alg does not fit the key.")
        if len(fitting) > MAX_CANDIDATES:
            raise TokenRefused("The token does not say with which of its issuer's keys it is signed (kid).")
        return fitting

    def has(self, key: VerificationKey) -> bool:
        """Return whether the same key is in the set."""
        return (key.key_id, key.identity, key.algorithms) in self._identities

    def equals(self, other: KeySet) -> bool:
        """Return whether another set has the same keys."""
        return self._identities == other._identities


#: The set without keys.
NO_KEYS: Final = KeySet(())


def public_key(
    material: object, accepted: frozenset[str], key_id: str | None = None, only: str | None = None
) -> VerificationKey | None:
    """
    Return a public key with the algorithms that it may verify with.

    :param material: a public key of cryptography.
    :param accepted: the algorithms of the settings.
    :param only: the single algorithm that the key is for, or None.
    :returns: None if none of its algorithms is accepted.
    :raises KeysUnusable: the key is weak, or of another type; the message is the end of a sentence.
    """
    fitting = frozenset(_algorithms_of(material))
    if only is not None:
        fitting &= {only}
    if not fitting & accepted:
        return None
    encoded: bytes = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return VerificationKey(key_id, fitting & accepted, material, encoded)


def secret_key(
    secret: bytes, accepted: frozenset[str], key_id: str | None = None, only: str | None = None
) -> VerificationKey | None:
    """
    Return a shared secret with the algorithms that it is long enough for; see :func:`public_key`.

    :raises KeysUnusable: it is too short for the accepted algorithms.
    """
    wanted = accepted & _SECRET_SIZES.keys()
    if only is not None:
        wanted &= {only}
    fitting = frozenset(name for name in wanted if len(secret) >= _SECRET_SIZES[name])
    if wanted and not fitting:
        needed = min(_SECRET_SIZES[name] for name in wanted)
        raise KeysUnusable(f"is a secret of {len(secret)} bytes, where {needed} are needed")
    return VerificationKey(key_id, fitting, secret, secret) if fitting else None


def _algorithms_of(material: object) -> tuple[str, ...]:
    """
    Return the algorithms of a public key.

    :raises KeysUnusable: it is weak, or of another type.
    """
    match material:
        case RSAPublicKey():
            if not MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS:
                raise KeysUnusable(
                    f"is an RSA key of {material.key_size} bits, not of {MIN_RSA_BITS} to {MAX_RSA_BITS}"
                )
            if material.public_numbers().e.bit_length() > _MAX_EXPONENT_BITS:
                raise KeysUnusable("is an RSA key with a large public exponent")
            return _RSA_ALGORITHMS
        case EllipticCurvePublicKey():
            algorithm = _CURVE_ALGORITHMS.get(material.curve.name)
            if algorithm is None:
                raise KeysUnusable(f"is on the curve {material.curve.name}, not on P-256, P-384 or P-521")
            return (algorithm,)
        case Ed25519PublicKey() | Ed448PublicKey():
            return ("EdDSA",)
    raise KeysUnusable("is neither an RSA, an EC nor an Ed25519 key")
