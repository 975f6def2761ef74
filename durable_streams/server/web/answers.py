"""Answers: the status, header lines and body for an outcome or an error.

Header lines are bytes, ready to send, since most of them depend on nothing but the configuration or the stream, and are
put together once for each. What belongs to the connection (Date, Content-Length, Connection, framing) is the front's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from .. import errors
from ..interfaces import NowOrLater
from ..model import Appended, Chunk, Created, FileRange, StreamFacts, StreamStatus
from ..protocol.caching import etag, etag_prefix, matches
from ..protocol.content import is_text
from ..protocol.lifetimes import render_timestamp
from ..protocol.messages import document
from ..protocol.names import quote_name
from .pages import PageRequest
from .problems import METHODS, ErrorReport, problem
from .requests import StreamRequest

_ALLOWED_HEADERS: Final = (
    b"Authorization, Content-Type, If-None-Match, Last-Event-ID, Producer-Epoch, Producer-Id, Producer-Seq, "
    b"Stream-Closed, Stream-Expected-Offset, Stream-Expires-At, Stream-Fork-Offset, Stream-Fork-Sub-Offset, "
    b"Stream-Forked-From, Stream-Seq, Stream-TTL, *"
)
_EXPOSED_HEADERS: Final = (
    b"Date, ETag, Location, Producer-Epoch, Producer-Expected-Seq, Producer-Received-Seq, Producer-Seq, "
    b"RateLimit, RateLimit-Policy, Retry-After, "
    b"Stream-Closed, Stream-Cursor, Stream-Expected-Offset, Stream-Expires-At, Stream-Next-Offset, "
    b"Stream-SSE-Data-Encoding, Stream-TTL, Stream-Up-To-Date, WWW-Authenticate, X-Request-Id"
)
_SECURITY: Final = b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: cross-origin\r\n"
_PRIVATE: Final = b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n"
_NO_STORE: Final = b"Cache-Control: no-store\r\n"

#: Cache-Control of reads with data (PROTOCOL section 10.1).
_CACHING: Final = {
    "no-store": _NO_STORE,
    "private": b"Cache-Control: private, max-age=60, stale-while-revalidate=300\r\n",
    "public": b"Cache-Control: public, max-age=60, stale-while-revalidate=300\r\n",
}

#: Cache-Control of reads that only some principals are allowed.
_OWN_CACHING: Final = {
    "no-store": _NO_STORE,
    "private": _CACHING["private"] + b"Vary: Authorization\r\n",
    "public": _CACHING["private"] + b"Vary: Authorization\r\n",
}

_CLOSED: Final = b"Stream-Closed: true\r\n"
_UP_TO_DATE: Final = b"Stream-Up-To-Date: true\r\n"

#: The end of the head of a read, after the cached beginning: the position and the ETag.
_PART: Final = b"%016d\r\nETag: %b\r\n"
_WHOLE: Final = _PART + _UP_TO_DATE

_BASE64: Final = b"Stream-SSE-Data-Encoding: base64\r\n"
#: ``no-transform`` keeps intermediaries from compressing events: a compressor holds bytes back until a block is full.
_EVENTS: Final = (
    b"Content-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"
)
_OWN_EVENTS: Final = _EVENTS.replace(b"no-cache", b"private, no-cache") + b"Vary: Authorization\r\n"

#: How many streams' answers are remembered in part.
_FACES: Final = 2048


class Sink(Protocol):
    """The front's end of a streamed body. It pauses and resumes the body as the client reads."""

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""

    def finish(self) -> None:
        """End the answer: the body is complete."""

    def abort(self) -> None:
        """Abort the answer, so that the client sees that the body is not complete."""


@runtime_checkable
class FileSink(Sink, Protocol):
    """A sink that can send from files."""

    def send_file(self, part: FileRange) -> int:
        """
        Send the beginning of a range of a file.

        :returns: how many bytes were sent. If the client is slow, the body has been paused.
        """


class AnswerBody(Protocol):
    """A streamed body of an answer: an IPushProducer that is started with its sink.

    :ivar length: its size in bytes, if that is known.
    """

    length: int | None

    def start(self, sink: Sink) -> None:
        """Begin to write to ``sink``."""

    def pauseProducing(self) -> None:
        """Stop writing until resumed."""

    def resumeProducing(self) -> None:
        """Continue writing."""

    def stopProducing(self) -> None:
        """Stop for good: the client is gone."""


class Answer(Struct, frozen=True):
    """
    The answer to a request. ``head`` is complete header lines, each ended with CRLF.

    :ivar error: what to record about the error; None unless the request was refused.
    """

    status: int
    head: bytes
    body: bytes | AnswerBody = b""
    error: ErrorReport | None = None

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return the header lines as pairs."""
        return fields_of(self.head)


#: Performs a request for a stream.
Perform: TypeAlias = "Callable[[StreamRequest], NowOrLater[Answer]]"


def fields_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """Split complete header lines into pairs."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[:-1])]


