"""HTTP/1.1 connections of the daemon, without twisted.web."""

from __future__ import annotations

from time import perf_counter
from typing import Final, TypeAlias

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import StreamsError
from ...model import FileRange
from ...run_queue import SLICE
from ..admission import AdmittedRequest, BodyPace
from ..answers import Answer, AnswerBody
from ..callers import Caller, caller_on
from ..connections import RATE_LIMITED, Connections, RefusalCounter
from ..incoming import IncomingBody
from ..pages import PageRequest
from ..problems import BadFraming, RequestTimeout
from ..requests import StreamRequest
from ..transports import LINGER, MAX_DISCARDED, MAX_DISCARDED_PLAIN, Transport, close_socket
from ..wire import CHUNKED, CLOSE, CONTINUE, KEEP_ALIVE, LAST_CHUNK
from .intake import Intake
from .outlet import Outlet

#: From how many bytes on a chunk is not copied to be framed.
_LARGE: Final = 16_384

#: How much of a body is read, in bytes, while the answer to an earlier request is not sent.
_AHEAD: Final = 65_536

#: Requests that change nothing.
_READS: Final = frozenset([b"GET", b"HEAD"])


class _Refusal(Struct, frozen=True):
    """
    The answer to a request that was refused before it had arrived.

    :ivar asked: the request; the caller, if it was not read.
    """

    answer: Answer
    asked: StreamRequest | Caller


#: What stands in the queue: a request or the refusal of one, whether the connection lives on after it, and whether it
#: is HTTP/1.0.
_Turn: TypeAlias = "tuple[AdmittedRequest | _Refusal, bool, bool]"


_log = Logger()


