"""Live readers, and the tail by Server-Sent Events with its back-pressure (PROTOCOL section 5.8)."""

from __future__ import annotations

from random import randint, random

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..clocks import clock_of
from ..errors import DataDamaged, StreamsError
from ..interfaces import NowOrLater
from ..model import Chunk, Offset, StreamFacts
from ..protocol import cursors, sse
from ..run_queue import SLICE
from ..streams import Streams
from .answers import Sink
from .bodies import ByteCounter
from .events import Events, LargeEvent
from .live_access import ReadPermit
from .long_polls import LongPoll

#: How much of a stream goes into one event at the most, in bytes. An append that is larger is an event of its own, sent
#: in pieces of this size.
EVENT_SIZE = sse.PIECE

#: How long a tail may be silent, in seconds.
KEEP_ALIVE = 14

_log = Logger()


class LiveSettings(Struct, frozen=True, gc=False):
    """
    Timeouts of live readers, in seconds.

    :ivar long_poll_timeout: a long-poll, when nothing comes.
    :ivar reconnect_interval: a tail, until it is asked to come again; 0 for good.
    :ivar drain_spread: over how long the ends of all tails are spread when the service drains.
    """

    long_poll_timeout: float = 20
    reconnect_interval: float = 60
    drain_spread: float = 0


class ReaderCounts(Struct, frozen=True, gc=False):
    """
    The number of readers of a stream that wait for data, or are being sent some.

    :ivar tails: readers of Server-Sent Events.
    :ivar polls: long-polls.
    :ivar others: readers in this program, of the embedding interface.
    """

    tails: int
    polls: int
    others: int


class Live:
    """
    The live readers of a service. They share one clock tick a second and the encoded events.

    :ivar events: encodes events.
    :ivar sent: counts the bytes of all streamed bodies.
    """

    def __init__(self, streams: Streams, clock: IReactorTime, settings: LiveSettings) -> None:
        self.streams = streams
        self.settings = settings
        self.clock = clock_of(clock)
        self.current_cursor = 0
        self.changes = streams.changes
        self.events = Events()
        self.sent = ByteCounter()
        self._tails: set[EventTail] = set()
        self._polls: set[LongPoll] = set()
        # No LoopingCall: the last tail may leave, and another come, within a tick.
        self._next_tick: IDelayedCall | None = None

    @property
    def tails(self) -> int:
        """The number of readers of Server-Sent Events."""
        return len(self._tails)

    @property
    def polls(self) -> int:
        """The number of long-polls that wait."""
        return len(self._polls)

    def readers_of(self, name: str) -> ReaderCounts:
        """
        Count the readers of one stream.

        It looks at each of them, so that readers need not be counted while they come and go.
        """
        kinds = [type(getattr(watcher, "__self__", None)) for watcher in self.streams.watchers(name)]
        tails, polls = kinds.count(EventTail), kinds.count(LongPoll)
        return ReaderCounts(tails, polls, len(kinds) - tails - polls)

    def readers(self) -> ReaderCounts:
        """Count the readers of all streams, also those of other fronts of the same service, by looking at each."""
        counts = [self.readers_of(name) for name in self.streams.watched()]
        return ReaderCounts(
            sum(count.tails for count in counts),
            sum(count.polls for count in counts),
            sum(count.others for count in counts),
        )

    def cursor(self, given: str | None) -> int:
        """Choose a cursor (PROTOCOL section 10.1)."""
        return cursors.next_cursor(self.clock.wall(), given, randint(*cursors.JITTER))

    def wait(self, empty: Chunk, permit: ReadPermit | None = None) -> Deferred[Chunk]:
        """
        Wait, after a read that found nothing, for data, the close or the deletion of the stream, or the time-out.

        :param permit: the permit of the long-poll; None without access control. If it is revoked, the wait ends with
            ``empty``.
        :returns: what a read finds then; a failure with :exc:`StreamNotFound` when the stream was deleted.
        """
        timeout = self.settings.long_poll_timeout
        return LongPoll(self.streams, self.clock, timeout, empty, self._polls, permit).outcome

    def add(self, tail: EventTail) -> None:
        if self._next_tick is None:
            self.current_cursor = self.cursor(None)
            self._next_tick = self.clock.callLater(1, self._tick)
        self._tails.add(tail)

    def discard(self, tail: EventTail) -> None:
        self._tails.discard(tail)
        if not self._tails and self._next_tick is not None:
            self._next_tick.cancel()
            self._next_tick = None
            self.events.forget()

    def _tick(self) -> None:
        self._next_tick = self.clock.callLater(1, self._tick)
        now = self.clock.seconds()
        self.current_cursor = self.cursor(None)
        self.events.forget()
        for tail in list(self._tails):
            tail.tick(now)


