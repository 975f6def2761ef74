"""Streams for the tests of backup and restore, and what can be compared of them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from durable_streams.server.interfaces import settle
from durable_streams.server.model import Append, Fork, Lifetime, Offset, StreamConfig, StreamRecord, Writer
from durable_streams.server.protocol.content import media_type
from durable_streams.server.streams import Streams

TEXT = StreamConfig("text/plain; charset=utf-8")
JSON = StreamConfig("application/json")

#: What differs between two servers, or after a restore: ids, and when a TTL began to count.
_DIFFERENT = {"source_id": 0, "used_at": 0.0}


async def create(streams: Streams, name: str, *appends: bytes, config: StreamConfig = TEXT) -> StreamRecord:
    """Create a stream, and make an append of each body, which is in wire form."""
    created = await settle(streams.create(name, config, b""))
    for data in appends:
        await settle(streams.append(name, Append(created.facts.media_type, data)))
    return await settle(streams.record(name))


async def write(streams: Streams, name: str, data: bytes, **append: Any) -> Any:
    """Append text to a stream."""
    return await settle(streams.append(name, Append(media_type("text/plain") if data else None, data, **append)))


async def fork(streams: Streams, name: str, source: str, position: int | None, *appends: bytes) -> StreamRecord:
    """Fork a stream at a position, or at its tail."""
    facts = (await settle(streams.record(source))).facts
    offset = None if position is None else Offset(facts.incarnation, position)
    return await create(streams, name, *appends, config=StreamConfig(fork=Fork(source, offset)))


async def make_world(streams: Streams) -> list[str]:
    """Make streams that have something of everything; return their names, with those of deleted sources."""
    await create(streams, "empty")
    await create(streams, "text/\u00e4 b", b"hello", b" ", b"world")
    await create(streams, "json", b'{"a":1},2,', b'"x",', config=JSON)
    for number in range(3):
        await write(streams, "text/\u00e4 b", b"w%d" % number, writer=Writer("writer", 7, number))
    await write(streams, "text/\u00e4 b", b"seq", sequence=b"s-0002")
    await create(streams, "closed", b"the end", config=replace(TEXT, lifetime=Lifetime(ttl=5000)))
    await write(streams, "closed", b"", close=True)
    await create(streams, "closed-at-once", config=replace(TEXT, closed=True, lifetime=Lifetime(expires_at=4e9)))
    # z is forked to f, which is forked to a; z and f are deleted. Their names are after and before those of forks.
    await create(streams, "z", b"0123", b"4567", b"89")
    await fork(streams, "f", "z", 8, b"fork", b"ed")
    await fork(streams, "a", "f", 12, b"again")
    await fork(streams, "b", "z", 4)
    await create(streams, "live-source", b"one", b"two")
    await fork(streams, "live-fork", "live-source", 3, b"three")
    await fork(streams, "json-fork", "json", 8, b"3,")
    await settle(streams.delete("z"))
    await settle(streams.delete("f"))
    return ["empty", "text/\u00e4 b", "json", "closed", "closed-at-once", "z", "f", "a", "b", *_LIVE]


_LIVE = ["live-source", "live-fork", "json-fork"]


async def contents(streams: Streams, names: list[str], new_incarnation: bool = False) -> dict[str, Any]:
    """Return all of streams that a restore brings back."""
    found: dict[str, Any] = {}
    for name in names:
        record = await settle(streams.record(name, hidden=True))
        facts = record.facts
        same = replace(facts, id=0, incarnation=0) if new_incarnation else replace(facts, id=0)
        writers = {} if record.deleted else record.writers
        found[name] = (
            replace(record, facts=same, writers=writers, **_DIFFERENT),
            await settle(streams.read_range(facts, 0, record.tail, hidden=True)),
            [*(await settle(streams.append_ends(facts, 0, 1000, hidden=True)))],
        )
    return found
