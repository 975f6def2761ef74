"""A subscription that is driven by hand: decisions are applied at once, at times that the test gives."""

from __future__ import annotations

from collections.abc import Mapping

from durable_streams.server.protocol.patterns import matches
from durable_streams.server.subscriptions.creating import create, link_at_tail
from durable_streams.server.subscriptions.decisions import Current, Decision
from durable_streams.server.subscriptions.links import LinkTable
from durable_streams.server.subscriptions.machine import Machine, deadline
from durable_streams.server.subscriptions.model import (
    Ack,
    AckRequest,
    Claimed,
    DeliveryDue,
    Draw,
    Effect,
    Link,
    Outcome,
    Snapshot,
    State,
    StreamTail,
    Subscription,
    SubscriptionConfig,
    TokenClaims,
    Wake,
)
from durable_streams.server.subscriptions.records import (
    decode,
    decode_link,
    encode_link,
    link_key,
    links_prefix,
    split_link_key,
    state_key,
)

WEBHOOK = SubscriptionConfig("webhook", "events/*", webhook_url="https://worker.example/hook", lease_ttl_ms=10_000)
PULL = SubscriptionConfig("pull-wake", "events/*", wake_stream="wakes", lease_ttl_ms=10_000)


def load(records: Mapping[str, bytes | None], tails: Mapping[str, StreamTail]) -> Current:
    """Load the subscription ``s`` from records."""
    values = {key: value for key, value in records.items() if value is not None}
    subscription = decode("subscriptions/s", values["subscriptions/s"], Subscription)
    stored = values["wakes/s"]
    state = decode("wakes/s", stored, State)
    snapshot = None
    if "snapshots/s" in values:
        snapshot = decode("snapshots/s", values["snapshots/s"], Snapshot)
    links: dict[str, Link | None] = {}
    for key, value in values.items():
        if key.startswith(links_prefix("s")):
            link, birth = decode_link(key, value)
            assert birth == subscription.birth
            links[split_link_key(key)[1]] = link
    table = LinkTable(tails)
    table.apply(links)
    return Current(subscription, state, snapshot, table, stored)


def first_links(config: SubscriptionConfig, tails: Mapping[str, StreamTail]) -> dict[str, Link]:
    """Return the links of a new subscription, at the tails of the streams, as :class:`.Creator` makes them."""
    pattern = config.pattern
    links = {path: link_at_tail(tail, False) for path, tail in tails.items() if pattern and matches(pattern, path)}
    return links | {path: link_at_tail(tails.get(path), True) for path in config.streams}