class _HeadPrefixes:
    """
    Cached header prefixes for one (stream, CORS origin), up to the position that differs.

    :ivar found: for data that every client gets that sends the same request.
    :ivar own: for data that only some principals may read.
    :ivar passing: for what may be something else the next moment.
    """

    __slots__ = ("appended", "etag", "found", "own", "passing")

    def __init__(self, common: bytes, caching: bytes, own_caching: bytes, facts: StreamFacts) -> None:
        described = _content_type(facts) + _next_offset(facts)
        self.appended = common + _NO_STORE + _next_offset(facts)
        self.found = common + caching + described
        self.own = common + own_caching + described
        self.passing = common + _NO_STORE + described
        self.etag = etag_prefix(facts.id)


class Answers:
    """
    Renders outcomes and errors as answers.

    :param cors_origins: which origins' pages may use the streams; ``*`` among them for all. If there are none, browsers
        keep the answers from the pages of all other origins.
    :param cache: who may keep what a read found: nobody (``no-store``), its reader (``private``), or whoever stands
        between (``public``); see PROTOCOL section 10.1.
    :param cors_credentials: whether pages of the origins may send cookies and client certificates. It has no effect on
        ``*``, with which browsers accept no credentials.
    """

    def __init__(
        self, cors_origins: Sequence[str] = ("*",), cache: str = "no-store", cors_credentials: bool = False
    ) -> None:
        self._caching = _CACHING[cache]
        self._own_caching = _OWN_CACHING[cache]
        self._any_origin = "*" in cors_origins
        # The header is the same for all origins, so caches need not distinguish them.
        vary = b"" if self._any_origin or not cors_origins else b"Vary: Origin\r\n"
        self._cors = {
            origin.encode(): b"Access-Control-Allow-Origin: %b\r\n" % origin.encode()
            + b"Access-Control-Expose-Headers: %b\r\n" % _EXPOSED_HEADERS
            + (b"Access-Control-Allow-Credentials: true\r\n" if cors_credentials and origin != "*" else b"")
            + vary
            for origin in cors_origins
        }
        self._cors_anywhere = self._cors.get(b"*", vary)
        security = _SECURITY if cors_origins else _PRIVATE
        self._common = {origin: security + lines for origin, lines in self._cors.items()}
        self._anywhere = security + self._cors_anywhere
        self._faces: dict[tuple[int, bytes], _HeadPrefixes] = {}

    def cors(self, origin: bytes | None) -> bytes:
        """
        Return the CORS header lines of an answer.

        :param origin: what the request has for Origin.
        """
        if self._any_origin or origin is None:
            return self._cors_anywhere
        return self._cors.get(origin, self._cors_anywhere)

    def common(self, origin: bytes | None) -> bytes:
        """
        Return the header lines of every answer about streams.

        :param origin: what the request has for Origin.
        """
        if self._any_origin or origin is None:
            return self._anywhere
        return self._common.get(origin, self._anywhere)

    def _face(self, request: StreamRequest, facts: StreamFacts) -> _HeadPrefixes:
        common = self._anywhere if self._any_origin else self.common(request.headers.get(b"origin"))
        face = self._faces.get((facts.id, common))
        if face is None:
            if len(self._faces) >= _FACES:
                self._faces.clear()
            face = self._faces[facts.id, common] = _HeadPrefixes(common, self._caching, self._own_caching, facts)
        return face

    def created(self, request: StreamRequest, created: Created) -> Answer:
        head = self._describing(request, created.facts, created.tail, created.closed)
        if not created.new:
            return Answer(200, head)
        origin = request.caller.origin(request.headers.get(b"host"))
        place = origin + request.mount + quote_name(created.facts.name)
        return Answer(201, head + b"Location: %b\r\n" % place)

    def appended(self, request: StreamRequest, appended: Appended) -> Answer:
        # To format the long prefix, too, would take 0.1 us more than this.
        head = self._face(request, appended.facts).appended + b"%016d\r\n" % appended.tail
        if appended.closed:
            head += _CLOSED
        writer = appended.writer
        if writer is None:
            return Answer(204, head)
        head += b"Producer-Epoch: %d\r\nProducer-Seq: %d\r\n" % (writer.epoch, writer.seq)
        return Answer(204 if appended.duplicate or not request.body else 200, head)

    def found(
        self,
        request: StreamRequest,
        chunk: Chunk,
        rest: AnswerBody | None = None,
        cursor: int | None = None,
        passing: bool = False,
        partial: bool = False,
    ) -> Answer:
        """
        Answer a read of all that there is from ``chunk.start`` to the tail.

        :param partial: whether the stream has more after what is named as its tail.
        :param rest: the body, where ``chunk`` does not have all of it.
        :param passing: whether the same request may find other data the next time. So may one that found nothing.
        """
        facts = chunk.facts
        face = self._face(request, facts)
        tag = etag(face.etag, chunk.start, chunk.tail, chunk.closed)
        access = request.access
        if passing or chunk.start >= chunk.tail:
            beginning = face.passing
        else:
            beginning = face.found if access is None or access.public else face.own
        head = beginning + (_PART if partial else _WHOLE) % (chunk.tail, tag)
        if chunk.closed:
            head += _CLOSED
        if cursor is not None:
            head += b"Stream-Cursor: %d\r\n" % cursor
        known = request.headers.get(b"if-none-match")
        if known is not None and matches(known, tag):
            return Answer(304, head)
        if rest is not None:
            return Answer(200, head, rest)
        return Answer(200, head, document(chunk.data) if facts.json else chunk.data)

    def nothing_yet(self, request: StreamRequest, chunk: Chunk, cursor: int) -> Answer:
        """Answer a long-poll that found nothing after the tail."""
        head = self._at(request, chunk.facts, chunk.tail, chunk.closed) + _UP_TO_DATE
        return Answer(204, head if chunk.closed else head + b"Stream-Cursor: %d\r\n" % cursor)

    def tail(self, request: StreamRequest, chunk: Chunk) -> Answer:
        """Answer a catch-up read from ``now``: an empty body, and no ETag (PROTOCOL section 8)."""
        head = self._describing(request, chunk.facts, chunk.tail, chunk.closed) + _UP_TO_DATE
        return Answer(200, head, b"[]" if chunk.facts.json else b"")

    def _describing(self, request: StreamRequest, facts: StreamFacts, tail: int, closed: bool) -> bytes:
        return self._at(request, facts, tail, closed) + _content_type(facts)

    def _at(self, request: StreamRequest, facts: StreamFacts, tail: int, closed: bool) -> bytes:
        common = self.common(request.headers.get(b"origin"))
        head = common + _NO_STORE + _next_offset(facts) + b"%016d\r\n" % tail
        return head + _CLOSED if closed else head

    def events(self, request: StreamRequest, facts: StreamFacts, body: AnswerBody) -> Answer:
        """Answer with Server-Sent Events."""
        access = request.access
        events = _EVENTS if access is None or access.public else _OWN_EVENTS
        head = self.common(request.headers.get(b"origin")) + events
        return Answer(200, head if is_text(facts.media_type) else head + _BASE64, body)

    def status(self, request: StreamRequest, status: StreamStatus) -> Answer:
        """Answer a HEAD."""
        head = self._describing(request, status.facts, status.tail, status.closed)
        if status.lifetime.ttl is not None:
            head += b"Stream-TTL: %d\r\n" % status.lifetime.ttl
        if status.lifetime.expires_at is not None:
            head += b"Stream-Expires-At: %b\r\n" % render_timestamp(status.lifetime.expires_at).encode()
        return Answer(200, head)

    def deleted(self, request: StreamRequest) -> Answer:
        return Answer(204, self.common(request.headers.get(b"origin")) + _NO_STORE)

    def options(self, request: StreamRequest) -> Answer:
        """Answer an OPTIONS request: a CORS preflight or a question for the methods."""
        return self.preflight(request.headers.get(b"origin"))

    def preflight(self, origin: bytes | None) -> Answer:
        """
        Answer a CORS preflight, which is the same for every path.

        :param origin: what it has for Origin.
        """
        return Answer(
            204,
            self.common(origin)
            + b"Allow: %b\r\nAccess-Control-Allow-Methods: %b\r\nAccess-Control-Allow-Headers: %b\r\n"
            b"Access-Control-Max-Age: 86400\r\n" % (METHODS, METHODS, _ALLOWED_HEADERS),
        )

    def error(
        self, request: StreamRequest | PageRequest | None, error: errors.StreamsError, origin: bytes | None = None
    ) -> Answer:
        """
        Answer with an error.

        The error's traceback is dropped: its frames hold the request's body, and may hold the error itself.

        :param request: None if what came is no request.
        :param origin: the value of Origin if it is not among the request's headers.
        """
        error.__traceback__ = None
        status, lines, body, report = problem(error, "" if request is None else request.target.decode("latin-1"))
        if origin is None and isinstance(request, StreamRequest):
            origin = request.headers.get(b"origin")
        common = self.common(origin)
        return Answer(status, common + _NO_STORE + lines, body, report)


def _content_type(facts: StreamFacts) -> bytes:
    return b"Content-Type: %b\r\n" % facts.content_type.encode("latin-1")


def _next_offset(facts: StreamFacts) -> bytes:
    return b"Stream-Next-Offset: %016d_" % facts.incarnation
