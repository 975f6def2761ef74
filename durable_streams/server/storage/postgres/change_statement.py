"""The statement that writes a change set.

The statement locks all rows in the order of their ids, so that two change sets cannot wait for each other, and compares
them before it writes anything. A row that has changed since its head was read makes the change set a miss: nothing is
written, and the operation is decided again. Appends do not change what most operations depend on, so that they cannot
keep a stream from being forked or deleted. Only where the tail or the last use matters, the version is compared.
"""

from __future__ import annotations

from math import inf
from typing import Final

from ...model import Lifetime
from ..metadata import WRITER_BYTES
from .changesets import ChangeSet, Installation, NewStream, fixed_size
from .heads import encode_config
from .packing import (
    BOOL,
    BOOLS,
    BYTEA,
    BYTEAS,
    FLOAT8,
    FLOAT8S,
    INT4,
    INT8,
    INT8S,
    TEXT,
    TEXTS,
    UUID,
    boolean,
    bools,
    byteas,
    float8,
    float8s,
    int4,
    int8,
    int8s,
    texts,
)
from .queries import Statement

#: The types of the first parameters of every statement that commits: the node's id, its epoch and the batch.
NODE: Final = (UUID, INT8, INT8)

#: Locks the row of the node, unless its epoch has ended.
FENCE: Final = (
    "f AS MATERIALIZED (SELECT {schema}.clock() AS now FROM {schema}.nodes AS n WHERE n.id = $1 AND n.epoch = $2 "
    "FOR NO KEY UPDATE)"
)


_CHANGE_TYPES: Final = (
    *(INT8S, INT8S, TEXTS, INT8S, BOOLS, FLOAT8),
    *(INT8S, INT8S, INT8, INT8S, INT8S, BOOLS),
    *(INT8, INT8, INT8),
)

#: What all change sets have in common. Rows are found by the index alone, whereas a join whose plan was made while the
#: table was small would read all of it. The CTE ``c`` has a row if everything is to be written. It is made after the
#: removals, since the name of a removed stream may be used again.
_CHANGE: Final = """
WITH {fence},
l AS MATERIALIZED (
    SELECT u.id FROM f, unnest($4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::boolean[])
        AS u(id, version, name, forks, deleted),
        LATERAL (SELECT s.* FROM {schema}.streams AS s WHERE s.id = u.id FOR UPDATE) AS x
    WHERE x.version = coalesce(nullif(u.version, 0), x.version) AND x.name = u.name AND x.forks = u.forks
        AND x.deleted = u.deleted
),
o AS MATERIALIZED (
    SELECT x.now FROM (SELECT {schema}.clock() AS now FROM f WHERE (SELECT count(*) FROM l) = cardinality($4)) AS x
    WHERE x.now < $9
),
d AS (
    DELETE FROM {schema}.streams AS s
    WHERE s.id = ANY (ARRAY(SELECT r.id FROM o, unnest($10::bigint[]) AS r(id)))
    RETURNING s.id, s.tail - s.base AS size, s.writers,
        ($11::bigint[])[array_position($10, s.id)] + coalesce(octet_length(s.sequence), 0) AS metadata
),
m AS MATERIALIZED (
    SELECT coalesce(sum((
        SELECT sum({writer} + octet_length(w.writer)) FROM {schema}.writers AS w WHERE w.stream_id = r.id
    )), 0)::bigint AS size
    FROM (SELECT d.id FROM d WHERE d.writers > 0 UNION ALL SELECT $12 FROM o WHERE $12 > 0) AS r
),
c AS MATERIALIZED (
    SELECT o.now, z.size, z.metadata + m.size AS metadata
    FROM o, m, (SELECT count(*) AS streams, coalesce(sum(d.size), 0)::bigint AS size,
        coalesce(sum(d.metadata), 0)::bigint AS metadata FROM d) AS z
    WHERE z.streams = cardinality($10)
),
g AS (
    INSERT INTO {schema}.removed (stream_id, removed_at)
    SELECT d.id, c.now FROM c, d WHERE d.size > 0 OR d.writers > 0
),
w AS (
    UPDATE {schema}.streams AS s SET forks = ($14::bigint[])[array_position($13, s.id)]::integer,
        deleted = ($15::boolean[])[array_position($13, s.id)],
        due = CASE WHEN ($15::boolean[])[array_position($13, s.id)] THEN NULL ELSE s.due END, version = s.version + 1
    WHERE s.id = ANY (ARRAY(SELECT v.id FROM c, unnest($13::bigint[]) AS v(id)))
){more}
UPDATE {schema}.nodes AS n
SET batch = $3, written = CASE WHEN c.now IS NULL THEN '{{}}'::bigint[] END,
    streams = n.streams + CASE WHEN c.now IS NULL THEN 0 ELSE $16 - cardinality($10) END,
    bytes = n.bytes + CASE WHEN c.now IS NULL THEN 0 ELSE $17 - c.size END,
    metadata = n.metadata + CASE WHEN c.now IS NULL THEN 0 ELSE $18 - c.metadata END
FROM f LEFT JOIN c ON true
WHERE n.id = $1 AND n.epoch = $2
RETURNING coalesce(c.now, f.now), n.written, c.size, c.metadata, {id}
"""

