"""HTTP/2 connections (RFC 9113): an engine reads frames, and each HTTP/2 stream is an exchange."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...run_queue import SLICE
from ..bodies import PIECE
from ..callers import caller_on
from ..connections import Connections, RefusalCounter
from ..transports import LINGER, MAX_DISCARDED, Transport, close_socket
from .engine import Engine, empty_settings, goodbye_frame
from .errors import ErrorCode, Http2Error
from .heads import Head
from .stream import Exchange

#: How many requests one connection may have at a time.
STREAMS: Final = 100

#: How many bytes of bodies a client may send before it hears that they were taken: for a connection, and one stream.
_CONNECTION_WINDOW: Final = 1_048_576
_STREAM_WINDOW: Final = 262_144

#: How many frames that ask for nothing a connection may send at once, and how many more a second. Each costs the client
#: a few bytes, and the server 2 us, a look at all streams, or a whole request that is reset.
_NUISANCES: Final = 400
_NUISANCES_A_SECOND: Final = 40

#: How many frames such as WINDOW_UPDATE a client may send beyond that: for each request and each frame of a body that
#: it is sent, and one more for so many bytes of the body; and how many of those at once. Clients send one or two a
#: frame, or two for each 4 KiB that their readers take.
_UPDATES: Final = 4
_UPDATE_BYTES: Final = 1024
_MAX_UPDATES: Final = 10_000

#: How much of answers may wait for one client to make room, in bytes, before nothing more is read for it.
_WAITING: Final = 1_048_576

#: How many bytes of bodies are kept until the end of a turn, to be sent in one go.
_TURN_BYTES: Final = 65_536

_log = Logger()


def goodbye() -> bytes:
    """Return the frames that refuse a connection: SETTINGS and GOAWAY."""
    return empty_settings() + goodbye_frame(0, ErrorCode.NO_ERROR)


@implementer(IPushProducer)
class Http2Channel(Protocol):
    """
    An HTTP/2 connection and its exchanges.

    :ivar deadline: the factory's tick from which :meth:`expire` is called.
    :ivar blocked: the send buffer is full: nothing more is sent.
    :ivar body_bytes: the size of all request bodies that are being received.
    :ivar waiting_bytes: the size of all answers that wait for the client's flow-control windows.
    :ivar reads: the number of answers that are being read from streams.
    """

    factory: Connections
    transport: Transport  # type: ignore[assignment]

    def __init__(self, factory: Connections) -> None:
        self.factory = factory
        self.deadline = 0
        self.blocked = False
        self.body_bytes = 0
        self.waiting_bytes = 0
        self.reads = 0
        self.exchanges: dict[int, Exchange] = {}
        self.engine = Engine(self, STREAMS, factory.limits.header_bytes, _STREAM_WINDOW, _CONNECTION_WINDOW)
        self._turns = factory.operations.streams.turns
        self._slice_end = 0.0
        self._scheduled = False
        self._nuisances = float(_NUISANCES)
        self._nuisance_at = factory.tick
        # How many frames such as WINDOW_UPDATE are no nuisance.
        self._updates = 0
        # Whether frames wait for the next slice of time, or for the client to make room.
        self._waits = False
        # Which streams the client has made more room for since they were looked at; 0 for all.
        self._widened: set[int] = set()
        self._turn_bytes = 0
        self._rest_deadline = 0
        # Whether some exchanges wait until others have sent what they have.
        self._crowded = False
        self._leaving = False
        self._ended = False
        # Whether the client is only read until it has had the time to read the end, and how much came since.
        self._lingering = False
        self._discarded = 0
        self._in_turn = False
        self._refusals: RefusalCounter | None = None
        self._is_flooding = False

    # The connection

    def connectionMade(self) -> None:
        self.caller = caller_on(self.transport, self.factory.operations.proxies.trusts)
        self.admission = self.factory.admission(self.caller)
        self._rest_deadline = self.factory.tick + self.factory.settings.header_timeout
        self.deadline = self._rest_deadline
        self.factory.joined(self)
        self.engine.start()
        self.transport.registerProducer(self, True)
        self.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = True
        # These are reference cycles. TLS would keep this, and its own buffers with it.
        self.transport.unregisterProducer()
        self.factory.left(self)
        for exchange in list(self.exchanges.values()):
            exchange.lost()
        self.exchanges.clear()
        self.engine.stop()

    def dataReceived(self, data: bytes) -> None:
        if self._ended:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self.transport.pauseProducing()
            return
        try:
            self.engine.receive(data)
        except Http2Error as error:
            self._fail(error)
            return
        if not self._waits:
            self._take_in()
            if self._waits and not self._ended and not self.blocked:
                self.transport.pauseProducing()

    def _take_in(self) -> None:
        """Process received frames for a slice of time; the rest waits for the connection's next turn."""
        seconds = self._turns.seconds
        self._slice_end = end = seconds() + SLICE
        take_frame = self.engine.take_frame
        self._in_turn = True
        self._waits = False
        try:
            while True:
                if self.blocked:
                    self._waits = True
                    break
                if not take_frame() or self._ended:
                    break
                if seconds() >= end:
                    self._waits = True
                    break
            # Once for all that was said in it.
            if self._widened and not self._ended:
                self._send_on()
        except Http2Error as error:
            self._fail(error)
            return
        finally:
            self._in_turn = False
        self._after()
        if self._waits:
            self._wait_for_turn()

    def _fail(self, error: Http2Error) -> None:
        """End the connection because of an error of the client."""
        self._in_turn = False
        self.engine.say_goodbye(error.code, str(error))
        self._end()

    def _is_over(self) -> bool:
        """Return whether the slice of time of this turn is used up."""
        return self._turns.seconds() >= self._slice_end

    def _wait_for_turn(self) -> None:
        """Queue for another slice of time, unless the send buffer is full."""
        if not self._scheduled and not self._ended and not self.blocked:
            self._scheduled = True
            self._turns.add(self._take_turn)

    def _take_turn(self) -> None:
        self._scheduled = False
        if self._ended or self.blocked:
            return
        try:
            self._take_in()
        except Exception:
            _log.failure("Parsing HTTP/2 frames failed.")
            self.transport.abortConnection()
            return
        if not self._waits and not self._ended and not self.blocked:
            self.transport.resumeProducing()

    # What the engine reads

    def request_received(self, stream_id: int, head: Head, is_whole: bool) -> None:
        self._updates = min(_MAX_UPDATES, self._updates + _UPDATES)
        if self._leaving:
            self.engine.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        self._rest_deadline = 0
        exchange = self.exchanges[stream_id] = Exchange(self, stream_id)
        exchange.begin(head, is_whole)

    def data_received(self, stream_id: int, data: bytes, size: int) -> bool:
        exchange = self.exchanges.get(stream_id)
        if exchange is None:
            return True
        if exchange.is_streaming:
            exchange.received_piece(data, size)
            return False
        if exchange.is_receiving:
            exchange.received(data)
        return True

    def request_ended(self, stream_id: int) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is not None:
            exchange.ended()

    def stream_reset(self, stream_id: int) -> None:
        exchange = self.exchanges.pop(stream_id, None)
        if exchange is not None:
            exchange.lost()

    def window_opened(self, stream_id: int) -> None:
        self._widened.add(stream_id)

    def idle_frame_received(self) -> None:
        """End a connection with too many frames that request nothing (RFC 9113 section 10.5)."""
        tick = self.factory.tick
        if tick > self._nuisance_at:
            since = tick - self._nuisance_at
            self._nuisances = min(_NUISANCES, self._nuisances + since * _NUISANCES_A_SECOND)
            self._nuisance_at = tick
        self._nuisances -= 1
        if self._nuisances < 0:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "Too many frames request nothing.")

    def update_received(self) -> None:
        if self._updates > 0:
            self._updates -= 1
        else:
            self.idle_frame_received()

    def goodbye_received(self, code: int) -> None:
        # It is the end of new requests only (RFC 9113 section 6.8).
        self._leaving = True
        if code != ErrorCode.NO_ERROR or not self.exchanges:
            self._end()

    def _send_on(self) -> None:
        """Send on the streams whose flow-control windows have grown."""
        widened, self._widened = self._widened, set()
        if 0 in widened:
            self._send_in_turn(list(self.exchanges.values()))
        else:
            self._send_in_turn([exchange for exchange in self.exchanges.values() if exchange.id in widened])

    def _send_in_turn(self, sending: list[Exchange]) -> None:
        """Send on some streams, one frame each in turn, until the slice of time is over."""
        while sending and not self.blocked and not self._ended:
            left = []
            for place, exchange in enumerate(sending, 1):
                if exchange.send_some():
                    left.append(exchange)
                if self._is_over():
                    self._widened.update(waiting.id for waiting in left + sending[place:])
                    self._wait_for_turn()
                    self._pass_on()
                    return
            sending = left
            self._pass_on()

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream, unless the client has done so."""
        self.engine.reset(stream_id, code)

    def done(self, exchange: Exchange) -> None:
        """Remove an exchange that is over."""
        self.exchanges.pop(exchange.id, None)

    def weigh(self, more: int) -> None:
        """Add to the size of the answers that wait; pause all streams at the limit."""
        before = self.waiting_bytes
        self.waiting_bytes += more
        if before <= _WAITING < self.waiting_bytes:
            self._crowded = True
            for exchange in list(self.exchanges.values()):
                exchange.pause()

    def refused(self) -> None:
        """End the connection if too many of its requests are refused because of a quota."""
        if self.caller.trusted:
            # Others have requests on this connection, too.
            return
        refusals = self._refusals = self._refusals or RefusalCounter()
        if refusals.add(self.factory.tick) and not self._is_flooding:
            self._is_flooding = True
            self._turns.add(self._end_flood)

    def _end_flood(self) -> None:
        if not self._ended:
            self._fail(Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "Too many requests over a quota."))

    def holds_back(self) -> bool:
        """Return whether so much waits that no more may be read; streams are resumed when there is less."""
        if self.waiting_bytes + self.reads * PIECE <= _WAITING:
            return False
        self._crowded = True
        return True

    def _let_on(self) -> None:
        """Resume paused streams while the connection's send buffer is below its limit."""
        self._crowded = False
        self._in_turn = True
        try:
            for exchange in list(self.exchanges.values()):
                if self.blocked or self.holds_back() or self._is_over():
                    self._crowded = True
                    return
                exchange.go_on()
        finally:
            self._in_turn = False

    def flush(self) -> None:
        """Send what the engine has queued, unless more follows in this turn."""
        if not self._in_turn:
            self._after()

    def _after(self) -> None:
        if self._ended:
            return
        while self._crowded and not self.blocked and not self.holds_back():
            if self._is_over():
                self._wait_for_turn()
                break
            self._let_on()
        self._pass_on()
        if self._leaving and not self.exchanges:
            self._end()
            return
        self._set_deadline()

    def _pass_on(self) -> None:
        data = self.engine.take_output()
        if not data:
            return
        self._turn_bytes = 0
        self.transport.write(data)

    def wrote(self, exchange: Exchange, size: int) -> None:
        """Record that an exchange has queued part of a body."""
        if self.exchanges.pop(exchange.id, None) is not None:
            # Next time it is the last. With a client that makes little room at a time others would wait forever.
            self.exchanges[exchange.id] = exchange
        self._turn_bytes += size
        self._updates += _UPDATES + size // _UPDATE_BYTES
        if self._turn_bytes >= _TURN_BYTES:
            self._pass_on()

    # Time

    def _set_deadline(self) -> None:
        if self.blocked:
            return
        if self.exchanges:
            # They are looked at once a second.
            self._rest_deadline = 0
            self.deadline = self.factory.tick + 1
            return
        if not self._rest_deadline:
            self._rest_deadline = self.factory.tick + self.factory.settings.idle_timeout
        self.deadline = self._rest_deadline

    def expire(self) -> None:
        """Expire the exchanges, or the connection, whose deadlines have passed."""
        tick = self.factory.tick
        if self._lingering:
            self._lingering = False
            self.deadline = tick + self.factory.settings.stall_timeout
            close_socket(self.transport)
            return
        if self._ended or self.blocked:
            self.transport.abortConnection()
            return
        for exchange in list(self.exchanges.values()):
            if 0 < exchange.deadline <= tick:
                exchange.expire()
        if not self.exchanges and not self._waits and 0 < self._rest_deadline <= tick:
            self.drain()
        else:
            self._after()

    def drain(self) -> None:
        """Send GOAWAY, and close after the exchanges that have begun."""
        if self._leaving or self._ended:
            return
        self._leaving = True
        self.engine.say_goodbye(ErrorCode.NO_ERROR)
        self.flush()

    def _end(self) -> None:
        """Close the connection when everything is sent."""
        if self._ended:
            return
        data = self.engine.take_output()
        if data:
            self.transport.write(data)
        self._ended = True
        self._waits = False
        for exchange in list(self.exchanges.values()):
            exchange.lost()
        self.exchanges.clear()
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        self.transport.loseConnection()
        self._lingering = True
        self.deadline = self.factory.tick + LINGER

    # The transport's producer

    def pauseProducing(self) -> None:
        """Stop sending and reading: the transport's buffer is full."""
        self.blocked = True
        self.transport.pauseProducing()
        self.deadline = self.factory.tick + self.factory.settings.stall_timeout

    def resumeProducing(self) -> None:
        """Continue to send and read: the transport's buffer is empty."""
        self.blocked = False
        if not self._waits:
            self.transport.resumeProducing()
        if not self._ended:
            self._slice_end = self._turns.seconds() + SLICE
            self._send_in_turn(list(self.exchanges.values()))
            self.flush()
            if self._waits:
                self._wait_for_turn()

    def stopProducing(self) -> None:
        """Do nothing: :meth:`connectionLost` follows."""
