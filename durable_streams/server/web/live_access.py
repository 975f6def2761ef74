"""Live reads and downloads that are ended when their principal may not read any more."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, Protocol

from msgspec import Struct
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clocks import IClock
from ..run_queue import RunQueue
from .access_parts import Access

#: The longest time between two checks, in seconds.
INTERVAL: Final = 1.0

#: How long after the expiry of a principal its readers are checked, in seconds: clocks compare with `<=`.
_AFTER: Final = 0.001

_log = Logger()


class AdmittedReader(Protocol):
    """A long-running read: a tail, a long-poll, a download, or a request for a page."""

    def revoke(self) -> None:
        """End the read: its principal may not read the stream any more."""


class LiveAccess:
    """
    The long-running reads, which are checked once a second, at the expiry of a principal, and after each change.

    A check runs in slices of the run queue.

    :param is_valid: returns whether a principal may still do what the decision has allowed.
    """

    def __init__(self, clock: IClock, turns: RunQueue, is_valid: Callable[[Access], bool]) -> None:
        self._clock = clock
        self._turns = turns
        self._is_valid = is_valid
        self._readers: dict[AdmittedReader, Access] = {}
        self._next: IDelayedCall | None = None
        # When the next check is due, by the clock's steady time.
        self._due = 0.0
        self._checking = False
        self._again = False
        # In how many seconds the check after the one that runs is due.
        self._wait = INTERVAL

    def __len__(self) -> int:
        """Return the number of long-running reads."""
        return len(self._readers)

    def add(self, reader: AdmittedReader, access: Access) -> None:
        """
        Add a read that begins.

        :param access: the decision that has allowed it.
        """
        self._readers[reader] = access
        self._schedule(self._wait_for(access))

    def discard(self, reader: AdmittedReader) -> None:
        """Remove a read that has ended. It may have been removed before."""
        self._readers.pop(reader, None)
        if not self._readers:
            self._cancel()

    def check(self) -> None:
        """Check all reads, beginning in the next turn of the reactor."""
        if self._checking:
            self._again = True
        elif self._readers:
            self._cancel()
            self._checking = True
            self._wait = INTERVAL
            self._turns.finish(self._check()).addBoth(self._checked)

    def _check(self) -> Generator[None, None, None]:
        known: dict[int, bool] = {}
        for reader, access in list(self._readers.items()):
            if reader not in self._readers:
                continue
            valid = known.get(id(access))
            if valid is None:
                valid = known[id(access)] = self._is_valid(access)
            if not valid:
                self._revoke(reader)
            else:
                self._wait = min(self._wait, self._wait_for(access))
            yield

    def _revoke(self, reader: AdmittedReader) -> None:
        self.discard(reader)
        try:
            reader.revoke()
        except Exception:
            _log.failure("Ending a read whose principal has lost its right failed.")

    def _checked(self, result: object) -> None:
        self._checking = False
        if isinstance(result, Failure):
            _log.failure("Checking the rights of long-running reads failed.", failure=result)
        if self._again:
            self._again = False
            self.check()
        elif self._readers:
            self._schedule(self._wait)

    def _wait_for(self, access: Access) -> float:
        """Return in how many seconds a read is to be checked."""
        expires_at = access.principal.expires_at
        if expires_at is None:
            return INTERVAL
        left = expires_at - self._clock.wall() + _AFTER
        return min(INTERVAL, left) if left > 0 else INTERVAL

    def _schedule(self, wait: float) -> None:
        due = self._clock.seconds() + wait
        if self._checking or (self._next is not None and self._due <= due):
            return
        self._cancel()
        self._due = due
        self._next = self._clock.callLater(wait, self._begin)

    def _begin(self) -> None:
        self._next = None
        self.check()

    def _cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None


class ReadPermit(Struct, frozen=True):
    """
    The permit of a long-running read.

    :ivar access: the decision that has allowed it.
    """

    access: Access
    readers: LiveAccess

    def begin(self, reader: AdmittedReader) -> None:
        """Register a read: its rights are checked from now on."""
        self.readers.add(reader, self.access)

    def end(self, reader: AdmittedReader) -> None:
        """Unregister a read: its rights are not checked any more. May be called again."""
        self.readers.discard(reader)
