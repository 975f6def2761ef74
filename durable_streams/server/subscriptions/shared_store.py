"""The records of subscriptions in a storage that several nodes share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from ..errors import ValuesChanged
from ..interfaces import ISharedStorage, settle
from ..streams import Streams
from .creating import NEW
from .decisions import Current, Decision
from .errors import SubscriptionsUnavailable
from .model import Link, State, StreamTail, Subscription
from .records import (
    SUBSCRIPTIONS,
    WAKES,
    decode,
    decode_link,
    encode_link,
    link_key,
    links_prefix,
    split_link_key,
    state_key,
)
from .revisions import changed_paths, first_record, stamped
from .store import PAGE, Store

#: Locks of the ids for which a subscription with many links is being created.
_CREATING: Final = "creating/"

#: How many records are written in one step with a subscription that is created or deleted.
_AT_ONCE: Final = 5_000

#: How long a node may take to create a subscription with more links, in seconds.
_CREATION_SECONDS: Final = 600.0


class SharedStore(Store):
    """
    The records of all subscriptions, as this node reads and changes them beside others.

    What others leave over without a subscription is not removed: it may be what they are about to complete.

    :param shared: tells the other nodes of each change.
    :param seconds: returns the time by the clock that all nodes share.
    """

    def __init__(
        self,
        streams: Streams,
        tails: Mapping[str, StreamTail],
        shared: ISharedStorage,
        seconds: Callable[[], float],
    ) -> None:
        super().__init__(streams, tails)
        self._shared = shared
        self._seconds = seconds
        #: The links of subscriptions that are being created, by birth, which are not written yet.
        self._unwritten: dict[int, dict[str, bytes | None]] = {}
        #: The births of those whose ids are locked.
        self._locking: set[int] = set()

    def stamped(self, current: Current, decision: Decision) -> Decision:
        return replace(decision, puts=stamped(current.subscription.id, current.stored, decision.puts))

    def publish(self, subscription_id: str) -> None:
        self._shared.publish(subscription_id)

    async def count(self, known: int) -> int:
        return await settle(self._shared.count_values(SUBSCRIPTIONS))

    async def ids(self, prefix: str = "", after: str = "") -> AsyncGenerator[list[str], None]:
        """Yield the ids of all subscriptions that begin with a prefix, in their order, a page at a time."""
        async for page in self._pages(SUBSCRIPTIONS + prefix, SUBSCRIPTIONS + after if after else ""):
            yield [key.removeprefix(SUBSCRIPTIONS) for key, _ in page]

    async def check(self) -> None:
        """
        Check that all subscriptions can be read, without their links.

        :raises CorruptRecord: a record is damaged, or of another version.
        """
        async for page in self._pages(SUBSCRIPTIONS):
            for key, value in page:
                decode(key, value, Subscription)
        async for page in self._pages(WAKES):
            for key, value in page:
                decode(key, value, State)

    # Reading

    async def stored(self, subscription_ids: Sequence[str]) -> dict[str, bytes | None]:
        """Return the records ``wakes/ID`` of some subscriptions by id; None if there is none."""
        found: dict[str, bytes | None] = {}
        for start in range(0, len(subscription_ids), PAGE):
            some = subscription_ids[start : start + PAGE]
            values = await settle(self._shared.read_values([state_key(each) for each in some]))
            found.update((each, values.get(state_key(each))) for each in some)
        return found

    async def changes(self, known: Current) -> tuple[Current, dict[str, Link | None]] | None:
        """
        Read what others have changed of a subscription.

        :returns: it as it is now, but with its old links; and the links that have changed. None if it was deleted.
        :raises CorruptRecord: a record is damaged, or of another version.
        """
        subscription_id, birth = known.subscription.id, known.subscription.birth
        current = await self._read(subscription_id, known.links)
        if current is None or current.subscription.birth != birth:
            return None
        if current.stored == known.stored:
            return known, {}
        paths = changed_paths(known.stored, current.stored)
        found: dict[str, Link | None]
        if paths is None:
            found = dict.fromkeys(known.links)
            found.update(await self._links(subscription_id, birth))
            return current, found
        found = dict.fromkeys(paths)
        if paths:
            keys = [link_key(subscription_id, path) for path in paths]
            for key, value in (await settle(self._shared.read_values(keys))).items():
                link, link_birth = decode_link(key, value)
                if link_birth == birth:
                    found[split_link_key(key)[1]] = link
        return current, found

    async def _values(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of those of some keys that there are, from one snapshot."""
        found: dict[str, bytes] = await settle(self._shared.read_values(keys))
        return found

    async def _links(self, subscription_id: str, birth: int) -> dict[str, Link]:
        """
        Return the links of a subscription that exists.

        Others of its id are removed: a creation or a deletion that was cut off has left them, and one that is under way
        will fail.
        """
        found: dict[str, Link] = {}
        async for page in self._pages(links_prefix(subscription_id)):
            left_over = []
            for key, value in page:
                link, link_birth = decode_link(key, value)
                if link_birth == birth:
                    found[split_link_key(key)[1]] = link
                else:
                    left_over.append((key, value))
            await self._remove_all(left_over)
        return found

    # Creating and deleting

    async def write_links(self, subscription: Subscription, links: Mapping[str, Link]) -> None:
        """Keep the links, to be written with the subscription in one step; if there are too many, write them now."""
        birth = subscription.birth
        unwritten = self._unwritten.setdefault(birth, {})
        unwritten.update((link_key(subscription.id, path), encode_link(link, birth)) for path, link in links.items())
        if len(unwritten) > _AT_ONCE:
            await self._write_unwritten(subscription)

    async def _write_unwritten(self, subscription: Subscription) -> None:
        unwritten = self._unwritten[subscription.birth]
        # Two nodes that create the same subscription would write the same keys.
        key = _CREATING + subscription.id
        present = (await settle(self._shared.read_values([key]))).get(key)
        owner, until = (0, 0.0) if present is None else msgspec.msgpack.decode(present, type=tuple[int, float])
        now = self._seconds()
        if owner != subscription.birth and until > now:
            raise SubscriptionsUnavailable("Another node is creating this subscription. Retry later.")
        self._locking.add(subscription.birth)
        lock = msgspec.msgpack.encode((subscription.birth, now + _CREATION_SECONDS))
        await self._write_all({key: lock}, {key: present}, subscription)
        puts = dict(unwritten)
        await self._write_all(puts, {key: lock}, subscription)
        unwritten.clear()

    async def _write_all(
        self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None], subscription: Subscription
    ) -> None:
        try:
            await self.write(puts, expected)
        except ValuesChanged:
            raise SubscriptionsUnavailable("Another node is creating this subscription. Retry later.") from None

    async def create(self, subscription: Subscription) -> bytes:
        record = first_record(NEW, subscription.birth)
        puts, expected = self._creation(subscription, record)
        puts.update(self._unwritten.pop(subscription.birth, {}))
        await self.write(puts, expected)
        await self._unlock(subscription)
        self.publish(subscription.id)
        return record

    async def abandon(self, subscription: Subscription) -> None:
        self._unwritten.pop(subscription.birth, None)
        await self._unlock(subscription)

    async def _unlock(self, subscription: Subscription) -> None:
        """Remove the lock of an id if this creation has it."""
        if subscription.birth not in self._locking:
            return
        self._locking.discard(subscription.birth)
        key = _CREATING + subscription.id
        value = (await settle(self._shared.read_values([key]))).get(key)
        if value is not None and msgspec.msgpack.decode(value, type=tuple[int, float])[0] == subscription.birth:
            await self._remove_all([(key, value)])

    def deletion(self, current: Current, puts: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
        subscription_id = current.subscription.id
        found = dict(puts)
        for path in current.links:
            if len(found) >= _AT_ONCE:
                break
            found[link_key(subscription_id, path)] = None
        return found
