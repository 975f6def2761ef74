"""Contract: idempotent writers."""

from __future__ import annotations

from ...errors import (
    InvalidRequest,
    SequenceConflict,
    StreamClosed,
    WriterFenced,
    WriterGap,
)
from ...model import (
    Writer,
)
from ..values import WEEK
from .base import Contract


class WriterContract(Contract):
    """Tests of idempotent writers (PROTOCOL section 5.2.1)."""

    async def test_a_writers_first_append_is_accepted_and_recorded(self) -> None:
        await self.create()
        appended = await self.append(data=b"x", writer=Writer("w", 0, 0))
        assert appended.writer is not None
        self.assertEqual((appended.writer.epoch, appended.writer.seq), (0, 0))
        self.assertEqual((appended.tail, appended.duplicate), (1, False))

    async def test_a_new_writer_may_begin_with_any_epoch(self) -> None:
        await self.create()
        appended = await self.append(data=b"x", writer=Writer("w", 2**53 - 1, 0))
        assert appended.writer is not None
        self.assertEqual(appended.writer.epoch, 2**53 - 1)

    async def test_a_new_writer_must_begin_at_sequence_number_0(self) -> None:
        await self.create()
        error = await self.refused(WriterGap, self.append(data=b"x", writer=Writer("w", 0, 1)))
        self.assertEqual((error.expected, error.received), (0, 1))

    async def test_a_writers_sequence_numbers_are_consecutive(self) -> None:
        await self.create()
        for seq in range(5):
            appended = await self.append(data=b"%d" % seq, writer=Writer("w", 0, seq))
            assert appended.writer is not None
            self.assertEqual((appended.writer.seq, appended.tail), (seq, seq + 1))

    async def test_a_retry_writes_nothing_and_returns_the_last_sequence_number(self) -> None:
        facts = (await self.create()).facts
        for seq in range(3):
            await self.append(data=b"%d" % seq, writer=Writer("w", 4, seq))
        before = await self.everything()
        self.later(1)
        for seq in range(3):
            again = await self.append(data=b"again", writer=Writer("w", 4, seq))
            assert again.writer is not None
            self.assertEqual((again.facts, again.tail, again.closed, again.duplicate), (facts, 3, False, True))
            self.assertEqual((again.writer.epoch, again.writer.seq), (4, 2))
        self.assertEqual(await self.everything(), before)

    async def test_a_gap_in_a_writers_sequence_is_rejected(self) -> None:
        await self.create()
        await self.append(data=b"0", writer=Writer("w", 0, 0))
        error = await self.refused(WriterGap, self.append(data=b"2", writer=Writer("w", 0, 2)))
        self.assertEqual((error.expected, error.received), (1, 2))
        self.assertFalse((await self.append(data=b"1", writer=Writer("w", 0, 1))).duplicate)

    async def test_a_new_epoch_fences_the_old_one(self) -> None:
        await self.create()
        await self.append(data=b"a", writer=Writer("w", 0, 0))
        await self.append(data=b"b", writer=Writer("w", 5, 0))
        for seq in (0, 1):
            error = await self.refused(WriterFenced, self.append(data=b"c", writer=Writer("w", 0, seq)))
            self.assertEqual(error.epoch, 5)
        self.assertEqual((await self.append(data=b"c", writer=Writer("w", 5, 1))).tail, 3)

    async def test_a_new_epoch_must_begin_at_sequence_number_0(self) -> None:
        await self.create()
        await self.append(data=b"a", writer=Writer("w", 0, 0))
        await self.refused(InvalidRequest, self.append(data=b"b", writer=Writer("w", 1, 1)))
        self.assertFalse((await self.append(data=b"b", writer=Writer("w", 0, 1))).duplicate)

    async def test_writers_are_independent(self) -> None:
        await self.create("a")
        await self.create("b")
        await self.append("a", b"x", writer=Writer("v", 3, 0))
        self.assertFalse((await self.append("a", b"y", writer=Writer("w", 0, 0))).duplicate)
        self.assertFalse((await self.append("b", b"y", writer=Writer("v", 0, 0))).duplicate)

    async def test_a_retry_is_recognised_before_all_other_checks(self) -> None:
        await self.create()
        await self.append(data=b"x", sequence=b"5", writer=Writer("w", 0, 0))
        await self.append(data=b"y", sequence=b"6")
        again = await self.append(data=b"x", sequence=b"5", writer=Writer("w", 0, 0))
        self.assertEqual((again.duplicate, again.tail), (True, 2))
        await self.refused(SequenceConflict, self.append(data=b"z", sequence=b"6"))

    async def test_a_retry_of_a_close_is_recognised(self) -> None:
        for name, data in (("a", b""), ("b", b"last")):
            await self.create(name)
            await self.append(name, b"first", writer=Writer("w", 0, 0))
            closing = await self.append(name, data, close=True, writer=Writer("w", 0, 1))
            self.assertEqual((closing.closed, closing.duplicate), (True, False))
            again = await self.append(name, data, close=True, writer=Writer("w", 0, 1))
            self.assertEqual((again.closed, again.duplicate, again.tail), (True, True, closing.tail))

    async def test_a_writers_new_append_after_a_close_is_rejected(self) -> None:
        await self.create()
        await self.append(data=b"last", close=True, writer=Writer("w", 0, 0))
        for writer in (Writer("w", 0, 1), Writer("w", 1, 0), Writer("v", 0, 0)):
            await self.refused(StreamClosed, self.append(data=b"more", writer=writer))
            await self.refused(StreamClosed, self.append(close=True, writer=writer))

    async def test_a_writer_is_recorded_as_long_as_the_stream_exists(self) -> None:
        await self.create()
        await self.append(data=b"x", writer=Writer("w", 3, 0))
        await self.append(data=b"y", writer=Writer("w", 3, 1))
        self.later(100 * WEEK)
        await self.append(data=b"z")
        self.assertTrue((await self.append(data=b"y", writer=Writer("w", 3, 1))).duplicate)
        await self.refused(WriterFenced, self.append(data=b"x", writer=Writer("w", 2, 0)))
        self.assertEqual((await self.append(data=b"last", close=True, writer=Writer("w", 3, 2))).tail, 7)
        self.later(100 * WEEK)
        self.assertTrue((await self.append(data=b"last", close=True, writer=Writer("w", 3, 2))).duplicate)
