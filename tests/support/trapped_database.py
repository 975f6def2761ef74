"""A real database with traps in it; see :mod:`tests.support.traps`."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from .traps import Trap

#: What a statement does, by how it begins.
_STEPS = {
    "BEGIN": "sqlite/begin",
    "INSERT INTO appends": "sqlite/insert",
    "COMMIT": "sqlite/commit",
    "PRAGMA wal_checkpoint": "sqlite/checkpoint",
    "DELETE FROM appends": "sqlite/collect",
    "DELETE FROM leftovers": "sqlite/collected",
    "PRAGMA journal_mode": "sqlite/open",
}

#: A commit takes about so long, in seconds.
_COMMIT = 0.0005


class Trapped(sqlite3.Connection):
    """A connection with traps around what it changes. ``amid sqlite/commit`` is at some moment of it."""

    trap: Trap

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        execute = super().execute
        step = _step(statement)
        if step is None:
            return execute(statement, *parameters)
        if step == "sqlite/commit" and self.trap.goes_off("amid sqlite/commit"):
            threading.Thread(target=self._strike_soon, daemon=True).start()
        return self._around(step, lambda: execute(statement, *parameters))

    def executemany(self, statement: str, rows: Any) -> sqlite3.Cursor:
        executemany = super().executemany
        step = _step(statement)
        if step is None:
            return executemany(statement, rows)
        return self._around(step, lambda: executemany(statement, rows))

    def executescript(self, script: str) -> sqlite3.Cursor:
        executescript = super().executescript
        return self._around("sqlite/layout", lambda: executescript(script))

    def _around(self, step: str, work: Any) -> sqlite3.Cursor:
        try:
            cursor = self.trap.around(step, work)
        except OSError as error:
            raise sqlite3.OperationalError("disk I/O error") from error
        assert isinstance(cursor, sqlite3.Cursor)
        return cursor

    def _strike_soon(self) -> None:
        time.sleep(random.uniform(0, _COMMIT))
        self.trap.strike()


def _step(statement: str) -> str | None:
    return next((step for beginning, step in _STEPS.items() if statement.startswith(beginning)), None)


def trapped_connect(trap: Trap) -> Any:
    """Make what stands in for :func:`durable_streams.server.storage.acid.schema.connect`."""

    class Connection(Trapped):
        pass

    Connection.trap = trap

    def connect(path: Path | str) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)

    return connect
