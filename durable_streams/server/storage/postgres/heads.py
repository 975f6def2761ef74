"""Heads: the row of a stream, as a look-up or a write has returned it."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from ...model import Lifetime, StreamConfig, StreamFacts, StreamRecord, StreamStatus, WriterState
from ...protocol.lifetimes import deadline
from ..entry import facts_of
from .packing import to_bool, to_float, to_int
from .queries import Result

encode_config: Final = msgspec.msgpack.Encoder().encode
decode_config: Final = msgspec.msgpack.Decoder(StreamConfig).decode

#: The columns of a head, for a SELECT from ``streams AS s``. The last one is the database's time.
COLUMNS: Final = (
    "s.id, s.name, s.incarnation, s.content_type, s.config, s.ttl, s.expires_at, s.created_at, s.updated_at, "
    "s.used_at, s.closed, s.deleted, s.base, s.tail, s.sequence, s.writers, s.source_id, s.depth, s.forks, s.version, "
    "{schema}.clock()"
)

#: The number of columns of a head.
WIDTH: Final = 21


class Head(Struct, frozen=True, gc=False):
    """
    The committed state of a stream, without its bytes and its writers, at one version.

    :ivar config: as requested when the stream was created.
    :ivar lifetime: the effective one.
    :ivar used_at: when a TTL began to count, as the database has it; a later use may not be written yet.
    :ivar deleted: whether it was deleted and is kept for its forks only.
    :ivar base: the position of the first own byte: the fork point, or 0.
    :ivar writers: the number of idempotent writers.
    :ivar source_id: the id of the stream that it was forked from, or None.
    :ivar depth: the number of forks from the stream that is not a fork to this one.
    :ivar forks: the number of streams whose source it is.
    :ivar version: is increased by each change of the stream.
    :ivar read_at: the database's time when this was read.
    """

    facts: StreamFacts
    config: StreamConfig
    lifetime: Lifetime
    created_at: float
    updated_at: float
    used_at: float
    closed: bool
    deleted: bool
    base: int
    tail: int
    sequence: bytes | None
    writers: int
    source_id: int | None
    depth: int
    forks: int
    version: int
    read_at: float

    def expires(self, used_at: float = 0.0) -> float:
        """
        Return when the stream expires, by the database's clock; infinity if it does not expire.

        :param used_at: the last use that this node knows of, which may not be written yet.
        """
        return deadline(self.lifetime, max(self.used_at, used_at))

    def status(self) -> StreamStatus:
        """Return the stream's metadata."""
        return StreamStatus(self.facts, self.tail, self.closed, self.lifetime, self.created_at, self.updated_at)

    def record(self, source: str | None, writers: dict[str, WriterState], used_at: float = 0.0) -> StreamRecord:
        """
        Return all that is stored of the stream besides its bytes.

        :param source: the name of the stream that it was forked from.
        :param writers: all writers, the least recently accepted one first.
        :param used_at: the last use that this node knows of.
        """
        sliding = self.lifetime.ttl is not None and not self.deleted
        return StreamRecord(
            self.facts,
            self.config,
            self.lifetime,
            self.tail,
            self.closed,
            self.deleted,
            self.sequence,
            writers,
            self.created_at,
            self.updated_at,
            max(self.used_at, used_at) if sliding else self.updated_at,
            self.base,
            source,
            self.source_id,
            self.forks,
        )


def decode_head(row: Result, number: int, column: int = 0, known: Head | None = None) -> Head:
    """
    Return a head from a row whose columns from ``column`` on are :data:`COLUMNS`.

    :param known: an earlier head of the same stream, whose immutable parts are used again, or None.
    """

    def value(offset: int) -> bytes:
        found = row.get_value(number, column + offset)
        assert found is not None
        return found

    def optional(offset: int) -> bytes | None:
        return row.get_value(number, column + offset)

    stream_id, name, incarnation = to_int(value(0)), value(1).decode(), to_int(value(2))
    facts = None if known is None else known.facts
    if facts is None or facts.id != stream_id or facts.incarnation != incarnation or facts.name != name:
        known = None
        facts = facts_of(name, stream_id, incarnation, value(3).decode())
    if known is None:
        ttl, expires_at = optional(5), optional(6)
        config = decode_config(value(4))
        lifetime = Lifetime(None if ttl is None else to_int(ttl), None if expires_at is None else to_float(expires_at))
    else:
        config, lifetime = known.config, known.lifetime
    source = optional(16)
    return Head(
        facts,
        config,
        lifetime,
        to_float(value(7)),
        to_float(value(8)),
        to_float(value(9)),
        to_bool(value(10)),
        to_bool(value(11)),
        to_int(value(12)),
        to_int(value(13)),
        optional(14),
        to_int(value(15)),
        None if source is None else to_int(source),
        to_int(value(17)),
        to_int(value(18)),
        to_int(value(19)),
        to_float(value(20)),
    )
