"""Checks of the arguments of methods, by the rules of the corresponding headers."""

from __future__ import annotations

from math import isfinite
from typing import TypeAlias

from ..errors import EmptyArray, EmptyBody, InvalidName, InvalidOffset, InvalidRequest
from ..model import Fork, Lifetime, Offset, Writer
from ..protocol.content import media_type
from ..protocol.lifetimes import parse_lifetime
from ..protocol.messages import wire_form
from ..protocol.names import NameLimits, check_name
from ..protocol.offsets import parse_offset
from ..web.writes import MAX_CONTENT_TYPE, MAX_INTEGER, MAX_SEQUENCE, MAX_WRITER_ID

#: One payload, or several that are appended in one step.
Data: TypeAlias = "bytes | tuple[bytes, ...]"


def as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """
    Return the data as bytes. Mutable data is copied, because it may change before it is written.

    :raises TypeError: the data is of another type, such as str.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"Data must be bytes, not {type(data).__name__}. Encode it first.")


def checked_type(content_type: str) -> str:
    """
    Return the media type of a content type, for comparison.

    :raises InvalidRequest: it is malformed or too long.
    """
    if len(content_type) > MAX_CONTENT_TYPE:
        raise InvalidRequest(f"Content-Type must not be longer than {MAX_CONTENT_TYPE} bytes.")
    return media_type(content_type)


def lifetime_of(ttl: int | None, expires_at: float | None) -> Lifetime:
    """
    Return the lifetime of these arguments.

    :raises InvalidRequest: both are given, or the value is out of range.
    """
    if ttl is not None or expires_at is None:
        return parse_lifetime(None if ttl is None else str(ttl), None if expires_at is None else str(expires_at))
    if not isfinite(expires_at):
        raise InvalidRequest("expires_at must be a time in seconds since 1970.")
    return Lifetime(expires_at=float(expires_at))


def check_fork(fork: Fork, limits: NameLimits) -> None:
    """
    Check the source and the sub-offset of a fork.

    :raises InvalidRequest: the source's name or the sub-offset is invalid.
    """
    try:
        check_name(fork.source, limits)
    except InvalidName as error:
        raise InvalidRequest(f"The source of the fork is not a valid stream name. {error}") from None
    _check_integer(fork.sub_offset, "The sub-offset")


def fork_offset(offset: str | Offset | None) -> Offset | None:
    """
    Parse the offset of a fork.

    :raises InvalidRequest: it is not an offset.
    """
    if not isinstance(offset, str):
        return offset
    try:
        return parse_offset(offset)
    except InvalidOffset:
        raise InvalidRequest("The offset of a fork must be -1, or a next_offset of the source.") from None


def check_guards(sequence: bytes | None, writer: Writer | None) -> None:
    """
    Check Stream-Seq and the writer of an append.

    :raises InvalidRequest: one of them is invalid.
    """
    if sequence is not None and len(sequence) > MAX_SEQUENCE:
        raise InvalidRequest(f"Stream-Seq must not be longer than {MAX_SEQUENCE} bytes.")
    if writer is not None:
        check_writer(writer)


def check_writer(writer: Writer) -> None:
    """
    Check a writer.

    :raises InvalidRequest: its id, epoch or sequence number is invalid.
    """
    try:
        size = len(writer.id.encode("latin-1"))
    except UnicodeEncodeError:
        raise InvalidRequest("Producer-Id must be in Latin-1, as a header is.") from None
    if not 0 < size <= MAX_WRITER_ID:
        raise InvalidRequest(f"Producer-Id must have between 1 and {MAX_WRITER_ID} bytes.")
    _check_integer(writer.epoch, "Producer-Epoch")
    _check_integer(writer.seq, "Producer-Seq")


def _check_integer(value: int, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise InvalidRequest(f"{what} must be a whole number from 0 to {MAX_INTEGER}.")


def check_data(data: Data, close: bool) -> None:
    """
    Check that an append has data or closes the stream.

    :raises EmptyArray: the batch is empty.
    :raises EmptyBody: there is no data, and the stream is not closed.
    """
    if data == ():
        raise EmptyArray("The batch has no messages. Append one at least.")
    if not close and not (data if isinstance(data, bytes) else any(data)):
        raise EmptyBody("There is no data. Append some, or close the stream.")


def wire_data(data: Data, json: bool) -> bytes:
    """
    Convert data to the stream's wire form: one payload like the body of a POST, several to one append.

    :raises InvalidJson: the stream is in JSON mode, and the data is not JSON.
    :raises EmptyArray: the data is an empty array.
    """
    if isinstance(data, bytes):
        return wire_form(data) if json and data else data
    if not json:
        return b"".join(data)
    for payload in data:
        wire_form(payload, empty_allowed=True)
    return b"".join([payload.strip(b" \t\r\n") + b"," for payload in data])
