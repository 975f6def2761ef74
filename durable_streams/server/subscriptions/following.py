"""Changes of streams: from the names that commits announce to the subscriptions that they concern."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import StreamGone, StreamNotFound, StreamsError
from ..interfaces import settle
from ..model import StreamStatus
from ..run_queue import SLICE
from ..streams import Streams
from .entry import Entry
from .index import SubscriptionIndex
from .machine import idle
from .model import StreamTail

#: How many tails are read in a row that were not followed, which takes about 2 ms.
_AT_ONCE: Final = 500

_log = Logger()


async def tail_of(streams: Streams, name: str) -> StreamTail | None:
    """Return the tail of a stream, None if it does not exist. This does not renew its TTL."""
    try:
        return as_tail(await settle(streams.status(name)))
    except (StreamNotFound, StreamGone):
        return None


def as_tail(status: StreamStatus) -> StreamTail:
    """Return the tail in a stream's metadata."""
    return StreamTail(status.facts.id, status.facts.incarnation, status.tail)


class ChangeFollower:
    """
    Follows the commits of all streams.

    A commit notes the stream's name, unless it is known to change nothing (:attr:`.SubscriptionIndex.quiet`). Later, in
    slices of time, the tail of each noted stream is read once, and the subscriptions that it concerns are updated.

    :param update: queues the update of a subscription.
    """

    def __init__(self, streams: Streams, index: SubscriptionIndex[Entry], update: Callable[[Entry], None]) -> None:
        self._streams = streams
        self._turns = streams.turns
        self._index = index
        self._update = update
        self._changed: set[str] = set()
        # The names that are worked off, and how many tails are being read that were not at hand.
        self._batch: list[str] = []
        self._reading = 0
        self._scheduled = False
        self._waiting_for_batch: list[Deferred[None]] = []
        self._waiting_for_next: list[Deferred[None]] = []
        index.reread = self.committed

    def committed(self, name: str) -> None:
        """Note that a stream has changed which is not in :attr:`.SubscriptionIndex.quiet`."""
        index = self._index
        settled = index.settled.get(name)
        if settled is not None:
            index.stale[settled] = None
            index.silence(settled)
            return
        self._changed.add(name)
        self._schedule()

    def settled(self) -> Deferred[None] | None:
        """Return what fires when all changes that were noted until now are worked off; None if they are."""
        if not self._changed and not self._batch and not self._reading:
            return None
        done: Deferred[None] = Deferred()
        (self._waiting_for_next if self._changed else self._waiting_for_batch).append(done)
        return done

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._turns.add(self._work)

    def _work(self) -> None:
        """Work off changes for a slice of time."""
        self._scheduled = False
        end = self._turns.seconds() + SLICE
        if not self._batch and not self._reading:
            self._batch, self._changed = list(self._changed), set()
            self._waiting_for_batch += self._waiting_for_next
            self._waiting_for_next = []
        while self._batch:
            self._read(self._batch.pop())
            if self._turns.seconds() >= end:
                break
        self._go_on()

    def _go_on(self) -> None:
        if self._batch:
            self._schedule()
        elif not self._reading:
            waiting, self._waiting_for_batch = self._waiting_for_batch, []
            if self._changed:
                self._schedule()
            for done in waiting:
                if not done.called:
                    done.callback(None)

    def _read(self, name: str) -> None:
        try:
            status = self._streams.status(name)
        except (StreamNotFound, StreamGone):
            self.update_all(name, None)
        except StreamsError as error:
            self._not_read(name, error)
        else:
            if isinstance(status, Deferred):
                self._reading += 1
                status.addCallbacks(self._found, self._absent, errbackArgs=(name,)).addErrback(self._failed, name)
                status.addBoth(lambda _: self._read_later())
            else:
                self._found(status)

    def _read_later(self) -> None:
        self._reading -= 1
        self._go_on()

    def _failed(self, failure: Failure, name: str) -> None:
        if failure.check(StreamsError):
            self._not_read(name, failure.value)
        else:
            _log.failure("Reading the tail of {name} for its subscriptions failed.", failure=failure, name=name)

    def _not_read(self, name: str, error: object) -> None:
        """Leave the stream to the next decision about each subscription that it concerns."""
        for entry in self._index.concerned(name):
            entry.note(name)
            self._update(entry)
        _log.debug("The tail of {name} cannot be read: {reason}", name=name, reason=error)

    def _absent(self, failure: Failure, name: str) -> None:
        failure.trap(StreamNotFound, StreamGone)
        self.update_all(name, None)

    def _found(self, status: StreamStatus) -> None:
        # The storage has this string already; the name of the commit is a copy.
        self.update_all(status.facts.name, as_tail(status))

    def update_all(self, name: str, tail: StreamTail | None) -> None:
        """
        Update the subscriptions that a stream concerns, whose tail was read.

        Each link is compared with the stream: that the tail is known already does not mean that all subscriptions link
        the stream, since a decision about one of them may have read it first.
        """
        index = self._index
        index.set_tail(name, tail)
        stream_id = None if tail is None else tail.stream_id
        pending = True
        for entry in index.concerned(name):
            current = entry.current
            link = None if current is None else current.links.get(name)
            is_pending = current is not None and current.links.refresh(name)
            if current is None or entry.dirty or stream_id != (None if link is None else link.stream_id):
                pending = False
                entry.note(name)
                self._update(entry)
            elif not is_pending:
                pending = False
            elif idle(current.state):
                self._update(entry)
        if pending and name in index.tails:
            index.settled[name] = name

    async def read_tails(self, entry: Entry, of_all: bool) -> None:
        """
        Read the tails of a subscription's streams that have changed and were not followed since they are pending.

        :param of_all: whether to wait until all other changes, too, that were noted are worked off.
        """
        index, current = self._index, entry.current
        found = False
        if current is not None and index.stale:
            steps = index.unsettle_among(current.links.pending)
            try:
                # Few names need no turn.
                next(steps)
            except StopIteration as stop:
                found = stop.value
            else:
                found = await self._turns.finish(steps)
        settled = self.settled() if found or of_all else None
        if settled is not None:
            await settled

    async def read_stale_tails(self, max_count: int) -> None:
        """Read the tails of streams that have changed and were not followed, from the longest ago, some at a time."""
        index = self._index
        names = list(islice(index.stale, max_count))
        for start in range(0, len(names), _AT_ONCE):
            for name in names[start : start + _AT_ONCE]:
                if name in index.stale:
                    index.unsettle(name)
            settled = self.settled()
            if settled is not None:
                # Others who wait for changes, such as requests, wait for these few only.
                await settled
