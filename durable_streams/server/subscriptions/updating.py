"""Updates of subscriptions: after changes of streams, at deadlines, and in sweeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Generator
from time import perf_counter
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..errors import StreamsError
from ..run_queue import SLICE, RunQueue
from .counts import Lag, SubscriptionCounts
from .decisions import Current, Decision
from .entry import Entry
from .errors import SubscriptionNotFound
from .machine import deadline, held, needs_evaluation
from .model import DeliveryDue
from .registry import Registry
from .seams import PartitionLease
from .timers import Timers

#: How many subscriptions are brought up to date at once, while their writes wait for the disk.
_MAX_UPDATES: Final = 64

#: When an update that has failed is tried again, in seconds.
_RETRY_SECONDS: Final = 1.0

#: How many subscriptions one step of a sweep checks.
_AT_ONCE: Final = 50

#: How many tails of streams that are pending anyway sweeps read, which costs 0.2 % of a processor. Requests and
#: deliveries read them before they use them; sweeps do for the metric of pending bytes, and to notice deletions.
_TAILS_PER_SECOND: Final = 500

_log = Logger()


class Updates:
    """
    Keeps subscriptions up to date: each is reconciled with the streams that have changed, and evaluated.

    :param lease: which subscriptions this node is responsible for.
    :param deliver: queues the delivery of a wake.
    :ivar read_tails: reads the tails of a subscription's streams that have changed while they were not followed.
    :ivar read_stale_tails: reads some of those of all subscriptions.
    :ivar before_sweep: is called before each sweep, unless it is None.
    :ivar lag: what was pending at the last sweep.
    """

    def __init__(
        self,
        registry: Registry,
        turns: RunQueue,
        clock: IReactorTime,
        counts: SubscriptionCounts,
        lease: PartitionLease,
        deliver: Callable[[Entry, str], None],
    ) -> None:
        self._registry = registry
        self._turns = turns
        self._clock = clock
        self._counts = counts
        self._lease = lease
        self._deliver = deliver
        self._timers: Timers[Entry] = Timers(clock, self.add)
        self._ready: deque[Entry] = deque()
        self._updating = 0
        self._scheduled = False
        self._running = False
        self._sweeping: LoopingCall | None = None
        self._max_stale_tails = 0
        self.lag = Lag()
        self.read_tails: Callable[[Entry], Awaitable[None]] = _nothing_to_read
        self.read_stale_tails: Callable[[int], Awaitable[None]] = _nothing_to_read
        self.before_sweep: Callable[[], Awaitable[None]] | None = None

    def start(self, sweep_interval: float) -> None:
        """Bring all subscriptions up to date, and keep them so."""
        self._running = True
        now = self._clock.seconds()
        for entry in list(self._registry.entries.values()):
            self._set_timer(entry)
            self._check(entry, now)
        self._schedule()
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = self._clock
        self._max_stale_tails = int(sweep_interval * _TAILS_PER_SECOND)
        self._sweeping.start(sweep_interval, now=False)

    def stop(self) -> None:
        """Begin no more updates."""
        self._running = False
        self._timers.stop()
        if self._sweeping is not None and self._sweeping.running:
            self._sweeping.stop()

    def add(self, entry: Entry) -> None:
        """Queue the update of a subscription."""
        if not entry.queued and self._lease.holds(entry.id):
            entry.queued = True
            self._ready.append(entry)
            self._schedule()

    def take_over(self, entry: Entry) -> None:
        """Bring a subscription up to date that this node is responsible for now, or that another node has changed."""
        if self._running and self._lease.holds(entry.id):
            self._set_timer(entry)
            self.add(entry)

    def committed(self, entry: Entry, decision: Decision) -> None:
        """Take over what a committed decision leads to."""
        self._counts.happened.update(decision.happened)
        if not self._running or not self._lease.holds(entry.id):
            return
        if entry.dirty:
            # The subscription was read again, with links that were not known here.
            self.add(entry)
        for effect in decision.effects:
            if isinstance(effect, DeliveryDue):
                self._deliver(entry, effect.wake_id)
        self._set_timer(entry)

    def forget(self, entry: Entry) -> None:
        """Remove the deadline of a subscription that was deleted."""
        self._timers.set(entry, None)

    def retry(self, entry: Entry) -> None:
        """Update a subscription again in a second, since something has failed."""
        if self._running and entry.current is not None:
            due, retry_at = self._timers.deadline(entry), self._clock.seconds() + _RETRY_SECONDS
            self._timers.set(entry, retry_at if due is None else min(due, retry_at))

    def _set_timer(self, entry: Entry) -> None:
        current = entry.current
        at = None if current is None else deadline(current.subscription.config, current.state)
        if at is not None and at <= self._clock.seconds():
            # It is overdue after an evaluation: its delivery waits for a slot, and sets the next deadline itself.
            at = None if entry.delivering else self._clock.seconds() + _RETRY_SECONDS
        self._timers.set(entry, at)

    def _schedule(self) -> None:
        if not self._scheduled and self._ready and self._updating < _MAX_UPDATES and self._running:
            self._scheduled = True
            self._turns.add(self._update_some)

    def _update_some(self) -> None:
        """Begin updates for a slice of time."""
        self._scheduled = False
        end = self._turns.seconds() + SLICE
        while self._ready and self._updating < _MAX_UPDATES and self._running:
            self._updating += 1
            Deferred.fromCoroutine(self._update(self._ready.popleft())).addBoth(self._updated)
            if self._turns.seconds() >= end:
                break
        self._schedule()

    def _updated(self, _: object) -> None:
        self._updating -= 1
        self._schedule()

    async def _update(self, entry: Entry) -> None:
        entry.queued = False
        if not self._lease.holds(entry.id):
            return
        await self.read_tails(entry)
        await entry.lock.acquire()
        try:
            if entry.current is not None:
                await self._registry.bring_up_to_date(entry)
            entry.trouble = ""
        except SubscriptionNotFound:
            pass
        except StreamsError as error:
            # A full or failed disk causes the same error each time: log it once.
            if entry.trouble != str(error):
                entry.trouble = str(error)
                _log.warn("Subscription {id} is not up to date: {reason}", id=entry.id, reason=error)
            self.retry(entry)
        except Exception:
            _log.failure("Updating subscription {id} failed.", id=entry.id)
            self.retry(entry)
        finally:
            entry.lock.release()

    # The sweep

    def _sweep(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._sweep_all())

    async def _sweep_all(self) -> None:
        if self.before_sweep is not None:
            await self.before_sweep()
        # The subscriptions that this concerns are updated by what follows changes.
        await self.read_stale_tails(self._max_stale_tails)
        await self._turns.finish(self._sweep_steps())

    def _sweep_steps(self) -> Generator[None, None, None]:
        """Queue the subscriptions that are not up to date: a safety net, for events keep them so."""
        now, spent, lag = self._clock.seconds(), 0.0, Lag()
        registry = self._registry
        begun = perf_counter()
        for count, entry in enumerate(list(registry.entries.values()), 1):
            if entry.blocked and registry.index.links < registry.max_links:
                entry.unblock()
            self._check(entry, now)
            if entry.current is not None and entry.current.links.pending and self._lease.holds(entry.id):
                _add_lag(entry.current, lag)
            if count % _AT_ONCE == 0:
                spent += perf_counter() - begun
                yield
                begun = perf_counter()
        self.lag = lag
        self._counts.sweep_seconds.add(spent + perf_counter() - begun)

    def _check(self, entry: Entry, now: float) -> None:
        current = entry.current
        if current is not None and (entry.dirty or entry.stale or needs_evaluation(current, now)):
            self.add(entry)


def _add_lag(current: Current, lag: Lag) -> None:
    lag.pending_bytes += current.links.pending_bytes
    wake = current.state.wake
    if wake is not None and not held(current.subscription.config, wake):
        lag.oldest = wake.issued_at if lag.oldest is None else min(lag.oldest, wake.issued_at)


async def _nothing_to_read(_: object) -> None:
    """Return at once."""