class Driven:
    """
    One subscription, its records as a dict, and the streams that it sees.

    :ivar now: the time of the next event.
    :ivar decision: the last decision.
    """

    def __init__(self, config: SubscriptionConfig = PULL, tails: Mapping[str, StreamTail] | None = None) -> None:
        self.machine = Machine()
        self.now = 1000.0
        self.jitter = 1.0
        self.drawn = 0
        self.tails: dict[str, StreamTail] = dict(tails or {})
        self.records: dict[str, bytes | None] = {}
        self.effects: list[Effect] = []
        subscription = Subscription("s", 7, config, "http://x", self.now, b"digest")
        first = first_links(config, self.tails)
        links = LinkTable(self.tails)
        links.apply(first)
        self.records.update((link_key("s", path), encode_link(link, 7)) for path, link in first.items())
        puts, expected = create(subscription)
        self.write(puts, expected)
        self.current = Current(subscription, State(), None, links, puts["wakes/s"])
        self.decision: Decision | None = None
        self.revisions = [0]

    def write(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        """Write records as a storage does."""
        for key, value in expected.items():
            assert self.records.get(key) == value, key
        for key, value in puts.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value

    def draw(self) -> Draw:
        """Return the random values of the next decision: wake ids are numbered."""
        self.drawn += 1
        return Draw(f"w{self.drawn}", self.jitter)

    def apply(self, decision: Decision) -> Decision:
        """Write a decision and collect its effects; raise its refusal."""
        self.write(decision.puts, decision.expected)
        if decision.links:
            # Whoever has seen an earlier state cannot write after this.
            key = state_key(self.current.subscription.id)
            revision = decode(key, self.records[key] or b"", State).revision
            self.revisions.append(revision)
            assert self.revisions == sorted(set(self.revisions)), self.revisions
        self.current = self.current.following(decision)
        self.decision = decision
        self.effects = list(decision.effects)
        if decision.refusal is not None:
            raise decision.refusal
        return decision

    def reload(self) -> None:
        """Forget all but the records and the streams, and load the records as after a crash."""
        self.effects = []
        self.current = load(self.records, self.tails)

    @property
    def wake(self) -> Wake:
        """The current wake; there is one."""
        assert self.current.state.wake is not None
        return self.current.state.wake

    @property
    def deadline(self) -> float | None:
        """The time of the timer."""
        return deadline(self.current.subscription.config, self.current.state)

    def cursor(self, path: str) -> int | None:
        """Return the position of a link's cursor in its stream; None if not linked."""
        link = self.current.links.get(path)
        return None if link is None else link.cursor(self.tails.get(path))

    def stream(self, path: str, position: int | None, stream_id: int | None = None) -> Decision:
        """Create a stream, append to it up to a position, or delete it (None); then reconcile."""
        old = self.tails.get(path)
        if position is None:
            self.tails.pop(path, None)
        else:
            number = stream_id or (old.stream_id if old is not None else 1)
            self.tails[path] = StreamTail(number, number, position)
        self.current.links.refresh(path)
        return self.reconcile(path)

    def reconcile(self, *paths: str) -> Decision:
        """Reconcile paths with their streams."""
        tails = {path: self.tails.get(path) for path in paths}
        return self.apply(self.machine.reconcile(self.current, tails, self.now, self.draw()))

    def evaluate(self) -> Decision:
        """Call what timers and sweeps call."""
        return self.apply(self.machine.evaluate(self.current, self.now, self.draw()))

    def claim(self, worker: str = "worker") -> Claimed:
        """Claim, and return the answer."""
        answer = self.apply(self.machine.claim(self.current, worker, self.now, self.draw())).answer
        assert isinstance(answer, Claimed)
        return answer

    def claims(self) -> TokenClaims:
        """Return what the token of the current wake says."""
        return TokenClaims("s", self.wake.generation, self.wake.wake_id)

    def ack(self, claims: TokenClaims, *acks: tuple[str, int], done: bool = False) -> Decision:
        """Acknowledge positions of streams as they are now."""
        request = AckRequest(
            claims.wake_id,
            claims.generation,
            tuple(Ack(path, f"{self._incarnation(path):016d}_{position:016d}") for path, position in acks),
            done,
        )
        return self.apply(self.machine.ack(self.current, claims, request, self.now, self.draw()))

    def _incarnation(self, path: str) -> int:
        tail = self.tails.get(path)
        return tail.incarnation if tail is not None else 1

    def release(self, claims: TokenClaims) -> Decision:
        """Release the lease."""
        request = AckRequest(claims.wake_id, claims.generation)
        return self.apply(self.machine.release(self.current, claims, request, self.now, self.draw()))

    def attempt(self) -> list[Effect]:
        """Begin the attempt that the last decision asked for, and return its effect."""
        [due] = self.effects
        assert isinstance(due, DeliveryDue)
        return list(self.apply(self.machine.attempt(self.current, due.wake_id, self.now)).effects)

    def outcome(self, outcome: Outcome, wake_id: str | None = None) -> Decision:
        """Record the outcome of the delivery of a wake, the current one by default."""
        identity = self.wake.wake_id if wake_id is None else wake_id
        return self.apply(self.machine.outcome(self.current, identity, outcome, self.now, self.draw()))

    def add(self, *paths: str) -> Decision:
        """Add explicit streams."""
        tails = {path: self.tails.get(path) for path in paths}
        return self.apply(self.machine.add_streams(self.current, tails, self.now, self.draw()))

    def remove(self, path: str) -> Decision:
        """Remove an explicit stream."""
        return self.apply(self.machine.remove_stream(self.current, path, self.now, self.draw()))

    def stored(self, path: str) -> bool:
        """Return whether the link of a path is stored."""
        return link_key("s", path) in self.records
