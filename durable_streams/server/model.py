"""Frozen values that modules pass to each other. Times are seconds since 1970 (UTC); sizes and positions are bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct


class Offset(Struct, frozen=True, gc=False):
    """A position in one incarnation of a stream (PROTOCOL section 8).

    :ivar incarnation: differs from that of every earlier stream of the same name; a fork has its root's.
    :ivar position: the number of bytes of the stream's wire form before the offset.
    """

    incarnation: int
    position: int

    def __str__(self) -> str:
        return f"{self.incarnation:016d}_{self.position:016d}"


#: The start of any stream: ``-1``, or sixteen zeros twice.
START: Final = Offset(0, 0)

#: The tail at the time of the request: ``now``.
NOW: Final = Offset(-1, -1)


class Lifetime(Struct, frozen=True, gc=False):
    """The expiry of a stream: ``ttl`` seconds after its last read or write, or at ``expires_at``, or never."""

    ttl: int | None = None
    expires_at: float | None = None


#: A stream that does not expire.
FOREVER: Final = Lifetime()


class Fork(Struct, frozen=True, gc=False):
    """The fork headers of a create request (PROTOCOL section 4.2).

    :ivar source: the source stream's name.
    :ivar offset: the offset at which the fork diverges; None for the source's tail at that time.
    :ivar sub_offset: JSON messages of a JSON source, bytes of any other, past ``offset``.
    """

    source: str
    offset: Offset | None = None
    sub_offset: int = 0


class ForkPoint(Struct, frozen=True, gc=False):
    """
    The result of a :exc:`.LongSearch`.

    :ivar fork: the fork that was searched for.
    :ivar source_id: the id of the source stream that was searched in.
    :ivar result: the position at which the fork diverges, or the error if there is none.
    """

    fork: Fork
    source_id: int
    result: int | str


class StreamConfig(Struct, frozen=True):
    """The configuration in a create request.

    :ivar content_type: as received, with parameters; None for the fork source's type, or the default.
    :ivar closed: whether the stream is closed after its initial body.
    """

    content_type: str | None = None
    lifetime: Lifetime = FOREVER
    closed: bool = False
    fork: Fork | None = None


class StreamFacts(Struct, frozen=True, gc=False):
    """The immutable metadata of a stream.

    :ivar id: unique among all streams that this storage has ever had.
    :ivar incarnation: the first part of the stream's offsets.
    :ivar media_type: the content type in lower case without its parameters.
    :ivar json: whether it is in JSON mode (PROTOCOL section 9.1).
    """

    name: str
    id: int
    incarnation: int
    content_type: str
    media_type: str
    json: bool


class Writer(Struct, frozen=True, gc=False):
    """The producer headers of an append (PROTOCOL section 5.2.1)."""

    id: str
    epoch: int
    seq: int


class WriterState(Struct, frozen=True, gc=False):
    """The last accepted append of an idempotent writer, and its time in seconds since 1970."""

    epoch: int
    seq: int
    seen: float


class Append(Struct, frozen=True, gc=False):
    """One append: data, a close, or both, with its preconditions.

    :ivar media_type: of the data; None if there is no data.
    :ivar data: in the stream's wire form (:mod:`durable_streams.server.protocol.messages` for JSON mode).
    :ivar sequence: Stream-Seq, compared byte by byte.
    :ivar expected: Stream-Expected-Offset: the append is rejected unless this is the stream's tail.
    """

    media_type: str | None
    data: bytes
    close: bool = False
    sequence: bytes | None = None
    writer: Writer | None = None
    expected: Offset | None = None


class Created(Struct, frozen=True, gc=False):
    """The result of a create; ``new`` is false if the stream existed already."""

    facts: StreamFacts
    tail: int
    closed: bool
    new: bool

    @property
    def next_offset(self) -> str:
        """The offset of the stream's tail: the HTTP header Stream-Next-Offset."""
        return str(Offset(self.facts.incarnation, self.tail))


