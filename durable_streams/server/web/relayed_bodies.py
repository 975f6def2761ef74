"""Bodies of answers that relay another body, and the base class of those that count, pace or revoke what it sends."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from ..model import FileRange
from .answers import AnswerBody, FileSink, Sink

#: How a body ends: complete, or as a live read does; because the client has gone; or aborted by the server.
FINISHED: Final = "finished"
DISCONNECTED: Final = "disconnected"
ABORTED: Final = "aborted"


@implementer(IPushProducer)
class RelayedBody:
    """
    The body of an answer that relays another body: the producer of the front's sink, and the sink of the other body.

    Subclasses override :meth:`count` and :meth:`ended`.

    :ivar body: the other body.
    :ivar is_over: whether it has ended.
    """

    __slots__ = ("_sink", "body", "is_over", "length")

    def __init__(self, body: AnswerBody) -> None:
        self.length = body.length
        self.body = body
        self.is_over = False
        self._sink: Sink | None = None

    def count(self, size: int) -> None:
        """Do nothing. Called with the number of bytes of each piece, before it is sent, or after it if from a file."""

    def ended(self, outcome: str) -> None:
        """
        Do nothing. Called once, when the body has ended.

        :param outcome: :data:`FINISHED`, :data:`DISCONNECTED` or :data:`ABORTED`.
        """

    # The front's producer

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self.body.start(_FileTap(self, sink) if isinstance(sink, FileSink) else self)

    def pauseProducing(self) -> None:
        self.body.pauseProducing()

    def resumeProducing(self) -> None:
        self.body.resumeProducing()

    def stopProducing(self) -> None:
        self.end(DISCONNECTED)
        self.body.stopProducing()

    # The body's sink

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        sink = self._sink
        if sink is not None:
            self.count(len(data))
            sink.write(data)

    def finish(self) -> None:
        sink = self.end(FINISHED)
        if sink is not None:
            sink.finish()

    def abort(self) -> None:
        sink = self.end(ABORTED)
        if sink is not None:
            sink.abort()

    def end(self, outcome: str) -> Sink | None:
        """
        Mark the body as ended.

        :param outcome: as for :meth:`ended`.
        :returns: the front's sink, which is not used any more; None before the start, and after the end.
        """
        sink, self._sink = self._sink, None
        if not self.is_over:
            self.is_over = True
            self.ended(outcome)
        return sink


class _FileTap:
    """
    The sink of a body where the front can send from files.

    It passes what is sent from files to the front's sink, and everything else to the body that relays it.

    :param body: the body that relays.
    :param sink: the front's.
    """

    __slots__ = ("_count", "_sink", "abort", "finish", "write")

    def __init__(self, body: RelayedBody, sink: FileSink) -> None:
        self._sink = sink
        self._count = body.count
        self.write = body.write
        self.finish = body.finish
        self.abort = body.abort

    def send_file(self, part: FileRange) -> int:
        """
        Send bytes of a file.

        :returns: how many were sent.
        """
        sent = self._sink.send_file(part)
        if sent:
            self._count(sent)
        return sent
