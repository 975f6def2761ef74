"""The bytes of streams in the database, and how many of them stay in memory for live readers."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from ..checksums import crc32
from ..logged.content import DiskReads
from .rollback import reason_of
from .schema import DATABASE
from .stream import AcidStream

#: How many bytes of one stream, and of all, are in memory for live readers.
_RECENT_OF_ONE: Final = 65_536
_RECENT_OF_ALL: Final = 32 << 20

#: SQLite's errors for a damaged database, or for one that the disk cannot read.
_DAMAGED: Final = frozenset([sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR])

T = TypeVar("T")


class AcidContent:
    """
    The bytes of streams in the database, and which streams have recent bytes in memory.

    :param connection: returns the connection of the calling thread.
    :param verify: whether bytes are compared with their checksums before they are served.
    """

    def __init__(self, reads: DiskReads, connection: Callable[[], sqlite3.Connection], verify: bool) -> None:
        self._reads = reads
        self._connection = connection
        self._verify = verify
        self._recent: OrderedDict[int, AcidStream] = OrderedDict()
        self._recent_bytes = 0

    # Bytes in memory

    def track(self, stream: AcidStream) -> None:
        """See :class:`.Content`."""
        self._recent[stream.facts.id] = stream
        stream.counted = 0

    def stored(self, stream_id: int, end: int) -> None:
        """Record that a stream's bytes up to a position are in the database."""
        stream = self._recent.get(stream_id)
        recent = None if stream is None else stream.recent
        if stream is None or recent is None:
            return
        self._recent.move_to_end(stream_id)
        # A creation without a body, or a close, has stored none of the appends queued after it.
        stream.stored = max(stream.stored, end)
        if len(recent.data) > _RECENT_OF_ONE:
            # The last append always stays.
            least = min(stream.stored, stream.tail - _RECENT_OF_ONE // 2)
            recent.drop(bisect_right(recent.ends, least))
        self._recent_bytes += len(recent.data) - stream.counted
        stream.counted = len(recent.data)

    def forget_oldest(self) -> None:
        """Discard the recent bytes of the streams written least recently while there are too many."""
        while self._recent_bytes > _RECENT_OF_ALL:
            stream = next(iter(self._recent.values()))
            if stream.stored != stream.tail:
                return
            self._forget(stream)

    def _forget(self, stream: AcidStream) -> None:
        if self._recent.pop(stream.facts.id, None) is not None:
            self._recent_bytes -= stream.counted
            stream.counted = 0
            stream.recent = None

    def forget_all(self) -> None:
        """Discard all recent bytes."""
        for stream in self._recent.values():
            stream.recent = None
        self._recent.clear()
        self._recent_bytes = 0

    def discard(self, streams: Sequence[AcidStream], lsn: int) -> None:
        """See :class:`.Content`. Rows are removed by :func:`.collect_leftovers`."""
        for stream in streams:
            self._forget(stream)

    # Bytes in the database

    def _look(self, stream: AcidStream, work: Callable[..., T | str], *rest: Any) -> T:
        """
        Return the result of a query that runs in a reader thread. A result of type str describes damage.

        :raises NotYet: the query has to be made.
        :raises DataDamaged: the result is a description of damage.
        """
        key = (work, stream.facts.id, *rest)
        found: T | str | None = self._reads.hand.get(key)
        if found is None:
            self._reads.fetch(key, partial(self._guarded, work, stream.facts.id, *rest))
        if isinstance(found, str):
            self._reads.refuse_damaged(stream, f"{DATABASE}, appends, stream {stream.facts.id}", found)
        return found

    def _guarded(self, work: Callable[..., T | str], *arguments: Any) -> T | str:
        try:
            return work(self._connection(), *arguments)
        except sqlite3.DatabaseError as error:
            if reason_of(error) is not None or getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                raise
            return f"SQLite says: {error}"

    def place(self, stream: AcidStream, position: int) -> tuple[int, int]:
        """See :class:`.Content`."""
        return self._look(stream, _find_append, position)

    def ends(self, stream: AcidStream, position: int, max_count: int) -> Sequence[int]:
        """See :class:`.Content`."""
        return self._look(stream, _find_ends, position, max_count)

    def read(self, stream: AcidStream, start: int, end: int) -> bytes:
        """See :class:`.Content`."""
        return self._look(stream, _read_verified if self._verify else _read, start, end)


def _find_append(connection: sqlite3.Connection, stream_id: int, position: int) -> tuple[int, int] | str:
    """Return the start and end of the append that contains a byte, or a description of the damage."""
    # An append ends where the next one begins; its first row has append = start.
    row = connection.execute(
        "SELECT append, coalesce("
        "(SELECT start FROM appends WHERE stream = ?1 AND start > ?2 AND append = start ORDER BY start LIMIT 1), "
        "(SELECT start + length(data) FROM appends WHERE stream = ?1 ORDER BY start DESC LIMIT 1)), "
        "start, start + length(data), "
        "EXISTS (SELECT 1 FROM appends AS other WHERE other.stream = ?1 AND other.start = appends.append "
        "AND other.append = other.start) "
        "FROM appends WHERE stream = ?1 AND start <= ?2 ORDER BY start DESC LIMIT 1",
        (stream_id, position),
    ).fetchone()
    if row is not None:
        append, end, start, stop, begun = row
        if append <= start <= position < stop <= end and begun:
            return append, end
    return f"the append that has byte {position} is missing"


def _find_ends(connection: sqlite3.Connection, stream_id: int, position: int, max_count: int) -> list[int] | str:
    """Return where appends end, the one that contains a byte first, or a description of the damage."""
    # An append ends where the next one begins; its first row has append = start.
    ends: list[int] = [
        start
        for (start,) in connection.execute(
            "SELECT start FROM appends WHERE stream = ? AND start > ? AND append = start ORDER BY start LIMIT ?",
            (stream_id, position, max_count),
        )
    ]
    if len(ends) < max_count:
        row = connection.execute(
            "SELECT start + length(data) FROM appends WHERE stream = ? ORDER BY start DESC LIMIT 1", (stream_id,)
        ).fetchone()
        if row is None or row[0] <= (ends[-1] if ends else position):
            return f"the append that has byte {position} is missing"
        ends.append(row[0])
    return ends


def _read(connection: sqlite3.Connection, stream_id: int, start: int, end: int) -> bytes | str:
    """Return a range of a stream's bytes without verification, or a description of the damage."""
    rows = connection.execute(
        "SELECT substr(data, max(?2 - start, 0) + 1, ?3 - max(start, ?2)) FROM appends WHERE stream = ?1 "
        "AND start < ?3 AND start >= (SELECT max(start) FROM appends WHERE stream = ?1 AND start <= ?2) "
        "ORDER BY start",
        (stream_id, start, end),
    ).fetchall()
    data = b"".join([row[0] for row in rows])
    return data if len(data) == end - start else f"bytes are missing between {start} and {end}"


def _read_verified(connection: sqlite3.Connection, stream_id: int, start: int, end: int) -> bytes | str:
    """Return a range of a stream's bytes with verified checksums, or a description of the damage."""
    # Whole rows, since each has a checksum. None has more than 64 KiB.
    rows = connection.execute(
        "SELECT start, checksum, data FROM appends WHERE stream = ?1 "
        "AND start < ?3 AND start >= (SELECT max(start) FROM appends WHERE stream = ?1 AND start <= ?2) "
        "ORDER BY start",
        (stream_id, start, end),
    ).fetchall()
    first = position = rows[0][0] if rows else start
    parts = []
    for place, checksum, data in rows:
        if place != position:
            break
        if crc32(data) != checksum:
            return f"bytes {place} to {place + len(data)} do not have their checksum"
        position += len(data)
        parts.append(data)
    if not first <= start < end <= position:
        return f"bytes are missing between {max(position, start)} and {end}"
    whole = b"".join(parts)
    return whole if len(whole) == end - start else whole[start - first : end - first]
