"""TLS handshakes without sockets, with the client of Python's ssl module."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from .authority import Authority, Issued
from .wire import Network


class Echo(Protocol):
    """A protocol that echoes what it receives."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Client:
    """
    A client with its own connection.

    :ivar tls: Python's end of it.
    :ivar error: why there is no connection; None when there is one.
    """

    def __init__(
        self, network: Network, factory: IProtocolFactory, context: ssl.SSLContext, session: Any = None
    ) -> None:
        self._network = network
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost", session=session)
        self.socket, self.transport = network.accept(factory)
        self.error: ssl.SSLError | None = None
        self._attempt(self.tls.do_handshake)
        # With TLS 1.3 a server refuses a client after that client takes the handshake to be over.
        self.exchange(b"")

    def exchange(self, data: bytes) -> bytes:
        """Send bytes and return the answer."""
        if data and self.error is None:
            self.tls.write(data)
        return self._attempt(lambda: self.tls.read(65_536)) or b""

    def _attempt(self, step: Any) -> Any:
        for _ in range(6):
            if self.error is not None:
                return None
            try:
                return step()
            except ssl.SSLWantReadError:
                self._pump()
            except ssl.SSLError as error:
                self.error = error
        return None

    def _pump(self) -> None:
        self.socket.inbound += self._out.read()
        self._network.settle()
        self._in.write(bytes(self.socket.outbound))
        self.socket.outbound.clear()
        if self.socket.ended and not self._in.pending:
            self._in.write_eof()

    @property
    def shown(self) -> bytes:
        """The certificate that the server sent."""
        return self.tls.getpeercert(True) or b""

    def leave(self) -> None:
        """Close the connection."""
        if not self.transport.disconnected:
            self.transport.connectionLost(Failure(ConnectionResetError()))


def client_context(
    trusts: Authority, folder: Path | None = None, shows: Issued | None = None, **options: Any
) -> ssl.SSLContext:
    """Make what a client begins with: ``minimum_version=...`` and the like, and ``alpn``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusts.certificate_pem.decode())
    alpn = options.pop("alpn", None)
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    for name, value in options.items():
        setattr(context, name, value)
    if shows is not None:
        assert folder is not None
        context.load_cert_chain(*shows.write(folder, "shown"))
    return context


class Wire:
    """A clock, and the network that runs by it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
