"""Listening sockets that one process binds and others inherit.

The supervisor of several workers binds the sockets and keeps them open, without accepting; each worker accepts. So
connections that wait in a socket's queue are not lost if a worker ends: the process that replaces it inherits the same
socket. For a TCP port there is one socket for each worker (SO_REUSEPORT), since the kernel then distributes connections
evenly: of 64 that arrive at once, one of four workers that share one socket accepted 53 to 63, with a socket each 18 to
24. A UNIX socket, and one that a service manager has passed, exists once, so the workers share it.

Endpoints create their ports with a reactor. :class:`ReactorSubstitute` takes its place.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.unix import Port as UNIXPort
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from . import epoll_port
from .steering import steer

#: The first descriptor that a service manager passes (sd_listen_fds).
FIRST_PASSED: Final = 3


class ReactorSubstitute:
    """
    A reactor for endpoints whose methods that create ports are replaced; everything else is the reactor's.

    :param reactor: the real reactor.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listen(self, port: int, factory: Factory, backlog: int, interface: str, prompt: bool) -> IListeningPort:
        """Return a port as :func:`.epoll_port.listen` does."""
        raise NotImplementedError

    def adopt(self, descriptor: int, factory: Factory) -> IListeningPort:
        """Return a port as :func:`.epoll_port.adopt` does."""
        raise NotImplementedError

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Return a port as the reactor's method does."""
        return self.listen(port, factory, backlog, interface, False)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Return a port as the reactor's method does."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), backlog, interface)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        """Return a port as the reactor's method does."""
        return self.adopt(fileDescriptor, factory)


def listen(
    reactor: Any, port: int, factory: Factory, backlog: int, interface: str, prompt: bool = False
) -> IListeningPort:
    """Listen as :func:`.epoll_port.listen` does, or as a substitute of the reactor does."""
    if isinstance(reactor, ReactorSubstitute):
        return reactor.listen(port, factory, backlog, interface, prompt)
    return epoll_port.listen(reactor, port, factory, backlog, interface, prompt)


def adopt(reactor: Any, descriptor: int, factory: Factory) -> IListeningPort:
    """Accept connections as :func:`.epoll_port.adopt` does, or as a substitute of the reactor does."""
    if isinstance(reactor, ReactorSubstitute):
        return reactor.adopt(descriptor, factory)
    return epoll_port.adopt(reactor, descriptor, factory)


class _BoundSocket:
    """A bound socket that other processes inherit."""

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def getHost(self) -> IAddress:
        """Return the address."""
        address = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(address or None)
        kind = IPv6Address if self._socket.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", address[0], address[1])

    def stopListening(self) -> None:
        """Close the socket."""
        self._socket.close()


class _BoundUNIXPort(UNIXPort):
    """A UNIX socket that is bound for other processes; this one does not accept."""

    def startReading(self) -> None:
        """Do nothing."""


@implementer(IListeningPort)
class BoundPorts:
    """
    The sockets of one address, one for each worker or one for all.

    :param ports: the ports; none of them accepts.
    :param passed_as: the number under which a service manager has passed the socket; None if it was bound here.
    """

    def __init__(self, ports: list[Any], passed_as: int | None = None) -> None:
        self._ports = ports
        self.passed_as = passed_as

    def descriptor_of(self, worker: int) -> int:
        """
        Return the descriptor of the socket on which a worker accepts.

        :param worker: its number, from 0.
        """
        descriptor: int = self._ports[worker % len(self._ports)].fileno()
        return descriptor

    def steer(self, workers: Sequence[int]) -> None:
        """
        Give new connections to some of the workers only, if each has a socket of its own and the system can do that.

        :param workers: their numbers, from 0; at least one.
        """
        if len(self._ports) > 1:
            with suppress(OSError):
                steer(self._ports[0].fileno(), workers)

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of all sockets, in the order of the workers."""
        return [port.fileno() for port in self._ports]

    def getHost(self) -> IAddress:
        address: IAddress = self._ports[0].getHost()
        return address

    def startListening(self) -> None:
        """Do nothing: the sockets were bound when this was created."""

    def stopListening(self) -> Any:
        """Close the sockets; processes that have inherited them may still accept."""
        return DeferredList([maybeDeferred(port.stopListening) for port in self._ports], consumeErrors=True)


