"""A service of subscriptions on a Clock, over a storage of the test's choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import START, Append, StreamConfig
from durable_streams.server.protocol.messages import wire_form
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.subscriptions.errors import KeyRotationRefused, WebhookUrlRejected
from durable_streams.server.subscriptions.model import (
    Ack,
    AckRequest,
    Outcome,
    SubscriptionConfig,
)
from durable_streams.server.subscriptions.seams import KeyRotation, Parts
from durable_streams.server.subscriptions.service import SubscriptionService
from durable_streams.server.subscriptions.settings import ServiceSettings
from durable_streams.server.subscriptions.tokens import Tokens
from durable_streams.server.subscriptions.tracing import TraceContext

#: Answers a webhook: called with its body.
Receiver = Callable[[dict[str, Any]], "Outcome | Deferred[Outcome]"]

URL = "https://worker.example/hook"
BASE = "https://streams.example/v1/stream"


def webhook(pattern: str | None = "events/*", *streams: str, lease: int = 10_000) -> SubscriptionConfig:
    """Return the configuration of a webhook."""
    return SubscriptionConfig("webhook", pattern, streams, URL, lease_ttl_ms=lease)


def pull(pattern: str | None = "events/*", *streams: str, lease: int = 10_000) -> SubscriptionConfig:
    """Return the configuration of a pull-wake subscription whose wake stream is ``wakes``."""
    return SubscriptionConfig("pull-wake", pattern, streams, wake_stream="wakes", lease_ttl_ms=lease)


class Callables:
    """
    Sends webhooks to a Python callable.

    :ivar bodies: what was sent.
    :ivar receive: the receiver.
    :ivar opened: how often the secrets were loaded.
    """

    kid = "ds_test"

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.traces: list[TraceContext] = []
        self.opened = 0
        self.tokens = Tokens(bytes(32))
        self.receive: Receiver = lambda body: Outcome.ACCEPTED

    async def open(self) -> Parts:
        self.opened += 1
        return Parts(self, self, self.tokens)

    async def check(self, url: str) -> None:
        if not url.startswith("https:"):
            raise WebhookUrlRejected("webhook.url must begin with https://.")

    async def send(self, subscription_id: str, url: str, body: bytes, trace: TraceContext) -> Outcome:
        self.bodies.append(json.loads(body))
        self.traces.append(trace)
        outcome = self.receive(self.bodies[-1])
        return outcome if isinstance(outcome, Outcome) else await outcome

    def jwks(self) -> bytes:
        return b'{"keys":[]}'

    async def refresh(self) -> None:
        """Do nothing: no other node rotates the key."""

    async def rotate(self) -> KeyRotation:
        raise KeyRotationRefused("These tests have no key.")


class Serving:
    """
    A running service.

    :param storage: opened and closed here.
    :ivar parts: receives the webhooks.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        storage: IStorage | None = None,
        clock: Clock | None = None,
        settings: ServiceSettings | None = None,
    ) -> None:
        if clock is None:
            clock = Clock()
            clock.advance(1_000_000)
        self.case = case
        self.clock = clock
        self.storage = storage or MemoryStorage()
        self.streams = Streams(self.storage, clock)
        self.streams.startService()
        self.parts = Callables()
        self.service = SubscriptionService(self.streams, clock, self.parts.open, settings or ServiceSettings())
        self.get(self.service.start())

    # The clock

    def work(self) -> None:
        """Let everything run that is to run now."""
        for _ in range(50):
            self.clock.advance(0)

    def turn(self) -> None:
        """Run the next call that is due now, and nothing that it schedules."""
        if self.clock.calls and self.clock.calls[0].getTime() <= self.clock.seconds():
            call = self.clock.calls.pop(0)
            call.called = 1
            call.func(*call.args, **call.kw)

    def advance(self, seconds: float) -> None:
        self.work()
        self.clock.advance(seconds)
        self.work()

    def get(self, deferred: Deferred[Any]) -> Any:
        """Return a result that needs no time."""
        self.work()
        return self.case.successResultOf(deferred)

    def fails(self, deferred: Deferred[Any], error: type[Exception]) -> Any:
        self.work()
        return self.case.failureResultOf(deferred, error).value

    # Streams

    def put(self, name: str, *messages: object) -> None:
        """Create a JSON stream."""
        created: Any = self.streams.create(name, StreamConfig("application/json"), json.dumps(messages).encode())
        self.assert_now(created)

    def append(self, name: str, message: object = 1) -> None:
        appended: Any = self.streams.append(name, Append("application/json", wire_form(json.dumps(message).encode())))
        self.assert_now(appended)

    def delete_stream(self, name: str) -> None:
        self.assert_now(self.streams.delete(name))

    def assert_now(self, result: Any) -> Any:
        return self.get(result) if isinstance(result, Deferred) else result

    def events(self, name: str = "wakes") -> list[dict[str, Any]]:
        """Return the messages of a JSON stream."""
        chunk = self.assert_now(self.streams.read(name, START, 1_000_000))
        found: list[dict[str, Any]] = json.loads(b"[" + chunk.data.rstrip(b",") + b"]")
        return found

    # Subscriptions

    def create(self, config: SubscriptionConfig, subscription_id: str = "s") -> bool:
        is_new: bool = self.get(self.service.create(subscription_id, config, BASE))
        return is_new

    def describe(self, subscription_id: str = "s") -> dict[str, Any]:
        described: dict[str, Any] = self.get(self.service.describe(subscription_id))
        return described

    def cursors(self, subscription_id: str = "s") -> dict[str, str]:
        """Return the position of each cursor; ``-1`` if there is no stream."""
        streams = self.describe(subscription_id)["streams"]
        return {each["path"]: each["acked_offset"].split("_")[-1].lstrip("0") or "0" for each in streams}

    def claim(self, worker: str = "w", subscription_id: str = "s") -> dict[str, Any]:
        claimed: dict[str, Any] = self.get(self.service.claim(subscription_id, worker))
        return claimed

    def acking(
        self, wake: dict[str, Any], done: bool = False, subscription_id: str = "s", **offsets: str
    ) -> Deferred[dict[str, object]]:
        """Acknowledge all of a wake's streams up to the tails in it if it is done, or else these offsets."""
        token = wake.get("token") or wake["callback_token"]
        acks = tuple(Ack(each["path"], each["tail_offset"]) for each in wake["streams"] if each["has_pending"])
        if offsets or not done:
            acks = tuple(Ack(path, offset) for path, offset in offsets.items())
        request = AckRequest(wake["wake_id"], wake["generation"], acks, done)
        return self.service.ack(subscription_id, self.parts.tokens.verify(token, subscription_id), request)

    def ack(self, wake: dict[str, Any], done: bool = True) -> dict[str, object]:
        answer: dict[str, object] = self.get(self.acking(wake, done))
        return answer

    def stop(self) -> None:
        self.service.stopService()
        self.streams.stopService()
        self.work()
