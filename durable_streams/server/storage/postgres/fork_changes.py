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
from .change_statement import FENCE, NODE
from .changesets import NewStream
from .heads import Head
from .packing import FLOAT8S, INT8S, TEXTS, float8s, int8s, texts
from .plain_changes import (
    COUNT_CREATED,
    COUNT_REMOVED,
    CREATE_TYPES,
    REMOVE_TYPES,
    PlainRemoval,
    create_parameters,
    remove_parameters,
)
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
{count}"""

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
{count}"""


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
        _CREATE.format(
            schema=schema, fence=FENCE.format(schema=schema), count=COUNT_CREATED.format(schema=schema, names="$7")
        ),
        (*NODE, INT8S, TEXTS, FLOAT8S, *CREATE_TYPES, INT8S, INT8S, INT8S, INT8S),
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
    return [
        int8s(ids),
        texts([sources[key].source.facts.name for key in ids]),
        float8s([sources[key].until for key in ids]),
        *create_parameters(streams),
        int8s([new.incarnation or 0 for new in streams]),
        int8s([new.source_id or 0 for new in streams]),
        int8s([new.depth for new in streams]),
        int8s([new.base for new in streams]),
    ]


def unfork_statement(schema: str) -> Statement:
    """Return the statement that removes forks. Its result is that of :func:`.plain_changes.remove_statement`."""
    return Statement(
        "remove-forks",
        _REMOVE.format(
            schema=schema,
            fence=FENCE.format(schema=schema),
            count=COUNT_REMOVED.format(schema=schema, writer=WRITER_BYTES, ids="$5"),
        ),
        (*NODE, INT8S, *REMOVE_TYPES),
    )


def unfork_parameters(removals: Sequence[PlainRemoval]) -> list[bytes | None]:
    """
    Return the parameters after those of the node.

    :param removals: of forks without forks; each stands in it once.
    """
    heads = [removal.head for removal in removals]
    return [
        int8s(sorted({each for head in heads for each in (head.facts.id, head.source_id or 0)})),
        *remove_parameters(removals),
    ]
