"""Creations and removals of forks: many of them are written by one statement, each for itself.

The sources are locked with them, all in the order of their ids, and count their forks. A fork whose name is taken, or
whose source was deleted or has expired, is left out, as is the removal of a fork whose source is hidden: it may be the
last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

from msgspec import Struct

from ..metadata import WRITER_BYTES
from .change_statement import FENCE, NODE, lifetime_parameters
from .changesets import NewStream, fixed_size
from .heads import Head, encode_config
from .packing import BOOLS, BYTEAS, FLOAT8S, INT8S, TEXTS, bools, byteas, float8s, int8s, texts
from .plain_changes import PlainRemoval
from .queries import Statement

# Rows are found by the index alone, and what a row is changed by is computed before: PostgreSQL evaluates it again if
# the row was changed while the statement waited for its lock, and cannot read what the statement itself has written.
_CREATE: Final = """
WITH {fence},
l AS MATERIALIZED (
    SELECT u.id FROM f, unnest($4::bigint[], $5::text[], $6::double precision[]) AS u(id, name, until),
        LATERAL (SELECT s.* FROM {schema}.streams AS s WHERE s.id = u.id FOR NO KEY UPDATE) AS x
    WHERE x.name = u.name AND NOT x.deleted AND {schema}.clock() < u.until
),
v AS MATERIALIZED (
    SELECT nextval('{schema}.ids') AS id, f.now, u.* FROM f, unnest($7::text[], $8::text[], $9::bytea[], $10::bigint[],
        $11::double precision[], $12::boolean[], $13::bigint[], $14::bytea[], $15::bigint[], $16::bytea[],
        $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[]) WITH ORDINALITY
        AS u(name, content_type, config, ttl, expires_at, closed, metadata, ends, checksum, data, incarnation,
            source_id, depth, base, place)
    WHERE u.source_id = ANY (ARRAY(SELECT l.id FROM l))
),
i AS (
    INSERT INTO {schema}.streams (id, name, incarnation, content_type, config, ttl, expires_at, created_at, updated_at,
        used_at, due, closed, base, tail, source_id, depth)
    SELECT v.id, v.name, v.incarnation, v.content_type, v.config, nullif(v.ttl, -1), nullif(v.expires_at, 'Infinity'),
        v.now, v.now, v.now, nullif(least(v.now + nullif(v.ttl, -1), v.expires_at), 'Infinity'), v.closed, v.base,
        v.base + coalesce(octet_length(v.data), 0), v.source_id, v.depth::integer
    FROM v ON CONFLICT (name) DO NOTHING RETURNING id
),
x AS MATERIALIZED (SELECT v.* FROM i JOIN v ON v.id = i.id),
k AS (
    INSERT INTO {schema}.chunks (stream_id, start, finish, first, ends, checksum, data)
    SELECT x.id, x.base, x.base + octet_length(x.data), x.base, x.ends, x.checksum, x.data
    FROM x WHERE x.data IS NOT NULL
),
g AS MATERIALIZED (SELECT x.source_id AS id, count(*)::integer AS forks FROM x GROUP BY x.source_id),
w AS (
    UPDATE {schema}.streams AS s
    SET version = s.version + 1, forks = s.forks + (ARRAY(SELECT g.forks FROM g ORDER BY g.id))[
        array_position(ARRAY(SELECT g.id FROM g ORDER BY g.id), s.id)]
    WHERE s.id = ANY (ARRAY(SELECT g.id FROM g))
)
UPDATE {schema}.nodes AS n
SET batch = $3, written = CASE WHEN z.streams < cardinality($7) THEN coalesce(z.places, '{{}}') END,
    streams = n.streams + z.streams, bytes = n.bytes + z.size, metadata = n.metadata + z.metadata
FROM f, (
    SELECT count(*) AS streams, coalesce(sum(octet_length(x.data)), 0)::bigint AS size,
        coalesce(sum(x.metadata), 0)::bigint AS metadata, array_agg(x.place ORDER BY x.place) AS places,
        array_agg(x.id ORDER BY x.place) AS ids
    FROM x
) AS z
WHERE n.id = $1 AND n.epoch = $2
RETURNING f.now, n.written, z.ids
"""

_REMOVE: Final = """
WITH {fence},
l AS MATERIALIZED (
    SELECT x.id, x.name, x.version, x.forks, x.deleted, x.source_id FROM f, unnest($4::bigint[]) AS u(id),
        LATERAL (SELECT s.* FROM {schema}.streams AS s WHERE s.id = u.id FOR UPDATE) AS x
),
r AS MATERIALIZED (
    SELECT l.id, l.source_id, u.metadata
    FROM f, unnest($5::bigint[], $6::bigint[], $7::text[], $8::bigint[], $9::double precision[])
        AS u(id, version, name, metadata, until) JOIN l ON l.id = u.id
    WHERE l.version = coalesce(nullif(u.version, 0), l.version) AND l.name = u.name AND l.forks = 0 AND NOT l.deleted
        AND f.now < u.until AND l.source_id = ANY (ARRAY(SELECT o.id FROM l AS o WHERE NOT o.deleted))
),
d AS (
    DELETE FROM {schema}.streams AS s WHERE s.id = ANY (ARRAY(SELECT r.id FROM r))
    RETURNING s.id, s.tail - s.base AS size, s.writers,
        ($8::bigint[])[array_position($5, s.id)] + coalesce(octet_length(s.sequence), 0) AS metadata
),
g AS MATERIALIZED (SELECT r.source_id AS id, count(*)::integer AS forks FROM r GROUP BY r.source_id),
w AS (
    UPDATE {schema}.streams AS s
    SET version = s.version + 1, forks = s.forks - (ARRAY(SELECT g.forks FROM g ORDER BY g.id))[
        array_position(ARRAY(SELECT g.id FROM g ORDER BY g.id), s.id)]
    WHERE s.id = ANY (ARRAY(SELECT g.id FROM g))
),
m AS MATERIALIZED (
    SELECT coalesce(sum((
        SELECT sum({writer} + octet_length(w.writer)) FROM {schema}.writers AS w WHERE w.stream_id = d.id
    )), 0)::bigint AS size
    FROM d WHERE d.writers > 0
),
e AS (
    INSERT INTO {schema}.removed (stream_id, removed_at)
    SELECT d.id, f.now FROM f, d WHERE d.size > 0 OR d.writers > 0
)
UPDATE {schema}.nodes AS n
SET batch = $3, written = CASE WHEN z.streams < cardinality($5) THEN coalesce(z.ids, '{{}}') END,
    streams = n.streams - z.streams, bytes = n.bytes - z.size, metadata = n.metadata - z.metadata - m.size
