"""The part of the subscriptions that this node is responsible for, in a storage that several nodes share.

A subscription belongs to a partition by its id. The holder of a partition's lease follows the streams of its
subscriptions, runs their timers and delivers their wakes. Requests may come to each node: it reads the subscription,
decides, and writes the decision if no other node was ahead of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Final
from zlib import crc32

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from ..clocks import IClock
from ..errors import StreamsError
from ..interfaces import ISharedStorage
from ..streams import Streams
from .comparing import Comparison
from .entry import Entry
from .errors import CorruptRecord, SubscriptionNotFound
from .following import ChangeFollower
from .locks import together
from .registry import Registry
from .shared_store import SharedStore

#: How many subscriptions are read at once.
_AT_ONCE: Final = 16

#: When a takeover that has failed is tried again, in seconds.
_RETRY_SECONDS: Final = 1.0

_log = Logger()


@implementer(IClock)
class SharedClock:
    """
    The clock of the storage, as far as this node knows it: stored times are compared by all nodes.

    :param clock: this node's own clock.
    """

    def __init__(self, clock: IClock, shared: ISharedStorage) -> None:
        self._seconds = clock.seconds
        self._ahead = shared.ahead
        self.callLater = clock.callLater
        self.getDelayedCalls = clock.getDelayedCalls

    def seconds(self) -> float:
        """Return the storage's time, in seconds since 1970."""
        return self._seconds() + self._ahead()

    wall = seconds


class HeldPartitions:
    """The lease of a node that holds some partitions of a storage."""

    def __init__(self, shared: ISharedStorage) -> None:
        self._shared = shared
        self._count: int = shared.partitions

    def partition(self, subscription_id: str) -> int:
        """Return the number of a subscription's partition, which is the same on all nodes."""
        return crc32(subscription_id.encode()) % self._count

    def holds(self, subscription_id: str) -> bool:
        return self._shared.holds(self.partition(subscription_id))

    def numbers(self) -> set[int]:
        """Return the numbers of the partitions that are held now."""
        return {number for number in range(self._count) if self._shared.holds(number)}


