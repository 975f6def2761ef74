"""The body of a request as an asynchronous iterable, with back-pressure."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ...incoming import IncomingBody


@implementer(IConsumer)
class BodyPieces:
    """
    Iterates over the pieces of a body as they arrive.

    While nothing asks for the next piece, the client is not read from. The iteration raises what
    :meth:`.IncomingBody.startProducing` fails with, such as :exc:`.ConnectionLost`.

    :param incoming: the body; only one iteration over it is possible.
    """

    def __init__(self, incoming: IncomingBody) -> None:
        self._incoming = incoming
        self._producer: IPushProducer | None = None
        self._pieces: deque[bytes] = deque()
        self._over = False
        self._failure: Failure | None = None
        self._waiting: Deferred[None] | None = None

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._iterate()

    async def _iterate(self) -> AsyncGenerator[bytes, None]:
        self._incoming.startProducing(self).addCallbacks(self._ended, self._failed)
        try:
            while True:
                while self._pieces:
                    yield self._pieces.popleft()
                if self._over:
                    break
                await self._next()
            if self._failure is not None:
                self._failure.raiseException()
        finally:
            self._pieces.clear()
            self._incoming.stopProducing()

    def _next(self) -> Deferred[None]:
        """Read from the client until there is a piece."""
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        if self._producer is not None:
            self._producer.resumeProducing()
        return waiting

    def _fire(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def _ended(self, _: None) -> None:
        self._over = True
        self._fire()

    def _failed(self, failure: Failure) -> None:
        self._failure = failure
        self._ended(None)

    # What the body calls

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        if self._producer is not None:
            self._producer.pauseProducing()
        self._fire()
