"""Contract: reads."""

from __future__ import annotations

from ...errors import (
    InvalidOffset,
    OffsetGone,
    StreamNotFound,
)
from ...model import (
    FOREVER,
    NOW,
    START,
    Chunk,
    Fork,
    Lifetime,
    Offset,
    StreamConfig,
    StreamStatus,
)
from ..values import T0, settled
from .base import Contract


class ReadContract(Contract):
    """Tests of reading and listing (PROTOCOL sections 5.6 and 8)."""

    async def test_every_position_of_a_stream_can_be_read(self) -> None:
        await self.create()
        appends = [b"a", b"bcd", b"ef", b"ghijk", b"l"]
        for data in appends:
            await self.append(data=data)
        await self.assert_reads("a", appends)

    async def test_an_empty_stream_can_be_read(self) -> None:
        facts = (await self.create()).facts
        for offset in (START, NOW, self.at("a", 0), self.at("a", 5)):
            self.assertEqual(await self.read(offset=offset), Chunk(facts, 0, b"", 0, closed=False))
        self.assertEqual(await self.range(facts, 0, 0), b"")

    async def test_a_read_from_now_starts_at_the_tail(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        self.assertEqual(await self.read(offset=NOW), Chunk(facts, 5, b"", 5, closed=False))

    async def test_a_read_from_the_tail_returns_no_data(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        self.assertEqual(await self.read(offset=5), Chunk(facts, 5, b"", 5, closed=False))
        await self.append(data=b" world", close=True)
        self.assertEqual(await self.read(offset=5), Chunk(facts, 5, b" world", 11, closed=True))

    async def test_a_read_past_the_tail_starts_at_the_tail(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        for position in (6, 10**15, 10**16 - 1):
            self.assertEqual(await self.read(offset=position), Chunk(facts, 5, b"", 5, closed=False))

    async def test_a_chunk_has_the_streams_facts_tail_and_closure(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        await self.append(data=b" world", close=True)
        self.assertEqual(await self.read(limit=5, whole=True), Chunk(facts, 0, b"hello", 11, closed=True))

    async def test_a_large_append_is_read_up_to_the_limit_and_its_rest_is_counted(self) -> None:
        facts = (await self.create(body=b"x" * 1000)).facts
        await self.append(data=b"y")
        self.assertEqual(
            await self.read(limit=10, whole=True), Chunk(facts, 0, b"x" * 10, 1001, closed=False, more=990)
        )
        self.assertEqual(await self.range(facts, 10, 1000), b"x" * 990)
        for limit in (1000, 1001):
            chunk = await self.read(limit=limit, whole=True)
            self.assertEqual((len(chunk.data), chunk.more), (limit, 0))

    async def test_a_read_ends_at_the_limit_by_default(self) -> None:
        await self.create(body=b"x" * 1000)
        chunk = await settled(self.storage.read("a", START, 10, self.now))
        self.assertEqual((chunk.start, chunk.tail), (0, 1000))
        self.assertIn(len(chunk.data), range(1, 11))

    async def test_bytes_do_not_change_once_read(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        chunk = await self.read()
        await self.append(data=b" world", close=True)
        self.assertEqual((chunk.data, chunk.tail, chunk.closed), (b"hello", 5, False))
        self.assertEqual(await self.range(facts, 0, 5), b"hello")
        self.assertEqual((await self.read(limit=5)).data, b"hello")

    async def test_a_read_returns_bytes(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        for data in (await self.content(), await self.range(facts, 0, 5), await self.range(facts, 1, 3)):
            self.assertIs(type(data), bytes)
        self.assertIs(type((await self.read(offset=NOW)).data), bytes)

    async def test_a_range_can_be_read_while_the_stream_grows(self) -> None:
        await self.create(body=b"0123456789")
        chunk = await self.read(limit=3)
        pieces = [chunk.data]
        for start in range(3, chunk.tail, 2):
            await self.append(data=b"more")
            pieces.append(await self.range(chunk.facts, start, min(start + 2, chunk.tail)))
        self.assertEqual(b"".join(pieces), b"0123456789")

    async def test_thousands_of_appends_are_read_in_pieces(self) -> None:
        appends = [b"%d," % number for number in range(2000)]
        await self.create()
        for data in appends:
            await self.append(data=data)
        position, pieces = 0, []
        while (chunk := await self.read(offset=position, limit=100, whole=True)).data:
            self.assertEqual((chunk.start, chunk.data[-1:]), (position, b","))
            pieces.append(chunk.data)
            position += len(chunk.data)
        self.assertEqual(b"".join(pieces), b"".join(appends))

    async def test_reading_a_missing_stream_is_not_found(self) -> None:
        error = await self.refused(StreamNotFound, self.read("missing", START))
        self.assertEqual(error.name, "missing")

    async def test_the_offset_of_an_earlier_stream_is_gone(self) -> None:
        await self.create(body=b"hello")
        stale = [self.at("a", 0), self.at("a", 3), self.at("a", 5)]
        await self.delete()
        self.later(1)
        await self.create(body=b"other")
        for offset in stale:
            error = await self.refused(OffsetGone, self.read(offset=offset))
            self.assertEqual(error.name, "a")
        self.assertEqual((await self.read(offset=START)).data, b"other")

    async def test_an_offset_that_no_stream_had_is_invalid(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        for offset in (Offset(0, 1), Offset(facts.incarnation + 1, 0), Offset(10**16 - 1, 10**16 - 1)):
            await self.refused(InvalidOffset, self.read(offset=offset))

    async def test_the_status_has_all_metadata(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        self.assertEqual(await self.status(), StreamStatus(facts, 5, False, FOREVER, T0, T0))
        self.later(1.5)
        await self.append(data=b" world")
        self.assertEqual(await self.status(), StreamStatus(facts, 11, False, FOREVER, T0, T0 + 1.5))
        self.later(1.5)
        await self.append(close=True)
        self.assertEqual(await self.status(), StreamStatus(facts, 11, True, FOREVER, T0, T0 + 3))

    async def test_reading_does_not_change_the_time_of_the_last_update(self) -> None:
        facts = (await self.create(config=StreamConfig("text/plain", Lifetime(ttl=60)))).facts
        self.later(1)
        await self.read(renew=True)
        self.assertEqual(await self.status(), StreamStatus(facts, 0, False, Lifetime(ttl=60), T0, T0))

    async def test_the_status_of_a_missing_stream_is_not_found(self) -> None:
        error = await self.refused(StreamNotFound, self.status("missing"))
        self.assertEqual(error.name, "missing")

    async def test_statuses_are_ordered_by_name(self) -> None:
        self.assertEqual(await self.statuses(), [])
        names = ["b", "a/b", "a-b", "a", "Z", "\uff5e", "\U0001f600", "\u00e9", "ab", "10", "9"]
        for name in names:
            await self.create(name, body=name.encode())
        self.assertEqual(await self.names(), sorted(names))
        self.assertEqual(await self.statuses(), [await self.status(name) for name in sorted(names)])

    async def test_statuses_returns_one_page(self) -> None:
        names = ["a/b", "a", "\u00e9", "b", "\U0001f600", "a0", "A"]
        for name in names:
            await self.create(name)
        names.sort()
        for size in (1, 2, 3, 6, 7, 8):
            listed: list[str] = []
            while page := await self.statuses(listed[-1] if listed else "", size):
                listed += [status.facts.name for status in page]
                self.assertEqual(len(page), min(size, len(names) - len(listed) + len(page)))
            self.assertEqual(listed, names)

    async def test_a_page_may_begin_after_a_name_that_does_not_exist(self) -> None:
        for name in ("a", "c", "e"):
            await self.create(name)
        for after, expected in (("b", ["c", "e"]), ("e", []), ("zz", []), ("A", ["a", "c", "e"])):
            self.assertEqual([status.facts.name for status in await self.statuses(after)], expected)

    async def test_pages_skip_expired_and_deleted_streams_and_are_full(self) -> None:
        for name in ("a", "c", "e", "g", "i"):
            await self.create(name)
        await self.create("b", StreamConfig("text/plain", Lifetime(ttl=1)))
        await self.create("d", StreamConfig(fork=Fork("c")))
        await self.delete("c")
        await self.delete("g")
        self.later(2)
        self.assertEqual([status.facts.name for status in await self.statuses("", 3)], ["a", "d", "e"])
        self.assertEqual([status.facts.name for status in await self.statuses("e", 3)], ["i"])

    async def test_other_streams_are_listed_once_if_streams_change_between_pages(self) -> None:
        for number in range(0, 40, 2):
            await self.create(f"{number:02d}")
        first = [status.facts.name for status in await self.statuses("", 10)]
        await self.delete(first[-1])
        await self.delete("38")
        await self.create("17")
        await self.create("19")
        rest = [status.facts.name for status in await self.statuses(first[-1], 100)]
        self.assertEqual(first, [f"{number:02d}" for number in range(0, 20, 2)])
        self.assertEqual(rest, ["19", *(f"{number:02d}" for number in range(20, 38, 2))])
