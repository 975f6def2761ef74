"""Errors as HTTP problems (RFC 9457): each error has a status, a code for programs and a title for people."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from .. import errors
from ..model import Offset

#: The methods that streams support.
METHODS: Final = b"GET, HEAD, PUT, POST, DELETE, OPTIONS"

#: After how many seconds a client is asked to retry.
_RETRY_AFTER: Final = 1

# Errors of the HTTP layer itself


class BadFraming(errors.StreamsError):
    """The request is not HTTP, or is HTTP that two readers could take two ways."""


class HeadersTooLarge(errors.StreamsError):
    """The header block is over the limit."""


class TargetTooLong(errors.StreamsError):
    """The request's target is over the limit."""


class RequestTimeout(errors.StreamsError):
    """The request did not arrive completely in time."""


class MethodNotAllowed(errors.StreamsError):
    """The path does not have the method; ``methods`` lists its methods."""

    def __init__(self, message: str, methods: bytes = METHODS) -> None:
        super().__init__(message)
        self.methods = methods


class NoSuchPath(errors.StreamsError):
    """
    There is neither a stream nor a page at the path.

    :param base: the path below which streams are; None where there are no streams.
    """

    def __init__(self, base: bytes | None) -> None:
        where = "" if base is None else f" Streams are at {base.decode('latin-1').rstrip('/')}/NAME."
        super().__init__("There is nothing at this path." + where)


class WrongVersion(errors.StreamsError):
    """The request is of a version of HTTP that the server does not speak, or that is switched off."""


class UnsupportedEncoding(errors.StreamsError):
    """The body has a content coding (RFC 9110 section 8.4) that the server does not decode."""


class OriginNotAllowed(errors.StreamsError):
    """The page that sends the write is of an origin that ``http.cors_origins`` does not list."""


class InvalidUpload(errors.StreamsError):
    """The body is not a valid document or archive. Nothing was written."""


class KeyNotRotated(errors.StreamsError):
    """The key that signs webhooks was not rotated."""


class ImportConflict(errors.StreamsError):
    """A stream of an import or a restore exists already. Nothing was written."""


class ImportRunning(errors.StreamsError):
    """Another import or restore has not ended. Nothing was written."""


