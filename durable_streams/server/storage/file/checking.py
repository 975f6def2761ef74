"""Checks a data directory: everything in it is read and compared with its checksums, and nothing is changed.

It reads as a start does (:func:`.read_directory`), but goes on after damage; and it reads all bytes of streams.
"""

from __future__ import annotations

from collections.abc import Callable

from ..disk import Disk
from ..findings import Counts, Finding
from .checking_places import check_packs, check_stream, check_unknown
from .opening import SET_ASIDE, LoadedDirectory, read_directory, superseded, unexplained
from .report import Report


def check_files(
    disk: Disk, found: Callable[[Finding], None], looked_at: Callable[[int], None] = lambda _: None
) -> Counts:
    """
    Check all streams of a file storage that is not open.

    :param found: called with each finding.
    :param looked_at: called with the number of bytes of each read.
    :returns: the streams that there are, their appends and bytes, and the frames that were whole.
    :raises PermissionError: something may not be read.
    """
    report = Report(disk, found, looked_at)
    opened, complete = read_directory(report)
    check_packs(report, opened.streams, opened.packs)
    for stream in opened.streams:
        check_stream(report, stream)
    if complete:
        _note_leftovers(report, opened)
    else:
        check_unknown(report, opened.streams)
    return report.counts


def _note_leftovers(report: Report, opened: LoadedDirectory) -> None:
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
