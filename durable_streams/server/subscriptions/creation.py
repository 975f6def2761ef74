"""Creation and deletion of subscriptions, in slices: a pattern may match any number of streams."""

from __future__ import annotations

from collections.abc import Callable
from secrets import randbits
from typing import Final

from twisted.logger import Logger

from ..errors import StreamGone, StreamNotFound, StreamsError, ValuesChanged
from ..interfaces import settle
from ..model import StreamStatus
from ..protocol.patterns import matches
from ..streams import Streams
from .configuration import digest
from .creating import NEW, delete, link_at_tail, with_shared_strings
from .decisions import Current
from .entry import Entry
from .errors import InvalidWakeStream, SubscriptionExists, SubscriptionLimitReached, SubscriptionNotFound
from .following import as_tail
from .links import LinkTable
from .model import Link, StreamTail, Subscription, SubscriptionConfig
from .registry import Registry
from .seams import WebhookSender

#: How many streams are listed at a time, which takes about a millisecond.
_PAGE: Final = 128

_JSON: Final = "application/json"

_log = Logger()


class Creator:
    """
    Creates and deletes subscriptions; one at a time for each id, which the caller ensures.

    :param wall: returns the wall clock's time.
    :param max_subscriptions: the maximum number of subscriptions.
    """

    def __init__(
        self,
        streams: Streams,
        registry: Registry,
        sender: WebhookSender,
        wall: Callable[[], float],
        max_subscriptions: int,
    ) -> None:
        self._streams = streams
        self._registry = registry
        self._sender = sender
        self._wall = wall
        self._max_subscriptions = max_subscriptions

    async def create(self, subscription_id: str, config: SubscriptionConfig, base_url: str) -> tuple[Entry, bool]:
        """
        Create a subscription, or confirm that it exists with the same configuration.

        First its pattern is registered, so that no stream that is created meanwhile is missed; then the existing
        streams are listed; its own record is written last.

        :returns: it, and whether it is new.
        :raises SubscriptionExists: it has another configuration.
        :raises SubscriptionLimitReached: there are too many subscriptions or links.
        :raises InvalidWakeStream: the wake stream cannot take wake events.
        :raises WebhookUrlRejected: the URL may not be called.
        """
        registry = self._registry
        existing = await self._existing(subscription_id, config)
        if existing is not None:
            return existing, False
        if await registry.store.count(len(registry.entries)) >= self._max_subscriptions:
            raise SubscriptionLimitReached(self._max_subscriptions, "subscriptions", "subscriptions.max_subscriptions")
        if config.webhook_url is not None:
            await self._sender.check(config.webhook_url)
        if config.wake_stream is not None:
            await self._check_wake_stream(config.wake_stream)
        subscription = with_shared_strings(
            Subscription(subscription_id, randbits(53), config, base_url, self._wall(), digest(config))
        )
        entry = Entry(subscription_id, subscription.birth)
        links = LinkTable(registry.index.tails)
        try:
            if config.pattern is not None:
                registry.index.add_pattern(config.pattern, entry)
            await self._link_explicit(entry, subscription, links)
            if config.pattern is not None:
                await self._link_matching(entry, subscription, links, config.pattern)
            stored = await registry.store.create(subscription)
        except BaseException as error:
            await self._abandon(entry, subscription, links)
            if not isinstance(error, ValuesChanged):
                raise
            # Another node has created it meanwhile.
            existing = await self._existing(subscription_id, config)
            if existing is None:
                raise SubscriptionExists(subscription_id) from None
            return existing, False
        registry.add(entry, Current(subscription, NEW, None, links, stored))
        return entry, True

    async def _existing(self, subscription_id: str, config: SubscriptionConfig) -> Entry | None:
        """
        Return the subscription that exists with the same configuration; None if there is none.

        :raises SubscriptionExists: it has another configuration.
        """
        try:
            current = await self._registry.present(subscription_id)
            if current.subscription.digest != digest(config):
                raise SubscriptionExists(subscription_id)
            return self._registry.find(subscription_id)
        except SubscriptionNotFound:
            return None

    async def _check_wake_stream(self, path: str) -> None:
        try:
            status = await settle(self._streams.status(path))
        except (StreamNotFound, StreamGone):
            raise InvalidWakeStream(path, "does not exist") from None
        if status.closed:
            raise InvalidWakeStream(path, "is closed")
        if status.facts.media_type != _JSON:
            raise InvalidWakeStream(path, f"has the content type {status.facts.media_type}")

    async def _link_explicit(self, entry: Entry, subscription: Subscription, links: LinkTable) -> None:
        paths = subscription.config.streams
        self._registry.check_room(len(paths))
        tails: dict[str, StreamTail | None] = {}
        for path in paths:
            # Registered before its tail is read, so that no append after that is missed.
            self._registry.index.link(path, entry)
        tails.update(await self._registry.tails_of(paths))
        await self._link(entry, subscription, links, tails, explicit=True)

    async def _link_matching(self, entry: Entry, subscription: Subscription, links: LinkTable, pattern: str) -> None:
        after, prefix = "", literal_prefix(pattern)
        while True:
            page: list[StreamStatus] = await settle(self._streams.statuses(after, _PAGE, prefix))
            tails = {
                status.facts.name: as_tail(status)
                for status in page
                if status.facts.name not in links and matches(pattern, status.facts.name)
            }
            if tails:
                self._registry.check_room(len(tails))
                await self._link(entry, subscription, links, tails, explicit=False)
            if len(page) < _PAGE:
                return
            after = page[-1].facts.name
            await self._streams.turns.turn()

    async def _link(
        self,
        entry: Entry,
        subscription: Subscription,
        links: LinkTable,
        tails: dict[str, StreamTail] | dict[str, StreamTail | None],
        explicit: bool,
    ) -> None:
        added: dict[str, Link | None] = {}
        written: dict[str, Link] = {}
        for path, tail in tails.items():
            self._registry.index.link(path, entry)
            self._registry.index.set_tail(path, tail)
            added[path] = written[path] = link_at_tail(tail, explicit)
        links.apply(added)
        await self._registry.store.write_links(subscription, written)

    async def _abandon(self, entry: Entry, subscription: Subscription, links: LinkTable) -> None:
        """Remove what a creation that has failed has left; what cannot be removed now is removed at the next start."""
        config = subscription.config
        if config.pattern is not None:
            self._registry.index.remove_pattern(config.pattern, entry)
        self._registry.unregister(entry, {*links, *config.streams})
        try:
            await self._registry.store.abandon(subscription)
        except StreamsError as error:
            _log.debug("The creation of {id} left a lock: {reason}", id=entry.id, reason=error)
        await self._remove_links(entry)

    async def delete(self, subscription_id: str) -> Entry:
        """
        Delete a subscription.

        :returns: what it was.
        :raises SubscriptionNotFound: there is none.
        """
        registry = self._registry
        entry = await registry.obtain(subscription_id)
        await entry.lock.acquire()
        try:
            while True:
                if entry.stale:
                    await registry.reload(entry)
                if entry.current is None:
                    raise SubscriptionNotFound(subscription_id)
                puts, expected = delete(entry.current)
                entry.stale = True
                try:
                    await registry.store.write(registry.store.deletion(entry.current, puts), expected)
                except ValuesChanged:
                    continue
                break
            registry.store.publish(subscription_id)
            registry.forget(entry)
        finally:
            entry.lock.release()
        await self._remove_links(entry)
        return entry

    async def _remove_links(self, entry: Entry) -> None:
        try:
            await self._registry.store.remove_links(entry.id, entry.birth)
        except Exception:
            _log.failure("Removing the links of {id} failed; the next start removes them.", id=entry.id)


def literal_prefix(pattern: str) -> str:
    """Return what the names of all streams begin with that match a pattern, for a listing."""
    literal: list[str] = []
    for segment in pattern.split("/"):
        if segment in ("*", "**"):
            break
        literal.append(segment)
    return "/".join(literal)
