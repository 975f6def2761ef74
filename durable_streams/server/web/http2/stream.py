"""One request and its answer on an HTTP/2 connection."""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import StreamsError, Unavailable
from ..admission import Admission, AdmittedRequest, BodyPace
from ..answers import Answer, AnswerBody
from ..bodies import PIECE
from ..callers import Caller
from ..connections import RATE_LIMITED, Connections
from ..incoming import IncomingBody
from ..problems import RequestTimeout
from ..requests import StreamRequest
from ..transports import Transport
from .engine import Engine
from .errors import ErrorCode
from .heads import Head

#: How many bodies of the largest size a connection may have coming in at a time.
_BODIES: Final = 2

#: How long, in seconds, what a refused client still sends is thrown away.
_LINGER: Final = 2

#: How much a client that has no room must make in the time it has for that, in bytes.
_STRIDE: Final = 65_536

#: An answer of no more than this is sent even if much waits already, in bytes.
_SMALL: Final = 4096

_log = Logger()


def _is_large(answer: Answer) -> bool:
    return isinstance(answer.body, bytes) and len(answer.body) > _SMALL


class ExchangeOwner(Protocol):
    """
    The connection of an exchange.

    :ivar blocked: whether the connection's send buffer is full.
    :ivar body_bytes: the size of all request bodies that are being received.
    :ivar reads: how many answers are being read from streams.
    """

    factory: Connections
    transport: Transport
    caller: Caller
    admission: Admission
    engine: Engine
    blocked: bool
    body_bytes: int
    reads: int

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Reset an HTTP/2 stream."""

    def done(self, exchange: Exchange) -> None:
        """Remove an exchange that is over."""

    def weigh(self, more: int) -> None:
        """Add to the size of the answers that wait to be sent; ``more`` may be negative."""

    def holds_back(self) -> bool:
        """Return whether so much waits to be sent that no more may be read."""

    def flush(self) -> None:
        """Send what the engine has queued, unless more follows in this turn."""

    def refused(self) -> None:
        """Record that a request was refused because of a quota."""

    def wrote(self, exchange: Exchange, size: int) -> None:
        """Record that an exchange has queued part of a body."""


class Exchange:
    """
    A request and its answer on an HTTP/2 stream; the sink of the answer's body.

    :ivar is_whole: the client has sent all of the request.
    :ivar is_receiving: the request is not complete and not refused.
    :ivar deadline: the factory's tick from which :meth:`expire` is called; 0 for none.
    """

    __slots__ = (
        "_answering",
        "_asked",
        "_awaited",
        "_began_at",
        "_body",
        "_channel",
        "_checking",
        "_fields",
        "_finished",
        "_forwarded",
        "_held",
        "_incoming",
        "_incoming_wanted",
        "_kept",
        "_method",
        "_over",
        "_pace",
        "_paused",
        "_paying",
        "_pieces",
        "_place",
        "_reading",
        "_streaming",
        "_taken",
        "_target",
        "_unacknowledged",
        "deadline",
        "id",
        "is_receiving",
        "is_whole",
    )

    def __init__(self, channel: ExchangeOwner, stream_id: int) -> None:
        self.id = stream_id
        self.is_receiving = True
        self.is_whole = False
        self.deadline = 0
        self._channel = channel
        # The client for which the body is counted.
        self._paying = channel.caller
        self._method = b""
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._forwarded = False
        self._body = bytearray()
        # The body, if a page receives it while it arrives; whether the page reads it now; and how much of the client's
        # flow-control window it has used that is not given back.
        self._incoming: IncomingBody | None = None
        self._incoming_wanted = False
        self._unacknowledged = 0
        self._asked: AdmittedRequest | None = None
        self._began_at = 0.0
        self._pace: BodyPace | None = None
        self._awaited: Deferred[Answer] | None = None
        # The check whether the request is allowed, while it is not complete, if that takes time.
        self._checking: Deferred[Answer | None] | None = None
        self._streaming: AnswerBody | None = None
        # Whether it waits for the answers of others to leave, and whether a read of a stream is on its way for it
        self._held = False
        self._reading = False
        # Of the answer: whether it has begun, what waits for room, how much of the first of that is sent, how many
        # bytes that keeps, whether it is all, and whether its body was told to wait
        self._answering = False
        self._pieces: deque[bytes] = deque()
        self._place = 0
        self._kept = 0
        self._finished = False
        self._paused = False
        # How much the client has taken since it was given its time.
        self._taken = 0
        self._over = False

    # The request

    def begin(self, head: Head, is_whole: bool) -> None:
        """Read the head of the request."""
        self.is_whole = is_whole
        self._method = head.method
        self._target = head.target
        channel = self._channel
        self._fields = channel.admission.proxies.keep(head.fields, channel.caller)
        self._forwarded = len(self._fields) < len(head.fields)
        factory = channel.factory
        try:
            self._check_head(head.size)
            if not channel.admission.is_stream(self._target) and factory.pages.streams_body(self._method, self._target):
                self._incoming = IncomingBody(self, head.length)
            elif head.length:
                channel.admission.check_body_size(head.length)
        except StreamsError as error:
            self._refuse(error)
            return
        if self._incoming is not None:
            self._perform_page(self._incoming)
            return
        if not is_whole:
            if self._paying.trusted:
                self._paying = self._read_head()[1]
            if self._refuse_early(head.length or 0):
                return
            self._set_reading_deadline()
            if self._checking is None and self._expects_continue():
                self._send_continue()

    def _refuse_early(self, length: int) -> bool:
        """
        Refuse a request for a stream whose body has not arrived, if it is not allowed or there is no room for it.

        :param length: the size of the body, in bytes, as far as it is known.
        :returns: whether it is refused.
        """
        admission = self._channel.admission
        try:
            admission.incoming.check(length, self._paying)
        except StreamsError as error:
            self._refuse(error)
            return True
        gate = self._channel.factory.operations.gate
        if gate is None or not admission.is_stream(self._target):
            return False
        headers, caller, refusal = self._read_head()
        if refusal is not None:
            # It is answered when the request is complete, as without a gate.
            return False
        request = admission.stream_request(self._method, self._target, headers, b"", caller, "2")
        answer = gate.early(request, length > 0)
        if isinstance(answer, Deferred):
            self._checking = answer
            answer.addCallback(self._checked, request)
            return False
        if answer is None:
            return False
        self._asked = request
        self._refuse_with(answer)
        return True

    def _checked(self, answer: Answer | None, request: StreamRequest) -> None:
        """Refuse the request, or let the client send its body: the check has ended."""
        if self._checking is None:
            return
        self._checking = None
        if answer is not None:
            self._asked = request
            self._refuse_with(answer)
        elif self._expects_continue():
            self._send_continue()
            self._channel.flush()

    def _end_check(self) -> None:
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()

    def _check_head(self, size: int) -> None:
        """
        Check the method, the target and the sizes of the head.

        :raises StreamsError: the request is refused.
        """
        admission = self._channel.admission
        admission.check_target_size(self._target)
        admission.check_head_size(size)
        admission.check_line(self._method, self._target)

    def _expects_continue(self) -> bool:
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in self._fields)

    def _set_reading_deadline(self) -> None:
        factory = self._channel.factory
        timeout = factory.settings.body_timeout
        if self._incoming is not None:
            # Its rate is up to the page that receives it.
            self.deadline = factory.tick + timeout
            return
        pace = self._pace = self._pace or BodyPace()
        rate = self._channel.admission.limits.body_rate
        self.deadline = pace.deadline(factory.tick, len(self._body), timeout, rate)

    def received(self, data: bytes) -> None:
        """Buffer a piece of the request's body."""
        channel = self._channel
        try:
            channel.admission.incoming.add(len(data), self._paying)
            self._body += data
            channel.body_bytes += len(data)
            channel.admission.check_body_size(len(self._body))
        except StreamsError as error:
            self._refuse(error)
            return
        if channel.body_bytes > _BODIES * channel.admission.limits.body_bytes:
            self._refuse(Unavailable("This connection has too many bodies on their way at a time. Send it again."))
            return
        if data:
            self._set_reading_deadline()

    def ended(self) -> None:
        """Perform the request, which is complete."""
        self.is_whole = True
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self.is_receiving = self._incoming_wanted = False
            if not self._answering:
                self.deadline = 0
            incoming.ended()
        elif self.is_receiving:
            self._perform()
            # Only now: to cancel it would cancel the check for the request itself, too.
            self._end_check()
        elif self._over:
            self._channel.done(self)

    # A body that a page receives while it arrives

    @property
    def is_streaming(self) -> bool:
        """Whether :meth:`received_piece` takes what arrives of the body."""
        return self._incoming is not None and not self._over

    def received_piece(self, data: bytes, size: int) -> None:
        """
        Pass on a piece of the body.

        :param size: how much of the flow-control window it has used. It is given back when the page has taken it.
        """
        assert self._incoming is not None
        self._unacknowledged += size
        if self._incoming_wanted and not self._answering:
            self._set_reading_deadline()
        self._incoming.received(data)
        if self._incoming_wanted:
            self._acknowledge()

    def pause_body(self) -> None:
        """Let the client use up the flow-control window."""
        self._incoming_wanted = False
        if not self._answering:
            self.deadline = 0

    def resume_body(self) -> None:
        """Let the client send on."""
        if self._incoming_wanted or self._over:
            return
        self._incoming_wanted = True
        if not self._answering:
            self._set_reading_deadline()
            if not self._unacknowledged and self._expects_continue():
                self._send_continue()
        self._acknowledge()
        self._channel.flush()

    def _acknowledge(self) -> None:
        size, self._unacknowledged = self._unacknowledged, 0
        if size:
            self._channel.engine.acknowledge(self.id, size)

    def _fail_body(self, failure: Failure) -> None:
        """Fail the body that is arriving."""
        incoming, self._incoming = self._incoming, None
        self._incoming_wanted = self.is_receiving = False
        if incoming is not None:
            incoming.fail(failure)

    # The request is performed

    def _perform(self) -> None:
        self.is_receiving = False
        self.deadline = 0
        self._held = self._method == b"GET" and self._channel.holds_back()
        if self._held:
            return
        body = self._take_body(dropped=False)
        if not self._channel.admission.is_stream(self._target):
            self._perform_page(body)
            return
        self._began_at = perf_counter()
        operations = self._channel.factory.operations
        headers, caller, refusal = self._read_head()
        request = self._channel.admission.stream_request(self._method, self._target, headers, body, caller, "2")
        self._asked = request
        if refusal is not None:
            self._answer(operations.answers.error(request, refusal, self._origin))
            return
        answer = operations.perform(request)
        if isinstance(answer, Deferred):
            self._wait_for(answer)
        else:
            self._answer(answer)

    def _perform_page(self, body: bytes | IncomingBody) -> None:
        self._began_at = perf_counter()
        factory = self._channel.factory
        _, caller, refusal = self._read_head()
        page = self._channel.admission.page_request(
            self._method, self._target, self._fields, body, caller, "2", self._forwarded
        )
        self._asked = page
        if refusal is not None:
            self._answer(factory.operations.answers.error(None, refusal, self._origin))
        else:
            self._wait_for(factory.pages.perform(page))

    def _read_head(self) -> tuple[dict[bytes, bytes], Caller, StreamsError | None]:
        """Return the headers that are read, the caller, and why the request is refused, if it is."""
        admission, caller = self._channel.admission, self._channel.caller
        headers: dict[bytes, bytes] = {}
        try:
            headers = admission.read(self._fields)
            admission.check_host(headers.get(b"host"))
            caller = admission.identify(caller, headers)
        except StreamsError as error:
            return headers, caller, error
        return headers, caller, None

    def _take_body(self, dropped: bool = True) -> bytes:
        """
        Return what has arrived of the body, which is not kept any more.

        :param dropped: whether the request will not be performed.
        """
        body = bytes(self._body)
        self._body = bytearray()
        self._channel.body_bytes -= len(body)
        self._channel.admission.incoming.remove(len(body), self._paying, dropped)
        return body

    def _refuse(self, error: StreamsError) -> None:
        """Refuse the request before it is complete; the rest of it is discarded."""
        self._refuse_with(self._channel.factory.operations.answers.error(None, error, self._origin))

    def _refuse_with(self, answer: Answer) -> None:
        self._end_check()
        self.is_receiving = False
        self.deadline = 0
        self._take_body()
        self._began_at = perf_counter()
        self._answer(answer)

    @property
    def _origin(self) -> bytes | None:
        """The Origin of the request."""
        return next((value for name, value in self._fields if name == b"origin"), None)

    # The answer

    def _wait_for(self, answer: Deferred[Answer]) -> None:
        self._awaited = answer
        asked = self._asked
        if self._method == b"GET" and not (isinstance(asked, StreamRequest) and asked.is_live):
            self._reading = True
            self._channel.reads += 1
        answer.addCallbacks(self._answer_awaited, self._not_answered)

    def _answer_awaited(self, answer: Answer) -> None:
        self._awaited = None
        if self._reading:
            self._end_read()
        elif self._method == b"GET" and _is_large(answer) and self._channel.holds_back():
            # It waited for what would come, for which nobody could keep room.
            error = Unavailable("This connection has too many answers that wait to be read. Ask again.")
            answer = self._channel.factory.operations.answers.error(None, error, self._origin)
        self._answer(answer)

    def _end_read(self) -> None:
        if self._reading:
            self._reading = False
            self._channel.reads -= 1

    def _not_answered(self, failure: Failure) -> None:
        self._awaited = None
        self._end_read()
        if not failure.check(CancelledError):
            _log.failure("Answering a request failed.", failure=failure)
            self.abort()

    def _answer(self, answer: Answer) -> None:
        if self._over:
            if not isinstance(answer.body, bytes):
                answer.body.stopProducing()
            return
        channel = self._channel
        factory = channel.factory
        engine = channel.engine
        framer = factory.framer
        body = answer.body
        identity, length = framer.identify(answer, self._asked or channel.caller, self._began_at)
        block = engine.encoder.encode(answer.status, answer.head, framer.date_line, identity, length)
        self._answering = True
        if answer.status == RATE_LIMITED:
            channel.refused()
        # That of a body that a page still receives.
        self.deadline = 0
        if isinstance(body, bytes):
            if not body or self._method == b"HEAD":
                engine.send_head(self.id, block, True)
                self._close()
                channel.flush()
                return
            engine.send_head(self.id, block, False)
            if not channel.blocked and len(body) <= engine.room(self.id):
                # As send_some does it, but nothing has to be kept.
                engine.send_data(self.id, body, True)
                self._close()
                channel.wrote(self, len(body))
                channel.flush()
                return
            self._keep(body)
            self._finished = True
            self.send_on()
            return
        engine.send_head(self.id, block, False)
        self._streaming = body
        if channel.blocked or channel.holds_back():
            self.pause()
        body.start(self)
        channel.flush()

    def _send_continue(self) -> None:
        engine = self._channel.engine
        engine.send_head(self.id, engine.encoder.encode_interim(100), False)

    def send_on(self) -> None:
        """Send queued data as far as the flow-control windows allow."""
        while not self._channel.blocked and self.send_some():
            pass
        self._channel.flush()

    def send_some(self) -> bool:
        """Send one frame of queued data, and return whether another one can be sent."""
        if self._over or not self._answering:
            return False
        engine = self._channel.engine
        pieces = self._pieces
        if not pieces:
            if self._finished:
                engine.send_data(self.id, b"", True)
                self._close()
            else:
                self._catch_up()
            return False
        room = engine.room(self.id)
        if room <= 0:
            self._fall_behind()
            return False
        piece, place = pieces[0], self._place
        size = min(room, len(piece) - place)
        is_last = self._finished and len(pieces) == 1 and place + size == len(piece)
        engine.send_data(self.id, memoryview(piece)[place : place + size], is_last)
        self._taken += size
        self._place += size
        if self._place == len(piece):
            self._place = 0
            self._weigh(-len(pieces.popleft()))
        if is_last:
            self._close()
        elif not pieces:
            self._catch_up()
        elif self.deadline:
            self._fall_behind()
        self._channel.wrote(self, size)
        return bool(pieces)

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._weigh(len(piece))

    def _weigh(self, more: int) -> None:
        """
        Record a change of the size of queued data.

        What is sent of a piece is still kept with the rest of it. And what is larger than a piece of a stream is one
        large message, which readers share, and counts as one piece, so that others can have their answers beside it.
        """
        before = min(self._kept, PIECE)
        self._kept += more
        self._channel.weigh(min(self._kept, PIECE) - before)

    def go_on(self) -> None:
        """Continue: the connection has room for more answers."""
        if self._held:
            self._perform()
        else:
            self.send_on()

    def _fall_behind(self) -> None:
        """Pause, and set the deadline for the client to make room, once for each stride."""
        if not self.deadline or self._taken >= _STRIDE:
            factory = self._channel.factory
            self.deadline = factory.tick + factory.settings.stall_timeout
            self._taken = 0
        self.pause()

    def pause(self) -> None:
        """Pause the answer's body."""
        if not self._paused and self._streaming is not None:
            self._paused = True
            self._channel.factory.pauses += 1
            self._streaming.pauseProducing()

    def _catch_up(self) -> None:
        self.deadline = 0
        if self._paused and self._streaming is not None and not self._channel.holds_back():
            self._paused = False
            self._streaming.resumeProducing()

    # The sink of an answer's body

    def write(self, data: bytes) -> None:
        if self._over:
            return
        if data:
            self._keep(data)
        if self._channel.blocked:
            self.pause()
        else:
            self.send_on()

    def finish(self) -> None:
        self._streaming = None
        self._finished = True
        if not self._channel.blocked:
            self.send_on()

    def abort(self) -> None:
        """Reset the stream: the answer cannot be completed."""
        self._reset(ErrorCode.INTERNAL_ERROR)

    # Its end

    def expire(self) -> None:
        """Refuse or reset the request: its deadline has passed."""
        if self._over:
            self._channel.done(self)
            self._channel.reset(self.id, ErrorCode.NO_ERROR)
        elif self._incoming is not None and not self._answering:
            self.deadline = self._channel.factory.tick + self._channel.factory.settings.stall_timeout
            self._fail_body(Failure(RequestTimeout("The request did not arrive in time.")))
        elif self.is_receiving and not self._answering:
            self._refuse(RequestTimeout("The request did not arrive in time."))
        else:
            self._reset(ErrorCode.CANCEL)

    def _reset(self, code: ErrorCode) -> None:
        if self._over:
            return
        self.lost()
        self._channel.done(self)
        self._channel.reset(self.id, code)
        self._channel.flush()

    def _close(self) -> None:
        """End the exchange: the answer is sent, or the client has reset the stream."""
        self.lost()
        if self.is_whole:
            self._channel.done(self)
        else:
            # It was refused before it was complete. There are clients that see no answer beside a reset, so they are
            # left some time to stop.
            self.deadline = self._channel.factory.tick + _LINGER

    def lost(self) -> None:
        """Release everything: the client has reset the stream or is gone."""
        if self._over:
            return
        self._over = True
        self.is_receiving = False
        self._end_check()
        if self._body:
            self._take_body()
        if self._kept:
            self._pieces.clear()
            self._weigh(-self._kept)
        self._held = False
        if self._reading:
            self._end_read()
        if self._awaited is not None:
            self._awaited.cancel()
        if self._streaming is not None:
            streaming, self._streaming = self._streaming, None
            streaming.stopProducing()
        if self._incoming is not None:
            self._fail_body(Failure(ConnectionDone()))
        if self._unacknowledged:
            self._acknowledge()
