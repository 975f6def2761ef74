"""Python callables that receive the wakes of subscriptions, in place of webhooks."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..subscriptions import Outcome, TraceContext, WebhookSender, WebhookUrlRejected

#: What the URL of a receiver in the program begins with, in the configuration of its subscription; the id follows.
RECEIVER_SCHEME: Final = "python:"

#: How long, in seconds, a wake waits for the receiver of its subscription before it counts as failed.
RECEIVER_PATIENCE: Final = 5.0

_log = Logger()


class PendingStream(Struct, frozen=True):
    """
    A stream of a subscription at the time of a wake.

    :ivar link_type: ``explicit``, or ``glob`` if the pattern alone links it.
    :ivar acked_offset: the cursor: read from here. ``-1`` if the stream does not exist.
    :ivar tail_offset: the tail at that time.
    :ivar has_pending: whether there was data after the cursor.
    """

    path: str
    link_type: str
    acked_offset: str
    tail_offset: str
    has_pending: bool


class Work(Struct, frozen=True):
    """
    What a worker has to do: a wake that it has claimed, or that its receiver is called with.

    :ivar generation: grows with each wake. As the epoch of a writer, it stops appends of workers that have lost their
        lease.
    :ivar streams: the linked streams, sorted by path; if there are more than 1,000, the first 1,000 pending ones.
    :ivar token: allows to acknowledge this wake. It is a secret.
    """

    subscription_id: str
    wake_id: str
    generation: int
    streams: tuple[PendingStream, ...]
    token: str

    @property
    def pending(self) -> tuple[PendingStream, ...]:
        """The streams that have pending data."""
        return tuple(stream for stream in self.streams if stream.has_pending)


#: Is called with the work of a wake; the work is done when it has returned and, if it returns an awaitable, that has
#: fired.
Receiver = Callable[[Work], Any]


def work_of(subscription_id: str, wake: dict[str, Any], token: str) -> Work:
    """Return the work in the answer to a claim, or in the body of a webhook."""
    streams = tuple(PendingStream(**stream) for stream in wake["streams"])
    return Work(subscription_id, wake["wake_id"], wake["generation"], streams, token)


class Receivers:
    """The receivers of a program, by the ids of their subscriptions."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._receivers: dict[str, Receiver] = {}
        self._accepted: set[str] = set()
        self._missed: dict[str, list[Deferred[None]]] = {}

    def remove(self, subscription_id: str) -> None:
        """Remove the receiver of a subscription, if it has one."""
        self._receivers.pop(subscription_id, None)

    @contextmanager
    def adding(self, subscription_id: str, receiver: Receiver) -> Iterator[None]:
        """
        Set the receiver of a subscription, which is created or confirmed in the block.

        Its URL is accepted only meanwhile: HTTP clients may not choose such URLs.
        """
        before = self._receivers.get(subscription_id)
        self._receivers[subscription_id] = receiver
        self._accepted.add(subscription_id)
        try:
            yield
        except BaseException:
            self.remove(subscription_id)
            if before is not None:
                self._receivers[subscription_id] = before
            raise
        finally:
            self._accepted.discard(subscription_id)
        for missed in self._missed.pop(subscription_id, []):
            missed.callback(None)

    async def _find(self, subscription_id: str) -> Receiver | None:
        """Return the receiver of a subscription. After a start, wait a while until the program has set it."""
        if subscription_id not in self._receivers:
            missed: Deferred[None] = Deferred()
            self._missed.setdefault(subscription_id, []).append(missed)
            timer = self._clock.callLater(RECEIVER_PATIENCE, missed.cancel)
            try:
                await missed
            except CancelledError:
                self._missed.get(subscription_id, [missed]).remove(missed)
            finally:
                if timer.active():
                    timer.cancel()
        return self._receivers.get(subscription_id)

    def accepts(self, url: str) -> bool:
        """Return whether a subscription with this URL is being created by the program."""
        return url.removeprefix(RECEIVER_SCHEME) in self._accepted

    async def call(self, subscription_id: str, url: str, body: bytes) -> Outcome:
        """Call a receiver, and wait for it. A failure is logged."""
        receiver = await self._find(subscription_id)
        if receiver is None or url != RECEIVER_SCHEME + subscription_id:
            _log.warn(
                "Subscription {id} has no receiver yet and will be tried again. Call subscribe() with its receiver.",
                id=subscription_id,
            )
            return Outcome.FAILED
        wake = json.loads(body)
        try:
            result = receiver(work_of(subscription_id, wake, wake["callback_token"]))
            if inspect.isawaitable(result):
                await result
        except CancelledError:
            raise  # the service stops: the wake has no outcome, and comes again after the next start
        except Exception:
            _log.failure("The receiver of subscription {id} failed and will be called again.", id=subscription_id)
            return Outcome.FAILED
        return Outcome.DONE


class ReceiverSender:
    """
    Sends webhooks over the network, and calls the receivers of the program.

    :param network: sends all that is not for a receiver.
    """

    def __init__(self, network: WebhookSender, receivers: Receivers) -> None:
        self._network = network
        self._receivers = receivers

    async def check(self, url: str) -> None:
        """
        Check that a subscription may have this URL.

        :raises WebhookUrlRejected: it may not.
        """
        if not url.startswith(RECEIVER_SCHEME):
            await self._network.check(url)
        elif not self._receivers.accepts(url):
            raise WebhookUrlRejected("webhook.url is that of a receiver in the program. Send an https URL.")

    async def send(self, subscription_id: str, url: str, body: bytes, trace: TraceContext) -> Outcome:
        """Make one delivery attempt."""
        if url.startswith(RECEIVER_SCHEME):
            return await self._receivers.call(subscription_id, url, body)
        return await self._network.send(subscription_id, url, body, trace)
