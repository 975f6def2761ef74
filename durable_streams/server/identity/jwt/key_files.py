"""Files with keys: a JWK set, or keys and certificates in PEM form."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from ...regular_files import file_errors_as, open_regular_file
from ...secret_files import is_shared
from .errors import KeysUnusable
from .jwk import ParsedKeys, parse_jwk_set
from .keys import MAX_KEYS, KeySet, VerificationKey, public_key

#: The largest file of keys, in bytes.
MAX_FILE_BYTES: Final = 262_144

_SETTING: Final = "auth.jwt.keys_file"
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_BEGIN: Final = re.compile(rb"-----BEGIN ")


def load_keys(path: str, accepted: frozenset[str]) -> KeySet:
    """
    Load the keys of a file.

    Keys that are not for signatures or for none of the accepted algorithms are left out.

    :param accepted: the algorithms of the settings.
    :raises KeysUnusable: the file cannot be read, has no usable key or one that must not be used, or it has private or
        symmetric keys and other users may read it.
    """
    where = f"{_SETTING} {path!r}"
    data, status = _read(path, where)
    try:
        found = _parse_pem(data, accepted) if _BEGIN.search(data) else parse_jwk_set(data, accepted, True)
    except KeysUnusable as error:
        raise KeysUnusable(f"{where}: {error}. Give the path of a JWK set or of PEM keys.") from None
    if found.has_secrets and is_shared(status):
        mode = stat.S_IMODE(status.st_mode)
        raise KeysUnusable(
            f"{where}: has private or symmetric keys, and its mode is {mode:04o}. Run chmod 600, or leave only public "
            "keys in it."
        )
    if status.st_mode & stat.S_IWOTH:
        raise KeysUnusable(f"{where}: every user of this machine may replace the keys in it. Run chmod o-w.")
    if found.defects:
        raise KeysUnusable(f"{where}: {found.defects[0]} Remove or replace it.")
    if not found.keys.keys:
        algorithms = ", ".join(sorted(accepted))
        raise KeysUnusable(f"{where}: has no key for {algorithms} (auth.jwt.algorithms). Change one of them.")
    return found.keys


def _read(path: str, where: str) -> tuple[bytes, os.stat_result]:
    """Return the file's data and status."""
    with file_errors_as(KeysUnusable, where, "a JWK set or of PEM keys"), open_regular_file(path) as file:
        status = os.fstat(file.fileno())
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise KeysUnusable(f"{where}: larger than {MAX_FILE_BYTES} bytes. Remove what is not a key.")
    return data, status


def _parse_pem(data: bytes, accepted: frozenset[str]) -> ParsedKeys:
    """
    Parse all keys in PEM form. They have no key id, so each is tried for tokens of its algorithm.

    :raises KeysUnusable: a block has no end, or there are too many.
    """
    count = len(_BEGIN.findall(data))
    if count > MAX_KEYS:
        raise KeysUnusable(f"has {count} PEM blocks, more than {MAX_KEYS}")
    blocks = list(_BLOCK.finditer(data))
    if len(blocks) != count:
        raise KeysUnusable("has a PEM block without its end")
    keys: list[VerificationKey] = []
    defects: list[str] = []
    for position, block in enumerate(blocks, 1):
        try:
            keys += _keys_of(block[1], block[0], accepted)
        except KeysUnusable as error:
            defects.append(f"PEM block {position} {error}.")
    return ParsedKeys(KeySet(keys), tuple(defects), any(b"PRIVATE" in block[1] for block in blocks))


def _keys_of(label: bytes, block: bytes, accepted: frozenset[str]) -> Iterator[VerificationKey]:
    """
    Yield the public key of a block: of the key, the certificate, or the private key.

    :raises KeysUnusable: it is damaged, encrypted, weak, or of another kind.
    """
    try:
        material: Any
        match label:
            case b"PUBLIC KEY" | b"RSA PUBLIC KEY":
                material = load_pem_public_key(block)
            case b"CERTIFICATE":
                material = load_pem_x509_certificate(block).public_key()
            case b"PRIVATE KEY" | b"RSA PRIVATE KEY" | b"EC PRIVATE KEY":
                material = load_pem_private_key(block, None).public_key()
            case b"EC PARAMETERS":
                return
            case _:
                raise KeysUnusable(f"({label.decode()}) is neither a key without a passphrase nor a certificate")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeysUnusable(f"({label.decode()}) is damaged, or needs a passphrase") from None
    if key := public_key(material, accepted):
        yield key