_INSERTION_TYPES: Final = (
    *(TEXT, INT8, TEXT, BYTEA, INT8, FLOAT8, BOOL, INT8, INT4, INT8, INT8),
    *(INT8S, INT8S, BYTEAS, INT8S, BYTEAS),
)

_INSERTION: Final = """,
q AS MATERIALIZED (SELECT nextval('{schema}.ids') AS id FROM c),
i AS (
    INSERT INTO {schema}.streams (id, name, incarnation, content_type, config, ttl, expires_at, created_at, updated_at,
        used_at, due, closed, source_id, depth, base, tail)
    SELECT q.id, $19, coalesce(nullif($20, 0), q.id), $21, $22, nullif($23, -1), nullif($24, 'Infinity'), c.now, c.now,
        c.now, nullif(least(c.now + nullif($23, -1), $24), 'Infinity'), $25, nullif($26, 0), $27, $28, $29
    FROM c, q
    RETURNING id
),
k AS (
    INSERT INTO {schema}.chunks (stream_id, start, finish, first, ends, checksum, data)
    SELECT i.id, v.start, v.start + octet_length(v.data), v.first, v.ends, v.checksum, v.data
    FROM i, unnest($30::bigint[], $31::bigint[], $32::bytea[], $33::bigint[], $34::bytea[])
        AS v(start, first, ends, checksum, data)
)"""

_INSTALLATION_TYPES: Final = (
    *(INT8, TEXT, INT8, BYTEA, INT8, FLOAT8, FLOAT8, FLOAT8, FLOAT8, BOOL, BYTEA, INT4),
    *(TEXTS, INT8S, INT8S, FLOAT8S, INT4, BOOL),
)

_INSTALLATION: Final = """,
i AS (
    UPDATE {schema}.streams AS s SET name = $20, incarnation = $21, config = $22, ttl = nullif($23, -1),
        expires_at = nullif($24, 'Infinity'), created_at = $25, updated_at = $26, used_at = least($27, c.now),
        due = CASE WHEN NOT $36 THEN nullif(least(least($27, c.now) + nullif($23, -1), $24), 'Infinity') END,
        closed = $28, sequence = $29, writers = $30, forks = $35, deleted = $36, version = s.version + 1
    FROM c WHERE s.id = $19 RETURNING s.id
),
b AS (DELETE FROM {schema}.writers AS w USING c WHERE w.stream_id = $19 RETURNING 1),
k AS (
    INSERT INTO {schema}.writers (stream_id, writer, epoch, seq, seen)
    SELECT $19, v.writer, v.epoch, v.seq, v.seen
    FROM (SELECT count(*) FROM b) AS gone, c, unnest($31::text[], $32::bigint[], $33::bigint[], $34::double precision[])
        AS v(writer, epoch, seq, seen)
)"""


