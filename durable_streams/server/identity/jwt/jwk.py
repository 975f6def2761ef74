"""JSON Web Key sets (RFC 7517): which of their keys verify tokens."""

from __future__ import annotations

from typing import Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from msgspec import Struct

from .errors import KeysUnusable
from .keys import MAX_KEYS, KeySet, VerificationKey, public_key, secret_key
from .strict_json import StrictJsonError, parse_object

#: Key type -> the members of a public key, and an algorithm whose parser reads them.
_PUBLIC: Final = {
    "RSA": (("n", "e"), "RS256"),
    "EC": (("crv", "x", "y"), "ES256"),
    "OKP": (("crv", "x"), "EdDSA"),
}

#: Curve -> the algorithm whose parser reads its keys.
_PARSERS: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}

#: Members that only private and symmetric keys have.
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

#: The longest member, in characters: the modulus of an RSA key of 8192 bits has 1366.
_MAX_MEMBER: Final = 2048


class ParsedKeys(Struct, frozen=True):
    """
    The keys of a file or a URL.

    :ivar defects: a sentence for each key that is meant to verify tokens but must not.
    :ivar has_secrets: whether there are private or symmetric keys.
    """

    keys: KeySet
    defects: tuple[str, ...]
    has_secrets: bool


def parse_jwk_set(data: bytes, accepted: frozenset[str], may_have_secrets: bool) -> ParsedKeys:
    """
    Parse a JWK set, and choose the keys that verify tokens.

    Keys of other types or curves, for encryption, or for algorithms that are not accepted are left out, as RFC 7517
    section 5 asks.

    :param accepted: the algorithms of the settings.
    :param may_have_secrets: whether private and symmetric keys are used; if not, they are defects.
    :raises KeysUnusable: it is no JWK set; the message is the end of a sentence.
    """
    try:
        found = parse_object(data).get("keys")
    except StrictJsonError as error:
        raise KeysUnusable(str(error)) from None
    if not isinstance(found, list):
        raise KeysUnusable('is not a JWK set: an object with the list "keys"')
    if len(found) > MAX_KEYS:
        raise KeysUnusable(f"has {len(found)} keys, more than {MAX_KEYS}")
    keys: list[VerificationKey] = []
    defects: list[str] = []
    has_secrets = False
    for position, jwk in enumerate(found, 1):
        is_secret = isinstance(jwk, dict) and not _PRIVATE.isdisjoint(jwk)
        has_secrets = has_secrets or is_secret
        try:
            if is_secret and not may_have_secrets:
                raise KeysUnusable("is private or symmetric, but was published")
            key = _key_of(jwk, accepted)
        except KeysUnusable as error:
            defects.append(f"Key {position} {error}.")
            continue
        if key is not None:
            keys.append(key)
    return ParsedKeys(KeySet(keys), tuple(defects), has_secrets)


def _key_of(jwk: object, accepted: frozenset[str]) -> VerificationKey | None:
    """
    Return a JWK as a key; None if it is not meant to verify tokens with an accepted algorithm.

    :raises KeysUnusable: it is malformed or weak.
    """
    if not isinstance(jwk, dict):
        raise KeysUnusable("is not an object")
    key_id, algorithm, kind = jwk.get("kid"), jwk.get("alg"), jwk.get("kty")
    if not (key_id is None or isinstance(key_id, str)) or not (algorithm is None or isinstance(algorithm, str)):
        raise KeysUnusable("has a kid or an alg that is not a string")
    if not _is_for_signatures(jwk) or not isinstance(kind, str):
        return None
    if kind == "oct":
        return secret_key(_secret_of(jwk), accepted, key_id, algorithm)
    if kind not in _PUBLIC:
        return None
    names, parser = _PUBLIC[kind]
    members = {name: jwk.get(name) for name in names}
    for value in members.values():
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_MEMBER:
            raise KeysUnusable(f"lacks a member of {kind} keys ({', '.join(names)})")
    if kind == "EC":
        if members["crv"] not in _PARSERS:
            return None
        parser = _PARSERS[str(members["crv"])]
    elif kind == "OKP" and members["crv"] not in ("Ed25519", "Ed448"):
        return None
    return public_key(_parsed(parser, {"kty": kind, **members}), accepted, key_id, algorithm)


def _is_for_signatures(jwk: dict[str, object]) -> bool:
    """Return whether a key may verify signatures, by ``use`` and ``key_ops`` (RFC 7517 sections 4.2 and 4.3)."""
    operations = jwk.get("key_ops")
    if operations is not None and not (
        isinstance(operations, list) and ("verify" in operations or "sign" in operations)
    ):
        return False
    return jwk.get("use") in (None, "sig")


def _secret_of(jwk: dict[str, object]) -> bytes:
    secret = jwk.get("k")
    if not isinstance(secret, str) or not secret:
        raise KeysUnusable("lacks the member of oct keys (k)")
    found: bytes = _parsed("HS256", {"kty": "oct", "k": secret})
    return found


def _parsed(parser: str, jwk: dict[str, object]) -> bytes:
    """
    Parse a key with the algorithm's parser.

    :raises KeysUnusable: it is malformed.
    """
    try:
        algorithm = jwt.get_algorithm_by_name(parser)
        found: bytes = algorithm.from_jwk(jwk)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, OverflowError):
        raise KeysUnusable("is malformed") from None
    return found