@implementer(IHalfCloseableProtocol)
class StreamChannel(Protocol):
    """
    A connection: an :class:`.Intake`, an :class:`.Outlet`, and the queue of requests between them.

    Requests are answered in the order in which they came. What can be answered at once is, before the next one of the
    same packet is parsed; what takes its time makes the ones behind it wait in a queue, and while there is a queue
    nothing more is read. Requests of one packet are answered for :data:`.SLICE`; then the rest of the packet waits for
    the connection's next turn in the run queue.

    A client may shut down its sending half after its last request. Whole requests that came before that are answered;
    live reads end at once, since most of these clients have closed the connection.

    :ivar deadline: the factory's tick at which the connection has had its time; 0 while it has all the time.
    :ivar writes: whether its last request was one that changes something.
    """

    __slots__ = (
        "_all_sent",
        "_awaited",
        "_awaiting",
        "_busy",
        "_caller",
        "_checking",
        "_chunked",
        "_continue_due",
        "_discarded",
        "_ending",
        "_frame",
        "_holds",
        "_incoming",
        "_incoming_continue",
        "_incoming_wanted",
        "_intake",
        "_lingering",
        "_lives_on",
        "_outlet",
        "_paused",
        "_perform",
        "_place",
        "_queue",
        "_refusals",
        "_rest",
        "_scheduled",
        "_seconds",
        "_slice_end",
        "_slow",
        "_streaming",
        "_taking_turns",
        "_turns",
        "_write",
        "connected",
        "deadline",
        "factory",
        "transport",
        "writes",
    )

    factory: Connections
    transport: Transport  # type: ignore[assignment]

    def __init__(self, factory: Connections) -> None:
        self.factory = factory
        self.connected = 0
        self.deadline = 0
        self.writes = False
        self._perform = factory.operations.perform
        self._frame = factory.framer.http1
        self._caller: Caller
        self._intake: Intake
        # A list, since an empty deque takes 760 bytes.
        self._queue: list[_Turn] = []
        # What of a packet is not parsed yet, from which place on.
        self._rest = b""
        self._place = 0
        self._paused = False
        # The answer that takes its time: busy with it, waiting for it, streaming its body
        self._busy = False
        self._awaited: Deferred[Answer] | None = None
        self._awaiting: AdmittedRequest | None = None
        self._streaming: AnswerBody | None = None
        self._chunked = False
        # The body that is arriving for a page, while it has not arrived whole; whether the page reads it now, and
        # whether the client waits for 100 Continue before it sends it.
        self._incoming: IncomingBody | None = None
        self._incoming_wanted = False
        self._incoming_continue = False
        self._continue_due = False
        # The check whether the request that is being read is allowed, if that takes time.
        self._checking: Deferred[Answer | None] | None = None
        self._lives_on = True
        self._refusals: RefusalCounter | None = None
        self._taking_turns = False
        # When the slice of time of this turn ends, by the run queue's clock; None before the first request of a packet,
        # 0 after that. And whether the next turn is queued.
        self._turns = factory.operations.streams.turns
        self._seconds = self._turns.seconds
        self._slice_end: float | None = None
        self._scheduled = False
        self._ending = False
        # Whether the client is only read until it has had the time to read the end, and how much came since.
        self._lingering = False
        self._discarded = 0
        self._slow = False
        # The client has shut down its sending half.
        self._all_sent = False

    # The connection

    def connectionMade(self) -> None:
        self._caller = caller_on(self.transport, self.factory.operations.proxies.trusts)
        self._intake = Intake(self.factory.heads(self._caller), self, self._caller)
        self._outlet = Outlet(self.transport, self)
        self._write = self._outlet.write
        self._holds = self._outlet.direct and hasattr(self.transport, "hold")
        self.deadline = self.factory.tick + self.factory.settings.header_timeout
        self.factory.joined(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.left(self)
        self._ending = True
        self._intake.close()
        self._queue.clear()
        self._rest = b""
        self._outlet.close()
        if self._awaited is not None:
            self._awaited.cancel()
        if self._streaming is not None:
            self._streaming.stopProducing()
            self._streaming = None
        self._end_check()
        self._fail_body(reason)

    def readConnectionLost(self) -> None:
        """Answer the requests that are complete, then close: the client has shut down its sending half."""
        self._all_sent = True
        # What has arrived of a request that is not complete.
        self._intake.close()
        self._continue_due = False
        self._end_check()
        if self._lingering:
            self._lingering = False
            self.transport.loseConnection()
        elif self._queue:
            last, _, old = self._queue[-1]
            self._queue[-1] = (last, False, old)
        elif self._busy:
            self._lives_on = False
        elif not self._ending:
            self._end()
        self._end_live_read()
        self._fail_body(Failure(BadFraming("The connection ended before the body did.")))

    def writeConnectionLost(self) -> None:
        """Do nothing: :meth:`_hang_up` has shut down the sending half."""

    def _end_live_read(self) -> None:
        """End a live read that is being answered."""
        streaming, awaiting = self._streaming, self._awaiting
        if streaming is not None:
            if streaming.length is None:
                streaming.stopProducing()
                self.finish()
        elif self._awaited is not None and isinstance(awaiting, StreamRequest) and awaiting.is_live:
            self._awaited.cancel()

    def dataReceived(self, data: bytes) -> None:
        intake = self._intake
        if intake.deaf:
            if self._lingering:
                self._discard(len(data))
            return
        if self._paused:
            # Over TLS, all that came in one packet does.
            self._rest = self._rest[self._place :] + data
            self._place = 0
            return
        if self._holds and (len(data) > _LARGE or intake.unfinished):
            # This may take a while.
            self.transport.send_held()
        self._outlet.gather()
        self._slice_end = None
        taken = intake.feed(data)
        if taken < len(data) and not intake.deaf:
            self._rest = data
            self._place = taken
            if not self._queue:
                self._next()
        elif self._holds and not (self._busy or self._queue or self._rest or self._ending or intake.unfinished):
            self.transport.hold(self._outlet.flush)
            return
        self._outlet.flush()
        ahead = False
        if intake.unfinished:
            if not self._busy or self._incoming_wanted:
                self._set_reading_deadline()
            else:
                # It has no deadline before the answer ahead of it is sent.
                ahead = (intake.body_size or 0) > _AHEAD
        if (self._queue or self._rest or ahead) and not self._ending:
            if not self._paused:
                self._paused = True
                self.transport.pauseProducing()
            self._wait_for_turn()

    def _discard(self, size: int) -> None:
        """Discard bytes that arrive after the last request; stop reading after the maximum."""
        self._discarded += size
        if self._discarded > (MAX_DISCARDED_PLAIN if self._outlet.direct else MAX_DISCARDED):
            self.transport.pauseProducing()

    def _feed_rest(self) -> None:
        data = self._rest[self._place :] if self._place else self._rest
        taken = self._intake.feed(data)
        if taken < len(data) and not self._intake.deaf:
            self._rest, self._place = data, taken
        else:
            self._rest, self._place = b"", 0
            if self._intake.unfinished and (not self._busy or self._incoming_wanted):
                self._set_reading_deadline()

    def _set_reading_deadline(self) -> None:
        settings = self.factory.settings
        intake, tick = self._intake, self.factory.tick
        if self._incoming_wanted and self._outlet.behind:
            # The client does not read the answer; until it does, its stall time-out counts.
            return
        if intake.in_body:
            size = intake.body_size
            if size is None:
                # Its rate is up to the page that receives it.
                self.deadline = tick + settings.body_timeout
                return
            pace = intake.pace = intake.pace or BodyPace()
            self.deadline = pace.deadline(tick, size, settings.body_timeout, intake.admission.limits.body_rate)
        elif not self._intake.timed:
            self._intake.timed = True
            self.deadline = self.factory.tick + settings.header_timeout

    def expire(self) -> None:
        """Close the connection, or refuse the request that is being read: its deadline has passed."""
        if self._scheduled:
            # What the client has sent waits for the server.
            self.deadline = self.factory.tick + 1
        elif self._lingering:
            self._lingering = False
            self.deadline = self.factory.tick + self.factory.settings.stall_timeout
            close_socket(self.transport)
        elif self._incoming_wanted and not self._outlet.behind:
            self._intake.deaf = True
            self.deadline = self.factory.tick + self.factory.settings.stall_timeout
            self._fail_body(Failure(RequestTimeout("The request did not arrive in time.")))
        elif self._busy or self._ending or self._outlet.behind:
            self.transport.abortConnection()
        elif self._intake.unfinished:
            self._intake.deaf = True
            self.refused(RequestTimeout("The request did not arrive in time."))
        else:
            self._end()

    def drain(self) -> None:
        """Close the connection after the current answer."""
        self._lives_on = False
        if not (self._busy or self._queue or self._rest or self._ending or self._intake.unfinished):
            self._end()

    # The intake's owner

    def asked(self, request: AdmittedRequest, lives_on: bool, old: bool) -> None:
        if self._ending:
            return
        # A client that has sent its body does not wait for 100 Continue.
        self._continue_due = False
        self.writes = request.method not in _READS
        if self._busy or self._queue or self._outlet.behind:
            self._queue.append((request, lives_on, old))
        elif self._slice_end is None:
            # Most packets have one request: to look at the time for it costs 1 % of an append.
            self._slice_end = 0.0
            self._answer(request, lives_on, old)
        elif self._is_over():
            self._queue.append((request, lives_on, old))
        else:
            self._answer(request, lives_on, old)
        if self._checking is not None:
            # Only now: to cancel it would cancel the check for the request itself, too.
            self._end_check()

    def streams_body(self, method: bytes, target: bytes) -> bool:
        return self.factory.pages.streams_body(method, target)

    def body_begins(self, length: int | None, expects_continue: bool) -> IncomingBody:
        self._incoming = IncomingBody(self, length)
        self._incoming_continue = expects_continue
        return self._incoming

    def body_ended(self) -> None:
        incoming, self._incoming = self._incoming, None
        self._incoming_wanted = False
        if self._busy and not self._outlet.behind:
            self.deadline = 0
        if incoming is not None:
            incoming.ended()

    def refused(self, error: StreamsError) -> None:
        if self._incoming is not None:
            self._fail_body(Failure(error))
            return
        self._refuse(_Refusal(self.factory.operations.answers.error(None, error, self._intake.origin), self._caller))

    def refused_early(self, request: StreamRequest, has_body: bool) -> bool:
        gate = self.factory.operations.gate
        answer = None if gate is None else gate.early(request, has_body)
        if isinstance(answer, Deferred):
            self._checking = answer
            answer.addCallback(self._checked, request)
            return False
        if answer is None:
            return False
        self._refuse(_Refusal(answer, request))
        return True

    def _checked(self, answer: Answer | None, request: StreamRequest) -> None:
        """Refuse the request that is being read, or let the client send its body: the check has ended."""
        if self._checking is None:
            return
        self._checking = None
        if answer is not None:
            self._intake.drop()
            self._refuse(_Refusal(answer, request))
        elif self._continue_due and not (self._busy or self._queue):
            self._continue_due = False
            self._write(CONTINUE)

    def _end_check(self) -> None:
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()

    def _refuse(self, refusal: _Refusal) -> None:
        self._end_check()
        if refusal.answer.status == RATE_LIMITED:
            # A client over its quota may not send as much in vain as others.
            self._discarded = MAX_DISCARDED_PLAIN - MAX_DISCARDED
        if self._busy or self._queue:
            self._queue.append((refusal, False, False))
        elif not self._ending:
            self._answer(refusal, False, False)

    def expects_continue(self) -> None:
        if self._busy or self._queue or self._checking is not None:
            self._continue_due = True
        else:
            self._write(CONTINUE)

    # The body of a request for a page that receives it while it arrives

    def pause_body(self) -> None:
        """Pause reading from the socket: the page has paused, or earlier requests are not answered yet."""
        self._incoming_wanted = False
        if self._busy and not self._outlet.behind:
            self.deadline = 0
        if not self._paused and not self._ending:
            self._paused = True
            self.transport.pauseProducing()

    def resume_body(self) -> None:
        """Resume reading the body from the socket."""
        if self._incoming_wanted:
            return
        self._incoming_wanted = True
        if self._incoming_continue:
            self._incoming_continue = False
            self._write(CONTINUE)
        self._set_reading_deadline()
        if self._paused:
            self._wait_for_turn()

    def _fail_body(self, failure: Failure) -> None:
        """Fail the body that is arriving, and close the connection after the answer."""
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return
        self._incoming_wanted = False
        if self._queue:
            # It is the last request of the connection.
            last, _, old = self._queue[-1]
            self._queue[-1] = (last, False, old)
        else:
            self._lives_on = False
        incoming.fail(failure)

    # Turns

    def _answer(self, asked: AdmittedRequest | _Refusal, lives_on: bool, old: bool) -> None:
        self._lives_on = lives_on and self.factory.keeps_connections
        began_at = perf_counter()
        if isinstance(asked, StreamRequest):
            answer = self._perform(asked)
        elif isinstance(asked, _Refusal):
            self._send(asked.answer, asked.asked, old, began_at)
            return
        else:
            answer = self.factory.pages.perform(asked)
        if isinstance(answer, Answer):
            self._send(answer, asked, old, began_at)
        else:
            self._begin()
            self._awaited = answer
            self._awaiting = asked
            if self._incoming_wanted:
                self._set_reading_deadline()
            answer.addCallbacks(self._send_awaited, self._not_answered, (asked, old, began_at))
            if self._all_sent:
                self._end_live_read()

    def _begin(self) -> None:
        self._busy = True
        self.deadline = 0

    def _send_awaited(self, answer: Answer, asked: AdmittedRequest, old: bool, began_at: float) -> None:
        self._awaited = self._awaiting = None
        if not self._ending:
            self._lives_on = self._lives_on and self.factory.keeps_connections
            if self._incoming is not None and isinstance(asked, PageRequest) and asked.incoming is self._incoming:
                # The page has not read all of the body.
                self._lives_on = False
            self._send(answer, asked, old, began_at)
        elif not isinstance(answer.body, bytes):
            answer.body.stopProducing()

    def _not_answered(self, failure: Failure) -> None:
        self._awaited = self._awaiting = None
        if not failure.check(CancelledError):
            _log.failure("Answering a request failed.", failure=failure)
            self.transport.abortConnection()

    def _send(self, answer: Answer, asked: AdmittedRequest | Caller, old: bool, began_at: float) -> None:
        if answer.status == RATE_LIMITED and not self._caller.trusted:
            refusals = self._refusals = self._refusals or RefusalCounter()
            if refusals.add(self.factory.tick):
                # To serve a flood of refusals on one connection costs more than to have the client open others.
                self._lives_on = False
        if not self._lives_on:
            connection = CLOSE
        elif old:
            connection = KEEP_ALIVE
        else:
            connection = b""
        body = answer.body
        if isinstance(body, bytes):
            self._write(self._frame(answer, asked, began_at, connection))
            self._answered()
            return
        self._chunked = False
        if self._incoming_continue and isinstance(asked, PageRequest) and asked.incoming is self._incoming:
            # It would come in the middle of the answer.
            self._incoming_continue = False
        if body.length is None:
            if old:
                connection = CLOSE
                self._lives_on = False
            else:
                self._chunked = True
                connection += CHUNKED
        self._begin()
        self._write(self._frame(answer, asked, began_at, connection))
        self._streaming = body
        if body.length is None:
            self._intake.rest()
        if self._outlet.behind:
            body.pauseProducing()
        body.start(self)
        if self._all_sent:
            self._end_live_read()

    def _answered(self) -> None:
        """Continue with the next request, or close: an answer is written."""
        self._busy = False
        if not self._lives_on:
            self._end()
            return
        if not self._outlet.behind:
            self.deadline = self.factory.tick + self.factory.settings.idle_timeout
        if self._queue or self._continue_due or self._paused:
            self._next()

    def _next(self) -> None:
        """Answer queued requests for a slice of time; resume reading if none is left."""
        if self._taking_turns:
            # The outer loop continues.
            return
        self._taking_turns = True
        self._slice_end = self._seconds() + SLICE
        while (self._queue or self._rest) and self._can_go_on():
            if self._queue:
                self._answer(*self._queue.pop(0))
            else:
                self._feed_rest()
            if self._is_over():
                break
        self._taking_turns = False
        if self._ending:
            return
        if self._queue or self._rest:
            self._wait_for_turn()
            return
        if self._continue_due and not self._busy and self._checking is None:
            self._continue_due = False
            self._write(CONTINUE)
        if self._paused and (self._incoming is None or self._incoming_wanted):
            self._paused = False
            self.transport.resumeProducing()

    def _can_go_on(self) -> bool:
        """Return whether the next request may be answered, or more of a body that a page receives be read."""
        if self._incoming_wanted:
            return not self._ending
        return not self._busy and not self._ending and not self._outlet.behind

    def _is_over(self) -> bool:
        """Return whether the slice of time of this turn is used up. It begins with the second request of a packet."""
        now = self._seconds()
        if not self._slice_end:
            self._slice_end = now + SLICE
        return now >= self._slice_end

    def _wait_for_turn(self) -> None:
        """Queue for another slice of time, unless the end of an answer or the client resumes this connection."""
        if not self._scheduled and self._can_go_on():
            self._scheduled = True
            self._turns.add(self._take_turn)

    def _take_turn(self) -> None:
        self._scheduled = False
        if self._ending or (self._busy and not self._incoming_wanted):
            return
        self._outlet.gather()
        try:
            self._next()
        except Exception:
            _log.failure("Answering a request failed.")
            self.transport.abortConnection()
        self._outlet.flush()

    def _end(self) -> None:
        """Close the connection when everything is sent; a client that is still sending is given time to read it."""
        self._ending = True
        if self._incoming is not None:
            self._intake.deaf = True
            self._fail_body(Failure(ConnectionDone()))
        self._queue.clear()
        self._rest = b""
        self._outlet.finish(self._hang_up)

    def _hang_up(self) -> None:
        still_sending = (self._intake.deaf or self._paused) and not self._all_sent
        self._intake.deaf = True
        if self._paused:
            self.transport.resumeProducing()
        if self._outlet.direct and not still_sending:
            self.transport.loseConnection()
            self.deadline = self.factory.tick + self.factory.settings.stall_timeout
            return
        if self._outlet.direct:
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()
        self._lingering = True
        self.deadline = self.factory.tick + LINGER

    # The sink of an answer's body

    def write(self, data: bytes) -> None:
        if not self._chunked:
            self._write(data)
        elif len(data) < _LARGE:
            chunk = self.factory.last_chunk
            if chunk[0] is not data:
                chunk = self.factory.last_chunk = (data, b"%x\r\n%b\r\n" % (len(data), data))
            self._write(chunk[1])
        else:
            # Readers share it: not one copy for each.
            self._write(b"%x\r\n" % len(data))
            self._write(data)
            self._write(b"\r\n")

    def send_file(self, part: FileRange) -> int:
        return 0 if self._chunked else self._outlet.send_file(part)

    def finish(self) -> None:
        self._streaming = None
        if self._chunked:
            self._write(LAST_CHUNK)
        self._answered()

    def abort(self) -> None:
        # Nothing may be written after it.
        self._outlet.flush()
        self.transport.abortConnection()

    # The outlet's owner

    def blocked(self) -> None:
        if not self._slow:
            self._slow = True
            self.factory.pauses += 1
        self.deadline = self.factory.tick + self.factory.settings.stall_timeout
        if self._streaming is not None:
            self._streaming.pauseProducing()

    def drained(self) -> None:
        self._slow = False
        if self._ending:
            return
        if self._busy:
            self.deadline = 0
            if self._incoming_wanted:
                self._set_reading_deadline()
            if self._streaming is not None:
                self._streaming.resumeProducing()
        else:
            self.deadline = self.factory.tick + self.factory.settings.idle_timeout
            self._next()