def change_statements(schema: str) -> dict[str, Statement]:
    """
    Return the statements that write change sets.

    Each returns a row with the time; an empty array if nothing was written, else NULL; the bytes, and the bytes of
    metadata, of what was removed; and the id of the stream that was created or installed. It returns no row if the
    node's epoch has ended.
    """
    variants: dict[str, tuple[str, str, tuple[int, ...]]] = {
        "change": ("", "NULL::bigint", ()),
        "insert": (_INSERTION, "(SELECT id FROM q)", _INSERTION_TYPES),
        "install": (_INSTALLATION, "(SELECT id FROM i)", _INSTALLATION_TYPES),
    }
    fence = FENCE.format(schema=schema)
    return {
        key: Statement(
            f"changes-{key}",
            _CHANGE.format(schema=schema, fence=fence, writer=WRITER_BYTES, more=more.format(schema=schema), id=result),
            (*NODE, *_CHANGE_TYPES, *types),
        )
        for key, (more, result, types) in variants.items()
    }


def statement_key(changes: ChangeSet) -> str:
    """Return which of :func:`change_statements` writes a change set."""
    if changes.insertion is not None:
        return "insert"
    return "change" if changes.installation is None else "install"


def change_parameters(changes: ChangeSet) -> list[bytes | None]:
    """Return the parameters of the statement for a change set, after those of the node."""
    compared = changes.compared
    removed = [removal.head for removal in changes.removals]
    params: list[bytes | None] = [
        int8s([head.facts.id for head, _ in compared]),
        int8s([head.version if exact else 0 for head, exact in compared]),
        texts([head.facts.name for head, _ in compared]),
        int8s([head.forks for head, _ in compared]),
        bools([head.deleted for head, _ in compared]),
        float8(changes.until),
        int8s([head.facts.id for head in removed]),
        int8s([fixed_size(head) for head in removed]),
        int8(0 if changes.installation is None else changes.installation.head.facts.id),
        int8s([each.head.facts.id for each in changes.references]),
        int8s([each.forks for each in changes.references]),
        bools([each.deleted for each in changes.references]),
        *map(int8, changes.growth),
    ]
    if changes.insertion is not None:
        return params + _insertion_parameters(changes.insertion)
    return params if changes.installation is None else params + _installation_parameters(changes.installation)


def lifetime_parameters(lifetime: Lifetime) -> tuple[int, float]:
    """Return a TTL, or -1 for none; and the time of expiry, or infinity for none."""
    ttl, expires_at = lifetime.ttl, lifetime.expires_at
    return -1 if ttl is None else ttl, inf if expires_at is None else expires_at


def _insertion_parameters(new: NewStream) -> list[bytes | None]:
    ttl, expires_at = lifetime_parameters(new.lifetime)
    return [
        new.name.encode(),
        int8(new.incarnation or 0),
        new.content_type.encode(),
        encode_config(new.config),
        int8(ttl),
        float8(expires_at),
        boolean(new.config.closed),
        int8(new.source_id or 0),
        int4(new.depth),
        int8(new.base),
        int8(new.tail),
        int8s([start for start, _, _, _, _ in new.chunks]),
        int8s([first for _, first, _, _, _ in new.chunks]),
        byteas([ends for _, _, ends, _, _ in new.chunks]),
        int8s([checksum for _, _, _, checksum, _ in new.chunks]),
        byteas([data for _, _, _, _, data in new.chunks]),
    ]


def _installation_parameters(change: Installation) -> list[bytes | None]:
    state = change.state
    assert state.incarnation is not None
    assert state.created_at is not None
    assert state.updated_at is not None
    ttl, expires_at = lifetime_parameters(state.lifetime)
    return [
        int8(change.head.facts.id),
        change.name.encode(),
        int8(state.incarnation),
        encode_config(state.config),
        int8(ttl),
        float8(expires_at),
        float8(state.created_at),
        float8(state.updated_at),
        float8(inf if state.used_at is None else state.used_at),
        boolean(state.closed),
        state.sequence,
        int4(len(state.writers)),
        texts(list(state.writers)),
        int8s([writer.epoch for writer in state.writers.values()]),
        int8s([writer.seq for writer in state.writers.values()]),
        float8s([writer.seen for writer in state.writers.values()]),
        int4(change.forks),
        boolean(state.deleted),
    ]
