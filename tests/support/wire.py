"""Connections without a network: Twisted's TCP transport on sockets that are two buffers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.internet.task import Clock
from twisted.internet.tcp import Server

#: The receive buffer's size of a fast reader, in bytes: never filled.
ENDLESS = 1 << 60


class Socket:
    """
    A socket that consists of two buffers.

    :ivar inbound: sent by the client, not received yet.
    :ivar outbound: sent by the server, not taken by the client yet; of at most ``room`` bytes.
    """

    def __init__(self, number: int, address: str) -> None:
        self._address = address
        self.inbound = bytearray()
        self.inbound_ended = False
        self.outbound = bytearray()
        self.room = ENDLESS
        self.ended = False
        self.closed = False
        self.reset = False
        self._number = number

    def recv(self, size: int) -> bytes:
        if self.inbound:
            data = bytes(self.inbound[:size])
            del self.inbound[:size]
            return data
        if self.inbound_ended:
            return b""
        raise BlockingIOError(errno.EWOULDBLOCK, "nothing there")

    def send(self, data: memoryview) -> int:
        if self.ended or self.closed:
            raise BrokenPipeError(errno.EPIPE, "the socket is shut")
        taken = data[: max(0, self.room - len(self.outbound))]
        if not len(taken) and len(data):
            raise BlockingIOError(errno.EWOULDBLOCK, "no room")
        self.outbound += taken
        return len(taken)

    def shutdown(self, how: int) -> None:
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self.ended = True

    def setsockopt(self, level: int, option: int, value: object) -> None:
        if option == socket.SO_LINGER:
            self.reset = True

    def close(self) -> None:
        self.ended = self.closed = True

    def fileno(self) -> int:
        return -1 if self.closed else self._number

    def setblocking(self, flag: bool) -> None:
        """Do nothing: the socket never blocks."""

    def getpeername(self) -> tuple[str, int]:
        return self._address, 50_000 + self._number % 10_000

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.2", 4437


class HoldingServer(Server):
    """A transport that holds sends back, as those of the server's own ports do."""

    reactor: Any

    def hold(self, send: Callable[[], None]) -> None:
        self.reactor.held.append(send)

    def send_held(self) -> None:
        self.reactor.send_held()


class Network(_DisconnectSelectableMixin):
    """
    The connections of a test, polled on a Clock as a reactor polls descriptors.

    It offers transports what they need of a reactor.

    :ivar client_address: from where clients connect.
    :ivar held: the sends that are held back until all clients were read.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.client_address = "192.0.2.1"
        self.callLater = clock.callLater
        self._readers: set[Any] = set()
        self._writers: set[Any] = set()
        self._opened = 0
        self.held: list[Callable[[], None]] = []

    def addReader(self, reader: Any) -> None:
        self._readers.add(reader)

    def addWriter(self, writer: Any) -> None:
        self._writers.add(writer)

    def removeReader(self, reader: Any) -> None:
        self._readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        self._writers.discard(writer)

    def accept(self, factory: IProtocolFactory, room: int = ENDLESS) -> tuple[Socket, Server]:
        """Let a client connect; ``room`` is how much it lets lie before the server's sends are refused."""
        self._opened += 1
        skt = Socket(self._opened, self.client_address)
        skt.room = room
        protocol = factory.buildProtocol(IPv4Address("TCP", *skt.getpeername()))
        assert protocol is not None
        port = SimpleNamespace(_realPortNumber=4437)
        server = HoldingServer(
            cast(socket.socket, skt),
            protocol,
            skt.getpeername(),
            cast(Any, port),
            self._opened,
            cast(Any, self),
        )
        protocol.makeConnection(server)
        return skt, server

    def turn(self) -> bool:
        """Do once what is to be done now, reads before writes as the epoll reactor does; tell if there was anything."""
        busy = False
        for transport in sorted(self._readers | self._writers, key=lambda each: cast(int, each.sessionno)):
            skt = cast(Socket, transport.socket)
            if transport in self._readers and (skt.inbound or skt.inbound_ended):
                busy = True
                self._do(transport, transport.doRead, True)
            if transport in self._writers and (len(skt.outbound) < skt.room or skt.ended):
                busy = True
                self._do(transport, transport.doWrite, False)
        self.send_held()
        return busy

    def send_held(self) -> None:
        """Make the sends that are held back."""
        held, self.held = self.held, []
        for send in held:
            send()

    def _do(self, transport: Any, work: Callable[[], object], is_read: bool) -> None:
        if transport.disconnected:
            return
        why = work()
        if why is not None:
            self._disconnectSelectable(transport, why, is_read)

    def settle(self, horizon: float = 0.05) -> None:
        """Go on until nothing is to be done for ``horizon`` seconds; the clock moves no further than it must."""
        end = self.clock.seconds() + horizon
        for _ in range(100_000):
            if self.turn():
                continue
            due = _next_call(self.clock)
            if due is None or due.getTime() > end:
                return
            self.clock.advance(max(0.0, due.getTime() - self.clock.seconds()))
        raise AssertionError("The network does not come to rest.")


def _next_call(clock: Clock) -> IDelayedCall | None:
    calls = clock.getDelayedCalls()
    return min(calls, key=lambda call: call.getTime()) if calls else None
