"""The preconditions of an append (PROTOCOL section 5.2)."""

from __future__ import annotations

from ..errors import (
    ContentTypeMismatch,
    InvalidRequest,
    OffsetConflict,
    SequenceConflict,
    StreamClosed,
    WriterFenced,
    WriterGap,
)
from ..model import START, Append, Offset, StreamFacts, Writer, WriterState


def is_new(
    append: Append, facts: StreamFacts, tail: int, closed: bool, sequence: bytes | None, known: WriterState | None
) -> bool:
    """
    Return whether an append is new, or raise why it is rejected.

    A writer's retry is recognised before all other checks, so that it succeeds even if the stream was closed meanwhile.

    :param sequence: the Stream-Seq of the last append that had one; its scope is the stream.
    :param known: the recorded state of the append's writer; None if there is none.
    :returns: True if the append must be written, False if it was written before.
    :raises WriterFenced: the writer's epoch is older than the recorded one.
    :raises StreamClosed: the stream is closed.
    :raises OffsetConflict: the expected offset is not the tail.
    :raises ContentTypeMismatch: the data's content type is not the stream's.
    :raises InvalidRequest: a recorded writer's new epoch does not begin at sequence number 0.
    :raises WriterGap: the writer's sequence number is not the next one; for an unknown writer, not 0.
    :raises SequenceConflict: Stream-Seq is not greater than that of the last append.
    """
    writer = append.writer
    if writer is not None and known is not None and _is_retry(writer, known, facts.name):
        return False
    if closed:
        if append.close and not append.data and writer is None:
            return False
        raise StreamClosed(facts.name, facts.incarnation, tail)
    if append.expected is not None and not _is_tail(append.expected, facts, tail):
        raise OffsetConflict(facts.name, facts.incarnation, tail)
    if append.data and append.media_type != facts.media_type:
        raise ContentTypeMismatch(facts.name, facts.media_type, append.media_type or "without a type")
    if writer is not None:
        _check_order(writer, known, facts.name)
    if append.sequence is not None and sequence is not None and append.sequence <= sequence:
        raise SequenceConflict(facts.name, facts.incarnation, tail)
    return True


def _is_tail(expected: Offset, facts: StreamFacts, tail: int) -> bool:
    if expected == START:
        return tail == 0
    return expected.incarnation == facts.incarnation and expected.position == tail


def _is_retry(writer: Writer, known: WriterState, name: str) -> bool:
    if writer.epoch < known.epoch:
        raise WriterFenced(name, known.epoch)
    return writer.epoch == known.epoch and writer.seq <= known.seq


def _check_order(writer: Writer, known: WriterState | None, name: str) -> None:
    if known is not None and writer.epoch == known.epoch:
        if writer.seq != known.seq + 1:
            raise WriterGap(name, known.seq + 1, writer.seq)
    elif writer.seq != 0:
        if known is None:
            raise WriterGap(name, 0, writer.seq)
        raise InvalidRequest("A new Producer-Epoch must begin with Producer-Seq 0.")
