"""The part of Twisted's transports that connections use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IAddress


class Transport(Protocol):
    """The methods of Twisted's transports that connections use; no interface of Twisted's has all of them."""

    def write(self, data: bytes) -> object:
        """Send data, or buffer it."""

    def loseConnection(self) -> object:
        """Close the connection when everything is sent."""

    def abortConnection(self) -> object:
        """Close the connection at once; buffered data is dropped."""

    def loseWriteConnection(self) -> object:
        """Shut down the sending half; receiving continues."""

    def pauseProducing(self) -> object:
        """Stop reading from the socket."""

    def resumeProducing(self) -> object:
        """Resume reading."""

    def registerProducer(self, producer: object, streaming: bool) -> object:
        """Register a producer, which is paused while the send buffer is full."""

    def unregisterProducer(self) -> object:
        """Unregister the producer."""

    def setTcpNoDelay(self, enabled: bool) -> object:
        """Set TCP_NODELAY."""

    def startWriting(self) -> object:
        """Register the socket for writing; only a socket's own transport has this."""

    def hold(self, send: Callable[[], None]) -> object:
        """Call ``send`` in this turn of the reactor, after others; only some sockets' own transports have this."""

    def send_held(self) -> object:
        """Make all calls that are held back; transports that have ``hold`` have this."""

    def getPeer(self) -> IAddress:
        """Return the peer's address."""

    def getHost(self) -> IAddress:
        """Return the address of this end."""


def is_direct(transport: Transport) -> bool:
    """
    Return whether a transport is a socket's own, not a wrapper such as TLS.

    A wrapper forwards the socket's attributes; data sent through them would bypass the wrapper.
    """
    return hasattr(type(transport), "writeSomeData") and not getattr(transport, "TLS", False)


#: After the last byte is sent, the connection is read for this many seconds, so that the client receives the end before
#: a reset. At most MAX_DISCARDED bytes are read and discarded in that time. A plain socket is read for longer, since a
#: client may send a body over the limit before it reads the refusal; over TLS each byte costs its decryption.
LINGER: Final = 2
MAX_DISCARDED: Final = 1_048_576
MAX_DISCARDED_PLAIN: Final = 16_777_216


def close_socket(transport: Transport) -> None:
    """
    Close a socket when everything is sent, without waiting for the client's TLS close_notify (RFC 8446 section 6.1).

    The kernel still sends what is in its buffer; an abort would drop it.
    """
    below: Transport | None = getattr(transport, "transport", None)
    (transport if below is None else below).loseConnection()
