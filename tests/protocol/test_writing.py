from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import (
    ContentTypeMismatch,
    InvalidRequest,
    SequenceConflict,
    StreamClosed,
    StreamsError,
    WriterFenced,
    WriterGap,
)
from durable_streams.server.model import Append, Writer, WriterState
from durable_streams.server.protocol.writing import is_new

from .samples import examples, facts

STREAM = facts("text/plain")


@dataclass
class Stream:
    """The state of a stream between appends, updated as a storage does."""

    closed: bool = False
    sequence: bytes | None = None
    writers: dict[str, WriterState] = field(default_factory=dict)

    def take(self, append: Append) -> bool:
        writer = append.writer
        known = self.writers.get(writer.id) if writer is not None else None
        new = is_new(append, STREAM, 100, self.closed, self.sequence, known)
        if new:
            self.closed = self.closed or append.close
            self.sequence = append.sequence if append.sequence is not None else self.sequence
            if writer is not None:
                self.writers[writer.id] = WriterState(writer.epoch, writer.seq, 0.0)
        return new


class PlainTests(SynchronousTestCase):
    def refused(self, error: type[StreamsError], append: Append, **state: Any) -> Any:
        return self.assertRaises(error, Stream(**state).take, append)

    def test_data_of_the_streams_type_is_new(self) -> None:
        self.assertTrue(Stream().take(Append("text/plain", b"x")))

    def test_data_of_another_type_is_refused(self) -> None:
        error = self.refused(ContentTypeMismatch, Append("text/html", b"x"))
        self.assertEqual(("text/plain", "text/html"), (error.expected, error.received))
        self.refused(ContentTypeMismatch, Append(None, b"x"))

    def test_a_close_without_data_may_have_any_type(self) -> None:
        self.assertTrue(Stream().take(Append("text/html", b"", close=True)))
        self.assertTrue(Stream().take(Append(None, b"", close=True)))

    def test_an_append_to_a_closed_stream_is_rejected_with_its_final_offset(self) -> None:
        for append in (Append("text/plain", b"x"), Append("text/plain", b"x", close=True)):
            error = self.refused(StreamClosed, append, closed=True)
            self.assertEqual(("room/1", STREAM.incarnation, 100), (error.name, error.incarnation, error.tail))

    def test_closing_a_closed_stream_is_not_new(self) -> None:
        self.assertFalse(Stream(closed=True).take(Append(None, b"", close=True)))

    def test_stream_closed_precedes_all_other_errors(self) -> None:
        wrong = Append("text/html", b"x", sequence=b"a", writer=Writer("w", 0, 7))
        self.refused(StreamClosed, wrong, closed=True, sequence=b"b")

    def test_content_type_mismatch_precedes_sequence_conflicts(self) -> None:
        self.refused(ContentTypeMismatch, Append("text/html", b"x", sequence=b"a"), sequence=b"b")


class SequenceTests(SynchronousTestCase):
    def test_stream_seq_must_be_greater_byte_by_byte(self) -> None:
        for last, sent in ((b"1", b"2"), (b"10", b"2"), (b"a", b"aa"), (b"Z", b"a"), (b"", b"0"), (b"a\x7f", b"a\x80")):
            self.assertTrue(Stream(sequence=last).take(Append("text/plain", b"x", sequence=sent)))
            error = self.assertRaises(
                SequenceConflict, Stream(sequence=sent).take, Append("text/plain", b"x", sequence=last)
            )
            self.assertEqual("room/1", error.name)

    def test_an_equal_stream_seq_is_rejected(self) -> None:
        stream = Stream(sequence=b"5")
        self.assertRaises(SequenceConflict, stream.take, Append("text/plain", b"x", sequence=b"5"))

    def test_an_append_without_stream_seq_is_accepted_and_keeps_the_last_one(self) -> None:
        stream = Stream(sequence=b"5")
        self.assertTrue(stream.take(Append("text/plain", b"x")))
        self.assertRaises(SequenceConflict, stream.take, Append("text/plain", b"x", sequence=b"5"))

    def test_stream_seq_is_checked_for_a_close(self) -> None:
        self.assertRaises(SequenceConflict, Stream(sequence=b"5").take, Append(None, b"", close=True, sequence=b"4"))

    def test_stream_seq_is_checked_after_the_writers_sequence_number(self) -> None:
        stream = Stream(sequence=b"5")
        self.assertRaises(WriterGap, stream.take, Append("text/plain", b"x", sequence=b"4", writer=Writer("w", 0, 1)))
        self.assertRaises(
            SequenceConflict, stream.take, Append("text/plain", b"x", sequence=b"4", writer=Writer("w", 0, 0))
        )

    @examples(200)
    @given(st.lists(st.one_of(st.none(), st.binary(max_size=3)), max_size=12))
    def test_accepted_stream_seqs_increase(self, sequences: list[bytes | None]) -> None:
        stream = Stream()
        taken: list[bytes] = []
        for sequence in sequences:
            if sequence is not None and taken and not sequence > max(taken):
                self.assertRaises(SequenceConflict, stream.take, Append("text/plain", b"x", sequence=sequence))
            else:
                self.assertTrue(stream.take(Append("text/plain", b"x", sequence=sequence)))
                taken += [sequence] if sequence is not None else []
        self.assertEqual(sorted(set(taken)), taken)


class WriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stream = Stream(writers={"w": WriterState(3, 5, 0.0)})

    def take(self, epoch: int, seq: int, close: bool = False, data: bytes = b"x", writer: str = "w") -> bool:
        return self.stream.take(Append("text/plain", data, close=close, writer=Writer(writer, epoch, seq)))

    def test_the_next_sequence_number_is_new(self) -> None:
        self.assertTrue(self.take(3, 6))

    def test_the_last_sequence_number_and_earlier_ones_are_duplicates(self) -> None:
        for seq in (5, 4, 0):
            self.assertFalse(self.take(3, seq))

    def test_a_gap_is_rejected_with_the_expected_sequence_number(self) -> None:
        error = self.assertRaises(WriterGap, self.take, 3, 8)
        self.assertEqual(("room/1", 6, 8), (error.name, error.expected, error.received))

    def test_an_older_epoch_is_fenced_with_the_current_epoch(self) -> None:
        for seq in (0, 5, 6):
            error = self.assertRaises(WriterFenced, self.take, 2, seq)
            self.assertEqual(3, error.epoch)

    def test_a_newer_epoch_begins_at_0(self) -> None:
        self.assertRaises(InvalidRequest, self.take, 4, 1)
        self.assertTrue(self.take(9, 0))
        self.assertRaises(WriterFenced, self.take, 3, 6)

    def test_a_new_writer_begins_at_0_in_any_epoch(self) -> None:
        error = self.assertRaises(WriterGap, self.take, 7, 2, writer="other")
        self.assertEqual((0, 2), (error.expected, error.received))
        self.assertTrue(self.take(7, 0, writer="other"))

    def test_writers_are_independent(self) -> None:
        self.assertTrue(self.take(0, 0, writer="other"))
        self.assertTrue(self.take(3, 6))

    def test_only_the_retry_of_a_close_is_a_duplicate_on_a_closed_stream(self) -> None:
        self.assertTrue(self.take(3, 6, close=True))
        self.assertFalse(self.take(3, 6, close=True))
        self.assertRaises(StreamClosed, self.take, 3, 7)
        self.assertRaises(StreamClosed, self.take, 3, 7, close=True, data=b"")
        self.assertRaises(StreamClosed, self.take, 0, 0, writer="other")
        self.assertRaises(WriterFenced, self.take, 2, 0)

    def test_a_retry_is_recognised_before_all_other_checks(self) -> None:
        retry = Append("text/html", b"x", sequence=b"a", writer=Writer("w", 3, 5))
        stream = Stream(closed=True, sequence=b"b", writers=self.stream.writers)
        self.assertFalse(stream.take(retry))


@dataclass
class Model:
    """Section 5.2.1 of the protocol again, as its table of answers, and nothing of the code under test."""

    last: dict[str, tuple[int, int]] = field(default_factory=dict)
    closed: bool = False

    def answer(self, writer: str, epoch: int, seq: int, close: bool) -> str:
        known = self.last.get(writer)
        if known is not None:
            if epoch < known[0]:
                return f"403 {known[0]}"
            if epoch == known[0] and seq <= known[1]:
                return "204"
        if self.closed:
            return "409 closed"
        if known is None and seq != 0:
            return f"409 0 {seq}"
        if known is not None and epoch > known[0] and seq != 0:
            return "400"
        if known is not None and epoch == known[0] and seq > known[1] + 1:
            return f"409 {known[1] + 1} {seq}"
        self.last[writer] = (epoch, seq)
        self.closed = close
        return "200"


def _answered(stream: Stream, append: Append) -> str:
    try:
        return "200" if stream.take(append) else "204"
    except WriterFenced as error:
        return f"403 {error.epoch}"
    except WriterGap as error:
        return f"409 {error.expected} {error.received}"
    except StreamClosed:
        return "409 closed"
    except InvalidRequest:
        return "400"


class ModelTests(SynchronousTestCase):
    @examples(300)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from("ab"),
                st.integers(0, 2),
                st.integers(0, 4),
                st.integers(0, 9).map(lambda number: number == 0),
                st.sampled_from([b"x", b""]),
            ),
            max_size=40,
        )
    )
    def test_any_sequence_of_epochs_and_numbers_is_answered_as_the_protocol_says(
        self, attempts: list[tuple[str, int, int, bool, bytes]]
    ) -> None:
        stream, model = Stream(), Model()
        for writer, epoch, seq, close, data in attempts:
            append = Append("text/plain", b"x" if not close else data, close=close, writer=Writer(writer, epoch, seq))
            self.assertEqual(model.answer(writer, epoch, seq, close), _answered(stream, append))

    @examples(200)
    @given(st.lists(st.integers(0, 30), max_size=60), st.randoms())
    def test_each_sequence_number_is_written_once_and_in_order_with_retries(
        self, retries: list[int], order: Any
    ) -> None:
        stream = Stream()
        written: list[int] = []
        attempts = [*range(10), *retries]
        order.shuffle(attempts)
        for seq in [*attempts, *range(31)]:
            try:
                if stream.take(Append("text/plain", b"x", writer=Writer("w", 0, seq))):
                    written.append(seq)
            except WriterGap as error:
                self.assertEqual(len(written), error.expected)
        self.assertEqual(list(range(31)), written)
