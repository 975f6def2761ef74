"""Streamed bodies whose end is reported, with the number of bytes that were sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from .answers import AnswerBody, FileSink, Sink
from .file_taps import FileTap

#: How a body ends: complete, or as a live read does; because the client has gone; or aborted by the server.
FINISHED: Final = "finished"
DISCONNECTED: Final = "disconnected"
ABORTED: Final = "aborted"


@implementer(IPushProducer)
class ObservedBody:
    """
    The body of an answer, which counts its bytes.

    :param ended: is called once, when the body has ended, with the number of its bytes and how it has ended.
    """

    __slots__ = ("_body", "_ended", "_sent", "_sink", "length")

    def __init__(self, body: AnswerBody, ended: Callable[[int, str], None]) -> None:
        self.length = body.length
        self._body = body
        self._ended: Callable[[int, str], None] | None = ended
        self._sink: Sink | None = None
        self._sent = 0

    # The front's producer

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._body.start(FileTap(self, sink, self.count) if isinstance(sink, FileSink) else self)

    def pauseProducing(self) -> None:
        self._body.pauseProducing()

    def resumeProducing(self) -> None:
        self._body.resumeProducing()

    def stopProducing(self) -> None:
        self._end(DISCONNECTED)
        self._body.stopProducing()

    # The body's sink

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self._sink is not None:
            self._sent += len(data)
            self._sink.write(data)

    def finish(self) -> None:
        sink = self._end(FINISHED)
        if sink is not None:
            sink.finish()

    def abort(self) -> None:
        sink = self._end(ABORTED)
        if sink is not None:
            sink.abort()

    def count(self, size: int) -> None:
        """Count bytes that were sent from a file."""
        self._sent += size

    def _end(self, outcome: str) -> Sink | None:
        sink, self._sink = self._sink, None
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self._sent, outcome)
        return sink
