"""What acks do to cursors."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InvalidOffset
from ..model import NOW, START, Offset
from ..protocol.offsets import parse_offset
from .decisions import View
from .errors import InvalidAckOffset
from .model import ABSENT, Ack, Link, Snapshot, SnapshotEntry, StreamTail


def acknowledged(view: View, acks: Iterable[Ack], snapshot: Snapshot | None) -> bool:
    """
    Move cursors as acks say. Return whether one has moved.

    A stream of the wake's snapshot that was deleted or unlinked since is skipped: the worker could never finish
    otherwise.

    :raises InvalidAckOffset: an ack is invalid; ``view`` is of no use any more.
    """
    entries = {entry.path: entry for entry in snapshot.entries} if snapshot is not None else {}
    moved = False
    for ack in acks:
        offset = _parsed(ack)
        link, tail, entry = view.link(ack.path), view.tail(ack.path), entries.get(ack.path)
        if _is_past(entry, link, tail, offset):
            continue
        if link is None:
            raise InvalidAckOffset(
                ack.path, f"The stream {ack.path[:256]} is not linked. Acknowledge linked streams only."
            )
        if tail is None:
            raise InvalidAckOffset(ack.path, f"There is no stream {ack.path}. Leave it out of the acks.")
        moved = _advance(view, ack, link, tail, offset) or moved
    return moved


def _parsed(ack: Ack) -> Offset:
    """
    Return the offset of an ack.

    :raises InvalidAckOffset: it is malformed, or ``-1`` or ``now``.
    """
    try:
        offset = parse_offset(ack.offset)
    except InvalidOffset:
        offset = NOW
    if offset == NOW or ack.offset == ABSENT:
        raise InvalidAckOffset(
            ack.path,
            f"The offset of {ack.path[:256]} is no place in a stream. Send a Stream-Next-Offset or a tail_offset.",
        )
    return offset


def _is_past(entry: SnapshotEntry | None, link: Link | None, tail: StreamTail | None, offset: Offset) -> bool:
    """Return whether an ack is for a stream of the snapshot that was deleted, unlinked or created again since."""
    if entry is None:
        return False
    if link is None or tail is None:
        return True
    if entry.stream_id is None or entry.stream_id == tail.stream_id:
        return False
    return offset.incarnation == entry.incarnation


def _advance(view: View, ack: Ack, link: Link, tail: StreamTail, offset: Offset) -> bool:
    """
    Move one cursor. Return whether it has moved.

    :raises InvalidAckOffset: the offset is of another stream, before the cursor or after the tail.
    """
    if offset.incarnation != tail.incarnation and offset != START:
        raise InvalidAckOffset(ack.path, f"The offset {ack.offset} is not one of the stream {ack.path}.")
    cursor = link.cursor(tail)
    if offset.position < cursor:
        raise InvalidAckOffset(
            ack.path, f"The offset {ack.offset} of {ack.path} is before its cursor, {link.acked_offset(tail)}."
        )
    if offset.position > tail.position:
        raise InvalidAckOffset(ack.path, f"The offset {ack.offset} of {ack.path} is after its tail, {tail.offset}.")
    if offset.position == cursor:
        return False
    view.put(ack.path, Link(link.explicit, tail.stream_id, tail.incarnation, offset.position))
    return True


def moved_to_tails(view: View, snapshot: Snapshot) -> bool:
    """Move the cursors of a snapshot's streams up to the tails that were sent. Return whether one has moved."""
    moved = False
    for entry in snapshot.entries:
        link, tail = view.link(entry.path), view.tail(entry.path)
        if link is None or tail is None or tail.stream_id != entry.stream_id:
            continue
        if link.stream_id == entry.stream_id and entry.tail > link.position:
            view.put(entry.path, Link(link.explicit, tail.stream_id, tail.incarnation, entry.tail))
            moved = True
    return moved
