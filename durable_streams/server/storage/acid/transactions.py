"""Writes a batch of changes to the tables in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec

from ..changes import Change, DataAppended, StreamCreated, StreamInstalled, StreamRemoved, ValuesWritten
from ..checksums import crc32
from .schema import add_values_table, has_values

_json: Final = msgspec.json.Encoder().encode

#: One of ``appends``.
_Row = tuple[int, int, int, int, bytes]

#: How many bytes a row has at the most, so that a piece of a long append can be read without the rest.
ROW_BYTES: Final = 65_536

#: How many rows of deleted streams are removed at a time, and about how many bytes.
_ROWS_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 1 << 20

#: A page, and one as it is in the write-ahead log, in bytes.
_PAGE: Final = 4096
_LOGGED_PAGE: Final = 4120

#: How many bytes of data, about, a row has that is all in one page, beside others.
_LOCAL: Final = 950


def commit(connection: sqlite3.Connection, changes: Sequence[Change], lsn: int) -> int:
    """
    Write changes to the tables in one transaction.

    :param lsn: the number of the last of them.
    :returns: how many bytes are free in the database's file.
    :raises sqlite3.Error: nothing of them is in the database; or, if it was the commit that failed, all or nothing.
    """
    with _transaction(connection):
        _insert(connection, changes)
        connection.execute(
            "INSERT INTO numbers VALUES ('lsn', ?) ON CONFLICT DO UPDATE SET value = excluded.value", (lsn,)
        )
        return free_bytes(connection)


def log_bytes(changes: Iterable[Change], max_bytes: int) -> int:
    """
    Estimate how many bytes the changes take in the write-ahead log, which consists of whole pages.

    :param max_bytes: how many bytes the changes take by themselves.
    """
    streams: set[int] = set()
    # That of the number of the last change, and one more.
    pages = 2
    for change in changes:
        streams.add(change.id)
        if isinstance(change, StreamCreated | DataAppended) and len(change.data) > _LOCAL:
            # Its last overflow page is not full.
            pages += 1
        if isinstance(change, StreamInstalled):
            # The rows of its writers are side by side; and there are those of the stream that it replaces.
            pages += 4
        if isinstance(change, DataAppended) and change.writer is not None:
            # The rows of writers are in the order of their ids, so each may be in a page of its own.
            pages += 1 + len(change.forgotten)
        if isinstance(change, ValuesWritten):
            # As for writers; and the last overflow page of a large value is not full.
            pages += sum(1 + (len(value or b"") > _LOCAL) for value in change.puts.values())
    # For each stream there is a page for its row, and one for its appends, a part of which was there before.
    return max_bytes + _LOGGED_PAGE * (2 * len(streams) + pages)


def free_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes of the database's file are free for new data."""
    pages: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return pages * _PAGE


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    # Streams are created before appends to them, and removed after these.
    made = [change for change in changes if isinstance(change, StreamCreated)]
    if made:
        _create(connection, made)
    # Before the appends to them: those to the staged streams were committed with earlier batches.
    _install(connection, [change for change in changes if isinstance(change, StreamInstalled)])
    _write_values(connection, [change for change in changes if isinstance(change, ValuesWritten)])
    rows: list[_Row] = []
    streams: dict[int, tuple[int, bool, bytes | None, float]] = {}
    writers: dict[tuple[int, str], tuple[int, int, float] | None] = {}
    for change in changes:
        if isinstance(change, StreamCreated):
            if change.data:
                rows += _rows_of(change.id, change.base, change.data, change.checksum)
        elif isinstance(change, DataAppended):
            stream_id = change.id
            if change.data:
                rows += _rows_of(stream_id, change.start, change.data, change.checksum)
            _, closed, sequence, _ = streams.get(stream_id, (0, False, None, 0.0))
            streams[stream_id] = (
                change.start + len(change.data),
                closed or change.close,
                sequence if change.sequence is None else change.sequence,
                change.at,
            )
            if change.writer is not None:
                for forgotten in change.forgotten:
                    writers[stream_id, forgotten] = None
                writers[stream_id, change.writer] = (change.epoch, change.seq, change.at)
    connection.executemany("INSERT INTO appends VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany(
        "UPDATE streams SET tail = ?, closed = closed OR ?, sequence = coalesce(?, sequence), updated_at = ? "
        "WHERE id = ?",
        [(*state, stream_id) for stream_id, state in streams.items()],
    )
    if writers:
        connection.executemany(
            "DELETE FROM writers WHERE stream = ? AND id = ?", [key for key, state in writers.items() if state is None]
        )
        connection.executemany(
            "INSERT INTO writers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET epoch = excluded.epoch, seq = excluded.seq, seen = excluded.seen",
            [(*key, *state) for key, state in writers.items() if state is not None],
        )
    for change in changes:
        if isinstance(change, StreamRemoved):
            _remove(connection, change.id)
        elif isinstance(change, StreamInstalled):
            _remove(connection, change.replaced)


