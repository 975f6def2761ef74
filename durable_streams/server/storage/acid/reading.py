"""Where bytes are: of live streams the last ones in memory, and all of them in the database."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from typing import Any, Final

from ..committed import CommittedStorage
from ..kept import Recent
from ..ownership import StorageDamaged
from .stream import AcidStream

#: How many bytes of one stream, and of all, are in memory for live readers.
_RECENT_OF_ONE: Final = 65_536
_RECENT_OF_ALL: Final = 32 << 20


class Reading(CommittedStorage[AcidStream]):
    """What the acid storage reads, and what it need not read because it was just written."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._recent: OrderedDict[int, AcidStream] = OrderedDict()
        self._recent_bytes = 0

    @abstractmethod
    def _connection(self) -> sqlite3.Connection:
        """Give the calling reader's thread its own connection."""

    # Bytes in memory

    def _begin_recent(self, stream: AcidStream, start: int) -> Recent:
        self._recent[stream.facts.id] = stream
        stream.counted = 0
        return super()._begin_recent(stream, start)

    def _stored(self, stream_id: int, end: int) -> None:
        """Hear up to where a stream's bytes are in the database."""
        stream = self._recent.get(stream_id)
        recent = None if stream is None else stream.recent
        if stream is None or recent is None:
            return
        self._recent.move_to_end(stream_id)
        # A creation without a body, or a close, has stored none of what is queued behind it.
        stream.stored = max(stream.stored, end)
        if len(recent.data) > _RECENT_OF_ONE:
            # The last append always stays.
            least = min(stream.stored, stream.tail - _RECENT_OF_ONE // 2)
            recent.drop(bisect_right(recent.ends, least))
        self._recent_bytes += len(recent.data) - stream.counted
        stream.counted = len(recent.data)

    def _forget_oldest(self) -> None:
        while self._recent_bytes > _RECENT_OF_ALL:
            stream = next(iter(self._recent.values()))
            if stream.stored != stream.tail:
                return
            self._forget_recent(stream)

    def _forget_recent(self, stream: AcidStream) -> None:
        if self._recent.pop(stream.facts.id, None) is not None:
            self._recent_bytes -= stream.counted
            stream.counted = 0
            stream.recent = None

    def _forget_all_recent(self) -> None:
        for stream in self._recent.values():
            stream.recent = None
        self._recent.clear()
        self._recent_bytes = 0

    # Bytes in the database

    def _query(self, statement: str, *parameters: int) -> list[tuple[Any, ...]]:
        key = (statement, parameters)
        rows: list[tuple[Any, ...]] | None = self._hand.get(key)
        if rows is None:
            self._fetch(key, lambda: self._connection().execute(statement, parameters).fetchall())
        return rows

    def _append_bounds(self, stream: AcidStream, position: int) -> tuple[int, int]:
        # An append ends where the next one begins.
        rows = self._query(
            "SELECT append, coalesce("
            "(SELECT start FROM appends WHERE stream = ?1 AND start > ?2 AND append = start ORDER BY start LIMIT 1), "
            "(SELECT start + length(data) FROM appends WHERE stream = ?1 ORDER BY start DESC LIMIT 1)) "
            "FROM appends WHERE stream = ?1 AND start <= ?2 ORDER BY start DESC LIMIT 1",
            stream.facts.id,
            position,
        )
        if not rows or rows[0][1] <= position:
            raise StorageDamaged(f"The stream {stream.facts.name} has no byte {position}, and had one once.")
        start, end = rows[0]
        return start, end

    def _last_end(self, stream: AcidStream, start: int, most: int) -> int:
        rows = self._query(
            "SELECT append, start + length(data) FROM appends WHERE stream = ? AND start <= ? "
            "ORDER BY start DESC LIMIT 1",
            stream.facts.id,
            most,
        )
        if not rows:
            return start
        append: int = rows[0][0]
        end: int = rows[0][1]
        # If the row ends before, there is none after it, and so it is the last one of its append.
        return max(start, end if end <= most else append)

    def _own_bytes(self, stream: AcidStream, start: int, end: int) -> bytes:
        rows = self._query(
            "SELECT substr(data, max(?2 - start, 0) + 1, ?3 - max(start, ?2)) FROM appends WHERE stream = ?1 "
            "AND start < ?3 AND start >= (SELECT max(start) FROM appends WHERE stream = ?1 AND start <= ?2) "
            "ORDER BY start",
            stream.facts.id,
            start,
            end,
        )
        data = b"".join([row[0] for row in rows])
        if len(data) != end - start:
            raise StorageDamaged(f"Bytes of the stream {stream.facts.name} are missing between {start} and {end}.")
        return data
