"""How changes get into the tables, all of a batch or none."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from ..changes import Change, Made, Removed, Wrote

_json: Final = msgspec.json.Encoder().encode

#: How many rows of a deleted stream are removed at a time, and about how many bytes.
_ROWS_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 4 << 20


def commit(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """
    Carry out some changes in one transaction.

    :raises sqlite3.Error: nothing of them is in the database; or, if it was the commit that failed, all or nothing.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        _insert(connection, changes)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    # What is made is made before it is written to, and what is removed is not written to any more.
    made = [change for change in changes if isinstance(change, Made)]
    if made:
        connection.executemany(
            "INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL, ?, ?)", map(_stream_row, made)
        )
        connection.execute("UPDATE numbers SET value = ? WHERE name = 'last_id'", (made[-1].id,))
    rows = []
    streams: dict[int, tuple[int, bool, bytes | None, float]] = {}
    writers: dict[tuple[int, str], tuple[int, int, float]] = {}
    for change in changes:
        if isinstance(change, Made):
            if change.data:
                rows.append((change.id, change.base, change.data, change.checksum))
        elif isinstance(change, Wrote):
            stream_id = change.id
            if change.data:
                rows.append((stream_id, change.start, change.data, change.checksum))
            _, closed, sequence, _ = streams.get(stream_id, (0, False, None, 0.0))
            streams[stream_id] = (
                change.start + len(change.data),
                closed or change.close,
                sequence if change.sequence is None else change.sequence,
                change.at,
            )
            if change.writer is not None:
                writers[stream_id, change.writer] = (change.epoch, change.seq, change.at)
    connection.executemany("INSERT INTO appends VALUES (?, ?, ?, ?)", rows)
    connection.executemany(
        "UPDATE streams SET tail = ?, closed = closed OR ?, sequence = coalesce(?, sequence), updated_at = ? "
        "WHERE id = ?",
        [(*state, stream_id) for stream_id, state in streams.items()],
    )
    if writers:
        connection.executemany(
            "INSERT INTO writers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET epoch = excluded.epoch, seq = excluded.seq, seen = excluded.seen",
            [(*key, *state) for key, state in writers.items()],
        )
    for change in changes:
        if isinstance(change, Removed):
            _remove(connection, change.id)


def _stream_row(made: Made) -> tuple[Any, ...]:
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


def _remove(connection: sqlite3.Connection, stream_id: int | None) -> None:
    """Hide a stream; then remove it, and every hidden source in turn, as long as there are no forks."""
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


def collect_leftovers(connection: sqlite3.Connection) -> bool:
    """
    Remove some rows of streams that are gone.

    :returns: whether there are more.
    """
    found = connection.execute("SELECT stream FROM leftovers LIMIT 1").fetchone()
    if found is None:
        return False
    stream_id = found[0]
    last, size = None, 0
    rows = connection.execute(
        "SELECT start, length(data) FROM appends WHERE stream = ? ORDER BY start LIMIT ?", (stream_id, _ROWS_AT_ONCE)
    )
    for start, length in rows:
        last = start
        size += length
        if size >= _BYTES_AT_ONCE:
            break
    rows.close()
    connection.execute("BEGIN IMMEDIATE")
    try:
        if last is not None:
            connection.execute("DELETE FROM appends WHERE stream = ? AND start <= ?", (stream_id, last))
        else:
            connection.execute("DELETE FROM writers WHERE stream = ?", (stream_id,))
            connection.execute("DELETE FROM leftovers WHERE stream = ?", (stream_id,))
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return True
