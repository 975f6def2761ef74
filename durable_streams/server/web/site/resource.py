"""Front 1: streams as an IResource, for any twisted.web Site."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from ...clocks import clock_of
from ...errors import StreamsError
from ..admission import Admission
from ..answers import Answer, Body
from ..callers import Caller, next_number
from ..operations import Operations
from ..requests import StreamRequest
from ..telemetry import Telemetry, request_id
from ..wire import has_length

_log = Logger()


@implementer(IResource)
class StreamsResource:
    """
    All streams, below wherever in a Site this is put: the rest of the path is the stream's name.

    :param stall_timeout: for how many seconds a reader may take nothing before it is hung up on.
    """

    isLeaf = True

    def __init__(self, operations: Operations, clock: IReactorTime, stall_timeout: float = 60) -> None:
        self._operations = operations
        self._clock = clock_of(clock)
        self._stall_timeout = stall_timeout
        self._policy = operations.admission_policy(b"")

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """A leaf has no children."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        :raises NotImplementedError: always; put it beside.
        """
        raise NotImplementedError("Streams have every path below them. Put other resources beside.")

    def render(self, request: Request) -> int:
        proxies = self._operations.proxies
        caller = proxies.admit(request)
        stream_request = self._read(request, caller)
        delivery = _Delivery(request, stream_request, self._operations.telemetry, self._clock, self._stall_timeout)
        admission = self._policy.admission(caller)
        try:
            headers = admit(admission, request)
            caller = admission.identify(caller, headers)
            admission.check_body_size(len(stream_request.body))
        except StreamsError as error:
            delivery.answer(self._operations.answers.error(stream_request, error, request.getHeader(b"origin")))
            return NOT_DONE_YET
        delivery.asked = stream_request = replace(stream_request, headers=headers, caller=caller)
        answer = self._operations.perform(stream_request)
        if isinstance(answer, Deferred):
            delivery.wait_for(answer)
        else:
            delivery.answer(answer)
        return NOT_DONE_YET

    def _read(self, request: Request, caller: Caller) -> StreamRequest:
        # A body over the limit may be large, and on disk: one byte more than the limit is enough to know.
        max_read = self._operations.settings.limits.body_bytes + 1
        path, _, query = request.uri.partition(b"?")
        # What is left of the path as it came, percent-encoded: twisted.web's own segments are decoded.
        segments = path.split(b"/")
        name = b"/".join(segments[len(segments) - len(request.postpath) :]) if request.postpath else b""
        return StreamRequest(
            method=request.method,
            mount=path[: len(path) - len(name)],
            path=name,
            query=query,
            headers={},
            body=request.content.read(max_read) if request.content is not None else b"",
            caller=caller,
            number=next_number(),
            version=request.clientproto.removeprefix(b"HTTP/").decode("latin-1"),
        )


def admit(admission: Admission, request: Request) -> dict[bytes, bytes]:
    """
    Check the head of a request that twisted.web has read.

    twisted.web has limits of its own: over 16 KiB for a line, or 500 headers, it answers 400 and closes the
    connection. Spaces that it has stripped do not count.

    :returns: the headers that are read, by their names in lower case.
    :raises StreamsError: the request is refused.
    """
    fields = [(name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values]
    admission.check_target_size(request.uri)
    line_size = len(request.method) + len(request.uri) + len(request.clientproto) + 4
    admission.check_head_size(line_size + sum(len(name) + len(value) + 4 for name, value in fields))
    admission.check_line(request.method, request.uri)
    headers = admission.read(fields)
    admission.check_host(headers.get(b"host"))
    return headers


@implementer(IPushProducer)
class _Delivery:
    """
    One answer on its way through a twisted.web request.

    :ivar asked: the request, as far as it has been read.
    """

    def __init__(
        self,
        request: Request,
        asked: StreamRequest,
        telemetry: Telemetry,
        clock: IReactorTime,
        stall_timeout: float,
    ) -> None:
        self._request = request
        self.asked = asked
        self._telemetry = telemetry
        self._began_at = perf_counter()
        self._clock = clock
        self._stall_timeout = stall_timeout
        self._waiting: Deferred[Answer] | None = None
        self._body: Body | None = None
        self._stalled: IDelayedCall | None = None
        self._over = False
        request.notifyFinish().addErrback(self._lost)

    def wait_for(self, answer: Deferred[Answer]) -> None:
        self._waiting = answer
        answer.addCallbacks(self.answer, self._not_answered)

    def answer(self, answer: Answer) -> None:
        if self._over:
            return
        request = self._request
        self._telemetry.answered(self.asked, self.asked.number, answer, self._began_at)
        request.setResponseCode(answer.status)
        request.setHeader(b"x-request-id", request_id(self.asked.number, self.asked.caller))
        request.responseHeaders.removeHeader(b"content-type")
        for name, value in answer.fields():
            request.responseHeaders.addRawHeader(name, value)
        body = answer.body
        if isinstance(body, bytes):
            if has_length(answer.status, request.method, body):
                request.setHeader(b"content-length", b"%d" % len(body))
            request.write(body)
            self.finish()
            return
        if body.length is not None:
            request.setHeader(b"content-length", b"%d" % body.length)
        if b"no-transform" in answer.head:
            _disable_encoder(request)
        self._body = body
        request.registerProducer(self, True)
        body.start(self)

    def _not_answered(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("Answering a request failed.", failure=failure)
            self.abort()

    # What a body writes to

    def write(self, data: bytes) -> None:
        self._request.write(data)

    def finish(self) -> None:
        if not self._over:
            self._over = True
            self._body = None
            self._clear_stall()
            if self._request.producer is not None:
                self._request.unregisterProducer()
            self._request.finish()

    def abort(self) -> None:
        channel: Any = self._request.channel
        if channel is not None:
            # Over HTTP/2 there is no transport of one's own, and the channel is one stream: to abort it resets that.
            transport: Any = self._request.transport or channel
            transport.abortConnection()

    # What the transport tells

    def pauseProducing(self) -> None:
        if self._body is not None:
            self._body.pauseProducing()
            self._clear_stall()
            self._stalled = self._clock.callLater(self._stall_timeout, self.abort)

    def resumeProducing(self) -> None:
        self._clear_stall()
        if self._body is not None:
            self._body.resumeProducing()

    def stopProducing(self) -> None:
        """The request's end, of which :meth:`_lost` hears, says the same."""

    def _clear_stall(self) -> None:
        if self._stalled is not None and self._stalled.active():
            self._stalled.cancel()
        self._stalled = None

    def _lost(self, _: Failure) -> None:
        self._over = True
        self._clear_stall()
        if self._waiting is not None:
            self._waiting.cancel()
        body, self._body = self._body, None
        if body is not None:
            # The request would keep this, and the transport with its buffer, in a reference cycle.
            self._request.producer = None
            body.stopProducing()


def _disable_encoder(request: Request) -> None:
    """
    Send the body of an answer as it is, whatever encoder twisted.web has chosen for the request.

    An ``EncodingResourceWrapper`` around the streams compresses without looking at Cache-Control, and its encoders have
    no way to flush: zlib would hold back some 10 KB of events. There is no public way to opt out.
    """
    if request._encoder is not None:
        request._encoder = None
        request.responseHeaders.removeHeader(b"content-encoding")
