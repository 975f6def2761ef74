"""The SQLite tables of the acid storage, and connections to their database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from ..disk import Disk
from ..frontier import ADVICE, FRONTIER_FILE, read_frontier
from ..ownership import StorageDamaged, StorageError

KIND: Final = "acid"

#: The format of a data directory.
DIRECTORY_VERSION: Final = 1

#: The format of a new database, and the latest one that this version knows: that of a database with values. The first
#: value raises it, so that earlier versions can open a database that never had any.
NEW_VERSION: Final = 1
VERSION: Final = 2

#: The name of the database in the data directory.
DATABASE: Final = "acid.sqlite"

#: The names of the files that the storage creates in a data directory.
PARTS: Final = frozenset([DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal", FRONTIER_FILE])

#: Tells a database of this server's from others (``PRAGMA application_id``): "DStr".
_APPLICATION: Final = 0x44537472

#: The first SQLite version with all required features: strict tables.
_SQLITE: Final = (3, 37, 0)

_TABLES: Final = """
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    config TEXT NOT NULL,
    lifetime TEXT NOT NULL,
    source INTEGER,
    base INTEGER NOT NULL,
    tail INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    sequence BLOB,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;
CREATE INDEX forks ON streams (source) WHERE source IS NOT NULL;
CREATE TABLE appends (
    stream INTEGER NOT NULL,
    start INTEGER NOT NULL,
    append INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (stream, start)
) STRICT, WITHOUT ROWID;
CREATE TABLE writers (
    stream INTEGER NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    seen REAL NOT NULL,
    PRIMARY KEY (stream, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE leftovers (stream INTEGER PRIMARY KEY) STRICT;
CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO numbers VALUES ('last_id', 0);
"""


_VALUES_TABLE: Final = """
CREATE TABLE key_values (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID
"""


def connect(path: Path | str, read_only: bool = False) -> sqlite3.Connection:
    """
    Open a database in autocommit mode: the caller begins and ends transactions.

    :param path: of the file, or ``:memory:``.
    :param read_only: change nothing; no other process may have it open.
    """
    if read_only:
        # Without a write-ahead log to read, immutable=1 keeps SQLite from creating one and its shared memory.
        log = Path(f"{path}-wal")
        alone = not log.exists() or not log.stat().st_size
        uri = f"{Path(path).absolute().as_uri()}?{'immutable=1' if alone else 'mode=ro'}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def prepare(connection: sqlite3.Connection, new: bool) -> None:
    """
    Configure the connection for durable writes, and create the tables of an empty database.

    :param new: whether the data directory is new, so that the database may be empty.
    :raises StorageDamaged: it is empty, and should not be.
    :raises StorageError: the database is not ours, or in another format, or SQLite is too old for it.
    """
    if not new and is_empty(connection):
        raise StorageDamaged("it is empty, and all streams are missing with its tables")
    if sqlite3.sqlite_version_info < _SQLITE:
        raise StorageError(
            f"SQLite {sqlite3.sqlite_version} is too old for the acid storage. Use a Python with SQLite "
            f"{'.'.join(map(str, _SQLITE))} or later, or another storage.mode."
        )
    refusal = refusal_of(connection)
    if refusal is not None:
        raise StorageError(" ".join(refusal))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # The storage itself decides when to checkpoint the write-ahead log.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    # Some builds of SQLite write zeros over all that is deleted, as much as it was.
    connection.execute("PRAGMA secure_delete = FAST")
    if is_empty(connection):
        connection.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {NEW_VERSION}; COMMIT;"
        )


def has_values(connection: sqlite3.Connection) -> bool:
    """Return whether a database has the table of values."""
    return _stamp(connection)[1] >= VERSION


def add_values_table(connection: sqlite3.Connection) -> None:
    """Create the table of values, and raise the format, as a part of the current transaction."""
    connection.execute(_VALUES_TABLE)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def refusal_of(connection: sqlite3.Connection) -> tuple[str, str] | None:
    """
    Return the reason for rejecting a database, with advice; None if it belongs to this server.

    A database without tables is accepted: :func:`prepare` creates them.
    """
    if is_empty(connection):
        return None
    application, version = _stamp(connection)
    if application != _APPLICATION:
        return "It is another program's.", "Move it away, and restore the server's own from a backup."
    return _other_format(version)


def check_format(connection: sqlite3.Connection) -> None:
    """
    Check that a database of this server is in the format that this version knows.

    :raises StorageError: it is in another one, which does not mean that it is damaged.
    """
    application, version = _stamp(connection)
    other = None if application != _APPLICATION else _other_format(version)
    if other is not None:
        raise StorageError(" ".join(other))


def _stamp(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the application id and the format version that the database states."""
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    return application, version


def _other_format(version: int) -> tuple[str, str] | None:
    if version > VERSION:
        return (
            f"It is in format {version}; this server knows formats up to {VERSION}.",
            "Use the server that wrote it, or a later one.",
        )
    if version < NEW_VERSION:
        return (
            "It was made by a development version of this server, in a format that was never released.",
            "Set storage.data_dir to an empty directory, or use the version that made it.",
        )
    return None


def committed_lsn(connection: sqlite3.Connection) -> int:
    """Return the number of the last change that a database has; 0 if no change was numbered in it yet."""
    row = connection.execute("SELECT value FROM numbers WHERE name = 'lsn'").fetchone()
    return 0 if row is None else int(row[0])


def check_frontier(disk: Disk, path: Path) -> None:
    """
    Check that no change is missing from the end of a closed database. Nothing is changed.

    :raises StorageDamaged: some are, as when its write-ahead log was removed or cut.
    :raises sqlite3.DatabaseError: it can't be read.
    """
    mark = read_frontier(disk)
    if not mark.lsn:
        return
    connection = connect(path, read_only=True)
    try:
        if refusal_of(connection) is not None:
            return
        lsn = 0 if is_empty(connection) else committed_lsn(connection)
    finally:
        connection.close()
    if lsn < mark.lsn:
        raise StorageDamaged(
            f"it ends with change {lsn}, but change {mark.lsn} was synced: its write-ahead log {path.name}-wal is "
            f"missing or truncated, or the database is an older copy. {ADVICE}"
        )


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether a database has no tables."""
    return not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]


def sync_log(disk: Disk, path: Path) -> None:
    """
    Sync the write-ahead log that a killed process has left.

    It is shown from now on, and what is shown must not be taken back. Before the database is opened.

    :raises StorageDamaged: there is a log, and no database: SQLite would throw the log away.
    """
    log = f"{path.name}-wal"
    if log not in disk.names(""):
        return
    if not path.exists() or not path.stat().st_size:
        raise StorageDamaged(
            "it is missing, but its write-ahead log exists. Restore the database together with its log."
        )
    file = disk.open(log)
    try:
        file.sync()
    finally:
        file.close()
