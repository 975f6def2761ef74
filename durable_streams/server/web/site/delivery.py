"""Delivery of answers to twisted.web requests."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from ..admission import AdmittedRequest
from ..answers import Answer, AnswerBody
from ..framing import Framer
from ..requests import StreamRequest

_log = Logger()


@implementer(IPushProducer)
class Delivery:
    """
    The answer to a twisted.web request, written with the client's back-pressure.

    :ivar asked: the request, as far as it has been read.
    :param stall_timeout: after how many seconds a client that reads nothing is disconnected.
    """

    def __init__(
        self,
        request: Request,
        asked: AdmittedRequest,
        framer: Framer,
        clock: IReactorTime,
        stall_timeout: float,
    ) -> None:
        self._request = request
        self.asked = asked
        self._framer = framer
        self._began_at = perf_counter()
        self._clock = clock
        self._stall_timeout = stall_timeout
        self._waiting: Deferred[Answer] | None = None
        self._body: AnswerBody | None = None
        self._stalled: IDelayedCall | None = None
        self._over = False
        request.notifyFinish().addErrback(self._lost)

    def wait_for(self, answer: Deferred[Answer]) -> None:
        """Write an answer when it is known; if the client goes before that, cancel it."""
        self._waiting = answer
        answer.addCallbacks(self.answer, self._not_answered)

    def answer(self, answer: Answer) -> None:
        """Write an answer, or stop its body if the client has gone."""
        body = answer.body
        if self._over:
            if not isinstance(body, bytes):
                body.stopProducing()
            return
        request = self._request
        request.setResponseCode(answer.status)
        for name in (b"content-type", b"x-request-id"):
            request.responseHeaders.removeHeader(name)
        for name, value in self._framer.fields(answer, self.asked, self._began_at):
            request.responseHeaders.addRawHeader(name, value)
        if isinstance(body, bytes):
            request.write(body)
            self.finish()
            return
        if isinstance(self.asked, StreamRequest) and self.asked.is_live:
            _disable_encoder(request)
        self._body = body
        request.registerProducer(self, True)
        body.start(self)

    def _not_answered(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("Answering a request failed.", failure=failure)
            self.abort()

    # The sink of an answer's body

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

    # The request's producer

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
        """Do nothing: :meth:`_lost` follows."""

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
