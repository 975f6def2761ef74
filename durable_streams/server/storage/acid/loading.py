"""Loads the streams from the tables, when a storage is opened and after a rollback."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec
from msgspec import Struct

from ...model import Lifetime, StreamConfig, WriterState
from ..entry import facts_of
from ..ownership import StorageDamaged
from ..values import ValueTable
from .schema import committed_lsn, has_values
from .stream import AcidStream

_config: Final = msgspec.json.Decoder(StreamConfig).decode
_lifetime: Final = msgspec.json.Decoder(Lifetime).decode


class DatabaseState(Struct):
    """
    The state of the database, without the streams' bytes.

    :ivar streams: all of them, hidden ones too, as readers may see them.
    :ivar last_id: the greatest id that a stream has had.
    :ivar lsn: the number of the last change.
    :ivar values: the values beside the streams.
    """

    streams: list[AcidStream]
    last_id: int
    lsn: int
    values: ValueTable


def load(connection: sqlite3.Connection, loaded_at: float, wall_offset: float = 0) -> DatabaseState:
    """
    Read all but the streams' bytes, and change nothing.

    :param loaded_at: the time, by the clock that TTLs go by.
    :param wall_offset: how many seconds the wall clock, which stored times are of, is ahead of that.
    :raises StorageDamaged: it does not fit together.
    :raises sqlite3.Error: it can't be read.
    """
    streams: dict[int, AcidStream] = {}
    sources: dict[int, int] = {}
    names: set[str] = set()
    for row in connection.execute(
        "SELECT id, name, incarnation, content_type, config, lifetime, source, base, tail, closed, deleted, sequence, "
        "created_at, updated_at FROM streams"
    ):
        stream = _stream(row, loaded_at, wall_offset)
        streams[stream.facts.id] = stream
        names.add(stream.facts.name)
        if row[6] is not None:
            sources[stream.facts.id] = row[6]
    if len(names) != len(streams):
        raise StorageDamaged("two streams have the same name.")
    for stream_id, source_id in sources.items():
        source = streams.get(source_id)
        if source is None:
            raise StorageDamaged(f"the source of the stream {streams[stream_id].facts.name} is missing.")
        streams[stream_id].fork_from(source)
    _load_writers(connection, streams)
    last_id = connection.execute("SELECT max(value) FROM numbers WHERE name = 'last_id'").fetchone()[0]
    if last_id is None:
        raise StorageDamaged("the last used stream id is missing.")
    return DatabaseState(list(streams.values()), last_id, committed_lsn(connection), _load_values(connection))


def _stream(row: tuple[Any, ...], loaded_at: float, wall_offset: float) -> AcidStream:
    stream_id, name, incarnation, content_type, config, lifetime, _ = row[:7]
    base, tail, closed, deleted, sequence, created_at, updated_at = row[7:]
    facts = facts_of(name, stream_id, incarnation, content_type)
    try:
        stream = AcidStream(facts, _config(config), _lifetime(lifetime), base, created_at)
    except msgspec.DecodeError as error:
        raise StorageDamaged(f"the configuration of the stream {name} cannot be decoded: {error}.") from None
    # A renewal by a read is not stored, so loading counts as use.
    used_at = max(updated_at - wall_offset, loaded_at)
    stream.restore(tail, bool(closed), bool(deleted), sequence, updated_at, used_at)
    stream.stored = tail
    stream.show()
    return stream


def _load_values(connection: sqlite3.Connection) -> ValueTable:
    if not has_values(connection):
        return ValueTable()
    return ValueTable(dict(connection.execute("SELECT key, value FROM key_values ORDER BY key")))


def _load_writers(connection: sqlite3.Connection, streams: dict[int, AcidStream]) -> None:
    for stream_id, writer, epoch, seq, seen in connection.execute("SELECT stream, id, epoch, seq, seen FROM writers"):
        stream = streams.get(stream_id)
        if stream is not None:
            if stream.writers is None:
                stream.writers = {}
            stream.writers[writer] = WriterState(epoch, seq, seen)
    for stream in streams.values():
        stream.order_writers()
