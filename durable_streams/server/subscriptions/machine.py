"""
The state machine of one subscription: state, event and time in, a decision out (PROTOCOL section 7).

::

    idle --pending--> waking --(webhook: accepted | pull-wake: claim)--> leased --done, release, lease over--> idle

The methods change nothing. The caller makes one decision at a time for a subscription: it calls a method, writes
``decision.puts`` with ``decision.expected`` in one atomic step, then takes :meth:`.Current.following` as the current
state, performs the effects, answers, and sets a timer for :func:`deadline`. If the write is refused, nothing changes.
What happens to streams meanwhile is reconciled afterwards.

===============================  ==================================================================
event                            method
===============================  ==================================================================
subscription created, deleted    :func:`.creating.create`, :func:`.creating.delete`
stream created, appended to,     :meth:`Machine.reconcile`, with the tail of the stream as it is now;
deleted, created again           a plain append to a linked stream: :meth:`.LinkTable.refresh`, then
                                 :meth:`Machine.evaluate` if :func:`idle`
timer, sweep                     :meth:`Machine.evaluate`
streams added, removed           :meth:`Machine.add_streams`, :meth:`Machine.remove_stream`
claim, ack, callback, release    :meth:`Machine.claim`, :meth:`Machine.ack`, :meth:`Machine.release`
delivery slot free, delivered    :meth:`Machine.attempt`, :meth:`Machine.outcome`
===============================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ..protocol.patterns import matches
from .acknowledging import acknowledged, moved_to_tails
from .creating import link_at_tail
from .decisions import Current, Decision, View, decision
from .errors import AlreadyClaimed, Fenced, InvalidConfig, InvalidSubscriptionRequest, NoPendingWork
from .model import (
    Acked,
    AckRequest,
    AppendWakeEvent,
    Claimed,
    DeliverWebhook,
    DeliveryDue,
    Draw,
    Effect,
    Link,
    Outcome,
    Snapshot,
    State,
    StreamTail,
    SubscriptionConfig,
    TokenClaims,
    Wake,
)
from .wakes import LONGEST_DELAY, attempting, delivered, due, ended, retry_delay, within_reach

#: What the ids of the writers of wake events begin with. Clients may not use such ids.
WRITER_PREFIX: Final = "__ds:"


def held(config: SubscriptionConfig, wake: Wake) -> bool:
    """Return whether a worker has the wake: by a claim; by accepting the webhook or calling back."""
    return wake.delivered if config.type == "webhook" else wake.holder is not None


def lease_over(config: SubscriptionConfig, wake: Wake, now: float) -> bool:
    """Return whether the lease of a held wake is over. An undelivered webhook wake does not expire."""
    return held(config, wake) and wake.lease_until is not None and now >= wake.lease_until


def idle(state: State) -> bool:
    """Return whether pending work needs a new wake: there is none, and none is scheduled."""
    return state.wake is None and state.scheduled_at is None


def deadline(config: SubscriptionConfig, state: State) -> float | None:
    """Return the time at which :meth:`Machine.evaluate` is to be called next without another event, or None."""
    wake = state.wake
    if wake is None:
        return state.scheduled_at
    return wake.lease_until if held(config, wake) else wake.next_attempt_at


def needs_evaluation(current: Current, now: float) -> bool:
    """Return whether :meth:`Machine.evaluate` would change anything: a test of about 1 us for sweeps."""
    config, state = current.subscription.config, current.state
    due = deadline(config, state)
    if due is not None and (due <= now or due > now + max(LONGEST_DELAY, config.lease_seconds)):
        return True
    if state.wake is None:
        return state.scheduled_at is None and bool(current.links.pending)
    return not current.links.pending and not held(config, state.wake)


def check_action(config: SubscriptionConfig, action: str) -> None:
    """
    Check that an action is one for the subscription's delivery type.

    :param action: ``claim``, ``ack``, ``release`` or ``callback``.
    :raises InvalidSubscriptionRequest: it is not.
    """
    if (config.type == "webhook") != (action == "callback"):
        other = "Send it to callback" if config.type == "webhook" else "Send it to claim, ack or release"
        raise InvalidSubscriptionRequest(f"The subscription is of type {config.type}, which has no {action}. {other}.")


class Machine(Struct, frozen=True):
    """
    The rules, with their limits. Each method is pure.

    :ivar attempt_seconds: the time limit of a delivery attempt.
    :ivar max_snapshot: the number of links in a snapshot.
    :ivar delivers: whether the caller delivers the wakes that are issued; otherwise another node does.
    """

    attempt_seconds: float = 5.0
    max_snapshot: int = 1000
    delivers: bool = True

    def evaluate(self, current: Current, now: float, draw: Draw) -> Decision:
        """
        Bring a subscription up to date: for timers, sweeps, and when a linked stream has grown.

        A lease that is over ends its wake; a wake that nobody holds and that has no pending work is cleared; an idle
        subscription with pending work is woken; a delivery that is due is an effect. Calling it again changes nothing.
        """
        return self._settled(View(current), current.state, current.snapshot, now, draw)

    def reconcile(
        self,
        current: Current,
        tails: Mapping[str, StreamTail | None],
        now: float,
        draw: Draw,
        at_tail: Collection[str] = (),
    ) -> Decision:
        """
        Adapt the links to the streams as they are now, whatever has happened to them, then do as :meth:`evaluate`.

        A stream that matches the pattern and has no link gets one at its start. Another stream of a linked name than
        before: the cursor goes to its start. A stream that is gone: a link by the pattern is removed, the cursor of an
        explicit one goes back to the start.

        :param tails: the tail of each stream in question; None if it does not exist, or was deleted and is kept for
            forks.
        :param at_tail: the streams that are linked at their tails, for they are older than the subscription.
        """
        view = View(current, tails)
        pattern = current.subscription.config.pattern
        for path, tail in tails.items():
            link = view.link(path)
            if link is None:
                if tail is not None and pattern is not None and matches(pattern, path):
                    position = tail.position if path in at_tail else 0
                    view.put(path, Link(False, tail.stream_id, tail.incarnation, position))
            elif tail is None:
                view.put(path, Link(True) if link.explicit else None)
            elif link.stream_id != tail.stream_id:
                view.put(path, Link(link.explicit, tail.stream_id, tail.incarnation))
        return self._settled(view, current.state, current.snapshot, now, draw)

    def add_streams(self, current: Current, tails: Mapping[str, StreamTail | None], now: float, draw: Draw) -> Decision:
        """
        Link streams explicitly: new ones at their tails, or at the start if absent; linked ones keep their cursors.

        :param tails: the tail of each stream that is added, None if it does not exist.
        :raises InvalidConfig: one is the wake stream.
        """
        if current.subscription.config.wake_stream in tails:
            raise InvalidConfig("streams", "The wake stream of a subscription can't be one of its streams.")
        view = View(current, tails)
        for path, tail in tails.items():
            link = view.link(path)
            if link is None:
                view.put(path, link_at_tail(tail, explicit=True))
            elif not link.explicit:
                view.put(path, Link(True, link.stream_id, link.incarnation, link.position))
        return self._settled(view, current.state, current.snapshot, now, draw)

    def remove_stream(self, current: Current, path: str, now: float, draw: Draw) -> Decision:
        """Remove an explicit link. If the stream exists and the pattern matches, it stays linked with its cursor."""
        view = View(current)
        link = view.link(path)
        if link is not None and link.explicit:
            pattern = current.subscription.config.pattern
            stays = pattern is not None and view.tail(path) is not None and matches(pattern, path)
            view.put(path, Link(False, link.stream_id, link.incarnation, link.position) if stays else None)
        return self._settled(view, current.state, current.snapshot, now, draw)

    def claim(self, current: Current, worker: str, now: float, draw: Draw) -> Decision:
        """
        Give the lease to a worker; the answer is :class:`.Claimed`.

        An unclaimed wake keeps its generation and wake_id. If a lease is over or the subscription is idle, there is a
        new wake, without an event. If nothing is pending, the decision has the refusal :exc:`.NoPendingWork`, and may
        clear the wake.

        :raises AlreadyClaimed: another claim's lease is not over.
        :raises InvalidSubscriptionRequest: the subscription is a webhook.
        """
        check_action(current.subscription.config, "claim")
        config, state, view = current.subscription.config, current.state, View(current)
        wake = state.wake
        happened: tuple[str, ...] = ()
        if wake is not None and wake.holder is not None:
            if not lease_over(config, wake, now):
                raise AlreadyClaimed(wake.holder, wake.generation)
            state, happened = ended(state, now, draw), ("lease_expired",)
        if not view.any_pending():
            if state.wake is not None:
                happened += ("wake_cleared",)
            state = State(state.generation)
            return decision(view, state, None, happened=happened, refusal=NoPendingWork())
        wake = state.wake
        if wake is None:
            wake = Wake(draw.wake_id, state.generation + 1, view.first_pending(1)[0], now)
            happened += ("wake_issued",)
        wake = replace(delivered(wake, now + config.lease_seconds), holder=worker)
        state = replace(state, generation=wake.generation, wake=wake, scheduled_at=None)
        snapshot = view.snapshot(wake.wake_id, self.max_snapshot)
        answer = Claimed(wake.wake_id, wake.generation, snapshot, config.lease_ttl_ms)
        return decision(view, state, snapshot, happened=(*happened, "claimed"), answer=answer)

    def ack(self, current: Current, claims: TokenClaims, request: AckRequest, now: float, draw: Draw) -> Decision:
        """
        Acknowledge, extend the lease, or finish, for both delivery types; the answer is :class:`.Acked`.

        All acks are applied, or none. Streams of the wake's snapshot that were deleted or unlinked since are skipped.

        :param claims: of the request's token, which is authentic and of this subscription.
        :raises Fenced: the wake is not the current one, or its lease is over.
        :raises InvalidAckOffset: a stream is not linked, or its offset is before the cursor or after the tail.
        """
        config, state = current.subscription.config, current.state
        wake = _fenced(current, claims, request, now)
        view = View(current)
        moved = acknowledged(view, request.acks, current.snapshot)
        wake = replace(wake, progress=wake.progress or moved)
        if request.done:
            state = ended(replace(state, wake=wake), now, draw)
            settled = self._settled(view, state, None, now, draw, ("wake_done",))
            return replace(settled, answer=Acked(view.any_pending()))
        state = replace(state, wake=delivered(wake, now + config.lease_seconds))
        return decision(view, state, current.snapshot, happened=("acked",), answer=Acked(False))

    def release(self, current: Current, claims: TokenClaims, request: AckRequest, now: float, draw: Draw) -> Decision:
        """
        End a wake without an ack. Pending work is woken again.

        :raises Fenced: as for :meth:`ack`.
        :raises InvalidSubscriptionRequest: the subscription is a webhook.
        """
        check_action(current.subscription.config, "release")
        _fenced(current, claims, request, now)
        state = ended(current.state, now, draw)
        return self._settled(View(current), state, None, now, draw, ("released",))

    def attempt(self, current: Current, wake_id: str, now: float) -> Decision:
        """
        Begin the delivery attempt of a :class:`.DeliveryDue`, now that it can be sent.

        The effect is :class:`.DeliverWebhook` or :class:`.AppendWakeEvent`; there is none if the wake has ended, was
        delivered, or waits for a later retry. The deadline of the attempt is in ``puts``, unless the stored one is late
        enough, as it is for the first attempt after a wake's issue.
        """
        view, state = View(current), current.state
        wake = state.wake
        if wake is None or wake.wake_id != wake_id or wake.next_attempt_at is None:
            return decision(view, state, current.snapshot)
        if not wake.attempting or wake.next_attempt_at < now + self.attempt_seconds:
            if not wake.attempting and wake.next_attempt_at > now:
                return decision(view, state, current.snapshot)
            wake = attempting(current.subscription.config, wake, now, self.attempt_seconds)
        effects = (self._delivery(current, wake),)
        return decision(view, replace(state, wake=wake), current.snapshot, effects)

    def outcome(self, current: Current, wake_id: str, outcome: Outcome, now: float, draw: Draw) -> Decision:
        """
        Record the outcome of a delivery attempt. That of a wake which has ended changes nothing.

        :param wake_id: of the effect that was performed.
        :param now: the time at which the attempt ended.
        """
        config, state, view = current.subscription.config, current.state, View(current)
        wake = state.wake
        if wake is None or wake.wake_id != wake_id or wake.holder is not None:
            return decision(view, state, current.snapshot)
        if outcome is Outcome.DONE and config.type == "webhook":
            moved = current.snapshot is not None and moved_to_tails(view, current.snapshot)
            wake = replace(wake, progress=wake.progress or moved)
            state = ended(replace(state, wake=wake), now, draw)
            return self._settled(view, state, None, now, draw, ("wake_done",))
        if outcome is Outcome.FAILED:
            failures = wake.failures + 1
            due = now + retry_delay(failures, draw.jitter)
            wake = replace(wake, delivered=False, failures=failures, attempting=False, next_attempt_at=due)
        else:
            lease_until = now + config.lease_seconds if config.type == "webhook" else None
            wake = delivered(wake, lease_until)
        return self._settled(view, replace(state, wake=wake), current.snapshot, now, draw)

    def _settled(
        self,
        view: View,
        state: State,
        snapshot: Snapshot | None,
        now: float,
        draw: Draw,
        happened: tuple[str, ...] = (),
    ) -> Decision:
        """Return the decision for a state, after the transitions that need no other event than the time."""
        config = view.current.subscription.config
        state = within_reach(config, state, now, self.attempt_seconds)
        wake = state.wake
        if wake is not None and lease_over(config, wake, now):
            state, snapshot, happened = ended(state, now, draw), None, (*happened, "lease_expired")
        wake, pending = state.wake, view.any_pending()
        if wake is not None and not held(config, wake) and not pending:
            state, snapshot, happened = replace(state, wake=None), None, (*happened, "wake_cleared")
        effects: tuple[Effect, ...] = ()
        if state.wake is None and not pending:
            state = State(state.generation)
        elif state.wake is None:
            if state.scheduled_at is None or state.scheduled_at <= now:
                issued = Wake(draw.wake_id, state.generation + 1, view.first_pending(1)[0], now)
                if self.delivers:
                    issued = attempting(config, issued, now, self.attempt_seconds)
                    effects = (DeliveryDue(draw.wake_id),)
                else:
                    issued = due(config, issued, now)
                state = State(issued.generation, issued, state.fruitless)
                snapshot = view.snapshot(draw.wake_id, self.max_snapshot) if config.type == "webhook" else None
                happened = (*happened, "wake_issued")
        elif state.wake.next_attempt_at is not None and state.wake.next_attempt_at <= now:
            effects = (DeliveryDue(state.wake.wake_id),)
        return decision(view, state, snapshot, effects, happened)

    def _delivery(self, current: Current, wake: Wake) -> Effect:
        """Return the effect that sends a wake."""
        subscription = current.subscription
        config = subscription.config
        if config.type == "webhook":
            snapshot = current.snapshot or Snapshot(wake.wake_id, ())
            return DeliverWebhook(config.webhook_url or "", wake.wake_id, wake.generation, snapshot)
        event: dict[str, str | int] = {
            "type": "wake",
            "subscription_id": subscription.id,
            "stream": wake.stream,
            "generation": wake.generation,
            "ts": int(wake.issued_at * 1000),
        }
        # A subscription that is made again begins at generation 0, so it needs another writer: epochs never fall.
        writer = f"{WRITER_PREFIX}{subscription.id}:{subscription.birth:x}"
        return AppendWakeEvent(config.wake_stream or "", wake.wake_id, wake.generation, writer, event)


def _fenced(current: Current, claims: TokenClaims, request: AckRequest, now: float) -> Wake:
    """
    Return the current wake.

    :raises Fenced: the token or the request is for another one, or the lease is over.
    """
    wake = current.state.wake
    if (
        wake is None
        or not claims.generation == request.generation == wake.generation
        or not claims.wake_id == request.wake_id == wake.wake_id
        or lease_over(current.subscription.config, wake, now)
    ):
        raise Fenced
    return wake
