"""The storage on PostgreSQL: its parts, how they start and stop, and the operations by which they are reached.

A node keeps nothing that is not in the database, but for caches. So the time of the database is used instead of the
callers', and every answer about a stream rests on a look-up that began after the request came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from ...clocks import clock_of
from ...interfaces import ICommitListener, ISharedStorage, IStorage
from ...model import (
    Append,
    Appended,
    Chunk,
    Created,
    DatabaseFigures,
    ForkPoint,
    KnownTail,
    Offset,
    StorageFigures,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
)
from .append_queue import AppendQueues
from .change_queue import ChangeQueue
from .chunk_cache import ChunkCache
from .connecting import connect, session_settings
from .connection import Connection
from .fence import WriterConnection
from .fetching import ChunkFetcher
from .heads import Head
from .identifiers import IdSequence
from .known import check_present
from .leases import Leases
from .listing import Listing
from .lookups import LookUps
from .merging import Merger
from .neighbours import Neighbours
from .open_connections import OpenConnections
from .opening import log_preparation, prepare
from .pool import Pool
from .ranges import Ranges
from .reconnecting import share_outage
from .settings import PostgresSettings
from .shared_reads import SharedReads
from .stored_values import StoredValues
from .stream_changes import StreamChanges
from .sweeping import RowCleaner, Sweep
from .totals import Totals
from .upkeep import Upkeep, UseWriter
from .uses import Uses
from .vitals import DatabaseVitals
from .writer import AppendWriter

#: The connections for writing: of appends, of appends that wait for locks, and of all other changes.
_WRITERS: Final = 3

#: How long each statement of a stop waits for a connection, in seconds.
_WAIT_OF_CLOSE: Final = 1.0

#: The task of removing what has expired, and the rows of removed streams.
_SWEEP: Final = "sweep"

#: The work that is divided among nodes, and into how many partitions.
_SHARED: Final = "shared"
_PARTITIONS: Final = 64


@implementer(IStorage, ISharedStorage)
class PostgresStorage:
    """
    A storage whose streams are in a PostgreSQL database, which any number of nodes share.

    :param limits: those of bytes, streams and metadata hold for all nodes together, except that each node knows what
        the others have written a second later.
    :param reactor: drives the connections; an ``IReactorFDSet``, ``IReactorTime`` and ``IReactorFromThreads``.
    """

    def __init__(self, settings: PostgresSettings, limits: StorageLimits, reactor: Any) -> None:
        schema, wait = settings.schema, settings.wait_ms / 1000
        self._settings = settings
        self._reactor = reactor
        clock = clock_of(reactor)
        self._loaded = self._started = False
        self._closing: Deferred[None] | None = None
        # Two more are for messages to and from the other nodes.
        self._open_connections = OpenConnections(settings.connections + _WRITERS + 2)
        self._pool = Pool(self._connect, settings.connections, clock, wait)
        self._writers = [WriterConnection(self._connect, schema, clock, wait) for _ in range(_WRITERS)]
        appending, locking, changing = self._writers
        execute = self._pool.execute
        self._lookups = LookUps(execute, schema, clock)
        self._totals = Totals(execute, schema, self._rows, lambda: not self._queued_bytes())
        self._uses = Uses(UseWriter(execute, schema, self._lookups).write, clock)
        self._cache = ChunkCache(settings.cache_bytes)
        fetcher = ChunkFetcher(execute, schema, self._cache, clock, settings.verify_reads)
        self._merger = Merger(execute, schema, clock)
        fetcher.read_together = self._merger.offer
        self._ranges = Ranges(execute, schema, fetcher, self._lookups.fresh)
        self._queues = AppendQueues(self._lookups, limits, self._totals, self._uses, settings.queued_bytes)
        self._writer = AppendWriter((appending, locking), schema, self._queues, self._lookups, clock, wait)
        self._change_queue = ChangeQueue(changing, schema, self._totals, clock, settings.queued_bytes)
        self._queues.refused = self._change_queue.refused = self._pool.refusals.note
        self._change_queue.measured = self._writer.figures.add
        self._changes = StreamChanges(
            self._change_queue,
            self._lookups,
            self._ranges.append_at,
            limits,
            self._totals,
            self._uses,
            IdSequence(execute, schema),
            clock,
        )
        self._node = uuid4()
        self._neighbours = Neighbours(self._connect, schema, self._node, self._lookups, self._note_use, clock)
        self._queues.changed = self._changes.changed = self._neighbours.changed
        self._leases = Leases(execute, schema, self._node.bytes, clock, {_SWEEP: 1})
        self._neighbours.leases_released = self._leases.renew_soon
        self._shared_reads = SharedReads(execute, schema)
        self._values = StoredValues(execute, self._change_queue, schema, limits, self._totals)
        self._listing = Listing(execute, schema, self._uses)
        self._sweep = Sweep(execute, schema, self._changes, self._uses, self._is_sweeper)
        cleaners = (RowCleaner(execute, schema).clean, self._values.forget_absent)
        self._upkeep = Upkeep(execute, schema, self._totals, self._rows, cleaners, self._is_sweeper, clock)
        self._vitals = DatabaseVitals(execute, clock)
        share_outage(
            [
                *self._pool.reconnectors,
                *(reconnector for writer in self._writers for reconnector in writer.reconnectors),
                *self._neighbours.notifier.reconnectors,
                *self._neighbours.receiver.reconnectors,
            ]
        )

    # Opening and closing

    def load(self) -> None:
        """
        Connect to the database, and create or upgrade its tables. Blocks.

        :raises StorageError: the database cannot be used; the message says why and what to do.
        """
        if not self._loaded:
            log_preparation(prepare(self._settings))
            self._loaded = True

    def open(self) -> None:
        """See :meth:`.IStorage.open`. Requests wait for the connections, which are opened in the background."""
        self.load()
        if not self._started:
            self._started = True
            self._pool.start()
            for writer in self._writers:
                writer.start()
            self._neighbours.start()
            self._leases.start()
            self._upkeep.start()
            self._vitals.start()

    def close(self) -> Deferred[None]:
        if self._closing is None:
            self._closing = Deferred.fromCoroutine(self._close())
        return self._closing

    async def _close(self) -> None:
        if not self._started:
            return
        # What remains to be written is for the sake of other nodes. A database that is away must not hold up the stop.
        self._pool.shorten_wait(_WAIT_OF_CLOSE)
        await gatherResults([self._writer.close(), self._changes.close()])
        await self._values.close()
        await self._change_queue.close()
        self._vitals.stop()
        self._merger.stop()
        await self._upkeep.stop()
        await self._uses.stop()
        await self._leases.stop()
        self._neighbours.stop()
        for writer in self._writers:
            writer.stop()
        self._pool.stop()

    def _connect(self) -> Deferred[Connection]:
        settings = self._settings
        deadline = settings.commit_deadline_ms / 1000
        # The server ends a slow statement a little earlier, which keeps the connection and makes the outcome certain.
        session = session_settings(lock_timeout=settings.lock_timeout_ms / 1000, statement_timeout=0.9 * deadline)
        return connect(settings.dsn, self._reactor, session, deadline).addCallback(self._connected)

    def _connected(self, connection: Connection) -> Connection:
        """
        Count a connection, and drop all caches.

        Connections are lost when a standby is promoted or a backup restored, and then the last commits may be lost,
        too: their versions, positions and ids are used again, for other bytes.
        """
        for cache in (self._lookups, self._cache, self._ranges, self._merger):
            cache.clear()
        return self._open_connections.add(connection)

    def _rows(self) -> list[UUID]:
        """Return the ids of the rows that count the writes of this node."""
        return [writer.node for writer in self._writers]

    def _queued_bytes(self) -> int:
        """Return about how many bytes of memory the writes take that are queued or in progress."""
        return self._queues.bytes + self._change_queue.bytes

    # The state of the storage

    def obstacle(self) -> str | None:
        reasons = [self._pool.obstacle(), *(writer.obstacle() for writer in self._writers)]
        return next((reason for reason in reasons if reason is not None), None)

    def figures(self) -> StorageFigures:
        totals, commits = self._totals, self._writer.figures
        # What others have added and this node has removed may be counted a second later.
        return StorageFigures(
            max(0, totals.streams),
            max(0, totals.bytes),
            totals.written,
            queued_bytes=self._queued_bytes(),
            commit_sizes=commits.sizes.distribution(),
            commit_seconds=commits.seconds.distribution(),
            metadata_bytes=max(0, totals.metadata),
            database=self._database_figures(),
        )

    def _database_figures(self) -> DatabaseFigures:
        vitals, cache = self._vitals, self._cache
        outcomes = [writer.outcomes for writer in self._writers]
        return DatabaseFigures(
            misses=self._writer.figures.misses + self._change_queue.misses,
            uncertain_commits=sum(each.landed + each.repeated + each.refused + each.unknown for each in outcomes),
            cache_hits=cache.hits,
            cache_misses=cache.misses,
            cache_bytes=cache.bytes,
            connections=self._open_connections.count,
            reconnections=self._open_connections.reopened,
            lock_waits=vitals.lock_waits,
            notify_queue=vitals.notify_queue,
            oldest_xmin=vitals.oldest_xmin,
            oldest_xmin_seconds=vitals.oldest_xmin_seconds,
        )

    def listen(self, listener: ICommitListener) -> None:
        self._queues.listener = self._changes.listener = self._neighbours.listener = listener

    def set_wall_offset(self, offset: float) -> None:
        """Do nothing: the database's clock is used."""

    # Writing

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> Deferred[Created]:
        return self._changes.create(name, config, body, point)

    def append(self, name: str, append: Append, now: float) -> Deferred[Appended]:
        return self._writer.append(name, append)

    def install(
        self, staged: str, name: str, restoration: StreamRestoration, replace: bool, now: float
    ) -> Deferred[StreamStatus]:
        return self._changes.install(staged, name, restoration, replace)

    def delete(self, name: str, now: float) -> Deferred[None]:
        return self._changes.delete(name)

    def sweep(self, now: float, max_count: int) -> Deferred[int]:
        return Deferred.fromCoroutine(self._sweep.sweep(max_count))

    def renew(self, name: str, now: float) -> Deferred[None] | None:
        return self._neighbours.watches.renew(name)

    def _note_use(self, head: Head) -> None:
        """Note that readers wait on a stream, unless it has expired."""
        if head.expires(self._uses.last_use(head.facts.id)) > head.read_at:
            self._uses.note(head)

    def _is_sweeper(self) -> bool:
        """Return whether this node has the task to remove what has expired."""
        return self._leases.epoch(_SWEEP) is not None

    # Reading

    def read(
        self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True
    ) -> Deferred[Chunk]:
        return Deferred.fromCoroutine(self._read(name, offset, limit, whole, renew))

    async def _read(self, name: str, offset: Offset, limit: int, whole: bool, renew: bool) -> Chunk:
        head = await self._present(name)
        if renew:
            self._uses.note(head)
        return await self._ranges.read(head, offset, limit, whole)

    async def _present(self, name: str) -> Head:
        head = await self._lookups.fresh(name)
        return check_present(head, name, 0.0 if head is None else self._uses.last_use(head.facts.id))

    def read_range(self, facts: StreamFacts, start: int, end: int, hidden: bool = False) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self._ranges.read_range(facts, start, end, hidden))

    def append_ends(
        self, facts: StreamFacts, start: int, max_count: int, hidden: bool = False
    ) -> Deferred[Sequence[int]]:
        return Deferred.fromCoroutine(self._ranges.append_ends(facts, start, max_count, hidden))

    def status(self, name: str, now: float) -> Deferred[StreamStatus]:
        return Deferred.fromCoroutine(self._status(name))

    async def _status(self, name: str) -> StreamStatus:
        return (await self._present(name)).status()

    def record(self, name: str, now: float, hidden: bool = False) -> Deferred[StreamRecord]:
        return Deferred.fromCoroutine(self._listing.record(name, hidden))

    def statuses(
        self, now: float, after: str = "", max_count: int = 1000, prefix: str = ""
    ) -> Deferred[list[StreamStatus]]:
        return Deferred.fromCoroutine(self._listing.statuses(after, max_count, prefix))

    # Values

    def values(self, prefix: str = "", after: str = "", max_count: int = 1000) -> Deferred[list[tuple[str, bytes]]]:
        return Deferred.fromCoroutine(self._values.page(prefix, after, max_count))

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> Deferred[None]:
        return self._values.write(puts, expected)

    # Other nodes

    partitions = _PARTITIONS

    @property
    def nodes(self) -> int:
        return self._leases.members(_SHARED)

    def join(
        self, shares_changed: Callable[[], None], received: Callable[[str], None], missed: Callable[[], None]
    ) -> None:
        self._leases.changed = shares_changed
        self._neighbours.received, self._neighbours.missed = received, missed
        self._leases.join(_SHARED, _PARTITIONS)

    def leave(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._leave())

    async def _leave(self) -> None:
        await self._leases.leave(_SHARED)
        self._neighbours.publish_released_leases()

    def holds(self, partition: int) -> bool:
        return self._leases.epoch(_SHARED, partition) is not None

    def ahead(self) -> float:
        return self._leases.ahead

    def publish(self, subject: str) -> None:
        self._neighbours.publish(subject)

    def observe(self, wanted: bool) -> None:
        self._neighbours.observe(wanted)

    def read_values(self, keys: Sequence[str]) -> Deferred[dict[str, bytes]]:
        return Deferred.fromCoroutine(self._shared_reads.read_values(keys))

    def count_values(self, prefix: str) -> Deferred[int]:
        return Deferred.fromCoroutine(self._shared_reads.count_values(prefix))

    def changed_tails(self, known: Sequence[KnownTail]) -> Deferred[list[KnownTail]]:
        return Deferred.fromCoroutine(self._shared_reads.changed_tails(known))

    def last_id(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self._shared_reads.last_id())

    def created_after(self, stream_id: int) -> Deferred[list[tuple[int, str]]]:
        return Deferred.fromCoroutine(self._shared_reads.created_after(stream_id))
