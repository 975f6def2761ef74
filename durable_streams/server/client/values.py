"""What the client returns."""

from __future__ import annotations

from msgspec import Struct


class StreamInfo(Struct, frozen=True):
    """
    The metadata of a stream, as HEAD answers it.

    :ivar content_type: the content type, with its parameters.
    :ivar next_offset: the tail: the offset after the last byte.
    :ivar closed: whether the stream is closed.
    :ivar ttl: the time to live in seconds; None if the stream has none.
    :ivar expires_at: when the stream expires, as an RFC 3339 timestamp; None if it does not.
    """

    content_type: str
    next_offset: str
    closed: bool = False
    ttl: int | None = None
    expires_at: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether the stream is in JSON mode."""
        return media_type(self.content_type) == "application/json"


class CreateResult(Struct, frozen=True):
    """
    The outcome of a create or a fork.

    :ivar new: False if the stream existed already, with the same configuration. Its data is unchanged then.
    :ivar content_type: the stream's content type.
    :ivar next_offset: the tail.
    :ivar closed: whether the stream is closed.
    """

    new: bool
    content_type: str
    next_offset: str
    closed: bool = False


class AppendResult(Struct, frozen=True):
    """
    The outcome of an append.

    :ivar next_offset: the stream's tail after it; None if a server does not say that of a duplicate, as the reference
        server does.
    :ivar closed: whether the stream is closed.
    :ivar duplicate: whether the data was stored before, by an append with the same epoch and sequence number.
    :ivar last_seq: the last sequence number that the stream has of the producer; None for a plain append.
    """

    next_offset: str | None
    closed: bool = False
    duplicate: bool = False
    last_seq: int | None = None


class Batch(Struct, frozen=True):
    """
    Consecutive data of a stream.

    :ivar data: bytes of a byte stream; empty for a JSON stream.
    :ivar messages: messages of a JSON stream, each as it was appended; empty for a byte stream.
    :ivar next_offset: the offset after the batch, from which a read resumes; None inside of an answer that is not
        complete.
    :ivar up_to_date: whether the batch ends at the tail.
    :ivar closed: whether the stream is closed and this is its end.
    """

    data: bytes = b""
    messages: list[bytes] = []
    next_offset: str | None = None
    up_to_date: bool = False
    closed: bool = False


def media_type(content_type: str) -> str:
    """Return a content type in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()
