"""The long-poll: a read that waits until there is data (PROTOCOL section 5.7)."""

from __future__ import annotations

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from ..clocks import IClock
from ..errors import InvalidOffset, OffsetGone, StreamNotFound
from ..model import Chunk, Offset
from ..streams import Streams
from .bodies import PIECE
from .live_access import ReadPermit


class LongPoll:
    """
    A long-poll that waits for data.

    :param timeout: how long it waits, in seconds.
    :param empty: the read that found nothing.
    :param polls: the long-polls that wait; this is one of them until its end.
    :param permit: see :meth:`.Live.wait`.
    :ivar outcome: what a read finds at the end of the wait.
    """

    def __init__(
        self,
        streams: Streams,
        clock: IClock,
        timeout: float,
        empty: Chunk,
        polls: set[LongPoll],
        permit: ReadPermit | None,
    ) -> None:
        self._streams = streams
        self._polls = polls
        self._permit = permit
        polls.add(self)
        self._empty = empty
        self._place = Offset(empty.facts.incarnation, empty.tail)
        self.outcome: Deferred[Chunk] = Deferred(self._cancel)
        self._over = False
        self._reading = False
        self._woken = False
        self._timeout = clock.callLater(timeout, self._time_out)
        self._streams.watch(empty.facts.name, self._wake)
        if permit is not None:
            permit.begin(self)
        # Something may have come between the read that found nothing and the watch.
        self._wake()

    def _time_out(self) -> None:
        self._over = True
        self._wake()

    def _cancel(self, outcome: Deferred[Chunk]) -> None:
        """Stop waiting; the outcome is the read that found nothing."""
        self._leave()
        outcome.callback(self._empty)

    def revoke(self) -> None:
        """Stop waiting: the reader may not read the stream any more."""
        if not self.outcome.called:
            self.outcome.cancel()

    def _wake(self) -> None:
        # A change during a read may have come too late for it.
        self._woken = self._reading
        if self._reading:
            return
        self._reading = True
        found = maybeDeferred(self._streams.read, self._empty.facts.name, self._place, PIECE, renew=False)
        found.addCallbacks(self._look, self._fail)

    def _look(self, chunk: Chunk) -> None:
        self._reading = False
        if self.outcome.called:
            return
        if chunk.facts.id != self._empty.facts.id:
            self._fail(Failure(StreamNotFound(chunk.facts.name)))
        elif chunk.data or chunk.closed or self._over or self._streams.draining:
            self._leave()
            self.outcome.callback(chunk)
        elif self._woken:
            self._wake()

    def _fail(self, failure: Failure) -> None:
        if failure.check(OffsetGone, InvalidOffset):
            failure = Failure(StreamNotFound(self._empty.facts.name))
        if not self.outcome.called:
            self._leave()
            self.outcome.errback(failure)

    def _leave(self) -> None:
        self._polls.discard(self)
        self._streams.unwatch(self._empty.facts.name, self._wake)
        if self._permit is not None:
            self._permit.end(self)
        if self._timeout.active():
            self._timeout.cancel()
