"""A port whose connections are one reader to the reactor, which so pays once for all that have something to be read.

Twisted's reactor takes a good two microseconds to get from one readable socket to the next one's ``doRead``: it is a
tenth of what an append costs. An epoll is a descriptor itself, readable when any of the sockets in it is. So all of
them are in one of our own, and when the reactor says that there is something to be read, they are read one after the
other. Everything else about them is as Twisted has it.
"""

from __future__ import annotations

import select
import sys
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port, Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger()


def is_epoll(reactor: Any) -> bool:
    """Tell whether a reactor waits by epoll, so that it can wait for another one."""
    if not hasattr(select, "epoll"):
        return False
    from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 (it is only there where epoll is)

    return isinstance(reactor, EPollReactor)


def listen(
    reactor: Any, port: int, factory: Factory, backlog: int, interface: str, prompt: bool = False
) -> IListeningPort:
    """
    Listen as ``reactor.listenTCP`` does; where there is no epoll, by it.

    :param prompt: whether what is written is to be sent at once; see :class:`PromptServer`.
    :raises CannotListenError: the port can't be had.
    """
    if not is_epoll(reactor):
        listening: IListeningPort = reactor.listenTCP(port, factory, backlog, interface)
        return listening
    gathered = GatheredPort(port, factory, backlog, interface, reactor, PromptServer if prompt else GatheredServer)
    gathered.startListening()
    return gathered


@implementer(IReadDescriptor)
class Gathered:
    """Connections, as one thing to be read."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ready = select.epoll()
        self._members: dict[int, GatheredServer] = {}
        self._alive = 0
        self._closing = False

    def fileno(self) -> int:
        return self._ready.fileno()

    def logPrefix(self) -> str:
        return "connections"

    def doRead(self) -> None:
        members = self._members
        for descriptor, event in self._ready.poll(0, len(members) or 1):
            member = members.get(descriptor)
            if member is None:
                continue
            why: Any
            try:
                why = member.doRead() if event & select.EPOLLIN else ConnectionDone()
            except BaseException:
                _log.failure("What a connection has sent could not be taken in.")
                why = sys.exc_info()[1]
            if why:
                self._reactor._disconnectSelectable(member, why, True)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""

    def add(self, member: GatheredServer) -> None:
        """Read from a connection."""
        descriptor = member.fileno()
        if descriptor not in self._members:
            self._members[descriptor] = member
            self._ready.register(descriptor, select.EPOLLIN)
            member.gathered = descriptor

    def remove(self, member: GatheredServer) -> None:
        """Do not read from a connection any more; it still has its descriptor."""
        descriptor, member.gathered = member.gathered, -1
        if self._members.pop(descriptor, None) is not None:
            self._ready.unregister(descriptor)

    def joined(self) -> None:
        """There is another connection, whether it is read or not."""
        self._alive += 1

    def left(self) -> None:
        """A connection is gone."""
        self._alive -= 1
        self._end()

    def open(self) -> None:
        """Have the reactor look for what there is to be read."""
        self._reactor.addReader(self)

    def close(self) -> None:
        """There will be no more connections; end with the last one."""
        self._closing = True
        self._end()

    def _end(self) -> None:
        if self._closing and not self._alive and not self._ready.closed:
            self._reactor.removeReader(self)
            self._ready.close()


class GatheredServer(Server):
    """
    A connection that is read with the others.

    :ivar gathered: its descriptor while it is read; else -1.
    """

    gathered = -1

    def __init__(self, readers: Gathered, *arguments: Any) -> None:
        self._readers = readers
        readers.joined()
        super().__init__(*arguments)

    def doRead(self) -> Any:
        # As Twisted has it, but for what becomes of deprecated answers.
        try:
            data = self.socket.recv(self.bufferSize)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return ConnectionLost()
        if not data:
            return ConnectionDone()
        self.protocol.dataReceived(data)
        return None

    def startReading(self) -> None:
        self._readers.add(self)

    def stopReading(self) -> None:
        if self.gathered >= 0:
            self._readers.remove(self)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self._readers.left()


class PromptServer(GatheredServer):
    """
    A connection whose writes go to the socket at once as long as nothing waits before them.

    Twisted arms and disarms the reactor for each. The channel goes past that by itself where it is a socket's own; over
    TLS it can't.
    """

    def write(self, data: bytes) -> None:
        idle = not self.dataBuffer and not self._tempDataBuffer and not self.disconnecting
        # One that is asked for more when all is sent needs the reactor to say so.
        if idle and self.connected and (self.producer is None or self.streamingProducer):
            try:
                sent = self.socket.send(data)
            except OSError:
                # Either there is no room, or the reactor will see what is wrong.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)


class GatheredPort(Port):
    """A port that gathers its connections."""

    def __init__(
        self,
        port: int,
        factory: Factory,
        backlog: int,
        interface: str,
        reactor: Any,
        kind: type[GatheredServer] = GatheredServer,
    ) -> None:
        super().__init__(port, factory, backlog, interface, reactor)
        self._gathered = Gathered(reactor)
        self.transport = partial(kind, self._gathered)  # type: ignore[assignment]

    def startListening(self) -> None:
        super().startListening()
        self._gathered.open()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self._gathered.close()
