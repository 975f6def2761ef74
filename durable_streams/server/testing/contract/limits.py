"""Contract: limits."""

from __future__ import annotations

from ...errors import (
    InsufficientStorage,
    StorageFull,
    StreamClosed,
    StreamExists,
    StreamFull,
    WriterGap,
)
from ...model import (
    Fork,
    StreamConfig,
    Writer,
)
from .base import Contract


class LimitContract(Contract):
    """Tests of :class:`.StorageLimits` and of the figures."""

    async def test_a_stream_may_be_filled_to_its_limit(self) -> None:
        await self.take(stream_bytes=10)
        await self.create(body=b"xxxxx")
        self.assertEqual((await self.append(data=b"xxxxx")).tail, 10)
        error = await self.refused(StreamFull, self.append(data=b"x"))
        self.assertEqual((error.name, error.limit), ("a", 10))

    async def test_a_full_stream_can_be_closed_and_read(self) -> None:
        await self.take(stream_bytes=10, total_bytes=10)
        await self.create(body=b"x" * 10)
        self.assertTrue((await self.append(close=True)).closed)
        self.assertEqual(await self.content(), b"x" * 10)

    async def test_a_stream_is_not_created_if_its_body_exceeds_a_limit(self) -> None:
        await self.take(stream_bytes=10, total_bytes=15)
        error = await self.refused(StreamFull, self.create(body=b"x" * 11))
        self.assertEqual((error.name, error.limit), ("a", 10))
        await self.assert_absent()
        await self.create("b", body=b"x" * 10)
        full = await self.refused(StorageFull, self.create(body=b"x" * 6))
        self.assertEqual((full.name, full.limit), ("a", 15))
        await self.assert_absent()

    async def test_all_streams_share_a_limit(self) -> None:
        await self.take(total_bytes=10)
        await self.create("a", body=b"xxxx")
        await self.create("b", body=b"xxxx")
        error = await self.refused(StorageFull, self.append("b", b"xxx"))
        self.assertEqual((error.name, error.limit), ("b", 10))
        self.assertEqual((await self.append("b", b"xx")).tail, 6)

    async def test_storage_full_precedes_stream_full(self) -> None:
        await self.take(total_bytes=10, stream_bytes=5)
        await self.create()
        await self.refused(StorageFull, self.append(data=b"x" * 11))
        await self.refused(StreamFull, self.append(data=b"x" * 6))

    async def test_conflicts_precede_limits(self) -> None:
        await self.take(total_bytes=10)
        await self.create(body=b"x" * 10)
        await self.append(close=True)
        await self.refused(StreamClosed, self.append(data=b"x"))
        await self.refused(StreamExists, self.create(body=b"x"))

    async def test_a_retry_succeeds_in_a_full_storage(self) -> None:
        await self.take(total_bytes=10)
        await self.create()
        await self.append(data=b"x" * 10, writer=Writer("w", 0, 0))
        self.assertTrue((await self.append(data=b"x" * 10, writer=Writer("w", 0, 0))).duplicate)
        await self.delete()
        self.assertEqual((await self.create(body=b"x" * 10)).tail, 10)

    async def test_deleted_data_does_not_count_towards_the_limits(self) -> None:
        await self.take(total_bytes=10, streams=1)
        for _ in range(3):
            await self.create(body=b"xxxxx")
            await self.append(data=b"xxxxx")
            await self.delete()
        self.assertEqual((await self.create("b", body=b"x" * 10)).tail, 10)

    async def test_a_fork_counts_only_its_own_data(self) -> None:
        await self.take(total_bytes=12, stream_bytes=10)
        await self.create("a", body=b"x" * 10)
        self.assertEqual((await self.fork("b", "a", body=b"y")).tail, 11)
        self.assertEqual((await self.fork("c", "b", body=b"z")).tail, 12)
        await self.refused(StorageFull, self.append("c", b"z"))

    async def test_a_fork_may_be_filled_to_its_own_limit(self) -> None:
        await self.take(stream_bytes=10)
        await self.create("a", body=b"x" * 10)
        self.assertEqual((await self.fork("b", "a", body=b"y" * 10)).tail, 20)
        await self.refused(StreamFull, self.append("b", b"y"))

    async def test_a_deleted_sources_data_counts_until_its_forks_are_gone(self) -> None:
        await self.take(total_bytes=10)
        await self.create("a", body=b"x" * 8)
        await self.fork("b", "a", body=b"y")
        await self.delete("a")
        await self.refused(StorageFull, self.create("c", body=b"zz"))
        await self.delete("b")
        self.assertEqual((await self.create("c", body=b"z" * 10)).tail, 10)

    async def test_the_number_of_streams_is_limited(self) -> None:
        await self.take(streams=2)
        await self.create("a")
        await self.create("b")
        await self.refused(InsufficientStorage, self.create("c"))
        await self.assert_absent("c")
        self.assertFalse((await self.create("b")).new)
        await self.delete("a")
        self.assertTrue((await self.create("c")).new)

    async def test_the_depth_of_forks_is_limited(self) -> None:
        await self.take(fork_depth=3)
        await self.create("0", body=b"0")
        for number in range(1, 4):
            await self.create(f"{number}", config=StreamConfig(fork=Fork(f"{number - 1}")))
            await self.append(f"{number}", b"%d" % number)
        error = await self.refused(InsufficientStorage, self.create("4", config=StreamConfig(fork=Fork("3"))))
        self.assertIn("limits.max_fork_depth", str(error))
        self.assertEqual(await self.content("3"), b"0123")
        await self.create("other", config=StreamConfig(fork=Fork("2")))

    async def test_a_create_beyond_the_number_of_streams_does_not_count_its_data(self) -> None:
        await self.take(streams=1, total_bytes=10)
        await self.create("a")
        await self.refused(InsufficientStorage, self.create("b", body=b"xxxxx"))
        self.assertEqual((await self.append("a", b"x" * 10)).tail, 10)

    async def test_a_new_writer_replaces_the_least_recently_seen_one(self) -> None:
        await self.take(writers=2)
        await self.create()
        for writer in (Writer("u", 3, 0), Writer("v", 3, 0), Writer("u", 3, 1), Writer("w", 3, 0)):
            self.later(1)
            await self.append(data=b"x", writer=writer)
        self.assertTrue((await self.append(data=b"x", writer=Writer("u", 3, 1))).duplicate)
        self.assertTrue((await self.append(data=b"x", writer=Writer("w", 3, 0))).duplicate)
        await self.refused(WriterGap, self.append(data=b"x", writer=Writer("v", 3, 1)))
        self.later(1)
        self.assertEqual((await self.append(data=b"x", writer=Writer("v", 0, 0))).tail, 5)
        await self.refused(WriterGap, self.append(data=b"x", writer=Writer("u", 3, 2)))

    async def test_a_rejected_new_writer_replaces_none(self) -> None:
        await self.take(writers=1, total_bytes=10)
        await self.create()
        await self.append(data=b"x", writer=Writer("v", 0, 0))
        await self.refused(StorageFull, self.append(data=b"x" * 10, writer=Writer("w", 0, 0)))
        await self.refused(WriterGap, self.append(data=b"x", writer=Writer("w", 0, 1)))
        self.assertTrue((await self.append(data=b"x", writer=Writer("v", 0, 0))).duplicate)

    async def test_names_and_content_types_share_a_limit(self) -> None:
        # Each takes 3 + 10 bytes, or what its source is called besides.
        await self.take(metadata_bytes=40)
        await self.create("aaa")
        await self.create("bbb")
        error = await self.refused(InsufficientStorage, self.create("c" * 5, body=b"x"))
        self.assertIn("limits.max_metadata_bytes", str(error))
        await self.assert_absent("c" * 5)
        await self.refused(InsufficientStorage, self.fork("cc", "aaa", body=b"x"))
        await self.refused(InsufficientStorage, self.create("\u2603\u2603", body=b"x"))
        await self.create("c" * 4)
        await self.refused(InsufficientStorage, self.fork("d", "aaa", body=b"xxx"))
        await self.delete("c" * 4)
        self.assertEqual((await self.fork("d", "aaa", body=b"xxx")).tail, 3)
        self.assertEqual(self.storage.figures().metadata_bytes, 13 + 13 + 14)

    async def test_stream_seq_counts_as_metadata(self) -> None:
        await self.take(metadata_bytes=20)
        await self.create()
        await self.append(data=b"x", sequence=b"1" * 9)
        error = await self.refused(InsufficientStorage, self.append(data=b"x", sequence=b"2" * 10))
        self.assertIn("limits.max_metadata_bytes", str(error))
        await self.append(data=b"x", sequence=b"3" * 2)
        self.assertEqual((await self.append(data=b"x", sequence=b"4" * 9)).tail, 3)
        self.assertEqual(self.storage.figures().metadata_bytes, 20)

    async def test_writers_of_all_streams_share_a_limit(self) -> None:
        await self.take(metadata_bytes=22 + 2 * 257 + 10)
        await self.create("a")
        await self.create("b")
        await self.append("a", b"x", writer=Writer("u", 0, 0))
        await self.append("b", b"x", writer=Writer("u", 0, 0))
        error = await self.refused(InsufficientStorage, self.append("a", b"x", close=True, writer=Writer("v", 0, 0)))
        self.assertIn("limits.max_metadata_bytes", str(error))
        self.assertTrue((await self.append("a", b"x", writer=Writer("u", 0, 0))).duplicate)
        self.assertEqual((await self.append("a", b"x", writer=Writer("u", 1, 0))).tail, 2)
        self.assertEqual((await self.append("a", b"x")).tail, 3)
        await self.delete("b")
        self.assertEqual((await self.append("a", b"x", writer=Writer("v", 0, 0))).tail, 4)

    async def test_a_writer_that_replaces_another_needs_only_the_difference(self) -> None:
        await self.take(metadata_bytes=11 + 257, writers=1)
        await self.create()
        for writer in "uvw":
            self.later(1)
            await self.append(data=b"x", writer=Writer(writer, 0, 0))
        await self.refused(InsufficientStorage, self.append(data=b"x", writer=Writer("xx", 0, 0)))
        self.assertTrue((await self.append(data=b"x", writer=Writer("w", 0, 0))).duplicate)
        self.assertEqual(self.storage.figures().metadata_bytes, 11 + 257)

    async def test_metadata_of_a_deleted_source_counts_until_its_forks_are_gone(self) -> None:
        await self.create("a")
        await self.append("a", b"x", writer=Writer("w", 0, 0), sequence=b"123")
        await self.fork("b", "a")
        await self.delete("a")
        self.assertEqual(self.storage.figures().metadata_bytes, 11 + 257 + 3 + 12)
        await self.delete("b")
        self.assertEqual(self.storage.figures().metadata_bytes, 0)

    async def test_figures_count_streams_and_bytes(self) -> None:
        self.assertEqual((self.storage.figures().streams, self.storage.figures().bytes), (0, 0))
        await self.create("a", body=b"xxxx")
        await self.append("a", b"xx")
        await self.fork("b", "a", body=b"y")
        self.assertEqual((self.storage.figures().streams, self.storage.figures().bytes), (2, 7))
        await self.delete("a")
        self.assertEqual(self.storage.figures().bytes, 7)
        await self.delete("b")
        self.assertEqual((self.storage.figures().streams, self.storage.figures().bytes), (0, 0))
        self.assertEqual(self.storage.figures().written_bytes, 7)

    async def test_figures_count_commits(self) -> None:
        await self.create("a", body=b"xxxx")
        await self.append("a", b"xx")
        figures = self.storage.figures()
        self.assertEqual(figures.queued_bytes, 0)
        for measured in (figures.commit_sizes, figures.commit_seconds):
            if measured is not None:
                self.assertEqual(len(measured.counts), len(measured.bounds) + 1)
                self.assertEqual(list(measured.bounds), sorted(measured.bounds))
                self.assertGreaterEqual(measured.total, 0)
        if figures.commit_sizes is not None:
            self.assertEqual((sum(figures.commit_sizes.counts), figures.commit_sizes.total), (2, 2))
