"""The one writer of answers: an outcome, or an error, becomes a status, header lines and a body.

Header lines are bytes, ready to send, since most of them depend on nothing but the configuration or the stream, and are
put together once for each. What belongs to the connection (Date, Content-Length, Connection, framing) is the front's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from .. import errors
from ..model import Appended, Chunk, Created, Offset, StreamFacts, StreamStatus, WriterState
from ..protocol.caching import etag, matches
from ..protocol.content import is_text
from ..protocol.lifetimes import render_timestamp
from ..protocol.messages import document
from ..protocol.names import quote_name
from .requests import StreamRequest

#: The methods that a stream knows.
METHODS: Final = b"GET, HEAD, PUT, POST, DELETE, OPTIONS"

_ALLOWED_HEADERS: Final = (
    b"Authorization, Content-Type, If-None-Match, Producer-Epoch, Producer-Id, Producer-Seq, Stream-Closed, "
    b"Stream-Expires-At, Stream-Fork-Offset, Stream-Fork-Sub-Offset, Stream-Forked-From, Stream-Seq, Stream-TTL, *"
)
_EXPOSED_HEADERS: Final = (
    b"Date, ETag, Location, Producer-Epoch, Producer-Expected-Seq, Producer-Received-Seq, Producer-Seq, Retry-After, "
    b"Stream-Closed, Stream-Cursor, Stream-Expires-At, Stream-Next-Offset, Stream-SSE-Data-Encoding, Stream-TTL, "
    b"Stream-Up-To-Date"
)
_SECURITY: Final = b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: cross-origin\r\n"
_NO_STORE: Final = b"Cache-Control: no-store\r\n"
_CLOSED: Final = b"Stream-Closed: true\r\n"
_UP_TO_DATE: Final = b"Stream-Up-To-Date: true\r\n"
_EVENTS: Final = b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"

# Errors of the HTTP layer itself


class BadFraming(errors.StreamsError):
    """The request is not HTTP, or is HTTP that two readers could take two ways."""


class HeadersTooLarge(errors.StreamsError):
    """The header block is over the limit."""


class TargetTooLong(errors.StreamsError):
    """The request's target is over the limit."""


class RequestTimeout(errors.StreamsError):
    """The request did not arrive whole in time."""


class MethodNotAllowed(errors.StreamsError):
    """A stream knows no such method."""


class NoSuchPath(errors.StreamsError):
    """The path belongs to nothing."""

    def __init__(self) -> None:
        super().__init__("There is nothing at this path. Streams are below the server's base path.")


class Broken(errors.StreamsError):
    """Something is wrong with the server, and only its log says what."""


#: How HTTP says each error: the status, the code that programs read, the title that people read.
CATALOGUE: Final[dict[type[errors.StreamsError], tuple[int, str, str]]] = {
    BadFraming: (400, "BAD_REQUEST", "Bad Request"),
    errors.InvalidRequest: (400, "BAD_REQUEST", "Bad Request"),
    errors.InvalidOffset: (400, "INVALID_OFFSET", "Invalid Offset"),
    errors.InvalidName: (400, "INVALID_STREAM_NAME", "Invalid Stream Name"),
    errors.InvalidJson: (400, "INVALID_JSON", "Invalid JSON"),
    errors.EmptyBody: (400, "EMPTY_BODY", "Empty Body"),
    errors.EmptyArray: (400, "EMPTY_ARRAY", "Empty Array"),
    errors.WriterFenced: (403, "PRODUCER_EPOCH_FENCED", "Producer Epoch Fenced"),
    errors.StreamNotFound: (404, "NOT_FOUND", "Stream Not Found"),
    NoSuchPath: (404, "NOT_FOUND", "Not Found"),
    MethodNotAllowed: (405, "METHOD_NOT_ALLOWED", "Method Not Allowed"),
    RequestTimeout: (408, "REQUEST_TIMEOUT", "Request Timeout"),
    errors.StreamExists: (409, "ALREADY_EXISTS", "Stream Already Exists"),
    errors.ContentTypeMismatch: (409, "CONTENT_TYPE_MISMATCH", "Content Type Mismatch"),
    errors.StreamClosed: (409, "STREAM_CLOSED", "Stream Closed"),
    errors.SequenceConflict: (409, "SEQUENCE_CONFLICT", "Sequence Conflict"),
    errors.WriterGap: (409, "SEQUENCE_CONFLICT", "Sequence Conflict"),
    errors.ForkFromDeleted: (409, "FORK_FROM_TOMBSTONE", "Fork From Deleted Stream"),
    errors.PathBlocked: (409, "PATH_BLOCKED", "Stream Path Blocked"),
    errors.StreamGone: (410, "GONE", "Stream Gone"),
    errors.OffsetGone: (410, "GONE", "Stream Gone"),
    errors.BodyTooLarge: (413, "REQUEST_BODY_TOO_LARGE", "Request Body Too Large"),
    errors.StreamFull: (413, "PAYLOAD_TOO_LARGE", "Payload Too Large"),
    errors.StorageFull: (413, "PAYLOAD_TOO_LARGE", "Payload Too Large"),
    TargetTooLong: (414, "TARGET_TOO_LONG", "Target Too Long"),
    HeadersTooLarge: (431, "HEADERS_TOO_LARGE", "Request Header Fields Too Large"),
    Broken: (500, "INTERNAL_ERROR", "Internal Server Error"),
    errors.Unavailable: (503, "UNAVAILABLE", "Service Unavailable"),
    errors.InsufficientStorage: (507, "INSUFFICIENT_STORAGE", "Insufficient Storage"),
}


