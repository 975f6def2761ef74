"""Contract: durability across closing and reopening."""

from __future__ import annotations

from collections.abc import Awaitable

from ...errors import (
    InsufficientStorage,
    SequenceConflict,
    StorageFull,
    StreamClosed,
    StreamFull,
    WriterFenced,
    WriterGap,
)
from ...interfaces import IStorage
from ...model import (
    FOREVER,
    Append,
    Lifetime,
    StreamConfig,
    StreamRestoration,
    StreamStatus,
    Writer,
    WriterState,
)
from ..values import JSON, T0, TEXT, WEEK, settled
from .base import Contract


class DurabilityContract(Contract):
    """Tests of the state of a storage after it was closed and opened again."""

    def reopen(self, storage: IStorage) -> IStorage | Awaitable[IStorage]:
        """
        Close a storage, and return a new one that is open with the same streams.
        """
        raise NotImplementedError("Override reopen to close the storage and open it again.")

    async def again(self) -> None:
        """Reopen the storage under test."""
        self.storage = await settled(self.reopen(self.storage))

    async def test_streams_survive_reopening(self) -> None:
        await self.create("a", StreamConfig("Text/Plain; x=y", Lifetime(ttl=60)), b"hello")
        await self.create("b", StreamConfig(closed=True), bytes(range(256)))
        await self.create("c", JSON, b"[1,2]")
        self.later(1)
        await self.append("a", b" world")
        before = await self.everything()
        for _ in range(3):
            await self.again()
            self.assertEqual(await self.everything(), before)
        await self.assert_reads("a", [b"hello", b" world"])
        self.assertEqual((await self.append("a", b"!")).tail, 12)

    async def test_values_survive_reopening(self) -> None:
        await settled(self.storage.write_values({f"{number}/\u2603": b"\0" * number for number in range(100)}, {}))
        await self.create("a", body=b"hello")
        await settled(self.storage.write_values({"1/\u2603": None, "2/\u2603": b"", "new": b"1"}, {"new": None}))
        before = await settled(self.storage.values())
        figures = self.storage.figures()
        self.assertEqual(len(before), 100)
        for number in range(3):
            await self.again()
            self.assertEqual(await settled(self.storage.values()), before)
            self.assertEqual(self.storage.figures().metadata_bytes, figures.metadata_bytes)
            self.assertEqual(await settled(self.storage.values("2", "2/", 1)), [("2/\u2603", b"")])
            await settled(self.storage.write_values({"new": b"%d" % number}, {"new": before[-1][1]}))
            before[-1] = ("new", b"%d" % number)
        self.assertEqual(await self.content(), b"hello")

    async def test_removed_values_stay_removed_after_reopening(self) -> None:
        await settled(self.storage.write_values({"a": b"1", "b": b"1"}, {}))
        await self.again()
        await settled(self.storage.write_values({"a": None, "b": None}, {"a": b"1"}))
        await self.again()
        self.assertEqual(await settled(self.storage.values()), [])
        self.assertEqual(self.storage.figures().metadata_bytes, 0)

    async def test_records_and_append_ends_survive_reopening(self) -> None:
        await self.create("a", StreamConfig("Text/Plain; x=y", Lifetime(expires_at=T0 + WEEK)), b"hello")
        facts = (await self.fork("b", "a", 0, 4)).facts
        for number, writer in enumerate(("w", "v", "w")):
            self.later(1)
            await self.append("b", b"x" * 40_000, sequence=b"%d" % number, writer=Writer(writer, 1, number // 2))
        await self.delete("a")
        before = [await settled(self.storage.record(name, self.now, True)) for name in "ab"]
        expected = [4, 40_004, 80_004, 120_004]
        for _ in range(2):
            await self.again()
            after = [await settled(self.storage.record(name, self.now, True)) for name in "ab"]
            self.assertEqual(after, before)
            self.assertEqual([list(record.writers) for record in after], [[], ["v", "w"]])
            for start in (0, 1, 4, 50_000, 80_004, 120_004):
                for size in (1, 2, 9):
                    ends = await settled(self.storage.append_ends(facts, start, size))
                    self.assertEqual(list(ends), [end for end in expected if end > start][:size])

    async def test_installed_streams_survive_reopening(self) -> None:
        hour = Lifetime(ttl=3600)
        await self.create("a", body=b"old" * 30_000)
        await self.create("b", body=b"other")
        for number, data in enumerate((b"x" * 70_000, b"new", b"staged")):
            await self.create(f"__ds/{number}", StreamConfig("text/plain", hour), data)
            await self.append(f"__ds/{number}", b"!", writer=Writer("staged", 0, 0))
        await self.again()
        later = (await self.create("c")).facts.id + 10**12
        restored = StreamRestoration(
            TEXT,
            Lifetime(expires_at=T0 + WEEK),
            True,
            b"5",
            {"w": WriterState(1, 2, T0 - 5)},
            T0 - 9,
            T0 - 5,
            T0,
            later,
        )
        await settled(self.storage.install("__ds/0", "a", restored, True, self.now))
        await settled(self.storage.install("__ds/1", "d", StreamRestoration(TEXT, FOREVER), False, self.now))
        await self.append("d", b"?", writer=Writer("w", 0, 0))
        names = ["a", "b", "c", "d", "__ds/2"]
        before = [await settled(self.storage.record(name, self.now)) for name in names]
        self.assertEqual(before[0].writers, restored.writers)
        for _ in range(3):
            await self.again()
            self.assertEqual([await settled(self.storage.record(name, self.now)) for name in names], before)
            self.assertEqual(await self.names(), names[:-1])
            self.assertEqual(await self.content("a"), b"x" * 70_000 + b"!")
            self.assertEqual((await self.content("d"), await self.content("__ds/2")), (b"new!?", b"staged!"))
            await self.refused(StreamClosed, self.append("a", b"x"))
        self.assertGreater((await self.create("e")).facts.id, later)
        self.later(3600)
        self.assertEqual(await self.sweep(), 1)
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes), (5, 70_001 + 5 + 5))

    async def test_ranges_can_be_read_after_reopening(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        await self.again()
        self.assertEqual(await self.range(facts, 1, 4), b"ell")

    async def test_closure_survives_reopening(self) -> None:
        await self.create()
        await self.append(data=b"last", close=True)
        await self.again()
        await self.refused(StreamClosed, self.append(data=b"more"))
        self.assertTrue((await self.read()).closed)

    async def test_writers_survive_reopening(self) -> None:
        await self.create()
        await self.append(data=b"x", writer=Writer("w", 3, 0))
        await self.append(data=b"y", close=True, writer=Writer("w", 3, 1))
        await self.again()
        again = await self.append(data=b"y", close=True, writer=Writer("w", 3, 1))
        self.assertEqual((again.duplicate, again.tail, again.closed), (True, 2, True))
        await self.refused(WriterFenced, self.append(data=b"z", writer=Writer("w", 2, 0)))

    async def test_writers_survive_reopening_however_old_they_are(self) -> None:
        await self.create()
        await self.append(data=b"x", writer=Writer("w", 3, 0))
        self.later(100 * WEEK)
        await self.append(data=b"y", writer=Writer("v", 0, 0))
        for _ in range(2):
            await self.again()
            self.assertTrue((await self.append(data=b"x", writer=Writer("w", 3, 0))).duplicate)
            await self.refused(WriterFenced, self.append(data=b"z", writer=Writer("w", 2, 0)))

    async def test_replaced_writers_stay_replaced_and_their_order_survives_reopening(self) -> None:
        await self.take(writers=3)
        await self.create()
        # Not in the order of their ids.
        for writer in (
            Writer("b", 1, 0), Writer("d", 1, 0), Writer("a", 1, 0), Writer("b", 1, 1), Writer("c", 1, 0)
        ):  # fmt: skip
            self.later(1)
            await self.append(data=b"x", writer=writer)
        await self.again()
        await self.refused(WriterGap, self.append(data=b"x", writer=Writer("d", 1, 1)))
        for new, last in (("e", Writer("a", 1, 1)), ("f", Writer("b", 1, 2)), ("g", Writer("c", 1, 1))):
            self.later(1)
            await self.append(data=b"x", writer=Writer(new, 0, 0))
            await self.refused(WriterGap, self.append(data=b"x", writer=last))
            await self.again()
            await self.refused(WriterGap, self.append(data=b"x", writer=last))
            self.assertTrue((await self.append(data=b"x", writer=Writer(new, 0, 0))).duplicate)

    async def test_stream_seq_survives_reopening(self) -> None:
        await self.create()
        await self.append(data=b"x", sequence=b"\xff")
        await self.again()
        await self.refused(SequenceConflict, self.append(data=b"y", sequence=b"\xff"))
        self.assertEqual((await self.append(data=b"y", sequence=b"\xff\x01")).tail, 2)

    async def test_lifetimes_continue_after_reopening(self) -> None:
        await self.create("a", StreamConfig("text/plain", Lifetime(ttl=60)))
        await self.create("b", StreamConfig("text/plain", Lifetime(expires_at=T0 + 70)))
        self.later(30)
        await self.append("a", b"x")
        await self.again()
        self.later(59.5)
        self.assertEqual(await self.names(), ["a"])
        self.later(0.5)
        self.assertEqual((await self.names(), await self.sweep()), ([], 2))

    async def test_deleted_streams_stay_deleted(self) -> None:
        await self.create()
        await self.delete()
        await self.again()
        await self.assert_absent()

    async def test_ids_and_incarnations_are_not_reused_after_reopening(self) -> None:
        first = (await self.create()).facts
        await self.delete()
        self.later(-3600)
        await self.again()
        second = (await self.create()).facts
        self.assertGreater(second.incarnation, first.incarnation)
        self.assertNotEqual(second.id, first.id)

    async def test_forks_and_their_deleted_sources_survive_reopening(self) -> None:
        await self.create("a", body=b"hello")
        await self.fork("b", "a", 0, 4, body=b"B")
        await self.fork("c", "b", body=b"C")
        await self.delete("a")
        await self.delete("b")
        await self.again()
        await self.assert_hidden("a")
        await self.assert_hidden("b")
        await self.assert_reads("c", [b"hell", b"B", b"C"])
        await self.delete("c")
        for name in ("a", "b", "c"):
            await self.assert_absent(name)

    async def test_creating_an_existing_fork_after_reopening_returns_it(self) -> None:
        await self.create("a", body=b"hello")
        asked = self.forking("a")
        await self.create("b", asked)
        await self.append("a", b"more")
        await self.again()
        self.assertFalse((await self.create("b", asked)).new)
        self.assertFalse((await self.create("b", self.forking("a", 5))).new)

    async def test_limits_count_the_data_from_before_reopening(self) -> None:
        await self.take(total_bytes=10, stream_bytes=8, streams=2, writers=1)
        await self.create("a", body=b"xxxxx")
        await self.create("b", body=b"yyy")
        await self.append("a", b"x", writer=Writer("w", 0, 0))
        await self.again()
        await self.refused(StorageFull, self.append("a", b"xx"))
        await self.refused(InsufficientStorage, self.create("c"))
        await self.append("a", b"x", writer=Writer("v", 0, 0))
        await self.refused(WriterGap, self.append("a", b"x", writer=Writer("w", 0, 1)))
        await self.delete("b")
        await self.refused(StreamFull, self.append("a", b"xx"))
        self.assertEqual((await self.append("a", b"x")).tail, 8)

    async def test_metadata_is_counted_alike_after_reopening(self) -> None:
        await self.take(metadata_bytes=700, writers=2)
        await self.create("a")
        await self.append("a", b"x", sequence=b"12345")
        for number in range(3):
            await self.append("a", b"x", writer=Writer(f"writer-{number}", 0, 0))
        await self.fork("\u2603", "a")
        await self.create("gone")
        await self.delete("gone")
        await self.again()
        self.assertEqual(self.storage.figures().metadata_bytes, 11 + 5 + 2 * (256 + 8) + 14)
        await self.refused(InsufficientStorage, self.append("\u2603", b"x", writer=Writer("w", 0, 0)))
        await self.delete("a")
        await self.delete("\u2603")
        self.assertEqual(self.storage.figures().metadata_bytes, 0)

    async def test_close_completes_accepted_writes(self) -> None:
        await self.create()
        append = Append("text/plain", b"x")
        storage = self.storage
        started = [self.begin(lambda: storage.append("a", append, self.now)) for _ in range(20)]
        await self.again()
        tails = [(await deferred).tail for deferred in started]
        self.assertEqual(sorted(tails), list(range(1, 21)))
        self.assertEqual(await self.content(), b"x" * 20)

    async def test_a_reopened_storage_announces_commits(self) -> None:
        await self.create()
        await self.again()
        listener = self.listen()
        await self.append(data=b"x")
        seen = await listener.sees("a", lambda look: isinstance(look, StreamStatus) and look.tail == 1)
        self.assertTrue(seen)

    async def test_written_bytes_start_at_0_after_reopening(self) -> None:
        await self.create("a", body=b"xxxx")
        await self.append("a", b"xx")
        await self.again()
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes, figures.written_bytes), (1, 6, 0))
        await self.append("a", b"x")
        await self.delete("a")
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes, figures.written_bytes), (0, 0, 1))
