"""Tokens and keys of an issuer of tests."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "streams"

#: The time of clocks in tests, in UNIX seconds.
NOW: Final = 1_800_000_000.0

_CURVES: Final[dict[str, Any]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
    "ES256K": ec.SECP256K1,
}


def private_key(algorithm: str = "RS256", number: int = 0) -> Any:
    """Return a private key for an algorithm; the same for each call with the same number."""
    return _private_key(algorithm, number)


@cache
def _private_key(algorithm: str, number: int) -> Any:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    return rsa_key(2048, number)


def rsa_key(bits: int, number: int = 0) -> rsa.RSAPrivateKey:
    """Return an RSA key of a size; the same for each call with the same number."""
    return _rsa_key(bits, number)


@cache
def _rsa_key(bits: int, number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def jwk(algorithm: str = "RS256", number: int = 0, kid: str | None = "k1", **members: object) -> dict[str, Any]:
    """Return the public key of :func:`private_key` as a JWK; members that are None are left out."""
    found = jwk_of(private_key(algorithm, number).public_key(), algorithm)
    found |= {"kid": kid, "use": "sig", "alg": "EdDSA" if algorithm == "Ed448" else algorithm} | members
    return {name: value for name, value in found.items() if value is not None}


def jwk_of(key: Any, algorithm: str) -> dict[str, Any]:
    """Return a key of cryptography as a JWK without kid, use and alg."""
    parser = jwt.get_algorithm_by_name("EdDSA" if algorithm == "Ed448" else algorithm)
    found: dict[str, Any] = parser.to_jwk(key, as_dict=True)
    return {name: value for name, value in found.items() if name != "key_ops"}


def jwk_set(*keys: object) -> bytes:
    """Return a JWK set."""
    return json.dumps({"keys": keys}).encode()


def public_pem(key: Any) -> bytes:
    """Return a public key in PEM form."""
    encoded: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def private_pem(key: Any) -> bytes:
    """Return a private key in PEM form."""
    encoded: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return encoded


def claims(**changes: object) -> dict[str, Any]:
    """Return the claims of a valid token; changes that are None are left out."""
    found: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 300, "iat": NOW}
    return {name: value for name, value in (found | changes).items() if value is not None}


def signed(
    content: dict[str, Any] | bytes | None = None,
    algorithm: str = "RS256",
    kid: str | None = "k1",
    key: Any = None,
    **header: object,
) -> bytes:
    """
    Return a token.

    :param content: the claims, or the payload; None for valid claims.
    :param key: signs it; None for :func:`private_key` of the algorithm.
    :param header: more of the header.
    """
    payload = content if isinstance(content, bytes) else json.dumps(claims() if content is None else content).encode()
    fields = {"alg": algorithm, "typ": "JWT"} | ({} if kid is None else {"kid": kid}) | header
    return signed_raw(json.dumps(fields).encode(), payload, algorithm, key)


def signed_raw(header: bytes, payload: bytes, algorithm: str = "RS256", key: Any = None) -> bytes:
    """Return a token with any bytes as header and payload, whose signature is right."""
    text = base64url(header) + b"." + base64url(payload)
    signer = jwt.get_algorithm_by_name(algorithm)
    signature = signer.sign(text, signer.prepare_key(private_key(algorithm) if key is None else key))
    return text + b"." + base64url(signature)


def base64url(data: bytes) -> bytes:
    """Encode bytes without padding."""
    return urlsafe_b64encode(data).rstrip(b"=")