class Sink(Protocol):
    """Where a front takes a body that comes bit by bit. It pauses and resumes the body as its reader keeps up."""

    def write(self, data: bytes) -> None:
        """Send some of the body."""

    def finish(self) -> None:
        """The body is complete."""

    def abort(self) -> None:
        """The body can't be completed: hang up, so that the reader knows."""


class Body(Protocol):
    """A body that comes bit by bit: an IPushProducer, with a beginning.

    :ivar length: its size in bytes, if that is known.
    """

    length: int | None

    def start(self, sink: Sink) -> None:
        """Begin to write to ``sink``."""

    def pauseProducing(self) -> None:
        """Write no more until told to."""

    def resumeProducing(self) -> None:
        """Go on."""

    def stopProducing(self) -> None:
        """The reader is gone."""


class Answer(Struct, frozen=True, gc=False):
    """What a front sends: ``head`` is complete lines, each ended with CRLF."""

    status: int
    head: bytes
    body: bytes | Body = b""


class Problem(Struct):
    """An ``application/problem+json`` body (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str


class _Face:
    """What every answer about one stream has in common."""

    __slots__ = ("events_lines", "next_offset", "type_line")

    def __init__(self, facts: StreamFacts) -> None:
        self.type_line = b"Content-Type: " + facts.content_type.encode("latin-1") + b"\r\n"
        self.next_offset = b"Stream-Next-Offset: %016d_" % facts.incarnation
        encoding = b"" if is_text(facts.media_type) else b"Stream-SSE-Data-Encoding: base64\r\n"
        self.events_lines = _EVENTS + encoding


class Answers:
    """
    Writes answers.

    :param cors_origins: which origins' pages may use the streams; ``*`` among them for all.
    """

    def __init__(self, cors_origins: Sequence[str] = ("*",)) -> None:
        self._any_origin = "*" in cors_origins
        self._common = {
            origin.encode(): _SECURITY
            + b"Access-Control-Allow-Origin: %b\r\n" % origin.encode()
            + b"Access-Control-Expose-Headers: %b\r\n" % _EXPOSED_HEADERS
            + (b"" if self._any_origin else b"Vary: Origin\r\n")
            for origin in cors_origins
        }
        self._anywhere = self._common.get(b"*", _SECURITY + b"Vary: Origin\r\n")
        self._faces: dict[int, _Face] = {}

    def common(self, request: StreamRequest) -> bytes:
        """The lines of every answer to a request."""
        if self._any_origin:
            return self._anywhere
        return self._common.get(request.headers.get(b"origin", b""), self._anywhere)

    def face(self, facts: StreamFacts) -> _Face:
        face = self._faces.get(facts.id)
        if face is None:
            if len(self._faces) >= 10_000:
                self._faces.clear()
            face = self._faces[facts.id] = _Face(facts)
        return face

    def created(self, request: StreamRequest, created: Created) -> Answer:
        face = self.face(created.facts)
        head = self.common(request) + _NO_STORE + face.type_line + b"%b%016d\r\n" % (face.next_offset, created.tail)
        if created.closed:
            head += _CLOSED
        if not created.new:
            return Answer(200, head)
        place = request.mount + quote_name(created.facts.name)
        host = request.headers.get(b"host")
        if host is not None:
            place = (b"https://" if request.secure else b"http://") + host + place
        return Answer(201, head + b"Location: %b\r\n" % place)

    def appended(self, request: StreamRequest, appended: Appended) -> Answer:
        head = b"%b%b%b%016d\r\n" % (
            self.common(request),
            _NO_STORE,
            self.face(appended.facts).next_offset,
            appended.tail,
        )
        if appended.closed:
            head += _CLOSED
        writer = appended.writer
        if writer is None:
            return Answer(204, head)
        head += _writer_lines(writer)
        return Answer(204 if appended.duplicate or not request.body else 200, head)

    def found(
        self, request: StreamRequest, chunk: Chunk, rest: Body | None = None, cursor: int | None = None
    ) -> Answer:
        """
        Answer a read of all that there is from ``chunk.start`` to the tail.

        :param rest: the body, where ``chunk`` does not have all of it.
        """
        facts = chunk.facts
        face = self.face(facts)
        tag = etag(facts.id, chunk.start, chunk.tail, chunk.closed)
        head = b"%b%b%b%b%016d\r\nStream-Up-To-Date: true\r\nETag: %b\r\n" % (
            self.common(request),
            _NO_STORE,
            face.type_line,
            face.next_offset,
            chunk.tail,
            tag,
        )
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

    def nothing_yet(self, request: StreamRequest, chunk: Chunk, cursor: int | None) -> Answer:
        """Answer one who asked for what comes after the tail: there is nothing, or never will be."""
        head = self._at_tail(request, chunk)
        if cursor is not None and not chunk.closed:
            head += b"Stream-Cursor: %d\r\n" % cursor
        return Answer(204, head)

    def tail(self, request: StreamRequest, chunk: Chunk) -> Answer:
        """Answer a catch-up read from ``now``: an empty body, and no ETag (PROTOCOL section 8)."""
        head = self._at_tail(request, chunk) + self.face(chunk.facts).type_line
        return Answer(200, head, b"[]" if chunk.facts.json else b"")

    def _at_tail(self, request: StreamRequest, chunk: Chunk) -> bytes:
        head = self.common(request) + _NO_STORE + _UP_TO_DATE
        head += b"%b%016d\r\n" % (self.face(chunk.facts).next_offset, chunk.tail)
        return head + _CLOSED if chunk.closed else head

    def events(self, request: StreamRequest, facts: StreamFacts, body: Body) -> Answer:
        """Answer with Server-Sent Events."""
        return Answer(200, self.common(request) + self.face(facts).events_lines, body)

    def status(self, request: StreamRequest, status: StreamStatus) -> Answer:
        """Answer a HEAD."""
        face = self.face(status.facts)
        head = self.common(request) + _NO_STORE + face.type_line + b"%b%016d\r\n" % (face.next_offset, status.tail)
        if status.lifetime.ttl is not None:
            head += b"Stream-TTL: %d\r\n" % status.lifetime.ttl
        if status.lifetime.expires_at is not None:
            head += b"Stream-Expires-At: %b\r\n" % render_timestamp(status.lifetime.expires_at).encode()
        return Answer(200, head + _CLOSED if status.closed else head)

    def deleted(self, request: StreamRequest) -> Answer:
        return Answer(204, self.common(request) + _NO_STORE)

    def options(self, request: StreamRequest) -> Answer:
        """Answer a CORS preflight, or anybody who asks what can be done here."""
        return Answer(
            204,
            self.common(request)
            + b"Allow: %b\r\nAccess-Control-Allow-Methods: %b\r\nAccess-Control-Allow-Headers: %b\r\n"
            b"Access-Control-Max-Age: 86400\r\n" % (METHODS, METHODS, _ALLOWED_HEADERS),
        )

    def error(self, request: StreamRequest | None, error: errors.StreamsError) -> Answer:
        """
        Answer with an error (RFC 9457).

        :param request: None where there is none to speak of.
        """
        status, code, title = CATALOGUE[type(error)]
        slug = "internal" if code == "INTERNAL_ERROR" else code.lower().replace("_", "-")
        problem = Problem(
            type=f"/errors/{slug}",
            title=title,
            status=status,
            code=code,
            detail=str(error),
            instance="" if request is None else request.target.decode("latin-1"),
        )
        common = self._anywhere if request is None else self.common(request)
        head = common + _NO_STORE + b"Content-Type: application/problem+json\r\n" + _error_lines(error)
        return Answer(status, head, msgspec.json.encode(problem))


def _writer_lines(writer: WriterState) -> bytes:
    return b"Producer-Epoch: %d\r\nProducer-Seq: %d\r\n" % (writer.epoch, writer.seq)


def _error_lines(error: errors.StreamsError) -> bytes:
    """The headers by which programs read the rest of an error."""
    match error:
        case errors.StreamClosed():
            return _CLOSED + f"Stream-Next-Offset: {Offset(error.incarnation, error.tail)}\r\n".encode()
        case errors.WriterFenced():
            return b"Producer-Epoch: %d\r\n" % error.epoch
        case errors.WriterGap():
            return b"Producer-Expected-Seq: %d\r\nProducer-Received-Seq: %d\r\n" % (error.expected, error.received)
        case errors.Unavailable():
            return b"Retry-After: 1\r\n"
        case MethodNotAllowed():
            return b"Allow: %b\r\n" % METHODS
        case _:
            return b""
