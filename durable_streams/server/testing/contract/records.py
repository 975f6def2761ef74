"""Contract: records of streams, and where their appends end."""

from __future__ import annotations

from ...errors import StreamGone, StreamNotFound
from ...model import (
    FOREVER,
    Fork,
    Lifetime,
    StreamConfig,
    StreamFacts,
    StreamRecord,
    Writer,
    WriterState,
)
from ..values import ALL, JSON, T0, TEXT, settled
from .base import Contract


class RecordContract(Contract):
    """Tests of ``record`` and ``append_ends``."""

    async def record(self, name: str = "a", hidden: bool = False) -> StreamRecord:
        return await settled(self.storage.record(name, self.now, hidden))

    async def ends(self, facts: StreamFacts, start: int = 0, max_count: int = ALL) -> list[int]:
        return list(await settled(self.storage.append_ends(facts, start, max_count)))

    async def test_the_record_of_a_new_stream_has_its_configuration(self) -> None:
        config = StreamConfig("Text/Plain; x=y", Lifetime(ttl=60), closed=True)
        facts = (await self.create(config=config, body=b"hello")).facts
        expected = StreamRecord(facts, config, Lifetime(ttl=60), 5, True, False, None, {}, T0, T0, T0, 0, None, None, 0)
        self.assertEqual(await self.record(), expected)

    async def test_a_record_has_writers_in_order_sequence_and_times(self) -> None:
        facts = (await self.create(config=StreamConfig("text/plain", Lifetime(ttl=60)))).facts
        for writer in (Writer("w", 3, 0), Writer("v", 0, 0), Writer("w", 3, 1)):
            self.later(1)
            await self.append(data=b"x", writer=writer, sequence=b"%d" % self.now)
        self.later(1)
        await self.read(renew=True)
        record = await self.record()
        self.assertEqual(list(record.writers), ["v", "w"])
        self.assertEqual(record.writers, {"v": WriterState(0, 0, T0 + 2), "w": WriterState(3, 1, T0 + 3)})
        self.assertEqual((record.facts, record.tail, record.sequence), (facts, 3, b"%d" % (T0 + 3)))
        self.assertEqual((record.created_at, record.updated_at, record.used_at), (T0, T0 + 3, T0 + 4))
        self.assertFalse(record.closed)

    async def test_a_record_is_a_snapshot_and_does_not_renew_the_ttl(self) -> None:
        await self.create(config=StreamConfig("text/plain", Lifetime(ttl=60)))
        await self.append(data=b"x", writer=Writer("w", 0, 0))
        record = await self.record()
        self.later(30)
        await self.record()
        await self.append(data=b"y", writer=Writer("v", 0, 0), close=True)
        self.assertEqual((record.tail, record.closed, list(record.writers)), (1, False, ["w"]))
        self.later(59)
        await self.record()
        self.later(1)
        await self.refused(StreamNotFound, self.record())

    async def test_the_record_of_a_fork_has_its_source_and_that_of_the_source_its_forks(self) -> None:
        source = (await self.create("a", StreamConfig("text/plain", Lifetime(ttl=60)), b"hello")).facts
        config = self.forking("a", 0, 4)
        facts = (await self.create("b", config, b"B")).facts
        record = await self.record("b")
        self.assertEqual((record.facts, record.config, record.lifetime), (facts, config, Lifetime(ttl=60)))
        self.assertEqual((record.base, record.tail, record.source, record.source_id), (4, 5, "a", source.id))
        self.assertEqual(((await self.record("a")).forks, record.forks), (1, 0))

    async def test_a_deleted_source_has_a_record_if_hidden_streams_are_asked_for(self) -> None:
        await self.create("a", body=b"hello")
        await self.create("b", StreamConfig(fork=Fork("a")))
        await self.delete("a")
        await self.refused(StreamGone, self.record("a"))
        record = await self.record("a", hidden=True)
        self.assertEqual((record.deleted, record.tail, record.forks, record.lifetime), (True, 5, 1, FOREVER))
        self.assertEqual((await self.record("b")).source, "a")
        await self.delete("b")
        for hidden in (False, True):
            await self.refused(StreamNotFound, self.record("a", hidden))

    async def test_an_expired_source_is_hidden_in_its_record(self) -> None:
        await self.create("a", StreamConfig("text/plain", Lifetime(ttl=60)))
        await self.create("b", StreamConfig(lifetime=Lifetime(ttl=600), fork=Fork("a")))
        self.later(60)
        record = await self.record("a", hidden=True)
        self.assertEqual((record.deleted, record.forks), (True, 1))

    async def test_the_record_of_a_missing_stream_is_not_found(self) -> None:
        for hidden in (False, True):
            error = await self.refused(StreamNotFound, self.record("missing", hidden))
            self.assertEqual(error.name, "missing")

    async def test_append_ends_are_returned_in_pages(self) -> None:
        facts = (await self.create(body=b"xxx")).facts
        expected = [3]
        for number in range(1, 30):
            expected.append((await self.append(data=b"y" * (number % 5 + 1))).tail)
        await self.append(close=True)
        self.assertEqual(await self.ends(facts), expected)
        for size in (1, 2, 7, 29, 30, 31):
            found = await self.ends(facts, 0, size)
            while len(found) % size == 0 and (page := await self.ends(facts, found[-1], size)):
                self.assertLessEqual(len(page), size)
                found += page
            self.assertEqual(found, expected)
        self.assertEqual(await self.ends(facts, 1), expected)
        self.assertEqual(await self.ends(facts, expected[4], 2), expected[5:7])
        self.assertEqual(await self.ends(facts, expected[-1]), [])

    async def test_a_stream_without_data_has_no_append_ends(self) -> None:
        facts = (await self.create(config=JSON, body=b"[]")).facts
        self.assertEqual(await self.ends(facts), [])

    async def test_a_large_append_has_one_end(self) -> None:
        facts = (await self.create()).facts
        await self.append(data=bytes(200_000))
        await self.append(data=bytes(70_000))
        await self.append(data=b"x")
        self.assertEqual(await self.ends(facts), [200_000, 270_000, 270_001])
        self.assertEqual(await self.ends(facts, 100_000, 2), [200_000, 270_000])

    async def test_append_ends_of_a_fork_are_those_of_its_sources_up_to_the_fork_points(self) -> None:
        await self.create("a", body=b"hello")
        await self.append("a", b" world")
        await self.fork("b", "a", 5, 3, body=b"B")
        await self.append("b", b"BB")
        await self.fork("c", "b", 9, body=b"C")
        await self.append("a", b"more")
        c = (await self.append("c", b"CC")).facts
        expected = [5, 8, 9, 10, 12]
        self.assertEqual(await self.ends(c), expected)
        for start in range(12):
            for size in (1, 2, 3, 6):
                later = [end for end in expected if end > start]
                self.assertEqual(await self.ends(c, start, size), later[:size])
        await self.delete("a")
        self.assertEqual(await self.ends(c), expected)

    async def test_a_deleted_source_is_read_only_if_asked(self) -> None:
        facts = (await self.create("a", body=b"hello")).facts
        await self.append("a", b" world")
        await self.fork("b", "a", 3)
        await self.delete("a")
        await self.refused(StreamNotFound, self.ends(facts))
        await self.refused(StreamNotFound, self.range(facts, 0, 11))
        ends = await settled(self.storage.append_ends(facts, 0, 10, hidden=True))
        self.assertEqual(list(ends), [5, 11])
        self.assertEqual(await settled(self.storage.read_range(facts, 2, 11, hidden=True)), b"llo world")
        await self.delete("b")
        for hidden in (False, True):
            with self.assertRaises(StreamNotFound):
                await settled(self.storage.read_range(facts, 0, 11, hidden))

    async def test_append_ends_are_those_of_the_same_stream_only(self) -> None:
        facts = (await self.create(body=b"x")).facts
        await self.delete()
        await self.refused(StreamNotFound, self.ends(facts))
        await self.create(body=b"x")
        await self.refused(StreamNotFound, self.ends(facts))


