"""The body of a request as an asynchronous iterable, with back-pressure."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from time import monotonic
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ...incoming import IncomingBody
from ...problems import RequestTimeout

#: How long a client may send less than the minimum rate, in seconds.
_PATIENCE: Final = 30.0


@implementer(IConsumer)
class BodyPieces:
    """
    Iterates over the pieces of a body as they arrive.

    While nothing asks for the next piece, the client is not read from. The iteration raises what
    :meth:`.IncomingBody.startProducing` fails with, such as :exc:`.ConnectionLost`.

    The time in which pieces are waited for is limited, since a client that sends a byte now and then would keep others
    from importing. Each byte adds to it, up to :data:`_PATIENCE`, as for the bodies of other requests.

    :param incoming: the body; only one iteration over it is possible.
    :param rate: how many bytes must arrive a second; 0 for any number.
    :param seconds: returns the time.
    """

    def __init__(self, incoming: IncomingBody, rate: int = 0, seconds: Callable[[], float] = monotonic) -> None:
        self._incoming = incoming
        self._rate = rate
        self._seconds = seconds
        self._left = _PATIENCE
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
                began_at = self._seconds()
                await self._next()
                self._check_rate(self._seconds() - began_at)
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

    def _check_rate(self, waited: float) -> None:
        """
        Check that the body arrives fast enough.

        :raises RequestTimeout: it does not.
        """
        if not self._rate or self._over:
            return
        self._left = min(_PATIENCE, self._left - waited + sum(map(len, self._pieces)) / self._rate)
        if self._left < 0:
            raise RequestTimeout(f"The body arrives too slowly: send at least {self._rate} bytes a second.")

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
