"""How a request that is not for a stream gets from the daemon's channel to the Klein tree, and its answer back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request, Site

from .answers import Answer
from .callers import Caller

#: What the channel says itself, for every answer.
_CONNECTION_HEADERS: Final = frozenset([b"connection", b"content-length", b"date", b"server", b"transfer-encoding"])


class Requester(Protocol):
    """What a request must know of where it came from."""

    def getPeer(self) -> IAddress:
        """Say who is at the other end."""

    def getHost(self) -> IAddress:
        """Say who is at this end."""

    def loseConnection(self) -> object:
        """Answer no more."""


class TreeRequest:
    """A request for the tree, read whole."""

    __slots__ = ("_body", "_fields", "caller", "method", "number", "target", "version")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes,
        caller: Caller,
        number: int,
        version: str = "1.1",
    ) -> None:
        self.method = method
        self.target = target
        self.caller = caller
        self.number = number
        self.version = version
        self._fields = fields
        self._body = body

    def header(self, name: bytes) -> bytes | None:
        """Find the first header of a name, in lower case."""
        return next((value for key, value in self._fields if key.lower() == name), None)

    def perform(self, site: Site, transport: Requester) -> Deferred[Answer]:
        """Let the tree of ``site`` answer; its answers are small and come whole."""
        return _TreeChannel(site, transport, self.caller).serve(self.target, self.method, self._fields, self._body)


class _TreeChannel:
    """
    What twisted.web's Request takes for its channel: it keeps the answer.

    :ivar caller: whose request it is, found out already, like what of its headers is believed.
    """

    factory = None

    def __init__(self, site: Site, transport: Requester, caller: Caller) -> None:
        self.site = site
        self.transport = transport
        self.caller = caller
        self._status = 500
        self._head: list[bytes] = []
        self._body: list[bytes] = []
        self._request: Request
        self._answer: Deferred[Answer] = Deferred(lambda _: self._request.connectionLost(Failure(ConnectionLost())))

    def serve(
        self, target: bytes, method: bytes, fields: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> Deferred[Answer]:
        self._request = request = Request(self, parsePOSTFormSubmission=False)
        for name, value in fields:
            request.requestHeaders.addRawHeader(name, value)
        request.gotLength(len(body))
        request.handleContentChunk(body)
        # Towards an HTTP/1.0 client, twisted.web leaves a body without length as it is.
        request.requestReceived(method, target, b"HTTP/1.0")
        return self._answer

    def getPeer(self) -> IAddress:
        return self.transport.getPeer()

    def getHost(self) -> IAddress:
        return self.transport.getHost()

    def isSecure(self) -> bool:
        return self.caller.secure

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        self._status = int(code)
        for name, values in headers.getAllRawHeaders():
            if name.lower() not in _CONNECTION_HEADERS:
                self._head += [b"%b: %b\r\n" % (name, value) for value in values]

    def write(self, data: bytes) -> None:
        self._body.append(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self._body += data

    def requestDone(self, request: Request) -> None:
        self._answer.callback(Answer(self._status, b"".join(self._head), b"".join(self._body)))

    def loseConnection(self) -> None:
        self.transport.loseConnection()