def _write_values(connection: sqlite3.Connection, changes: Sequence[ValuesWritten]) -> None:
    """Write the last value of each key, and remove the keys that were removed last."""
    if not changes:
        return
    values = {key: value for change in changes for key, value in change.puts.items()}
    if not has_values(connection):
        add_values_table(connection)
    connection.executemany("DELETE FROM key_values WHERE key = ?", [(key,) for key in values if values[key] is None])
    connection.executemany(
        "INSERT INTO key_values VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        [(key, value) for key, value in values.items() if value is not None],
    )


def _create(connection: sqlite3.Connection, made: Sequence[StreamCreated]) -> None:
    connection.executemany(
        "INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL, ?, ?)", map(_stream_row, made)
    )
    # An installed incarnation may be greater than the ids of streams created before it.
    connection.execute("UPDATE numbers SET value = max(value, ?) WHERE name = 'last_id'", (made[-1].id,))


def _rows_of(stream_id: int, start: int, data: bytes, checksum: int) -> Iterable[_Row]:
    """Split an append into rows of at most :data:`ROW_BYTES`, each with its own checksum."""
    if len(data) <= ROW_BYTES:
        return ((stream_id, start, start, checksum, data),)
    pieces = [(first, data[first : first + ROW_BYTES]) for first in range(0, len(data), ROW_BYTES)]
    return [(stream_id, start + first, start, crc32(piece), piece) for first, piece in pieces]


def _stream_row(made: StreamCreated) -> tuple[Any, ...]:
    return (
        made.id,
        made.name,
        made.incarnation,
        made.content_type,
        _json(made.config).decode(),
        _json(made.lifetime).decode(),
        made.source,
        made.base,
        made.base + len(made.data),
        made.config.closed,
        made.at,
        made.at,
    )


def _install(connection: sqlite3.Connection, changes: Sequence[StreamInstalled]) -> None:
    """Give staged streams their names and their restored states."""
    for installed in changes:
        state = installed.state
        connection.execute(
            "UPDATE streams SET name = ?, incarnation = ?, config = ?, lifetime = ?, closed = ?, sequence = ?, "
            "created_at = ?, updated_at = ? WHERE id = ?",
            (
                installed.name,
                state.incarnation,
                _json(state.config).decode(),
                _json(state.lifetime).decode(),
                state.closed,
                state.sequence,
                state.created_at,
                state.updated_at,
                installed.id,
            ),
        )
        connection.execute("DELETE FROM writers WHERE stream = ?", (installed.id,))
        connection.executemany(
            "INSERT INTO writers VALUES (?, ?, ?, ?, ?)",
            [(installed.id, key, writer.epoch, writer.seq, writer.seen) for key, writer in state.writers.items()],
        )
        connection.execute("UPDATE numbers SET value = max(value, ?) WHERE name = 'last_id'", (state.incarnation,))


def _remove(connection: sqlite3.Connection, stream_id: int | None) -> None:
    """Hide a stream, if any; if it has no forks, remove it, and each hidden source whose last fork it was."""
    connection.execute("UPDATE streams SET deleted = 1 WHERE id = ?", (stream_id,))
    while stream_id is not None:
        row = connection.execute(
            "DELETE FROM streams WHERE id = ?1 AND deleted AND NOT EXISTS (SELECT 1 FROM streams WHERE source = ?1) "
            "RETURNING source",
            (stream_id,),
        ).fetchall()
        if not row:
            return
        connection.execute("INSERT INTO leftovers VALUES (?)", (stream_id,))
        stream_id = row[0][0]


def collect_leftovers(connection: sqlite3.Connection) -> int | None:
    """
    Remove a limited number of rows of removed streams.

    :returns: how many bytes that takes in the write-ahead log, about; None, if there is nothing left to remove.
    """
    found = connection.execute("SELECT stream FROM leftovers LIMIT 1").fetchone()
    if found is None:
        return None
    stream_id = found[0]
    last, size, count = None, 0, 0
    rows = connection.execute(
        "SELECT start, length(data) FROM appends WHERE stream = ? ORDER BY start LIMIT ?", (stream_id, _ROWS_AT_ONCE)
    )
    for start, length in rows:
        last = start
        size += length
        count += 1
        if size >= _BYTES_AT_ONCE:
            break
    rows.close()
    with _transaction(connection):
        if last is not None:
            connection.execute("DELETE FROM appends WHERE stream = ? AND start <= ?", (stream_id, last))
        else:
            removed = connection.execute(
                "DELETE FROM writers WHERE stream = ?1 AND id IN (SELECT id FROM writers WHERE stream = ?1 LIMIT ?2) "
                "RETURNING length(id)",
                (stream_id, _ROWS_AT_ONCE),
            ).fetchall()
            size += sum(length for (length,) in removed)
            count += len(removed)
            if len(removed) < _ROWS_AT_ONCE:
                connection.execute("DELETE FROM leftovers WHERE stream = ?", (stream_id,))
    return size // 8 + 100 * count + 8 * _LOGGED_PAGE
