"""Rollback of a batch after a temporary error (disk full, lock, shortage): the storage continues without the batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from ...errors import InsufficientStorage, StreamsError, Unavailable
from ..changes import Change
from ..shortages import SHORT, is_shortage
from .loading import DatabaseState, load
from .transactions import commit

FULL: Final = "The disk is full. Delete streams that are not needed, or free disk space."


#: SQLite errors for a lack of descriptors or memory. They are raised before anything is written.
_SHORTAGES: Final = frozenset([sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM])


def pauses(reason: StreamsError) -> bool:
    """Return whether to refuse writes for a moment after this error. Locks of other programs have a timeout already."""
    return isinstance(reason, InsufficientStorage) or str(reason) == SHORT


class Rollback(Exception):
    """
    A batch was rolled back as a whole, and the disk has not failed.

    :ivar reason: the error for the writers of the batch, and of changes queued after it.
    :ivar loaded: the state of the database.
    """

    def __init__(self, reason: StreamsError, loaded: DatabaseState) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.loaded = loaded


def reason_of(error: BaseException | None) -> StreamsError | None:
    """Return the error for writers if nothing was written; None if something may be written, or the disk has failed."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code in _SHORTAGES or extended == sqlite3.SQLITE_IOERR_NOMEM or is_shortage(error):
        return Unavailable(SHORT)
    if code == sqlite3.SQLITE_FULL:
        return InsufficientStorage(FULL)
    if code == sqlite3.SQLITE_BUSY:
        return Unavailable("Another program keeps the database from being written. Come back in a moment.")
    return None


def attempt(connection: sqlite3.Connection, changes: Sequence[Change], lsn: int, now: float, wall_offset: float) -> int:
    """
    Commit a batch (:func:`.commit`); if it is rolled back, load the database before anything else is written.

    :param lsn: the number of the last of them.
    :param now: the time, by the clock that TTLs go by.
    :param wall_offset: how many seconds the wall clock is ahead of that.
    :raises Rollback: the batch was rolled back for a temporary reason.
    :raises sqlite3.Error: the outcome is unknown.
    """
    try:
        return commit(connection, changes, lsn)
    except sqlite3.Error as error:
        reason = reason_of(error)
        if reason is None or connection.in_transaction:
            raise
        raise Rollback(reason, load(connection, now, wall_offset)) from error
