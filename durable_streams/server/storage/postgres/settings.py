"""Settings of the PostgreSQL storage. This module does not import psycopg."""

from __future__ import annotations

from msgspec import Struct


class PostgresSettings(Struct, frozen=True):
    """
    Settings of the PostgreSQL storage that are fixed while it is open. ``_ms`` in a name is its unit: milliseconds.

    :ivar dsn: a connection string of libpq, which is a secret and not in the repr; empty for libpq's defaults: service
        files and ``PG*`` variables.
    :ivar schema: the schema of the tables: a name that needs no quotes in SQL.
    :ivar connections: the number of connections for reading.
    :ivar lock_timeout_ms: how long a statement waits for the lock of a row.
    :ivar commit_deadline_ms: how long a statement that writes may take before its outcome is uncertain.
    :ivar wait_ms: how long a request waits while the database cannot be reached, before it is refused with 503.
    :ivar cache_bytes: how many bytes of data are kept in memory; 0 for none.
    :ivar migrate: whether loading creates and upgrades the tables.
    :ivar queued_bytes: how many bytes of changes may be queued; more are refused.
    :ivar verify_reads: whether bytes that are read are compared with their checksums before they are served.
    """

    dsn: str = ""
    schema: str = "durable_streams"
    connections: int = 4
    lock_timeout_ms: int = 1_000
    commit_deadline_ms: int = 10_000
    wait_ms: int = 5_000
    cache_bytes: int = 67_108_864
    migrate: bool = True
    queued_bytes: int = 67_108_864
    verify_reads: bool = True

    def __repr__(self) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "dsn")
        return f"{type(self).__name__}(dsn={'***' if self.dsn else ''!r}, {', '.join(fields)})"
