"""The challenges of 401 and 403 answers (RFC 6750 section 3), as values of WWW-Authenticate."""

from __future__ import annotations

import re
from typing import Final

from ..errors import NotAuthenticated

REALM: Final = "durable-streams"

#: The challenge for requests without credentials.
BEARER: Final = f'Bearer realm="{REALM}"'

#: The challenge of programs whose checkers take user names and passwords (RFC 7617).
BASIC: Final = f'Basic realm="{REALM}", charset="UTF-8"'

#: What an error_description must not have.
_UNSAFE: Final = re.compile(r'[^\x20-\x7e]|["\\]')

_MAX_DESCRIPTION: Final = 200


def bearer_challenge(error: str, description: str) -> str:
    """
    Return the challenge for a request whose credentials are not valid or not sufficient.

    :param error: ``invalid_request``, ``invalid_token`` or ``insufficient_scope``.
    :param description: a sentence for developers, without a secret. Characters that the field forbids are replaced.
    """
    text = _UNSAFE.sub("'", description[:_MAX_DESCRIPTION])
    return f'{BEARER}, error="{error}", error_description="{text}"'


def invalid_token(message: str) -> NotAuthenticated:
    """Return the error for credentials that are not valid; the message has no secret."""
    return NotAuthenticated(message, bearer_challenge("invalid_token", message))


def invalid_request(message: str) -> NotAuthenticated:
    """Return the error for credentials that cannot be read; the message has no secret."""
    return NotAuthenticated(message, bearer_challenge("invalid_request", message))
