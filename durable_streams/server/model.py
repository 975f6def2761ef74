"""Frozen values that cross module borders. Times are seconds since 1970 (UTC), sizes and positions bytes."""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Offset(Struct, frozen=True, gc=False):
    """A place in a stream (PROTOCOL section 8).

    :ivar incarnation: tells a stream from an earlier one of the same name; a fork has its root's.
    :ivar position: how many bytes of the stream's wire form lie before the place.
    """

    incarnation: int
    position: int

    def __str__(self) -> str:
        return f"{self.incarnation:016d}_{self.position:016d}"


#: The beginning of any stream: ``-1``, and sixteen zeros twice.
START: Final = Offset(0, 0)

#: The tail as it is when the request is served: ``now``.
NOW: Final = Offset(-1, -1)


class Lifetime(Struct, frozen=True, gc=False):
    """When a stream expires: ``ttl`` seconds after its last read or write, or at ``expires_at``, or never."""

    ttl: int | None = None
    expires_at: float | None = None


#: A stream that does not expire.
FOREVER: Final = Lifetime()


class Fork(Struct, frozen=True, gc=False):
    """What a creation says of the stream that it forks from (PROTOCOL section 4.2).

    :ivar source: the source stream's name.
    :ivar offset: where to diverge; None is the source's tail at that moment.
    :ivar sub_offset: JSON messages, or bytes, past ``offset``.
    """

    source: str
    offset: Offset | None = None
    sub_offset: int = 0


class ForkPoint(Struct, frozen=True, gc=False):
    """
    The result of a :exc:`.LongSearch`.

    :ivar fork: the fork that was searched for.
    :ivar source_id: the id of the source stream that was searched in.
    :ivar result: the position at which the fork diverges, or why there is none.
    """

    fork: Fork
    source_id: int
    result: int | str


class StreamConfig(Struct, frozen=True):
    """What a creation asks for.

    :ivar content_type: as it came, parameters included; None takes the source's, or the default.
    :ivar closed: whether the stream is complete with its first body.
    """

    content_type: str | None = None
    lifetime: Lifetime = FOREVER
    closed: bool = False
    fork: Fork | None = None


class StreamFacts(Struct, frozen=True, gc=False):
    """What never changes of a stream.

    :ivar id: unlike that of every other stream that this storage has ever had, under this name or another.
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
    """The last append of an idempotent writer that a stream accepted, and when, in seconds since 1970."""

    epoch: int
    seq: int
    seen: float


class Append(Struct, frozen=True, gc=False):
    """One write: data, or a close, or both, with what guards it.

    :ivar media_type: of the data; None where there is none.
    :ivar data: in the stream's wire form (:mod:`durable_streams.server.protocol.messages` for JSON mode).
    :ivar sequence: Stream-Seq, compared byte by byte.
    """

    media_type: str | None
    data: bytes
    close: bool = False
    sequence: bytes | None = None
    writer: Writer | None = None


class Created(Struct, frozen=True, gc=False):
    """The stream is there; ``new`` tells whether this creation made it."""

    facts: StreamFacts
    tail: int
    closed: bool
    new: bool

    @property
    def next_offset(self) -> str:
        """The offset of the stream's tail, to read on from: what HTTP answers as Stream-Next-Offset."""
        return str(Offset(self.facts.incarnation, self.tail))


class Appended(Struct, frozen=True, gc=False):
    """The write is there.

    :ivar tail: the stream's tail after it.
    :ivar writer: the writer's epoch and last accepted sequence, for an append that named one.
    :ivar duplicate: nothing was written, since the same write was accepted before.
    """

    facts: StreamFacts
    tail: int
    closed: bool
    writer: WriterState | None = None
    duplicate: bool = False

    @property
    def next_offset(self) -> str:
        """The offset behind this write, to read on from: what HTTP answers as Stream-Next-Offset."""
        return str(Offset(self.facts.incarnation, self.tail))


class Chunk(Struct, frozen=True, gc=False):
    """What a read found.

    :ivar start: the position of the first byte of ``data``: the start of an append.
    :ivar tail: the stream's tail when it was read; ``start + len(data)`` may be less.
    :ivar more: if whole appends were asked for and the first one is larger than the limit, how many bytes of it follow
        ``data``.
    """

    facts: StreamFacts
    start: int
    data: bytes
    tail: int
    closed: bool
    more: int = 0


class StreamStatus(Struct, frozen=True, gc=False):
    """All that can be said of a stream without reading it."""

    facts: StreamFacts
    tail: int
    closed: bool
    lifetime: Lifetime
    created_at: float
    updated_at: float


class StorageLimits(Struct, frozen=True, gc=False):
    """
    How much a storage takes.

    :ivar total_bytes: of the data of all streams.
    :ivar stream_bytes: of the data of one stream.
    :ivar writers: remembered for a stream; a new one takes the place of the one seen least recently.
    :ivar metadata_bytes: of what streams have besides data, see :mod:`.storage.metadata`.
    """

    total_bytes: int = 104_857_600
    stream_bytes: int = 10_485_760
    streams: int = 1_000_000
    writers: int = 10_000
    metadata_bytes: int = 268_435_456


class Distribution(Struct, frozen=True, gc=False):
    """
    How often a measure had which size.

    :ivar bounds: the upper ends of the classes, each of which includes its end; after the last there is one more class.
    :ivar counts: how often it fell into each class.
    :ivar total: the sum of all that was measured.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class StorageFigures(Struct, frozen=True, gc=False):
    """
    What a storage has, and how it gets on.

    :ivar streams: how many streams there are; those that are there for their forks only are among them.
    :ivar bytes: of data, as the limits count it.
    :ivar written_bytes: of data that was written since it was opened, what was removed since among it.
    :ivar queued_bytes: of changes that wait to be written.
    :ivar commit_sizes: how many changes went into the log together; None where there is no log.
    :ivar commit_seconds: how long that took, until they were as durable as the storage makes them.
    :ivar metadata_bytes: of what streams have besides data, as its limit counts it.
    """

    streams: int
    bytes: int
    written_bytes: int
    queued_bytes: int = 0
    commit_sizes: Distribution | None = None
    commit_seconds: Distribution | None = None
    metadata_bytes: int = 0