class ListingContract(Contract):
    """Tests of ``statuses`` with a prefix, and of reserved names."""

    async def listed(self, prefix: str, after: str = "", max_count: int = 1000) -> list[str]:
        statuses = await settled(self.storage.statuses(self.now, after, max_count, prefix))
        return [status.facts.name for status in statuses]

    async def test_statuses_with_a_prefix_are_a_page_of_the_names_that_begin_with_it(self) -> None:
        names = ["a", "a/", "a/b", "a/c", "a/\U0010ffff", "a0", "ab", "b", "\u00e9", "\u00e9/x"]
        for name in names:
            await self.create(name)
        for prefix in ("", "a", "a/", "a/b", "a0", "c", "\u00e9", "\U0010ffff", "a/\U0010ffff"):
            expected = [name for name in sorted(names) if name.startswith(prefix)]
            self.assertEqual(await self.listed(prefix), expected, prefix)
            for after in ("", "a", "a/b", "a/bb", "b", "z", "\u00e9"):
                rest = [name for name in expected if name > after]
                self.assertEqual(await self.listed(prefix, after), rest, (prefix, after))
                self.assertEqual(await self.listed(prefix, after, 2), rest[:2], (prefix, after))

    async def test_reserved_names_are_not_listed_and_can_be_used(self) -> None:
        names = ["__ds", "__ds-", "__ds.", "__ds0", "__d", "__e", "_", "zz"]
        for name in [*names, "__ds/a", "__ds/b/c", "__ds/\U0010ffff"]:
            await self.create(name, TEXT, b"x")
        self.assertEqual(await self.listed(""), sorted(names))
        self.assertEqual(await self.listed("__ds"), ["__ds", "__ds-", "__ds.", "__ds0"])
        self.assertEqual(await self.listed("__ds/"), [])
        self.assertEqual(await self.listed("", "__ds.", 1), ["__ds0"])
        self.assertEqual((await self.status("__ds/a")).tail, 1)
        self.assertEqual((await self.append("__ds/b/c", b"y")).tail, 2)
