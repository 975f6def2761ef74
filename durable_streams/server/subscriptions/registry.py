"""All subscriptions in memory, and the commit of decisions about them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from secrets import SystemRandom, token_urlsafe
from typing import Final

from msgspec.structs import replace

from ..errors import ValuesChanged
from ..streams import Streams
from .decisions import Current, Decision
from .entry import Entry
from .errors import SubscriptionLimitReached, SubscriptionNotFound, SubscriptionsUnavailable
from .following import tail_of
from .index import SubscriptionIndex
from .locks import KeyedLocks, together
from .machine import Machine, needs_evaluation
from .model import Draw, StreamTail
from .seams import PartitionLease, SingleNode
from .shared_store import SharedStore
from .store import Store

#: How many changed streams one decision takes.
_MAX_CHANGES: Final = 500

#: How often a decision is made again because another node has changed the subscription: one of them has succeeded.
_MAX_CONFLICTS: Final = 20

_random: Final = SystemRandom()


def draw() -> Draw:
    """Return the random values of one decision."""
    return Draw(f"w_{token_urlsafe(18)}", _random.uniform(0.8, 1.2))


class Registry:
    """
    The subscriptions of a storage in memory.

    :param seconds: returns the time, in seconds since 1970, by a steady clock.
    :param committed: is called with each decision after its commit.
    :param lease: which subscriptions this node is responsible for.
    :ivar entries: the subscriptions by id, without those that are being created. Of a storage that nodes share, those
        that this node is responsible for, and those that requests have come for lately.
    :ivar shared: the records, if nodes share the storage.
    :ivar prepare: is called before a subscription is kept that was read.
    :ivar read_tails: reads the tails of streams that were linked now by others.
    :ivar loaded: compares a subscription that was read with its streams.
    """

    def __init__(
        self,
        streams: Streams,
        machine: Machine,
        seconds: Callable[[], float],
        committed: Callable[[Entry, Decision], None],
        max_links: int,
        lease: PartitionLease | None = None,
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self.index: SubscriptionIndex[Entry] = SubscriptionIndex()
        self.shared: SharedStore | None = None
        if streams.shared is not None:
            self.shared = SharedStore(streams, self.index.tails, streams.shared, seconds)
        self.store = self.shared or Store(streams, self.index.tails)
        self.lease = lease or SingleNode()
        self._machine = machine
        self._issuing_machine = replace(machine, delivers=False)
        self._loading = KeyedLocks()
        self.prepare: Callable[[str], Awaitable[None]] = _nothing_to_read
        self.read_tails: Callable[[Collection[str]], Awaitable[None]] = _nothing_to_read
        self.loaded: Callable[[Entry], Awaitable[None]] = _nothing_to_read
        self.max_links = max_links
        self._streams = streams
        self._seconds = seconds
        self._committed = committed

    def find(self, subscription_id: str) -> Entry:
        """
        Return a subscription.

        :raises SubscriptionNotFound: there is none.
        """
        entry = self.entries.get(subscription_id)
        if entry is None or entry.current is None:
            raise SubscriptionNotFound(subscription_id)
        return entry

    def machine_of(self, subscription_id: str) -> Machine:
        """Return the rules for a subscription."""
        return self._machine if self.lease.holds(subscription_id) else self._issuing_machine

    async def obtain(self, subscription_id: str) -> Entry:
        """
        Return a subscription; read it if it is not in memory.

        :raises SubscriptionNotFound: there is none.
        """
        entry = self.entries.get(subscription_id)
        if self.shared is None or (entry is not None and entry.current is not None):
            return self.find(subscription_id)
        async with self._loading.hold(subscription_id):
            entry = self.entries.get(subscription_id)
            if entry is None or entry.current is None:
                entry = await self._load(subscription_id)
        return entry

    @property
    def is_loading(self) -> bool:
        """Whether subscriptions are being read."""
        return len(self._loading) > 0

    async def _load(self, subscription_id: str) -> Entry:
        current = await self.store.reload(subscription_id)
        if current is None:
            raise SubscriptionNotFound(subscription_id)
        await self.prepare(subscription_id)
        entry = Entry(subscription_id, current.subscription.birth)
        pattern = current.subscription.config.pattern
        if pattern is not None:
            self.index.add_pattern(pattern, entry)
        entry.current = current
        try:
            await self._link_all(entry, list(current.links))
            await self.loaded(entry)
        except BaseException:
            self.forget(entry)
            raise
        self.entries[subscription_id] = entry
        return entry

    async def _link_all(self, entry: Entry, paths: Collection[str]) -> None:
        """Register links that another node has made, and read the tails of their streams."""
        async for path in self._in_slices(paths):
            self.index.link(path, entry)
        await self.read_tails(paths)

    async def present(self, subscription_id: str) -> Current:
        """
        Return a subscription as it is now, except perhaps for the tails of its streams.

        :raises SubscriptionNotFound: there is none.
        """
        while True:
            entry = await self.obtain(subscription_id)
            current = entry.current
            if self.shared is None and current is not None:
                return current
            if self.shared is not None and current is not None:
                stored = (await self.shared.stored([subscription_id]))[subscription_id]
                if stored == current.stored:
                    return current
                await entry.lock.acquire()
                try:
                    await self.reload(entry)
                    if entry.current is not None:
                        return entry.current
                finally:
                    entry.lock.release()

    def check_room(self, count: int = 1) -> None:
        """
        Check that links may be added.

        :raises SubscriptionLimitReached: there would be too many.
        """
        if self.index.links + count > self.max_links:
            raise SubscriptionLimitReached(self.max_links, "links", "subscriptions.max_links")

    async def commit(
        self,
        entry: Entry,
        decide: Callable[[Current], Decision],
        tails: Mapping[str, StreamTail | None] | None = None,
    ) -> Decision:
        """
        Make a decision, write it, and apply it. The caller has the lock of the entry.

        If another writer has changed the subscription, it is read again, and the decision is made again.

        :param tails: the tails of streams that the decision may link.
        :raises SubscriptionNotFound: it was deleted.
        :raises SubscriptionsUnavailable: others change it all the time.
        """
        for _ in range(_MAX_CONFLICTS):
            if entry.stale:
                await self.reload(entry)
            current = entry.current
            if current is None:
                raise SubscriptionNotFound(entry.id)
            decision = decide(current)
            if decision.puts:
                decision = self.store.stamped(current, decision)
                noticed = entry.noticed
                # Until the write has succeeded, it is not known what is stored.
                entry.stale = True
                try:
                    await self.store.write(decision.puts, decision.expected)
                except ValuesChanged:
                    continue
                entry.stale = entry.noticed != noticed
                self.store.publish(entry.id)
            self._apply(entry, current, decision, tails or {})
            return decision
        raise SubscriptionsUnavailable("The subscription is being changed by other requests.")

    def _apply(
        self, entry: Entry, current: Current, decision: Decision, tails: Mapping[str, StreamTail | None]
    ) -> None:
        for path, link in decision.links.items():
            if link is None:
                self.index.unlink(path, entry)
            else:
                self.index.link(path, entry)
                if path in tails:
                    self.index.set_tail(path, tails[path])
        entry.current = current.following(decision)
        self._committed(entry, decision)

    async def reload(self, entry: Entry) -> None:
        """Read a subscription again whose stored state is not known, or was changed by another node."""
        if self.shared is not None:
            await self._take_changes(self.shared, entry)
            return
        current = await self.store.reload(entry.id)
        if current is None or current.subscription.birth != entry.birth:
            self.forget(entry)
            return
        before, links = entry.current, current.links
        # From now on, changes of tails are noted in the new links; those before are compared below.
        entry.current = current
        async for path in self._in_slices(links):
            self.index.link(path, entry)
            links.refresh(path)
            if before is None or path not in before.links:
                entry.note(path)
        if before is not None:
            async for path in self._in_slices(before.links):
                if path not in links:
                    self.index.unlink(path, entry)
        entry.stale = False

    async def _take_changes(self, shared: SharedStore, entry: Entry) -> None:
        """Take over what other nodes have changed of a subscription."""
        before, noticed = entry.current, entry.noticed
        found = None if before is None else await shared.changes(before)
        if before is None or found is None:
            self.forget(entry)
            return
        current, changes = found
        await self._link_all(entry, [path for path, link in changes.items() if link and path not in before.links])
        async for path in self._in_slices(changes):
            link = changes[path]
            if link is None:
                self.index.unlink(path, entry)
            else:
                self.index.link(path, entry)
            before.links.apply({path: link})
            self.compare(entry, path)
        entry.current = current
        entry.stale = entry.noticed != noticed

    def compare(self, entry: Entry, path: str) -> None:
        """Note the stream of a link if it is another one than that of the cursor."""
        if entry.current is None:
            return
        links = entry.current.links
        link, tail = links.get(path), links.tail(path)
        if link is not None and link.stream_id != (None if tail is None else tail.stream_id):
            entry.note(path)
        links.refresh(path)

    async def _in_slices(self, paths: Iterable[str]) -> AsyncGenerator[str, None]:
        """Yield paths, and let the reactor do other work after each slice."""
        for count, path in enumerate(list(paths), 1):
            yield path
            if count % _MAX_CHANGES == 0:
                await self._streams.turns.turn()

    def add(self, entry: Entry, current: Current) -> None:
        """Add a subscription that is stored; its links and its pattern are registered already."""
        entry.current = current
        self.entries[entry.id] = entry

    def forget(self, entry: Entry) -> None:
        """Remove a subscription from memory. Its links are unregistered in slices."""
        current, entry.current = entry.current, None
        if self.entries.get(entry.id) is entry:
            del self.entries[entry.id]
        entry.dirty.clear()
        if current is None:
            return
        pattern = current.subscription.config.pattern
        if pattern is not None:
            self.index.remove_pattern(pattern, entry)
        self.unregister(entry, current.links)

    def unregister(self, entry: Entry, paths: Iterable[str]) -> None:
        """Unregister links from the index, in slices of time."""
        rest = iter(list(paths))
        turns = self._streams.turns

        def some() -> None:
            for count, path in enumerate(rest, 1):
                self.index.unlink(path, entry)
                if count == _MAX_CHANGES:
                    turns.add(some)
                    return

        some()

    async def bring_up_to_date(self, entry: Entry) -> None:
        """
        Reconcile a subscription with the streams that have changed, and evaluate it. The caller has its lock.

        If there are too many links, streams that match its pattern are not linked, but noted (``entry.blocked``).
        """
        while entry.dirty and entry.current is not None:
            names = entry.take_noted(_MAX_CHANGES)
            try:
                await self._reconcile(entry, names)
            except BaseException:
                entry.note_again(names)
                raise
            if entry.dirty:
                await self._streams.turns.turn()
        current, now = entry.current, self._seconds()
        if current is not None and (entry.stale or needs_evaluation(current, now)):
            await self.commit(entry, lambda current: self.machine_of(entry.id).evaluate(current, now, draw()))

    async def _reconcile(self, entry: Entry, names: Mapping[str, bool]) -> None:
        tails: dict[str, StreamTail | None] = {}
        at_tail = {name for name, is_older in names.items() if is_older}
        for name, tail in (await self.tails_of(names)).items():
            tails[name] = tail
            self.index.set_tail(name, tail)

        def decide(current: Current) -> Decision:
            for name in tails:
                current.links.refresh(name)
            decision = self.machine_of(entry.id).reconcile(current, tails, self._seconds(), draw(), at_tail)
            added = sum(link is not None and path not in current.links for path, link in decision.links.items())
            if not added or self.index.links + added <= self.max_links:
                return decision
            linked = {name: tail for name, tail in tails.items() if name in current.links}
            entry.blocked.update((name, False) for name in tails if name not in linked)
            return self.machine_of(entry.id).reconcile(current, linked, self._seconds(), draw())

        await self.commit(entry, decide, tails)

    async def tails_of(self, names: Iterable[str]) -> dict[str, StreamTail | None]:
        """Return the tails of streams; None for each that does not exist."""
        if self.shared is None:
            return {name: await tail_of(self._streams, name) for name in names}
        # All look-ups that are under way at the same time are one.
        found = list(names)
        return dict(zip(found, await together(tail_of(self._streams, name) for name in found), strict=True))

    async def add_streams(self, entry: Entry, paths: Iterable[str]) -> None:
        """
        Link streams explicitly. The caller has the lock of the entry.

        :raises SubscriptionLimitReached: there would be too many links.
        :raises InvalidConfig: one is the wake stream.
        """
        current = entry.current
        new = [path for path in paths if current is not None and path not in current.links]
        self.check_room(len(new))
        for path in new:
            # Registered before its tail is read, so that no append after that is missed.
            self.index.link(path, entry)
        try:
            tails = await self.tails_of(paths)
            await self.commit(
                entry,
                lambda current: self.machine_of(entry.id).add_streams(current, tails, self._seconds(), draw()),
                tails,
            )
        except BaseException:
            current = entry.current
            self.unregister(entry, (path for path in new if current is None or path not in current.links))
            raise


async def _nothing_to_read(_: object) -> None:
    """Return at once."""
