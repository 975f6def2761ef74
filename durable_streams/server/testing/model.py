"""A model of a storage: plain lists, written independently of the real storages."""

from __future__ import annotations

import json
from copy import copy
from math import inf
from typing import Any, cast

from msgspec.structs import replace as replace_fields

from ..errors import (
    ContentTypeMismatch,
    ForkFromDeleted,
    InsufficientStorage,
    InvalidJson,
    InvalidOffset,
    InvalidRequest,
    OffsetConflict,
    OffsetGone,
    PathBlocked,
    ReplacementHasForks,
    SequenceConflict,
    StorageFull,
    StreamClosed,
    StreamExists,
    StreamFull,
    StreamGone,
    StreamNotFound,
    ValuesChanged,
    WriterFenced,
    WriterGap,
)
from ..model import (
    FOREVER,
    NOW,
    START,
    Append,
    Fork,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    StreamRestoration,
    Writer,
)


class Body:
    """The data of an append: messages for a JSON stream, the bytes of a JSON text for any other."""

    def __init__(self, values: list[Any] | None) -> None:
        self._values = values
        self.text = b"[nonsense" if values is None else json.dumps(values).encode() if values else b""

    def units(self, media: str) -> list[bytes]:
        if media != "application/json":
            return [bytes([byte]) for byte in self.text]
        if self._values is None:
            raise InvalidJson
        # The spaces between messages are the writer's own, and belong to the message that follows.
        units = [json.dumps(value).encode() + b"," for value in self._values]
        return units[:1] + [b" " + unit for unit in units[1:]]

    def wire(self, media: str) -> bytes:
        return b"".join(self.units(media))


class Twin:
    """A stream: a list of appends, each a list of messages or bytes."""

    def __init__(
        self, name: str, source: Twin | None, config: StreamConfig, media: str, lifetime: Lifetime, now: float
    ) -> None:
        self.name = name
        self.source = source
        self.asked = config
        self.media = media
        self.lifetime = lifetime
        self.appends: list[list[bytes]] = []
        self.inherited = 0
        self.closed = config.closed
        self.hidden = False
        self.sequence: bytes | None = None
        self.writers: dict[str, tuple[int, int, float]] = {}
        self.made = self.updated = self.used = now
        self.facts: StreamFacts | None = None

    @property
    def wire(self) -> bytes:
        return b"".join(unit for append in self.appends for unit in append)

    @property
    def tail(self) -> int:
        return len(self.wire)

    @property
    def own(self) -> int:
        return self.tail - self.inherited

    @property
    def metadata(self) -> int:
        """The size of the metadata, as its limit counts it: texts, and 256 bytes for each writer."""
        source = "" if self.asked.fork is None else self.asked.fork.source
        texts = [self.name, self.media, source, *self.writers]
        return sum(len(text.encode()) for text in texts) + len(self.sequence or b"") + 256 * len(self.writers)

    @property
    def over(self) -> float:
        if self.lifetime.ttl is not None:
            return self.used + self.lifetime.ttl
        return inf if self.lifetime.expires_at is None else self.lifetime.expires_at

    @property
    def edges(self) -> list[int]:
        """The positions at which an append begins, and the tail."""
        edges = [0]
        for append in self.appends:
            edges.append(edges[-1] + sum(map(len, append)))
        return edges

    def up_to(self, position: int) -> list[list[bytes]]:
        """Copy the appends before a position; an append that contains it is truncated."""
        copy: list[list[bytes]] = []
        at = 0
        for append in self.appends:
            part = []
            for unit in append:
                if at + len(unit) <= position:
                    part.append(unit)
                at += len(unit)
            if part:
                copy.append(part)
        return copy