FROM f, m, (
    SELECT count(*) AS streams, coalesce(sum(d.size), 0)::bigint AS size,
        coalesce(sum(d.metadata), 0)::bigint AS metadata, array_agg(d.id) AS ids
    FROM d
) AS z
WHERE n.id = $1 AND n.epoch = $2
RETURNING f.now, n.written, z.size, z.metadata + m.size
"""


class PlainFork(Struct, frozen=True, gc=False):
    """
    The creation of a fork whose name is free.

    :ivar new: the fork, which has at most one chunk.
    :ivar source: the source as it was read; appends may have come since.
    :ivar until: the database's time from which on it must not be written.
    """

    new: NewStream
    source: Head
    until: float = inf


def fork_statement(schema: str) -> Statement:
    """Return the statement that creates forks. Its result is that of :func:`.plain_changes.create_statement`."""
    return Statement(
        "create-forks",
        _CREATE.format(schema=schema, fence=FENCE.format(schema=schema)),
        (
            *(*NODE, INT8S, TEXTS, FLOAT8S),
            *(TEXTS, TEXTS, BYTEAS, INT8S, FLOAT8S, BOOLS, INT8S, BYTEAS, INT8S, BYTEAS),
            *(INT8S, INT8S, INT8S, INT8S),
        ),
    )


def fork_parameters(forks: Sequence[PlainFork]) -> list[bytes | None]:
    """
    Return the parameters after those of the node.

    :param forks: by name.
    """
    sources: dict[int, PlainFork] = {}
    for fork in forks:
        known = sources.get(fork.source.facts.id)
        if known is None or fork.source.version > known.source.version:
            sources[fork.source.facts.id] = fork
    ids = sorted(sources)
    streams = [fork.new for fork in forks]
    lifetimes = [lifetime_parameters(new.lifetime) for new in streams]
    chunks = [new.chunks[0] if new.chunks else (0, 0, b"", 0, None) for new in streams]
    return [
        int8s(ids),
        texts([sources[key].source.facts.name for key in ids]),
        float8s([sources[key].until for key in ids]),
        texts([new.name for new in streams]),
        texts([new.content_type for new in streams]),
        byteas([encode_config(new.config) for new in streams]),
        int8s([ttl for ttl, _ in lifetimes]),
        float8s([expires_at for _, expires_at in lifetimes]),
        bools([new.config.closed for new in streams]),
        int8s([new.metadata for new in streams]),
        byteas([chunk[2] for chunk in chunks]),
        int8s([chunk[3] for chunk in chunks]),
        byteas([chunk[4] for chunk in chunks]),
        int8s([new.incarnation or 0 for new in streams]),
        int8s([new.source_id or 0 for new in streams]),
        int8s([new.depth for new in streams]),
        int8s([new.base for new in streams]),
    ]


def unfork_statement(schema: str) -> Statement:
    """Return the statement that removes forks. Its result is that of :func:`.plain_changes.remove_statement`."""
    return Statement(
        "remove-forks",
        _REMOVE.format(schema=schema, fence=FENCE.format(schema=schema), writer=WRITER_BYTES),
        (*NODE, INT8S, INT8S, INT8S, TEXTS, INT8S, FLOAT8S),
    )


def unfork_parameters(removals: Sequence[PlainRemoval]) -> list[bytes | None]:
    """
    Return the parameters after those of the node.

    :param removals: of forks without forks; each stands in it once.
    """
    heads = [removal.head for removal in removals]
    return [
        int8s(sorted({each for head in heads for each in (head.facts.id, head.source_id or 0)})),
        int8s([head.facts.id for head in heads]),
        int8s([removal.head.version if removal.exact else 0 for removal in removals]),
        texts([head.facts.name for head in heads]),
        int8s([fixed_size(head) for head in heads]),
        float8s([removal.until for removal in removals]),
    ]
