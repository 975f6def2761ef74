"""Changes of which nothing was written, for a reason that passes: it goes on without them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from ...errors import InsufficientStorage, StreamsError, Unavailable
from ..changes import Change
from ..shortages import SHORT, is_shortage
from .loading import Loaded, load
from .transactions import commit

FULL: Final = "The disk is full. Delete streams that are done with, or make room on it."


#: A file that can't be opened, for want of descriptors, or memory: SQLite finds out before it writes.
_SHORTAGES: Final = frozenset([sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM])


def pauses(reason: StreamsError) -> bool:
    """Return whether writes are refused for a moment after this; another program's lock is waited for anyway."""
    return isinstance(reason, InsufficientStorage) or str(reason) == SHORT


class Undone(Exception):
    """
    Nothing of a batch is in the database, and that is no fault of the disk's.

    :ivar reason: what those are told whose changes were in it, or came after it.
    :ivar loaded: what is in the database.
    """

    def __init__(self, reason: StreamsError, loaded: Loaded) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.loaded = loaded


def reason_of(error: BaseException | None) -> StreamsError | None:
    """Return the answer for those whose changes were not made; None, if they may be made, or if the disk has failed."""
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
    Commit some changes (:func:`.commit`), or find out what there is without them, before anything else is written.

    :param lsn: the number of the last of them.
    :param now: the time, by the clock that TTLs go by.
    :param wall_offset: how many seconds the wall clock is ahead of that.
    :raises Undone: it can go on without them.
    :raises sqlite3.Error: what became of them is not known.
    """
    try:
        return commit(connection, changes, lsn)
    except sqlite3.Error as error:
        reason = reason_of(error)
        if reason is None or connection.in_transaction:
            raise
        raise Undone(reason, load(connection, now, wall_offset)) from error
