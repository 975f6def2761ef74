"""Why a delivery attempt failed: a reason for counters, and a sentence for the log without URL queries or tokens."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.python.failure import Failure


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


#: Reasons that say only that the connection ended.
_ENDS = (error.ConnectionDone, error.ConnectionLost, error.ConnectionAborted)


def explained(failure: Failure) -> DeliveryFailed | None:
    """Return the failure of a request as one of the attempt; None for an error of this program."""
    causes = list(_causes(failure.value))
    for cause in causes:
        found = _explain_one(cause)
        if found is not None:
            return found
    if any(isinstance(cause, _ENDS) for cause in causes):
        return DeliveryFailed(FailureReason.INCOMPLETE, "The connection broke before the answer was complete.")
    for cause in causes:
        if isinstance(cause, (ValueError, KeyError)) or type(cause).__module__.startswith("twisted.web"):
            # twisted.web's parser raises errors of its own, a ValueError for two lengths, and a KeyError for an unknown
            # transfer coding.
            return DeliveryFailed(FailureReason.INVALID, "The answer is not valid HTTP.")
    return None


def _causes(cause: BaseException | None) -> Iterator[BaseException]:
    """Yield the exceptions inside those of twisted.web that have a list of reasons, innermost first."""
    if cause is None:
        return
    reasons = getattr(cause, "reasons", None)
    if isinstance(reasons, (list, tuple)):
        for reason in reasons:
            if isinstance(reason, Failure):
                yield from _causes(reason.value)
    yield cause


def _explain_one(cause: BaseException) -> DeliveryFailed | None:
    match cause:
        case DeliveryFailed():
            return cause
        case error.ConnectionRefusedError():
            return DeliveryFailed(FailureReason.CONNECT, "The connection was refused.")
        case error.TimeoutError() | error.TCPTimedOutError():
            return DeliveryFailed(FailureReason.TIMEOUT, "The host did not answer in time.")
        case VerificationError():
            return DeliveryFailed(FailureReason.TLS, "The certificate is for another host.")
        case SSL.Error():
            return DeliveryFailed(FailureReason.TLS, _tls_message(cause))
        case error.ConnectError() | error.UserError():
            return DeliveryFailed(FailureReason.CONNECT, f"The connection failed ({type(cause).__name__}).")
    return None


def _tls_message(cause: SSL.Error) -> str:
    """Return a sentence with the reasons of OpenSSL, which has texts of its own for each."""
    reasons = []
    if cause.args and isinstance(cause.args[0], list):
        reasons = [str(entry[-1]) for entry in cause.args[0] if isinstance(entry, tuple) and entry]
    text = ", ".join(reasons) or "the receiver ended it"
    if "certificate verify failed" in text:
        return f"The certificate is not trusted ({text})."
    return f"The TLS handshake failed ({text})."
