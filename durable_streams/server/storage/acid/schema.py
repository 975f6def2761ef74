"""The tables, and connections to them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

KIND: Final = "acid"
VERSION: Final = 1

#: The name of the database in the data directory.
DATABASE: Final = "acid.sqlite"

#: Tells a database of this server's from others (``PRAGMA application_id``): "DStr".
_APPLICATION: Final = 0x44537472

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
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL,
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


def connect(path: Path | str, read_only: bool = False) -> sqlite3.Connection:
    """
    Open a database; transactions are begun and ended by whoever uses it.

    :param path: of the file, or ``:memory:``.
    :param read_only: change nothing; nobody else may have it open.
    """
    if read_only:
        # Where there is no log to be read as well, SQLite need not make one, nor share it with anybody.
        log = Path(f"{path}-wal")
        alone = not log.exists() or not log.stat().st_size
        uri = f"{Path(path).absolute().as_uri()}?{'immutable=1' if alone else 'mode=ro'}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def prepare(connection: sqlite3.Connection) -> None:
    """Make it keep its promises, and lay out the tables if there are none."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # When the log is brought home is the storage's own business.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION}; COMMIT;")
