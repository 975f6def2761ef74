"""The records of subscriptions in a storage: reading them, links in slices, and the removal of left-overs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

from ..errors import ValuesChanged
from ..interfaces import settle
from ..streams import Streams
from .creating import NEW_RECORD, create, with_shared_strings
from .decisions import Current, Decision
from .errors import CorruptRecord
from .links import LinkTable
from .model import Link, Snapshot, State, StreamTail, Subscription
from .records import (
    LINKS,
    SNAPSHOTS,
    SUBSCRIPTIONS,
    WAKES,
    decode,
    decode_link,
    encode_link,
    link_key,
    links_prefix,
    snapshot_key,
    split_link_key,
    state_key,
    subscription_key,
)

#: How many records are read, and how many links are written, in one step. Each takes a few milliseconds.
PAGE = 500


class Store:
    """
    The records of all subscriptions.

    :param tails: the tails of the existing linked streams; see :class:`.LinkTable`.
    """

    def __init__(self, streams: Streams, tails: Mapping[str, StreamTail]) -> None:
        self._streams = streams
        self._tails = tails

    def stamped(self, current: Current, decision: Decision) -> Decision:
        """Return a decision with the records as they are to be written."""
        return decision

    def publish(self, subscription_id: str) -> None:
        """Tell the other nodes, if there are any, that a subscription has changed."""

    async def count(self, known: int) -> int:
        """
        Return the number of subscriptions.

        :param known: of those that this node has in memory.
        """
        return known

    async def _pages(self, prefix: str, after: str = "") -> AsyncGenerator[list[tuple[str, bytes]], None]:
        while True:
            page = await settle(self._streams.values(prefix, after, PAGE))
            if page:
                yield page
            if len(page) < PAGE:
                return
            after = page[-1][0]
            await self._streams.turns.turn()

    async def write(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        """
        Write records in one step; see :meth:`.IStorage.write_values`.

        :raises ValuesChanged: a record is not the expected one.
        """
        await settle(self._streams.write_values(puts, expected))

    async def write_links(self, subscription: Subscription, links: Mapping[str, Link]) -> None:
        """Write the links of a subscription whose own record is not written yet, at most :data:`PAGE` of them."""
        birth = subscription.birth
        puts = {link_key(subscription.id, path): encode_link(link, birth) for path, link in links.items()}
        if puts:
            await self.write(puts, {})

    async def create(self, subscription: Subscription) -> bytes:
        """
        Write the records of a new subscription, whose links are written.

        :returns: that of its state.
        :raises ValuesChanged: there is a subscription with this id.
        """
        puts, expected = self._creation(subscription, NEW_RECORD)
        await self.write(puts, expected)
        return NEW_RECORD

    @staticmethod
    def _creation(subscription: Subscription, record: bytes) -> tuple[dict[str, bytes | None], dict[str, None]]:
        puts, expected = create(subscription)
        return {**puts, state_key(subscription.id): record}, expected

    async def abandon(self, subscription: Subscription) -> None:
        """Forget a creation that has failed. Its links are removed by :meth:`remove_links`."""

    def deletion(self, current: Current, puts: Mapping[str, bytes | None]) -> Mapping[str, bytes | None]:
        """Return the records to remove with those of a subscription that is deleted, and these."""
        return puts

    async def remove_links(self, subscription_id: str, birth: int) -> None:
        """Remove the links of a subscription that was deleted, in slices; those of another birth stay."""
        async for page in self._pages(links_prefix(subscription_id)):
            await self._remove_all((key, value) for key, value in page if decode_link(key, value)[1] == birth)

    async def load(self) -> dict[str, Current]:
        """
        Read all subscriptions, and remove what crashes have left over of others.

        :returns: them by id. Their tails are not known yet.
        :raises CorruptRecord: a record is damaged, or of another version.
        """
        subscriptions: dict[str, Subscription] = {}
        async for page in self._pages(SUBSCRIPTIONS):
            for key, value in page:
                subscription = with_shared_strings(decode(key, value, Subscription))
                if key != subscription_key(subscription.id):
                    raise CorruptRecord(key, f"it is of the subscription {subscription.id}")
                subscriptions[subscription.id] = subscription
        states = await self._load_states(subscriptions)
        snapshots = await self._load_snapshots(subscriptions)
        links = {subscription_id: LinkTable(self._tails) for subscription_id in subscriptions}
        async for page in self._pages(LINKS):
            await self._load_links(page, subscriptions, links)
        return {
            each.id: _current(each, states.get(each.id), snapshots.get(each.id), links[each.id])
            for each in subscriptions.values()
        }

    async def reload(self, subscription_id: str) -> Current | None:
        """
        Read one subscription again.

        :returns: None if there is none.
        :raises CorruptRecord: a record is damaged, or of another version.
        """
        current = await self._read(subscription_id, LinkTable(self._tails))
        if current is not None:
            current.links.apply(await self._links(subscription_id, current.subscription.birth))
        return current

    async def _read(self, subscription_id: str, links: LinkTable) -> Current | None:
        """Read the records of a subscription besides its links; None if there is none."""
        keys = subscription_key(subscription_id), state_key(subscription_id), snapshot_key(subscription_id)
        values = await self._values(keys)
        if keys[0] not in values:
            return None
        subscription = with_shared_strings(decode(keys[0], values[keys[0]], Subscription))
        state = (decode(keys[1], values[keys[1]], State), values[keys[1]]) if keys[1] in values else None
        snapshot = decode(keys[2], values[keys[2]], Snapshot) if keys[2] in values else None
        return _current(subscription, state, snapshot, links)

    async def _values(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of those of some keys that there are."""
        found = {}
        for key in keys:
            page = await settle(self._streams.values(key, "", 1))
            if page and page[0][0] == key:
                found[key] = page[0][1]
        return found

    async def _links(self, subscription_id: str, birth: int) -> dict[str, Link]:
        """Return the links of a subscription that exists."""
        found: dict[str, Link] = {}
        async for page in self._pages(links_prefix(subscription_id)):
            for key, value in page:
                link, link_birth = decode_link(key, value)
                if link_birth == birth:
                    found[split_link_key(key)[1]] = link
        return found

    async def _load_states(self, subscriptions: Mapping[str, Subscription]) -> dict[str, tuple[State, bytes]]:
        states: dict[str, tuple[State, bytes]] = {}
        async for page in self._pages(WAKES):
            for key, value in page:
                states[key.removeprefix(WAKES)] = decode(key, value, State), value
            await self._remove_all(item for item in page if item[0].removeprefix(WAKES) not in subscriptions)
        return states

    async def _load_snapshots(self, subscriptions: Mapping[str, Subscription]) -> dict[str, Snapshot]:
        snapshots: dict[str, Snapshot] = {}
        async for page in self._pages(SNAPSHOTS):
            for key, value in page:
                snapshots[key.removeprefix(SNAPSHOTS)] = decode(key, value, Snapshot)
            await self._remove_all(item for item in page if item[0].removeprefix(SNAPSHOTS) not in subscriptions)
        return snapshots

    async def _load_links(
        self, page: list[tuple[str, bytes]], subscriptions: Mapping[str, Subscription], links: Mapping[str, LinkTable]
    ) -> None:
        left_over = []
        for key, value in page:
            link, birth = decode_link(key, value)
            subscription_id, path = split_link_key(key)
            subscription = subscriptions.get(subscription_id)
            if subscription is None or subscription.birth != birth:
                left_over.append((key, value))
            else:
                links[subscription_id].apply({path: link})
        await self._remove_all(left_over)

    async def _remove_all(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Remove records in one step; if one has changed meanwhile, one by one those that have not."""
        found = list(items)
        if not found:
            return
        try:
            await self.write(dict.fromkeys(key for key, _ in found), dict(found))
        except ValuesChanged:
            if len(found) > 1:
                for item in found:
                    await self._remove_all([item])


def _current(
    subscription: Subscription, found: tuple[State, bytes] | None, snapshot: Snapshot | None, links: LinkTable
) -> Current:
    """
    Return a subscription as it is stored; a snapshot of an earlier wake is left out.

    :param found: its state, and the record of that; None if there is none.
    :raises CorruptRecord: it has no state.
    """
    if found is None:
        raise CorruptRecord(state_key(subscription.id), "it is missing")
    state, stored = found
    if snapshot is not None and (state.wake is None or snapshot.wake_id != state.wake.wake_id):
        snapshot = None
    return Current(subscription, state, snapshot, links, stored)
