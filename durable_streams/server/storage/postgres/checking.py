"""Checks the tables: every stream, every chunk, every checksum. Servers may be running meanwhile.

All statements are short, since an open snapshot keeps PostgreSQL from reusing the space of updated rows. So the tables
change between two statements: what looks wrong is read again before it is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg import Connection

from ..findings import Counts, Finding
from .chunk_index import decode_chunk
from .heads import decode_config
from .migrating import check_version, found_version
from .opening import connected
from .schema import SCHEMA_VERSION
from .settings import PostgresSettings

_RESTORE: Final = "Restore the database from a backup."

#: How many streams are read at once, and about how many bytes of chunks.
_STREAMS_AT_ONCE: Final = 1_000
_BYTES_AT_ONCE: Final = 8 << 20
_MAX_CHUNKS_AT_ONCE: Final = 4_000

#: How often a stream is read again that changes meanwhile.
_ATTEMPTS: Final = 5

_STREAM_COLUMNS: Final = "id, name, config, base, tail, source_id, forks, writers, deleted, version"


class _Stream(Struct, frozen=True):
    id: int
    name: str
    config: bytes
    base: int
    tail: int
    source_id: int | None
    forks: int
    writers: int
    deleted: bool
    version: int


class _Row(Struct, frozen=True):
    """A row of a chunk."""

    stream_id: int
    start: int
    finish: int
    first: int
    ends: bytes
    checksum: int
    data: bytes


class _Walk:
    """
    The check of one stream's chunks, in order.

    :ivar appends: how many appends end in them.
    :ivar findings: what is wrong.
    """

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._position = stream.base
        # Where the last append begins; None after damage, when it is not known.
        self._begun: int | None = stream.base
        self.appends = 0
        self.findings: list[Finding] = []

    def add(self, row: _Row) -> None:
        """Check the next chunk."""
        name, position = self._stream.name, self._position
        if row.start != position:
            self._report(row, f"{name}: bytes {position} to {row.start} are missing or doubled.")
            self._begun = row.first
        elif self._begun is not None and row.first != self._begun:
            self._report(row, f"{name}: the append that began at {self._begun} goes on as one from {row.first}.")
        chunk = decode_chunk(row.start, row.finish, row.first, row.ends, row.checksum, row.data)
        if chunk is None:
            self._report(row, f"{name}: bytes {row.start} to {row.finish} are damaged.")
            self._begun = None
        elif chunk.ends:
            self.appends += len(chunk.ends)
            self._begun = chunk.ends[-1]
        else:
            self._begun = row.first
        self._position = row.finish

    def end(self) -> list[Finding]:
        """Check that the last chunk ends where the stream does, and return all findings."""
        stream = self._stream
        if self._position != stream.tail:
            what = f"{stream.name}: its bytes end at {self._position}, and it ends at {stream.tail}."
            self.findings.append(Finding(True, f"chunks, stream {stream.id}", what, _RESTORE))
        elif self._begun is not None and self._begun != stream.tail:
            what = f"{stream.name}: its last append, from {self._begun}, has no end."
            self.findings.append(Finding(True, f"chunks, stream {stream.id}", what, _RESTORE))
        return self.findings

    def _report(self, row: _Row, what: str) -> None:
        self.findings.append(Finding(True, f"chunks, stream {row.stream_id}, start {row.start}", what, _RESTORE))


class DatabaseCheck:
    """
    The check of a database's tables.

    :param schema: the name of the schema, which needs no quotes.
    :param found: called with each finding.
    :ivar counts: how much was looked at; bytes are those of streams, frames the chunks.
    """

    def __init__(self, connection: Connection[Any], schema: str, found: Callable[[Finding], None]) -> None:
        self.counts = Counts()
        self._connection = connection
        self._schema = schema
        self._found = found

    def run(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """
        Check all.

        :param advance: called with numbers of bytes that were checked.
        """
        rows = self._rows()
        row = next(rows, None)
        for stream in self._streams():
            while row is not None and row.stream_id < stream.id:
                row = self._skip_orphans(row, rows)
            walk = _Walk(stream)
            while row is not None and row.stream_id == stream.id:
                walk.add(row)
                self.counts.frames += 1
                advance(len(row.data))
                row = next(rows, None)
            self.counts.streams += 1
            self.counts.appends += walk.appends
            self.counts.bytes += stream.tail - stream.base
            if walk.end() or self._faults(stream):
                self._check_again(stream.id)
        while row is not None:
            row = self._skip_orphans(row, rows)

    # One stream

    def _check_again(self, stream_id: int) -> None:
        """Read a stream in which something looked wrong until it does not change meanwhile, and report the findings."""
        for _ in range(_ATTEMPTS):
            stream = self._stream(stream_id)
            if stream is None:
                return
            walk = _Walk(stream)
            for row in self._rows(stream_id, stream_id):
                if row.start >= stream.tail:
                    break
                walk.add(row)
            findings = [*walk.end(), *self._faults(stream)]
            if not findings:
                return
            after = self._stream(stream_id)
            if after is not None and after.version == stream.version:
                for finding in findings:
                    self._found(finding)
                return

    def _faults(self, stream: _Stream) -> Iterable[Finding]:
        """Return what is wrong with a stream's row."""
        where = f"streams, id {stream.id}"
        faults = []
        try:
            decode_config(stream.config)
        except msgspec.DecodeError:
            faults.append(Finding(True, where, f"The configuration of {stream.name} cannot be decoded.", _RESTORE))
        if stream.source_id is not None:
            source = self._stream(stream.source_id)
            if source is None:
                what = f"The source of the stream {stream.name}, id {stream.source_id}, is missing."
                faults.append(Finding(True, where, what, _RESTORE))
            elif stream.base > source.tail:
                what = f"The stream {stream.name} leaves its source at {stream.base}, and that ends at {source.tail}."
                faults.append(Finding(True, where, what, _RESTORE))
        if stream.forks or stream.deleted:
            forks = self._count("streams", "source_id", stream.id)
            if forks != stream.forks or not forks:
                what = f"The stream {stream.name} has {forks} forks, where {stream.forks} are counted."
                advice = "It may be kept although no fork needs it, or be removed while one does. " + _RESTORE
                faults.append(Finding(forks > stream.forks, where, what, advice))
        if stream.writers:
            writers = self._count("writers", "stream_id", stream.id)
            if writers != stream.writers:
                what = f"The stream {stream.name} has {writers} producers, where {stream.writers} are counted."
                faults.append(Finding(writers < stream.writers, where, what, _RESTORE))
        return faults

    def _skip_orphans(self, row: _Row, rows: Iterator[_Row]) -> _Row | None:
        """Report the chunks of a stream that does not exist, unless it is new or its removal goes on; skip them."""
        stream_id = row.stream_id
        is_explained = self._stream(stream_id) is not None or self._count("removed", "stream_id", stream_id)
        if not is_explained and self._count("chunks", "stream_id", stream_id):
            advice = "They can be deleted, and do no harm."
            self._found(Finding(False, f"chunks, stream {stream_id}", "These rows belong to no stream.", advice))
        found: _Row | None = row
        while found is not None and found.stream_id == stream_id:
            found = next(rows, None)
        return found

    # Short statements

    def _execute(self, statement: str, params: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, params, binary=True).fetchall()

    def _count(self, table: str, column: str, value: int) -> int:
        statement = f"SELECT count(*) FROM {self._schema}.{table} WHERE {column} = %s"
        count: int = self._execute(statement, (value,))[0][0]
        return count

    def _stream(self, stream_id: int) -> _Stream | None:
        rows = self._execute(f"SELECT {_STREAM_COLUMNS} FROM {self._schema}.streams WHERE id = %s", (stream_id,))
        return _Stream(*rows[0]) if rows else None

    def _streams(self) -> Iterator[_Stream]:
        """Yield all streams in the order of their ids."""
        statement = f"SELECT {_STREAM_COLUMNS} FROM {self._schema}.streams WHERE id > %s ORDER BY id LIMIT %s"
        last = 0
        while rows := self._execute(statement, (last, _STREAMS_AT_ONCE)):
            for row in rows:
                yield _Stream(*row)
            last = rows[-1][0]

    def _rows(self, first_id: int = 0, last_id: int = 2**63 - 1) -> Iterator[_Row]:
        """Yield chunks in the order of their streams' ids and their positions."""
        statement = (
            f"SELECT stream_id, start, finish, first, ends, checksum, data FROM {self._schema}.chunks "
            "WHERE (stream_id, start) > (%s, %s) AND stream_id <= %s ORDER BY stream_id, start LIMIT %s"
        )
        place, limit = (first_id, -1), 8
        while rows := self._execute(statement, (*place, last_id, limit)):
            for row in rows:
                yield _Row(*row)
            place = rows[-1][:2]
            mean = sum(len(row[6]) for row in rows) // len(rows) + 1
            limit = max(8, min(_MAX_CHUNKS_AT_ONCE, 2 * limit, _BYTES_AT_ONCE // mean))


def check_database(
    settings: PostgresSettings, found: Callable[[Finding], None], advance: Callable[[int], None] = lambda _: None
) -> Counts:
    """
    Check the tables of a database, and change nothing. Blocks.

    :param found: called with each finding.
    :param advance: called with numbers of bytes that were checked.
    :returns: how much was looked at; bytes are those of streams, frames the chunks.
    :raises StorageError: the database cannot be checked.
    """
    with connected(settings) as connection:
        version = found_version(connection, settings.schema)
        check_version(version, settings.schema)
        if not version:
            found(Finding(True, f"schema {settings.schema}", "There are no tables.", _RESTORE))
            return Counts()
        if version < SCHEMA_VERSION:
            what = f"The tables have version {version}, and this server's is {SCHEMA_VERSION}."
            found(Finding(False, f"schema {settings.schema}", what, "The next start upgrades them."))
        check = DatabaseCheck(connection, settings.schema, found)
        check.run(advance)
        return check.counts
