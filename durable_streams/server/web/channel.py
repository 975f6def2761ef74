"""Front 2: the daemon's own HTTP/1.1, framed by llhttp, with no twisted.web on the way of a stream's requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import httptools
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import BodyTooLarge, InvalidRequest, StreamsError
from .answers import Answer, BadFraming, Body, HeadersTooLarge, RequestTimeout, TargetTooLong
from .framing import BODILESS, CHUNKED, CLOSE, CONTINUE, KEEP_ALIVE, LAST_CHUNK, STATUS_LINES
from .outlet import Outlet
from .requests import READ_HEADERS, StreamRequest, check_host, join_header
from .tree import TreeRequest

if TYPE_CHECKING:
    from .listener import ChannelFactory

#: Headers that say how the request itself is framed.
_FRAMING_HEADERS: Final = frozenset([b"content-length", b"transfer-encoding", b"expect"])

#: Over how many bytes of answers that wait to be sent no further request is served.
_UNSENT_LIMIT: Final = 262_144

#: How long, in seconds, what a refused client still sends is read and thrown away, so that it gets to see why.
_LINGER: Final = 2

_log = Logger()


class _Stop(Exception):
    """Stops the parser: what else comes on the connection means nothing."""


#: What can stand in the queue: a request for a stream, one for the tree, or the refusal of something else.
_Asked: TypeAlias = "StreamRequest | TreeRequest | Answer"


class StreamChannel(Protocol):
    """
    One connection.

    Requests are answered in the order in which they came. What can be answered at once is, before the next one of the
    same packet is parsed; what takes its time makes the ones behind it wait in a queue, and while there is a queue
    nothing more is read.

    :ivar deadline: the factory's tick at which the connection has had its time; 0 while it has all the time.
    """

    factory: ChannelFactory
    transport: ITCPTransport

    def __init__(self, factory: ChannelFactory) -> None:
        self.factory = factory
        self.deadline = 0
        self._settings = factory.settings
        self._perform = factory.operations.perform
        self._known_headers = factory.known_headers
        self._base = factory.base
        # The request that is being read
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._body: bytes | bytearray = b""
        self._headers_done = False
        self._keep_alive = True
        self._old = False
        # The packet that is being parsed, if a request begins with it, and how many bytes of this request came before
        self._packet = b""
        self._wire_bytes = 0
        # What is asked and not answered yet, with whether the connection lives on after it, and whether it is HTTP/1.0
        self._queue: list[tuple[_Asked, bool, bool]] = []
        self._paused = False
        # The answer that takes its time
        self._busy = False
        self._awaited: Deferred[Answer] | None = None
        self._streaming: Body | None = None
        self._chunked = False
        self._continue_due = False
        self._lives_on = True
        # Whether input still means anything
        self._deaf = False
        self._ending = False

    # The connection

    def connectionMade(self) -> None:
        self._new_parser()
        self.outlet = Outlet(self.transport, self)
        self._write = self.outlet.write
        self.deadline = self.factory.tick + self._settings.header_timeout
        self.factory.joined(self)

    def _new_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._feed = self._parser.feed_data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.left(self)
        self._ending = self._deaf = True
        self._queue.clear()
        self.outlet.close()
        if self._awaited is not None:
            self._awaited.cancel()
        if self._streaming is not None:
            self._streaming.stopProducing()
            self._streaming = None

    def dataReceived(self, data: bytes) -> None:
        if self._deaf:
            return
        outlet = self.outlet
        outlet.gather()
        self._packet = data
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We upgrade to nothing: the request was served as it stands, and the next one follows it.
            self._new_parser()
            rest = data[upgrade.args[0] :]
            if rest and not self._deaf:
                self.dataReceived(rest)
        except httptools.HttpParserCallbackError as error:
            self._deaf = True
            if not isinstance(error.__context__, _Stop):
                _log.failure("A request could not be taken in.", failure=Failure(error.__context__))
                self.transport.abortConnection()
        except httptools.HttpParserError as error:
            self._deaf = True
            self._ask_last(BadFraming(f"This is not HTTP/1.1 as the server reads it: {error}."))
        if self._url:
            self._count_unfinished(data)
        self._packet = b""
        outlet.flush()
        if self._queue and not self._paused and not self._ending:
            self._paused = True
            self.transport.pauseProducing()

    def _count_unfinished(self, data: bytes) -> None:
        """A request has begun and not ended with this packet."""
        if self._deaf:
            return
        settings = self._settings
        if self._headers_done:
            self.deadline = self.factory.tick + settings.body_timeout
            # Chunks may cost as much again as what they carry, but not more.
            limit = 2 * settings.body_bytes + settings.header_bytes
            error: StreamsError = BodyTooLarge(settings.body_bytes)
        else:
            if not self._wire_bytes:
                self.deadline = self.factory.tick + settings.header_timeout
            limit = settings.header_bytes
            error = HeadersTooLarge(f"The headers are larger than {limit} bytes.")
        if self._packet:
            self._wire_bytes += len(data)
        else:
            # The request began somewhere in the packet; where, does not matter enough to find out.
            self._wire_bytes = 1
        if self._wire_bytes > limit:
            self._deaf = True
            self._ask_last(error)

    def expire(self) -> None:
        """The connection has had its time."""
        if self._url and not self._busy and not self._deaf:
            self._deaf = True
            self._ask_last(RequestTimeout("The request did not arrive in time."))
        elif self._busy or self._ending or self.outlet.unsent:
            self.transport.abortConnection()
        else:
            self._end()

    def drain(self) -> None:
        """The service stops: end after the answer that is on its way."""
        self._lives_on = False
        if not self._busy and not self._url and not self._ending:
            self._end()

    # What the parser tells

    def on_url(self, url: bytes) -> None:
        self._url = url = self._url + url if self._url else url
        if len(url) > self._settings.target_bytes:
            self._refuse(TargetTooLong(f"The request's target is longer than {self._settings.target_bytes} bytes."))
        # The tree gets all headers. As long as the target is not complete, it may still become a stream's.
        self._fields = None if url.startswith(self._base) else []

    def on_header(self, name: bytes, value: bytes) -> None:
        key = self._known_headers.get(name)
        if key is None:
            key = _learn_header(name, self._known_headers)
        if self._headers_done:
            # A trailer, which means nothing to a stream.
            return
        if key:
            if key in self._headers and not join_header(self._headers, key, value):
                self._refuse(BadFraming(f"{key.decode().title()} was sent twice. Send it once."))
            self._headers[key] = value
        if self._fields is not None:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        headers = self._headers
        parser = self._parser
        settings = self._settings
        self._headers_done = True
        self._keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        self._old = version != "1.1"
        host = headers.get(b"host")
        if host not in self.factory.known_hosts:
            self._check_host(host)
        if self._old and version != "1.0":
            self._refuse(BadFraming("The server speaks HTTP/1.1 and HTTP/1.0 here."))
        packet = self._packet
        if len(packet) + self._wire_bytes > settings.header_bytes and packet:
            if packet.find(b"\r\n\r\n") + self._wire_bytes > settings.header_bytes:
                self._refuse(HeadersTooLarge(f"The headers are larger than {settings.header_bytes} bytes."))
        length = headers.get(b"content-length")
        if length is not None:
            if int(length) > settings.body_bytes:
                self._refuse(BodyTooLarge(settings.body_bytes))
        elif b"transfer-encoding" in headers:
            if self._old or headers[b"transfer-encoding"].strip().lower() != b"chunked":
                self._refuse(BadFraming("Transfer-Encoding must be chunked, and only HTTP/1.1 has it."))
        else:
            return
        if b"expect" in headers:
            self._meet_expectation(headers[b"expect"])

    def _check_host(self, host: bytes | None) -> None:
        if host is None:
            if not self._old:
                self._refuse(BadFraming("Host is missing."))
            return
        try:
            check_host(host)
        except InvalidRequest as error:
            self._refuse(error)
        if len(self.factory.known_hosts) < 1024:
            self.factory.known_hosts.add(host)

    def _meet_expectation(self, expectation: bytes) -> None:
        if self._old or expectation.strip().lower() != b"100-continue":
            return
        if self._busy or self._queue:
            self._continue_due = True
        else:
            self._write(CONTINUE)
            self.outlet.flush()

    def on_body(self, data: bytes) -> None:
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        if len(self._body) > self._settings.body_bytes:
            self._refuse(BodyTooLarge(self._settings.body_bytes))

    def on_message_complete(self) -> None:
        url = self._url
        body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        asked: _Asked
        if self._fields is None:
            path, _, query = url.partition(b"?")
            base = self._base
            asked = StreamRequest(
                self._parser.get_method(), base, path[len(base) :], query, self._headers, body, self.factory.secure
            )
        else:
            asked = TreeRequest(self._parser.get_method(), url, self._fields, body)
        self._url = self._packet = self._body = b""
        self._headers = {}
        self._fields = None
        self._headers_done = self._continue_due = False
        self._wire_bytes = 0
        self._ask(asked, self._keep_alive and self._lives_on, self._old)
        if not self._keep_alive:
            # What follows is not ours to read, and no reason to complain.
            self._deaf = True
            raise _Stop

    def _refuse(self, error: StreamsError) -> None:
        """
        Answer the request that is being read with an error, and take in nothing more.

        :raises _Stop: always.
        """
        self._ask_last(error)
        raise _Stop

    # Asking and answering, in order

    def _ask_last(self, error: StreamsError) -> None:
        self._url = b""
        self._ask(self.factory.operations.answers.error(None, error), False, False)

    def _ask(self, asked: _Asked, lives_on: bool, old: bool) -> None:
        if self._ending:
            return
        if self._busy or self._queue or self.outlet.unsent > _UNSENT_LIMIT:
            self._queue.append((asked, lives_on, old))
        else:
            self._answer(asked, lives_on, old)

    def _answer(self, asked: _Asked, lives_on: bool, old: bool) -> None:
        self._lives_on = lives_on
        if isinstance(asked, StreamRequest):
            answer = self._perform(asked)
        elif isinstance(asked, TreeRequest):
            answer = asked.perform(self.factory.site, self.transport, self.factory.secure)
        else:
            self._send(asked, b"", old)
            return
        if isinstance(answer, Answer):
            self._send(answer, asked.method, old)
        else:
            self._begin()
            self._awaited = answer
            answer.addCallback(self._send_awaited, asked.method, old)
            answer.addErrback(lambda failure: failure.trap(CancelledError))

    def _begin(self) -> None:
        self._busy = True
        self.deadline = 0

    def _send_awaited(self, answer: Answer, method: bytes, old: bool) -> None:
        self._awaited = None
        if not self._ending:
            self._send(answer, method, old)

    def _send(self, answer: Answer, method: bytes, old: bool) -> None:
        body = answer.body
        status = answer.status
        connection = b""
        if not self._lives_on:
            connection = CLOSE
        elif old:
            connection = KEEP_ALIVE
        start = STATUS_LINES[status] + self.factory.date_line
        if isinstance(body, bytes):
            if status in BODILESS:
                self._write(b"%b%b%b\r\n" % (start, answer.head, connection))
            elif method == b"HEAD":
                length = b"Content-Length: %d\r\n" % len(body) if body else b""
                self._write(b"%b%b%b%b\r\n" % (start, answer.head, connection, length))
            else:
                self._write(
                    b"%b%b%bContent-Length: %d\r\n\r\n%b" % (start, answer.head, connection, len(body), body)
                )
            self.answered()
            return
        self._chunked = False
        if body.length is not None:
            connection += b"Content-Length: %d\r\n" % body.length
        elif old:
            connection = CLOSE
            self._lives_on = False
        else:
            self._chunked = True
            connection += CHUNKED
        self._write(b"%b%b%b\r\n" % (start, answer.head, connection))
        self._begin()
        self._streaming = body
        body.start(self)

    def answered(self) -> None:
        """The answer was written: the next one's turn has come."""
        self._busy = False
        if not self._lives_on:
            self._end()
            return
        self.deadline = self.factory.tick + self._settings.idle_timeout
        if self._queue or self._continue_due:
            self._next()

    def _next(self) -> None:
        while self._queue and not self._busy and not self._ending and self.outlet.unsent <= _UNSENT_LIMIT:
            asked, lives_on, old = self._queue.pop(0)
            self._answer(asked, lives_on and self._lives_on, old)
        if self._busy or self._queue or self._ending:
            return
        if self._continue_due:
            self._continue_due = False
            self._write(CONTINUE)
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()

    def _end(self) -> None:
        """Hang up when everything is sent; a client that is still sending is left the time to read why."""
        self._ending = True
        self._queue.clear()
        self.outlet.finish(self._hang_up)

    def _hang_up(self) -> None:
        if not self._deaf or self._paused:
            self._deaf = True
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()
            self.deadline = self.factory.tick + _LINGER

    # What a body writes to

    def write(self, data: bytes) -> None:
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._write(data)

    def finish(self) -> None:
        self._streaming = None
        if self._chunked:
            self._write(LAST_CHUNK)
        self.answered()

    def abort(self) -> None:
        self.transport.abortConnection()

    # How the reader keeps up

    def blocked(self) -> None:
        self.deadline = self.factory.tick + self._settings.stall_timeout
        if self._streaming is not None:
            self._streaming.pauseProducing()

    def drained(self) -> None:
        if self._ending:
            return
        if self._busy:
            self.deadline = 0
            if self._streaming is not None:
                self._streaming.resumeProducing()
        else:
            self.deadline = self.factory.tick + self._settings.idle_timeout
            self._next()


def _learn_header(name: bytes, known: dict[bytes, bytes]) -> bytes:
    """Find out whether a header is read: its name in lower case, or nothing. Usual spellings are remembered."""
    lower = name.lower()
    key = lower if lower in READ_HEADERS or lower in _FRAMING_HEADERS else b""
    if len(known) < 512 and len(name) < 64:
        known[name] = key
    return key
