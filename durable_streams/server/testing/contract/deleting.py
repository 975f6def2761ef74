"""Contract: deletion of streams."""

from __future__ import annotations

from ...errors import (
    StreamNotFound,
)
from ...model import (
    StreamConfig,
    Writer,
)
from ..values import JSON
from .base import Contract


class DeleteContract(Contract):
    """Tests of deleting streams (PROTOCOL section 5.4)."""

    async def test_a_deleted_stream_is_not_found_by_any_operation(self) -> None:
        await self.create("a", body=b"x")
        await self.create("b", body=b"y")
        await self.delete("a")
        await self.assert_absent("a")
        self.assertEqual(await self.names(), ["b"])

    async def test_deleting_a_missing_stream_is_not_found(self) -> None:
        error = await self.refused(StreamNotFound, self.delete("missing"))
        self.assertEqual(error.name, "missing")

    async def test_a_closed_stream_can_be_deleted(self) -> None:
        await self.create(config=StreamConfig("text/plain", closed=True))
        await self.delete()
        await self.assert_absent()

    async def test_a_recreated_stream_has_a_new_id_and_incarnation(self) -> None:
        first = (await self.create(body=b"first")).facts
        await self.append(data=b"x", close=True, sequence=b"5", writer=Writer("w", 7, 0))
        await self.delete()
        second = await self.create(config=JSON)
        self.assertEqual((second.tail, second.closed, second.new, second.facts.json), (0, False, True, True))
        self.assertGreater(second.facts.incarnation, first.incarnation)
        self.assertNotEqual(second.facts.id, first.id)

    async def test_a_recreated_stream_has_no_writers(self) -> None:
        await self.create()
        await self.append(data=b"x", sequence=b"5", writer=Writer("w", 7, 0))
        await self.delete()
        await self.create()
        appended = await self.append(data=b"y", sequence=b"1", writer=Writer("w", 0, 0))
        self.assertEqual((appended.duplicate, appended.tail), (False, 1))

    async def test_offsets_of_a_recreated_stream_sort_after_the_earlier_ones(self) -> None:
        offsets = []
        for _ in range(5):
            await self.create(body=b"hello")
            offsets += [str(self.at("a", 0)), str(self.at("a", 5))]
            await self.delete()
        self.assertEqual(offsets, sorted(set(offsets)))

    async def test_incarnations_are_not_reused_after_the_time_went_back(self) -> None:
        first = (await self.create()).facts
        await self.delete()
        self.later(-3600)
        second = (await self.create()).facts
        self.assertGreater(second.incarnation, first.incarnation)
        self.assertNotEqual(second.id, first.id)

    async def test_a_range_of_a_deleted_stream_is_not_found(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        await self.delete()
        await self.refused(StreamNotFound, self.range(facts, 0, 5))
        await self.create(body=b"other")
        await self.refused(StreamNotFound, self.range(facts, 0, 5))
