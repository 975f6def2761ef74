"""Bearer tokens (RFC 6750) from a file that only its owner can read."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from ....errors import NotAuthenticated
from ....regular_files import NotAFileError
from ....secret_files import SharedFileError, read_secret_file
from ...pages import PageRequest

#: The largest size of the file, in bytes: each request is compared with all tokens.
MAX_SIZE: Final = 65_536

#: The least number of characters of a token.
MIN_LENGTH: Final = 16

_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
_BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)

_REALM: Final = 'Bearer realm="durable-streams admin"'


class TokenFileError(Exception):
    """The file cannot be used; the message says why and what to do, without any token."""


class TokenFile:
    """
    The tokens of a file, of which one is on each line. Empty lines and lines that begin with # are ignored.

    The tokens themselves are not kept in memory, only their digests.

    :param path: of the file.
    :raises TokenFileError: the file cannot be used.
    """

    def __init__(self, path: str) -> None:
        # twistd changes the current directory later.
        self._path = os.path.abspath(path)
        self._digests = _digests_in(self._path)

    @property
    def count(self) -> int:
        """The number of tokens."""
        return len(self._digests)

    def reload(self) -> None:
        """
        Read the file again. If that fails, the tokens stay as they were.

        :raises TokenFileError: the file cannot be used.
        """
        self._digests = _digests_in(self._path)

    def authorize(self, request: PageRequest) -> bool:
        """
        Allow a request that has one of the tokens.

        :raises NotAuthenticated: it has none of them.
        """
        header = request.header(b"authorization")
        match = None if header is None else _BEARER.fullmatch(header)
        if match is None:
            raise NotAuthenticated("Send a token of admin.token_file: Authorization: Bearer TOKEN.", _REALM)
        digest = sha256(match[1]).digest()
        # All of them are compared, so that the time does not tell which one is similar.
        if sum([compare_digest(digest, known) for known in self._digests]) == 0:
            raise NotAuthenticated(
                "The token is not in admin.token_file. After a change of the file, send the server SIGHUP.",
                f'{_REALM}, error="invalid_token"',
            )
        return True


def _digests_in(path: str) -> tuple[bytes, ...]:
    """
    Return the digests of the tokens in a file.

    :raises TokenFileError: the file cannot be used.
    """
    digests = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        token = line.strip()
        if not token or token.startswith(b"#"):
            continue
        if not _TOKEN.fullmatch(token) or len(token) < MIN_LENGTH:
            raise TokenFileError(
                f"Line {number} of {path} is not a token: a token has {MIN_LENGTH} or more letters, digits and "
                "-._~+/ only. Create one with: openssl rand -hex 32"
            )
        digests.append(sha256(token).digest())
    if not digests:
        raise TokenFileError(f"{path} has no token. Put one on a line of its own; create it with: openssl rand -hex 32")
    return tuple(digests)


def _read(path: str) -> bytes:
    """
    Read the file.

    :raises TokenFileError: it cannot be read, or other users can read it.
    """
    try:
        data = read_secret_file(path, MAX_SIZE)
    except OSError as error:
        raise TokenFileError(
            f"Cannot read {path}: {error.strerror}. Create it with mode 0600, owned by the server's user."
        ) from None
    except NotAFileError:
        raise TokenFileError(f"{path} is not a file. Name a file with one token on each line.") from None
    except SharedFileError as error:
        raise TokenFileError(f"Other users may use {path}: its mode is {error.mode}. Run: chmod 600 {path}") from None
    if len(data) > MAX_SIZE:
        raise TokenFileError(f"{path} is larger than {MAX_SIZE} bytes. Remove the tokens that are not in use.")
    return data
