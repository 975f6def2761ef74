"""A TCP port whose connections share one epoll descriptor, so that the reactor polls one descriptor for all of them.

Twisted's reactor takes about 2 us from one readable socket to the next one's ``doRead``, a tenth of the cost of an
append. An epoll is itself a descriptor, which is readable if any socket in it is ready. The connections of a port are
in such an epoll; when the reactor reports it, they are read one after the other. In all other respects they are
Twisted's connections.
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

#: The time for readers in one turn of the reactor, in seconds: the minimum, and the time while there are no writes.
MIN_SLICE: Final = 0.001
MAX_SLICE: Final = 0.01

#: The maximum time for writers in one turn of the reactor, in seconds, and the number of them between two looks at the
#: clock.
WRITERS_SLICE: Final = 0.02
WRITERS_BATCH: Final = 32

#: How many sends are held back at the most, and for about how long while readers are served, in seconds.
MAX_HELD: Final = 32
HELD_SECONDS: Final = 0.0005

#: For this many seconds after a write, readers get less time.
WRITE_LULL: Final = 0.1

#: Events of epoll: readable, writable, error or hang-up. The module ``select`` has them only where epoll exists.
_IN: Final = 0x1
_OUT: Final = 0x4
_ENDED: Final = 0x18

_log = Logger()


def is_epoll(reactor: Any) -> bool:
    """Return whether a reactor uses epoll, so that it can wait for another epoll."""
    if not hasattr(select, "epoll"):
        return False
    from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 (it exists only where epoll does)

    return isinstance(reactor, EPollReactor)


def listen(
    reactor: Any, port: int, factory: Factory, backlog: int, interface: str, prompt: bool = False
) -> IListeningPort:
    """
    Listen as ``reactor.listenTCP`` does, with an :class:`EpollPort` if the reactor uses epoll.

    :param prompt: whether writes are sent at once; see :class:`EagerConnection`.
    :raises CannotListenError: the port cannot be bound.
    """
    if not is_epoll(reactor):
        listening: IListeningPort = reactor.listenTCP(port, factory, backlog, interface)
        return listening
    epoll_port = EpollPort(port, factory, backlog, interface, reactor, EagerConnection if prompt else PolledConnection)
    epoll_port.startListening()
    return epoll_port


def check_inherited(descriptor: int) -> socket.AddressFamily:
    """
    Make an inherited listening socket non-blocking, and return its family.

    :raises ValueError: the socket is not listening.
    """
    with socket.socket(fileno=os.dup(descriptor)) as inherited:
        family = inherited.family
        if inherited.type != socket.SOCK_STREAM or not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("the socket that was passed is not listening (systemd: ListenStream= and Accept=no)")
        inherited.setblocking(False)
    return socket.AddressFamily(family)


def adopt(reactor: Any, descriptor: int, factory: Factory, prompt: bool = False) -> IListeningPort:
    """
    Accept connections on an inherited listening socket, which stays bound when this process ends.

    :param descriptor: the socket's descriptor; it is duplicated and left open.
    :param prompt: whether writes are sent at once; see :class:`EagerConnection`.
    :raises ValueError: the socket is not listening.
    """
    family = check_inherited(descriptor)
    port: Any
    if family == socket.AF_UNIX:
        port = InheritedUNIXPort._fromListeningDescriptor(reactor, descriptor, factory)
    elif is_epoll(reactor):
        port = EpollPort._fromListeningDescriptor(reactor, descriptor, family, factory)
        if prompt:
            port.transport = partial(EagerConnection, port.poller)
    else:
        port = Port._fromListeningDescriptor(reactor, descriptor, family, factory)
    port.startListening()
    listening: IListeningPort = port
    return listening


class InheritedUNIXPort(UNIXPort):
    """A port on an inherited UNIX socket. It keeps the socket's name and mode, and never shuts it down."""

    _preexistingSocket: Any  # noqa: N815 (Twisted's name)

    def startListening(self) -> None:
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        # Otherwise Twisted would shut the socket down, also for the process that bound it.
        self._shouldShutdown = False
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        # Not that of UNIXPort, which removes the socket's name.
        Port.connectionLost(self, reason)


