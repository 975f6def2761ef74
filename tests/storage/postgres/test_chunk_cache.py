"""Tests of the cache of chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres.chunk_cache import ChunkCache
from durable_streams.server.storage.postgres.chunk_index import StoredChunk

DATA = bytes(range(100))


def chunk(start: int, finish: int) -> StoredChunk:
    return StoredChunk(start, start, [finish], DATA[start:finish])


class ChunkCacheTests(SynchronousTestCase):
    def test_a_chunk_is_found_by_each_of_its_positions(self) -> None:
        cache = ChunkCache(10_000)
        cache.add(1, chunk(5, 8))
        self.assertEqual([cache.find(1, position) is not None for position in range(4, 9)], [False, *[True] * 3, False])
        self.assertIsNone(cache.find(2, 5))
        self.assertEqual((cache.hits, cache.misses), (3, 3))

    def test_the_least_recently_read_chunk_is_dropped_first(self) -> None:
        cache = ChunkCache(3 * 500)
        for start in (0, 2, 4):
            cache.add(1, chunk(start, start + 2))
        cache.find(1, 0)
        cache.add(2, chunk(0, 2))
        self.assertEqual([cache.find(1, start) is not None for start in (0, 2, 4)], [True, False, True])

    def test_a_chunk_larger_than_the_cache_is_not_kept(self) -> None:
        cache = ChunkCache(500)
        cache.add(1, chunk(0, 2))
        cache.add(1, chunk(2, 90))
        self.assertEqual((len(cache), cache.find(1, 2)), (1, None))

    def test_a_longer_chunk_replaces_a_shorter_one_of_the_same_start(self) -> None:
        cache = ChunkCache(10_000)
        for finish in (4, 9, 6):
            cache.add(1, chunk(2, finish))
        self.assertEqual((len(cache), cache.find(1, 8)), (1, chunk(2, 9)))

    def test_a_cleared_cache_has_nothing(self) -> None:
        cache = ChunkCache(10_000)
        for start in (0, 2, 4):
            cache.add(1, chunk(start, start + 2))
        cache.clear()
        cache.clear()
        self.assertEqual((len(cache), cache.bytes, cache.find(1, 0)), (0, 0, None))

    @given(
        st.lists(st.tuples(st.integers(1, 3), st.integers(0, 90), st.integers(1, 10), st.booleans()), max_size=60),
        st.integers(500, 6000),
    )
    def test_what_is_found_is_right_and_the_limit_holds(
        self, steps: list[tuple[int, int, int, bool]], limit: int
    ) -> None:
        cache = ChunkCache(limit)
        for stream_id, start, size, clear in steps:
            if clear and size == 1:
                cache.clear()
            else:
                cache.add(stream_id, chunk(start, start + size))
            self.assertLessEqual(cache.bytes, limit)
            for position in (start, start + size - 1, start + size):
                found = cache.find(stream_id, position)
                if found is not None:
                    self.assertEqual(found.data[position - found.start], DATA[position])
        cache.clear()
        self.assertEqual((len(cache), cache.bytes), (0, 0))
