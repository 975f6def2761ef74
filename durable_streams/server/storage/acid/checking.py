"""Checks a database that is not open: every page, every row, every checksum."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ...model import Lifetime, StreamConfig
from ..checksums import crc32
from ..findings import Counts, Finding
from ..frontier import ADVICE, read_frontier
from ..ownership import StorageError
from ..readonly import ReadOnlyDisk
from .schema import DATABASE, check_format, committed_lsn, connect, has_values, is_empty, refusal_of

_RESTORE: Final = "Restore the database from a backup."
_SALVAGE: Final = f"The sqlite3 shell's .recover can save what is readable of {DATABASE}. {_RESTORE}"

#: The maximum number of findings of SQLite's own check that are reported.
_MOST: Final = 100


def check_acid(directory: Path, found: Callable[[Finding], None]) -> Counts:
    """
    Check a data directory of the acid storage, and change nothing in it.

    :param found: called with each finding.
    :returns: how much was looked at; bytes are those of streams.
    :raises StorageError: the database is in a format that this version does not know: it can't be checked.
    """
    counts = Counts()
    path = directory / DATABASE
    if not path.exists():
        found(Finding(True, DATABASE, "The database is missing.", _RESTORE))
        return counts
    try:
        connection = connect(path, read_only=True)
        try:
            check_format(connection)
            refusal = refusal_of(connection)
            if refusal is None and is_empty(connection):
                found(Finding(True, DATABASE, "The database is empty: it has no tables.", _RESTORE))
            elif refusal is not None:
                found(Finding(True, DATABASE, *refusal))
            else:
                _check(connection, counts, found)
                _check_values(connection, found)
                _check_frontier(ReadOnlyDisk(directory), committed_lsn(connection), found)
        finally:
            connection.close()
    except StorageError as error:
        raise StorageError(f"The database {path} can't be checked. {error}") from None
    except sqlite3.DatabaseError as error:
        found(Finding(True, DATABASE, f"The database can't be read: {error}.", _SALVAGE))
    return counts


def _check(connection: sqlite3.Connection, counts: Counts, found: Callable[[Finding], None]) -> None:
    for (message,) in connection.execute(f"PRAGMA integrity_check({_MOST})"):
        if message != "ok":
            found(Finding(True, DATABASE, f"SQLite says: {message}.", _SALVAGE))
    counts.frames = connection.execute("PRAGMA page_count").fetchone()[0]
    tails = dict(connection.execute("SELECT id, tail FROM streams"))
    leftovers = {row[0] for row in connection.execute("SELECT stream FROM leftovers")}
    last_id = connection.execute("SELECT max(value) FROM numbers WHERE name = 'last_id'").fetchone()[0]
    if last_id is None:
        found(Finding(True, "numbers", "The last used stream id is missing.", _RESTORE))
    names: dict[str, int] = {}
    for row in connection.execute("SELECT id, name, config, lifetime, source, base, tail FROM streams ORDER BY id"):
        stream_id, name, config, lifetime, source, base, tail = row
        where = f"streams, id {stream_id}"
        counts.streams += 1
        counts.bytes += tail - base
        for what in _wrong_with(config, lifetime):
            found(Finding(True, where, f"{what} of the stream {name} cannot be decoded.", _RESTORE))
        if names.setdefault(name, stream_id) != stream_id:
            found(Finding(True, where, f"Another stream, id {names[name]}, has the same name {name}.", _RESTORE))
        if source is not None and source not in tails:
            found(Finding(True, where, f"The source of the stream {name}, id {source}, is missing.", _RESTORE))
        elif source is not None and base > tails[source]:
            what = f"The stream {name} leaves its source at {base}, and that ends at {tails[source]}."
            found(Finding(True, where, what, _RESTORE))
        if last_id is not None and stream_id > last_id:
            found(Finding(True, where, f"The greatest id was {last_id}.", _RESTORE))
        _check_appends(connection, (stream_id, name, base, tail), counts, found)
    for table, stream_id in connection.execute(
        "SELECT DISTINCT 'appends', stream FROM appends UNION ALL SELECT DISTINCT 'writers', stream FROM writers"
    ):
        if stream_id not in tails and stream_id not in leftovers:
            advice = "They can be deleted, and do no harm."
            found(Finding(False, f"{table}, stream {stream_id}", "These rows belong to no stream.", advice))


def _check_values(connection: sqlite3.Connection, found: Callable[[Finding], None]) -> None:
    tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'key_values'").fetchone()[0]
    if has_values(connection) and not tables:
        found(Finding(True, "key_values", "The table of values, such as those of subscriptions, is missing.", _RESTORE))


def _check_frontier(disk: ReadOnlyDisk, lsn: int, found: Callable[[Finding], None]) -> None:
    mark = read_frontier(disk)
    if mark.lsn > lsn:
        what = (
            f"The database ends with change {lsn}, and change {mark.lsn} was on the disk: {DATABASE}-wal is missing or "
            "was cut, or the database is an older copy."
        )
        found(Finding(True, DATABASE, what, ADVICE))


def _wrong_with(config: str, lifetime: str) -> Iterator[str]:
    for text, kind, what in ((config, StreamConfig, "The configuration"), (lifetime, Lifetime, "The lifetime")):
        try:
            msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError:
            yield what


def _check_appends(
    connection: sqlite3.Connection, stream: tuple[int, str, int, int], counts: Counts, found: Callable[[Finding], None]
) -> None:
    stream_id, name, position, tail = stream
    rows: Any = connection.execute(
        "SELECT start, append, checksum, data FROM appends WHERE stream = ? ORDER BY start", (stream_id,)
    )
    begun = position
    for start, append, checksum, data in rows:
        where = f"appends, stream {stream_id}, start {start}"
        if start != position:
            found(Finding(True, where, f"{name}: bytes {position} to {start} are missing or doubled.", _RESTORE))
        if append == start:
            counts.appends += 1
            begun = start
        elif append != begun:
            found(Finding(True, where, f"{name}: the append that began at {begun} goes on as another.", _RESTORE))
        if crc32(data) != checksum:
            found(Finding(True, where, f"{name}: bytes {start} to {start + len(data)} are damaged.", _RESTORE))
        position = start + len(data)
    if position != tail:
        where = f"appends, stream {stream_id}"
        found(Finding(True, where, f"{name}: its bytes end at {position}, and it ends at {tail}.", _RESTORE))
