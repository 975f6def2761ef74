"""The service of subscriptions: state machines, timers and deliveries over the streams of a storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..clocks import IClock, clock_of
from ..interfaces import settle
from ..protocol.names import NameLimits
from ..streams import Streams
from .counts import SubscriptionCounts, SubscriptionFigures
from .creation import Creator
from .decisions import Current, Decision
from .dispatching import Dispatcher
from .entry import Entry
from .errors import SubscriptionsUnavailable, TokenInvalid
from .following import ChangeFollower
from .listing import list_subscriptions
from .locks import KeyedLocks, shielded
from .machine import Machine, check_action
from .model import AckRequest, SubscriptionConfig, TokenClaims
from .partitions import HeldPartitions, SharedClock, partitions_of
from .records import SECRETS
from .recovery import Recovery
from .registry import Registry
from .representation import described
from .requests import Requests
from .seams import KeyRotation, PartitionLease, Parts, SingleNode
from .settings import ServiceSettings
from .updating import Updates

_LOADING: Final = "Subscriptions are not loaded yet."

#: The key of the lock of the secrets; no subscription has this id.
_SECRETS_LOCK: Final = ""


class SubscriptionService(Service):
    """
    Durable cursors over streams that wake workers.

    Methods return Deferreds. To cancel one discards the result; the operation goes on. Each fails with
    :exc:`.SubscriptionsUnavailable` while the service starts or stops, and with the storage's errors.

    :param clock: the reactor, or a Clock.
    :param open_parts: loads or creates the secrets; called once, at the start if there are
        secrets or subscriptions, else when the first one is created.
    :param names: the limits of stream names.
    :param lease: which subscriptions this node is responsible for.
    :param is_eager: whether to call ``open_parts`` at the start in any case.
    :ivar counts: what has happened since the start.
    """

    name = "subscriptions"

    def __init__(
        self,
        streams: Streams,
        clock: IReactorTime,
        open_parts: Callable[[], Awaitable[Parts]],
        settings: ServiceSettings = ServiceSettings(),  # noqa: B008 (frozen)
        names: NameLimits = NameLimits(),  # noqa: B008 (frozen)
        lease: PartitionLease | None = None,
        is_eager: bool = False,
    ) -> None:
        self.settings = settings
        self.names = names
        self.counts = SubscriptionCounts()
        self._streams = streams
        own_clock = clock_of(clock)
        shared = streams.shared
        self._clock: IClock = own_clock if shared is None else SharedClock(own_clock, shared)
        self._lease: PartitionLease = lease or (SingleNode() if shared is None else HeldPartitions(shared))
        self._open_parts = open_parts
        self._is_eager = is_eager
        machine = Machine(attempt_seconds=settings.request_timeout)
        self._registry = Registry(
            streams, machine, self._clock.seconds, self._committed, settings.max_links, self._lease
        )
        self._updates = Updates(self._registry, streams.turns, self._clock, self.counts, self._lease, self._deliver)
        self._changes = ChangeFollower(streams, self._registry.index, self._updates.add)
        # Changes lead to updates, and these read the tails that are not followed.
        self._updates.read_tails = partial(self._changes.read_tails, of_all=False)
        self._updates.read_stale_tails = self._changes.read_stale_tails
        self._partitions = partitions_of(streams, self._registry, self._changes, self._clock, self._updates.take_over)
        comparison = None
        if self._partitions is not None:
            comparison = self._partitions.comparison
            self._partitions.gave_up = self._give_up
            self._registry.prepare = self._prepare
            self._partitions.swept = self._observe
            self._updates.before_sweep = self._partitions.sweep
        self._requests = Requests(
            self._registry, self._changes, self.counts, self._clock.seconds, self._check_ready, comparison
        )
        self._busy_ids = KeyedLocks()
        self._parts: Parts | None = None
        self._obstacle: str | None = _LOADING

    # The service

    def start(self) -> Deferred[None]:
        """
        Load the subscriptions of a storage that is open, and begin to deliver.

        :returns: fails with :exc:`.CorruptRecord`, or with the error of the secrets.
        """
        super().startService()
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        if self._partitions is None:
            self._follow()
            await Recovery(self._streams, self._registry).run()
        secrets = await settle(self._streams.values(SECRETS, "", 1))
        if self._is_eager or secrets or self._registry.entries:
            await self._open()
        if self._obstacle == _LOADING:
            self._obstacle = None
            self._observe()
            self._updates.start(self.settings.sweep_interval)
            if self._partitions is not None:
                await self._partitions.start()

    async def _prepare(self, _: str) -> None:
        """Follow commits before the first subscription is kept, and be able to deliver its wakes."""
        self._follow()
        await self._open()

    def _give_up(self, entry: Entry) -> None:
        """Run no timer and begin no delivery for a subscription that another node is responsible for now."""
        self._updates.forget(entry)
        self._dispatcher.drop(entry)

    async def _open(self) -> Parts:
        """Return the parts. The first call loads or makes the secrets: a server without subscriptions stores none."""
        async with self._busy_ids.hold(_SECRETS_LOCK):
            if self._parts is None:
                self._set_parts(await self._open_parts())
        return self._loaded()

    def _set_parts(self, parts: Parts) -> None:
        self._parts = parts
        self._dispatcher = Dispatcher(
            self._streams,
            self._registry,
            parts,
            self.base_url,
            self._clock,
            self.counts,
            self._updates.retry,
            self.settings.deliveries,
        )
        self._creator = Creator(
            self._streams, self._registry, parts.sender, self._clock.wall, self.settings.max_subscriptions
        )

    def drain(self) -> Deferred[None]:
        """Begin no more deliveries, and refuse requests; fires when the deliveries have ended or were cut."""
        self._obstacle = "The server is stopping."
        self._updates.stop()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        left = None if self._partitions is None else self._partitions.stop()
        if self._parts is not None:
            await self._dispatcher.stop(self.settings.drain_timeout)
        if left is not None:
            await left

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._streams.observe(None)
        return self.drain()

    def reload(self) -> None:
        """Read the files of webhooks again; log errors. Files that are not in use yet are read before they are."""
        if self._parts is not None:
            self._parts.reload()

    def obstacle(self) -> str | None:
        """Return why requests are refused, as a sentence, or None."""
        return self._obstacle

    # Requests

    def create(self, subscription_id: str, config: SubscriptionConfig, base_url: str) -> Deferred[bool]:
        """
        Create a subscription, or confirm that it exists with the same configuration; see :meth:`.Creator.create`.

        :param base_url: the URL of the streams' base path as the client sees it.
        :returns: fires with whether it is new.
        """
        return shielded(self._create(subscription_id, config, base_url))

    def delete(self, subscription_id: str) -> Deferred[None]:
        """
        Delete a subscription.

        :returns: fails with :exc:`.SubscriptionNotFound`.
        """
        return shielded(self._delete(subscription_id))

    def describe(self, subscription_id: str, after: str = "") -> Deferred[dict[str, object]]:
        """
        Return the representation of a subscription.

        :param after: leave out its streams up to this path.
        :returns: fails with :exc:`.SubscriptionNotFound`.
        """
        return shielded(self._describe(subscription_id, after))

    def add_streams(self, subscription_id: str, paths: Sequence[str]) -> Deferred[None]:
        """
        Link streams explicitly.

        :returns: fails with :exc:`.SubscriptionNotFound`, :exc:`.SubscriptionLimitReached`, or :exc:`.InvalidConfig` if
            one is the wake stream.
        """
        return shielded(self._requests.add_streams(subscription_id, paths))

    def remove_stream(self, subscription_id: str, path: str) -> Deferred[None]:
        """
        Remove an explicit link; if there is none, do nothing.

        :returns: fails with :exc:`.SubscriptionNotFound`.
        """
        return shielded(self._requests.remove_stream(subscription_id, path))

    def claim(self, subscription_id: str, worker: str) -> Deferred[dict[str, object]]:
        """
        Give the lease of a pull-wake subscription to a worker.

        :returns: fires with the answer; fails with :exc:`.AlreadyClaimed` or :exc:`.NoPendingWork`.
        """
        return shielded(self._claim(subscription_id, worker))

    async def check_exists(self, subscription_id: str) -> None:
        """
        Check that there is a subscription.

        :raises SubscriptionNotFound: there is none.
        :raises SubscriptionsUnavailable: the service starts or stops.
        """
        self._check_ready()
        await self._registry.present(subscription_id)

    async def check_action(self, subscription_id: str, action: str) -> None:
        """
        Check that there is a subscription, and that it has an action; see :func:`.check_action`.

        :raises SubscriptionNotFound: there is none.
        :raises InvalidSubscriptionRequest: it is of the other delivery type.
        :raises SubscriptionsUnavailable: the service starts or stops.
        """
        self._check_ready()
        current = await self._registry.present(subscription_id)
        check_action(current.subscription.config, action)

    def verify(self, subscription_id: str, token: str) -> TokenClaims:
        """
        Return the claims of a token of a subscription.

        :raises TokenInvalid: it is malformed, not authentic, or of another subscription.
        """
        return self._loaded().tokens.verify(token, subscription_id)

    async def verify_first(self, subscription_id: str, token: str) -> TokenClaims:
        """
        Return the claims of a token of a subscription, which need not exist.

        :raises TokenInvalid: it is malformed, not authentic, or of another subscription.
        :raises SubscriptionsUnavailable: the service starts or stops.
        """
        self._check_ready()
        if self._parts is None and not await settle(self._streams.values(SECRETS, "", 1)):
            # Without secrets, no token was ever issued; and none are stored because somebody has sent one.
            raise TokenInvalid
        return (await self._open()).tokens.verify(token, subscription_id)

    def ack(self, subscription_id: str, claims: TokenClaims, request: AckRequest) -> Deferred[dict[str, object]]:
        """
        Acknowledge offsets, extend the lease, or end the wake.

        :returns: fires with the answer; fails with :exc:`.Fenced` or :exc:`.InvalidAckOffset`.
        """
        return shielded(self._requests.ack(subscription_id, claims, request))

    def release(self, subscription_id: str, claims: TokenClaims, request: AckRequest) -> Deferred[None]:
        """
        End a claim without an ack.

        :returns: fails with :exc:`.Fenced`.
        """
        return shielded(self._requests.release(subscription_id, claims, request))

    def jwks(self) -> Deferred[bytes]:
        """Return the public signing keys."""
        return shielded(self._jwks())

    def rotate_key(self) -> Deferred[KeyRotation]:
        """
        Sign webhooks with a new key. The present one stays in the key set for 10 minutes.

        :returns: fails with :exc:`.KeyRotationRefused`.
        """
        return shielded(self._rotate_key())

    def base_url(self, entry: Entry) -> str:
        """Return the URL of the streams' base path in what a subscription says of itself."""
        settings = self.settings
        if settings.public_url is not None:
            return settings.public_url.rstrip("/") + settings.base_path.rstrip("/")
        return "" if entry.current is None else entry.current.subscription.base_url

    def currents(self, after: str = "", prefix: str = "") -> AsyncGenerator[Current, None]:
        """Yield all subscriptions, by id; see :func:`.list_subscriptions`."""
        return list_subscriptions(self._registry, after, prefix)

    def figures(self) -> SubscriptionFigures:
        """Return the numbers of subscriptions and deliveries."""
        subscriptions: Counter[tuple[str, str]] = Counter()
        for entry in self._registry.entries.values():
            if entry.current is not None and self._lease.holds(entry.id):
                subscriptions[entry.current.subscription.config.type, entry.current.state.status] += 1
        lag, loaded = self._updates.lag, self._parts is not None
        return SubscriptionFigures(
            subscriptions,
            self.links,
            lag.pending_bytes,
            0.0 if lag.oldest is None else max(0.0, self._clock.seconds() - lag.oldest),
            self._dispatcher.waiting if loaded else 0,
            self._dispatcher.running if loaded else 0,
            self.counts,
            {} if self._parts is None else dict(self._parts.failures),
            None if self._partitions is None else self._partitions.held,
        )

    @property
    def links(self) -> int:
        """The number of links."""
        return self._registry.index.links

    def note_trace(self, name: str, incarnation: int, begin: int, end: int, parent: bytes, state: bytes) -> None:
        """Remember the trace of a write for the delivery that it causes; see :meth:`.DeliveryTraces.note`."""
        if self._parts is not None and self._registry.entries and not self._registry.index.unmatched(name):
            self._parts.traces.note(name, incarnation, begin, end, parent, state)

    # Requests, in steps

    def _check_ready(self) -> None:
        if self._obstacle is not None:
            raise SubscriptionsUnavailable(self._obstacle)

    def _loaded(self) -> Parts:
        if self._parts is None:
            raise SubscriptionsUnavailable(self._obstacle or "")
        return self._parts

    async def _create(self, subscription_id: str, config: SubscriptionConfig, base_url: str) -> bool:
        self._check_ready()
        await self._open()
        try:
            async with self._busy_ids.hold(subscription_id):
                self._check_ready()
                self._follow()
                entry, is_new = await self._creator.create(subscription_id, config, base_url)
        finally:
            self._observe()
        if entry.dirty:
            self._updates.add(entry)
        return is_new

    async def _delete(self, subscription_id: str) -> None:
        self._check_ready()
        await self._registry.obtain(subscription_id)
        async with self._busy_ids.hold(subscription_id):
            entry = await self._creator.delete(subscription_id)
            self._updates.forget(entry)
            self._dispatcher.drop(entry)
        self._observe()

    async def _jwks(self) -> bytes:
        self._check_ready()
        keys = (await self._open()).keys
        await keys.refresh()
        return keys.jwks()

    async def _rotate_key(self) -> KeyRotation:
        self._check_ready()
        return await (await self._open()).keys.rotate()

    async def _describe(self, subscription_id: str, after: str) -> dict[str, object]:
        async def describe(entry: Entry, current: Current) -> dict[str, object]:
            return described(current, self.base_url(entry), self._loaded().keys.kid, after)

        if self._parts is not None:
            await self._parts.keys.refresh()
        return await self._requests.locked(subscription_id, describe)

    async def _claim(self, subscription_id: str, worker: str) -> dict[str, object]:
        await self.check_action(subscription_id, "claim")
        return await self._requests.claim(subscription_id, worker, self._loaded().tokens)

    # Updates

    def _observe(self) -> None:
        """Follow commits as long as there are subscriptions."""
        if self.running and (self._registry.entries or self._busy_ids or self._registry.is_loading):
            self._follow()
        else:
            self._streams.observe(None)

    def _follow(self) -> None:
        self._streams.observe(self._changes.committed, self._registry.index.quiet)

    def _committed(self, entry: Entry, decision: Decision) -> None:
        self._updates.committed(entry, decision)

    def _deliver(self, entry: Entry, wake_id: str) -> None:
        self._dispatcher.add(entry, wake_id)
