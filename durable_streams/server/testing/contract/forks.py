"""Contract: forks."""

from __future__ import annotations

from ...errors import (
    ContentTypeMismatch,
    InsufficientStorage,
    InvalidJson,
    InvalidRequest,
    SequenceConflict,
    StorageFull,
    StreamClosed,
    StreamExists,
    StreamFull,
    StreamNotFound,
    WriterGap,
)
from ...model import (
    FOREVER,
    NOW,
    START,
    Created,
    Fork,
    ForkPoint,
    Lifetime,
    Offset,
    StreamConfig,
    Writer,
)
from ..values import JSON, T0, TEXT, settled
from .base import Contract

#: An append of 20,000 JSON messages, two bytes each in wire form.
LONG = b"[" + b"1," * 19_999 + b"1]"


class ForkContract(Contract):
    """Tests of forking (PROTOCOL section 4.2)."""

    async def source(self) -> Created:
        """Create the source ``a`` of the tests' forks: three appends, with boundaries at 0, 3, 6 and 11."""
        await self.create("a", body=b"one")
        await self.append("a", b"two")
        await self.append("a", b"three")
        return await self.create("a")

    async def json_source(self) -> None:
        """Create a JSON source of two appends: their messages end at 2, 9 and 19, and at 21 and 23."""
        await self.create("j", JSON, b'[1,"a,[b",{"k":[2]}]')
        await self.append("j", b"3,4,", media_type="application/json")
        self.assertEqual(await self.content("j"), b'1,"a,[b",{"k":[2]},3,4,')

    async def test_a_fork_begins_with_all_that_its_source_has(self) -> None:
        source = (await self.source()).facts
        created = await self.fork("b", "a")
        self.assertEqual((created.tail, created.closed, created.new), (11, False, True))
        self.assertEqual(await self.content("b"), b"onetwothree")
        self.assertEqual((created.facts.name, created.facts.incarnation), ("b", source.incarnation))
        self.assertNotEqual(created.facts.id, source.id)

    async def test_a_fork_has_its_sources_type(self) -> None:
        await self.create("a", StreamConfig("Application/JSON; v=1"), b"[1]")
        facts = (await self.fork("b", "a")).facts
        self.assertEqual(
            (facts.content_type, facts.media_type, facts.json), ("Application/JSON; v=1", "application/json", True)
        )

    async def test_a_forks_type_must_be_its_sources(self) -> None:
        await self.source()
        config = StreamConfig("application/json", fork=Fork("a"))
        error = await self.refused(ContentTypeMismatch, self.create("b", config))
        self.assertEqual((error.expected, error.received), ("text/plain", "application/json"))
        same = await self.create("b", StreamConfig("TEXT/plain; charset=utf-8", fork=Fork("a")))
        self.assertTrue(same.new)

    async def test_a_fork_begins_at_any_offset_that_its_source_returned(self) -> None:
        await self.source()
        for position, inherited in ((0, []), (3, [b"one"]), (6, [b"one", b"two"]), (11, [b"one", b"two", b"three"])):
            name = f"at-{position}"
            self.assertEqual((await self.fork(name, "a", position)).tail, position)
            await self.append(name, b"XY")
            await self.append(name, b"Z")
            await self.assert_reads(name, [*inherited, b"XY", b"Z"])

    async def test_a_fork_begins_at_the_start_for_minus_1_and_at_the_tail_for_now(self) -> None:
        await self.source()
        at_start = await self.create("b", StreamConfig(fork=Fork("a", START)))
        at_tail = await self.create("c", StreamConfig(fork=Fork("a", NOW)))
        self.assertEqual((at_start.tail, at_tail.tail), (0, 11))

    async def test_a_sub_offset_counts_bytes(self) -> None:
        await self.source()
        for sub_offset, inherited in ((0, b"one"), (1, b"onet"), (3, b"onetwo")):
            created = await self.fork(f"sub-{sub_offset}", "a", 3, sub_offset)
            self.assertEqual(created.tail, 3 + sub_offset)
            self.assertEqual(await self.content(f"sub-{sub_offset}"), inherited)

    async def test_a_sub_offset_past_the_end_of_its_append_is_rejected(self) -> None:
        await self.source()
        await self.refused(InvalidRequest, self.fork("b", "a", 3, 4))
        await self.refused(InvalidRequest, self.fork("b", "a", 0, 10**12))

    async def test_a_fork_offset_past_the_tail_is_rejected(self) -> None:
        await self.source()
        await self.refused(InvalidRequest, self.fork("b", "a", 11, 1))
        await self.refused(InvalidRequest, self.fork("b", "a", None, 1))
        await self.refused(InvalidRequest, self.fork("b", "a", 12))
        await self.assert_absent("b")

    async def test_a_fork_offset_of_another_stream_is_rejected(self) -> None:
        incarnation = (await self.source()).facts.incarnation
        for offset in (Offset(incarnation + 1, 0), Offset(incarnation - 1, 0), Offset(10**16 - 1, 10**16 - 1)):
            await self.refused(InvalidRequest, self.create("b", StreamConfig(fork=Fork("a", offset))))
        await self.assert_absent("b")

    async def test_a_json_sub_offset_counts_messages(self) -> None:
        await self.json_source()
        cases = {(0, 0): 0, (0, 1): 2, (0, 2): 9, (0, 3): 19, (2, 1): 9, (9, 1): 19, (19, 1): 21, (19, 2): 23}
        for (position, sub_offset), tail in cases.items():
            name = f"{position}-{sub_offset}"
            self.assertEqual((await self.fork(name, "j", position, sub_offset)).tail, tail, name)
            self.assertEqual(await self.content(name), b'1,"a,[b",{"k":[2]},3,4,'[:tail])

    async def test_a_json_sub_offset_past_the_end_of_its_append_is_rejected(self) -> None:
        await self.json_source()
        for position, sub_offset in ((0, 4), (2, 3), (19, 3), (23, 1)):
            await self.refused(InvalidRequest, self.fork("b", "j", position, sub_offset))

    async def test_a_json_sub_offset_counts_the_messages_of_a_long_append(self) -> None:
        await self.create("j", JSON, LONG)
        for sub_offset in (1, 19_999, 20_000):
            self.assertEqual((await self.fork(f"at-{sub_offset}", "j", 0, sub_offset)).tail, 2 * sub_offset)
        self.assertEqual((await self.fork("from-2", "j", 2, 19_998)).tail, 39_998)
        for position, sub_offset in ((0, 20_001), (1, 0), (39_999, 0)):
            await self.refused(InvalidRequest, self.fork("b", "j", position, sub_offset))

    async def test_creating_an_existing_fork_inside_a_long_append_returns_it_after_its_sources_deletion(self) -> None:
        await self.create("j", JSON, LONG)
        await self.fork("b", "j", 0, 19_999)
        await self.delete("j")
        self.assertFalse((await self.fork("b", "j", 0, 19_999)).new)
        self.assertFalse((await self.fork("b", "j", 2, 19_998)).new)
        await self.refused(StreamExists, self.fork("b", "j", 2, 19_999))

    async def test_the_result_of_a_search_is_for_one_fork_of_one_source(self) -> None:
        source = await self.create("j", JSON, LONG)
        last, first = Fork("j", START, 20_000), Fork("j", START, 1)
        point = ForkPoint(last, source.facts.id, 40_000)

        async def fork_with_result(fork: Fork) -> Created:
            return await settled(self.storage.create("b", StreamConfig(fork=fork), b"", self.now, point))

        self.assertEqual((await fork_with_result(first)).tail, 2)
        await self.delete("b")
        self.assertEqual((await fork_with_result(last)).tail, 40_000)
        await self.delete("b")
        await self.delete("j")
        await self.create("j", JSON, b"[1,2]")
        await self.refused(InvalidRequest, fork_with_result(last))

    async def test_a_fork_offset_inside_a_json_message_is_rejected(self) -> None:
        await self.json_source()
        for position in (1, 3, 5, 10, 20):
            await self.refused(InvalidRequest, self.fork("b", "j", position))

    async def test_a_fork_of_a_missing_source_is_not_found(self) -> None:
        error = await self.refused(StreamNotFound, self.fork("b", "missing"))
        self.assertEqual(error.name, "missing")
        error = await self.refused(StreamNotFound, self.fork("b", "b"))
        self.assertEqual(error.name, "b")
        await self.assert_absent("b")

    async def test_a_forks_body_follows_what_it_inherits(self) -> None:
        await self.source()
        created = await self.fork("b", "a", 3, body=b"!!")
        self.assertEqual(created.tail, 5)
        await self.assert_reads("b", [b"one", b"!!"])

    async def test_a_forks_body_is_converted_by_the_sources_content_type(self) -> None:
        await self.json_source()
        await self.fork("b", "j", 2, body=b"[[7],8]")
        self.assertEqual(await self.content("b"), b"1,[7],8,")
        await self.fork("c", "j", 2, body=b"[]")
        self.assertEqual(await self.content("c"), b"1,")
        await self.refused(InvalidJson, self.fork("d", "j", 2, body=b"nonsense"))
        await self.assert_absent("d")

    async def test_a_fork_of_a_closed_stream_is_open(self) -> None:
        await self.source()
        await self.append("a", close=True)
        self.assertFalse((await self.fork("b", "a")).closed)
        self.assertEqual((await self.append("b", b"!")).tail, 12)

    async def test_a_fork_can_be_created_closed(self) -> None:
        await self.source()
        created = await self.create("b", StreamConfig(closed=True, fork=Fork("a")), b"!")
        self.assertEqual((created.tail, created.closed), (12, True))
        await self.refused(StreamClosed, self.append("b", b"more"))

    async def test_closing_a_fork_or_its_source_does_not_close_the_other(self) -> None:
        await self.source()
        await self.fork("b", "a")
        await self.append("b", close=True)
        self.assertEqual(((await self.status("a")).closed, (await self.status("b")).closed), (False, True))

    async def test_appends_to_a_fork_or_its_source_do_not_change_the_other(self) -> None:
        await self.source()
        await self.fork("b", "a", 6)
        await self.fork("c", "a")
        await self.append("a", b"A")
        await self.append("b", b"B")
        await self.append("c", b"C")
        await self.assert_reads("a", [b"one", b"two", b"three", b"A"])
        await self.assert_reads("b", [b"one", b"two", b"B"])
        await self.assert_reads("c", [b"one", b"two", b"three", b"C"])

    async def test_a_fork_without_own_data_does_not_follow_its_source(self) -> None:
        await self.source()
        await self.fork("b", "a")
        await self.fork("c", "b", 3)
        await self.append("a", b"more")
        await self.append("b", b"more of b")
        self.assertEqual(await self.content("c"), b"one")
        await self.fork("d", "a", 14)
        await self.append("a", b"even more", close=True)
        self.assertEqual((await self.status("d")).closed, False)
        await self.assert_reads("d", [b"one", b"two", b"three", b"mor"])

    async def test_an_offset_means_the_same_in_a_fork_and_its_source(self) -> None:
        await self.source()
        await self.fork("b", "a")
        for position in range(12):
            in_source = await self.read("a", position)
            in_fork = await self.read("b", self.at("a", position))
            self.assertEqual((in_fork.start, in_fork.data), (in_source.start, in_source.data))

    async def test_a_fork_inside_an_append_can_be_read_from_every_position(self) -> None:
        await self.source()
        await self.fork("b", "a", 6, 2)
        await self.assert_reads("b", [b"one", b"two", b"th"])
        await self.append("b", b"XYZ")
        await self.assert_reads("b", [b"one", b"two", b"th", b"XYZ"])

    async def test_forks_of_forks_can_be_read_from_every_position(self) -> None:
        await self.source()
        await self.fork("b", "a", 6, 3, body=b"B1")
        await self.append("b", b"B2B2")
        await self.fork("c", "b", 11, 2, body=b"C1")
        await self.append("c", b"C2")
        await self.fork("d", "c", body=b"D")
        await self.assert_reads("b", [b"one", b"two", b"thr", b"B1", b"B2B2"])
        await self.assert_reads("c", [b"one", b"two", b"thr", b"B1", b"B2", b"C1", b"C2"])
        await self.assert_reads("d", [b"one", b"two", b"thr", b"B1", b"B2", b"C1", b"C2", b"D"])

    async def test_a_fork_of_a_fork_may_diverge_in_inherited_data(self) -> None:
        await self.source()
        await self.fork("b", "a", 6, 3, body=b"B")
        for position, sub_offset, inherited in (
            (0, 0, []),
            (0, 2, [b"on"]),
            (3, 1, [b"one", b"t"]),
            (6, 0, [b"one", b"two"]),
            (6, 3, [b"one", b"two", b"thr"]),
            (9, 0, [b"one", b"two", b"thr"]),
            (9, 1, [b"one", b"two", b"thr", b"B"]),
        ):
            name = f"{position}-{sub_offset}"
            await self.fork(name, "b", position, sub_offset, b"own")
            await self.assert_reads(name, [*inherited, b"own"])

    async def test_an_inherited_append_ends_where_the_fork_began(self) -> None:
        await self.source()
        await self.fork("b", "a", 6, 2, body=b"B")
        await self.refused(InvalidRequest, self.fork("c", "b", 6, 3))
        self.assertEqual((await self.fork("c", "b", 6, 2)).tail, 8)

    async def test_a_json_fork_inside_a_batch_can_be_forked_by_messages(self) -> None:
        await self.json_source()
        await self.fork("b", "j", 0, 2, body=b"[5,6]")
        await self.refused(InvalidRequest, self.fork("c", "b", 0, 3))
        await self.fork("c", "b", 2, 1, body=b"7")
        await self.fork("d", "b", 9, 1, body=b"8")
        self.assertEqual(await self.content("c"), b'1,"a,[b",7,')
        self.assertEqual(await self.content("d"), b'1,"a,[b",5,8,')

    async def test_an_empty_stream_can_be_forked(self) -> None:
        await self.create("a")
        await self.fork("b", "a")
        await self.fork("c", "b", 0, body=b"x")
        await self.append("b", b"y")
        self.assertEqual((await self.content("b"), await self.content("c")), (b"y", b"x"))

    async def test_a_fork_inherits_no_writers(self) -> None:
        await self.create("a")
        for seq in range(3):
            await self.append("a", b"x", writer=Writer("w", 4, seq))
        await self.fork("b", "a")
        await self.refused(WriterGap, self.append("b", b"y", writer=Writer("w", 4, 3)))
        for seq in range(2):
            appended = await self.append("b", b"y", writer=Writer("w", 0, seq))
            self.assertEqual((appended.duplicate, appended.tail), (False, 4 + seq))
        self.assertFalse((await self.append("a", b"x", writer=Writer("w", 4, 3))).duplicate)

    async def test_a_fork_inherits_no_stream_seq(self) -> None:
        await self.create("a")
        await self.append("a", b"x", sequence=b"5")
        await self.fork("b", "a")
        self.assertEqual((await self.append("b", b"y", sequence=b"1")).tail, 2)
        await self.refused(SequenceConflict, self.append("a", b"x", sequence=b"5"))

    async def test_a_forks_lifetime_is_its_own_or_its_sources(self) -> None:
        ttl, other_ttl = Lifetime(ttl=60), Lifetime(ttl=90)
        expires, other_expires = Lifetime(expires_at=T0 + 60), Lifetime(expires_at=T0 + 90)
        table = [
            (FOREVER, FOREVER, FOREVER),
            (FOREVER, ttl, ttl),
            (FOREVER, expires, expires),
            (ttl, FOREVER, ttl),
            (ttl, other_ttl, other_ttl),
            (ttl, other_expires, other_expires),
            (expires, FOREVER, expires),
            (expires, other_ttl, other_ttl),
            (expires, other_expires, other_expires),
        ]
        for row, (of_source, asked, expected) in enumerate(table):
            await self.create(f"source-{row}", StreamConfig("text/plain", of_source))
            await self.create(f"fork-{row}", StreamConfig(None, asked, fork=Fork(f"source-{row}")))
            self.assertEqual((await self.status(f"fork-{row}")).lifetime, expected, f"row {row}")

    async def test_an_inherited_ttl_is_renewed_independently(self) -> None:
        await self.create("a", StreamConfig("text/plain", Lifetime(ttl=60)), b"hello")
        self.later(30)
        await self.fork("b", "a")
        self.later(40)
        await self.assert_hidden("a")
        await self.append("b", b"!")
        self.later(59)
        self.assertEqual(await self.content("b"), b"hello!")
        self.later(1)
        await self.assert_absent("b")

    async def test_reading_a_fork_does_not_renew_its_sources_ttl(self) -> None:
        await self.create("a", StreamConfig("text/plain", Lifetime(ttl=60)), b"hello")
        await self.create("b", StreamConfig(None, Lifetime(ttl=1000), fork=Fork("a")))
        self.later(59)
        await self.read("b", renew=True)
        self.later(1)
        await self.assert_hidden("a")

    async def test_a_deleted_source_stays_for_its_forks(self) -> None:
        facts = (await self.source()).facts
        await self.fork("b", "a", 6, body=b"!")
        await self.append("a", b"hidden")
        await self.delete("a")
        await self.assert_hidden("a")
        await self.refused(StreamNotFound, self.range(facts, 0, 3))
        await self.assert_reads("b", [b"one", b"two", b"!"])
        self.assertEqual(await self.names(), ["b"])

    async def test_a_deleted_source_is_removed_with_its_last_fork(self) -> None:
        before = (await self.source()).facts
        await self.fork("b", "a")
        await self.fork("c", "a", 3)
        await self.delete("a")
        await self.delete("b")
        await self.assert_hidden("a")
        self.assertEqual(await self.content("c"), b"one")
        await self.delete("c")
        await self.assert_absent("a")
        again = await self.create("a")
        self.assertTrue(again.new)
        self.assertGreater(again.facts.incarnation, before.incarnation)

    async def test_a_source_that_was_not_deleted_outlives_its_forks(self) -> None:
        await self.source()
        await self.fork("b", "a")
        await self.delete("b")
        self.assertEqual(await self.content("a"), b"onetwothree")
        await self.delete("a")
        await self.assert_absent("a")

    async def test_a_chain_of_deleted_sources_is_removed_with_its_last_fork(self) -> None:
        for order in (("a", "b", "c"), ("b", "a", "c"), ("c", "a", "b"), ("b", "c", "a")):
            await self.create("a", body=b"a")
            await self.fork("b", "a", body=b"b")
            await self.fork("c", "b", body=b"c")
            await self.fork("d", "c", body=b"d")
            for name in order:
                await self.delete(name)
                await self.assert_hidden(name)
                self.assertEqual(await self.content("d"), b"abcd")
            await self.delete("d")
            for name in ("a", "b", "c", "d"):
                await self.assert_absent(name)

    async def test_removing_deleted_sources_stops_at_a_stream_that_has_forks(self) -> None:
        await self.create("a", body=b"a")
        await self.fork("b", "a", body=b"b")
        await self.fork("c", "b", body=b"c")
        await self.fork("x", "a", body=b"x")
        await self.delete("a")
        await self.delete("b")
        await self.delete("c")
        await self.assert_absent("b")
        await self.assert_hidden("a")
        self.assertEqual(await self.content("x"), b"ax")
        await self.delete("x")
        await self.assert_absent("a")

    async def test_a_rejected_fork_does_not_keep_its_deleted_source(self) -> None:
        await self.take(total_bytes=25, stream_bytes=12, streams=4)
        await self.create("b", JSON)
        await self.create("j", JSON, b"[1,2]")
        await self.create("a", body=b"hello")
        await self.refused(ContentTypeMismatch, self.create("c", StreamConfig("image/png", fork=Fork("a"))))
        await self.refused(InvalidRequest, self.fork("c", "a", 6))
        await self.refused(InvalidRequest, self.fork("c", "a", 0, 6))
        await self.refused(InvalidRequest, self.fork("c", "j", 1))
        await self.refused(InvalidJson, self.fork("c", "j", body=b"nonsense"))
        await self.refused(StreamExists, self.fork("b", "a"))
        await self.refused(StreamFull, self.fork("c", "a", body=b"x" * 13))
        await self.refused(StorageFull, self.fork("c", "a", body=b"x" * 17))
        await self.create("d")
        await self.refused(InsufficientStorage, self.fork("c", "a"))
        for name in ("a", "j"):
            await self.delete(name)
            await self.assert_absent(name)

    async def test_creating_an_existing_fork_does_not_count_as_another_fork(self) -> None:
        await self.source()
        self.assertTrue((await self.fork("b", "a")).new)
        self.assertFalse((await self.fork("b", "a")).new)
        await self.delete("a")
        await self.delete("b")
        await self.assert_absent("a")

    async def assert_found(self, config: StreamConfig) -> None:
        """Assert that creating ``b`` with this configuration returns the existing fork unchanged."""
        before = await self.everything()
        self.assertFalse((await self.create("b", config, b"not looked at")).new)
        self.assertEqual(await self.everything(), before)

    async def test_creating_an_existing_fork_without_offset_returns_it(self) -> None:
        await self.source()
        asked = self.forking("a")
        await self.create("b", asked, b"own")
        await self.assert_found(asked)
        await self.append("a", b"more")
        await self.assert_found(asked)
        await self.append("b", b"more of its own")
        await self.assert_found(asked)
        await self.delete("a")
        await self.assert_found(asked)

    async def test_creating_an_existing_fork_with_its_offset_returns_it(self) -> None:
        await self.source()
        asked = self.forking("a", 3, 2)
        await self.create("b", asked)
        await self.assert_found(asked)
        await self.append("a", b"more")
        await self.assert_found(asked)
        await self.delete("a")
        await self.assert_found(asked)

    async def test_a_fork_made_at_the_tail_is_the_same_as_one_with_that_offset(self) -> None:
        await self.source()
        await self.create("b", self.forking("a"))
        asked = self.forking("a", 11)
        await self.assert_found(asked)
        await self.append("a", b"more")
        await self.assert_found(asked)
        await self.delete("a")
        await self.assert_found(asked)

    async def test_creating_an_existing_fork_with_its_sources_type_and_lifetime_returns_it(self) -> None:
        await self.create("a", StreamConfig("text/plain", Lifetime(ttl=60)))
        await self.create("b", self.forking("a"))
        await self.assert_found(StreamConfig("text/plain", fork=Fork("a")))
        await self.assert_found(StreamConfig(None, Lifetime(ttl=60), fork=Fork("a")))

    async def test_creating_a_fork_with_another_configuration_is_a_conflict(self) -> None:
        await self.source()
        await self.create("x", body=b"onetwothree")
        await self.create("c", self.forking("a"))
        await self.refused(StreamExists, self.create("c", self.forking("x")))
        await self.create("b", self.forking("a", 3, 1))
        for asked in (
            self.forking("a", 3),
            self.forking("a", 6, 1),
            self.forking("a", 3, 2),
            self.forking("a", 3, 4),
            self.forking("a", 99),
            self.forking("x", 3, 1),
            self.forking("missing"),
            StreamConfig("application/json", fork=Fork("a", self.at("a", 3), 1)),
            StreamConfig(None, Lifetime(ttl=60), fork=Fork("a", self.at("a", 3), 1)),
            StreamConfig(closed=True, fork=Fork("a", self.at("a", 3), 1)),
            TEXT,
        ):
            await self.refused(StreamExists, self.create("b", asked))

    async def test_a_recreated_fork_has_a_new_id(self) -> None:
        await self.source()
        first = (await self.fork("b", "a", 3, body=b"first")).facts
        await self.append("b", b"x", sequence=b"5", writer=Writer("w", 3, 0))
        await self.delete("b")
        second = await self.fork("b", "a", 6, body=b"second")
        self.assertNotEqual(second.facts.id, first.id)
        await self.refused(StreamNotFound, self.range(first, 0, 3))
        appended = await self.append("b", b"y", sequence=b"1", writer=Writer("w", 0, 0))
        self.assertFalse(appended.duplicate)
        self.assertEqual(await self.content("b"), b"onetwosecondy")
