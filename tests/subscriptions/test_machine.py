"""The state machine of a subscription, event by event."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.creating import create, delete
from durable_streams.server.subscriptions.errors import (
    AlreadyClaimed,
    Fenced,
    InvalidAckOffset,
    InvalidConfig,
    InvalidSubscriptionRequest,
    NoPendingWork,
)
from durable_streams.server.subscriptions.machine import check_action, needs_evaluation
from durable_streams.server.subscriptions.model import (
    Ack,
    Acked,
    AckRequest,
    AppendWakeEvent,
    DeliverWebhook,
    DeliveryDue,
    Link,
    Outcome,
    StreamTail,
    Subscription,
)
from durable_streams.server.subscriptions.wakes import retry_delay

from .driving import PULL, WEBHOOK, Driven

A, B = "events/a", "events/b"


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
        self.assertEqual(AppendWakeEvent("wakes", "w1", 1, "__ds:s:7", event), effect)
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

    def test_a_short_lease_does_not_cut_the_retry_schedule(self) -> None:
        driven = Driven(replace(WEBHOOK, lease_ttl_ms=1_000))
        driven.stream(A, 5)
        attempts = []
        while driven.now < 1060:
            [effect] = driven.attempt()
            assert isinstance(effect, DeliverWebhook)
            attempts.append((driven.now - 1000, effect.wake_id))
            driven.now += 0.5
            driven.outcome(Outcome.FAILED)
            while not driven.effects:
                driven.now += 0.25
                driven.stream(A, 5 + int(driven.now))
        self.assertEqual([(t, "w1") for t in (0, 1.5, 4, 8.5, 17, 33.5)], attempts)

    def test_delays_have_the_jitter_that_was_drawn(self) -> None:
        for jitter in (0.8, 1.2):
            driven = Driven(WEBHOOK)
            driven.jitter = jitter
            driven.stream(A, 5)
            delays = []
            for _ in range(8):
                driven.attempt()
                driven.outcome(Outcome.FAILED)
                assert driven.deadline is not None
                delays.append(driven.deadline - driven.now)
                driven.now = driven.deadline
                driven.evaluate()
            for delay, base in zip(delays, (1, 2, 4, 8, 16, 32, 60, 60), strict=True):
                self.assertAlmostEqual(base * jitter, delay)

    def test_the_delay_of_many_failures_is_that_of_the_schedule(self) -> None:
        self.assertEqual(60, retry_delay(10**9, 1.0))

    def test_an_attempt_that_starts_late_has_its_deadline_stored_first(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        self.assertEqual([], list(driven.machine.attempt(driven.current, "w1", driven.now + 1).puts))
        late = driven.machine.attempt(driven.current, "w1", driven.now + 1.5)
        self.assertEqual(["wakes/s"], list(late.puts))
        driven.now += 1.5
        driven.apply(late)
        self.assertEqual((driven.now + 6, driven.now + 10), (driven.deadline, driven.wake.lease_until))

    def test_an_attempt_before_the_retry_is_due_sends_nothing(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        driven.attempt()
        driven.outcome(Outcome.FAILED)
        driven.now += 0.99
        early = driven.machine.attempt(driven.current, "w1", driven.now)
        self.assertEqual(((), {}), (early.effects, early.puts))

    def test_a_wake_that_was_issued_but_not_sent_before_a_crash_is_due_again(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        driven.reload()
        self.assertEqual([], list(driven.evaluate().effects))
        driven.now += 6
        self.assertEqual([DeliveryDue("w1")], list(driven.evaluate().effects))
        [effect] = driven.attempt()
        assert isinstance(effect, DeliverWebhook)
        self.assertEqual([A], [entry.path for entry in effect.snapshot.entries])

    def test_a_callback_counts_as_a_delivery_and_a_failure_after_it_is_tried_again(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        driven.attempt()
        driven.ack(driven.claims())
        self.assertEqual((True, None), (driven.wake.delivered, driven.wake.next_attempt_at))
        driven.outcome(Outcome.FAILED)
        self.assertEqual(("failed", driven.now + 1), (driven.current.state.status, driven.deadline))

    def test_a_done_callback_and_a_done_answer_are_one_completion(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        driven.attempt()
        driven.stream(A, 9)
        driven.ack(driven.claims(), (A, 5), done=True)
        driven.outcome(Outcome.DONE, "w1")
        self.assertEqual((5, 2), (driven.cursor(A), driven.wake.generation))

    def test_an_answer_with_done_never_moves_a_cursor_back(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        driven.attempt()
        driven.stream(A, 9)
        driven.ack(driven.claims(), (A, 9))
        driven.outcome(Outcome.DONE)
        self.assertEqual((9, None), (driven.cursor(A), driven.current.state.wake))

    def test_an_answer_with_done_does_not_skip_a_stream_that_was_made_again(self) -> None:
        for reconciled in (True, False):
            driven = Driven(WEBHOOK)
            driven.stream(A, 5)
            driven.attempt()
            driven.tails[A] = StreamTail(2, 1, 9)
            if reconciled:
                driven.reconcile(A)
            else:
                driven.current.links.refresh(A)
            driven.outcome(Outcome.DONE)
            self.assertEqual((0, 2), (driven.cursor(A), driven.wake.generation))


class FenceTests(SynchronousTestCase):
    def test_a_takeover_of_an_expired_lease_voids_the_old_token(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        driven.claim("one")
        old = driven.claims()
        driven.now += 10
        claimed = driven.claim("two")
        self.assertEqual((2, "two"), (claimed.generation, driven.wake.holder))
        self.assertNotEqual(old.wake_id, claimed.wake_id)
        self.assertRaises(Fenced, driven.ack, old, (A, 5), done=True)
        self.assertRaises(Fenced, driven.release, old)
        self.assertEqual((0, "two"), (driven.cursor(A), driven.wake.holder))

    def test_token_and_request_must_both_name_the_current_wake(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        driven.claim()
        good = driven.claims()
        for token, request in (
            (good, AckRequest("w0", 1)),
            (good, AckRequest(good.wake_id, 2)),
            (replace(good, wake_id="w0"), AckRequest(good.wake_id, 1)),
            (replace(good, wake_id="w0"), AckRequest("w0", 1)),
            (replace(good, generation=2), AckRequest(good.wake_id, 1)),
            (replace(good, generation=2), AckRequest(good.wake_id, 2)),
        ):
            arguments = (driven.current, token, request, driven.now, driven.draw())
            self.assertRaises(Fenced, driven.machine.ack, *arguments)
            self.assertRaises(Fenced, driven.machine.release, *arguments)

    def test_a_heartbeat_extends_the_lease(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        driven.claim()
        for _ in range(5):
            driven.now += 9
            driven.ack(driven.claims())
        self.assertEqual((driven.now + 10, 1), (driven.deadline, driven.wake.generation))

    def test_a_release_moves_no_cursor_and_wakes_again(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        driven.claim()
        self.assertEqual([DeliveryDue("w3")], list(driven.release(driven.claims()).effects))
        self.assertEqual((0, 2), (driven.cursor(A), driven.wake.generation))

    def test_an_action_of_the_other_delivery_type_is_refused(self) -> None:
        for config, good in ((PULL, ("claim", "ack", "release")), (WEBHOOK, ("callback",))):
            for action in ("claim", "ack", "release", "callback"):
                if action in good:
                    check_action(config, action)
                else:
                    error = self.assertRaises(InvalidSubscriptionRequest, check_action, config, action)
                    self.assertIn(f"type {config.type}, which has no {action}", str(error))


class SpacingTests(SynchronousTestCase):
    def fruitless(self, driven: Driven) -> float:
        """End a wake without progress, and return the delay of the next."""
        driven.claim()
        driven.release(driven.claims())
        return 0.0 if driven.deadline is None or driven.effects else driven.deadline - driven.now

    def test_wakes_without_progress_are_spaced_by_the_schedule(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        self.assertEqual([0, 0, 1, 2, 4, 8, 16, 32, 60, 60], [self.fruitless(driven) for _ in range(10)])

    def test_an_ack_that_moves_a_cursor_resets_the_spacing(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        for _ in range(5):
            self.fruitless(driven)
        driven.claim()
        driven.ack(driven.claims(), (A, 1))
        driven.ack(driven.claims(), (A, 1), done=True)
        self.assertEqual([0, 0, 1], [self.fruitless(driven) for _ in range(3)])

    def test_an_ack_of_the_cursor_itself_is_no_progress(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        for _ in range(3):
            driven.claim()
            driven.ack(driven.claims(), (A, 0), done=True)
        self.assertEqual(driven.now + 1, driven.deadline)

    def test_a_scheduled_wake_is_issued_when_it_is_due_and_not_before(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        for _ in range(3):
            self.fruitless(driven)
        driven.now += 0.75
        driven.stream(A, 9)
        self.assertIsNone(driven.current.state.wake)
        driven.now += 0.25
        driven.evaluate()
        self.assertEqual(4, driven.wake.generation)

    def test_a_claim_does_not_wait_for_the_schedule(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        for _ in range(4):
            self.fruitless(driven)
        self.assertEqual(5, driven.claim().generation)


class ClockTests(SynchronousTestCase):
    def set_back(self, driven: Driven) -> float | None:
        """Set the clock back by a day, sweep, and return the seconds until the deadline then."""
        driven.now -= 86_400
        self.assertTrue(needs_evaluation(driven.current, driven.now))
        driven.evaluate()
        self.assertFalse(needs_evaluation(driven.current, driven.now))
        self.assertEqual({}, driven.evaluate().puts)
        return None if driven.deadline is None else driven.deadline - driven.now

    def test_deadlines_come_into_reach_when_the_clock_was_set_back(self) -> None:
        claimed = Driven(PULL)
        claimed.stream(A, 5)
        claimed.claim()
        self.assertEqual(10, self.set_back(claimed))
        retrying = Driven(WEBHOOK)
        retrying.stream(A, 5)
        retrying.attempt()
        retrying.outcome(Outcome.FAILED)
        self.assertEqual(72, self.set_back(retrying))
        spaced = Driven(PULL)
        spaced.stream(A, 5)
        for _ in range(3):
            spaced.claim()
            spaced.release(spaced.claims())
        self.assertEqual(72, self.set_back(spaced))
        spaced.now += 72
        spaced.evaluate()
        self.assertEqual(4, spaced.wake.generation)


class LinkTests(SynchronousTestCase):
    def test_a_stream_that_is_made_again_below_the_old_cursor_is_pending(self) -> None:
        driven = Driven(PULL, {A: StreamTail(1, 1, 500)})
        driven.stream(A, 5, stream_id=2)
        self.assertEqual((0, A), (driven.cursor(A), driven.wake.stream))
        self.assertEqual(Link(False, 2, 2, 0), driven.current.links.get(A))

    def test_a_cursor_of_an_earlier_stream_is_not_compared_before_the_change_is_noticed(self) -> None:
        driven = Driven(PULL, {A: StreamTail(1, 1, 500)})
        driven.tails[A] = StreamTail(2, 2, 5)
        driven.current.links.refresh(A)
        entry = driven.claim().snapshot.entries[0]
        self.assertEqual((f"{2:016d}_{0:016d}", True), (entry.acked_offset, entry.has_pending))

    def test_a_fork_of_the_same_incarnation_under_the_name_is_another_stream(self) -> None:
        driven = Driven(PULL, {A: StreamTail(1, 1, 5)})
        driven.tails[A] = StreamTail(2, 1, 9)
        driven.reconcile(A)
        self.assertEqual(0, driven.cursor(A))

    def test_a_deleted_stream_loses_its_glob_link_and_an_explicit_one_goes_to_the_start(self) -> None:
        driven = Driven(replace(PULL, streams=(B,)), {A: StreamTail(1, 1, 5), B: StreamTail(2, 2, 5)})
        for path in (A, B):
            driven.stream(path, None)
        self.assertEqual((False, True), (driven.stored(A), driven.stored(B)))
        self.assertEqual(Link(True), driven.current.links.get(B))
        self.assertIsNone(driven.current.state.wake)

    def test_an_older_stream_is_linked_at_its_tail_when_it_is_found_late(self) -> None:
        driven = Driven(PULL)
        tails: dict[str, StreamTail | None] = {A: StreamTail(1, 1, 5), B: StreamTail(2, 2, 5)}
        decision = driven.machine.reconcile(driven.current, tails, driven.now, driven.draw(), at_tail=[A])
        positions = {path: link and link.position for path, link in decision.links.items()}
        self.assertEqual({A: 5, B: 0}, positions)

    def test_streams_that_do_not_match_are_not_linked(self) -> None:
        driven = Driven(PULL)
        driven.stream("other/x", 5)
        driven.stream("events/a/b", 5)
        self.assertEqual(0, len(driven.current.links))

    def test_added_streams_are_linked_at_their_tails_and_linked_ones_keep_their_cursors(self) -> None:
        driven = Driven(PULL, {"x": StreamTail(1, 1, 7)})
        driven.stream(A, 5)
        driven.add(A, "x", "absent")
        self.assertEqual((0, 7, 0), (driven.cursor(A), driven.cursor("x"), driven.cursor("absent")))
        kinds = [link.link_type for link in map(driven.current.links.get, (A, "x", "absent")) if link is not None]
        self.assertEqual(["explicit"] * 3, kinds)
        self.assertEqual({}, driven.add(A, "x", "absent").puts)
        driven.stream("absent", 1)
        self.assertEqual(["absent", A], sorted(driven.current.links.pending))

    def test_the_wake_stream_cannot_be_added(self) -> None:
        self.assertRaises(InvalidConfig, Driven(PULL).add, A, "wakes")

    def test_a_removed_stream_stays_linked_if_the_pattern_matches_and_it_exists(self) -> None:
        streams = (A, B, "x")
        driven = Driven(replace(PULL, streams=streams), {A: StreamTail(1, 1, 5), "x": StreamTail(2, 2, 5)})
        for path in (*streams, "unknown"):
            driven.remove(path)
        self.assertEqual([A], list(driven.current.links))
        self.assertEqual(Link(False, 1, 1, 5), driven.current.links.get(A))
        self.assertEqual({}, driven.remove(A).puts)

    def test_removing_the_last_pending_stream_clears_an_unclaimed_wake(self) -> None:
        driven = Driven(replace(PULL, streams=("x",)))
        driven.stream("x", 5)
        self.assertEqual(1, driven.wake.generation)
        driven.remove("x")
        self.assertIsNone(driven.current.state.wake)
        self.assertRaises(NoPendingWork, driven.claim)
        self.assertEqual(1, driven.current.state.generation)

    def test_a_claim_of_a_wake_whose_work_has_gone_clears_it(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        del driven.tails[A]
        driven.current.links.refresh(A)
        self.assertRaises(NoPendingWork, driven.claim)
        self.assertIsNone(driven.current.state.wake)


class AckTests(SynchronousTestCase):
    def claimed(self, **tails: int) -> Driven:
        """Return a claimed subscription with streams ``events/NAME`` of these sizes."""
        driven = Driven(PULL)
        for number, (name, size) in enumerate(tails.items(), 1):
            driven.stream(f"events/{name}", size, stream_id=number)
        driven.claim()
        return driven

    def offsets(self, driven: Driven, *acks: tuple[str, str]) -> object:
        """Acknowledge with offsets as texts, and done."""
        token = driven.claims()
        request = AckRequest(token.wake_id, token.generation, tuple(Ack(*ack) for ack in acks), True)
        return driven.apply(driven.machine.ack(driven.current, token, request, driven.now, driven.draw())).answer

    def test_offsets_that_are_no_place_in_the_stream_are_refused(self) -> None:
        for offset in ("-1", "now", "", "5", f"{2:016d}_{1:016d}", f"{1:016d}_{6:016d}", "x" * 10_000):
            driven = self.claimed(a=5)
            error = self.assertRaises(InvalidAckOffset, self.offsets, driven, (A, offset))
            self.assertLess(len(str(error)), 400)
            self.assertEqual((0, "worker"), (driven.cursor(A), driven.wake.holder))

    def test_the_tail_and_the_start_are_places(self) -> None:
        for offset, pending in (
            (f"{1:016d}_{5:016d}", False),
            (f"{1:016d}_{0:016d}", True),
            ("0" * 16 + "_" + "0" * 16, True),
        ):
            self.assertEqual(Acked(pending), self.offsets(self.claimed(a=5), (A, offset)))

    def test_acks_of_one_stream_apply_in_their_order(self) -> None:
        first, second = f"{1:016d}_{2:016d}", f"{1:016d}_{4:016d}"
        driven = self.claimed(a=5)
        self.assertRaises(InvalidAckOffset, self.offsets, driven, (A, second), (A, first))
        self.offsets(driven, (A, first), (A, second))
        self.assertEqual(4, driven.cursor(A))

    def test_an_unlinked_stream_is_refused_with_its_name(self) -> None:
        driven = self.claimed(a=5)
        error = self.assertRaises(InvalidAckOffset, self.offsets, driven, ("other", f"{1:016d}_{2:016d}"))
        self.assertIn("The stream other is not linked", str(error))

    def test_streams_that_were_deleted_or_unlinked_since_are_skipped(self) -> None:
        driven = self.claimed(a=5, b=5)
        driven.stream(A, None)
        self.assertEqual(Acked(False), self.offsets(driven, (A, f"{1:016d}_{5:016d}"), (B, f"{2:016d}_{5:016d}")))
        driven = self.claimed(a=5, b=5)
        driven.stream(A, 3, stream_id=9)
        self.assertEqual(Acked(True), self.offsets(driven, (A, f"{1:016d}_{5:016d}"), (B, f"{2:016d}_{5:016d}")))
        self.assertEqual((0, 5), (driven.cursor(A), driven.cursor(B)))

    def test_the_new_stream_of_a_name_can_be_acknowledged_in_the_old_wake(self) -> None:
        driven = self.claimed(a=5)
        driven.stream(A, 3, stream_id=9)
        self.offsets(driven, (A, f"{9:016d}_{3:016d}"))
        self.assertEqual(3, driven.cursor(A))

    def test_a_stream_that_came_after_the_snapshot_can_be_acknowledged_but_not_skipped(self) -> None:
        driven = self.claimed(a=5)
        driven.stream(B, 4, stream_id=2)
        self.offsets(driven, (B, f"{2:016d}_{4:016d}"))
        self.assertEqual(4, driven.cursor(B))
        driven = self.claimed(a=5)
        driven.stream(B, 4, stream_id=2)
        driven.stream(B, None)
        self.assertRaises(InvalidAckOffset, self.offsets, driven, (B, f"{2:016d}_{4:016d}"))

    def test_an_explicit_stream_that_does_not_exist_and_was_not_sent_is_refused(self) -> None:
        driven = self.claimed(a=5)
        driven.add("absent")
        error = self.assertRaises(InvalidAckOffset, self.offsets, driven, ("absent", f"{1:016d}_{0:016d}"))
        self.assertIn("There is no stream absent", str(error))


class SnapshotTests(SynchronousTestCase):
    def test_up_to_a_thousand_links_are_all_in_the_snapshot(self) -> None:
        tails = {f"events/{number:04d}": StreamTail(number, number, 5) for number in range(999)}
        driven = Driven(PULL, tails)
        driven.stream("events/0500", 9)
        driven.stream("events/new", 1, stream_id=2000)
        snapshot = driven.claim().snapshot
        self.assertEqual(sorted(driven.tails), [entry.path for entry in snapshot.entries])
        pending = [entry.path for entry in snapshot.entries if entry.has_pending]
        self.assertEqual(["events/0500", "events/new"], pending)

    def test_of_more_links_the_first_pending_ones_are_in_the_snapshot(self) -> None:
        tails = {f"events/{number:04d}": StreamTail(number, number, 5) for number in range(1500)}
        driven = Driven(PULL, tails)
        for path in list(tails)[100:]:
            driven.tails[path] = StreamTail(int(path[-4:]), int(path[-4:]), 9)
            driven.current.links.refresh(path)
        driven.evaluate()
        self.assertEqual("events/0100", driven.wake.stream)
        entries = driven.claim().snapshot.entries
        self.assertEqual([f"events/{number:04d}" for number in range(100, 1100)], [entry.path for entry in entries])
        driven.ack(driven.claims(), *((entry.path, entry.tail) for entry in entries))
        answer = driven.ack(driven.claims(), done=True).answer
        self.assertEqual((Acked(True), "events/1100"), (answer, driven.wake.stream))

    def test_the_snapshot_of_a_claim_is_taken_at_the_claim(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        driven.stream(A, 9)
        driven.stream(B, 1, stream_id=2)
        self.assertEqual([(A, 9), (B, 1)], [(entry.path, entry.tail) for entry in driven.claim().snapshot.entries])

    def test_an_absent_stream_has_the_offsets_of_the_start(self) -> None:
        driven = Driven(replace(PULL, streams=("x",)))
        driven.stream(A, 5)
        entry = driven.claim().snapshot.entries[-1]
        self.assertEqual(
            ("x", "-1", "-1", False), (entry.path, entry.acked_offset, entry.tail_offset, entry.has_pending)
        )

    def test_the_record_of_the_snapshot_goes_with_its_wake(self) -> None:
        driven = Driven(PULL)
        driven.stream(A, 5)
        self.assertNotIn("snapshots/s", driven.records)
        driven.claim()
        self.assertIn("snapshots/s", driven.records)
        driven.ack(driven.claims(), (A, 5), done=True)
        self.assertNotIn("snapshots/s", driven.records)


class CreationTests(SynchronousTestCase):
    def test_a_creation_expects_that_there_is_no_subscription(self) -> None:
        subscription = Subscription("s", 7, PULL, "http://x", 5.0, b"d")
        puts, expected = create(subscription)
        self.assertEqual({"subscriptions/s": None, "wakes/s": None}, expected)
        self.assertEqual({"subscriptions/s", "wakes/s"}, set(puts))

    def test_a_deletion_removes_the_records_of_the_subscription(self) -> None:
        driven = Driven(WEBHOOK)
        driven.stream(A, 5)
        driven.write(*delete(driven.current))
        self.assertEqual(["links/s/events/a"], list(driven.records))

    def test_a_subscription_that_is_made_again_appends_its_events_by_another_writer(self) -> None:
        writers = []
        for birth in (7, 8):
            driven = Driven(PULL)
            subscription = replace(driven.current.subscription, birth=birth)
            driven.current = replace(driven.current, subscription=subscription)
            driven.stream(A, 5)
            [effect] = driven.attempt()
            assert isinstance(effect, AppendWakeEvent)
            writers.append(effect.writer_id)
        self.assertEqual(["__ds:s:7", "__ds:s:8"], writers)