class Model:
    """A simple storage that shares no code with the real ones."""

    def __init__(self, limits: StorageLimits) -> None:
        self.limits = limits
        self.twins: dict[str, Twin] = {}
        self.values: dict[str, bytes] = {}

    @property
    def size(self) -> int:
        return sum(twin.own for twin in self.twins.values())

    @property
    def metadata(self) -> int:
        values = sum(160 + len(key.encode()) + len(value) for key, value in self.values.items())
        return sum(twin.metadata for twin in self.twins.values()) + values

    def forks(self, of: Twin) -> list[Twin]:
        return [twin for twin in self.twins.values() if twin.source is of]

    def expired(self, now: float) -> list[Twin]:
        return [twin for twin in self.twins.values() if not twin.hidden and now >= twin.over]

    def expire(self, now: float) -> None:
        for twin in self.expired(now):
            self.remove(twin)

    def remove(self, twin: Twin) -> None:
        twin.hidden = True
        while any(other.hidden and not self.forks(other) for other in self.twins.values()):
            self.twins = {name: other for name, other in self.twins.items() if not other.hidden or self.forks(other)}

    def find(self, name: str) -> Twin:
        if name not in self.twins:
            raise StreamNotFound(name)
        if self.twins[name].hidden:
            raise StreamGone(name)
        return self.twins[name]

    def create(self, name: str, asked: StreamConfig, body: Body, now: float) -> tuple[int, bool, bool]:
        if name in self.twins:
            twin = self.twins[name]
            if twin.hidden:
                raise PathBlocked(name)
            if not self.same(asked, twin):
                raise StreamExists(name, "")
            return twin.tail, twin.closed, False
        twin = self.new(name, asked, now)
        units = body.units(twin.media)
        self.make_room(name, 0, units)
        if len(self.twins) >= self.limits.streams or self.metadata + twin.metadata > self.limits.metadata_bytes:
            raise InsufficientStorage
        if units:
            twin.appends.append(units)
        self.twins[name] = twin
        return twin.tail, twin.closed, True

    def new(self, name: str, asked: StreamConfig, now: float) -> Twin:
        fork = asked.fork
        if fork is None:
            return Twin(name, None, asked, asked.content_type or "application/octet-stream", asked.lifetime, now)
        try:
            source = self.find(fork.source)
        except StreamGone:
            raise ForkFromDeleted(fork.source) from None
        if asked.content_type not in (None, source.media):
            raise ContentTypeMismatch(name, source.media, str(asked.content_type))
        lifetime = source.lifetime if asked.lifetime == FOREVER else asked.lifetime
        twin = Twin(name, source, asked, source.media, lifetime, now)
        twin.inherited = self.point(source, fork)
        twin.appends = source.up_to(twin.inherited)
        return twin

    def point(self, source: Twin, fork: Fork) -> int:
        """Return the position at which a fork diverges from its source."""
        assert source.facts is not None
        anchor = source.tail
        if fork.offset is not None and fork.offset != NOW:
            if fork.offset != START and fork.offset.incarnation != source.facts.incarnation:
                raise InvalidRequest
            anchor = fork.offset.position
        at = 0
        for append in source.appends:
            ends = [at]
            for unit in append:
                ends.append(ends[-1] + len(unit))
            if ends[0] <= anchor < ends[-1]:
                if anchor not in ends or ends.index(anchor) + fork.sub_offset >= len(ends):
                    raise InvalidRequest
                return ends[ends.index(anchor) + fork.sub_offset]
            at = ends[-1]
        if anchor > at or fork.sub_offset:
            raise InvalidRequest
        return anchor

    def same(self, asked: StreamConfig, twin: Twin) -> bool:
        """Return whether a creation has the same configuration as the existing stream."""
        made_with = twin.asked.fork
        same_place = asked.fork == made_with
        if not same_place and asked.fork and made_with and asked.fork.source == made_with.source and twin.source:
            try:
                same_place = self.point(twin.source, asked.fork) == twin.inherited
            except InvalidRequest:
                return False
        media = asked.content_type or (twin.media if asked.fork else "application/octet-stream")
        return (
            same_place
            and asked.closed == twin.closed
            and asked.lifetime in (twin.asked.lifetime, twin.lifetime)
            and media == twin.media
        )

    def make_room(self, name: str, own: int, units: list[bytes]) -> None:
        size = sum(map(len, units))
        if self.size + size > self.limits.total_bytes:
            raise StorageFull(name, self.limits.total_bytes)
        if own + size > self.limits.stream_bytes:
            raise StreamFull(name, self.limits.stream_bytes)

    def install(self, staged: str, name: str, wanted: StreamRestoration, replace: bool, now: float) -> Twin:
        """Give a staged stream its name and its restored state; what it replaces is gone."""
        twin = self.find(staged)
        if not staged.startswith("__ds/") or name.startswith("__ds/"):
            raise InvalidRequest
        existing = self.twins.get(name)
        if existing is not None:
            if existing.hidden:
                raise PathBlocked(name)
            if not replace:
                raise StreamExists(name, "")
            if self.forks(existing):
                raise ReplacementHasForks(name)
        before = self.metadata
        other = copy(twin)
        other.name = name
        other.asked, other.lifetime, other.closed, other.sequence = (
            wanted.config, wanted.lifetime, wanted.closed, wanted.sequence,
        )  # fmt: skip
        seen = sorted((state.seen, key) for key, state in wanted.writers.items())[-self.limits.writers :]
        other.writers = {key: (wanted.writers[key].epoch, wanted.writers[key].seq, when) for when, key in seen}
        if twin.metadata < other.metadata > self.limits.metadata_bytes - before + twin.metadata:
            raise InsufficientStorage
        if existing is not None:
            self.remove(existing)
        del self.twins[staged]
        vars(twin).update(vars(other))
        twin.made = twin.made if wanted.created_at is None else wanted.created_at
        twin.updated = twin.updated if wanted.updated_at is None else wanted.updated_at
        twin.used = now if wanted.used_at is None else min(now, wanted.used_at)
        assert twin.facts is not None
        incarnation = twin.facts.incarnation if wanted.incarnation is None else wanted.incarnation
        twin.facts = replace_fields(twin.facts, name=name, incarnation=incarnation)
        self.twins[name] = twin
        if wanted.deleted:
            self.remove(twin)
        return twin

    def write_values(self, puts: dict[str, bytes | None], expected: dict[str, bytes | None]) -> None:
        for key, value in expected.items():
            if self.values.get(key) != value:
                raise ValuesChanged(key)
        before = self.values, self.metadata
        merged = {**self.values, **puts}
        self.values = {key: value for key, value in merged.items() if value is not None}
        if before[1] < self.metadata > self.limits.metadata_bytes:
            self.values = before[0]
            raise InsufficientStorage

    def append(
        self, name: str, append: Append, body: Body, now: float
    ) -> tuple[int, bool, tuple[int, int] | None, bool]:
        twin = self.find(name)
        writer = append.writer
        state = twin.writers.get(writer.id) if writer is not None else None
        if self.done(twin, append, state):
            twin.used = now
            return twin.tail, twin.closed, state and state[:2], True
        if twin.closed:
            assert twin.facts is not None
            raise StreamClosed(name, twin.facts.incarnation, twin.tail)
        if append.expected is not None:
            assert twin.facts is not None
            tails = [Offset(twin.facts.incarnation, twin.tail), *([START] if not twin.tail else [])]
            if append.expected not in tails:
                raise OffsetConflict(name, twin.facts.incarnation, twin.tail)
        if append.data and append.media_type != twin.media:
            raise ContentTypeMismatch(name, twin.media, str(append.media_type))
        if writer is not None:
            self.in_order(name, writer, state)
        if None not in (append.sequence, twin.sequence) and cast("bytes", append.sequence) <= cast(
            "bytes", twin.sequence
        ):
            assert twin.facts is not None
            raise SequenceConflict(name, twin.facts.incarnation, twin.tail)
        units = body.units(twin.media) if append.data else []
        self.make_room(name, twin.own, units)
        sequence = twin.sequence if append.sequence is None else append.sequence
        writers = dict(twin.writers)
        if writer is not None:
            if writer.id not in writers and len(writers) >= self.limits.writers:
                del writers[min(writers, key=lambda each: writers[each][2])]
            writers[writer.id] = (writer.epoch, writer.seq, now)
        before = twin.sequence, twin.writers, self.metadata
        twin.sequence, twin.writers = sequence, writers
        if before[2] < self.metadata > self.limits.metadata_bytes:
            twin.sequence, twin.writers = before[:2]
            raise InsufficientStorage
        if units:
            twin.appends.append(units)
        twin.closed = twin.closed or append.close
        twin.used = twin.updated = now
        return twin.tail, twin.closed, None if writer is None else (writer.epoch, writer.seq), False

    def done(self, twin: Twin, append: Append, state: tuple[int, int, float] | None) -> bool:
        """Return whether an append repeats an accepted one."""
        writer = append.writer
        if writer is None:
            return twin.closed and append.close and not append.data
        if state is not None and writer.epoch < state[0]:
            assert twin.facts is not None
            raise WriterFenced(twin.facts.name, state[0])
        return state is not None and writer.epoch == state[0] and writer.seq <= state[1]

    def in_order(self, name: str, writer: Writer, state: tuple[int, int, float] | None) -> None:
        """Check that a writer's append is the next one."""
        if state is not None and writer.epoch > state[0]:
            if writer.seq:
                raise InvalidRequest
            return
        expected = 0 if state is None else state[1] + 1
        if writer.seq != expected:
            raise WriterGap(name, expected, writer.seq)

    def place(self, name: str, offset: Offset, use: float | None) -> tuple[Twin, int]:
        """Return the position at which a read begins."""
        twin = self.find(name)
        assert twin.facts is not None
        if use is not None:
            twin.used = use
        if offset == NOW:
            return twin, twin.tail
        if offset != START and offset.incarnation != twin.facts.incarnation:
            raise InvalidOffset if offset.incarnation > twin.facts.incarnation else OffsetGone(name)
        return twin, max(edge for edge in twin.edges if edge <= offset.position)
