"""The state machine of a subscription, event by event."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.errors import AlreadyClaimed, Fenced, InvalidAckOffset, NoPendingWork
from durable_streams.server.subscriptions.model import (
    Acked,
    AppendWakeEvent,
    DeliverWebhook,
    DeliveryDue,
    Outcome,
    StreamTail,
)

from .driving import PULL, WEBHOOK, Driven

A = "events/a"


class PullWakeTests(SynchronousTestCase):
    def test_a_stream_created_with_data_wakes_and_appends_one_event(self) -> None:
        driven = Driven(PULL)
        decision = driven.stream(A, 5)
        self.assertEqual([DeliveryDue("w1")], list(decision.effects))
        self.assertEqual((1, "w1"), (driven.wake.generation, driven.wake.wake_id))
        [effect] = driven.attempt()
        event: dict[str, str | int] = {
            "type": "wake",
            "subscription_id": "s",
            "stream": A,
            "generation": 1,
            "ts": 1_000_000,
        }
        self.assertEqual(AppendWakeEvent("wakes", "w1", 1, "__ds:s", event), effect)
        driven.outcome(Outcome.ACCEPTED)
        self.assertIsNone(driven.deadline)
        driven.stream(A, 9)
        self.assertEqual([], driven.effects)

    def test_a_claim_keeps_the_fence_of_an_unclaimed_wake(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        claimed = driven.claim("one")
        self.assertEqual(("w1", 1), (claimed.wake_id, claimed.generation))
        self.assertEqual(driven.now + 10, driven.deadline)
        refusal = self.assertRaises(AlreadyClaimed, driven.claim, "one")
        self.assertEqual({"current_holder": "one", "generation": 1}, refusal.details)

    def test_an_ack_with_done_ends_the_wake_and_tells_of_pending_work(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        driven.claim()
        driven.stream(A, 9)
        claims = driven.claims()
        self.assertEqual(Acked(True), driven.ack(claims, (A, 5), done=True).answer)
        self.assertEqual((2, 5), (driven.wake.generation, driven.cursor(A)))
        self.assertRaises(Fenced, driven.ack, claims, (A, 9), done=True)
        self.assertEqual(5, driven.cursor(A))

    def test_an_ack_past_the_tail_or_before_the_cursor_moves_no_cursor(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        driven.stream("events/b", 5)
        driven.claim()
        driven.ack(driven.claims(), (A, 3))
        for position in (2, 6):
            self.assertRaises(InvalidAckOffset, driven.ack, driven.claims(), ("events/b", 5), (A, position))
        self.assertEqual((3, 0), (driven.cursor(A), driven.cursor("events/b")))

    def test_an_idle_subscription_without_pending_work_cannot_be_claimed(self) -> None:
        driven = Driven(PULL, {A: StreamTail(1, 1, 5)})
        self.assertRaises(NoPendingWork, driven.claim)


class WebhookTests(SynchronousTestCase):
    def test_an_answer_with_done_moves_the_cursors_to_the_sent_tails(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        [effect] = driven.attempt()
        assert isinstance(effect, DeliverWebhook)
        [entry] = effect.snapshot.entries
        self.assertEqual(
            (A, f"{1:016d}_{0:016d}", f"{1:016d}_{5:016d}"), (entry.path, entry.acked_offset, entry.tail_offset)
        )
        driven.stream(A, 9)
        driven.outcome(Outcome.DONE)
        self.assertEqual((5, 2), (driven.cursor(A), driven.wake.generation))

    def test_a_failed_delivery_is_due_again_by_the_retry_schedule(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        for delay in (1, 2, 4, 8, 16, 32, 60, 60):
            [_effect] = driven.attempt()
            driven.outcome(Outcome.FAILED)
            self.assertEqual((driven.now + delay, "failed"), (driven.deadline, driven.current.state.status))
            driven.now += delay
            driven.evaluate()
