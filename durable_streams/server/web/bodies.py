"""Bodies of answers that are produced piece by piece, as fast as the client reads them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import StreamsError
from ..model import Chunk, FileRange
from ..run_queue import SLICE, RunQueue
from ..streams import Streams
from .answers import FileSink, Sink
from .live_access import ReadPermit

#: How many bytes of a stream are in memory at a time for one reader.
PIECE = 131_072

#: How many bytes are sent from a file at a time. To verify them takes 0.2 ms.
FILE_PIECE = 524_288

_log = Logger()


class ByteCounter:
    """
    Counter of the bytes of streamed bodies.

    :ivar bytes: how many were sent.
    """

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


@implementer(IPushProducer)
class Replay:
    """
    A catch-up read that is larger than one piece: a stream from where ``first`` begins to the tail that it names.

    :param first: the first piece.
    :param sent: counts what is sent.
    :param permit: the permit of the read; None without access control. If it is revoked, the answer is aborted.
    """

    def __init__(
        self, streams: Streams, first: Chunk, sent: ByteCounter | None = None, permit: ReadPermit | None = None
    ) -> None:
        self._permit = permit
        self._sent = ByteCounter() if sent is None else sent
        self._streams = streams
        self._turns = streams.turns
        self._facts = first.facts
        self._json = first.facts.json
        self._next: bytes = b"[" + first.data if self._json else first.data
        self._position = first.start + len(first.data)
        self._tail = first.tail
        self.length: int | None = first.tail - first.start + self._json
        self._sink: Sink | None = None
        self._paused = False
        self._reading = False
        # The same sink, as long as it sends from files.
        self._file_sink: FileSink | None = None

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._file_sink = sink if isinstance(sink, FileSink) else None
        if self._permit is not None:
            self._permit.begin(self)
        self._go_on()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._reading:
            self._go_on()

    def stopProducing(self) -> None:
        self._file_sink = None
        self._next = b""
        self._end()

    def revoke(self) -> None:
        """Abort the answer: the reader may not read the stream any more."""
        self._next = b""
        sink = self._end()
        if sink is not None:
            sink.abort()

    def _end(self) -> Sink | None:
        """Return the sink, which is not used any more; None if it has ended before."""
        sink, self._sink = self._sink, None
        if self._permit is not None:
            self._permit.end(self)
        return sink

    def _go_on(self) -> None:
        """Send pieces for a slice of time, until the client pauses this; then queue for the next slice."""
        self._reading = True
        seconds = self._turns.seconds
        end = seconds() + SLICE
        while self._sink is not None and not self._paused:
            piece, self._next = self._next, b""
            if piece:
                self._sent.bytes += len(piece)
                self._sink.write(piece)
                if seconds() >= end:
                    self._turns.add(self._go_on)
                    return
            elif self._position == self._tail:
                sink = self._sink
                self._end()
                sink.finish()
            else:
                try:
                    found = self._read()
                except Exception:
                    self._failed(Failure())
                    return
                if isinstance(found, Deferred):
                    found.addCallback(self._read_later).addErrback(self._failed)
                    return
                self._take(found)
                if seconds() >= end:
                    self._turns.add(self._go_on)
                    return
        self._reading = False

    def _read(self) -> bytes | FileRange | Deferred[bytes] | Deferred[FileRange | None]:
        """Find the next piece in a file, or read it."""
        start = self._position
        # The last message's comma is not sent as it is.
        end = min(start + FILE_PIECE, self._tail - self._json)
        if self._file_sink is not None and start < end:
            part = self._streams.file_range(self._facts, start, end)
            if part is not None:
                return part
        return self._streams.read_range(self._facts, start, min(start + PIECE, self._tail))

    def _read_later(self, found: bytes | FileRange | None) -> None:
        self._take(found)
        self._go_on()

    def _take(self, piece: bytes | FileRange | None) -> None:
        if not isinstance(piece, bytes):
            sent = 0 if piece is None or self._file_sink is None else self._file_sink.send_file(piece)
            if not sent and not self._paused:
                self._file_sink = None
            self._position += sent
            self._sent.bytes += sent
            return
        self._position += len(piece)
        # The comma of the last message is replaced by the end of the array.
        self._next = piece[:-1] + b"]" if self._json and self._position == self._tail else piece

    def _failed(self, failure: Failure) -> None:
        # Deletion during a read is expected; do not log it.
        if not failure.check(StreamsError):
            _log.failure("A read of {name} failed.", failure=failure, name=self._facts.name)
        sink = self._end()
        if sink is not None:
            sink.abort()


@implementer(IPushProducer)
class GeneratedBody:
    """
    A body whose pieces an asynchronous generator yields.

    The generator is resumed when the client has room for more, and closed when the client has gone. It runs in slices
    of time, however seldom it awaits anything.

    If the generator raises, the answer is aborted: its end would look like that of a complete one.

    :param pieces: the generator.
    :param turns: queues the slices of time.
    :param length: the size of the body in bytes; None if it is not known.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], turns: RunQueue, length: int | None = None) -> None:
        self.length = length
        self._pieces = pieces
        self._turns = turns
        self._sink: Sink | None = None
        self._paused = False
        self._resumed: Deferred[None] | None = None
        self._sending: Deferred[None] | None = None
        self._writing = False

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._sending = Deferred.fromCoroutine(self._send())
        self._sending.addErrback(self._failed)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._sink = None
        if self._sending is not None and not self._writing:
            self._sending.cancel()

    async def _send(self) -> None:
        seconds = self._turns.seconds
        end = seconds() + SLICE
        try:
            while self._sink is not None:
                if seconds() >= end:
                    await self._turns.turn()
                    end = seconds() + SLICE
                if self._paused:
                    self._resumed = Deferred()
                    await self._resumed
                piece = await anext(self._pieces, None)
                if piece is None or self._sink is None:
                    break
                self._writing = True
                self._sink.write(piece)
                self._writing = False
        finally:
            await self._pieces.aclose()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.finish()

    def _failed(self, failure: Failure) -> None:
        if failure.check(StreamsError):
            _log.warn("Sending the body of an answer failed: {reason}", reason=failure.value)
        elif not failure.check(CancelledError) or self._sink is not None:
            _log.failure("Sending the body of an answer failed.", failure=failure)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()
