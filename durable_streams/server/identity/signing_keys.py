"""The file of the keys that sign URLs: one ``ID SECRET`` a line. The first key signs, all of them verify."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from ..regular_files import NotAFileError
from ..secret_files import SharedFileError, read_secret_file
from .signed_urls import KEY_ID, SigningKey

#: The largest file, in bytes.
MAX_FILE_SIZE: Final = 65_536

#: The shortest and longest secret, in characters.
MIN_SECRET: Final = 32
MAX_SECRET: Final = 1024

#: The comment at the beginning of a new file.
_HEADER: Final = b"# Keys that sign URLs: ID SECRET. The first one signs, all of them verify.\n"

#: How many random bytes a new secret has.
_SECRET_BYTES: Final = 32


class SigningKeysError(Exception):
    """The file of keys cannot be used. The message says why, and has no secret."""


def load_signing_keys(path: str) -> tuple[SigningKey, ...]:
    """
    Read a file of keys, which only its owner may use (mode 0600).

    :returns: the keys, the one that signs first. A file without a key is valid: no signed URL is accepted then.
    :raises SigningKeysError: the file cannot be read, other users may read it, or a line is malformed.
    """
    return parse_signing_keys(read_signing_keys(path), path)


def read_signing_keys(path: str) -> bytes:
    """
    Return the content of a file of keys, which only its owner may use (mode 0600).

    :raises SigningKeysError: the file cannot be read, or other users may read it.
    """
    try:
        content = read_secret_file(path, MAX_FILE_SIZE)
    except SharedFileError as error:
        raise SigningKeysError(
            f"{path}: {error}, so that other users can read the keys or change them. Run chmod 600 {path}."
        ) from None
    except NotAFileError:
        raise SigningKeysError(f"{path}: not a regular file.") from None
    except FileNotFoundError as error:
        raise SigningKeysError(
            f"{path}: {error.strerror}. Make it with: durable-streams-server signing-key add --key-file {path}"
        ) from None
    except OSError as error:
        raise SigningKeysError(f"{path}: {error.strerror}.") from None
    if len(content) > MAX_FILE_SIZE:
        raise SigningKeysError(f"{path}: larger than {MAX_FILE_SIZE} bytes.")
    return content


def parse_signing_keys(content: bytes, path: str) -> tuple[SigningKey, ...]:
    """
    Read the content of a file of keys. Blank lines, and lines that begin with ``#``, are ignored.

    :param path: for messages.
    :raises SigningKeysError: a line is malformed, or two keys have one id.
    """
    keys: dict[str, SigningKey] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            fields = line.decode("ascii").split()
        except UnicodeDecodeError:
            fields = []
        if len(fields) != 2 or KEY_ID.fullmatch(fields[0]) is None:
            raise SigningKeysError(
                f"{path}, line {number}: not the id of a key (letters, digits, - and _) and its secret in ASCII."
            )
        key_id, secret = fields
        if not MIN_SECRET <= len(secret) <= MAX_SECRET:
            raise SigningKeysError(
                f"{path}, line {number}: a secret has {MIN_SECRET} to {MAX_SECRET} characters. "
                "Make one with durable-streams-server signing-key add."
            )
        if key_id in keys:
            raise SigningKeysError(f"{path}, line {number}: there is another key with the id {key_id}.")
        keys[key_id] = SigningKey(key_id, secret.encode())
    return tuple(keys.values())


def with_key(content: bytes, key: SigningKey) -> bytes:
    """Return the content of a file of keys with one more key, which signs from then on. Comments stay."""
    lines = content.splitlines(keepends=True) or [_HEADER]
    if not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    first = next((index for index, line in enumerate(lines) if _id_in(line) is not None), len(lines))
    return b"".join((*lines[:first], _line(key), *lines[first:]))


def without_key(content: bytes, key_id: str) -> bytes:
    """Return the content of a file of keys without the key of an id. Comments stay."""
    return b"".join(line for line in content.splitlines(keepends=True) if _id_in(line) != key_id.encode())


def _line(key: SigningKey) -> bytes:
    return b"%b %b\n" % (key.id.encode(), key.secret)


def _id_in(line: bytes) -> bytes | None:
    """Return the id in a line; None for a comment or a blank line."""
    fields = line.split()
    return None if not fields or fields[0].startswith(b"#") else fields[0]


def new_signing_key(key_id: str) -> SigningKey:
    """Return a new key with a random secret."""
    return SigningKey(key_id, secrets.token_urlsafe(_SECRET_BYTES).encode())


def fingerprint_of(key: SigningKey) -> str:
    """Return a text that differs for each secret, and from which the secret cannot be found: 16 hexadecimal digits."""
    return hashlib.sha256(b"durable-streams signing key\0" + key.secret).hexdigest()[:16]
