"""TLS on one connection, with less to do for each record than Twisted's: it is what an append over TLS mostly costs."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL.SSL import Error, WantReadError
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

#: What a record begins with, in bytes (RFC 8446 section 5.1).
_RECORD_HEAD: Final = 5

#: More than a record can hold.
_BUFFER: Final = 32_768


class DirectTLS(TLSMemoryBIOProtocol):
    """
    Twisted's TLS, which encrypts what is written at once, and does not look for what can't be there.

    Twisted keeps small writes until the reactor's next turn, to make one of them; here whatever writes has gathered
    already. And it asks OpenSSL after each packet for more to be read and more to be sent, which an exception answers.
    Most packets are one record, whole, and one record is all there is to be read then.
    """

    # How many bytes there are to the next record, and the first ones of it, if they are too few to tell its length
    _left = 0
    _begun = b""

    def dataReceived(self, data: bytes) -> None:
        whole = self._is_one_record(data)
        if not whole or not self._handshakeDone or self._appSendBuffer or self._aborted or self._lostTLSConnection:
            super().dataReceived(data)
            return
        connection: Any = self._tlsConnection
        connection.bio_write(data)
        try:
            plain = connection.recv(_BUFFER)
        except (WantReadError, Error):
            # A record of no data, or the end: Twisted knows what to make of it, and finds it there again.
            self._flushReceiveBIO()
            return
        self.wrappedProtocol.dataReceived(plain)

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
        """Pass on all that a packet has in one call: a slice of time is for a packet, not for each of its records."""
        connection: Any = self._tlsConnection
        records: list[bytes] = []
        try:
            while not self._lostTLSConnection:
                records.append(connection.recv(_BUFFER))
        except Error:
            # There is no more, or it is the end: Twisted knows what to make of it, and finds it there again.
            pass
        if records and not self._aborted:
            self.wrappedProtocol.dataReceived(b"".join(records))
        super()._flushReceiveBIO()

    def _is_one_record(self, data: bytes) -> bool:
        """Keep to where records begin, and tell whether this is exactly one."""
        if not self._left and not self._begun and len(data) == _RECORD_HEAD + int.from_bytes(data[3:5], "big"):
            return True
        data = self._begun + data
        place = self._left
        while place + _RECORD_HEAD <= len(data):
            place += _RECORD_HEAD + int.from_bytes(data[place + 3 : place + 5], "big")
        self._begun = data[place:]
        self._left = max(0, place - len(data))
        return False
