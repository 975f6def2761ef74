"""A file of audit lines, which are written whole, in batches, and never reordered."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..log_files import open_log_file

#: The mode of a new file: its owner, and for reading a group such as that of a log shipper. It has no secrets.
FILE_MODE: Final = 0o640

#: How many bytes of lines are written at once; a turn of the reactor that has more writes earlier.
BATCH: Final = 65_536

#: How many bytes of lines wait at most while the file cannot be written. Further lines are lost.
MAX_WAITING: Final = 4_194_304

#: How long after a failure the file is written again, in seconds.
RETRY: Final = 1.0

_log = Logger()


class AuditFile:
    """
    Appends lines to a file: those of a turn of the reactor in one write, at its end.

    The file is opened with O_APPEND, so that several processes can write to one file. If a write fails, up to
    :data:`MAX_WAITING` bytes of lines wait, and it is tried again each second; later lines are lost and counted.

    :param path: the path of the file.
    :param note_loss: returns the line that reports lost lines, by their number.
    :ivar lines: how many lines were written.
    :ivar lost: how many lines were lost.
    """

    def __init__(self, path: str, clock: IReactorTime, note_loss: Callable[[int], bytes]) -> None:
        # The process may change its directory before the file is opened again.
        self.path = os.path.abspath(path)
        self._clock = clock
        self._note_loss = note_loss
        self._descriptor: int | None = None
        self._waiting: list[bytes] = []
        self._size = 0
        self._next: IDelayedCall | None = None
        self._obstacle: str | None = None
        # Lines lost that no line reports yet, and whether the last line in the file has no line break.
        self._unreported = 0
        self._torn = False
        self.lines = 0
        self.lost = 0

    @property
    def obstacle(self) -> str | None:
        """Why the file cannot be written, in the words of the system; None if the last write was complete."""
        return self._obstacle

    def open(self) -> None:
        """
        Open the file.

        :raises OSError: it cannot be opened.
        """
        # Without waiting for the reader of a pipe.
        self._descriptor = open_log_file(self.path, FILE_MODE, os.O_NONBLOCK)

    def write(self, line: bytes) -> None:
        """
        Write a line at the end of this turn of the reactor.

        :param line: without a line break.
        """
        if self._size >= MAX_WAITING:
            self.lost += 1
            self._unreported += 1
            return
        self._waiting.append(line)
        self._size += len(line) + 1
        if self._obstacle is not None:
            return
        if self._size >= BATCH:
            self._flush()
        elif self._next is None:
            self._next = self._clock.callLater(0, self._flush_later)

    def reopen(self) -> None:
        """Open the file by its path again, as after a rotation. If that fails, the lines go on in the old file."""
        self._flush()
        old = self._descriptor
        try:
            self.open()
        except OSError as error:
            _log.error(
                "Cannot reopen the audit log {path} (audit.file): {reason}. It continues in the file that is open.",
                path=self.path,
                reason=error.strerror,
            )
            return
        if old is not None:
            os.close(old)
        self._torn = False
        self._flush()

    def close(self) -> None:
        """Write the lines that wait, and close the file. Later lines are lost."""
        self._flush()
        if self._waiting:
            _log.error(
                "Closed the audit log {path} (audit.file) without {count} lines, which could not be written.",
                path=self.path,
                count=len(self._waiting),
            )
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _flush_later(self) -> None:
        self._next = None
        self._flush()

    def _flush(self) -> None:
        """Write the lines that wait, as far as possible."""
        if self._descriptor is None or not (self._waiting or self._torn):
            return
        while self._waiting or self._torn:
            batch = self._next_batch()
            data = (b"\n" if self._torn else b"") + b"".join(line + b"\n" for line in batch)
            try:
                written = os.write(self._descriptor, data)
            except OSError as error:
                self._failed(error.strerror or str(error))
                return
            if written < len(data):
                self._keep_rest(batch, written)
                self._failed("only a part was written, as on a full disk")
                return
            self._torn = False
            self._written(len(batch), len(data))
        self._recovered()

    def _next_batch(self) -> list[bytes]:
        size = count = 0
        for line in self._waiting:
            if count and size + len(line) > BATCH:
                break
            size += len(line)
            count += 1
        return self._waiting[:count]

    def _keep_rest(self, batch: list[bytes], written: int) -> None:
        """Forget the lines that were written whole. One of which a part was written is written again."""
        if written and self._torn:
            written -= 1
            self._torn = False
        whole = 0
        while whole < len(batch) and written >= len(batch[whole]):
            written -= len(batch[whole]) + 1
            whole += 1
        # If only a line break is missing, it is -1.
        self._torn = self._torn or written != 0
        self._written(whole, 0)
        self._size = sum(len(line) + 1 for line in self._waiting)

    def _written(self, count: int, size: int) -> None:
        del self._waiting[:count]
        self.lines += count
        self._size = max(0, self._size - size)

    def _failed(self, reason: str) -> None:
        if self._obstacle is None:
            _log.error(
                "Cannot write the audit log {path} (audit.file): {reason}. Up to {limit} bytes of lines wait; later "
                "ones are lost. Make room for it, or let the server write there.",
                path=self.path,
                reason=reason,
                limit=MAX_WAITING,
            )
        self._obstacle = reason
        if self._next is None:
            self._next = self._clock.callLater(RETRY, self._flush_later)

    def _recovered(self) -> None:
        self._size = 0
        if self._obstacle is None:
            return
        self._obstacle = None
        lost, self._unreported = self._unreported, 0
        _log.warn("The audit log {path} can be written again; {lost} lines were lost.", path=self.path, lost=lost)
        if lost:
            self.write(self._note_loss(lost))
