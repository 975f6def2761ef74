"""Subscriptions of a program's own streams: workers in the program, Python callables as receivers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred

from ..model import Offset
from ..subscriptions import (
    Ack,
    AckRequest,
    InvalidConfig,
    InvalidSubscriptionRequest,
    SubscriptionService,
    check_id,
    read_config,
    read_worker,
)
from .receivers import RECEIVER_SCHEME, Receiver, Receivers, Work, work_of

T = TypeVar("T")


class Subscriptions:
    """
    Subscribe to streams, claim and acknowledge work. Its instance is :attr:`.StreamService.subscriptions`.

    Methods return Deferreds, and fail with the errors of ``durable_streams.server.subscriptions`` under the same
    conditions as HTTP requests; with :exc:`.SubscriptionNotFound` if there is no such subscription; and with
    :exc:`.Unavailable` or :exc:`.SubscriptionsUnavailable` if the service is not started or has stopped.

    :param when_running: waits until the service of streams has started; raises :exc:`.Unavailable`.
    """

    def __init__(
        self, service: SubscriptionService, receivers: Receivers, when_running: Callable[[], Awaitable[None]]
    ) -> None:
        self._service = service
        self._receivers = receivers
        self._when_running = when_running

    def subscribe(
        self,
        subscription_id: str,
        receiver: Receiver | None = None,
        *,
        pattern: str | None = None,
        names: Iterable[str] = (),
        url: str | None = None,
        wake_stream: str | None = None,
        lease: float = 30.0,
        description: str | None = None,
    ) -> Deferred[bool]:
        """
        Create a subscription, or confirm that it exists with the same configuration (PROTOCOL section 6.2).

        Give one of ``receiver``, ``url`` and ``wake_stream``.

        :param receiver: is called with the :class:`Work` of each wake. What it returns is awaited; then all is
            acknowledged up to the tails in the work. If it fails, that is logged, and it is called again after 1, 2, 4
            ... 60 seconds. It is not stored: subscribe again after each start; until then, wakes wait.
        :param pattern: of the names of streams: ``*`` is one segment, ``**`` any number.
        :param names: streams that are linked explicitly.
        :param url: of a webhook; needs ``http.public_url``.
        :param wake_stream: the name of a JSON stream that gets an event for each wake; workers claim then.
        :param lease: the time in seconds, 1 to 600, after which a wake without acks is given to another worker.
        :returns: fires with whether it is new.
        :raises SubscriptionExists: it has another configuration.
        :raises SubscriptionError: the configuration is invalid, or a maximum is reached.
        """
        return self._run(
            self._subscribe, subscription_id, receiver, pattern, list(names), url, wake_stream, lease, description
        )

    def unsubscribe(self, subscription_id: str) -> Deferred[None]:
        """Delete a subscription."""

        async def delete() -> None:
            await self._service.delete(subscription_id)
            self._receivers.remove(subscription_id)

        return self._run(delete)

    def describe(self, subscription_id: str, after: str = "") -> Deferred[dict[str, Any]]:
        """
        Return the representation of a subscription, as a GET does.

        :param after: leave out its streams up to this path: at most 1,000 are returned.
        """

        async def describe() -> dict[str, Any]:
            return dict(await self._service.describe(subscription_id, after))

        return self._run(describe)

    def claim(self, subscription_id: str, worker: str) -> Deferred[Work]:
        """
        Take the lease of a subscription with a wake stream.

        :raises NoPendingWork: there is nothing to do.
        :raises AlreadyClaimed: a worker has it.
        """

        async def claim() -> Work:
            name = read_worker(msgspec.json.encode({"worker": worker}))
            answer = await self._service.claim(subscription_id, name)
            return work_of(subscription_id, answer, str(answer["token"]))

        return self._run(claim)

    def ack(
        self, work: Work, offsets: Mapping[str, str | Offset] | None = None, *, done: bool = False
    ) -> Deferred[bool]:
        """
        Acknowledge data, and extend the lease or end the work.

        :param offsets: by path, the ``next_offset`` up to which a stream is processed; None for none. All are applied,
            or none.
        :param done: whether the work ends.
        :returns: fires with whether there is more work already.
        :raises Fenced: the lease is over, or the work has ended.
        :raises InvalidAckOffset: a stream is not linked, or an offset is before its cursor or after its tail.
        """

        async def ack() -> bool:
            acks = tuple(Ack(path, str(offset)) for path, offset in (offsets or {}).items())
            request = AckRequest(work.wake_id, work.generation, acks, done)
            await self._service.check_exists(work.subscription_id)
            claims = self._service.verify(work.subscription_id, work.token)
            return bool((await self._service.ack(work.subscription_id, claims, request))["next_wake"])

        return self._run(ack)

    def release(self, work: Work) -> Deferred[None]:
        """
        Give claimed work back without an ack.

        :raises Fenced: the lease is over, or the work has ended.
        """

        async def release() -> None:
            await self._service.check_exists(work.subscription_id)
            claims = self._service.verify(work.subscription_id, work.token)
            await self._service.release(work.subscription_id, claims, AckRequest(work.wake_id, work.generation))

        return self._run(release)

    # Implementation

    def _run(self, operation: Callable[..., Awaitable[T]], *arguments: Any) -> Deferred[T]:
        return Deferred.fromCoroutine(self._perform(operation, *arguments))

    async def _perform(self, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        await self._when_running()
        return await operation(*arguments)

    async def _subscribe(
        self,
        subscription_id: str,
        receiver: Receiver | None,
        pattern: str | None,
        names: list[str],
        url: str | None,
        wake_stream: str | None,
        lease: float,
        description: str | None,
    ) -> bool:
        if [receiver, url, wake_stream].count(None) != 2:
            raise InvalidSubscriptionRequest("Give one of receiver, url and wake_stream.")
        public_url = self._service.settings.public_url
        if url is not None and public_url is None:
            raise InvalidConfig("url", "A webhook needs http.public_url, the URL of this server for callbacks. Set it.")
        check_id(subscription_id)
        body: dict[str, Any] = {
            "pattern": pattern,
            "streams": names,
            "lease_ttl_ms": round(lease * 1000),
            "description": description,
        }
        if wake_stream is not None:
            body |= {"type": "pull-wake", "wake_stream": wake_stream}
        else:
            body |= {"type": "webhook", "webhook": {"url": url or RECEIVER_SCHEME + subscription_id}}
        config = read_config(msgspec.json.encode(body), self._service.names)
        with nullcontext() if receiver is None else self._receivers.adding(subscription_id, receiver):
            return await self._service.create(subscription_id, config, public_url or "")
