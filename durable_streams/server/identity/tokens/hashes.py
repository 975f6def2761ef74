"""Hashes of secrets by scrypt (RFC 7914), in the string format of the Password Hashing Competition."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from typing import Final

from msgspec import Struct

#: The largest memory that one computation may take, in bytes: 128 * N * r.
MAX_MEMORY: Final = 67_108_864

#: The largest cost of one computation, as N * r * p: about 16 times the default, 0.3 s.
MAX_COST: Final = 1_048_576

_SALT_SIZE: Final = 16
_DIGEST_SIZE: Final = 32

_B64: Final = "[A-Za-z0-9+/]"
_FORM: Final = re.compile(
    rf"\$scrypt\$ln=([1-9][0-9]?),r=([1-9][0-9]{{0,2}}),p=([1-9][0-9]{{0,2}})\$({_B64}{{11,86}})\$({_B64}{{22,86}})"
)


class HashError(Exception):
    """The text is not a hash that can be used; the message says why, without the text."""


class ScryptCost(Struct, frozen=True, gc=False):
    """
    The parameters of scrypt.

    The default takes 8 MiB and about 20 ms. A higher cost would protect secrets that can be guessed; those of tokens
    have 256 random bits, and each wrong token costs the server as much as a right one.

    :ivar ln: the binary logarithm of N.
    :ivar r: the block size.
    :ivar p: the parallelization, which is done one after the other.
    """

    ln: int = 13
    r: int = 8
    p: int = 1


#: The cost of new hashes.
DEFAULT_COST: Final = ScryptCost()


class SecretHash(Struct, frozen=True, gc=False):
    """
    The hash of a secret.

    :ivar cost: the parameters of the computation.
    :ivar salt: random bytes.
    :ivar digest: the hash itself.
    """

    cost: ScryptCost
    salt: bytes
    digest: bytes

    def __str__(self) -> str:
        cost = self.cost
        return f"$scrypt$ln={cost.ln},r={cost.r},p={cost.p}${_encoded(self.salt)}${_encoded(self.digest)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def matches(self, secret: bytes) -> bool:
        """Return whether this is the hash of a secret. The comparison takes the same time for all secrets."""
        return hmac.compare_digest(_scrypt(secret, self.salt, self.cost, len(self.digest)), self.digest)


def hash_secret(secret: bytes, cost: ScryptCost = DEFAULT_COST) -> SecretHash:
    """Return the hash of a secret, with a new salt."""
    salt = secrets.token_bytes(_SALT_SIZE)
    return SecretHash(cost, salt, _scrypt(secret, salt, cost, _DIGEST_SIZE))


def decoy_hash(cost: ScryptCost) -> SecretHash:
    """Return a hash that no secret has, to compute as much for unknown tokens as for known ones."""
    return SecretHash(cost, secrets.token_bytes(_SALT_SIZE), secrets.token_bytes(_DIGEST_SIZE))


def parse_hash(text: str) -> SecretHash:
    """
    Return the hash that a text has.

    :raises HashError: it is none, or one whose computation would cost too much.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise HashError("is not of the form $scrypt$ln=...,r=...,p=...$SALT$HASH")
    cost = ScryptCost(int(found[1]), int(found[2]), int(found[3]))
    if cost.r * 128 << cost.ln > MAX_MEMORY:
        raise HashError(f"needs more than {MAX_MEMORY >> 20} MiB (128 * 2**ln * r)")
    if cost.r * cost.p << cost.ln > MAX_COST:
        raise HashError(f"costs more than 2**ln * r * p = {MAX_COST}")
    try:
        return SecretHash(cost, _decoded(found[4]), _decoded(found[5]))
    except ValueError:
        raise HashError("has a part that is not Base64") from None


def _scrypt(secret: bytes, salt: bytes, cost: ScryptCost, size: int) -> bytes:
    """Compute scrypt, without holding the interpreter's lock."""
    # OpenSSL needs a little more than 128 * N * r.
    memory = 2 * MAX_MEMORY
    return hashlib.scrypt(secret, salt=salt, n=1 << cost.ln, r=cost.r, p=cost.p, maxmem=memory, dklen=size)


def _encoded(data: bytes) -> str:
    return b64encode(data).decode("ascii").rstrip("=")


def _decoded(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), validate=True)