class Partitions:
    """
    Takes over subscriptions when this node gains partitions, and gives them up when it loses some.

    :param took: is called with each subscription that was taken over or changed by another node, to be brought up to
        date.
    :ivar gave_up: is called with each subscription that another node is responsible for now.
    :ivar swept: is called after each sweep.
    """

    def __init__(
        self,
        shared: ISharedStorage,
        lease: HeldPartitions,
        registry: Registry,
        store: SharedStore,
        comparison: Comparison,
        clock: IClock,
        took: Callable[[Entry], None],
    ) -> None:
        self._shared = shared
        self._lease = lease
        self._registry = registry
        self._store = store
        self.comparison = comparison
        self._clock = clock
        self._took = took
        self.gave_up: Callable[[Entry], None] = took
        self.swept: Callable[[], None] = lambda: None
        self._mine: set[int] = set()
        self._nodes = 1
        self._lock = DeferredLock()
        self._leaving = DeferredLock()
        self._running = False
        self._again = False
        self._timer: IDelayedCall | None = None
        self._unreadable: dict[str, str] = {}

    @property
    def held(self) -> int:
        """The number of partitions whose subscriptions this node has taken over."""
        return len(self._mine & self._lease.numbers())

    async def start(self) -> None:
        """
        Check the records, and take part in the work from now on.

        :raises CorruptRecord: a record is damaged, or of another version.
        """
        await self.comparison.created.start()
        await self._store.check()
        self._running = True
        self._shared.join(self._shares_changed, self._received, self._missed)

    def stop(self) -> Deferred[None]:
        """Leave the work to the other nodes; fires when they can take it."""
        if not self._running:
            return self._leaving.run(succeed, None)
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._mine.clear()
        return self._leaving.run(self._shared.leave)

    # Messages

    def _received(self, subscription_id: str) -> None:
        """Note that another node has changed a subscription."""
        entry = self._registry.entries.get(subscription_id)
        if entry is not None:
            entry.notice()
            self._took(entry)
        elif self._running and self._lease.holds(subscription_id):
            self._run(self._take_new([subscription_id]))

    def _missed(self) -> None:
        if self._running:
            self._run(self._compare_all())

    def _shares_changed(self) -> None:
        if not self._running:
            return
        fewer, self._nodes = self._shared.nodes < self._nodes, self._shared.nodes
        if fewer:
            # What it has committed last may not have been announced.
            self._missed()
        self._adapt()

    def _adapt(self) -> None:
        if self._lock.locked:
            self._again = True
        else:
            self._run(self._adapt_all())

    def _run(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        done = Deferred.fromCoroutine(work)
        done.addErrback(lambda failure: _log.failure("Adapting to the other nodes failed.", failure=failure))

    # Partitions

    async def _adapt_all(self) -> None:
        await self._lock.acquire()
        try:
            self._again = True
            while self._again and self._running:
                self._again = False
                await self._adapt_once()
        except StreamsError as error:
            _log.warn("Subscriptions were not taken over, which will be tried again: {reason}", reason=error)
            self._retry()
        finally:
            self._lock.release()

    def _retry(self) -> None:
        if self._timer is None and self._running:
            self._timer = self._clock.callLater(_RETRY_SECONDS, self._retry_now)

    def _retry_now(self) -> None:
        self._timer = None
        self._adapt()

    async def _adapt_once(self) -> None:
        held = self._lease.numbers()
        lost, gained = self._mine - held, held - self._mine
        if lost:
            self._mine -= lost
            for entry in list(self._registry.entries.values()):
                if not self._lease.holds(entry.id):
                    self.gave_up(entry)
            _log.info("Other nodes are responsible for {count} partitions of the subscriptions now.", count=len(lost))
        if gained:
            taken = await self._take(gained)
            self._mine |= gained & self._lease.numbers()
            _log.info(
                "Took over {count} partitions with {taken} subscriptions; {held} of {all} are held.",
                count=len(gained),
                taken=taken,
                held=len(self._mine),
                all=self._shared.partitions,
            )

    async def _take(self, partitions: Collection[int]) -> int:
        """Take over the subscriptions of partitions, and return their number."""
        found: list[str] = []
        async for page in self._store.ids():
            found += [each for each in page if self._lease.partition(each) in partitions]
        # Those that were read for requests are not known to be up to date.
        await self._compare_some([self._registry.entries[each] for each in found if each in self._registry.entries])
        await self._take_new(found)
        return len(found)

    async def _take_new(self, subscription_ids: Iterable[str]) -> None:
        """Read subscriptions, bring them up to date, then look for streams that match and were not linked."""
        taken: list[Entry] = []
        rest = iter(subscription_ids)

        async def take_some() -> None:
            for subscription_id in rest:
                entry = await self._obtain(subscription_id)
                if entry is not None and self._lease.holds(subscription_id):
                    taken.append(entry)
                    self._took(entry)

        await together(take_some() for _ in range(_AT_ONCE))
        await self.comparison.list_matching(taken)
        for entry in taken:
            if entry.dirty:
                self._took(entry)

    async def _obtain(self, subscription_id: str) -> Entry | None:
        try:
            entry = await self._registry.obtain(subscription_id)
        except SubscriptionNotFound:
            self._unreadable.pop(subscription_id, None)
            return None
        except CorruptRecord as error:
            if self._unreadable.get(subscription_id) != str(error):
                self._unreadable[subscription_id] = str(error)
                _log.error("Subscription {id} does not work: {reason}", id=subscription_id, reason=error)
            return None
        self._unreadable.pop(subscription_id, None)
        return entry

    # Comparison with the storage

    async def sweep(self) -> None:
        """Find what lost messages would have announced, and forget what this node needs no more."""
        self._adapt()
        await self._compare_all()
        for entry in list(self._registry.entries.values()):
            if self._lease.holds(entry.id) or entry.users or entry.queued or entry.delivering or entry.lock.locked:
                continue
            if entry.idle:
                self._registry.forget(entry)
            entry.idle = True
        self.swept()

    async def _compare_all(self) -> None:
        try:
            await self.comparison.created.scan()
            await self._compare_some([e for e in self._registry.entries.values() if self._lease.holds(e.id)])
            new: list[str] = []
            async for page in self._store.ids():
                new += [each for each in page if each not in self._registry.entries and self._lease.holds(each)]
            await self._take_new(new)
        except StreamsError as error:
            _log.debug("Subscriptions were not compared with the storage: {reason}", reason=error)

    async def _compare_some(self, entries: Collection[Entry]) -> None:
        """Find the changes of subscriptions and of their streams."""
        for entry in await self.comparison.compare_records(entries):
            self._took(entry)
        await self.comparison.compare_links(entries)


def partitions_of(
    streams: Streams, registry: Registry, changes: ChangeFollower, clock: IClock, took: Callable[[Entry], None]
) -> Partitions | None:
    """Return what divides subscriptions among nodes; None if this is the only one of a storage."""
    shared, store = streams.shared, registry.shared
    if shared is None or store is None:
        return None
    comparison = Comparison(streams, shared, registry, store, changes, clock.seconds)
    return Partitions(shared, HeldPartitions(shared), registry, store, comparison, clock, took)
