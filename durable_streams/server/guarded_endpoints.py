"""A client endpoint that limits the head of an answer, and the time that a connection takes to close.

twisted.web limits the length of a header line, but not the number of lines; :class:`GuardedEndpoint` limits both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

#: How long a connection may take to close before it is aborted, in seconds. Over TLS, closing waits for the server.
_CLOSE_TIMEOUT: Final = 2.0

#: How many interim answers (1xx) are accepted before an answer: twisted.web logs each.
_MAX_INTERIM: Final = 16

_END_OF_HEAD: Final = re.compile(b"\n\r?\n")

#: A line that is longer than twisted.web accepts: it would close the connection without a reason.
_LONG_LINE: Final = re.compile(b"[^\n]{16384}")


@implementer(IStreamClientEndpoint)
class GuardedEndpoint:
    """
    An endpoint whose connections are aborted if the head of an answer is too large.

    :param max_head: the maximum size of a head with the interim ones before it, in bytes.
    :param error: creates the reason of a connection that was aborted, from a sentence.
    """

    def __init__(
        self, reactor: Any, endpoint: IStreamClientEndpoint, max_head: int, error: Callable[[str], Exception]
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._max_head = max_head
        self._error = error
        self._guards: WeakSet[_HeadGuard] = WeakSet()

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect a protocol of the factory."""
        guarding: Any = WrappingFactory(factory)
        guarding.protocol = self._guard
        # Else their starts and stops are four log lines for each connection.
        quiet: tuple[Any, ...] = (guarding, factory)
        for each in quiet:
            each.noisy = False
        connected: Deferred[Any] = self._endpoint.connect(guarding)
        return connected.addCallback(lambda guard: guard.wrappedProtocol)

    def _guard(self, factory: Any, protocol: Protocol) -> _HeadGuard:
        guard = _HeadGuard(factory, protocol, self._reactor, self._max_head, self._error)
        self._guards.add(guard)
        return guard

    def abort(self) -> None:
        """Abort the open connections."""
        for guard in list(self._guards):
            guard.abort()


@implementer(IAgentEndpointFactory)
class EndpointFactory:
    """
    The endpoints of an agent of twisted.web.

    :param create: creates the endpoint of a URL.
    """

    def __init__(self, create: Callable[[URI], IStreamClientEndpoint]) -> None:
        self._create = create

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        """Return the endpoint of a URL."""
        return self._create(uri)


class _HeadGuard(ProtocolWrapper):
    """A connection that is aborted if the head of an answer is too large, or if it does not close in time."""

    def __init__(
        self, factory: Any, protocol: Protocol, reactor: Any, max_head: int, error: Callable[[str], Exception]
    ) -> None:
        super().__init__(factory, protocol)
        self._reactor = reactor
        self._max_head = max_head
        self._error = error
        #: The end of what was received of the head; None if no head is expected.
        self._head: bytearray | None = bytearray()
        #: Where in it the current head begins, after interim ones.
        self._begin = 0
        self._interim = 0
        self._why: Exception | None = None
        self._closing: Any = None
        self._is_lost = False

    def writeSequence(self, data: Iterable[bytes]) -> None:
        lines = list(data)
        if lines and lines[0].endswith(b" HTTP/1.1\r\n"):
            # The head of the connection's next request.
            self._head = bytearray()
            self._begin = self._interim = 0
        super().writeSequence(lines)

    def dataReceived(self, data: bytes) -> None:
        if self._why is not None:
            return
        if self._head is not None:
            self._check(data)
            if self._why is not None:
                self.abort()
                return
        super().dataReceived(data)

    def _check(self, data: bytes) -> None:
        """Find the end of the head. Interim answers (1xx) before it count as a part of it."""
        head = self._head
        assert head is not None
        searched = max(self._begin, len(head) - 2)
        head += data[: self._max_head + 4 - len(head)]
        while (end := _END_OF_HEAD.search(head, searched)) is not None:
            status = head[self._begin : end.start()].partition(b" ")[2]
            if not status.startswith(b"1"):
                self._head = None
                return
            self._begin = searched = end.end()
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                self._why = self._error(f"The server sent more than {_MAX_INTERIM} interim answers.")
                return
        if _LONG_LINE.search(head):
            self._why = self._error("The head of the server's answer has a line of more than 16 KiB.")
        elif len(head) > self._max_head:
            self._why = self._error(f"The head of the server's answer is larger than {self._max_head} bytes.")

    def loseConnection(self) -> None:
        if self._closing is None and not self._is_lost:
            self._closing = self._reactor.callLater(_CLOSE_TIMEOUT, self.abort)
        super().loseConnection()

    def abort(self) -> None:
        """Abort the connection, unless it is closed."""
        transport: Any = self.transport
        if transport is not None and not self._is_lost:
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason if self._why is None else Failure(self._why))
