"""The sending half of an HTTP/1.1 connection, with back-pressure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IPullProducer, IPushProducer
from zope.interface import implementer

from ...model import FileRange
from ..transports import Transport, is_direct

#: How much is handed to the transport at a time while a reader is slow, in bytes.
_SLICE: Final = 65_536

#: How much a reader that takes all at once is sent before the others get their turn, in bytes, while others write.
_TURN: Final = 524_288


class OutletOwner(Protocol):
    """The connection of an outlet."""

    def blocked(self) -> None:
        """Record that data is queued for a slow client that has just read some."""

    def drained(self) -> None:
        """Record that the client has read everything."""


class _NoOwner:
    """The owner of an outlet whose connection is gone."""

    def blocked(self) -> None:
        """Do nothing."""

    def drained(self) -> None:
        """Do nothing."""


_NO_OWNER: Final = _NoOwner()


@implementer(IPullProducer, IPushProducer)
class Outlet:
    """
    The sending half of a connection.

    ``transport.write`` arms and disarms the reactor for every answer, so what the socket takes at once goes past it.
    The rest is kept here, uncopied, and the transport asks for it a slice at a time. One that is no socket's own, as
    over TLS, is given a slice at a time until it says that its buffer is full.

    :ivar behind: the reader does not keep up: bytes wait here, or with the transport, and none may overtake them.
    :ivar direct: what is written goes to the socket as it is, so that the socket's own shutdown ends it.
    """

    __slots__ = (
        "_after",
        "_gathered",
        "_gathered_bytes",
        "_gathering",
        "_owner",
        "_send_some",
        "_straight",
        "_transport",
        "_waiting",
        "behind",
        "direct",
    )

    def __init__(self, transport: Transport, owner: OutletOwner) -> None:
        self._transport = transport
        self._owner = owner
        self._gathering = False
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._waiting: list[memoryview] = []
        # How much the socket has taken at once in this turn.
        self._straight = 0
        self._after: Callable[[], None] | None = None
        self.behind = False
        self.direct = is_direct(transport)
        self._send_some: Callable[[bytes], object] | None = None
        if self.direct:
            self._send_some = _sender_of(transport)
        else:
            transport.registerProducer(self, True)

    def gather(self) -> None:
        """Gather what is written until :meth:`flush`, to send it in one call."""
        self._gathering = True
        self._straight = 0

    def flush(self) -> None:
        """Send what was gathered."""
        self._gathering = False
        gathered = self._gathered
        if gathered:
            self._gathered = []
            self._gathered_bytes = 0
            self._send(gathered[0] if len(gathered) == 1 else b"".join(gathered))
        if self._after is not None and not self.behind:
            after, self._after = self._after, None
            if self._send_some is None:
                self._transport.unregisterProducer()
            after()

    def write(self, data: bytes) -> None:
        """Send or queue data."""
        if not self._gathering:
            self._send(data)
            return
        if len(data) > _SLICE:
            # Readers share it: it is not joined to anything.
            self.flush()
            self._gathering = True
            self._send(data)
            return
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes > _SLICE:
            self.flush()
            self._gathering = True

    def send_file(self, part: FileRange) -> int:
        """
        Send the beginning of a range of a file, if nothing waits and the transport is a socket's own.

        :returns: how many bytes were sent. If the socket takes no more, the owner is told that the client is slow.
        """
        if self._gathering:
            self.flush()
            self._gathering = True
        socket = getattr(self._transport, "socket", None)
        if self.behind or not self.direct or socket is None:
            return 0
        try:
            sent = part.send(socket.fileno())
            if not sent:
                return 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._break_off()
            return 0
        self._straight += sent
        if sent == part.size and (self._straight < _TURN or not getattr(self._transport, "crowded", False)):
            return sent
        # The transport asks within this call, and is told to come back when the socket takes more.
        self._straight = _TURN
        self.behind = True
        self._transport.registerProducer(self, False)
        return sent

    def finish(self, after: Callable[[], None]) -> None:
        """Call ``after`` when the transport has been given everything; nothing is written after this."""
        self._after = after
        if not self._gathering:
            self.flush()

    def close(self) -> None:
        """Drop queued data, and the references that are cycles: the connection is lost."""
        if not self.direct:
            # TLS keeps its producer, with its own buffers, for good.
            self._transport.unregisterProducer()
        self._send_some = _into_nothing
        self._owner = _NO_OWNER
        self._waiting = []
        self._gathered = []
        self._gathered_bytes = 0
        self._after = None

    def _send(self, data: bytes) -> None:
        if self.behind:
            self._waiting.append(memoryview(data))
            return
        send_some = self._send_some
        if send_some is None:
            if len(data) <= _SLICE:
                self._transport.write(data)
            else:
                self._waiting.append(memoryview(data))
                self._fill()
            return
        sent: object
        try:
            sent = send_some(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            sent = -1
        if sent == len(data):
            self._straight += len(data)
            if self._straight < _TURN or not getattr(self._transport, "crowded", False):
                return
        if not isinstance(sent, int) or sent < 0:
            self._break_off()
            return
        self.behind = True
        if sent < len(data):
            self._waiting.append(memoryview(data)[sent:])
        # The transport asks for the first slice within this call, and for the next whenever its buffer is empty.
        self._transport.registerProducer(self, False)

    def _break_off(self) -> None:
        """Close the connection at once: the socket has an error."""
        self.behind = True
        owner = self._owner
        self.close()
        self._transport.abortConnection()
        owner.blocked()

    def resumeProducing(self) -> None:
        """Write the next slice: the transport's buffer is empty."""
        if not self.direct:
            self.behind = False
            self._fill()
            if not self.behind:
                self.flush()
                self._owner.drained()
            return
        waiting = self._waiting
        over, self._straight = self._straight >= _TURN, 0
        if over and not waiting:
            # It was stopped while the socket would have taken more.
            self._transport.startWriting()
            self._owner.blocked()
            return
        if not waiting:
            self.behind = False
            self._transport.unregisterProducer()
            self.flush()
            self._owner.drained()
            return
        self._write_slice()
        self._owner.blocked()

    def _fill(self) -> None:
        """Write queued data to a wrapped transport (TLS) until its buffer is full."""
        while self._waiting and not self.behind:
            self._write_slice()

    def _write_slice(self) -> None:
        waiting = self._waiting
        first = waiting[0]
        if len(first) > _SLICE:
            first, waiting[0] = first[:_SLICE], first[_SLICE:]
        else:
            del waiting[0]
        self._transport.write(bytes(first))

    def pauseProducing(self) -> None:
        """Queue data from now on: the buffer of a wrapped transport is full."""
        self.behind = True
        self._owner.blocked()

    def stopProducing(self) -> None:
        """Do nothing: the owner's connectionLost closes this."""


def _sender_of(transport: Transport) -> Callable[[bytes], object]:
    """Return the socket's own ``send``, without the calls that ``transport.writeSomeData`` adds."""
    socket = getattr(transport, "socket", None)
    send_some: Callable[[bytes], object] = transport.writeSomeData if socket is None else socket.send  # type: ignore[attr-defined]
    return send_some


def _into_nothing(data: bytes) -> int:
    return len(data)
