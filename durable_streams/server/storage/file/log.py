"""The log of the file storage: the journal, retries after shortages, and the delayed syncs of file-fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import InsufficientStorage, Unavailable
from ..changes import Change
from ..disk import Disk, is_full
from ..logged.commit_queue import CommitQueue, NotYet
from ..shortages import RETRY_INTERVAL, SHORT, is_shortage
from ..workers import Worker
from .checkpointer import Checkpointer
from .journal import FULL, Journal, NothingWritten
from .opening import LoadedDirectory
from .settings import FileSettings

#: The number of seconds after which file-fast syncs acknowledged writes.
SYNC_INTERVAL: Final = 0.1

_log = Logger()


class FileLog:
    """
    A :class:`.Log` that writes to a journal.

    :param worker: the thread that writes the journal.
    :param discard: is called with an LSN when everything up to it is durable.
    :ivar queue: the queue whose changes it writes; set before it is opened.
    :ivar checkpointer: notified of each batch; set after it was opened, before the first batch.
    :ivar version: the format of the directory; set before the first change.
    :ivar raise_version: records that the directory is of a later format, and blocks; set before the first change.
    """

    version: int
    raise_version: Callable[[int], None]

    queue: CommitQueue[Any]
    checkpointer: Checkpointer
    journal: Journal

    def __init__(
        self, disk: Disk, worker: Worker, clock: Any, settings: FileSettings, discard: Callable[[int], None]
    ) -> None:
        self._disk = disk
        self._worker = worker
        self._clock = clock
        self._settings = settings
        self._discard = discard
        self._syncing: IDelayedCall | None = None
        # Whether a batch waits for a temporary shortage to pass.
        self._postponed = False

    def open(self, opened: LoadedDirectory) -> None:
        """Continue the journal in a new segment."""
        self.journal = Journal(
            self._disk,
            self._worker,
            self._clock.seconds,
            self._settings.durable,
            opened.next_segment,
            opened.lsn,
            self._settings.segment_sizes,
        )
        self.journal.refused = self._no_segment  # type: ignore[method-assign]
        self.journal.end_credit = self._end_credit  # type: ignore[method-assign]
        self.journal.open()
        self.journal.kept_free = lambda: self.checkpointer.room  # type: ignore[method-assign]

    def check_room(self, size: int, queued_bytes: int, removal: bool) -> int:
        """See :class:`.Log`."""
        if self._postponed:
            raise Unavailable(SHORT)
        if self.checkpointer.behind > self.checkpointer.settings.max_behind_bytes and not removal:
            # If the last checkpoint failed, no accepted write will start another.
            self.checkpointer.consider()
            raise Unavailable("Too many earlier writes are not synced yet. Try again in a moment.")
        return self.journal.check_room(size, queued_bytes, removal)

    def require_version(self, version: int) -> None:
        """
        Raise the format of the directory before the first change of a kind that earlier versions cannot read.

        :raises NotYet: retry later.
        """
        if self.version < version:
            raise NotYet(self._worker.do(partial(self._raise_version, version)).addErrback(self._not_raised))

    def _raise_version(self, version: int) -> None:
        if self.version < version:
            self.raise_version(version)
            self.version = version

    def _not_raised(self, failure: Failure) -> Failure:
        if is_full(failure.value):
            return Failure(InsufficientStorage(FULL))
        if is_shortage(failure.value):
            return Failure(Unavailable(SHORT))
        self.queue.stop(failure)
        return Failure(Unavailable(self.queue.failure or ""))

    def _no_segment(self, failure: Failure) -> Deferred[None] | None:
        if is_full(failure.value):
            return self.checkpointer.make_room()
        self.queue.stop(failure)
        return None

    def _end_credit(self) -> int:
        self.queue.credit = 0
        return self.queue.queued_bytes

    def commit(self, changes: Sequence[Change], lsn: int, max_bytes: int) -> Deferred[None]:
        """See :class:`.Log`."""
        written = self.journal.write(changes, lsn, max_bytes)
        return written.addCallbacks(self._written, self._not_written, errbackArgs=(changes, lsn, max_bytes))

    def _not_written(
        self, failure: Failure, changes: Sequence[Change], lsn: int, max_bytes: int
    ) -> Failure | Deferred[None]:
        if failure.check(NothingWritten) and not self.queue.closing:
            # Later changes depend on these, which can't be rolled back.
            if not self._postponed:
                _log.warn(
                    "Postponed a journal write because of a shortage: {why}",
                    why=failure.getErrorMessage(),
                )
            self._postponed = True
            if failure.value is not None and is_full(failure.value.__cause__):
                # It can occur although the room was reserved. A checkpoint gives back what the journal takes.
                self.checkpointer.make_room()
            waited: Deferred[None] = deferLater(self._clock, RETRY_INTERVAL)
            return waited.addCallback(lambda _: self.commit(changes, lsn, max_bytes))
        if is_full(failure.value):
            # In the middle of a write.
            return Failure(
                InsufficientStorage("The disk is full. The server writes nothing until it is started again.")
            )
        return failure

    def _written(self, _: None) -> None:
        self._postponed = False
        if not self._settings.durable and self._syncing is None:
            self._syncing = self._clock.callLater(SYNC_INTERVAL, self._sync_written)
        self.discard_durable()
        self.checkpointer.consider()

    @property
    def unsynced_changes(self) -> int:
        """The number of committed changes that are not synced; 0 in file-durable."""
        return max(0, self.queue.committed_lsn - self.journal.durable_lsn)

    def _sync_written(self) -> None:
        self._syncing = None
        if self.queue.failure is None:
            self.journal.sync().addCallbacks(lambda _: self.discard_durable(), self.queue.stop)

    def discard_durable(self) -> None:
        """Discard the files of streams whose removal is durable."""
        self._discard(self.journal.durable_lsn)

    async def sync_accepted(self) -> None:
        """Wait until all changes accepted so far are committed and synced."""
        await self.queue.after(lambda: None)
        if not self._settings.durable:
            await self.journal.sync()

    async def sync(self) -> None:
        """See :class:`.Log`."""
        if self._syncing is not None:
            self._syncing.cancel()
            self._syncing = None
        if self.queue.failure is None:
            try:
                await self.journal.sync()
            except OSError:
                self.queue.stop(Failure())
            self.discard_durable()

    def close(self) -> None:
        """See :class:`.Log`."""
        self.journal.close()
