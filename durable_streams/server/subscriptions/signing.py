"""Signatures of webhook requests: Ed25519 keys, their public set (JWKS), and rotation (PROTOCOL section 6)."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from msgspec import Struct

#: How long the public key of a key that is not used any more stays in the set, in seconds: receivers accept signatures
#: for 5 minutes, and keep the set for 5 minutes.
RETIREMENT_SECONDS: Final = 600.0

#: The media type of the set.
JWKS_TYPE: Final = "application/jwk-set+json"


def key_id(public: bytes) -> str:
    """Return the ``kid`` of a public key of 32 bytes: ``ds_`` and the SHA-256 of its JWK (RFC 7638)."""
    canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{_base64(public)}"}}'
    return "ds_" + _base64(sha256(canonical.encode()).digest())


class SigningKey:
    """
    A private key.

    :ivar seed: its 32 bytes.
    :ivar public: the public key, 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.kid = key_id(self.public)

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """
        Return the key in a PEM file (PKCS 8) without a passphrase.

        :raises ValueError: there is none, it has a passphrase, or it is not an Ed25519 key.
        """
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("it has no private key in PEM form (PKCS 8) without a passphrase") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("its key is not an Ed25519 key")
        return cls(key.private_bytes_raw())

    def sign(self, body: bytes, now: float) -> str:
        """
        Return the header ``Webhook-Signature`` for a body.

        :param now: the time of the signature, in seconds since 1970.
        """
        timestamp = str(int(now))
        signature = self._key.sign(timestamp.encode("ascii") + b"." + body)
        return f"t={timestamp},kid={self.kid},ed25519={_base64(signature)}"


class RetiredKey(Struct, frozen=True, array_like=True):
    """
    A public key that does not sign any more.

    :ivar until: when it leaves the set, in seconds since 1970.
    """

    public: bytes
    until: float


class KeyRing(Struct, frozen=True):
    """The key that signs, and those before it whose signatures may still be checked."""

    active: SigningKey
    retired: tuple[RetiredKey, ...] = ()

    def rotated(self, active: SigningKey, now: float) -> KeyRing:
        """Return the ring with another key that signs. The present one stays in the set for 10 minutes."""
        return KeyRing(active, retired(self.active.public, self.retired, active.public, now))

    def jwks(self, now: float) -> bytes:
        """Return the set of public keys as JSON, the active one first."""
        publics = [self.active.public, *(key.public for key in self.retired if key.until > now)]
        return msgspec.json.encode({"keys": [_jwk(public) for public in publics]})


def retired(public: bytes, others: tuple[RetiredKey, ...], active: bytes, now: float) -> tuple[RetiredKey, ...]:
    """
    Return the retired keys after a change of the active one; those whose time is over are left out.

    :param public: the key that was active.
    :param others: those that were retired.
    :param active: the key that becomes active; it may be one that was retired.
    """
    added = RetiredKey(public, now + RETIREMENT_SECONDS)
    return tuple(key for key in (added, *others) if key.until > now and key.public != active)


def _jwk(public: bytes) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": key_id(public),
        "use": "sig",
        "alg": "EdDSA",
        "x": _base64(public),
    }


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
