"""The headers and bodies of POST and PUT requests become the values of :mod:`..model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..errors import EmptyBody, InvalidName, InvalidOffset, InvalidRequest
from ..model import NOW, Append, Fork, StreamConfig, Writer
from ..protocol.content import JSON_TYPE, media_type
from ..protocol.lifetimes import parse_lifetime
from ..protocol.messages import wire_form
from ..protocol.offsets import parse_expected, parse_offset
from .problems import UnsupportedEncoding
from .requests import StreamRequest

#: What the ids of the server's own writers begin with: those of wake events.
_RESERVED_WRITERS: Final = b"__ds:"

#: The largest epoch and sequence number of a producer: JavaScript's largest exact integer.
MAX_INTEGER: Final = 2**53 - 1

#: The longest Producer-Id, Stream-Seq and Content-Type, in bytes: a stream remembers them.
MAX_WRITER_ID: Final = 1024
MAX_SEQUENCE: Final = 1024
MAX_CONTENT_TYPE: Final = 512

_MAX_DIGITS: Final = len(str(MAX_INTEGER))
_ZERO: Final = ord("0")

#: Zero, and what epochs usually are.
_SMALL_INTEGERS: Final = {str(number).encode(): number for number in range(100)}


def read_append(request: StreamRequest) -> Append:
    """
    Read a POST (PROTOCOL section 5.2).

    :raises InvalidRequest: Content-Type is missing, or a header can't be understood.
    :raises EmptyBody: there is no body, and nothing to close.
    :raises UnsupportedEncoding: the body is compressed.
    :raises InvalidJson: the body says that it is JSON, and is not.
    :raises EmptyArray: the body is an array of nothing.
    """
    headers = request.headers
    data = request.body
    close = is_true(headers.get(b"stream-closed"))
    media = None
    if data or not close:
        content_type = headers.get(b"content-type")
        if content_type is None:
            raise InvalidRequest("Content-Type is missing. Send the stream's.")
        media = _media_type(content_type)
    writer = None
    if b"producer-id" in headers or b"producer-epoch" in headers or b"producer-seq" in headers:
        writer = _read_writer(headers)
    if data:
        if b"content-encoding" in headers:
            _check_encoding(headers[b"content-encoding"])
        if media == JSON_TYPE:
            data = wire_form(data)
    elif not close:
        raise EmptyBody("The body is empty. Send data, or Stream-Closed: true to close the stream.")
    sequence = headers.get(b"stream-seq")
    if sequence is not None and len(sequence) > MAX_SEQUENCE:
        raise InvalidRequest(f"Stream-Seq must not be longer than {MAX_SEQUENCE} bytes.")
    expected = headers.get(b"stream-expected-offset")
    if expected is None:
        return Append(media, data, close, sequence, writer)
    return Append(media, data, close, sequence, writer, parse_expected(expected.decode("latin-1")))


def read_creation(request: StreamRequest, read_name: Callable[[bytes], str]) -> StreamConfig:
    """
    Read the headers of a PUT (PROTOCOL section 5.1): the configuration of the stream.

    :raises InvalidRequest: a header can't be understood, or two of them exclude each other.
    :raises UnsupportedEncoding: the body is compressed.
    """
    headers = request.headers
    if request.body and b"content-encoding" in headers:
        _check_encoding(headers[b"content-encoding"])
    content_type = _text(headers, b"content-type")
    if content_type is not None:
        if len(content_type) > MAX_CONTENT_TYPE:
            raise InvalidRequest(f"Content-Type must not be longer than {MAX_CONTENT_TYPE} bytes.")
        media_type(content_type)
    lifetime = parse_lifetime(_text(headers, b"stream-ttl"), _text(headers, b"stream-expires-at"))
    closed = is_true(headers.get(b"stream-closed"))
    fork = _read_fork(request, read_name)
    return StreamConfig(content_type, lifetime, closed, fork)


def _check_encoding(value: bytes) -> None:
    """
    Check that a body is not encoded.

    :raises UnsupportedEncoding: a content coding other than identity was applied (RFC 9110 section 8.4).
    """
    for coding in value.split(b","):
        if coding.strip().lower() not in (b"identity", b""):
            raise UnsupportedEncoding("The body has a Content-Encoding. Send it uncompressed, without that header.")


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1").strip(" \t")


def is_true(value: bytes | None) -> bool:
    """Return whether the value of a header such as Stream-Closed is ``true``."""
    return value is not None and value.strip().lower() == b"true"


_media_types: dict[bytes, str] = {}


def _media_type(value: bytes) -> str:
    media = _media_types.get(value)
    if media is None:
        media = media_type(value.decode("latin-1").strip(" \t"))
        if len(_media_types) < 256 and len(value) < 128:
            _media_types[value] = media
    return media


def _read_writer(headers: dict[bytes, bytes]) -> Writer:
    writer_id = headers.get(b"producer-id")
    epoch = headers.get(b"producer-epoch")
    seq = headers.get(b"producer-seq")
    if writer_id is None or epoch is None or seq is None:
        raise InvalidRequest("Producer-Id, Producer-Epoch and Producer-Seq go together. Send all three, or none.")
    if not writer_id or len(writer_id) > MAX_WRITER_ID:
        raise InvalidRequest(f"Producer-Id must have between 1 and {MAX_WRITER_ID} bytes.")
    if writer_id.startswith(_RESERVED_WRITERS):
        raise InvalidRequest("Producer-Id must not begin with __ds:, which is reserved for the server's own appends.")
    return Writer(
        writer_id.decode("latin-1"), _read_integer(epoch, "Producer-Epoch"), _read_integer(seq, "Producer-Seq")
    )


def _read_integer(value: bytes, header: str) -> int:
    number = _SMALL_INTEGERS.get(value)
    if number is not None:
        return number
    # A regular expression takes 4 % of an append of an idempotent producer.
    if value.isdigit() and value[0] != _ZERO and len(value) <= _MAX_DIGITS:
        number = int(value)
        if number <= MAX_INTEGER:
            return number
    raise InvalidRequest(f"{header} must be a whole number in plain digits, up to {MAX_INTEGER}.")


def fork_source(request: StreamRequest, read_name: Callable[[bytes], str]) -> str | None:
    """
    Return the name of the stream that a PUT forks; None if it forks none.

    :raises InvalidRequest: Stream-Forked-From is not the path or the name of a stream of this server.
    """
    source = request.headers.get(b"stream-forked-from")
    if source is None:
        return None
    path = source.strip()
    if b"?" in path:
        # The query of a signed URL would become part of a name, and of logs.
        raise InvalidRequest("Stream-Forked-From must have no query. Write a ? that belongs to a name as %3F.")
    if path.startswith(b"/"):
        if not path.startswith(request.mount):
            raise InvalidRequest("Stream-Forked-From must be the path of a stream of this server, or its name.")
        path = path[len(request.mount) :]
    try:
        return read_name(path)
    except InvalidName as error:
        raise InvalidRequest(f"Stream-Forked-From names no stream. {error}") from None


def _read_fork(request: StreamRequest, read_name: Callable[[bytes], str]) -> Fork | None:
    headers = request.headers
    offset = _text(headers, b"stream-fork-offset")
    sub_offset = headers.get(b"stream-fork-sub-offset")
    name = fork_source(request, read_name)
    if name is None:
        if offset is not None or sub_offset is not None:
            raise InvalidRequest("Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From.")
        return None
    try:
        place = None if offset is None else parse_offset(offset)
    except InvalidOffset:
        raise InvalidRequest("Stream-Fork-Offset must be -1, or a Stream-Next-Offset of the source.") from None
    if place == NOW:
        raise InvalidRequest("Stream-Fork-Offset must not be now. Leave it out to fork at the source's tail.")
    return Fork(name, place, _read_integer(sub_offset, "Stream-Fork-Sub-Offset") if sub_offset is not None else 0)
