"""Count and log of failed TLS handshakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clocks import IClock

#: How many failures are logged in a second at most.
MAX_LINES: Final = 5

#: OpenSSL's reason, or a part of it -> a sentence for operators.
_SENTENCES: Final[Mapping[str, str]] = {
    "http request": "the client speaks plain HTTP; its URL must begin with https://",
    "wrong version number": "what the client sends is not TLS",
    "unsupported protocol": "the client speaks no TLS version that transport.tls.min_version and max_version allow",
    "no shared cipher": "client and server have no cipher in common",
    "no application protocol": "client and server have no protocol in common (ALPN)",
    "peer did not return a certificate": "the client shows no certificate, and transport.mode mtls needs one",
    "certificate verify failed": "the client's certificate is not valid, or not of an authority in client_ca_path",
    "unknown ca": "the client does not trust the authority of the server's certificate",
    "certificate unknown": "the client does not accept the server's certificate",
    "bad certificate": "the client does not accept the server's certificate",
    "certificate expired": "the client says that the server's certificate has expired",
}

_TIMED_OUT: Final = "it was not finished in transport.connection.header_timeout_secs"

_log = Logger()


class HandshakeFailures:
    """
    Counts and logs TLS handshakes that fail.

    A connection that ends without a ClientHello, as those of TCP probes do, is not one of them.

    :ivar count: how many there were.
    """

    def __init__(self, clock: IClock) -> None:
        self._clock = clock
        self.count = 0
        self._second = -1
        self._lines = self._suppressed = 0

    def add(self, transport: Any, reason: Failure, timed_out: bool) -> None:
        """
        Count and log a connection that ended before its protocol was known.

        :param reason: why it ended.
        :param timed_out: the server ended it, because the handshake took too long.
        """
        if not ISSLTransport.providedBy(transport) or not _has_begun(transport, reason):
            return
        self.count += 1
        second = int(self._clock.seconds())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > MAX_LINES:
            self._suppressed += 1
            return
        suppressed, self._suppressed = self._suppressed, 0
        _log.info(
            "TLS handshake with {client} failed: {sentence}.{more}",
            client=_describe(transport.getPeer()),
            sentence=_TIMED_OUT if timed_out else _sentence(reason),
            more=f" {suppressed} more failures were not logged." if suppressed else "",
        )


def _openssl_reason(reason: Failure) -> str:
    """Return OpenSSL's reason; empty for errors of the socket."""
    try:
        return str(_last_error(reason)[-1][-1])  # type: ignore[index]
    except (AttributeError, IndexError, TypeError):
        return ""


def _has_begun(transport: Any, reason: Failure) -> bool:
    """Return whether OpenSSL has read any bytes, a ClientHello or not."""
    if isinstance(_last_error(reason), list):
        return True
    return transport.getHandle().client_random() is not None


def _last_error(reason: Failure) -> object:
    """Return OpenSSL's queue of errors, which is the first argument of its exception."""
    arguments = getattr(reason.value, "args", ())
    return arguments[0] if arguments else None


def _sentence(reason: Failure) -> str:
    said = _openssl_reason(reason)
    for part, sentence in _SENTENCES.items():
        if part in said:
            return f"{sentence} (OpenSSL: {said})"
    if said and isinstance(_last_error(reason), list):
        return f"OpenSSL says: {said}"
    return "the client closed the connection before the handshake was finished"


def _describe(address: Any) -> str:
    host = getattr(address, "host", None)
    if host is None:
        return "a UNIX socket"
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