class PartialImport(errors.StreamsError):
    """
    An import or a restore has stopped; what it has written stays.

    :ivar stream: the name of the stream that could not be written.
    :ivar completed: how many streams were written.
    :ivar later: the names of streams after ``stream`` that are written nevertheless.
    """

    def __init__(self, message: str, stream: str, completed: int, later: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.stream = stream
        self.completed = completed
        self.later = later


class InternalError(errors.StreamsError):
    """An unexpected error, which is in the log."""

    def __init__(self) -> None:
        super().__init__("Something is wrong with the server. Its log says what.")


def client_gone() -> errors.Unavailable:
    """Return the error of a request that was cancelled because its client has closed the connection."""
    return errors.Unavailable("The request was cancelled, as its client has closed the connection. Send it again.")


#: The HTTP form of each error: the status, the code for programs, the title for people.
CATALOGUE: Final[dict[type[errors.StreamsError], tuple[int, str, str]]] = {
    BadFraming: (400, "BAD_REQUEST", "Bad Request"),
    errors.InvalidRequest: (400, "BAD_REQUEST", "Bad Request"),
    errors.InvalidOffset: (400, "INVALID_OFFSET", "Invalid Offset"),
    errors.InvalidName: (400, "INVALID_STREAM_NAME", "Invalid Stream Name"),
    errors.InvalidJson: (400, "INVALID_JSON", "Invalid JSON"),
    errors.EmptyBody: (400, "EMPTY_BODY", "Empty Body"),
    errors.EmptyArray: (400, "EMPTY_ARRAY", "Empty Array"),
    InvalidUpload: (400, "INVALID_UPLOAD", "Invalid Document Or Archive"),
    errors.NotAuthenticated: (401, "UNAUTHORIZED", "Unauthorized"),
    errors.NotAllowed: (403, "FORBIDDEN", "Forbidden"),
    errors.WriterFenced: (403, "PRODUCER_EPOCH_FENCED", "Producer Epoch Fenced"),
    OriginNotAllowed: (403, "ORIGIN_NOT_ALLOWED", "Origin Not Allowed"),
    errors.StreamNotFound: (404, "NOT_FOUND", "Stream Not Found"),
    errors.EmptyName: (404, "NOT_FOUND", "Not Found"),
    NoSuchPath: (404, "NOT_FOUND", "Not Found"),
    MethodNotAllowed: (405, "METHOD_NOT_ALLOWED", "Method Not Allowed"),
    RequestTimeout: (408, "REQUEST_TIMEOUT", "Request Timeout"),
    errors.StreamExists: (409, "ALREADY_EXISTS", "Stream Already Exists"),
    errors.ContentTypeMismatch: (409, "CONTENT_TYPE_MISMATCH", "Content Type Mismatch"),
    errors.StreamClosed: (409, "STREAM_CLOSED", "Stream Closed"),
    errors.SequenceConflict: (409, "SEQUENCE_CONFLICT", "Sequence Conflict"),
    errors.OffsetConflict: (409, "OFFSET_CONFLICT", "Offset Conflict"),
    errors.WriterGap: (409, "SEQUENCE_CONFLICT", "Sequence Conflict"),
    errors.ForkFromDeleted: (409, "FORK_FROM_TOMBSTONE", "Fork From Deleted Stream"),
    errors.PathBlocked: (409, "PATH_BLOCKED", "Stream Path Blocked"),
    errors.ReplacementHasForks: (409, "REPLACEMENT_HAS_FORKS", "Replacement Has Forks"),
    errors.ValuesChanged: (409, "VALUES_CHANGED", "Values Changed"),
    KeyNotRotated: (409, "KEY_NOT_ROTATED", "Key Not Rotated"),
    ImportConflict: (409, "IMPORT_CONFLICT", "Import Conflict"),
    ImportRunning: (409, "IMPORT_RUNNING", "Import Running"),
    errors.StreamGone: (410, "GONE", "Stream Gone"),
    errors.OffsetGone: (410, "GONE", "Stream Gone"),
    errors.BodyTooLarge: (413, "REQUEST_BODY_TOO_LARGE", "Request Body Too Large"),
    errors.StreamFull: (413, "PAYLOAD_TOO_LARGE", "Payload Too Large"),
    errors.StorageFull: (413, "PAYLOAD_TOO_LARGE", "Payload Too Large"),
    TargetTooLong: (414, "TARGET_TOO_LONG", "Target Too Long"),
    UnsupportedEncoding: (415, "UNSUPPORTED_CONTENT_ENCODING", "Unsupported Content Encoding"),
    errors.RateLimited: (429, "RATE_LIMITED", "Too Many Requests"),
    HeadersTooLarge: (431, "HEADERS_TOO_LARGE", "Request Header Fields Too Large"),
    InternalError: (500, "INTERNAL_ERROR", "Internal Server Error"),
    PartialImport: (500, "PARTIAL_IMPORT", "Partial Import"),
    errors.DataDamaged: (500, "DATA_DAMAGED", "Stored Data Damaged"),
    errors.Unavailable: (503, "UNAVAILABLE", "Service Unavailable"),
    WrongVersion: (505, "VERSION_NOT_SUPPORTED", "HTTP Version Not Supported"),
    errors.InsufficientStorage: (507, "INSUFFICIENT_STORAGE", "Insufficient Storage"),
}

_Entry = tuple[int, str, str]


class Problem(Struct):
    """
    An ``application/problem+json`` body (RFC 9457).

    :ivar stream: of a :exc:`PartialImport`, the stream that could not be written.
    :ivar completed: of a :exc:`PartialImport`, how many streams were written.
    :ivar later: of a :exc:`PartialImport`, the streams after ``stream`` that are written nevertheless.
    :ivar violated_policies: of a :exc:`.RateLimited`, the names of the quotas that are used up.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    stream: str | UnsetType = UNSET
    completed: int | UnsetType = UNSET
    later: tuple[str, ...] | UnsetType = UNSET
    violated_policies: tuple[str, ...] | UnsetType = msgspec.field(default=UNSET, name="violated-policies")


class ErrorReport(Struct, frozen=True, gc=False):
    """
    The fields of an error for logs and traces.

    It replaces the exception, whose traceback holds the frames of the request, and with them the request's body.

    :ivar code: the code that programs read.
    :ivar kind: the name of the exception's class.
    :ivar message: the sentence that the client was sent.
    :ivar retry_after: the Retry-After of the answer, in seconds; None without one.
    """

    code: str
    kind: str
    message: str
    retry_after: int | None = None


def problem(error: errors.StreamsError, instance: str) -> tuple[int, bytes, bytes, ErrorReport]:
    """
    Render an error as HTTP.

    :param instance: the request's path and query, or empty if there is no request.
    :returns: the status, the header lines, the body, and what to record.
    """
    kind = type(error)
    status, code, title = _entry(kind)
    slug = "internal" if code == "INTERNAL_ERROR" else code.lower().replace("_", "-")
    message = str(error)
    report = Problem(f"/errors/{slug}", title, status, code, message, instance)
    if isinstance(error, PartialImport):
        report.stream, report.completed, report.later = error.stream, error.completed, error.later
    elif isinstance(error, errors.RateLimited):
        report.violated_policies = (error.quota,)
    body = msgspec.json.encode(report)
    lines = b"Content-Type: application/problem+json\r\n" + _lines(error)
    retry_after = _retry_after(error)
    return status, lines, body, ErrorReport(code, kind.__name__, message, retry_after)


def _retry_after(error: errors.StreamsError) -> int | None:
    if isinstance(error, errors.RateLimited):
        return error.retry_after
    return _RETRY_AFTER if isinstance(error, errors.Unavailable) else None


def _entry(kind: type) -> _Entry:
    """Return the catalogue entry of an error's class, or of its nearest base."""
    for ancestor in kind.__mro__:
        if ancestor in CATALOGUE:
            return CATALOGUE[ancestor]
    return CATALOGUE[InternalError]


def _next_offset(error: errors.StreamClosed | errors.SequenceConflict | errors.OffsetConflict) -> bytes:
    return f"Stream-Next-Offset: {Offset(error.incarnation, error.tail)}\r\n".encode()


def _lines(error: errors.StreamsError) -> bytes:
    """Return the header lines with an error's fields."""
    match error:
        case errors.StreamClosed():
            return b"Stream-Closed: true\r\n" + _next_offset(error)
        case errors.SequenceConflict() | errors.OffsetConflict():
            return _next_offset(error)
        case errors.WriterFenced():
            return b"Producer-Epoch: %d\r\n" % error.epoch
        case errors.WriterGap():
            return b"Producer-Expected-Seq: %d\r\nProducer-Received-Seq: %d\r\n" % (error.expected, error.received)
        case errors.Unavailable():
            return b"Retry-After: %d\r\n" % _RETRY_AFTER
        case _:
            return _http_lines(error)


def _http_lines(error: errors.StreamsError) -> bytes:
    """Return the header lines of an error that is about no stream."""
    match error:
        case errors.NotAuthenticated() | errors.NotAllowed():
            challenge = error.challenge
            return b"" if challenge is None else b"WWW-Authenticate: %b\r\n" % challenge.encode("latin-1")
        case errors.RateLimited():
            # draft-ietf-httpapi-ratelimit-headers-10
            policy = b"RateLimit-Policy: %b\r\n" % error.policy.encode()
            limit = b'RateLimit: "%b";r=0;t=%d\r\n' % (error.quota.encode(), error.retry_after)
            return b"Retry-After: %d\r\n" % error.retry_after + policy + limit
        case UnsupportedEncoding():
            return b"Accept-Encoding: identity\r\n"
        case MethodNotAllowed():
            return b"Allow: %b\r\n" % error.methods
        case _:
            return b""