@implementer(IPushProducer)
class EventTail:
    """
    A reader of Server-Sent Events: an offset, the place in a large event, and a sink.

    Nothing is queued for it. While its client is slow it is paused; when it is resumed it reads on from its offset.
    """

    __slots__ = (
        "_change",
        "_cursor",
        "_facts",
        "_large",
        "_leaving",
        "_live",
        "_paused",
        "_permit",
        "_position",
        "_queued",
        "_reading",
        "_silent",
        "_since",
        "_sink",
        "_woken",
        "length",
    )

    def __init__(self, live: Live, first: Chunk, cursor: str | None, permit: ReadPermit | None = None) -> None:
        self._live = live
        self._permit = permit
        self._facts: StreamFacts = first.facts
        self._position = first.start
        self._cursor = live.cursor(cursor)
        # The number of the last change before the last read.
        self._change = 0
        # Nothing else may be sent until it is complete.
        self._large: LargeEvent | None = None
        self._sink: Sink | None = None
        self._paused = False
        # Whether it waits in the run queue for its next slice of time.
        self._queued = False
        self._reading = False
        self._woken = False
        self._leaving: IDelayedCall | None = None
        # Ticks since the last event; -1 before the first, which is sent even if there is no data.
        self._silent = -1
        self._since = live.clock.seconds()
        self.length: int | None = None

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._live.add(self)
        self._live.streams.watch(self._facts.name, self._wake)
        if self._permit is not None:
            self._permit.begin(self)
        self._go_on()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._go_on()

    def stopProducing(self) -> None:
        if self._sink is not None:
            self._sink = None
            self._live.streams.unwatch(self._facts.name, self._wake)
            self._live.discard(self)
            if self._permit is not None:
                self._permit.end(self)
            if self._leaving is not None and self._leaving.active():
                self._leaving.cancel()

    def revoke(self) -> None:
        """
        End with a control event: the reader may not read the stream any more.

        In the middle of a large event the answer is aborted.
        """
        sink = self._sink
        if sink is None:
            return
        if self._large is not None:
            self.stopProducing()
            sink.abort()
            return
        up_to_date = self._silent >= 0 and not (self._paused or self._reading or self._queued)
        offset = str(Offset(self._facts.incarnation, self._position))
        sink.write(sse.control_event(offset, max(self._cursor, self._live.current_cursor), up_to_date, False))
        self._finish()

    def tick(self, now: float) -> None:
        """
        Queue a keep-alive if nothing was sent for :data:`KEEP_ALIVE`, or the end after the reconnect interval.

        Called once a second for all tails in one go, so it does nothing that costs more.
        """
        if self._sink is None or self._paused or self._large is not None:
            return
        self._silent += 1
        interval = self._live.settings.reconnect_interval
        if interval and now - self._since >= interval:
            self._live.streams.turns.add(self._end_soon)
        elif self._silent >= KEEP_ALIVE:
            self._silent = 0
            self._live.streams.turns.add(self._keep_alive)

    def _end_soon(self) -> None:
        # A large event may have begun meanwhile: the next tick after it queues the end again.
        if self._large is None:
            self._finish()

    def _keep_alive(self) -> None:
        if self._sink is not None and not self._paused and self._large is None:
            self._sink.write(sse.KEEP_ALIVE)

    def _wake(self) -> None:
        """Send what another tail at this place has just been sent, if nothing has changed since; else read."""
        live = self._live
        event = live.events.latest
        if (
            event is None
            or event.start != self._position
            or event.facts is not self._facts
            or event.change != live.changes.count
            or event.cursor < self._cursor
            or self._silent < 0
            or self._paused
            or self._reading
            or self._queued
            or self._large is not None
            or self._sink is None
        ):
            self._go_on()
            return
        self._silent = 0
        self._position = event.end
        self._cursor = event.cursor
        live.sent.bytes += len(event.data)
        self._sink.write(event.data)

    def _go_on(self) -> None:
        """Read and send for a slice of time, until the client pauses this; then queue for the next slice."""
        # A change during a read may have come too late for it.
        self._woken = self._reading
        end = 0.0
        while self._sink is not None and not self._paused and not self._reading and not self._queued:
            found: Chunk | bytes | Deferred[Chunk] | Deferred[bytes]
            try:
                found = self._read() if self._large is None else self._read_piece(self._large)
            except Exception:
                self._failed(Failure())
                return
            if isinstance(found, Deferred):
                self._reading = True
                found.addCallbacks(self._read_later, self._failed)
            elif not self._send(found):
                return
            else:
                turns = self._live.streams.turns
                now = turns.seconds()
                # Mostly there is nothing after the first event, and no need for the time.
                end = end or now + SLICE
                if now >= end:
                    self._queued = True
                    turns.add(self._go_on_queued)

    def _go_on_queued(self) -> None:
        self._queued = False
        self._go_on()

    def _read(self) -> NowOrLater[Chunk]:
        self._change = self._live.changes.count
        place = Offset(self._facts.incarnation, self._position)
        return self._live.streams.read(self._facts.name, place, EVENT_SIZE, whole=True, renew=False)

    def _read_piece(self, large: LargeEvent) -> NowOrLater[bytes]:
        """Read and encode the next piece of a large event, unless it is encoded already."""
        events = self._live.events
        piece = events.piece(large)
        if piece is not None:
            return piece
        # With the byte before it, on which the encoding of line breaks depends.
        found = self._live.streams.read_range(self._facts, large.position - 1, large.piece_end)
        return found.addCallback(events.encode, large) if isinstance(found, Deferred) else events.encode(found, large)

    def _read_later(self, found: Chunk | bytes) -> None:
        self._reading = False
        if self._sink is not None and (self._send(found) or self._woken):
            self._go_on()

    def _failed(self, failure: Failure) -> None:
        self._reading = False
        if not failure.check(StreamsError):
            _log.failure("A tail of {name} failed.", failure=failure, name=self._facts.name)
        broken = self._large is not None or failure.check(DataDamaged) or not failure.check(StreamsError)
        sink = self._sink
        if not broken or sink is None:
            self._finish()
        else:
            # Abort, so that the reader does not treat half an event or an incomplete stream as complete.
            self.stopProducing()
            sink.abort()

    def _send(self, chunk: Chunk | bytes) -> bool:
        """Send the result of a read as an event or a piece of one, and return whether to read on."""
        if isinstance(chunk, bytes):
            self._send_piece(chunk)
            return True
        sink = self._sink
        assert sink is not None
        if chunk.facts.id != self._facts.id:
            self._finish()
            return False
        if chunk.more:
            self._large = LargeEvent(chunk)
            self._send_piece(self._live.events.piece(self._large) or self._live.events.encode(chunk.data, self._large))
            return True
        end = chunk.start + len(chunk.data)
        at_end = end == chunk.tail
        if chunk.data or self._silent < 0 or chunk.closed:
            self._silent = 0
            self._position = end
            live = self._live
            # A reader's cursor never goes back, even if the wall clock does.
            self._cursor = max(self._cursor, live.current_cursor)
            shared = self._change if self._cursor == live.current_cursor else None
            live.sent.bytes += live.events.write(sink, chunk, self._cursor, shared)
        if not at_end:
            return True
        if chunk.closed:
            self._finish()
        elif self._live.streams.draining:
            self._leave()
        return False

    def _send_piece(self, piece: bytes) -> None:
        """Send a piece of a large event; after the last one, the control event."""
        large, sink = self._large, self._sink
        assert large is not None
        assert sink is not None
        large.position = large.piece_end
        self._live.sent.bytes += len(piece)
        sink.write(piece)
        if large.position == large.end and self._sink is not None:
            self._large = None
            # The control event is sent even if there is nothing after the event.
            self._silent = -1
            self._send(large.place())

    def _leave(self) -> None:
        """End within the drain spread: if all tails ended at once, all clients would reconnect at once."""
        spread = self._live.settings.drain_spread
        if not spread:
            self._finish()
        elif self._leaving is None:
            self._leaving = self._live.clock.callLater(random() * spread, self._finish)

    def _finish(self) -> None:
        sink = self._sink
        if sink is not None:
            self.stopProducing()
            sink.finish()
