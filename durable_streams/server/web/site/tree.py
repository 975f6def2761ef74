"""How a request that is not for a stream gets from the daemon's channel to the Klein tree, and its answer back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request, Site
from zope.interface import implementer

from ..answers import Answer, Sink
from ..callers import Caller

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


class PageRequest:
    """A complete request for a page: anything that is not a stream."""

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
        """Let the tree of ``site`` answer; what registers a push producer is sent as it is written, the rest whole."""
        return _TreeChannel(site, transport, self.caller).serve(self.target, self.method, self._fields, self._body)


class _TreeChannel:
    """
    What twisted.web's Request takes for its channel.

    It keeps the answer until it is complete. If the request has a push producer when its first byte is written, the
    answer is a body that comes bit by bit, with that producer behind it.

    :ivar caller: whose request it is, found out already, like what of its headers is believed.
    """

    factory = None
    _producer: IPushProducer | None = None
    _stream: _TreeBody | None = None

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
        if self._producer is not None:
            self._stream = _TreeBody(self._request, self._producer)
            self._answer.callback(Answer(self._status, b"".join(self._head), self._stream))

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """
        Have the body sent as it is written.

        :raises ValueError: it is a pull producer.
        """
        if not streaming:
            raise ValueError("Answers of the tree come from push producers, or whole.")
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def write(self, data: bytes) -> None:
        if self._stream is None:
            self._body.append(data)
        elif data:
            self._stream.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def requestDone(self, request: Request) -> None:
        if self._stream is not None:
            self._stream.finish()
        else:
            self._answer.callback(Answer(self._status, b"".join(self._head), b"".join(self._body)))

    def loseConnection(self) -> None:
        if self._stream is not None:
            self._stream.abort()
        else:
            self.transport.loseConnection()


@implementer(IPushProducer)
class _TreeBody:
    """
    The body of a request for the tree, on its way from the request's producer to a front.

    The producer is paused until the front begins with the answer, which never happens if the client has gone.
    """

    length: int | None = None

    def __init__(self, request: Request, producer: IPushProducer) -> None:
        self._request = request
        self._producer = producer
        self._sink: Sink | None = None
        # What is written before the front has begun with the answer, and how it ended by then.
        self._early: list[bytes] = []
        self._end: Callable[[Sink], None] | None = None
        self._paused = False
        producer.pauseProducing()

    # The front's side

    def start(self, sink: Sink) -> None:
        self._sink = sink
        early, self._early = self._early, []
        for data in early:
            sink.write(data)
        if self._end is not None:
            self._end(sink)
        elif not self._paused:
            self._producer.resumeProducing()

    def pauseProducing(self) -> None:
        self._paused = True
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self._sink = None
        self._request.connectionLost(Failure(ConnectionLost()))

    # The request's side

    def write(self, data: bytes) -> None:
        if self._sink is None:
            self._early.append(data)
        else:
            self._sink.write(data)

    def finish(self) -> None:
        self._end_with(lambda sink: sink.finish())

    def abort(self) -> None:
        self._end_with(lambda sink: sink.abort())

    def _end_with(self, end: Callable[[Sink], None]) -> None:
        if self._sink is None:
            self._end = end
        else:
            end(self._sink)
