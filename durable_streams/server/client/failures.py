"""Conversion of failures of Twisted, OpenSSL and service-identity into errors of the client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.http import PotentialDataLoss

from .errors import ClientError, ConnectFailed, ConnectionBroken, InvalidAnswer, TlsFailed, printable

#: Reasons that say only that the connection ended.
_ENDS: Final = (error.ConnectionDone, error.ConnectionLost, error.ConnectionAborted, PotentialDataLoss)


def explain(failure: Failure, url: str) -> ClientError | CancelledError:
    """
    Return the error of a request that failed.

    :param failure: what the agent or the body's protocol reported.
    :param url: the URL of the request.
    :returns: a CancelledError if the request was cancelled.
    """
    causes = list(_causes(failure.value))
    for cause in causes:
        found = _explain_one(cause, url)
        if found is not None:
            return found
    if any(isinstance(cause, _ENDS) for cause in causes):
        return ConnectionBroken(f"{url}: the connection broke before the answer was complete.")
    for cause in causes:
        if isinstance(cause, (ValueError, KeyError)) or type(cause).__module__.startswith("twisted.web"):
            # twisted.web's parser raises errors of its own, a ValueError for two lengths, and a KeyError for an unknown
            # transfer coding.
            return InvalidAnswer(f"{url}: the answer is not valid HTTP. Check that the URL is one of an HTTP server.")
    # An error of this program.
    raise causes[0]


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


def _explain_one(cause: BaseException, url: str) -> ClientError | CancelledError | None:  # noqa: PLR0911
    where = _where(url)
    match cause:
        case ClientError() | CancelledError():
            return cause
        case error.ConnectingCancelledError():
            return CancelledError()
        case error.ConnectionRefusedError():
            return ConnectFailed(
                f"Cannot connect to {where}: connection refused. Start the server there, or correct the URL."
            )
        case error.DNSLookupError():
            return ConnectFailed(f"Cannot find the host of {where}. Correct the URL.")
        case error.TimeoutError() | error.TCPTimedOutError():
            return ConnectFailed(
                f"Cannot connect to {where}: no answer in time. Correct the URL, or check the network."
            )
        case VerificationError():
            return TlsFailed(
                f"The certificate of {where} is for another host. Use the host name that is in the certificate."
            )
        case SSL.Error():
            return TlsFailed(_tls_message(cause, where))
        case error.ConnectError() | error.UserError():
            text = printable(str(cause))
            return ConnectFailed(f"Cannot connect to {where}: {text.rstrip('.')}.")
    return None


def _tls_message(cause: SSL.Error, where: str) -> str:
    reasons = []
    if cause.args and isinstance(cause.args[0], list):
        reasons = [str(entry[-1]) for entry in cause.args[0] if isinstance(entry, tuple) and entry]
    text = printable(", ".join(reasons)) or "the server ended the handshake"
    if "certificate verify failed" in text:
        return (
            f"The certificate of {where} is not trusted ({text}). Give the certificate of its authority (ca), or check "
            "that this is the server you mean."
        )
    if "wrong version number" in text or "record layer failure" in text or "packet length too long" in text:
        return f"{where} does not speak TLS. Use an http: URL, or correct the port."
    return f"The TLS handshake with {where} failed: {text}. If it asks for a client certificate, give cert and key."


def _where(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or url
