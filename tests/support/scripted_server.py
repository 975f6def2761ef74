"""A TCP server that answers as a script says, to show a client what a real server never sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


class ScriptedConnection(Protocol):
    """
    One connection. Each complete request head is kept, and passed to the script.

    :ivar sent: how many bytes a flood has sent.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._received = b""
        self.is_lost = False
        self.sent = 0

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._received[:1] == b"\x16":
            # A TLS handshake: servers of plain HTTP answer so.
            self.write(answer("400 Bad Request"))
            self.close()
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            if b" HTTP/1.1\r\n" in head:
                self._server.heads.append(head.decode("latin-1"))
                self._server.script(self, self._server.heads[-1])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self._server.connections.discard(self)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        transport: Any = self.transport
        transport.write(data)

    def close(self) -> None:
        """Close the connection."""
        transport: Any = self.transport
        transport.loseConnection()

    def flood(self, pieces: Iterator[bytes]) -> None:
        """Send pieces as fast as the client reads."""
        transport: Any = self.transport
        transport.registerProducer(_Flood(self, pieces), False)


class _Flood:
    """A pull producer of pieces."""

    def __init__(self, connection: ScriptedConnection, pieces: Iterator[bytes]) -> None:
        self._connection = connection
        self._pieces = pieces

    def resumeProducing(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            transport: Any = self._connection.transport
            transport.unregisterProducer()
        else:
            self._connection.sent += len(piece)
            self._connection.write(piece)

    def stopProducing(self) -> None:
        """Stop."""


class ScriptedServer:
    """
    A server on a free port of an address.

    :param script: called with the connection and the head of each request.
    :param contexts: creates the contexts of TLS connections; None for plain ones.
    :ivar heads: the heads of all requests.
    """

    def __init__(
        self,
        reactor: Any,
        script: Callable[[ScriptedConnection, str], object],
        contexts: Any = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.script = script
        self._address = address
        self._scheme = "http" if contexts is None else "https"
        self.heads: list[str] = []
        self.connections: set[ScriptedConnection] = set()
        factory: Any = Factory()
        factory.buildProtocol = self._connect
        if contexts is None:
            self._port = reactor.listenTCP(0, factory, interface=address)
        else:
            self._port = reactor.listenSSL(0, factory, contexts, interface=address)

    @property
    def url(self) -> str:
        """The URL of a stream."""
        return f"{self._scheme}://{self._address}:{self._port.getHost().port}/v1/stream/it"

    def _connect(self, _: Any) -> ScriptedConnection:
        connection = ScriptedConnection(self)
        self.connections.add(connection)
        return connection

    async def stop(self) -> None:
        """Close the port and all connections."""
        await self._port.stopListening()
        for connection in list(self.connections):
            transport: Any = connection.transport
            transport.abortConnection()


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    """Return an answer with its length: ``stream_closed="true"`` is a header."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