class Appended(Struct, frozen=True, gc=False):
    """The result of an append.

    :ivar tail: the stream's tail after the append.
    :ivar writer: the writer's epoch and last accepted sequence number, if the append named a writer.
    :ivar duplicate: true if nothing was written because the same append was accepted before.
    """

    facts: StreamFacts
    tail: int
    closed: bool
    writer: WriterState | None = None
    duplicate: bool = False

    @property
    def next_offset(self) -> str:
        """The offset after this append: the HTTP header Stream-Next-Offset."""
        return str(Offset(self.facts.incarnation, self.tail))


class Chunk(Struct, frozen=True, gc=False):
    """The result of a read.

    :ivar start: the position of the first byte of ``data``: the start of an append.
    :ivar tail: the stream's tail at the time of the read; ``start + len(data)`` may be less.
    :ivar more: if whole appends were requested and the first one exceeds the limit, the number of its bytes after
        ``data``; 0 otherwise.
    """

    facts: StreamFacts
    start: int
    data: bytes
    tail: int
    closed: bool
    more: int = 0


class FileRange(Struct, frozen=True):
    """
    A range of a stream that one file has, verified and in the page cache. It is sent in the same reactor turn.

    :ivar size: the number of bytes.
    :ivar send: sends the beginning of it to the descriptor of a socket, without a copy in this process; returns the
        number of bytes sent, 0 if the file is not open any more. Raises OSError as ``sendfile`` does.
    """

    size: int
    send: Callable[[int], int]


class StreamStatus(Struct, frozen=True, gc=False):
    """The metadata of a stream: its facts, tail, closure, lifetime and times."""

    facts: StreamFacts
    tail: int
    closed: bool
    lifetime: Lifetime
    created_at: float
    updated_at: float


class KnownTail(Struct, frozen=True, gc=False):
    """
    The tail of a stream, as some node knows it.

    :ivar stream_id: 0 if there is no stream of this name; the incarnation and the tail are 0 then.
    :ivar tail: the number of bytes.
    """

    name: str
    stream_id: int = 0
    incarnation: int = 0
    tail: int = 0


class StreamRecord(Struct, frozen=True, gc=False):
    """
    All that a storage has of a stream besides its bytes, at one committed moment.

    :ivar config: as requested when it was created.
    :ivar lifetime: the effective one, which a fork may have from its source.
    :ivar tail: the position after the last byte.
    :ivar deleted: whether it was deleted and is kept for its forks only.
    :ivar sequence: the Stream-Seq of the last append that had one, or None.
    :ivar writers: the idempotent writers by id, the least recently accepted one first.
    :ivar used_at: when a TTL began to count: the time of the last use; without a TTL that of the last update.
    :ivar base: the position of the first own byte: the fork point, or 0.
    :ivar source: the name of the stream that it was forked from, or None.
    :ivar source_id: the id of that stream, or None.
    :ivar forks: the number of streams whose source it is.
    """

    facts: StreamFacts
    config: StreamConfig
    lifetime: Lifetime
    tail: int
    closed: bool
    deleted: bool
    sequence: bytes | None
    writers: dict[str, WriterState]
    created_at: float
    updated_at: float
    used_at: float
    base: int
    source: str | None
    source_id: int | None
    forks: int


class StreamRestoration(Struct, frozen=True, gc=False):
    """
    The state that a staged stream gets when it is installed, see :meth:`.IStorage.install`.

    :ivar config: as requested when the stream was created; a repeated creation is compared with it.
    :ivar lifetime: the effective one.
    :ivar writers: the idempotent writers by id. If there are more than the limit, those seen last are kept.
    :ivar created_at: None for that of the staged stream.
    :ivar updated_at: None for that of the staged stream.
    :ivar used_at: when a TTL begins to count; None for the time of the installation, which is also the maximum.
    :ivar incarnation: the first part of the stream's offsets; None for that of the staged stream, which is greater than
        that of every earlier stream. At most :data:`MAX_INCARNATION`.
    :ivar deleted: whether the stream is deleted in the same step: it has the name, and is kept for its forks only. If
        it has no forks, nothing of it is left.
    """

    config: StreamConfig
    lifetime: Lifetime
    closed: bool = False
    sequence: bytes | None = None
    writers: dict[str, WriterState] = {}
    created_at: float | None = None
    updated_at: float | None = None
    used_at: float | None = None
    incarnation: int | None = None
    deleted: bool = False