class BindingReactor(ReactorSubstitute):
    """
    A reactor that binds sockets for workers, and does not accept.

    :param workers: their number.
    :ivar bound: the sockets, in the order in which they were bound.
    """

    def __init__(self, reactor: Any, workers: int) -> None:
        super().__init__(reactor)
        self._workers = workers
        self.bound: list[BoundPorts] = []

    def _add(self, ports: list[Any], passed_as: int | None = None) -> Any:
        self.bound.append(BoundPorts(ports, passed_as))
        return self.bound[-1]

    def listen(self, port: int, factory: Factory, backlog: int, interface: str, prompt: bool) -> IListeningPort:
        """
        Bind a TCP port once for each worker.

        :raises CannotListenError: the port cannot be bound, or a process listens on it already.
        """
        sockets: list[socket.socket] = []
        try:
            family, address = _resolve(interface, port)
            if port != 0:
                # With SO_REUSEPORT alone, a second daemon of the same user would share the port unnoticed.
                with _bind(family, address, False):
                    pass
            for _ in range(self._workers):
                sockets.append(_bind(family, address, True))
                # If the system chooses the port, it does so once.
                address = sockets[0].getsockname()
            for each in sockets:
                each.listen(backlog)
        except OSError as error:
            for each in sockets:
                each.close()
            raise CannotListenError(interface, port, error) from None
        listening: IListeningPort = self._add([_BoundSocket(each) for each in sockets])
        return listening

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        """
        Bind a UNIX socket, on which all workers accept.

        :raises CannotListenError: the socket cannot be bound.
        """
        port = _BoundUNIXPort(address, Factory(), backlog, mode, self._reactor, wantPID)
        port.startListening()
        self._add([port])
        # The port itself: a failed start removes its file at once.
        return port

    def adopt(self, descriptor: int, factory: Factory) -> IListeningPort:
        """
        Keep a socket that a service manager has passed, on which all workers accept.

        :raises ValueError: the socket is not listening.
        """
        epoll_port.check_inherited(descriptor)
        listening: IListeningPort = self._add([_BoundSocket(socket.socket(fileno=os.dup(descriptor)))], descriptor)
        return listening


def _resolve(interface: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """
    Return the family and the address of a port.

    :raises OSError: the interface is not an IP address, or has a scope that does not exist.
    """
    if ":" not in interface:
        return socket.AF_INET, (interface, port)
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, _, _, _, address = socket.getaddrinfo(interface, port, socket.AF_INET6, 0, 0, numeric)[0]
    return family, address


def _bind(family: socket.AddressFamily, address: Any, shared: bool) -> socket.socket:
    """
    Return a bound socket.

    :param shared: whether other sockets of this user may be bound to the same address.
    :raises OSError: it cannot be bound.
    """
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As for Twisted's ports: closed connections of a daemon that has ended do not count.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setblocking(False)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


class InheritingReactor(ReactorSubstitute):
    """
    A reactor that accepts on inherited sockets instead of binding.

    :param descriptors: the sockets' descriptors, in the order of the listeners; each is closed when it was duplicated.
    """

    def __init__(self, reactor: Any, descriptors: list[int]) -> None:
        super().__init__(reactor)
        self._descriptors = list(descriptors)

    def listen(self, port: int, factory: Factory, backlog: int, interface: str, prompt: bool) -> IListeningPort:
        """Accept on the next inherited socket."""
        descriptor = self._descriptors.pop(0)
        adopted = epoll_port.adopt(self._reactor, descriptor, factory, prompt)
        os.close(descriptor)
        return adopted

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Accept on the next inherited socket."""
        return self._adopt_plain(socket.AF_INET6 if ":" in interface else socket.AF_INET, factory)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        """Accept on the next inherited socket."""
        return self.listen(0, factory, backlog, "", False)

    def adopt(self, descriptor: int, factory: Factory) -> IListeningPort:
        """Accept on the next inherited socket, which has the descriptor that a service manager has chosen."""
        self._descriptors.remove(descriptor)
        return epoll_port.adopt(self._reactor, descriptor, factory)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        """Accept on the next inherited socket, which has the descriptor that a service manager has chosen."""
        return self._adopt_plain(addressFamily, factory)

    def _adopt_plain(self, family: int, factory: Any) -> IListeningPort:
        """Adopt a socket as a port of the reactor's own kind, as the endpoints of Twisted use it."""
        descriptor = self._descriptors.pop(0)
        with socket.socket(fileno=os.dup(descriptor)) as inherited:
            inherited.setblocking(False)
        adopted: IListeningPort = self._reactor.adoptStreamPort(descriptor, family, factory)
        os.close(descriptor)
        return adopted
