"""The progress and the results of exports and imports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import Struct

#: The interval between two reports of progress, in seconds.
INTERVAL: Final = 0.2


class Progress(Struct, frozen=True):
    """
    How far a transfer is.

    :ivar phase: ``exporting``; ``validating``, while an import reads its document; ``importing``.
    :ivar streams: the number of streams that are done.
    :ivar streams_total: the number of all streams of this phase, or None if it is not known.
    :ivar messages: the number of messages that are done.
    :ivar bytes: the bytes of data that are done; while an import reads its document, the bytes of that.
    :ivar bytes_total: the number of all bytes of this phase, or None if it is not known. It is an estimate for an
        export: streams may change meanwhile.
    """

    phase: str
    streams: int = 0
    streams_total: int | None = None
    messages: int = 0
    bytes: int = 0
    bytes_total: int | None = None


class ExportStats(Struct, frozen=True):
    """The result of an export; ``bytes_exported`` counts the data of all messages, before base64."""

    streams_exported: int = 0
    messages_exported: int = 0
    bytes_exported: int = 0


class ImportStats(Struct, frozen=True):
    """The result of an import; the messages and bytes are those of the imported streams."""

    streams_imported: int = 0
    streams_skipped: int = 0
    messages_imported: int = 0
    bytes_imported: int = 0


#: A function that is called a few times in a second, and at the end of each phase. It must return at once.
ProgressCallback: TypeAlias = "Callable[[Progress], object]"


class Reporter:
    """
    Calls a progress callback in intervals.

    :param seconds: a monotonic clock.
    """

    def __init__(self, callback: ProgressCallback | None, seconds: Callable[[], float]) -> None:
        self._callback = callback
        self._seconds = seconds
        self._next = seconds() + INTERVAL

    @property
    def wanted(self) -> bool:
        """Whether there is a callback."""
        return self._callback is not None

    def report(self, progress: Callable[[], Progress], end: bool = False) -> None:
        """Call the callback if it is time, or if a phase has ended."""
        if self._callback is not None and (end or self._seconds() >= self._next):
            self._next = self._seconds() + INTERVAL
            self._callback(progress())
