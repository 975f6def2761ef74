"""TLS on one connection, with less work for each record than Twisted's: most of an append's cost over TLS."""

from __future__ import annotations

import re
from typing import Any, Final

from OpenSSL.SSL import Error, WantReadError
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

#: Bytes of a record's header (RFC 8446 section 5.1).
_RECORD_HEAD: Final = 5

#: The size of a read: more than a record can hold.
_BUFFER: Final = 32_768

#: The beginning of a plain HTTP request, HTTP/2 included. The first byte of a TLS record is not a letter.
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

    # The number of bytes up to the next record, and its first bytes if its header is incomplete
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
            # An empty record, an alert or the end: Twisted's method reads again and handles it.
            self._flushReceiveBIO()
            return
        self.wrappedProtocol.dataReceived(plain)

    def _answer_plain_http(self) -> None:
        transport: Any = self.transport
        transport.write(_USE_HTTPS)
        # End it like a failed handshake, which closes the connection.
        self._tlsShutdownFinished(Failure(PlainHttp()))

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """
        End the TLS connection; drop the traceback of the error that ended it.

        The failure is a local variable of a frame in that traceback. This reference cycle would keep the connection and
        its buffers.
        """
        super()._tlsShutdownFinished(reason)
        if reason is not None and reason.value is not None:
            reason.tb = reason.value.__traceback__ = None

    def _flushReceiveBIO(self) -> None:  # noqa: N802 (Twisted's name)
        """Pass on all records of a packet in one call, because slices of time are counted by packets."""
        connection: Any = self._tlsConnection
        records: list[bytes] = []
        try:
            while not self._lostTLSConnection:
                records.append(connection.recv(_BUFFER))
        except Error:
            # Nothing is left, or the connection ends: super() reads again and handles it.
            pass
        if records and not self._aborted:
            self.wrappedProtocol.dataReceived(b"".join(records))
        super()._flushReceiveBIO()

    def _is_one_record(self, data: bytes) -> bool:
        """Track the boundaries of records; return whether ``data`` is exactly one record."""
        if not self._left and not self._begun and len(data) == _RECORD_HEAD + int.from_bytes(data[3:5], "big"):
            return True
        data = self._begun + data
        place = self._left
        while place + _RECORD_HEAD <= len(data):
            place += _RECORD_HEAD + int.from_bytes(data[place + 3 : place + 5], "big")
        self._begun = data[place:]
        self._left = max(0, place - len(data))
        return False