@implementer(IReadDescriptor)
class ConnectionPoller:
    """
    Reads the ready connections of a port, in slices of time.

    In each turn of the reactor, writers (connections whose last request was a write) are read first, for at most
    :data:`WRITERS_SLICE`. Then the readers (all others) are read and written for as long as the writers took, but at
    least for :data:`MIN_SLICE`. Connections that were not served are first in the next turn. So many readers leave half
    of the time to the writers, and no connection is served twice before every ready one of its kind was served once.

    Answers to small requests are held back until the other ready connections were read: sends that follow each other
    take a quarter of the processor time off an append, since the receiver is awake from the second one on.

    :param seconds: returns the time in seconds, from any origin.
    """

    def __init__(self, reactor: Any, seconds: Callable[[], float] = perf_counter) -> None:
        self._reactor = reactor
        self._seconds = seconds
        # The writers, and the epoll of all other connections.
        self._ready = select.epoll()
        self._others = select.epoll()
        self._ready.register(self._others, _IN)
        # The ready writers, and the ready others, that are not served yet.
        self._due: list[tuple[PolledConnection, int]] = []
        self._left: list[tuple[PolledConnection, int]] = []
        self._members: dict[int, PolledConnection] = {}
        # The number of registered writers.
        self._urgent = 0
        self._written = -WRITE_LULL
        self._alive = 0
        self._closing = False
        self._held: list[Callable[[], None]] = []

    def fileno(self) -> int:
        return self._ready.fileno()

    def logPrefix(self) -> str:
        return "connections"

    @property
    def crowded(self) -> bool:
        """Whether there was a write in the last :data:`WRITE_LULL` seconds, so that a reader must not take long."""
        return self._seconds() - self._written < WRITE_LULL

    def hold(self, send: Callable[[], None]) -> None:
        """Call ``send`` after some more connections were read, in the same turn of the reactor."""
        self._held.append(send)
        if len(self._held) >= MAX_HELD:
            self.send_held()

    def send_held(self) -> None:
        """Make all sends that are held back."""
        held, self._held = self._held, []
        for send in held:
            try:
                send()
            except Exception:
                _log.failure("Sending an answer failed.")

    def doRead(self) -> None:
        self._serve_ready()
        if self._held:
            self.send_held()

    def _serve_ready(self) -> None:
        members = self._members
        if not self._urgent:
            self._due.clear()
            now = self._seconds()
            self._serve_others(now + (MIN_SLICE if now - self._written < WRITE_LULL else MAX_SLICE))
            return
        started = self._seconds()
        if self._due:
            others = True
            self._serve_due(started + WRITERS_SLICE)
            self._written = started
        else:
            others = False
            events = self._ready.poll(0, len(members) + 1)
            # Reading the clock for each would cost 1 % of a write.
            for descriptor, event in events[:WRITERS_BATCH]:
                member = members.get(descriptor)
                if member is not None:
                    self._serve(member, event)
                else:
                    others = True
            if len(events) > WRITERS_BATCH:
                others = True
                # Keep the connections, not their descriptors: a descriptor may belong to another one by then.
                rest = ((members.get(descriptor), event) for descriptor, event in reversed(events[WRITERS_BATCH:]))
                self._due = [(member, event) for member, event in rest if member is not None]
                self._serve_due(started + WRITERS_SLICE)
            if len(events) > others:
                self._written = started
        if others:
            self.send_held()
            now = self._seconds()
            self._serve_others(now + (max(now - started, MIN_SLICE) if now - self._written < WRITE_LULL else MAX_SLICE))

    def _serve_due(self, end: float) -> None:
        due = self._due
        while due and self._seconds() < end:
            for member, event in [due.pop() for _ in range(min(WRITERS_BATCH, len(due)))]:
                # It may have been paused, or have become a reader, since it was ready.
                if member.watched and member.urgent:
                    self._serve(member, event)

    def _serve_others(self, end: float) -> None:
        left = self._left
        if not left:
            # Keep the connections, not their descriptors: a descriptor may belong to another one by then.
            members = self._members
            for descriptor, event in self._others.poll(0, len(members) or 1):
                left.append((members[descriptor], event))
            left.reverse()
        send_at = 0.0
        while left:
            member, event = left.pop()
            if member.watched:
                self._serve(member, event)
                now = self._seconds()
                if now >= end:
                    return
                if now >= send_at:
                    self.send_held()
                    send_at = now + HELD_SECONDS

    def _serve(self, member: PolledConnection, event: int) -> None:
        why: Any
        try:
            # The usual case: readable, and only that is waited for.
            why = member.doRead() if event == _IN == member.watched else self._read_and_write(member, event)
        except BaseException:
            _log.failure("Serving a connection failed.")
            why = sys.exc_info()[1]
        if why:
            try:
                self._reactor._disconnectSelectable(member, why, bool(event & _IN))
            except Exception:
                # An error here would stop the reading of all connections.
                _log.failure("Closing a connection failed.")

    @staticmethod
    def _read_and_write(member: PolledConnection, event: int) -> Any:
        # What is waited for may have changed since the poll.
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
        """Do nothing: the reactor stops."""

    def watch(self, member: PolledConnection, events: int) -> None:
        """Register a connection for these events, or unregister it for 0; its descriptor is still open."""
        before, member.watched = member.watched, events
        if events == before:
            return
        poller = self._ready if member.urgent else self._others
        if not before:
            member.descriptor = member.fileno()
            self._members[member.descriptor] = member
            self._urgent += member.urgent
            poller.register(member.descriptor, events)
        elif events:
            poller.modify(member.descriptor, events)
        else:
            del self._members[member.descriptor]
            self._urgent -= member.urgent
            poller.unregister(member.descriptor)

    def sort(self, member: PolledConnection, urgent: bool) -> None:
        """Move a connection to the writers, or to the readers."""
        events = member.watched
        self.watch(member, 0)
        member.urgent = urgent
        self.watch(member, events)

    def joined(self) -> None:
        """Count a new connection, registered or not."""
        self._alive += 1

    def left(self) -> None:
        """Stop counting a connection that is closed."""
        self._alive -= 1
        self._end()

    def open(self) -> None:
        """Add this to the reactor's readers."""
        self._reactor.addReader(self)

    def close(self) -> None:
        """Accept no more connections; close the epoll when the last one is closed."""
        self._closing = True
        self._end()

    def _end(self) -> None:
        if self._closing and not self._alive and not self._ready.closed:
            self._reactor.removeReader(self)
            self._ready.close()
            self._others.close()


