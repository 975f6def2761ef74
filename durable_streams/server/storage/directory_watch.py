"""Checks once a second that the path of the data directory still leads to the directory that is locked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ..errors import StorageError
from .disk import Disk
from .workers import Worker

#: How often it is looked, in seconds.
_INTERVAL: Final = 1.0


class DirectoryWatch:
    """
    Notices that the data directory was moved, or that its lock file was removed.

    :param worker: does the looking, which may block.
    :param where: how the directory is named in messages.
    :param moved: called once, with the reason.
    """

    def __init__(
        self, disk: Disk, worker: Worker, clock: IReactorTime, where: str, moved: Callable[[Failure], None]
    ) -> None:
        self._disk = disk
        self._worker = worker
        self._clock = clock
        self._where = where
        self._moved = moved
        self._next: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the checks."""
        self._next = self._clock.callLater(_INTERVAL, self._look)

    def stop(self) -> None:
        """Stop the checks."""
        self._stopped = True
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        self._next = None
        self._worker.do(self._disk.in_place).addCallbacks(self._looked, lambda _: None)

    def _looked(self, in_place: bool) -> None:
        if self._stopped:
            return
        if in_place:
            self.start()
            return
        self._moved(
            Failure(
                StorageError(
                    f"The data directory {self._where} is no longer at its path, or its lock file was removed, while "
                    "the server ran. Nothing more is written to it; streams can be read. Put the directory back, or "
                    "set storage.data_dir to where it is now, and restart the server."
                )
            )
        )
