"""What can go wrong with a request, as exceptions with fields. How HTTP says it is :mod:`.web.answers`' business.

Each message is one sentence, or two, that tells the caller what to change.
"""

from __future__ import annotations


class StreamsError(Exception):
    """The base of every error that a caller can cause or must be told of."""


class InvalidRequest(StreamsError):
    """A header or a query parameter cannot be understood."""


class InvalidOffset(StreamsError):
    """The offset is malformed, or no stream of this name ever gave it out."""


class InvalidName(StreamsError):
    """The path does not name a stream."""


class EmptyName(InvalidName):
    """The path ends where a stream's name would begin."""


class InvalidJson(StreamsError):
    """A JSON stream was sent something else."""


class EmptyBody(StreamsError):
    """An append without data that does not close."""


class EmptyArray(StreamsError):
    """An append of no messages."""


class BodyTooLarge(StreamsError):
    """The request's body is over the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than {limit} bytes. Send it as several appends.")
        self.limit = limit


class StreamError(StreamsError):
    """An error about one stream, whose name is in ``name``."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class StreamNotFound(StreamError):
    """There is no such stream, or it has expired."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"There is no stream {name}. Create it first.")


class StreamGone(StreamError):
    """The stream was deleted, and forks still read its data."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "The stream was deleted; its name is free again when the last of its forks is deleted.")


class OffsetGone(StreamError):
    """The offset is one of an earlier stream of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            "The offset belongs to an earlier stream of this name, which was deleted. Read again from offset -1.",
        )


class StreamExists(StreamError):
    """A creation differs from the stream that is there; ``difference`` says in what."""

    def __init__(self, name: str, difference: str) -> None:
        super().__init__(name, f"A stream of this name exists with another {difference}.")
        self.difference = difference


class PathBlocked(StreamError):
    """A deleted stream that still has forks holds the name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "A deleted stream of this name still has forks. Delete them first, or use another name.")


class ForkFromDeleted(StreamError):
    """The source of a fork was deleted."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "The source stream was deleted and can't be forked any more.")


class ContentTypeMismatch(StreamError):
    """The data, or the fork, has another content type than the stream, or the source."""

    def __init__(self, name: str, expected: str, received: str) -> None:
        super().__init__(name, f"The stream is {expected}, the request {received}. Send the stream's type.")
        self.expected = expected
        self.received = received


class StreamClosed(StreamError):
    """Nothing can be appended any more; ``offset`` is the final one."""

    def __init__(self, name: str, incarnation: int, tail: int) -> None:
        super().__init__(name, "The stream is closed: it takes no more appends.")
        self.incarnation = incarnation
        self.tail = tail


class SequenceConflict(StreamError):
    """Stream-Seq is not greater than that of the last append."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name, "Stream-Seq is not greater, compared byte by byte, than that of the stream's last append."
        )


class WriterFenced(StreamError):
    """The producer's epoch is older than the one that the stream knows."""

    def __init__(self, name: str, epoch: int) -> None:
        super().__init__(
            name, f"Another producer took over with epoch {epoch}. To take over from it, start a higher epoch."
        )
        self.epoch = epoch


class WriterGap(StreamError):
    """The producer's sequence number leaves some out."""

    def __init__(self, name: str, expected: int, received: int) -> None:
        super().__init__(name, f"Producer-Seq {expected} comes next, not {received}. Send what is missing first.")
        self.expected = expected
        self.received = received


class StreamFull(StreamError):
    """The append would take the stream over ``limit`` bytes."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(
            name,
            f"The stream would exceed {limit} bytes (limits.max_stream_bytes). Continue in another stream, or raise "
            "the limit.",
        )
        self.limit = limit


class StorageFull(StreamError):
    """The write would take all streams together over ``limit`` bytes."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(
            name,
            f"All streams together would exceed {limit} bytes (limits.max_total_bytes). Delete streams that are no "
            "longer needed, or raise the limit.",
        )
        self.limit = limit


class DataDamaged(StreamError):
    """Bytes of the stream on disk are not as they were written; the log names the place. They are never served."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            "Bytes of the stream that were asked for are damaged on the server's disk, and are not served. The log of "
            "the server names the place. Restore them from a backup, or read from an offset after them.",
        )


class InsufficientStorage(StreamsError):
    """The storage has no room of another kind: a full disk, too many streams, too many producers."""


class Unavailable(StreamsError):
    """The service takes no requests just now: it starts, stops, or is over its load."""


class StorageError(Exception):
    """A storage can't be opened; the message says what is wrong, where, and what to do."""


class StorageDamaged(StorageError):
    """Something that was acknowledged is not there as it was written."""


class StorageOwned(RuntimeError):
    """A storage has a service, and was given to another."""