class PolledConnection(Server):
    """
    A connection in the epoll of its port.

    :ivar descriptor: its descriptor while it is registered.
    :ivar watched: the events for which it is registered.
    :ivar urgent: whether its last request was a write.
    """

    descriptor = -1
    watched = 0
    urgent = False

    def __init__(self, poller: ConnectionPoller, *arguments: Any) -> None:
        self._poller = poller
        poller.joined()
        super().__init__(*arguments)

    def doRead(self) -> Any:
        # Twisted's Connection.doRead, without its handling of deprecated return values.
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
            self._poller.sort(self, urgent)
        return None

    def hold(self, send: Callable[[], None]) -> None:
        """Call ``send`` after some more connections were read; see :meth:`ConnectionPoller.hold`."""
        self._poller.hold(send)

    def send_held(self) -> None:
        """Make the sends that other connections hold back, before something that takes long."""
        self._poller.send_held()

    @property
    def crowded(self) -> bool:
        """Whether a reader should be sent only little at a time; see :attr:`ConnectionPoller.crowded`."""
        return self._poller.crowded

    def startReading(self) -> None:
        self._poller.watch(self, self.watched | _IN)

    def stopReading(self) -> None:
        self._poller.watch(self, self.watched & ~_IN)

    def startWriting(self) -> None:
        self._poller.watch(self, self.watched | _OUT)

    def stopWriting(self) -> None:
        self._poller.watch(self, self.watched & ~_OUT)

    def readConnectionLost(self, reason: Failure) -> None:
        # A socket whose peer has shut down stays readable.
        self.stopReading()
        super().readConnectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)
        finally:
            self._poller.left()


class EagerConnection(PolledConnection):
    """
    A connection that sends each write at once if its send buffer is empty.

    Twisted registers the socket for writing and unregisters it again for each write. On a plain socket the channel
    avoids that itself (:mod:`.web.http1.outlet`); over TLS it cannot.
    """

    def write(self, data: bytes) -> None:
        idle = not self.dataBuffer and not self._tempDataBuffer and not self.disconnecting
        # A pull producer is resumed by the reactor when everything is sent.
        if idle and self.connected and (self.producer is None or self.streamingProducer):
            try:
                sent = self.socket.send(data)
            except OSError:
                # The send buffer is full, or the error is handled when the reactor writes.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)


class EpollPort(Port):
    """A port whose connections share an epoll."""

    def __init__(
        self,
        port: int,
        factory: Factory,
        backlog: int,
        interface: str,
        reactor: Any,
        kind: type[PolledConnection] = PolledConnection,
    ) -> None:
        super().__init__(port, factory, backlog, interface, reactor)
        self.poller = ConnectionPoller(reactor)
        self.transport = partial(kind, self.poller)  # type: ignore[assignment]

    def startListening(self) -> None:
        super().startListening()
        self.poller.open()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.poller.close()
