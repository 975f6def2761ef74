"""Why a delivery attempt failed: a reason for counters, and a sentence for the log without URL queries or tokens."""

from __future__ import annotations

from enum import Enum
from typing import Final

from OpenSSL import SSL
from twisted.python.failure import Failure

from ..connection_failures import ConnectionFailure, classify, tls_reasons


class FailureReason(Enum):
    """The class of a failed delivery attempt; the values are for the labels of metrics."""

    #: The URL is not allowed, or an address of its host is not.
    ADDRESS = "address"
    #: The host has no address, or its look-up took too long.
    DNS = "dns"
    #: The connection was refused or could not be made.
    CONNECT = "connect"
    #: The TLS handshake failed, or the certificate is not valid for the host.
    TLS = "tls"
    #: The attempt took too long.
    TIMEOUT = "timeout"
    #: The answer is a redirect.
    REDIRECT = "redirect"
    #: The answer has a status of 400 or more, or none that is known.
    STATUS = "status"
    #: The head or the body of the answer is too large.
    TOO_LARGE = "too_large"
    #: The connection broke before the answer was complete.
    INCOMPLETE = "incomplete"
    #: The answer is not HTTP.
    INVALID = "invalid"
    #: An error of this program.
    INTERNAL = "internal"


class DeliveryFailed(Exception):
    """A delivery attempt failed; the message is a sentence for the log."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class AnswerTooLarge(DeliveryFailed):
    """The head or the body of the answer is too large."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.TOO_LARGE, message)


#: Class of a failed request -> the reason, and the sentence where that is the same for all of the class.
_FAILURES: Final = {
    ConnectionFailure.REFUSED: (FailureReason.CONNECT, "The connection was refused."),
    ConnectionFailure.TIMEOUT: (FailureReason.TIMEOUT, "The host did not answer in time."),
    ConnectionFailure.WRONG_HOST: (FailureReason.TLS, "The certificate is for another host."),
    ConnectionFailure.BROKEN: (FailureReason.INCOMPLETE, "The connection broke before the answer was complete."),
    ConnectionFailure.NOT_HTTP: (FailureReason.INVALID, "The answer is not valid HTTP."),
}


def explained(failure: Failure) -> DeliveryFailed | None:
    """Return the failure of a request as one of the attempt; None for an error of this program."""
    cause, kind = classify(failure, (DeliveryFailed,))
    if isinstance(cause, DeliveryFailed):
        return cause
    if isinstance(cause, SSL.Error):
        return DeliveryFailed(FailureReason.TLS, _tls_message(cause))
    if kind is ConnectionFailure.CONNECT:
        return DeliveryFailed(FailureReason.CONNECT, f"The connection failed ({type(cause).__name__}).")
    return None if kind is None else DeliveryFailed(*_FAILURES[kind])


def _tls_message(cause: SSL.Error) -> str:
    """Return a sentence with the reasons of OpenSSL."""
    text = tls_reasons(cause) or "the receiver ended it"
    if "certificate verify failed" in text:
        return (
            f"The certificate is not trusted ({text}). If it is of a private authority, add that to the file of "
            "subscriptions.webhook_ca_file."
        )
    return f"The TLS handshake failed ({text})."
