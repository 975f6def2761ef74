"""Tests of reads of ranges from a real database, beside the memory storage."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from psycopg.pq.abc import PGresult
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import DataDamaged, StreamNotFound, Unavailable
from durable_streams.server.model import START, Append, Chunk, Fork, Offset, StorageLimits, StreamConfig, StreamFacts
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.storage.postgres.chunk_cache import ChunkCache
from durable_streams.server.storage.postgres.fetching import ChunkFetcher
from durable_streams.server.storage.postgres.heads import COLUMNS, Head, decode_head
from durable_streams.server.storage.postgres.packing import TEXT, int8
from durable_streams.server.storage.postgres.queries import Statement
from durable_streams.server.storage.postgres.ranges import Ranges
from tests.support.postgres_rows import Rows
from tests.support.postgres_tables import SCHEMA

NOW = 1_800_000_000.0
ALL = 2**40
TYPE = "application/octet-stream"


class Database(Rows):
    """A database whose rows tests write themselves, and the reads under test."""

    def __init__(self, case: SynchronousTestCase, cache_bytes: int = 0) -> None:
        super().__init__(case)
        self.empty(cache_bytes)
        self._head = Statement(
            "head", f"SELECT {COLUMNS.format(schema=SCHEMA)} FROM {SCHEMA}.streams s WHERE name = $1", (TEXT,)
        )

    def empty(self, cache_bytes: int) -> None:
        """Remove all rows, and begin with an empty cache."""
        self.connection.execute(f"TRUNCATE {SCHEMA}.streams, {SCHEMA}.chunks")
        self.cache = ChunkCache(cache_bytes)
        self.fetcher = ChunkFetcher(self.query, SCHEMA, self.cache, Clock())
        self.ranges = Ranges(self.query, SCHEMA, self.fetcher, self.look_up)

    def look_up(self, name: str) -> Deferred[Head | None]:
        return self.query(self._head, (name.encode(),)).addCallback(
            lambda rows: decode_head(rows, 0) if rows.ntuples else None
        )


class RangeTests(SynchronousTestCase):
    def read(self, database: Database, name: str, position: int, limit: int, whole: bool) -> Chunk:
        head = self.successResultOf(database.look_up(name))
        assert head is not None
        offset = START if not position else Offset(1, position)
        return self.successResultOf(Deferred.fromCoroutine(database.ranges.read(head, offset, limit, whole)))

    def ends(self, database: Database, facts: StreamFacts, start: int, max_count: int) -> list[int]:
        return self.successResultOf(Deferred.fromCoroutine(database.ranges.append_ends(facts, start, max_count, False)))

    def random_streams(self, database: Database, random: Random) -> dict[str, int]:
        """Make random streams and forks of forks, in the database and in memory, and return their tails."""
        self.memory = MemoryStorage(StorageLimits(total_bytes=ALL, stream_bytes=ALL))
        tails: dict[str, int] = {}
        for number in range(1, 6):
            name = f"s{number}"
            source = random.choice([None, *tails]) if tails else None
            base = 0
            config = StreamConfig(TYPE)
            if source is not None:
                base = random.randint(0, tails[source])
                chunk = self.memory.read(source, START, ALL, NOW)
                start = self.memory.read(source, Offset(chunk.facts.incarnation, base), ALL, NOW).start
                config = StreamConfig(fork=Fork(source, Offset(chunk.facts.incarnation, start), base - start))
            self.memory.create(name, config, b"", NOW)
            database.create(number, base, None if source is None else int(source[1:]))
            tails[name] = base
            for _ in range(random.randint(0, 3)):
                appends = [random.randbytes(random.randint(1, 12)) for _ in range(random.randint(1, 4))]
                database.append(number, tails[name], appends, random.randint(1, 20))
                for data in appends:
                    tails[name] = self.memory.append(name, Append(TYPE, data), NOW).tail
        return tails

    def test_reads_agree_with_the_memory_storage(self) -> None:
        database = Database(self)
        for seed, cache_bytes in enumerate([0, 2_000, 1_000_000] * 4):
            random = Random(seed)
            database.empty(cache_bytes)
            tails = self.random_streams(database, random)
            for name, tail in tails.items():
                for _ in range(60):
                    position, limit, whole = random.randint(0, tail + 1), random.randint(1, 30), random.random() < 0.5
                    expected = self.memory.read(name, START, ALL, NOW).facts.incarnation
                    wanted = self.memory.read(
                        name, Offset(expected, position) if position else START, limit, NOW, whole
                    )
                    found = self.read(database, name, position, limit, whole)
                    self.assertEqual(
                        (found.start, found.data, found.tail, found.more),
                        (wanted.start, wanted.data, wanted.tail, wanted.more),
                        f"seed {seed}: {name} from {position}, limit {limit}, whole {whole}",
                    )
                    count = random.randint(1, 5)
                    self.assertEqual(
                        self.ends(database, found.facts, min(position, tail), count),
                        self.memory.append_ends(wanted.facts, min(position, tail), count),
                        f"seed {seed}: {name} from {position}",
                    )

    def test_an_append_of_several_chunks_is_found_from_each_of_its_bytes(self) -> None:
        database = Database(self)
        database.create(1)
        database.append(1, 0, [b"abcdefghij", b"k"], 3)
        head = self.successResultOf(database.look_up("s1"))
        assert head is not None
        for position in range(10):
            self.assertEqual(
                self.successResultOf(Deferred.fromCoroutine(database.ranges.append_at(head, position))),
                (0, b"abcdefghij"),
            )
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(database.ranges.append_at(head, 10))), (10, b"k"))

    def test_small_chunks_are_joined_in_the_cache(self) -> None:
        database = Database(self, 1_000_000)
        database.create(1)
        database.append(1, 0, [b"x"] * 100, 1)
        self.assertEqual(self.read(database, "s1", 0, ALL, False).data, b"x" * 100)
        self.assertEqual(len(database.cache), 1)
        before = database.queries
        self.assertEqual(self.read(database, "s1", 50, ALL, False).data, b"x" * 50)
        self.assertEqual(database.queries, before + 1)

    def test_a_large_range_is_read_in_pieces(self) -> None:
        database = Database(self, 0)
        database.create(1)
        data = Random(1).randbytes(3_000_000)
        database.append(1, 0, [data], 65_536)
        before = database.queries
        self.assertEqual(self.read(database, "s1", 0, ALL, False).data, data)
        self.assertGreater(database.queries, before + 3)

    def test_two_reads_of_one_place_ask_the_database_once(self) -> None:
        database = Database(self, 1_000_000)
        database.create(1)
        database.append(1, 0, [b"abc"])
        waiting: Deferred[None] = Deferred()

        async def later(statement: Statement, params: Sequence[bytes | None]) -> PGresult:
            await waiting
            return await database.query(statement, params)

        fetcher = ChunkFetcher(
            lambda statement, params: Deferred.fromCoroutine(later(statement, params)), SCHEMA, database.cache, Clock()
        )
        database.queries = 0
        first, second, cancelled = (Deferred.fromCoroutine(fetcher.chunk_at(1, 0, 3)) for _ in range(3))
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        waiting.callback(None)
        self.assertEqual([self.successResultOf(read).data for read in (first, second)], [b"abc", b"abc"])
        self.assertEqual(database.queries, 1)

    def test_a_cancelled_read_does_not_take_the_others_with_it(self) -> None:
        database = Database(self, 0)
        database.create(1)
        database.append(1, 0, [b"abc"])
        started: list[Deferred[PGresult]] = []

        def held(statement: Statement, params: Sequence[bytes | None]) -> Deferred[PGresult]:
            started.append(Deferred())
            return started[-1]

        fetcher = ChunkFetcher(held, SCHEMA, database.cache, Clock())
        first, second = (Deferred.fromCoroutine(fetcher.chunk_at(1, 0, 3)) for _ in range(2))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(len(started), 2)
        rows = database.query(fetcher._rows, (int8(1), int8(0), int8(3), int8(9)))
        started[1].callback(self.successResultOf(rows))
        self.assertEqual(self.successResultOf(second).data, b"abc")

    def test_reads_that_wait_for_the_same_chunk_are_refused_together(self) -> None:
        started: list[Deferred[PGresult]] = []

        def held(statement: Statement, params: Sequence[bytes | None]) -> Deferred[PGresult]:
            started.append(Deferred())
            return started[-1]

        fetcher = ChunkFetcher(held, SCHEMA, ChunkCache(0), Clock())
        reads = [Deferred.fromCoroutine(fetcher.chunk_at(1, 0, 3)) for _ in range(3)]
        started[0].errback(Unavailable("The database cannot be reached."))
        for read in reads:
            self.failureResultOf(read, Unavailable)
        self.assertEqual(len(started), 1)

    def test_tiny_chunks_are_read_in_pieces_with_a_bounded_number_of_rows(self) -> None:
        database = Database(self, 1_000_000)
        database.create(1)
        database.append(1, 0, [b"x"] * 4500, 1)
        database.queries = 0
        self.assertEqual(self.read(database, "s1", 0, ALL, False).data, b"x" * 4500)
        # One of them looks the stream up.
        self.assertEqual(database.queries, 4)

    def test_a_damaged_chunk_is_not_served(self) -> None:
        database = Database(self)
        database.create(1)
        database.append(1, 0, [b"abc", b"def"], 3)
        database.connection.execute(f"UPDATE {SCHEMA}.chunks SET data = 'deg' WHERE start = 3")
        self.assertEqual(self.read(database, "s1", 0, 3, False).data, b"abc")
        head = self.successResultOf(database.look_up("s1"))
        assert head is not None
        self.failureResultOf(Deferred.fromCoroutine(database.ranges.read(head, START, 6, False)), DataDamaged)

    def test_a_damaged_chunk_is_served_and_not_merged_without_verification(self) -> None:
        database = Database(self)
        database.create(1)
        database.append(1, 0, [b"abc", b"def"], 3)
        database.connection.execute(f"UPDATE {SCHEMA}.chunks SET data = 'deg' WHERE start = 3")
        fetcher = ChunkFetcher(database.query, SCHEMA, ChunkCache(0), Clock(), verify=False)
        together: list[int] = []
        fetcher.read_together = lambda _id, _chunk, count: together.append(count)
        chunk = self.successResultOf(Deferred.fromCoroutine(fetcher.chunk_at(1, 0, 6)))
        self.assertEqual((chunk.data, together), (b"abcdeg", []))

    def test_a_stream_that_was_removed_meanwhile_is_not_found(self) -> None:
        database = Database(self)
        database.create(1)
        database.append(1, 0, [b"abc"])
        head = self.successResultOf(database.look_up("s1"))
        assert head is not None
        database.connection.execute(f"DELETE FROM {SCHEMA}.chunks; DELETE FROM {SCHEMA}.streams")
        for reading in (
            database.ranges.read(head, START, 6, False),
            database.ranges.append_at(head, 1),
            database.ranges.read_range(head.facts, 0, 3, False),
            database.ranges.append_ends(head.facts, 0, 3, False),
        ):
            self.failureResultOf(Deferred.fromCoroutine(reading), StreamNotFound)
