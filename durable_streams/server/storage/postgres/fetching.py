"""Reads chunks: from the cache, or from the database in pieces of consecutive rows."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...errors import Unavailable
from ..repeated_logs import RepeatedLogs
from .chunk_cache import ChunkCache
from .chunk_index import StoredChunk, decode_chunk, decode_ends
from .packing import INT8, int8, to_int
from .queries import Query, Statement, value_of

#: How many bytes are read ahead of a position, besides the rest of the last row. A piece of 1 MiB costs the client 0.5
#: to 1.5 ms, and needs no snapshot while a slow reader takes it.
READ_AHEAD: Final = 1 << 20

#: How many rows are read at once. To decode one takes 6 to 9 us: a MiB of messages of 10 bytes would take 0.8 s.
_MAX_ROWS: Final = 2_000

#: Consecutive rows that are smaller than this together become one cached chunk.
_JOINED: Final = 262_144

#: How many rows of the index of appends are read at once. Each has at most as many ends as a chunk has bytes.
_INDEX_ROWS: Final = 16

#: The chunks of the stream $1 from the one with the byte at $2 to the last one that begins before $3.
_CHUNKS: Final = (
    "FROM {0}.chunks WHERE stream_id = $1 AND start >= "
    "coalesce((SELECT max(start) FROM {0}.chunks WHERE stream_id = $1 AND start <= $2), $2) AND start < $3"
)

_log = Logger()


class MissingChunk(Exception):
    """The database has no intact chunk with the byte at a position. The stream was removed, or its data is damaged."""


class ChunkFetcher:
    """
    Chunks of streams by position.

    :param query: runs a statement on a connection for reading.
    :param schema: the name of the schema, which needs no quotes.
    :param verify: whether chunks are compared with their checksums.
    :ivar read_together: called with a stream's id, a chunk, and of how many consecutive rows it was joined; not if they
        were not verified, since a merge would give damaged bytes a checksum that matches.
    """

    def __init__(self, query: Query, schema: str, cache: ChunkCache, clock: IReactorTime, verify: bool = True) -> None:
        self.read_together: Callable[[int, StoredChunk, int], None] = lambda _id, _chunk, _count: None
        self._query = query
        self._logs = RepeatedLogs(clock)
        self._cache = cache
        self._verify = verify
        chunks = _CHUNKS.format(schema)
        self._rows = Statement(
            "chunks",
            f"SELECT start, finish, first, ends, checksum, data {chunks} ORDER BY start LIMIT $4",
            (INT8, INT8, INT8, INT8),
        )
        self._index = Statement(
            "chunk-ends",
            f"SELECT start, ends {chunks} AND ends <> '' ORDER BY start LIMIT $4",
            (INT8, INT8, INT8, INT8),
        )
        # Reads that are under way, with those who wait for the same.
        self._flights: dict[tuple[int, int], list[Deferred[StoredChunk | None]]] = {}

    async def chunk_at(self, stream_id: int, position: int, end: int) -> StoredChunk:
        """
        Return a chunk that has the byte at a position.

        :param end: a position up to which the caller goes on reading; the database is asked for at most
            :data:`READ_AHEAD` bytes of it.
        :raises MissingChunk: there is none.
        """
        while True:
            chunk = self._cache.find(stream_id, position)
            key = (stream_id, position)
            if chunk is None and key in self._flights:
                waiting = self._flights[key]
                other: Deferred[StoredChunk | None] = Deferred(waiting.remove)
                waiting.append(other)
                chunk = await other
            elif chunk is None:
                chunk = await self._fetch(key, max(position + 1, min(end, position + READ_AHEAD)))
                if chunk is None:
                    raise MissingChunk(f"the database has no intact chunk of stream {stream_id} at {position}")
            if chunk is not None:
                return chunk

    async def _fetch(self, key: tuple[int, int], end: int) -> StoredChunk | None:
        """
        Read consecutive chunks and cache them; return the first one, also to those who wait for it.

        If the database cannot be reached, they are refused as well. If this read is cancelled, they read themselves.
        """
        stream_id, position = key
        self._flights[key] = []
        found: StoredChunk | None = None
        refusal = ""
        try:
            rows = await self._query(self._rows, (int8(stream_id), int8(position), int8(end), int8(_MAX_ROWS)))
            for chunk, count in joined(self._intact(stream_id, rows)):
                self._cache.add(stream_id, chunk)
                if self._verify:
                    self.read_together(stream_id, chunk, count)
                if chunk.start <= position < chunk.finish:
                    found = chunk
        except Unavailable as error:
            refusal = str(error)
            raise
        finally:
            for deferred in self._flights.pop(key):
                if refusal:
                    deferred.errback(Unavailable(refusal))
                else:
                    deferred.callback(found)
        return found

    async def ends(self, stream_id: int, position: int, end: int, max_count: int) -> list[int]:
        """
        Return where appends end after a position and before another one, ascending.

        :param max_count: the maximum number of ends; the rest is left out.
        """
        found: list[int] = []
        while len(found) < max_count and position < end:
            rows = await self._query(self._index, (int8(stream_id), int8(position), int8(end), int8(_INDEX_ROWS)))
            for number in range(rows.ntuples):
                ends = decode_ends(to_int(value_of(rows, number, 0)), value_of(rows, number, 1))
                found += [each for each in ends if position < each < end]
            if rows.ntuples < _INDEX_ROWS:
                break
            position = found[-1] if found else position
        return found[:max_count]

    def _intact(self, stream_id: int, rows: PGresult) -> Iterator[StoredChunk]:
        """Yield the intact chunks of rows; log those that are not as they were written, and leave them out."""
        for number in range(rows.ntuples):
            chunk = decoded(rows, number, self._verify)
            if chunk is not None:
                yield chunk
                continue
            start = to_int(value_of(rows, number, 0))
            if self._logs.is_due(f"{stream_id} {start}"):
                _log.error(
                    "Damaged data: the chunk of stream {id} at {start} is not as it was written. Reads of it fail with "
                    "500. Run durable-streams-server check, and restore the database from a backup.",
                    id=stream_id,
                    start=start,
                )


def decoded(rows: PGresult, number: int, verify: bool = True) -> StoredChunk | None:
    """Return the chunk of a row, or None if it is not as it was written."""
    start, finish, first = (to_int(value_of(rows, number, column)) for column in range(3))
    ends, checksum, data = value_of(rows, number, 3), to_int(value_of(rows, number, 4)), value_of(rows, number, 5)
    return decode_chunk(start, finish, first, ends, checksum, data, verify)


def joined(chunks: Iterable[StoredChunk], max_size: int = _JOINED) -> Iterator[tuple[StoredChunk, int]]:
    """
    Join small consecutive chunks, so that a range of them is found and copied at once.

    :returns: each joined chunk, and of how many it was made.
    """
    group: list[StoredChunk] = []
    size = 0
    for chunk in chunks:
        if group and (size + len(chunk.data) > max_size or chunk.start != group[-1].finish):
            yield _join(group), len(group)
            group, size = [], 0
        group.append(chunk)
        size += len(chunk.data)
    if group:
        yield _join(group), len(group)


def _join(group: list[StoredChunk]) -> StoredChunk:
    if len(group) == 1:
        return group[0]
    ends = array("Q")
    for chunk in group:
        ends.extend(chunk.ends)
    return StoredChunk(group[0].start, group[0].first, ends, b"".join([chunk.data for chunk in group]))
