"""Merging of small chunks that are read together, so that later reads of them are fast.

Rows of 256 bytes are read at 80 MiB/s, rows of 64 KiB at 280. A merge costs as much as the appends did (36 MiB/s), so
only chunks that were read are merged, and only once.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from psycopg.pq.abc import PGresult
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import StreamsError
from .chunk_index import StoredChunk, checksum_of, encode_ends
from .packing import BYTEA, INT8, int8
from .queries import Query, QueryFailed, Statement

#: Chunks are merged if there are at least so many, and together they have at least so many bytes.
_MIN_CHUNKS: Final = 8
_MIN_BYTES: Final = 65_536

#: So many are merged however few bytes they have: a read of messages of 10 bytes would need a statement for each 20 KB.
_MANY_CHUNKS: Final = 1_000

#: How many merges may wait. Further ones are dropped; they are offered again by the next read.
_MAX_WAITING: Final = 32

#: The pause after a merge, in multiples of its duration: merges take at most a fifth of one connection.
_PAUSE: Final = 4.0

_log = Logger()

# The stream's row is locked against its removal, which would leave the merged chunk behind. Rows that another node has
# merged meanwhile are not there any more: then nothing is done.
_MERGE: Final = """
WITH s AS MATERIALIZED (SELECT 1 FROM {0}.streams WHERE id = $1 FOR KEY SHARE),
o AS MATERIALIZED (
    SELECT c.start, c.finish FROM s, LATERAL (
        SELECT x.start, x.finish FROM {0}.chunks AS x WHERE x.stream_id = $1 AND x.start >= $2 AND x.start < $3
        ORDER BY x.start FOR UPDATE
    ) AS c
),
d AS (
    DELETE FROM {0}.chunks AS c USING o WHERE c.stream_id = $1 AND c.start = o.start
        AND (SELECT count(*) = $4 AND sum(o.finish - o.start) = $3 - $2 FROM o)
    RETURNING 1
)
INSERT INTO {0}.chunks (stream_id, start, finish, first, ends, checksum, data)
SELECT $1, $2, $3, $5, $6, $7, $8 FROM (SELECT count(*) AS n FROM d) AS x WHERE x.n = $4
RETURNING 1
"""


class Merger:
    """
    Merges chunks one group at a time, in the background.

    :param query: runs a statement.
    :param schema: the name of the schema, which needs no quotes.
    :ivar merged: how many chunks were replaced by larger ones.
    """

    def __init__(self, query: Query, schema: str, clock: IReactorTime) -> None:
        self._query = query
        self._clock = clock_of(clock)
        self._merge = Statement("merge", _MERGE.format(schema), (INT8, INT8, INT8, INT8, INT8, BYTEA, INT8, BYTEA))
        self._waiting: deque[tuple[int, StoredChunk, int]] = deque()
        self._timer: IDelayedCall | None = None
        self._busy = False
        self._stopped = False
        self.merged = 0

    def offer(self, stream_id: int, chunk: StoredChunk, count: int) -> None:
        """
        Merge consecutive chunks of a stream that were read together, if it is worth it.

        :param chunk: all of them, joined.
        :param count: the number of the chunks.
        """
        if count < _MIN_CHUNKS or (len(chunk.data) < _MIN_BYTES and count < _MANY_CHUNKS):
            return
        if len(self._waiting) < _MAX_WAITING and not self._stopped:
            self._waiting.append((stream_id, chunk, count))
            self._schedule(0.0)

    def clear(self) -> None:
        """Drop the merges that wait."""
        self._waiting.clear()

    def stop(self) -> None:
        """Begin no further merge."""
        self._stopped = True
        self.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, pause: float) -> None:
        if self._waiting and self._timer is None and not self._busy:
            self._timer = self._clock.callLater(pause, self._run)

    def _run(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        self._busy = True
        stream_id, chunk, count = self._waiting.popleft()
        began_at = self._clock.seconds()
        ends = encode_ends(chunk.start, chunk.ends)
        done = self._query(
            self._merge,
            (
                int8(stream_id),
                int8(chunk.start),
                int8(chunk.finish),
                int8(count),
                int8(chunk.first),
                ends,
                int8(checksum_of(chunk.start, chunk.first, ends, chunk.data)),
                chunk.data,
            ),
        )
        done.addCallback(self._count, count).addErrback(self._failed)
        done.addCallback(lambda _: self._ended(began_at))

    def _count(self, rows: PGresult, count: int) -> None:
        if rows.ntuples:
            self.merged += count

    def _failed(self, failure: Failure) -> None:
        if not failure.check(StreamsError, QueryFailed):
            _log.failure("Merging chunks failed.", failure=failure)

    def _ended(self, began_at: float) -> None:
        self._busy = False
        self._schedule(_PAUSE * (self._clock.seconds() - began_at))
