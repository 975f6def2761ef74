"""Tests of chunks: their columns, and the boundaries of appends in them."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres.chunk_index import (
    StoredChunk,
    checksum_of,
    decode_chunk,
    encode_ends,
    split,
)

APPENDS = st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=20)


def decoded(rows: list[tuple[int, int, bytes, int, bytes]]) -> list[StoredChunk]:
    chunks = [
        decode_chunk(start, start + len(data), first, ends, checksum, data)
        for start, first, ends, checksum, data in rows
    ]
    assert None not in chunks
    return [chunk for chunk in chunks if chunk is not None]


class SplitTests(SynchronousTestCase):
    @given(st.integers(0, 2**50), APPENDS, st.integers(1, 40))
    def test_chunks_have_all_bytes_and_ends_of_the_appends(
        self, start: int, appends: list[bytes], max_size: int
    ) -> None:
        chunks = decoded(split(start, start, appends, max_size))
        self.assertEqual(b"".join(chunk.data for chunk in chunks), b"".join(appends))
        self.assertEqual(chunks[0].start, start)
        for before, after in pairwise(chunks):
            self.assertEqual(before.finish, after.start)
        self.assertLessEqual(max(len(chunk.data) for chunk in chunks), max_size)
        edges = list(accumulate(map(len, appends), initial=start))
        self.assertEqual([end for chunk in chunks for end in chunk.ends], edges[1:])
        for chunk in chunks:
            for position in range(chunk.start, chunk.finish):
                self.assertEqual(chunk.append_start(position), max(edge for edge in edges if edge <= position))
                end = min(edge for edge in edges if edge > position)
                self.assertEqual(chunk.append_end(position), end if end <= chunk.finish else None)

    def test_appends_that_fit_share_a_chunk(self) -> None:
        chunks = decoded(split(10, 10, [b"ab", b"c", b"defg"], 7))
        self.assertEqual(
            [(chunk.start, chunk.data, list(chunk.ends)) for chunk in chunks], [(10, b"abcdefg", [12, 13, 17])]
        )

    def test_no_append_has_no_chunk(self) -> None:
        self.assertEqual((split(10, 10, []), split(10, 10, [b""])), ([], []))

    def test_the_first_append_may_continue_an_earlier_one(self) -> None:
        (chunk,) = decoded(split(10, 4, [b"abc", b"d"]))
        self.assertEqual([chunk.append_start(position) for position in range(10, 15)], [4, 4, 4, 13, 14])


class DamageTests(SynchronousTestCase):
    def test_a_change_of_any_column_is_detected(self) -> None:
        ends = encode_ends(10, [12, 15])
        checksum = checksum_of(10, 10, ends, b"abcde")
        self.assertIsNotNone(decode_chunk(10, 15, 10, ends, checksum, b"abcde"))
        for row in (
            (11, 16, 10, ends, checksum, b"abcde"),
            (10, 16, 10, ends, checksum, b"abcde"),
            (10, 15, 9, ends, checksum, b"abcde"),
            (10, 15, 10, encode_ends(10, [13, 15]), checksum, b"abcde"),
            (10, 15, 10, ends[:-1], checksum, b"abcde"),
            (10, 15, 10, ends, checksum ^ 1, b"abcde"),
            (10, 15, 10, ends, checksum, b"abcdf"),
            (10, 14, 10, ends, checksum, b"abcd"),
        ):
            self.assertIsNone(decode_chunk(*row))