#: The greatest incarnation that can be restored: half of what an offset can express. New incarnations are microseconds
#: since 1970, or one more than the greatest so far.
MAX_INCARNATION: Final = 5 * 10**15


class StorageLimits(Struct, frozen=True, gc=False):
    """
    The limits of a storage.

    :ivar total_bytes: the data of all streams together.
    :ivar stream_bytes: the data of one stream.
    :ivar streams: the number of streams.
    :ivar writers: the number of writers recorded for one stream; a new one replaces the least recently seen.
    :ivar metadata_bytes: the metadata of all streams together, see :mod:`.storage.metadata`.
    :ivar fork_depth: the number of forks between a stream and the stream that is not a fork. A read goes through them.
    """

    total_bytes: int = 104_857_600
    stream_bytes: int = 10_485_760
    streams: int = 1_000_000
    writers: int = 10_000
    metadata_bytes: int = 268_435_456
    fork_depth: int = 1_000


class Distribution(Struct, frozen=True, gc=False):
    """
    A histogram.

    :ivar bounds: the inclusive upper bounds of the buckets; one more bucket follows the last bound.
    :ivar counts: the number of values in each bucket.
    :ivar total: the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class DatabaseFigures(Struct, frozen=True, gc=False):
    """
    The figures of a storage in a database that other servers share.

    :ivar misses: how many streams were not written at once because another server had changed or locked them.
    :ivar uncertain_commits: how many commits had no answer, so that their outcome had to be looked up.
    :ivar cache_hits: how many pieces of data were read from this server's cache.
    :ivar cache_misses: how many pieces of data were read from the database.
    :ivar cache_bytes: the size of that cache.
    :ivar connections: open connections to the database.
    :ivar reconnections: how often a lost connection was opened again.
    :ivar lock_waits: how many locks sessions of the database wait for.
    :ivar notify_queue: how full the queue of NOTIFY is, from 0 to 1.
    :ivar oldest_xmin: transactions that began since the oldest snapshot of the database.
    :ivar oldest_xmin_seconds: for how long that has been the oldest one while others began.
    """

    misses: int = 0
    uncertain_commits: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    cache_bytes: int = 0
    connections: int = 0
    reconnections: int = 0
    lock_waits: int = 0
    notify_queue: float = 0.0
    oldest_xmin: int = 0
    oldest_xmin_seconds: float = 0.0


class StorageFigures(Struct, frozen=True, gc=False):
    """
    The figures of a storage, for metrics.

    :ivar streams: the number of streams, including deleted ones that are kept for their forks.
    :ivar bytes: bytes of data, as the limits count them.
    :ivar written_bytes: bytes of data written since the storage was opened, including those removed since.
    :ivar queued_bytes: bytes of changes that wait to be written.
    :ivar commit_sizes: changes in one commit; None if the storage has no log.
    :ivar commit_seconds: duration of a commit, including the sync; None if the storage has no log.
    :ivar metadata_bytes: bytes of metadata, as their limit counts them.
    :ivar unsynced_changes: acknowledged changes that are not synced. A power failure may take them back; if a sync has
        failed, they may be lost.
    :ivar database: those of its database; None if it has none.
    """

    streams: int
    bytes: int
    written_bytes: int
    queued_bytes: int = 0
    commit_sizes: Distribution | None = None
    commit_seconds: Distribution | None = None
    metadata_bytes: int = 0
    unsynced_changes: int = 0
    database: DatabaseFigures | None = None
