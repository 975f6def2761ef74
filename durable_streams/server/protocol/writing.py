"""Which appends a stream takes (PROTOCOL section 5.2)."""

from __future__ import annotations

from ..errors import (
    ContentTypeMismatch,
    InvalidRequest,
    SequenceConflict,
    StreamClosed,
    WriterFenced,
    WriterGap,
)
from ..model import Append, StreamFacts, Writer, WriterState


def is_new(
    append: Append, facts: StreamFacts, tail: int, closed: bool, sequence: bytes | None, known: WriterState | None
) -> bool:
    """
    Judge an append by all that the stream knows.

    A writer's retry is recognised before anything else about the stream is looked at, so that it is told the truth
    even if the stream was closed meanwhile.

    :param sequence: the Stream-Seq of the last append that had one. Its scope is the stream.
    :param known: what the stream remembers of the append's writer.
    :returns: True for an append to carry out, False for one that is done already.
    :raises WriterFenced: the writer's epoch is stale.
    :raises StreamClosed: the stream takes no more.
    :raises ContentTypeMismatch: the data has another type.
    :raises InvalidRequest: a new epoch, or a new writer, does not begin at 0.
    :raises WriterGap: the sequence number leaves some out.
    :raises SequenceConflict: Stream-Seq is not greater than the last.
    """
    writer = append.writer
    if writer is not None and known is not None and _is_retry(writer, known, facts.name):
        return False
    if closed:
        if append.close and not append.data and writer is None:
            return False
        raise StreamClosed(facts.name, facts.incarnation, tail)
    if append.data and append.media_type != facts.media_type:
        raise ContentTypeMismatch(facts.name, facts.media_type, append.media_type or "without a type")
    if writer is not None:
        _check_order(writer, known, facts.name)
    if append.sequence is not None and sequence is not None and append.sequence <= sequence:
        raise SequenceConflict(facts.name)
    return True


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
