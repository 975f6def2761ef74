"""Bodies of requests and answers. Both are streamed, with back-pressure, and fail if the other side is silent."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer

from .errors import AnswerTimeout, ClientError, ConnectionBroken, InvalidAnswer
from .failures import explain

#: An answer's connection is paused while more than this waits to be read, in bytes.
_MAX_WAITING: Final = 65_536


class Patience:
    """
    Calls a function when nothing has happened for some time.

    :param seconds: the time.
    """

    def __init__(self, reactor: IReactorTime, seconds: float, expired: Callable[[], object]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._expired = expired
        self._call: IDelayedCall | None = None
        self.is_over = False

    def restart(self) -> None:
        """Begin to wait, or begin again."""
        if self._call is not None and self._call.active():
            self._call.reset(self._seconds)
        elif not self.is_over:
            self._call = self._reactor.callLater(self._seconds, self._expire)

    def stop(self) -> None:
        """Stop waiting."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _expire(self) -> None:
        self.is_over = True
        self._expired()


@implementer(IBodyProducer)
class BytesBody:
    """A request's body that is at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: everything was written."""

    def resumeProducing(self) -> None:
        """Do nothing: everything was written."""

    def stopProducing(self) -> None:
        """Do nothing: everything was written."""


@implementer(IBodyProducer)
class StreamedBody:
    """
    A request's body that comes from an asynchronous iterator, as fast as the server reads.

    :param pieces: the body; pieces of at most 1 MiB keep memory low.
    :param progress: called whenever the server has read something.
    """

    #: The body is sent chunked.
    length: Any = UNKNOWN_LENGTH

    def __init__(self, reactor: IReactorTime, pieces: AsyncIterable[bytes], progress: Callable[[], object]) -> None:
        self._reactor = reactor
        self._pieces = pieces
        self.progress = progress
        self._resumed: Deferred[None] | None = None
        self._is_paused = False
        self._sending: Deferred[None] | None = None
        #: What the iterator raised, if it did not end.
        self.error: Exception | None = None

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send the pieces. The Deferred fails with what the iterator raises, and never fires after a stop."""
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._sending = Deferred.fromCoroutine(self._send(consumer))
        self._sending.addCallbacks(lambda _: self._end(done), lambda reason: self._end(done, reason))
        return done

    def _end(self, done: Deferred[None], reason: Failure | None = None) -> None:
        if self._sending is None:
            return
        self._sending = None
        if reason is None:
            done.callback(None)
        else:
            self.error = reason.value if isinstance(reason.value, Exception) else None
            done.errback(reason)

    async def _send(self, consumer: IConsumer) -> None:
        # An iterator that has everything at hand must not send it before startProducing has returned.
        await deferLater(self._reactor, 0)
        async for piece in self._pieces:
            if piece:
                consumer.write(piece)
                self.progress()
            if self._is_paused:
                self._resumed = Deferred()
                await self._resumed

    def pauseProducing(self) -> None:
        """Take no more pieces."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._is_paused = False
        self.progress()
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Stop for good: the connection is lost, or the request was cancelled."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()


class AnswerBody(Protocol):
    """
    The body of an answer, an asynchronous iterator of bytes. At most about 128 KiB wait to be read.

    :param patience: how long the server may be silent, in seconds.
    :param url: for messages.
    """

    def __init__(self, reactor: IReactorTime, response: IResponse, patience: float, url: str) -> None:
        self._reactor = reactor
        self._response = response
        self._patience = patience
        self._url = url
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_begun = False
        self._is_paused = False
        self._waiting: Deferred[None] | None = None
        self._end: Exception | None = None

    def __aiter__(self) -> AnswerBody:
        return self

    async def __anext__(self) -> bytes:
        self._begin()
        if not self._pieces and self._end is None:
            await self._wait()
        if not self._pieces:
            assert self._end is not None
            raise self._end
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._is_paused:
            self._is_paused = False
            self._transport().resumeProducing()
        return data

    async def read(self, limit: int) -> bytes:
        """
        Return the whole body.

        :param limit: the largest body, in bytes.
        :raises InvalidAnswer: it is larger. The connection is closed.
        """
        pieces = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                self.close()
                raise InvalidAnswer(f"{self._url}: the server's answer is larger than {limit} bytes.")
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the connection, unless the body has arrived completely. What is left of the body is dropped."""
        self._begin()
        self._pieces.clear()
        if self._end is None:
            self._finish(ConnectionBroken(f"{self._url}: the client closed the connection."))
            self._transport().loseConnection()

    def _begin(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            self._response.deliverBody(self)

    async def _wait(self) -> None:
        self._waiting = Deferred()
        patience = Patience(self._reactor, self._patience, self._expire)
        patience.restart()
        try:
            await self._waiting
        finally:
            self._waiting = None
            patience.stop()

    def _expire(self) -> None:
        self._finish(AnswerTimeout(f"{self._url}: the server sent nothing for {self._patience:g} seconds."))
        self._transport().loseConnection()

    def _transport(self) -> Any:
        return self.transport

    def _finish(self, end: Exception) -> None:
        if self._end is None:
            self._end = end
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Keep data until it is read."""
        if self._end is not None:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MAX_WAITING and not self._is_paused:
            self._is_paused = True
            self._transport().pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end of the body."""
        if reason.check(ResponseDone):
            self._finish(StopAsyncIteration())
        else:
            self._finish(_broken(reason, self._url))


def _broken(reason: Failure, url: str) -> ClientError:
    """
    Return the error of a body that is not complete.

    PotentialDataLoss is one: without a length or chunks, a complete body cannot be told from a broken connection.
    """
    error = explain(reason, url)
    if isinstance(error, CancelledError):
        return ConnectionBroken(f"{url}: the connection broke in the middle of the answer.")
    return error
