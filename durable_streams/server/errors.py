"""The exceptions of requests and storages. :mod:`.web.problems` maps them to HTTP.

Each message is one or two sentences that tell the caller what to change.
"""

from __future__ import annotations


class StreamsError(Exception):
    """The base class of all errors that a request can end with."""


class InvalidRequest(StreamsError):
    """A header or query parameter is malformed."""


class InvalidOffset(StreamsError):
    """The offset is malformed, or no stream of this name ever had it."""


class InvalidName(StreamsError):
    """The path is not the name of a stream."""


class EmptyName(InvalidName):
    """The path is the base path, without the name of a stream."""


class InvalidJson(StreamsError):
    """The body for a JSON stream is not valid JSON."""


class EmptyBody(StreamsError):
    """An append has neither data nor Stream-Closed."""


class EmptyArray(StreamsError):
    """An append to a JSON stream is an empty array."""


class BodyTooLarge(StreamsError):
    """The request's body exceeds ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The body is larger than {limit} bytes (limits.max_request_body_bytes). Send it as several appends."
        )
        self.limit = limit


class RateLimited(StreamsError):
    """
    A quota is used up (``quotas.*``). Nothing was written.

    :ivar quota: the name of the quota, such as ``requests-by-address``.
    :ivar policy: the quota as an item of the field RateLimit-Policy.
    :ivar retry_after: in how many seconds the same request may be allowed.
    """

    def __init__(self, message: str, quota: str, policy: str, retry_after: int) -> None:
        super().__init__(message)
        self.quota = quota
        self.policy = policy
        self.retry_after = retry_after


class NotAuthenticated(StreamsError):
    """
    The request has no valid credentials.

    :ivar challenge: what WWW-Authenticate asks for (RFC 9110 section 11.6.1).
    """

    def __init__(self, message: str, challenge: str = "Bearer") -> None:
        super().__init__(message)
        self.challenge = challenge


class NotAllowed(StreamsError):
    """
    The client may not do this.

    :ivar challenge: what WWW-Authenticate says (RFC 6750 section 3.1); None for nothing.
    """

    def __init__(self, message: str, challenge: str | None = None) -> None:
        super().__init__(message)
        self.challenge = challenge


class StreamError(StreamsError):
    """The base class of errors about one stream; ``name`` is its name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class StreamNotFound(StreamError):
    """The stream does not exist, or has expired."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"There is no stream {name}. Create it first.")


class StreamGone(StreamError):
    """The stream was deleted, and is kept for its forks."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name, "The stream was deleted. Its name can be used again after the last of its forks is deleted."
        )


class OffsetGone(StreamError):
    """The offset belongs to an earlier, deleted stream of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            "The offset belongs to an earlier stream of this name, which was deleted. Read again from offset -1.",
        )


class StreamExists(StreamError):
    """A stream of this name exists with another configuration; ``difference`` names the differing part."""

    def __init__(self, name: str, difference: str) -> None:
        super().__init__(name, f"A stream of this name exists with another {difference}.")
        self.difference = difference


class PathBlocked(StreamError):
    """The name belongs to a deleted stream that still has forks."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "A deleted stream of this name still has forks. Delete them first, or use another name.")


class ReplacementHasForks(StreamError):
    """The stream that is to be replaced has forks."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            f"The stream {name} has forks, so it cannot be replaced. Delete its forks first, or use another name.",
        )


class ForkFromDeleted(StreamError):
    """The source of a fork was deleted."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "The source stream was deleted and can't be forked any more.")


class ContentTypeMismatch(StreamError):
    """The content type of an append or a fork differs from that of the stream or the fork's source."""

    def __init__(self, name: str, expected: str, received: str) -> None:
        super().__init__(
            name, f"The stream's content type is {expected}, the request's {received}. Send the stream's content type."
        )
        self.expected = expected
        self.received = received


class StreamClosed(StreamError):
    """The stream is closed to appends; ``incarnation`` and ``tail`` are its final offset."""

    def __init__(self, name: str, incarnation: int, tail: int) -> None:
        super().__init__(name, "The stream is closed. Append to another stream.")
        self.incarnation = incarnation
        self.tail = tail


class SequenceConflict(StreamError):
    """Stream-Seq is not greater than that of the last append; ``incarnation`` and ``tail`` are the stream's tail."""

    def __init__(self, name: str, incarnation: int, tail: int) -> None:
        super().__init__(
            name, "Stream-Seq is not greater, compared byte by byte, than that of the stream's last append."
        )
        self.incarnation = incarnation
        self.tail = tail


class OffsetConflict(StreamError):
    """The expected offset is not the stream's tail, which is ``incarnation`` and ``tail``."""

    def __init__(self, name: str, incarnation: int, tail: int) -> None:
        super().__init__(
            name,
            "Stream-Expected-Offset is not the stream's tail. Read up to Stream-Next-Offset, then append again with "
            "that offset.",
        )
        self.incarnation = incarnation
        self.tail = tail


class WriterFenced(StreamError):
    """The producer's epoch is older than the one that the stream has recorded."""

    def __init__(self, name: str, epoch: int) -> None:
        super().__init__(
            name, f"The producer's current epoch is {epoch}. Stop this producer, or start a higher epoch to take over."
        )
        self.epoch = epoch


class WriterGap(StreamError):
    """The producer's sequence number is not the next one."""

    def __init__(self, name: str, expected: int, received: int) -> None:
        super().__init__(
            name, f"Producer-Seq is {received}, but {expected} is expected next. Send the missing appends first."
        )
        self.expected = expected
        self.received = received


class StreamFull(StreamError):
    """The write would take the stream over ``limit`` bytes."""

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


class ValuesChanged(StreamsError):
    """A value of the storage is not the expected one; ``key`` is its key. Nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The value of {key} is not the expected one: another write has changed it. Read it again.")
        self.key = key


class DataDamaged(StreamError):
    """The checksum of data on disk does not match. The data is not served; the log names the file."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            "The requested data is damaged on the server's disk and is not served. The server's log names the file. "
            "Restore it from a backup, or read from an offset after the damage.",
        )


class InsufficientStorage(StreamsError):
    """The disk is full, or the limit of streams or metadata is reached."""


class Unavailable(StreamsError):
    """The service cannot handle the request now: it is starting, stopping or overloaded. Retry later."""


class StorageError(Exception):
    """The storage cannot be opened; the message says what is wrong, where, and what to do."""


class StorageInUse(StorageError):
    """The data directory is locked by another process; ``process`` is its id as text, or ``unknown``."""

    def __init__(self, where: str, process: str) -> None:
        super().__init__(
            f"The data directory {where} is in use by process {process}. Stop that one first, or set storage.data_dir "
            "to another directory."
        )
        self.process = process


class StorageDamaged(StorageError):
    """The storage cannot be opened because acknowledged data is missing or damaged."""


class StorageOwned(RuntimeError):
    """The storage is already used by another service."""
