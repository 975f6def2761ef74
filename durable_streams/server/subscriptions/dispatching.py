"""Sending of wakes: from a delivery that is due, by way of its durable begin, to its durable outcome."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..errors import StreamsError
from ..interfaces import settle
from ..model import Append, Writer
from ..protocol.content import JSON_TYPE
from ..protocol.messages import wire_form
from ..streams import Streams
from .addresses import parse_webhook_url
from .counts import SubscriptionCounts
from .delivery_queue import DeliveryQueue, Lane
from .entry import Entry
from .errors import SubscriptionNotFound, WebhookUrlRejected
from .model import AppendWakeEvent, DeliverWebhook, Outcome, TokenClaims
from .registry import Registry, draw
from .representation import callback_url, webhook_body
from .seams import Parts

#: How many wake events are appended at once, and at most so many to one wake stream.
_MAX_EVENTS: Final = 64

#: How many webhooks are sent to one host at once.
MAX_PER_HOST: Final = 4

#: Of the deliveries to one host at once, how many have failed before.
_MAX_HOST_RETRIES: Final = 1

#: The interval between attempts to save the outcome of a delivery, in seconds.
_SAVE_INTERVAL: Final = 1.0

_log = Logger()


class Dispatcher:
    """
    Delivers wakes: first attempts of webhooks, retries of webhooks, and wake events, each in a lane of its own.

    A quarter of the slots is for webhooks that have failed before, so that the first attempts of others do not wait for
    receivers that hang.

    :param base_url: returns the URL of the streams' base path, for a subscription's callback URL.
    :param retry: updates a subscription later whose delivery could not begin.
    :param max_deliveries: the maximum number of webhooks that are sent at once.
    """

    def __init__(
        self,
        streams: Streams,
        registry: Registry,
        parts: Parts,
        base_url: Callable[[Entry], str],
        clock: IReactorTime,
        counts: SubscriptionCounts,
        retry: Callable[[Entry], None],
        max_deliveries: int,
    ) -> None:
        self._streams = streams
        self._registry = registry
        self._sender = parts.sender
        self._keys = parts.keys
        self._tokens = parts.tokens
        self._traces = parts.traces
        self._base_url = base_url
        self._clock = clock
        self._counts = counts
        self._retry = retry
        for_retries = max(1, max_deliveries // 4)
        self._queue = DeliveryQueue(clock)
        self._first_attempts = Lane(max(1, max_deliveries - for_retries), MAX_PER_HOST - _MAX_HOST_RETRIES)
        # The only slot, if there is but one, is for both.
        self._retries = Lane(for_retries, _MAX_HOST_RETRIES) if max_deliveries > 1 else self._first_attempts
        self._events = Lane(_MAX_EVENTS, _MAX_EVENTS)
        self._stopping = False
        #: Why the last delivery was not begun; empty if it was.
        self._refusal = ""

    @property
    def waiting(self) -> int:
        """The number of deliveries that wait for a slot."""
        return self._queue.waiting

    @property
    def running(self) -> int:
        """The number of deliveries that run."""
        return self._queue.running

    def add(self, entry: Entry, wake_id: str) -> None:
        """Queue the delivery of a wake. While another one of the subscription is queued or runs, it comes after it."""
        entry.due = wake_id
        current = entry.current
        if self._stopping or entry.delivering or current is None:
            return
        config = current.subscription.config
        # Set before: the delivery may have ended when it is queued.
        entry.delivering = True
        if config.webhook_url is not None:
            wake, host = current.state.wake, _host(config.webhook_url)
            lane = self._retries if wake is not None and wake.failures > 0 else self._first_attempts
        else:
            lane, host = self._events, config.wake_stream or ""
        if not self._queue.put(lane, _key(entry), host, lambda: self._deliver(entry)):
            entry.delivering = False
            self._retry(entry)

    def drop(self, entry: Entry) -> None:
        """Remove the delivery of a deleted subscription if it waits."""
        entry.due = None
        if self._queue.discard(_key(entry)):
            entry.delivering = False

    async def stop(self, drain_seconds: float) -> None:
        """Begin no more deliveries, and wait for those that run; they are cut after the drain time."""
        self._stopping = True
        await self._queue.stop(drain_seconds)

    def _deliver(self, entry: Entry) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deliver_due(entry)).addBoth(self._delivered, entry)

    def _delivered(self, result: object, entry: Entry) -> object:
        entry.delivering = False
        if entry.due is not None and entry.current is not None and not self._stopping:
            # The queue still has this job's key until its Deferred has fired.
            self._clock.callLater(0, self._again, entry)
        return result

    def _again(self, entry: Entry) -> None:
        if entry.due is not None:
            self.add(entry, entry.due)

    async def _deliver_due(self, entry: Entry) -> None:
        wake_id, entry.due = entry.due, None
        if wake_id is None or self._stopping or not self._registry.lease.holds(entry.id):
            return
        await entry.lock.acquire()
        try:
            if entry.current is None:
                return
            wake = entry.current.state.wake
            retry = wake is not None and wake.failures > 0
            machine = self._registry.machine_of(entry.id)
            decision = await self._registry.commit(
                entry, lambda current: machine.attempt(current, wake_id, self._clock.seconds())
            )
        except SubscriptionNotFound:
            return
        except StreamsError as error:
            # A full or failed disk causes the same error for all subscriptions, each second: log it once.
            if self._refusal != str(error):
                self._refusal = str(error)
                _log.warn("Subscription {id}: no delivery was begun: {reason}", id=entry.id, reason=error)
            self._retry(entry)
            return
        finally:
            entry.lock.release()
        self._refusal = ""
        for effect in decision.effects:
            if isinstance(effect, DeliverWebhook):
                outcome = await self._send_webhook(entry, effect)
            elif isinstance(effect, AppendWakeEvent):
                outcome = await self._append_event(entry, effect)
            else:
                continue
            self._counts.retries += retry
            await self._save(entry, effect.wake_id, outcome)

    async def _send_webhook(self, entry: Entry, effect: DeliverWebhook) -> Outcome:
        token = self._tokens.issue(TokenClaims(entry.id, effect.generation, effect.wake_id))
        body = webhook_body(entry.id, effect, callback_url(self._base_url(entry), entry.id), token)
        await self._keys.refresh()
        begun = perf_counter()
        outcome = await self._sender.send(entry.id, effect.url, body, self._traces.context(effect))
        self._counts.delivery_seconds.add(perf_counter() - begun)
        self._counts.deliveries["webhook", outcome.value] += 1
        return outcome

    async def _append_event(self, entry: Entry, effect: AppendWakeEvent) -> Outcome:
        data = wire_form(msgspec.json.encode(effect.event))
        append = Append(JSON_TYPE, data, writer=Writer(effect.writer_id, effect.generation, 0))
        outcome = Outcome.ACCEPTED
        try:
            await settle(self._streams.append(effect.wake_stream, append))
        except StreamsError as error:
            outcome = Outcome.FAILED
            _log.warn(
                "Subscription {id}: the wake event was not appended to {stream} and will be retried: {reason}",
                id=entry.id,
                stream=effect.wake_stream,
                reason=error,
            )
        self._counts.deliveries["pull-wake", outcome.value] += 1
        return outcome

    async def _save(self, entry: Entry, wake_id: str, outcome: Outcome) -> None:
        """Record an outcome; if the storage cannot take it, keep the slot and try again."""
        ended_at = self._clock.seconds()
        logged = ""
        while True:
            await entry.lock.acquire()
            try:
                machine = self._registry.machine_of(entry.id)
                await self._registry.commit(
                    entry, partial(machine.outcome, wake_id=wake_id, outcome=outcome, now=ended_at, draw=draw())
                )
            except SubscriptionNotFound:
                return
            except StreamsError as error:
                if self._stopping:
                    return
                if logged != str(error):
                    logged = str(error)
                    _log.warn(
                        "Subscription {id}: the outcome of a delivery is not saved yet: {reason}",
                        id=entry.id,
                        reason=error,
                    )
            else:
                return
            finally:
                entry.lock.release()
            await deferLater(self._clock, _SAVE_INTERVAL)


def _key(entry: Entry) -> str:
    return f"{entry.id}/{entry.birth}"


def _host(url: str) -> str:
    """Return the host of a webhook URL, by which concurrent deliveries are limited."""
    try:
        return parse_webhook_url(url).host
    except WebhookUrlRejected:
        return url
