"""The errors of the client.

Each message is one or two sentences for the person who runs the program: what happened to which URL, and what to
change. Text from a server is cut to :data:`MAX_TEXT` characters and has no control characters, so it is safe to print.
"""

from __future__ import annotations

import re
from typing import Final

#: The longest text of a server that becomes part of a message, in characters.
MAX_TEXT: Final = 1000

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a server's text without control characters and no longer than :data:`MAX_TEXT` characters."""
    text = _UNPRINTABLE.sub(" ", text[: MAX_TEXT + 1])
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


class ClientError(Exception):
    """
    The base class of the client's errors.

    :cvar temporary: whether the same request may succeed later.
    """

    temporary = False


class InvalidUse(ClientError):
    """The client was called with values that cannot be sent, such as a malformed URL."""


class ConnectFailed(ClientError):
    """There is no connection to the server: it is not running, its name is unknown, or the network is down."""

    temporary = True


class TlsFailed(ClientError):
    """The TLS handshake failed: the server's certificate is not trusted, or it does not accept the client's."""


class ConnectionBroken(ClientError):
    """The connection ended before the answer did. It is not known whether the server carried out the request."""

    temporary = True


class AnswerTimeout(ClientError):
    """The server did not send anything for too long. It is not known whether it carried out the request."""

    temporary = True


class InvalidAnswer(ClientError):
    """The answer does not follow HTTP or the protocol, or exceeds a limit of the client."""


class RedirectRefused(ClientError):
    """
    The server redirects to another URL. Redirects are not followed: the token must not be sent to another server.

    :ivar location: the URL that the server names; empty if it names none.
    """

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message)
        self.location = location


class Refusal(ClientError):
    """
    The server refused the request. The message is the server's sentence.

    :ivar status: the HTTP status, 400 to 599.
    :ivar code: the problem's code, such as ``NOT_FOUND``; empty if the answer has none.
    :ivar retry_after: the seconds after which the server asks for a retry; None if it does not say.
    :ivar next_offset: the Stream-Next-Offset of the answer; None if it has none.
    """

    def __init__(
        self,
        message: str,
        status: int,
        code: str = "",
        retry_after: float | None = None,
        next_offset: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.next_offset = next_offset

    @property
    def temporary(self) -> bool:  # type: ignore[override]
        """Whether the same request may succeed later: 408, 425, 429, 500, 502, 503 or 504, except damaged data."""
        return self.status in {408, 425, 429, 500, 502, 503, 504} and self.code != "DATA_DAMAGED"


class RefusedAsMissing(Refusal):
    """404: the stream does not exist, or has expired."""


class RefusedAsGone(Refusal):
    """410: the stream was deleted, or the offset belongs to an earlier stream of the name."""


class RefusedAsClosed(Refusal):
    """409 STREAM_CLOSED: the stream is closed; ``next_offset`` is its final offset."""


class RefusedEpoch(Refusal):
    """
    403 PRODUCER_EPOCH_FENCED: the stream knows a newer epoch of the producer.

    :ivar epoch: the epoch that the stream knows.
    """

    epoch: int = 0


class RefusedGap(Refusal):
    """
    409 SEQUENCE_CONFLICT: the stream expects another Producer-Seq.

    :ivar expected: the sequence number that the stream expects.
    """

    expected: int = 0
