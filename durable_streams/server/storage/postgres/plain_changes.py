"""Creations and removals that concern one row each: many of them are written by one statement, each for itself.

A creation is plain if the stream is no fork and its name is free; a removal, if the stream has no forks and no source.
A row whose name is taken, or that was changed or is locked, is left out; the others are written.
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
from .queries import Statement

#: The types of :func:`create_parameters` and :func:`remove_parameters`.
CREATE_TYPES: Final = (TEXTS, TEXTS, BYTEAS, INT8S, FLOAT8S, BOOLS, INT8S, BYTEAS, INT8S, BYTEAS)
REMOVE_TYPES: Final = (INT8S, INT8S, TEXTS, INT8S, FLOAT8S)

#: The end of a statement that creates streams: the CTE ``x`` has those that were created, and the parameter ``{names}``
#: the names of all.
COUNT_CREATED: Final = """
UPDATE {schema}.nodes AS n
SET batch = $3, written = CASE WHEN z.streams < cardinality({names}) THEN coalesce(z.places, '{{}}') END,
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

#: The end of a statement that removes streams: the CTE ``d`` has those that were removed, and the parameter ``{ids}``
#: the ids of all.
COUNT_REMOVED: Final = """
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
SET batch = $3, written = CASE WHEN z.streams < cardinality({ids}) THEN coalesce(z.ids, '{{}}') END,
    streams = n.streams - z.streams, bytes = n.bytes - z.size, metadata = n.metadata - z.metadata - m.size
FROM f, m, (
    SELECT count(*) AS streams, coalesce(sum(d.size), 0)::bigint AS size,
        coalesce(sum(d.metadata), 0)::bigint AS metadata, array_agg(d.id) AS ids
    FROM d
) AS z
WHERE n.id = $1 AND n.epoch = $2
RETURNING f.now, n.written, z.size, z.metadata + m.size
"""

_CREATE: Final = """
WITH {fence},
v AS MATERIALIZED (
    SELECT nextval('{schema}.ids') AS id, f.now, u.* FROM f, unnest($4::text[], $5::text[], $6::bytea[], $7::bigint[],
        $8::double precision[], $9::boolean[], $10::bigint[], $11::bytea[], $12::bigint[], $13::bytea[])
        WITH ORDINALITY AS u(name, content_type, config, ttl, expires_at, closed, metadata, ends, checksum, data, place)
),
i AS (
    INSERT INTO {schema}.streams (id, name, incarnation, content_type, config, ttl, expires_at, created_at, updated_at,
        used_at, due, closed, base, tail)
    SELECT v.id, v.name, v.id, v.content_type, v.config, nullif(v.ttl, -1), nullif(v.expires_at, 'Infinity'), v.now,
        v.now, v.now, nullif(least(v.now + nullif(v.ttl, -1), v.expires_at), 'Infinity'), v.closed, 0,
        coalesce(octet_length(v.data), 0)
    FROM v ON CONFLICT (name) DO NOTHING RETURNING id
),
x AS MATERIALIZED (SELECT v.* FROM i JOIN v ON v.id = i.id),
k AS (
    INSERT INTO {schema}.chunks (stream_id, start, finish, first, ends, checksum, data)
    SELECT x.id, 0, octet_length(x.data), 0, x.ends, x.checksum, x.data FROM x WHERE x.data IS NOT NULL
)
{count}"""

_REMOVE: Final = """
WITH {fence},
l AS MATERIALIZED (
    SELECT u.id FROM f, unnest($4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::double precision[])
        AS u(id, version, name, metadata, until),
        LATERAL (SELECT s.* FROM {schema}.streams AS s WHERE s.id = u.id FOR UPDATE SKIP LOCKED) AS x
    WHERE x.version = coalesce(nullif(u.version, 0), x.version) AND x.name = u.name AND x.forks = 0 AND NOT x.deleted
        AND f.now < u.until
),
d AS (
    DELETE FROM {schema}.streams AS s WHERE s.id = ANY (ARRAY(SELECT l.id FROM l))
    RETURNING s.id, s.tail - s.base AS size, s.writers,
        ($7::bigint[])[array_position($4, s.id)] + coalesce(octet_length(s.sequence), 0) AS metadata
),
{count}"""


def create_statement(schema: str) -> Statement:
    """
    Return the statement that creates streams.

    It returns a row with the time; the places in the parameters, from 1, of the streams that were created, or NULL if
    all were; and their ids. It returns no row if the node's epoch has ended.
    """
    return Statement(
        "create-streams",
        _CREATE.format(
            schema=schema, fence=FENCE.format(schema=schema), count=COUNT_CREATED.format(schema=schema, names="$4")
        ),
        (*NODE, *CREATE_TYPES),
    )


def create_parameters(streams: Sequence[NewStream]) -> list[bytes | None]:
    """
    Return the parameters after those of the node.

    :param streams: by name, so that two nodes that create the same names do not wait for each other; each with at most
        one chunk.
    """
    lifetimes = [lifetime_parameters(new.lifetime) for new in streams]
    chunks = [new.chunks[0] if new.chunks else (0, 0, b"", 0, None) for new in streams]
    return [
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
    ]


class PlainRemoval(Struct, frozen=True, gc=False):
    """
    The removal of a stream that has no forks.

    :ivar head: the stream as it was read.
    :ivar exact: whether no other change may have been made since, such as an append.
    :ivar until: the database's time from which on it must not be written.
    """

    head: Head
    exact: bool = False
    until: float = inf


def is_plain(head: Head) -> bool:
    """Return whether the removal of a stream changes no other stream, but for the number of forks of its source."""
    return not head.forks


def remove_statement(schema: str) -> Statement:
    """
    Return the statement that removes streams.

    It returns a row with the time; the ids of the streams that were removed, or NULL if all were; and their bytes, and
    bytes of metadata. It returns no row if the node's epoch has ended.
    """
    return Statement(
        "remove-streams",
        _REMOVE.format(
            schema=schema,
            fence=FENCE.format(schema=schema),
            count=COUNT_REMOVED.format(schema=schema, writer=WRITER_BYTES, ids="$4"),
        ),
        (*NODE, *REMOVE_TYPES),
    )


def remove_parameters(removals: Sequence[PlainRemoval]) -> list[bytes | None]:
    """
    Return the parameters after those of the node.

    :param removals: by the id of the stream; each stream stands in it once.
    """
    return [
        int8s([removal.head.facts.id for removal in removals]),
        int8s([removal.head.version if removal.exact else 0 for removal in removals]),
        texts([removal.head.facts.name for removal in removals]),
        int8s([fixed_size(removal.head) for removal in removals]),
        float8s([removal.until for removal in removals]),
    ]
