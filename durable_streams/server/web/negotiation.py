"""Choice of a connection's protocol: at once on a socket, after the handshake over TLS, else with the first bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IProtocolNegotiationFactory,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import RateLimited, StreamsError, Unavailable
from ..identity.rates import Account
from .callers import caller_on, peer_address
from .connections import Connections
from .http1.channel import StreamChannel
from .http2.channel import Http2Channel, goodbye
from .problems import WrongVersion
from .transports import Transport, is_direct
from .wire import CLOSE, STATUS_LINES

#: How long a connection that is refused is left the time to read why, in seconds.
_LINGER: Final = 1

#: The maximum number of received bytes that are read before a connection is closed at once.
_AT_ONCE: Final = 65_536


def negotiated(transport: Any) -> bytes:
    """Return the protocol that ALPN has negotiated; HTTP/1.1 without ALPN."""
    return (ISSLTransport.providedBy(transport) and getattr(transport, "negotiatedProtocol", None)) or b"http/1.1"


@implementer(IHandshakeListener)
class Negotiation(Protocol):
    """
    A connection whose protocol is not known yet.

    It makes way for the channel that does, so that nothing of it is in the way of later packets. Only what is a
    socket's own is known when it is made: over TLS the client is known after the handshake, and behind a proxy that
    says who it is, with the first bytes.

    :param account: of the address, if its connections are limited.
    :param is_known: whether the address was known when the connection was accepted.
    :ivar deadline: the factory's tick until which it may take.
    """

    factory: Connections
    transport: Transport  # type: ignore[assignment]

    def __init__(self, factory: Connections, account: Account | None = None, is_known: bool = True) -> None:
        self.factory = factory
        self.deadline = 0
        self._account = account
        self._is_known = is_known
        self._timed_out = False
        self._chosen: Protocol | None = None

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if is_direct(self.transport):
            self._choose()
            return
        self.deadline = self.factory.tick + self.factory.settings.header_timeout
        self.factory.joined(self)
        self.factory.charge(self, self._account)

    def handshakeCompleted(self) -> None:
        self._choose()

    def dataReceived(self, data: bytes) -> None:
        if self._chosen is None:
            self._choose()
        assert self._chosen is not None
        self._chosen.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._chosen is not None:
            self._chosen.connectionLost(reason)
            return
        self.factory.left(self)
        if self.deadline and not self.factory.draining:
            self.factory.handshake_failures.add(self.transport, reason, self._timed_out)

    def expire(self) -> None:
        """Abort the connection: the handshake took too long."""
        self._timed_out = True
        self.transport.abortConnection()

    def drain(self) -> None:
        """Abort the connection: no request was received."""
        self.transport.abortConnection()

    def _choose(self) -> None:
        if self._chosen is not None:
            return
        account = self.factory.discharge(self) or self._account
        chosen = self._chosen = self._protocol(account)
        self._make_way(chosen)
        chosen.makeConnection(self.transport)
        if self.deadline:
            self.factory.left(self)

    def _protocol(self, account: Account | None) -> Protocol:
        """Make the protocol of the connection, whose peer and whose negotiated protocol are known now."""
        factory, quotas = self.factory, self.factory.quotas
        error: StreamsError
        try:
            if quotas is not None and not self._is_known:
                account = _open_connection(factory, peer_address(self.transport.getPeer()))
            spoken = negotiated(self.transport)
            if spoken == b"h2":
                channel: StreamChannel | Http2Channel = Http2Channel(factory)
            elif spoken in factory.settings.protocols:
                channel = StreamChannel(factory)
            else:
                raise WrongVersion("This server speaks HTTP/2 only, over TLS with ALPN.")
        except StreamsError as refused:
            error = refused
        else:
            factory.charge(channel, account)
            return channel
        if account is not None and quotas is not None:
            quotas.close_connection(account)
        return Refusal(factory, error)

    def _make_way(self, channel: Protocol) -> None:
        for place in ("protocol", "wrappedProtocol"):
            if getattr(self.transport, place, None) is self:
                setattr(self.transport, place, channel)


@implementer(IHandshakeListener)
class Refusal(Protocol):
    """
    A connection that is refused: it gets an answer, whatever it sends, and is closed.

    :param error: why, of a client whose handshake is over; None for too many connections.
    """

    transport: Transport  # type: ignore[assignment]

    def __init__(self, factory: Connections, error: StreamsError | None = None) -> None:
        self._factory = factory
        self._error = error or Unavailable("The server has as many connections as it takes. Come back in a moment.")
        self._is_known = error is not None
        self._told = False
        self._end: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._factory.refusals += 1
        if self._factory.refusals > self._factory.settings.refusals:
            self._told = True
            _close_at_once(self.transport, self._answer)
            return
        self._end = self._factory.clock.callLater(_LINGER, self.transport.abortConnection)
        # After a handshake the client can read an answer in the negotiated protocol.
        if self._is_known or not ISSLTransport.providedBy(self.transport):
            self._tell()

    def handshakeCompleted(self) -> None:
        self._tell()

    def dataReceived(self, data: bytes) -> None:
        """Answer the connection; the received bytes are ignored."""
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.refusals -= 1
        if self._end is not None and self._end.active():
            self._end.cancel()

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        if negotiated(self.transport) == b"h2":
            self.transport.write(goodbye())
            self.transport.loseConnection()
            return
        self.transport.write(self._answer())
        if is_direct(self.transport):
            # A client that is still sending would never read this if the socket were closed under it.
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def _answer(self) -> bytes:
        began_at = perf_counter()
        operations = self._factory.operations
        caller = caller_on(self.transport, operations.proxies.trusts)
        return self._factory.framer.http1(operations.answers.error(None, self._error), caller, began_at, CLOSE)


class ClosedConnection(Protocol):
    """
    A connection over a quota of its address, which is closed at once.

    Over TLS that is before a handshake, and otherwise after an answer that costs next to nothing. A factory that can
    refuse a connection without a protocol need not use it.
    """

    transport: Transport  # type: ignore[assignment]

    def __init__(self, factory: Connections, error: RateLimited) -> None:
        self._factory = factory
        self._error = error

    def connectionMade(self) -> None:
        _close_at_once(self.transport, self._answer)

    def _answer(self) -> bytes:
        """Return an answer that is not passed to telemetry: a flood must not fill the log."""
        answer = self._factory.operations.answers.error(None, self._error)
        assert isinstance(answer.body, bytes)
        head = STATUS_LINES[answer.status] + self._factory.framer.date_line + answer.head + CLOSE
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(answer.body), answer.body)


def _close_at_once(transport: Any, answer: Callable[[], bytes]) -> None:
    """
    Write an answer to a socket and close it, without time for the client to read it. Abort any other transport.

    :param answer: makes the answer; it is not called for a transport that is aborted.
    """
    if not is_direct(transport):
        transport.abortConnection()
        return
    # A socket that is closed with something unread is reset, and the answer may be lost with it.
    with suppress(OSError):
        transport.socket.recv(_AT_ONCE)
    transport.writeSomeData(answer())
    # Not in the reactor's next turn: as many as are accepted in this one would keep their descriptors until then.
    transport.connectionLost(Failure(CONNECTION_DONE))


def _open_connection(factory: Connections, address: str) -> Account | None:
    """
    Count a connection of an address, unless it is a trusted proxy's.

    :raises RateLimited: the address has as many as it may.
    """
    quotas = factory.quotas
    if quotas is None or factory.operations.proxies.trusts(address):
        return None
    return quotas.open_connection(address)


@implementer(IProtocolNegotiationFactory)
class ChannelFactory(Connections):
    """Factory of the daemon's connections: each becomes a :class:`.StreamChannel` or an :class:`.Http2Channel`."""

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        if len(self._channels) >= self.settings.connections or self.draining:
            return self.refusal()
        account = None
        if self.quotas is not None and addr is not None:
            try:
                account = _open_connection(self, peer_address(addr))
            except RateLimited as error:
                self.refused += 1
                return ClosedConnection(self, error)
        self.accepted += 1
        return Negotiation(self, account, addr is not None)

    def refusal(self) -> Protocol:
        """Make the protocol that answers a connection over the limit."""
        self.refused += 1
        return Refusal(self)

    def acceptableProtocols(self) -> list[bytes]:
        return list(self.settings.protocols)
