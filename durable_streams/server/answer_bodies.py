"""Bodies of the answers that HTTP clients of the server get, with a limit of their size."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss


class BodyReader(Protocol):
    """
    Collects the body of an answer.

    A body without a length ends with its connection, as HTTP/1.0 has it: simple servers answer so.

    :param limit: the largest size of the body, in bytes.
    :param too_large: returns the error of a larger one.
    :ivar done: fires with the body.
    """

    def __init__(self, limit: int, too_large: Callable[[], Exception]) -> None:
        self._limit = limit
        self._too_large = too_large
        self._body = bytearray()
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Keep a part of the body."""
        if self.done.called:
            return
        self._body += data
        if len(self._body) > self._limit:
            self.done.errback(self._too_large())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end of the body."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._body))
        else:
            self.done.errback(reason)
