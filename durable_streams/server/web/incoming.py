"""Request bodies that are streamed from a connection to a consumer, with back-pressure."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer


class BodySource(Protocol):
    """The connection that a request body arrives on."""

    def pause_body(self) -> None:
        """Stop reading the body from the client. May be called again while it is paused."""

    def resume_body(self) -> None:
        """Resume reading the body; called for the first time when the consumer starts."""


class _NoSource:
    """The source of a body that has arrived, or whose connection is lost."""

    def pause_body(self) -> None:
        """Do nothing."""

    def resume_body(self) -> None:
        """Do nothing."""


_NO_SOURCE = _NoSource()


@implementer(IBodyProducer)
class IncomingBody:
    """
    The body of a request, as a push producer.

    Until :meth:`startProducing` is called, and while the consumer has paused it, the source is paused: no more than
    what the connection had read by then is buffered.

    :param source: the connection.
    :param length: the size in bytes, from Content-Length; None if it is not known.
    """

    def __init__(self, source: BodySource, length: int | None = None) -> None:
        self.length: object = UNKNOWN_LENGTH if length is None else length
        self._source: BodySource = source
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._buffer: deque[bytes] = deque()
        self._paused = False
        self._delivering = False
        # All of it has arrived; no more of it is delivered.
        self._complete = False
        self._over = False
        self._error: Failure | None = None

    @property
    def buffered_bytes(self) -> int:
        """The number of bytes that have arrived and are not delivered yet."""
        return sum(map(len, self._buffer))

    # The consumer's side

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        Write the body to a consumer.

        :returns: fires when all of it was written; fails with a :exc:`.StreamsError` if the client's framing is wrong
            or it takes too long, and with :exc:`.ConnectionLost` if the client has gone. To cancel it is to call
            :meth:`stopProducing`.
        """
        self._consumer = consumer
        consumer.registerProducer(self, True)
        self.resumeProducing()
        return self._done

    def pauseProducing(self) -> None:
        self._paused = True
        self._source.pause_body()

    def resumeProducing(self) -> None:
        self._paused = False
        self._deliver()

    def stopProducing(self) -> None:
        """Stop the delivery. The connection is closed after the answer; an HTTP/2 stream is reset."""
        if not self._over:
            self._over = True
            self._buffer.clear()
            self._source.pause_body()
            self._release()

    # The connection's side

    def received(self, data: bytes) -> None:
        """Deliver or buffer a piece of the body."""
        if self._over:
            return
        self._buffer.append(data)
        if self._consumer is None or self._paused:
            self._source.pause_body()
        else:
            self._deliver()

    def ended(self) -> None:
        """Record that all of the body has arrived."""
        self._complete = True
        self._source = _NO_SOURCE
        self._finish_if_delivered()

    def fail(self, failure: Failure) -> None:
        """Fail the delivery, because the rest of the body will not arrive."""
        if not self._complete and self._error is None:
            self._error = failure
            self._source = _NO_SOURCE
            self._buffer.clear()
            self._finish_if_delivered()

    def _deliver(self) -> None:
        """Write the buffered bytes until the consumer pauses this, then resume the source."""
        if self._delivering or self._consumer is None:
            return
        self._delivering = True
        while self._buffer and not self._paused and self._consumer is not None:
            try:
                self._consumer.write(self._buffer.popleft())
            except Exception:
                failure = Failure()
                self.stopProducing()
                self._done.errback(failure)
        self._delivering = False
        self._finish_if_delivered()
        if not self._paused:
            self._source.resume_body()

    def _finish_if_delivered(self) -> None:
        if self._over or self._delivering or self._buffer or self._consumer is None:
            return
        if not self._complete and self._error is None:
            return
        self._over = True
        self._release()
        if self._error is None:
            self._done.callback(None)
        else:
            self._done.errback(self._error)

    def _release(self) -> None:
        """Unregister from the consumer, and drop the references that are cycles."""
        consumer, self._consumer = self._consumer, None
        self._source = _NO_SOURCE
        if consumer is not None:
            consumer.unregisterProducer()
