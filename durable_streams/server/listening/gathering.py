"""A port whose connections are one reader to the reactor, which so pays once for all that have something to be read.

Twisted's reactor takes a good two microseconds to get from one readable socket to the next one's ``doRead``: it is a
tenth of what an append costs. An epoll is a descriptor itself, readable when any of the sockets in it is. So all of
them are in one of our own, and when the reactor says that there is something to be read, they are read one after the
other. Everything else about them is as Twisted has it.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port, Server
from twisted.internet.unix import Port as UNIXPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: How long, in seconds, those that do not write are served in a turn of the reactor: at least, and while nobody writes.
LEAST: Final = 0.001
MOST: Final = 0.01

#: How long, in seconds, those that write are served in a turn of the reactor, and how many of them before the time is
#: looked at.
WRITERS_MAX: Final = 0.02
WRITERS_AT_ONCE: Final = 32

#: How long after a write, in seconds, somebody is said to write.
LULL: Final = 0.1

#: What epoll tells of a socket: it has something, it takes something, it is at its end. The module ``select`` has them
#: only where there is epoll.
_IN: Final = 0x1
_OUT: Final = 0x4
_ENDED: Final = 0x18

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


def adopt(reactor: Any, descriptor: int, factory: Factory) -> IListeningPort:
    """
    Accept the connections of a socket that somebody else has bound, and may listen at when this process is gone.

    :param descriptor: the socket's; it is left open.
    :raises ValueError: it does not listen.
    """
    with socket.socket(fileno=os.dup(descriptor)) as inherited:
        family = inherited.family
        if inherited.type != socket.SOCK_STREAM or not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("the socket that was passed is not listening (systemd: ListenStream= and Accept=no)")
        inherited.setblocking(False)
    port: Any
    if family == socket.AF_UNIX:
        port = InheritedUNIXPort._fromListeningDescriptor(reactor, descriptor, factory)
    else:
        kind = GatheredPort if is_epoll(reactor) else Port
        port = kind._fromListeningDescriptor(reactor, descriptor, family, factory)
    port.startListening()
    listening: IListeningPort = port
    return listening


class InheritedUNIXPort(UNIXPort):
    """A UNIX socket that somebody else has bound: its name and its mode, its queue and its end are theirs."""

    _preexistingSocket: Any  # noqa: N815 (Twisted's name)

    def startListening(self) -> None:
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        # Twisted would have nobody listen at it any more.
        self._shouldShutdown = False
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        # Not as UNIXPort does, which removes the socket's name.
        Port.connectionLost(self, reason)


@implementer(IReadDescriptor)
class Gathered:
    """
    Connections, as one thing to be read.

    Those whose last request was a write are read first, in every turn of the reactor, for :data:`WRITERS_MAX` at the
    most. All others are read, and sent what they were slow to take, for as long as that took, and at least for
    :data:`LEAST`. Connections that had no turn are first in the next one. So a flood of readers leaves half of the time
    to the writers, and no connection is served twice before another of its kind that is ready is served once.

    :param seconds: tells the time, in seconds since whenever.
    """

    def __init__(self, reactor: Any, seconds: Callable[[], float] = perf_counter) -> None:
        self._reactor = reactor
        self._seconds = seconds
        # The writers, and as one of them the epoll of all others.
        self._ready = select.epoll()
        self._others = select.epoll()
        self._ready.register(self._others, _IN)
        # The writers, and the others, that were ready together and have not had their turn yet.
        self._due: list[tuple[GatheredServer, int]] = []
        self._left: list[tuple[GatheredServer, int]] = []
        self._members: dict[int, GatheredServer] = {}
        # How many of them are writers that are waited for.
        self._urgent = 0
        self._written = -LULL
        self._alive = 0
        self._closing = False

    def fileno(self) -> int:
        return self._ready.fileno()

    def logPrefix(self) -> str:
        return "connections"

    @property
    def crowded(self) -> bool:
        """Whether somebody writes, and so nobody else may take long."""
        return self._seconds() - self._written < LULL

    def doRead(self) -> None:
        members = self._members
        if not self._urgent:
            self._due.clear()
            now = self._seconds()
            self._serve_others(now + (LEAST if now - self._written < LULL else MOST))
            return
        started = self._seconds()
        if self._due:
            others = True
            self._serve_due(started + WRITERS_MAX)
            self._written = started
        else:
            others = False
            events = self._ready.poll(0, len(members) + 1)
            # To look at the time for each would cost a writer one in a hundred.
            for descriptor, event in events[:WRITERS_AT_ONCE]:
                member = members.get(descriptor)
                if member is not None:
                    self._serve(member, event)
                else:
                    others = True
            if len(events) > WRITERS_AT_ONCE:
                others = True
                # By themselves: until its turn has come, one may be gone, and another have its descriptor.
                rest = ((members.get(descriptor), event) for descriptor, event in reversed(events[WRITERS_AT_ONCE:]))
                self._due = [(member, event) for member, event in rest if member is not None]
                self._serve_due(started + WRITERS_MAX)
            if len(events) > others:
                self._written = started
        if others:
            now = self._seconds()
            self._serve_others(now + (max(now - started, LEAST) if now - self._written < LULL else MOST))

    def _serve_due(self, end: float) -> None:
        due = self._due
        while due and self._seconds() < end:
            for member, event in [due.pop() for _ in range(min(WRITERS_AT_ONCE, len(due)))]:
                # Meanwhile it may have been paused, or have become one of the others.
                if member.watched and member.urgent:
                    self._serve(member, event)

    def _serve_others(self, end: float) -> None:
        left = self._left
        if not left:
            # By themselves: until its turn has come, one may be gone, and another have its descriptor.
            members = self._members
            for descriptor, event in self._others.poll(0, len(members) or 1):
                left.append((members[descriptor], event))
            left.reverse()
        while left:
            member, event = left.pop()
            if member.watched:
                self._serve(member, event)
                if self._seconds() >= end:
                    return

    def _serve(self, member: GatheredServer, event: int) -> None:
        why: Any
        try:
            # Nearly always it is only this.
            why = member.doRead() if event == _IN == member.watched else self._read_and_write(member, event)
        except BaseException:
            _log.failure("Serving a connection failed.")
            why = sys.exc_info()[1]
        if why:
            try:
                self._reactor._disconnectSelectable(member, why, bool(event & _IN))
            except Exception:
                # An error here would end the reading of all.
                _log.failure("Closing a connection failed.")

    @staticmethod
    def _read_and_write(member: GatheredServer, event: int) -> Any:
        # What was true when epoll was asked may not be any more.
        event &= member.watched | _ENDED
        why: Any = None
        if event & _IN:
            why = member.doRead()
        elif event & _ENDED:
            why = ConnectionDone() if member.watched & _IN else ConnectionLost()
        if not why and event & member.watched & _OUT:
            why = member.doWrite()
        return why

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""

    def watch(self, member: GatheredServer, events: int) -> None:
        """Wait for a connection to have something, or to take something; it still has its descriptor."""
        before, member.watched = member.watched, events
        if events == before:
            return
        poller = self._ready if member.urgent else self._others
        if not before:
            member.gathered = member.fileno()
            self._members[member.gathered] = member
            self._urgent += member.urgent
            poller.register(member.gathered, events)
        elif events:
            poller.modify(member.gathered, events)
        else:
            del self._members[member.gathered]
            self._urgent -= member.urgent
            poller.unregister(member.gathered)

    def sort(self, member: GatheredServer, urgent: bool) -> None:
        """Put a connection among the writers, or among the others."""
        events = member.watched
        self.watch(member, 0)
        member.urgent = urgent
        self.watch(member, events)

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
            self._others.close()


class GatheredServer(Server):
    """
    A connection that is read with the others.

    :ivar gathered: its descriptor while anything is waited for.
    :ivar watched: what is: to read from it, to write to it.
    :ivar urgent: its last request was a write.
    """

    gathered = -1
    watched = 0
    urgent = False

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
        protocol = self.protocol
        protocol.dataReceived(data)
        urgent = getattr(protocol, "writes", False)
        if urgent is not self.urgent:
            self._readers.sort(self, urgent)
        return None

    @property
    def crowded(self) -> bool:
        """Whether what is sent at once should not be much."""
        return self._readers.crowded

    def startReading(self) -> None:
        self._readers.watch(self, self.watched | _IN)

    def stopReading(self) -> None:
        self._readers.watch(self, self.watched & ~_IN)

    def startWriting(self) -> None:
        self._readers.watch(self, self.watched | _OUT)

    def stopWriting(self) -> None:
        self._readers.watch(self, self.watched & ~_OUT)

    def readConnectionLost(self, reason: Failure) -> None:
        # At its end a socket stays readable.
        self.stopReading()
        super().readConnectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)
        finally:
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
