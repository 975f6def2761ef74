"""Conversion of failures of Twisted, OpenSSL and service-identity into errors of the client."""

from __future__ import annotations

from urllib.parse import urlsplit

from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError, DNSLookupError
from twisted.python.failure import Failure

from ..connection_failures import ConnectionFailure, classify, tls_reasons
from .errors import ClientError, ConnectFailed, ConnectionBroken, InvalidAnswer, TlsFailed, printable

#: Failures of a request that are no failures of its connection.
_KNOWN = (ClientError, CancelledError, ConnectingCancelledError, DNSLookupError)


def explain(failure: Failure, url: str) -> ClientError | CancelledError:  # noqa: PLR0911 (one for each kind)
    """
    Return the error of a request that failed.

    :param failure: what the agent or the body's protocol reported.
    :param url: the URL of the request.
    :returns: a CancelledError if the request was cancelled.
    :raises Exception: an error of this program.
    """
    where = urlsplit(url).netloc.rpartition("@")[2] or url
    cause, kind = classify(failure, _KNOWN)
    match kind:
        case ConnectionFailure.REFUSED:
            return ConnectFailed(
                f"Cannot connect to {where}: connection refused. Start the server there, or correct the URL."
            )
        case ConnectionFailure.TIMEOUT:
            return ConnectFailed(
                f"Cannot connect to {where}: no answer in time. Correct the URL, or check the network."
            )
        case ConnectionFailure.WRONG_HOST:
            return TlsFailed(
                f"The certificate of {where} is for another host. Use the host name that is in the certificate."
            )
        case ConnectionFailure.TLS:
            assert isinstance(cause, SSL.Error)
            return TlsFailed(_tls_message(cause, where))
        case ConnectionFailure.CONNECT:
            text = printable(str(cause))
            return ConnectFailed(f"Cannot connect to {where}: {text.rstrip('.')}.")
        case ConnectionFailure.BROKEN:
            return ConnectionBroken(f"{url}: the connection broke before the answer was complete.")
        case ConnectionFailure.NOT_HTTP:
            return InvalidAnswer(f"{url}: the answer is not valid HTTP. Check that the URL is one of an HTTP server.")
    match cause:
        case ClientError() | CancelledError():
            return cause
        case ConnectingCancelledError():
            return CancelledError()
        case DNSLookupError():
            return ConnectFailed(f"Cannot find the host of {where}. Correct the URL.")
    raise cause


def _tls_message(cause: SSL.Error, where: str) -> str:
    text = printable(tls_reasons(cause)) or "the server ended the handshake"
    if "certificate verify failed" in text:
        return (
            f"The certificate of {where} is not trusted ({text}). Give the certificate of its authority (ca), or check "
            "that this is the server you mean."
        )
    if "wrong version number" in text or "record layer failure" in text or "packet length too long" in text:
        return f"{where} does not speak TLS. Use an http: URL, or correct the port."
    return f"The TLS handshake with {where} failed: {text}. If it asks for a client certificate, give cert and key."
