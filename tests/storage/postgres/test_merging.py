"""Tests of the merging of chunks that are read together."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.checking import DatabaseCheck
from durable_streams.server.storage.postgres.chunk_cache import ChunkCache
from durable_streams.server.storage.postgres.chunk_index import StoredChunk
from durable_streams.server.storage.postgres.fetching import ChunkFetcher
from durable_streams.server.storage.postgres.merging import Merger
from durable_streams.server.storage.postgres.queries import Statement
from tests.support.postgres_rows import Rows
from tests.support.postgres_tables import SCHEMA

KIB = 1024


class MergingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rows = Rows(self)
        self.clock = Clock()
        self.merger = Merger(self.rows.query, SCHEMA, self.clock)
        self.rows.create(1)

    def read(self, size: int) -> bytes:
        """Read a stream from its start, without a cache."""
        fetcher = ChunkFetcher(self.rows.query, SCHEMA, ChunkCache(0), self.clock)
        fetcher.read_together = self.merger.offer
        data = b""
        while len(data) < size:
            chunk = self.successResultOf(Deferred.fromCoroutine(fetcher.chunk_at(1, len(data), size)))
            data += chunk.data[len(data) - chunk.start :]
        return data

    def assert_whole(self) -> None:
        findings: list[object] = []
        DatabaseCheck(self.rows.connection, SCHEMA, findings.append).run()
        self.assertEqual(findings, [])

    def test_small_chunks_that_were_read_become_large_ones_once(self) -> None:
        data = Random(1).randbytes(300 * KIB)
        appends = [data[start : start + KIB] for start in range(0, len(data), KIB)]
        self.rows.append(1, 0, appends, KIB)
        self.assertEqual((self.read(len(data)), self.rows.count("chunks")), (data, 300))
        self.clock.advance(1)
        self.assertEqual((self.rows.count("chunks"), self.merger.merged), (45, 256))
        self.assertEqual(self.read(len(data)), data)
        self.clock.advance(1)
        self.assertEqual((self.rows.count("chunks"), self.merger.merged), (45, 256))
        self.assert_whole()

    def test_the_boundaries_of_appends_survive(self) -> None:
        random = Random(2)
        appends = [random.randbytes(random.randint(1, 2000)) for _ in range(300)]
        size = sum(map(len, appends))
        self.rows.append(1, 0, appends, 500)
        self.read(size)
        self.clock.advance(1)
        self.assertLess(self.rows.count("chunks"), 300)
        self.assertEqual(self.read(size), b"".join(appends))
        self.assert_whole()

    def test_few_or_tiny_chunks_stay_as_they_are(self) -> None:
        self.rows.append(1, 0, [b"x" * 50 * KIB] * 5, 50 * KIB)
        self.read(250 * KIB)
        self.rows.connection.execute(f"DELETE FROM {SCHEMA}.chunks")
        self.rows.append(1, 0, [b"x"] * 100, 1)
        self.read(100)
        self.clock.advance(1)
        self.assertEqual((self.rows.count("chunks"), self.clock.getDelayedCalls()), (100, []))

    def test_many_tiny_chunks_become_one(self) -> None:
        self.rows.append(1, 0, [b"x"] * 1500, 1)
        self.assertEqual(self.read(1500), b"x" * 1500)
        self.clock.advance(1)
        self.assertEqual((self.rows.count("chunks"), self.merger.merged), (1, 1500))
        self.assertEqual(self.read(1500), b"x" * 1500)
        self.assert_whole()

    def test_chunks_that_another_node_has_merged_are_left_alone(self) -> None:
        other = Merger(self.rows.query, SCHEMA, self.clock)
        self.rows.append(1, 0, [b"x" * KIB] * 100, KIB)
        chunk = StoredChunk(0, 0, [KIB * (number + 1) for number in range(100)], b"x" * 100 * KIB)
        other.offer(1, chunk, 100)
        self.merger.offer(1, chunk, 100)
        self.clock.advance(1)
        self.assertEqual((other.merged, self.merger.merged, self.rows.count("chunks")), (100, 0, 1))
        self.assert_whole()

    def test_chunks_of_a_removed_stream_are_left_to_their_removal(self) -> None:
        self.rows.append(1, 0, [b"x" * KIB] * 100, KIB)
        self.rows.connection.execute(f"DELETE FROM {SCHEMA}.streams")
        self.read(100 * KIB)
        self.clock.advance(1)
        self.assertEqual((self.merger.merged, self.rows.count("chunks")), (0, 100))

    def test_merges_run_one_at_a_time_with_pauses_and_without_a_long_queue(self) -> None:
        started: list[Deferred[PGresult]] = []

        def query(_statement: Statement, _params: Sequence[bytes | None]) -> Deferred[PGresult]:
            started.append(Deferred())
            return started[-1]

        merger = Merger(query, SCHEMA, self.clock)
        chunk = StoredChunk(0, 0, [70 * KIB], b"x" * 70 * KIB)
        for _ in range(100):
            merger.offer(1, chunk, 70)
        self.clock.advance(0)
        self.clock.advance(2)
        self.assertEqual(len(started), 1)
        started[0].errback(Unavailable("The database is away."))
        self.clock.advance(7.9)
        self.assertEqual(len(started), 1)
        self.clock.advance(0.2)
        self.assertEqual(len(started), 2)
        for _ in range(100):
            started[-1].errback(Unavailable("The database is away.")) if not started[-1].called else None
            self.clock.advance(0)
        self.assertEqual((len(started), self.clock.getDelayedCalls()), (32, []))
        merger.offer(1, chunk, 70)
        merger.stop()
        merger.offer(1, chunk, 70)
        self.assertEqual(self.clock.getDelayedCalls(), [])
