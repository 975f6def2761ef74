"""What a program gives to a method, checked by the rules that headers are checked by."""

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
from ..web.requests import MAX_CONTENT_TYPE, MAX_INTEGER, MAX_SEQUENCE, MAX_WRITER_ID

#: A payload that is appended, or several in one step.
Data: TypeAlias = "bytes | tuple[bytes, ...]"


def as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """
    Take data as it is now; what is mutable may change before it is written.

    :raises TypeError: it is something else, such as text, which has to be encoded first.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"Data must be bytes, not {type(data).__name__}. Encode it first.")


def checked_type(content_type: str) -> str:
    """
    Take from a content type what is compared.

    :raises InvalidRequest: it is none, or too long.
    """
    if len(content_type) > MAX_CONTENT_TYPE:
        raise InvalidRequest(f"Content-Type must not be longer than {MAX_CONTENT_TYPE} bytes.")
    return media_type(content_type)


def lifetime_of(ttl: int | None, expires_at: float | None) -> Lifetime:
    """
    Put together a lifetime.

    :raises InvalidRequest: there are both, or the one there is can't be.
    """
    if ttl is not None or expires_at is None:
        return parse_lifetime(None if ttl is None else str(ttl), None if expires_at is None else str(expires_at))
    if not isfinite(expires_at):
        raise InvalidRequest("expires_at must be a time in seconds since 1970.")
    return Lifetime(expires_at=float(expires_at))


def check_fork(fork: Fork, limits: NameLimits) -> None:
    """
    Refuse a fork that can't be.

    :raises InvalidRequest: the source's name is none, or the sub-offset can't be.
    """
    try:
        check_name(fork.source, limits)
    except InvalidName as error:
        raise InvalidRequest(f"The source of a fork names no stream. {error}") from None
    _check_integer(fork.sub_offset, "The sub-offset")


def fork_offset(offset: str | Offset | None) -> Offset | None:
    """
    Read where a fork is to begin.

    :raises InvalidRequest: it is no offset.
    """
    if not isinstance(offset, str):
        return offset
    try:
        return parse_offset(offset)
    except InvalidOffset:
        raise InvalidRequest("The offset of a fork must be -1, or a next_offset of the source.") from None


def check_guards(sequence: bytes | None, writer: Writer | None) -> None:
    """
    Refuse what can't guard an append.

    :raises InvalidRequest: the message says why.
    """
    if sequence is not None and len(sequence) > MAX_SEQUENCE:
        raise InvalidRequest(f"Stream-Seq must not be longer than {MAX_SEQUENCE} bytes.")
    if writer is not None:
        check_writer(writer)


def check_writer(writer: Writer) -> None:
    """
    Refuse a writer that can't be.

    :raises InvalidRequest: its name or its numbers can't be.
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
    Refuse an append of nothing.

    :raises EmptyArray: it is a batch of nothing.
    :raises EmptyBody: there is not a byte, and nothing to close.
    """
    if data == ():
        raise EmptyArray("The batch has no messages. Append one at least.")
    if not close and not (data if isinstance(data, bytes) else any(data)):
        raise EmptyBody("There is no data. Append some, or close the stream.")


def wire_data(data: Data, json: bool) -> bytes:
    """
    Bring what is appended into a stream's wire form: as a body of a POST, or several payloads as one append.

    :raises InvalidJson: the stream is JSON, and the data is not.
    :raises EmptyArray: it is an array of nothing.
    """
    if isinstance(data, bytes):
        return wire_form(data) if json and data else data
    if not json:
        return b"".join(data)
    for payload in data:
        wire_form(payload, empty_allowed=True)
    return b"".join([payload.strip(b" \t\r\n") + b"," for payload in data])
