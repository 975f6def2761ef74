"""The statement of a group commit: the folds of many streams, written in one implicit transaction.

All rows are locked in the order of their ids before any is changed, so that two nodes cannot deadlock, whatever plans
they have. A row that another transaction has locked, that has another version than expected, or whose stream was
deleted or has expired, is left out, with its chunks and writers. The row of the node is locked first: a look-up after
an uncertain commit waits for it, and raises its epoch, so that this statement writes nothing if it arrives later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .commit_results import CommitResult
from .folding import Fold
from .heads import COLUMNS
from .packing import (
    BOOLS,
    BYTEAS,
    FLOAT8S,
    INT8,
    INT8S,
    TEXTS,
    UUID,
    bools,
    byteas,
    float8s,
    int8s,
    texts,
    to_float,
    to_ints,
)
from .queries import Statement, value_of

# INSERT ... ON CONFLICT never inserts here: l has only rows that are there and locked. It finds each row by the index,
# whereas an UPDATE whose plan was made while the table was small would read all of the index each time.
_COLUMNS: Final = "id, name, incarnation, content_type, config, created_at, updated_at, used_at, closed, base, tail"
_STREAMS: Final = f"""
WITH n AS MATERIALIZED (
    SELECT {{schema}}.clock() AS now FROM {{schema}}.nodes WHERE id = $1 AND epoch = $2 FOR NO KEY UPDATE
), l AS MATERIALIZED (
    SELECT s.id, s.name, s.incarnation, s.content_type, s.config, s.created_at, n.now, s.base, u.used,
        u.version, u.tail, u.closed, u.sequence, u.writers, u.size, u.metadata
    FROM n, unnest($4, $5, $6, $7, $8, $9, $10, $11, $12)
        AS u (id, version, used, tail, closed, sequence, writers, size, metadata),
        LATERAL (SELECT * FROM {{schema}}.streams AS x WHERE x.id = u.id FOR NO KEY UPDATE SKIP LOCKED) AS s
    WHERE s.version = u.version AND NOT s.deleted
        AND coalesce(greatest(s.used_at, u.used) + s.ttl, s.expires_at, 'infinity') > n.now
), w AS (
    INSERT INTO {{schema}}.streams AS s ({_COLUMNS}, sequence, writers, version)
    SELECT id, name, incarnation, content_type, config, created_at, now, now, closed, base, tail, sequence, writers,
        version
    FROM l
    ON CONFLICT (id) DO UPDATE
    SET tail = excluded.tail, closed = excluded.closed, sequence = excluded.sequence, writers = excluded.writers,
        updated_at = excluded.updated_at, used_at = excluded.used_at, version = s.version + 1
    WHERE s.version = excluded.version
    RETURNING s.id
), c AS (
    INSERT INTO {{schema}}.chunks (stream_id, start, finish, first, ends, checksum, data)
    SELECT u.id, u.start, u.start + length(u.data), u.first, u.ends, u.checksum, u.data
    FROM w, unnest($13, $14, $15, $16, $17, $18) AS u (id, start, first, ends, checksum, data)
    WHERE u.id = w.id
)"""

_WRITERS: Final = """, p AS (
    INSERT INTO {schema}.writers AS p (stream_id, writer, epoch, seq, seen)
    SELECT u.id, u.writer, u.epoch, u.seq, n.now
    FROM n, w, unnest($19, $20, $21, $22) AS u (id, writer, epoch, seq)
    WHERE u.id = w.id
    ON CONFLICT (stream_id, writer) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, seen = excluded.seen
)"""

_EVICTED: Final = """, e AS (
    DELETE FROM {schema}.writers AS e
    USING w, unnest($23, $24) AS u (id, writer)
    WHERE u.id = w.id AND e.stream_id = u.id AND e.writer = u.writer
)"""

# The ids of the streams that were written, if not all were: a look-up after an uncertain commit needs them.
_NODE: Final = """
UPDATE {schema}.nodes AS o
SET batch = $3, bytes = o.bytes + t.size, metadata = o.metadata + t.metadata, written = t.written
FROM n, (
    SELECT coalesce(sum(l.size), 0)::bigint AS size, coalesce(sum(l.metadata), 0)::bigint AS metadata,
        CASE WHEN (SELECT count(*) FROM w) < cardinality($4) THEN ARRAY(SELECT w.id FROM w) END AS written
    FROM l
) AS t
WHERE o.id = $1 AND o.epoch = $2
RETURNING n.now, o.written"""

# Returns the heads of the locked streams; a row of NULLs if none was locked; no row if the epoch has ended.
_LOCK: Final = f"""
WITH n AS MATERIALIZED (SELECT 1 FROM {{schema}}.nodes WHERE id = $1 AND epoch = $2 FOR NO KEY UPDATE)
SELECT {COLUMNS}
FROM n LEFT JOIN LATERAL (
    SELECT x.* FROM unnest($4) AS u (id),
        LATERAL (SELECT * FROM {{schema}}.streams AS y WHERE y.id = u.id FOR NO KEY UPDATE {{skip}}) AS x
) AS s ON true
"""

_STREAM_TYPES: Final = (INT8S, INT8S, FLOAT8S, INT8S, BOOLS, BYTEAS, INT8S, INT8S, INT8S)
_CHUNK_TYPES: Final = (INT8S, INT8S, INT8S, BYTEAS, INT8S, BYTEAS)
_WRITER_TYPES: Final = (INT8S, TEXTS, INT8S, INT8S)
_EVICTED_TYPES: Final = (INT8S, TEXTS)


class CommitStatements:
    """
    The statements of a schema.

    The first three parameters are the node's id and epoch, and the number of the batch. They are not among those that
    :meth:`build` returns.

    :ivar lock: locks streams, whose ids are the fourth parameter in order, and returns their heads.
    :ivar try_lock: the same, without those that other transactions have locked.
    """

    def __init__(self, schema: str) -> None:
        types: tuple[int, ...] = (UUID, INT8, INT8, *_STREAM_TYPES, *_CHUNK_TYPES)
        locking = (UUID, INT8, INT8, INT8S)
        self.lock = Statement("lock", _LOCK.format(schema=schema, skip=""), locking)
        self.try_lock = Statement("try_lock", _LOCK.format(schema=schema, skip="SKIP LOCKED"), locking)
        # Evictions are rare, and their part costs each commit some microseconds.
        self._plain = Statement("commit", (_STREAMS + _NODE).format(schema=schema), types)
        types += _WRITER_TYPES
        self._with_writers = Statement(
            "commit_with_writers", (_STREAMS + _WRITERS + _NODE).format(schema=schema), types
        )
        self._with_evictions = Statement(
            "commit_with_evictions",
            (_STREAMS + _WRITERS + _EVICTED + _NODE).format(schema=schema),
            (*types, *_EVICTED_TYPES),
        )

    def build(self, folds: Sequence[Fold], uses: Sequence[float]) -> tuple[Statement, list[bytes]]:
        """
        Return the statement for some folds, and its parameters.

        :param folds: each writes, and no two are of one stream.
        :param uses: the last use of each stream that this node knows of, which may not be written yet.
        """
        order = sorted(range(len(folds)), key=lambda number: folds[number].head.facts.id)
        folds = [folds[number] for number in order]
        ids = [each.head.facts.id for each in folds]
        # A stream that stood twice would get the chunks of both folds, and the tail of one.
        assert len(set(ids)) == len(ids)
        parameters = [
            int8s(ids),
            int8s([each.head.version for each in folds]),
            float8s([uses[number] for number in order]),
            int8s([each.tail for each in folds]),
            bools([each.closed for each in folds]),
            byteas([each.sequence for each in folds]),
            int8s([each.writers for each in folds]),
            int8s([each.size for each in folds]),
            int8s([each.metadata for each in folds]),
        ]
        rows = [(each.head.facts.id, *row) for each in folds for row in each.chunks()]
        parameters += [
            int8s([row[0] for row in rows]),
            int8s([row[1] for row in rows]),
            int8s([row[2] for row in rows]),
            byteas([row[3] for row in rows]),
            int8s([row[4] for row in rows]),
            byteas([row[5] for row in rows]),
        ]
        if not any(each.states or each.evicted for each in folds):
            return self._plain, parameters
        states = [(each.head.facts.id, key, state) for each in folds for key, state in each.states.items()]
        parameters += [
            int8s([row[0] for row in states]),
            texts([row[1] for row in states]),
            int8s([row[2].epoch for row in states]),
            int8s([row[2].seq for row in states]),
        ]
        evicted = [(each.head.facts.id, key) for each in folds for key in each.evicted]
        if not evicted:
            return self._with_writers, parameters
        parameters += [int8s([row[0] for row in evicted]), texts([row[1] for row in evicted])]
        return self._with_evictions, parameters


def written_by(result: CommitResult) -> tuple[float, frozenset[int] | None]:
    """Return the database's time, and the ids of the written streams, or None if all were written."""
    written = result.get_value(0, 1)
    return to_float(value_of(result, 0, 0)), None if written is None else frozenset(to_ints(written))
