"""Uses of streams that renew their TTL: reads are written late and together, since most of them change nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import StreamsError
from .heads import Head

#: A use is written when the database has not known of one for this part of the TTL. If a node is killed, the streams
#: that it served may expire this much early.
_PART: Final = 0.1

#: How many uses are remembered before they are written, and how many are written at once.
_MAX_USES: Final = 10_000
_AT_ONCE: Final = 1_000

#: How long a use is remembered after it was written, in seconds, at least: look-ups began before.
_REMEMBERED: Final = 20.0

#: The pause before uses are written again after a failure, in seconds.
_RETRY: Final = 1.0

_log = Logger()


class Uses:
    """
    The last uses of streams that this node knows of, by the database's clock.

    :param write: writes the times of the last uses by stream id; older ones than those stored change nothing. It
        returns the ids of the streams whose uses were not written, as others have locked them; they are tried again.
    """

    def __init__(self, write: Callable[[Mapping[int, float]], Deferred[Any]], clock: IReactorTime) -> None:
        self._write = write
        self._clock = clock_of(clock)
        self._uses: dict[int, float] = {}
        # Those that were written lately, and those before.
        self._recent: dict[int, float] = {}
        self._older: dict[int, float] = {}
        self._rotated_at = self._clock.seconds()
        self._timer: IDelayedCall | None = None
        self._due = inf
        self._writing: Deferred[Any] | None = None
        self._stopped = False
        self._failing = False

    def last_use(self, stream_id: int) -> float:
        """Return the last use of a stream that look-ups may not show yet; 0 if there is none."""
        for uses in (self._uses, self._recent, self._older):
            used_at = uses.get(stream_id)
            if used_at is not None:
                return used_at
        return 0.0

    def note(self, head: Head) -> None:
        """Note that a stream is used at the time at which its head was read."""
        ttl = head.lifetime.ttl
        if ttl is None or head.deleted:
            return
        if self._uses.get(head.facts.id, 0.0) < head.read_at:
            self._uses[head.facts.id] = head.read_at
        known_for = head.read_at - head.used_at
        wait = 0.0 if len(self._uses) >= _MAX_USES else max(0.0, _PART * ttl - known_for)
        self._schedule(wait)

    def forget(self, stream_id: int) -> None:
        """Forget a stream that was removed."""
        for uses in (self._uses, self._recent, self._older):
            uses.pop(stream_id, None)

    async def stop(self) -> None:
        """Write all that is left. If the database is away, it is lost."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await self._writing
        self._failing = False
        while self._uses and not self._failing:
            self._start()
            if self._writing is not None:
                await self._writing

    def _schedule(self, wait: float) -> None:
        if self._stopped or self._writing is not None:
            # The end of the write under way schedules the next one.
            self._due = min(self._due, self._clock.seconds() + wait)
            return
        due = self._clock.seconds() + wait
        if self._timer is None:
            self._timer = self._clock.callLater(wait, self._start)
        elif due < self._due:
            self._timer.reset(wait)
        else:
            return
        self._due = due

    def _start(self) -> None:
        self._timer = None
        writing = dict(islice(self._uses.items(), _AT_ONCE))
        self._due = self._clock.seconds() if len(writing) < len(self._uses) else inf
        done = self._write(writing)
        self._writing = done
        done.addCallbacks(self._written, self._failed, (writing,))
        done.addCallback(self._ended)

    def _written(self, held: frozenset[int] | None, written: dict[int, float]) -> None:
        self._failing = bool(held)
        now = self._clock.seconds()
        if held:
            self._due = min(self._due, now + _RETRY)
        if now - self._rotated_at >= _REMEMBERED or len(self._recent) > _MAX_USES:
            self._recent, self._older, self._rotated_at = {}, self._recent, now
        for stream_id, used_at in written.items():
            if held and stream_id in held:
                continue
            self._recent[stream_id] = used_at
            if self._uses.get(stream_id) == used_at:
                del self._uses[stream_id]

    def _failed(self, failure: Failure) -> None:
        self._failing = True
        if failure.check(StreamsError):
            _log.warn("Uses of streams were not written, which will be tried again: {reason}", reason=failure.value)
        else:
            _log.failure("Writing the uses of streams failed and will be tried again.", failure=failure)
        self._due = min(self._due, self._clock.seconds() + _RETRY)

    def _ended(self, _: None) -> None:
        self._writing = None
        if self._uses and self._due < inf:
            self._schedule(max(0.0, self._due - self._clock.seconds()))
