"""Reads the latest checkpoint, when a data directory is opened or checked."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from . import checkpoint as checkpoints
from .checkpoint import CheckpointEnd, CheckpointEntry, MoreWriters
from .frames import CLOSING, ENTRIES, HEADER_SIZE, VALUES, WRITERS, padded
from .rebuilding import StreamBuilder
from .recovery import broken_frame, segment_numbers, whole_frames
from .report import Report, some

#: The LSN of a change that is later than any.
ANY_CHANGE: Final = 1 << 62

_entries: Final = msgspec.msgpack.Decoder(list[CheckpointEntry])
_writers: Final = msgspec.msgpack.Decoder(MoreWriters)
_values: Final = msgspec.msgpack.Decoder(dict[str, bytes])
_closing: Final = msgspec.msgpack.Decoder(CheckpointEnd)


def read_checkpoint(report: Report, builder: StreamBuilder) -> CheckpointEnd:
    """Read the latest checkpoint, as far as it can be read, and return how it ends."""
    number = checkpoints.latest(report.disk)
    if number is None:
        return CheckpointEnd(0, 0, 1, 0, {})
    path = checkpoints.path_of(number)
    damaged = report.damaged
    data = report.whole(path)
    end = count = 0
    closing: CheckpointEnd | None = None
    for position, header, payload in whole_frames(data, number):
        count += _tell_broken_entries(report, builder, path, data, end, position)
        end = position + padded(HEADER_SIZE + header.size)
        report.counts.frames += 1
        try:
            if header.magic == ENTRIES:
                for held in _entries.decode(payload):
                    builder.add_entry(held)
                    count += 1
            elif header.magic == WRITERS:
                builder.add_writers(_writers.decode(payload), f"{path} at {position}")
            elif header.magic == VALUES:
                builder.values.update(_values.decode(payload))
            elif header.magic == CLOSING:
                closing = _closing.decode(payload)
                break
        except ValueError as error:
            report.damage(f"{path} at {position}", f"The entry cannot be decoded: {error}.")
    if closing is None:
        count += _tell_broken_entries(report, builder, path, data, end, len(data))
        report.damage(
            path,
            f"The end of the checkpoint is missing. {count} streams can be read; there may have been more.",
        )
    else:
        if closing.streams != count:
            report.damage(path, f"{count} of the checkpoint's {closing.streams} streams can be read.")
        if closing.values != len(builder.values):
            report.damage(path, f"{len(builder.values)} of the checkpoint's {closing.values} values can be read.")
        builder.known = max(builder.known, closing.values_lsn)
    if report.damaged > damaged:
        builder.complete = False
    if closing is None:
        # Whatever the journal begins with has to do.
        closing = CheckpointEnd(count, min(segment_numbers(report.disk), default=0), ANY_CHANGE, 0, {})
    return closing


def _tell_broken_entries(
    report: Report, builder: StreamBuilder, path: str, data: bytes, position: int, end: int
) -> int:
    """Report damage between two positions; add what can be decoded, and return the number of streams in that."""
    count = 0
    while position < end:
        where = f"{path} at {position}"
        broken = broken_frame(data, position)
        entries: list[CheckpointEntry] = []
        values: dict[str, bytes] = {}
        with suppress(ValueError):
            if broken is not None and broken[0].magic == ENTRIES:
                entries = _entries.decode(broken[1])
            elif broken is not None and broken[0].magic == VALUES:
                values = _values.decode(broken[1])
        for held in entries:
            builder.add_entry(held)
        builder.values.update(values)
        concerns = "The streams concerned are unknown."
        if entries:
            concerns = f"It probably concerns {some([held.name for held in entries])}."
        elif values:
            concerns = f"It probably concerns the values {some(list(values))}."
        report.damage(where, f"The checkpoint is damaged there. {concerns}")
        if broken is None or not (entries or values):
            break
        count += len(entries)
        position += padded(HEADER_SIZE + broken[0].size)
    return count
