"""A check of a data directory: all that is in it is read and compared with its checksums, and nothing is changed.

Opening stops at the first thing that is wrong. This goes on, with what is left, until all has been looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ..disk import Disk
from ..findings import Counts, Finding
from ..ownership import StorageDamaged
from . import checkpoint as checkpoints
from .checking_journal import Past
from .checking_places import check_packs, check_stream, check_unknown
from .checkpoint import CheckpointEntry, Closing, MoreWriters
from .frames import CLOSING, ENTRIES, HEADER_SIZE, WRITERS, padded
from .opening import SET_ASIDE, Opened, load, superseded, unexplained
from .recovery import Replayed, segment_numbers
from .survey import Report, Survey, broken_frame, some, whole_frames

#: The number of a change that is later than any.
_ANY_CHANGE: Final = 1 << 62

_entries: Final = msgspec.msgpack.Decoder(list[CheckpointEntry])
_writers: Final = msgspec.msgpack.Decoder(MoreWriters)
_closing: Final = msgspec.msgpack.Decoder(Closing)


def check_files(
    disk: Disk, found: Callable[[Finding], None], looked_at: Callable[[int], None] = lambda _: None
) -> Counts:
    """
    Look at all streams of a file storage that nobody has open.

    :param found: is told what is wrong, or noteworthy, one thing after the other.
    :param looked_at: is told how many more bytes were read.
    :returns: the streams that there are, their appends and bytes, and the frames that were whole.
    :raises PermissionError: something may not be read.
    """
    report = Report(disk, found, looked_at)
    catalogue = Survey(report)
    closing = _check_checkpoint(report, catalogue)
    past = Past(report, catalogue, closing)
    past.check()
    streams = catalogue.finish()
    check_packs(report, streams, closing.packs)
    for stream in streams:
        check_stream(report, stream)
    if not catalogue.complete:
        check_unknown(report, streams)
    opened = Opened(
        streams,
        catalogue.last_id,
        past.last,
        0,
        checkpoints.latest(disk) or 0,
        closing.packs,
        catalogue.purged,
        Replayed(past.last, unused=past.unused),
        closing.segment,
    )
    if catalogue.complete:
        _note_leftovers(report, opened)
    if not report.damaged:
        try:
            load(disk, 0.0)
        except StorageDamaged as error:
            report.damage("the directory", str(error))
    return report.counts


def _check_checkpoint(report: Report, catalogue: Survey) -> Closing:
    """Read the latest checkpoint, as much of it as can be read, and say how it ends."""
    number = checkpoints.latest(report.disk)
    if number is None:
        return Closing(0, 0, 1, 0, {})
    path = checkpoints.path_of(number)
    damaged = report.damaged
    data = report.whole(path)
    end = count = 0
    closing: Closing | None = None
    for position, header, payload in whole_frames(data, number):
        count += _tell_broken_entries(report, catalogue, path, data, end, position)
        end = position + padded(HEADER_SIZE + header.size)
        report.counts.frames += 1
        try:
            if header.magic == ENTRIES:
                for held in _entries.decode(payload):
                    catalogue.hold(held)
                    count += 1
            elif header.magic == WRITERS:
                catalogue.hold_writers(_writers.decode(payload))
            elif header.magic == CLOSING:
                closing = _closing.decode(payload)
        except ValueError as error:
            report.damage(f"{path} at {position}", f"What is written there can't be understood: {error}.")
    if closing is None:
        count += _tell_broken_entries(report, catalogue, path, data, end, len(data))
        report.damage(
            path,
            f"The checkpoint has lost its end. It has {count} streams that can be read; there may have been more.",
        )
    elif closing.streams != count:
        report.damage(path, f"The checkpoint has {count} streams that can be read, and had {closing.streams}.")
    if report.damaged > damaged:
        catalogue.complete = False
    if closing is None:
        # Whatever the journal begins with has to do.
        closing = Closing(count, min(segment_numbers(report.disk), default=0), _ANY_CHANGE, 0, {})
    return closing


def _tell_broken_entries(report: Report, catalogue: Survey, path: str, data: bytes, position: int, end: int) -> int:
    """Tell of what is not whole between two positions, take what it seems to say, and say how many streams that is."""
    count = 0
    while position < end:
        where = f"{path} at {position}"
        broken = broken_frame(data, position)
        try:
            entries = [] if broken is None or broken[0].magic != ENTRIES else _entries.decode(broken[1])
            for held in entries:
                catalogue.hold(held)
        except ValueError:
            entries = []
        concerns = "Which streams it tells of can't be said."
        if entries:
            concerns = f"It seems to tell of {some([held.name for held in entries])}."
        report.damage(where, f"What the checkpoint has there is not as it was written. {concerns}")
        if broken is None or not entries:
            break
        count += len(entries)
        position += padded(HEADER_SIZE + broken[0].size)
    return count


def _note_leftovers(report: Report, opened: Opened) -> None:
    old = list(dict.fromkeys(superseded(report.disk, opened)))
    for path in old:
        report.note(path, "The file is not needed any more.", "The server removes it when it is started.")
    for path in unexplained(report.disk, opened):
        if path not in old:
            report.note(
                path,
                "It does not belong to this data directory as far as it can be told.",
                f"Look whether you need it. The server moves it to {SET_ASIDE} when it is started.",
            )
    for name in report.disk.names(SET_ASIDE):
        report.note(
            f"{SET_ASIDE}/{name}", "It was set aside at a start.", "Look whether you need it, and remove it if not."
        )
