"""Contract: appends."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredList, ensureDeferred

from ...errors import (
    ContentTypeMismatch,
    OffsetConflict,
    SequenceConflict,
    StorageFull,
    StreamClosed,
    StreamFull,
    StreamNotFound,
    WriterGap,
)
from ...model import (
    START,
    Append,
    Appended,
    Offset,
    Writer,
)
from ..values import JSON, OCTETS, settled
from .base import Contract


class AppendContract(Contract):
    """Tests of appending and closing (PROTOCOL sections 5.2 and 5.3)."""

    async def test_an_append_moves_the_tail(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        self.assertEqual(await self.append(data=b" world"), Appended(facts, 11, closed=False))
        self.assertEqual(await self.content(), b"hello world")

    async def test_appends_keep_their_order(self) -> None:
        await self.create()
        for number in range(100):
            await self.append(data=b"%d " % number)
        self.assertEqual(await self.content(), b"".join(b"%d " % number for number in range(100)))

    async def test_every_byte_value_is_read_as_it_was_appended(self) -> None:
        data = bytes(range(256)) * 4096
        await self.create(config=OCTETS)
        self.assertEqual((await self.append(data=data, media_type="application/octet-stream")).tail, len(data))
        self.assertEqual(await self.content(), data)

    async def test_json_data_is_kept_in_its_wire_form(self) -> None:
        await self.create(config=JSON, body=b"1")
        await self.append(data=b'{"a":[1,2]},"x",', media_type="application/json")
        self.assertEqual(await self.content(), b'1,{"a":[1,2]},"x",')

    async def test_streams_do_not_share_appends(self) -> None:
        await self.create("a")
        await self.create("b")
        await self.append("a", b"to a")
        self.assertEqual((await self.content("a"), await self.content("b")), (b"to a", b""))

    async def test_an_append_to_a_missing_stream_is_not_found(self) -> None:
        error = await self.refused(StreamNotFound, self.append("missing", b"x"))
        self.assertEqual(error.name, "missing")
        await self.refused(StreamNotFound, self.append("missing", close=True))

    async def test_data_of_another_content_type_is_rejected(self) -> None:
        await self.create()
        error = await self.refused(ContentTypeMismatch, self.append(data=b"1,", media_type="application/json"))
        self.assertEqual((error.expected, error.received), ("text/plain", "application/json"))
        await self.refused(ContentTypeMismatch, self.append(data=b"1", media_type=None))

    async def append_as(self, append: Append) -> Appended:
        """Append to the stream ``a``."""
        return await settled(self.storage.append("a", append, self.now))

    async def test_an_append_that_expects_another_tail_is_rejected_and_changes_nothing(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        tail = Offset(facts.incarnation, 5)
        writer = Writer("w", 0, 0)
        expecting = Append("text/plain", b" world", writer=writer, expected=tail)
        self.assertEqual((await self.append_as(expecting)).tail, 11)
        for expected in (tail, START, Offset(facts.incarnation, 12), Offset(facts.incarnation - 1, 11)):
            append = Append("text/plain", b"!", close=True, sequence=b"1", expected=expected)
            error = await self.refused(OffsetConflict, self.append_as(append))
            self.assertEqual((error.incarnation, error.tail), (facts.incarnation, 11))
        self.assertTrue((await self.append_as(expecting)).duplicate)
        self.assertEqual(await self.content(), b"hello world")
        await self.append(close=True)
        late = Append("text/plain", b"!", expected=Offset(facts.incarnation, 5))
        await self.refused(StreamClosed, self.append_as(late))

    async def test_one_of_several_appends_that_expect_the_same_tail_is_accepted(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        append = Append("text/plain", b"!", expected=Offset(facts.incarnation, 5))
        outcomes = await DeferredList([ensureDeferred(self.append_as(append)) for _ in range(5)], consumeErrors=True)
        self.assertEqual([success for success, _ in outcomes], [True, False, False, False, False])
        self.assertEqual(await self.content(), b"hello!")

    async def test_a_stream_is_closed_without_data(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        self.assertEqual(await self.append(close=True), Appended(facts, 5, closed=True))
        chunk = await self.read()
        self.assertEqual((chunk.data, chunk.closed), (b"hello", True))

    async def test_the_type_of_a_close_without_data_does_not_matter(self) -> None:
        await self.create()
        close = Append("image/png", b"", close=True)
        self.assertTrue((await settled(self.storage.append("a", close, self.now))).closed)

    async def test_data_and_close_can_be_one_append(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        self.assertEqual(await self.append(data=b" world", close=True), Appended(facts, 11, closed=True))
        chunk = await self.read()
        self.assertEqual((chunk.data, chunk.closed), (b"hello world", True))

    async def test_a_closed_stream_rejects_appends(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        await self.append(close=True)
        for close in (False, True):
            error = await self.refused(StreamClosed, self.append(data=b"more", close=close))
            self.assertEqual((error.name, error.incarnation, error.tail), ("a", facts.incarnation, 5))

    async def test_closing_a_closed_stream_succeeds(self) -> None:
        facts = (await self.create(body=b"hello")).facts
        await self.append(close=True)
        before = await self.everything()
        self.later(1)
        self.assertEqual(await self.append(close=True), Appended(facts, 5, closed=True, duplicate=True))
        self.assertEqual(await self.everything(), before)

    async def test_stream_closed_precedes_all_other_conflicts(self) -> None:
        await self.create()
        await self.append(data=b"x", close=True, sequence=b"5", writer=Writer("w", 0, 0))
        await self.refused(StreamClosed, self.append(data=b"1,", media_type="application/json"))
        await self.refused(StreamClosed, self.append(data=b"y", sequence=b"1"))
        await self.refused(StreamClosed, self.append(data=b"y", writer=Writer("w", 0, 7)))
        await self.refused(StreamClosed, self.append(data=b"y", writer=Writer("new", 0, 0)))

    async def test_content_type_mismatch_precedes_sequence_conflicts(self) -> None:
        await self.create()
        await self.append(data=b"x", sequence=b"5", writer=Writer("w", 0, 0))
        wrong: dict[str, Any] = {"data": b"1,", "media_type": "application/json"}
        await self.refused(ContentTypeMismatch, self.append(sequence=b"1", **wrong))
        await self.refused(ContentTypeMismatch, self.append(writer=Writer("w", 0, 7), **wrong))

    async def test_a_writer_gap_precedes_a_stream_seq_conflict(self) -> None:
        await self.create()
        await self.append(data=b"x", sequence=b"5")
        await self.refused(WriterGap, self.append(data=b"y", sequence=b"1", writer=Writer("w", 0, 7)))

    async def test_stream_seq_must_grow(self) -> None:
        await self.create()
        await self.append(data=b"x", sequence=b"2")
        await self.refused(SequenceConflict, self.append(data=b"y", sequence=b"2"))
        await self.refused(SequenceConflict, self.append(data=b"y", sequence=b"1"))
        self.assertEqual((await self.append(data=b"y", sequence=b"3")).tail, 2)

    async def test_stream_seq_is_compared_byte_by_byte(self) -> None:
        await self.create()
        for sequence in (b"", b"10", b"9", b"A", b"a", b"aa", b"b", b"\xc3\xa4", b"\xff"):
            await self.append(data=b"x", sequence=sequence)
        for sequence in (b"", b"99", b"zz", b"\xc3\xa4", b"\xff"):
            await self.refused(SequenceConflict, self.append(data=b"y", sequence=sequence))
        self.assertEqual((await self.append(data=b"y", sequence=b"\xff\x00")).tail, 10)

    async def test_an_append_without_stream_seq_keeps_the_last_stream_seq(self) -> None:
        await self.create()
        await self.append(data=b"x", sequence=b"5")
        await self.append(data=b"x")
        await self.refused(SequenceConflict, self.append(data=b"y", sequence=b"5"))

    async def test_the_scope_of_stream_seq_is_the_stream_not_the_writer(self) -> None:
        await self.create("a")
        await self.create("b")
        await self.append("a", b"x", sequence=b"5", writer=Writer("v", 0, 0))
        await self.refused(SequenceConflict, self.append("a", b"y", sequence=b"5", writer=Writer("w", 0, 0)))
        self.assertEqual((await self.append("b", b"y", sequence=b"5")).tail, 1)

    async def test_stream_seq_is_checked_for_a_close(self) -> None:
        await self.create()
        await self.append(data=b"x", sequence=b"5")
        await self.refused(SequenceConflict, self.append(close=True, sequence=b"5"))
        self.assertTrue((await self.append(close=True, sequence=b"6")).closed)

    async def test_a_rejected_append_does_not_change_stream_seq(self) -> None:
        await self.take(stream_bytes=10)
        await self.create()
        await self.append(data=b"x", sequence=b"1")
        await self.refused(ContentTypeMismatch, self.append(data=b"1,", sequence=b"5", media_type="application/json"))
        await self.refused(WriterGap, self.append(data=b"y", sequence=b"5", writer=Writer("w", 0, 3)))
        await self.refused(StreamFull, self.append(data=b"y" * 10, sequence=b"5"))
        self.assertEqual((await self.append(data=b"y", sequence=b"2")).tail, 2)

    async def test_a_rejected_append_does_not_change_the_writers_state(self) -> None:
        await self.take(stream_bytes=10)
        await self.create()
        await self.append(data=b"x", sequence=b"5", writer=Writer("w", 0, 0))
        second = Writer("w", 0, 1)
        await self.refused(ContentTypeMismatch, self.append(data=b"1,", writer=second, media_type="application/json"))
        await self.refused(SequenceConflict, self.append(data=b"y", sequence=b"4", writer=second))
        await self.refused(StreamFull, self.append(data=b"y" * 10, writer=second))
        await self.refused(StreamFull, self.append(data=b"y" * 10, writer=Writer("w", 1, 0)))
        await self.refused(StreamFull, self.append(data=b"y" * 10, writer=Writer("v", 3, 0)))
        appended = await self.append(data=b"y", writer=second)
        self.assertEqual((appended.duplicate, appended.tail), (False, 2))
        self.assertFalse((await self.append(data=b"z", writer=Writer("v", 0, 0))).duplicate)

    async def test_a_rejected_append_does_not_close_the_stream(self) -> None:
        await self.take(stream_bytes=10)
        await self.create()
        await self.append(data=b"x", sequence=b"5")
        await self.refused(StreamFull, self.append(data=b"y" * 10, close=True))
        await self.refused(SequenceConflict, self.append(data=b"y", close=True, sequence=b"1"))
        await self.refused(WriterGap, self.append(data=b"y", close=True, writer=Writer("w", 0, 3)))
        await self.refused(ContentTypeMismatch, self.append(data=b"1,", close=True, media_type="application/json"))
        self.assertEqual((await self.append(data=b"y")).closed, False)

    async def test_a_rejected_append_does_not_count_towards_the_limits(self) -> None:
        await self.take(total_bytes=10)
        await self.create()
        await self.append(data=b"x", sequence=b"5")
        for _ in range(5):
            await self.refused(SequenceConflict, self.append(data=b"yyyyy", sequence=b"1"))
            await self.refused(WriterGap, self.append(data=b"yyyyy", writer=Writer("w", 0, 3)))
            await self.refused(StorageFull, self.append(data=b"y" * 10))
        self.assertEqual((await self.append(data=b"y" * 9)).tail, 10)
