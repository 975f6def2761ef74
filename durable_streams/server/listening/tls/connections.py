"""TLS on one connection, cheaper for each record than Twisted's: records are most of the cost of an append over TLS."""

from __future__ import annotations

import re
from typing import Any, Final

from OpenSSL.SSL import Error, WantReadError
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

#: Bytes of a record's header (RFC 8446 section 5.1).
_RECORD_HEAD: Final = 5

#: More than a record can hold.
_BUFFER: Final = 32_768

#: How a request of plain HTTP begins, HTTP/2 among them. A TLS record begins with a byte that is no letter.
_PLAIN_HTTP: Final = re.compile(rb"[A-Z]{3,16} ")

_SENTENCE: Final = b"This port speaks TLS: use https://\n"

#: The answer to plain HTTP.
_USE_HTTPS: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_SENTENCE), _SENTENCE)
)


class PlainHttp(Error):
    """A client speaks plain HTTP on a TLS port; the handshake fails."""

    def __init__(self) -> None:
        super().__init__([("SSL routines", "", "http request")])


class DirectTLS(TLSMemoryBIOProtocol):
    """
    TLSMemoryBIOProtocol without write coalescing and without extra BIO polls after a single complete record.

    Twisted keeps small writes until the reactor's next turn to join them; here the writers have joined them already.
    And it asks OpenSSL after each packet for more to read and more to send, which costs an exception each time. Most
    packets are one complete record, after which there is nothing more.

    Plain HTTP in place of a handshake is answered with 400.
    """

    # Bytes up to the next record; and that record's first bytes, if they are fewer than its header
    _left = 0
    _begun = b""
    # Whether the first packet has come
    _is_greeted = False

    def dataReceived(self, data: bytes) -> None:
        if not self._is_greeted:
            self._is_greeted = True
            if _PLAIN_HTTP.match(data):
                self._answer_plain_http()
                return
        whole = self._is_one_record(data)
        if not whole or not self._handshakeDone or self._appSendBuffer or self._aborted or self._lostTLSConnection:
            super().dataReceived(data)
            return
        connection: Any = self._tlsConnection
        connection.bio_write(data)
        try:
            plain = connection.recv(_BUFFER)
        except (WantReadError, Error):
            # An empty record, an alert or the end: Twisted reads it again and acts on it.
            self._flushReceiveBIO()
            return
        self.wrappedProtocol.dataReceived(plain)

    def _answer_plain_http(self) -> None:
        transport: Any = self.transport
        transport.write(_USE_HTTPS)
        # As if OpenSSL had found out, which closes the connection.
        self._tlsShutdownFinished(Failure(PlainHttp()))

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """
        End the TLS connection; drop the traceback of the error that ended it.

        Twisted has the failure in a local variable of a frame of that traceback: this cycle holds the connection with
        its buffers.
        """
        super()._tlsShutdownFinished(reason)
        if reason is not None and reason.value is not None:
            reason.tb = reason.value.__traceback__ = None

    def _flushReceiveBIO(self) -> None:  # noqa: N802 (Twisted calls it so)
        """Pass on all records of a packet in one call: slices of time are counted by packets."""
        connection: Any = self._tlsConnection
        records: list[bytes] = []
        try:
            while not self._lostTLSConnection:
                records.append(connection.recv(_BUFFER))
        except Error:
            # Nothing is left, or the end: Twisted reads it again and acts on it.
            pass
        if records and not self._aborted:
            self.wrappedProtocol.dataReceived(b"".join(records))
        super()._flushReceiveBIO()

    def _is_one_record(self, data: bytes) -> bool:
        """Follow the boundaries of records; return whether ``data`` is exactly one record."""
        if not self._left and not self._begun and len(data) == _RECORD_HEAD + int.from_bytes(data[3:5], "big"):
            return True
        data = self._begun + data
        place = self._left
        while place + _RECORD_HEAD <= len(data):
            place += _RECORD_HEAD + int.from_bytes(data[place + 3 : place + 5], "big")
        self._begun = data[place:]
        self._left = max(0, place - len(data))
        return False
