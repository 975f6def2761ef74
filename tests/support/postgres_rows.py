"""Rows of streams and chunks in a real database, which tests write themselves."""

from __future__ import annotations

from durable_streams.server.model import StreamConfig
from durable_streams.server.storage.postgres.chunk_index import MAX_CHUNK, split
from durable_streams.server.storage.postgres.heads import encode_config
from tests.support.postgres_tables import SCHEMA, Tables


class Rows(Tables):
    """A database with streams named ``s1``, ``s2`` and so on after their ids."""

    def create(self, stream_id: int, base: int = 0, source_id: int | None = None) -> None:
        """Insert a stream, or a fork that begins at a position of its source."""
        self.connection.execute(
            f"INSERT INTO {SCHEMA}.streams (id, name, incarnation, content_type, config, created_at, updated_at, "
            "used_at, closed, base, tail, source_id) "
            "VALUES (%s, %s, 1, 'application/octet-stream', %s, 0, 0, 0, false, %s, %s, %s)",
            (stream_id, f"s{stream_id}", encode_config(StreamConfig()), base, base, source_id),
        )
        if source_id is not None:
            self.connection.execute(f"UPDATE {SCHEMA}.streams SET forks = forks + 1 WHERE id = %s", (source_id,))

    def append(self, stream_id: int, start: int, appends: list[bytes], max_chunk: int = MAX_CHUNK) -> None:
        """Insert the chunks of appends, and advance the stream's tail."""
        for begin, first, ends, checksum, data in split(start, start, appends, max_chunk):
            self.connection.execute(
                f"INSERT INTO {SCHEMA}.chunks VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (stream_id, begin, begin + len(data), first, ends, checksum, data),
            )
        size = sum(map(len, appends))
        self.connection.execute(f"UPDATE {SCHEMA}.streams SET tail = tail + %s WHERE id = %s", (size, stream_id))

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        row = self.connection.execute(f"SELECT count(*) FROM {SCHEMA}.{table}").fetchone()
        assert row is not None
        assert isinstance(row[0], int)
        return row[0]
