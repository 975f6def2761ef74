"""Nodes that change streams in a real database, without a reactor: each statement is executed at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from psycopg import pq
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from durable_streams.server.interfaces import ICommitListener
from durable_streams.server.model import (
    Created,
    ForkPoint,
    StorageLimits,
    StreamConfig,
    StreamRestoration,
    StreamStatus,
)
from durable_streams.server.storage.postgres.change_queue import ChangeQueue
from durable_streams.server.storage.postgres.heads import COLUMNS, Head, decode_head
from durable_streams.server.storage.postgres.identifiers import IdSequence
from durable_streams.server.storage.postgres.packing import INT8, TEXT, int8
from durable_streams.server.storage.postgres.queries import QueryFailed, Statement
from durable_streams.server.storage.postgres.stream_changes import StreamChanges
from durable_streams.server.storage.postgres.totals import Totals
from durable_streams.server.testing.values import TEXT as PLAIN
from tests.support.postgres_tables import SCHEMA, Tables

T = TypeVar("T")


class Uses:
    """Uses that are not written yet."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def last_use(self, stream_id: int) -> float:
        return self.times.get(stream_id, 0.0)

    def forget(self, stream_id: int) -> None:
        self.times.pop(stream_id, None)

    def note(self, head: Head) -> None:
        self.times[head.facts.id] = head.read_at


@implementer(ICommitListener)
class Node:
    """
    A node with a connection of its own.

    :ivar between: is called before each statement that commits.
    :ivar heard: the names that were announced.
    """

    def __init__(self, tables: Tables, limits: StorageLimits = StorageLimits()) -> None:  # noqa: B008 (frozen)
        self.clock = Clock()
        self.limits = limits
        self.connection = tables.connect()
        self.id = uuid4()
        self.connection.execute(f"INSERT INTO {SCHEMA}.nodes (id, seen) VALUES (%s, 0)", (self.id,))
        self.batch = 0
        self.between: Callable[[], object] = lambda: None
        self.loses_answers = False
        self.heard: list[str] = []
        self.uses = Uses()
        self.totals = Totals(self.query, SCHEMA, lambda: [self.id], lambda: False)
        self.queue = ChangeQueue(self, SCHEMA, self.totals, self.clock, 1 << 26)
        self.changes = StreamChanges(
            self.queue, self, self.append_at, limits, self.totals, self.uses, IdSequence(self.query, SCHEMA), self.clock
        )
        self.changes.listener = self
        columns = COLUMNS.format(schema=SCHEMA)
        self._by_name = Statement("h", f"SELECT {columns} FROM {SCHEMA}.streams AS s WHERE s.name = $1", (TEXT,))
        self._by_id = Statement("i", f"SELECT {columns} FROM {SCHEMA}.streams AS s WHERE s.id = $1", (INT8,))

    def reconnect(self, tables: Tables) -> None:
        """Open another connection. Nobody finds out whether the last statement has written anything."""
        self.connection.close()
        self.connection = tables.connect()

    # What the changes need

    def committed(self, name: str) -> None:
        self.heard.append(name)

    def query(self, statement: Statement, params: Sequence[bytes | None]) -> Deferred[Any]:
        """Execute a statement now."""
        result = self.connection.pgconn.exec_params(
            statement.sql.encode(), params, statement.types, [1] * len(params), 1
        )
        if result.status == pq.ExecStatus.FATAL_ERROR:
            sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            return fail(QueryFailed(sqlstate, result.error_message.decode()))
        return succeed(result)

    def commit(self, statement: Statement, parameters: Sequence[bytes | None]) -> Deferred[Any]:
        self.between()
        self.batch += 1
        committed = self.query(statement, [self.id.bytes, int8(1), int8(self.batch), *parameters])
        return committed.addCallback(Landed) if self.loses_answers else committed

    async def fresh(self, name: str) -> Head | None:
        return _head(await self.query(self._by_name, [name.encode()]))

    async def fresh_id(self, stream_id: int) -> Head | None:
        return _head(await self.query(self._by_id, [int8(stream_id)]))

    def cached(self, name: str) -> Head | None:
        return None

    def store(self, head: Head) -> None:
        pass

    def forget(self, name: str) -> None:
        pass

    async def append_at(self, head: Head, position: int) -> tuple[int, bytes]:
        row = self.connection.execute(
            f"SELECT start, data FROM {SCHEMA}.chunks WHERE stream_id = %s AND start <= %s AND finish > %s",
            (head.facts.id, position, position),
        ).fetchone()
        assert row is not None
        start, data = row
        assert isinstance(start, int)
        assert isinstance(data, bytes)
        return start, data

    # Operations

    def finish(self, operation: Deferred[T] | Coroutine[Deferred[Any], Any, T]) -> T:
        """Return the result of an operation, or raise its error."""
        deferred = operation if isinstance(operation, Deferred) else Deferred.fromCoroutine(operation)
        outcome: list[T] = []
        failure: list[Any] = []
        deferred.addCallbacks(outcome.append, failure.append)
        for _ in range(10_000):
            if outcome or failure:
                break
            self.clock.advance(0.01)
        if failure:
            failure[0].raiseException()
        return outcome[0]

    def create(
        self, name: str, config: StreamConfig = PLAIN, body: bytes = b"", point: ForkPoint | None = None
    ) -> Created:
        return self.finish(self.changes.create(name, config, body, point))

    def delete(self, name: str) -> None:
        self.finish(self.changes.delete(name))

    def install(self, staged: str, name: str, restoration: StreamRestoration, replace: bool = False) -> StreamStatus:
        return self.finish(self.changes.install(staged, name, restoration, replace))

    def head(self, name: str) -> Head | None:
        return self.finish(self.fresh(name))

    @property
    def counters(self) -> tuple[object, ...]:
        """The sums of all nodes' streams, bytes and metadata."""
        row = self.connection.execute(
            f"SELECT sum(streams)::int8, sum(bytes)::int8, sum(metadata)::int8 FROM {SCHEMA}.nodes"
        ).fetchone()
        assert row is not None
        return row


class Landed:
    """A result of which only the first two columns are known, as after a lost answer."""

    nfields = 2

    def __init__(self, result: Any) -> None:
        self.ntuples = result.ntuples
        self._result = result

    def get_value(self, row: int, column: int) -> Any:
        assert column < self.nfields
        return self._result.get_value(row, column)


def _head(result: Any) -> Head | None:
    return decode_head(result, 0) if result.ntuples else None
