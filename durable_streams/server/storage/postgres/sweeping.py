"""The removal of expired streams, and of the rows that removed streams leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .append_queue import Uses
from .heads import COLUMNS, Head, decode_head
from .packing import FLOAT8S, INT8, INT8S, float8s, int8, int8s, to_int
from .queries import Query, Statement, value_of
from .stream_changes import StreamChanges

#: How many streams that may have expired are read at once, and how often in one call.
_AT_ONCE: Final = 500
_ROUNDS: Final = 20

#: How often in a row a round may change nothing, because the streams were written meanwhile.
_MAX_MISSED: Final = 3

#: The maximum numbers of streams, rows of each and bytes that one statement removes rows of.
_STREAMS: Final = 50
_ROWS: Final = 200
_BYTES: Final = 8 << 20

_DUE: Final = f"""
SELECT {COLUMNS} FROM {{schema}}.streams AS s WHERE s.due <= (SELECT {{schema}}.clock()) ORDER BY s.due LIMIT $1
"""

# ``due`` is a lower bound of the expiry. It is only raised if the stream still has the TTL from which it was computed,
# and was not used before the use from which it was.
_POSTPONE: Final = """
WITH l AS MATERIALIZED (
    SELECT u.id FROM unnest($1::bigint[], $2::bigint[], $3::double precision[], $4::double precision[])
        AS u(id, ttl, used_at, due),
        LATERAL (
            SELECT s.ttl, s.used_at, s.due FROM {schema}.streams AS s WHERE s.id = u.id FOR NO KEY UPDATE SKIP LOCKED
        ) AS x
    WHERE x.ttl = u.ttl AND x.used_at >= u.used_at AND x.due < u.due
)
UPDATE {schema}.streams AS s SET due = ($4::double precision[])[array_position($1, s.id)]
WHERE s.id = ANY (ARRAY(SELECT l.id FROM l)) RETURNING s.id
"""

# Rows are found by their places: those of removed streams do not change any more.
_CLEAN: Final = """
WITH r AS MATERIALIZED (
    SELECT stream_id FROM {schema}.removed ORDER BY stream_id LIMIT $1 FOR UPDATE SKIP LOCKED
),
k AS MATERIALIZED (
    SELECT r.stream_id, c.place, sum(c.size) OVER (ORDER BY r.stream_id, c.start) - c.size AS before
    FROM r, LATERAL (
        SELECT c.ctid AS place, c.start, c.finish - c.start AS size FROM {schema}.chunks AS c
        WHERE c.stream_id = r.stream_id ORDER BY c.start LIMIT $2
    ) AS c
),
v AS MATERIALIZED (
    SELECT r.stream_id, w.place FROM r, LATERAL (
        SELECT w.ctid AS place FROM {schema}.writers AS w WHERE w.stream_id = r.stream_id ORDER BY w.writer LIMIT $2
    ) AS w
),
d AS (
    DELETE FROM {schema}.chunks WHERE ctid = ANY (ARRAY(SELECT k.place FROM k WHERE k.before < $3)) RETURNING 1
),
w AS (DELETE FROM {schema}.writers WHERE ctid = ANY (ARRAY(SELECT v.place FROM v)) RETURNING 1),
e AS (
    DELETE FROM {schema}.removed
    WHERE stream_id = ANY (ARRAY(
        SELECT r.stream_id FROM r EXCEPT SELECT k.stream_id FROM k EXCEPT SELECT v.stream_id FROM v
    )) RETURNING 1
)
SELECT (SELECT count(*) FROM d) + (SELECT count(*) FROM w) + (SELECT count(*) FROM e)
"""


class Sweep:
    """
    The removal of expired streams, by the node that has the task.

    :param query: runs a statement.
    :param schema: the name of the schema, which needs no quotes.
    :param is_holder: returns whether this node has the task now.
    """

    def __init__(
        self, query: Query, schema: str, changes: StreamChanges, uses: Uses, is_holder: Callable[[], bool]
    ) -> None:
        self._query = query
        self._changes = changes
        self._uses = uses
        self._is_holder = is_holder
        self._due = Statement("due-streams", _DUE.format(schema=schema), (INT8,))
        self._postpone = Statement(
            "postpone-streams", _POSTPONE.format(schema=schema), (INT8S, INT8S, FLOAT8S, FLOAT8S)
        )

    async def sweep(self, max_count: int) -> int:
        """
        Remove expired streams, or hide them while they have forks; see :meth:`.IStorage.sweep`.

        :returns: how many; 0 if another node has the task.
        """
        removed = missed = 0
        for _ in range(_ROUNDS):
            if removed >= max_count or not self._is_holder():
                break
            result = await self._query(self._due, [int8(_AT_ONCE)])
            heads = [decode_head(result, number) for number in range(result.ntuples)]
            expired = [head for head in heads if self._expiry(head) <= head.read_at]
            used = [head for head in heads if self._expiry(head) > head.read_at]
            count = await self._changes.remove_expired(expired[: max_count - removed])
            removed += count
            postponed = await self._postpone_all(used) if used else 0
            missed = 0 if count or postponed else missed + 1
            if not heads or missed >= _MAX_MISSED:
                # The others are locked or were used: the next sweep finds them again.
                break
        return removed

    def _expiry(self, head: Head) -> float:
        return head.expires(self._uses.last_use(head.facts.id))

    async def _postpone_all(self, heads: list[Head]) -> int:
        """Raise the lower bound of the expiry of streams that were used; return how many."""
        ordered = sorted((head for head in heads if head.lifetime.ttl is not None), key=lambda head: head.facts.id)
        result = await self._query(
            self._postpone,
            [
                int8s([head.facts.id for head in ordered]),
                int8s([head.lifetime.ttl or 0 for head in ordered]),
                float8s([head.used_at for head in ordered]),
                float8s([self._expiry(head) for head in ordered]),
            ],
        )
        return result.ntuples


class RowCleaner:
    """
    Removes the chunks and writers of streams that were removed, a bounded number at a time.

    :param query: runs a statement.
    :param schema: the name of the schema, which needs no quotes.
    """

    def __init__(self, query: Query, schema: str) -> None:
        self._query = query
        self._clean = Statement("clean-rows", _CLEAN.format(schema=schema), (INT8, INT8, INT8))

    async def clean(self, streams: int = _STREAMS, rows: int = _ROWS, size: int = _BYTES) -> bool:
        """
        Remove rows of some streams. Nodes that do so at the same time take different streams.

        :param streams: the maximum number of streams.
        :param rows: the maximum number of chunks, and of writers, of each of them.
        :param size: the number of bytes of chunks after which no further one is removed.
        :returns: whether there may be more; then call it again after a pause.
        """
        result = await self._query(self._clean, [int8(streams), int8(rows), int8(size)])
        return to_int(value_of(result, 0, 0)) > 0
