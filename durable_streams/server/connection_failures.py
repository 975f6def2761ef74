"""Classification of why an HTTP request of a twisted.web agent failed, for its clients to put into words."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.web.http import PotentialDataLoss


class ConnectionFailure(Enum):
    """The class of a failed request."""

    #: The host refused the connection.
    REFUSED = auto()
    #: The host did not accept the connection in time.
    TIMEOUT = auto()
    #: The certificate is for another host.
    WRONG_HOST = auto()
    #: The TLS handshake failed; :func:`tls_reasons` has the reasons of OpenSSL.
    TLS = auto()
    #: The connection could not be made for another reason.
    CONNECT = auto()
    #: The connection ended before the answer did.
    BROKEN = auto()
    #: The answer is not HTTP.
    NOT_HTTP = auto()


#: Reasons that say only that the connection ended.
_ENDS: Final = (error.ConnectionDone, error.ConnectionLost, error.ConnectionAborted, PotentialDataLoss)


def classify(
    failure: Failure, known: tuple[type[BaseException], ...]
) -> tuple[BaseException, ConnectionFailure | None]:
    """
    Return the cause of a failed request, and its class.

    :param failure: what the agent, or the protocol of the body, reported.
    :param known: exceptions that the caller explains itself. They are causes without a class.
    :returns: None for the class of a known exception, or of any other, which is an error of this program.
    """
    causes = list(_causes(failure.value))
    for cause in causes:
        if isinstance(cause, known):
            return cause, None
        if (found := _class_of(cause)) is not None:
            return cause, found
    for cause in causes:
        if isinstance(cause, _ENDS):
            return cause, ConnectionFailure.BROKEN
    for cause in causes:
        if isinstance(cause, (ValueError, KeyError)) or type(cause).__module__.startswith("twisted.web"):
            # twisted.web's parser raises errors of its own, a ValueError for two lengths, and a KeyError for an unknown
            # transfer coding.
            return cause, ConnectionFailure.NOT_HTTP
    return causes[0], None


def tls_reasons(failed: SSL.Error) -> str:
    """Return the reasons of OpenSSL, which has texts of its own for each; empty if it has none."""
    entries = failed.args[0] if failed.args and isinstance(failed.args[0], list) else []
    return ", ".join(str(entry[-1]) for entry in entries if isinstance(entry, tuple) and entry)


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


def _class_of(cause: BaseException) -> ConnectionFailure | None:
    """Return the class of an exception that says why there is no connection; None for others."""
    match cause:
        case error.ConnectionRefusedError():
            return ConnectionFailure.REFUSED
        case error.TimeoutError() | error.TCPTimedOutError():
            return ConnectionFailure.TIMEOUT
        case VerificationError():
            return ConnectionFailure.WRONG_HOST
        case SSL.Error():
            return ConnectionFailure.TLS
        case error.ConnectError() | error.UserError():
            return ConnectionFailure.CONNECT
    return None
