"""The tables of the PostgreSQL storage, as a list of migrations.

Only what a constraint can say is here: the rules of the protocol are in Python, and the writing statements compare
versions. Names are text, so the database's encoding must be UTF8.
"""

from __future__ import annotations

import re
from typing import Final

#: The name of a schema: an identifier that needs no quotes.
SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")

#: Unused space in the pages of tables whose rows are updated in place (HOT): 99 % of the updates, measured.
_UPDATED: Final = "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05"

_FIRST: Final = f"""
CREATE SEQUENCE {{schema}}.ids;
SELECT setval('{{schema}}.ids', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);

CREATE FUNCTION {{schema}}.clock() RETURNS double precision LANGUAGE sql VOLATILE
    AS 'SELECT extract(epoch FROM clock_timestamp())::double precision';

CREATE TABLE {{schema}}.streams (
    id bigint PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    incarnation bigint NOT NULL,
    content_type text NOT NULL,
    config bytea NOT NULL,
    ttl bigint,
    expires_at double precision,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL,
    used_at double precision NOT NULL,
    due double precision,
    closed boolean NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    base bigint NOT NULL,
    tail bigint NOT NULL CHECK (tail >= base),
    sequence bytea,
    writers integer NOT NULL DEFAULT 0,
    source_id bigint,
    depth integer NOT NULL DEFAULT 0,
    forks integer NOT NULL DEFAULT 0 CHECK (forks >= 0),
    version bigint NOT NULL DEFAULT 1
) WITH ({_UPDATED});
CREATE INDEX streams_due ON {{schema}}.streams (due) WHERE due IS NOT NULL;
CREATE INDEX streams_source ON {{schema}}.streams (source_id) WHERE source_id IS NOT NULL;

CREATE TABLE {{schema}}.chunks (
    stream_id bigint NOT NULL,
    start bigint NOT NULL,
    finish bigint NOT NULL CHECK (finish > start),
    first bigint NOT NULL CHECK (first <= start),
    ends bytea NOT NULL,
    checksum bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (stream_id, start)
);
ALTER TABLE {{schema}}.chunks ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE {{schema}}.writers (
    stream_id bigint NOT NULL,
    writer text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    seq bigint NOT NULL,
    seen double precision NOT NULL,
    PRIMARY KEY (stream_id, writer)
) WITH ({_UPDATED});

CREATE TABLE {{schema}}.removed (
    stream_id bigint PRIMARY KEY,
    removed_at double precision NOT NULL
);

CREATE TABLE {{schema}}.key_values (
    digest bytea PRIMARY KEY,
    key bytea NOT NULL,
    value bytea,
    version bigint NOT NULL
);
CREATE INDEX key_values_key ON {{schema}}.key_values (substring(key, 1, 2000));

CREATE TABLE {{schema}}.nodes (
    id uuid PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 1,
    batch bigint NOT NULL DEFAULT 0,
    written bigint[],
    seen double precision NOT NULL,
    streams bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    metadata bigint NOT NULL DEFAULT 0
) WITH ({_UPDATED});

CREATE TABLE {{schema}}.leases (
    name text COLLATE "C" PRIMARY KEY,
    node uuid NOT NULL,
    epoch bigint NOT NULL,
    until double precision NOT NULL
) WITH ({_UPDATED});
"""

_MIGRATIONS: Final = (_FIRST,)

#: The version of the tables that this server reads and writes: the number of migrations.
SCHEMA_VERSION: Final = len(_MIGRATIONS)


def migrations(schema: str, version: int) -> list[str]:
    """
    Return the SQL scripts that bring a schema from a version to the present one, one script for each version.

    :param schema: a name that matches :data:`SCHEMA_NAME`.
    :param version: the version that the schema has; 0 for an empty one.
    """
    check_schema_name(schema)
    return [script.format(schema=schema) for script in _MIGRATIONS[version:]]


def check_schema_name(schema: str) -> None:
    """
    Check that a name can be put into SQL as it is.

    :raises ValueError: it cannot.
    """
    if SCHEMA_NAME.fullmatch(schema) is None:
        raise ValueError(f"{schema!r} is not a name of a schema: use lower-case letters, digits and underscores.")
