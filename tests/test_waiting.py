from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.interfaces import ICommitListener
from durable_streams.server.run_queue import BUDGET, RunQueue
from durable_streams.server.waiting import GATHERING, Waiting
from tests.support.reactor import Reactor
from tests.support.stopwatch import Stopwatch

#: How many of a crowd can be woken in the time that there is in one turn.
CROWD = 256


class Sleeper:
    """A watcher that counts its wake-ups."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.woken = 0
        self._then = then

    def wake(self) -> None:
        self.woken += 1
        self._then()


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Reactor()
        self.stopwatch = Stopwatch()
        self.waiting = Waiting(self.clock, RunQueue(self.clock, self.stopwatch))

    def sleepers(self, count: int, name: str = "a") -> list[Sleeper]:
        sleepers = [Sleeper() for _ in range(count)]
        for sleeper in sleepers:
            self.waiting.watch(name, sleeper.wake)
        return sleepers

    def settle(self) -> int:
        """Run turns of the reactor until nothing is due, and return how many."""
        turns = 0
        while self.clock.getDelayedCalls():
            self.clock.turn(GATHERING)
            turns += 1
            self.assertLess(turns, 1000, "this goes on for ever")
        return turns


class WaitingTests(Case):
    def test_waiting_provides_the_commit_listener(self) -> None:
        self.assertTrue(verifyObject(ICommitListener, self.waiting))

    def test_the_first_commit_wakes_in_the_next_turn(self) -> None:
        [sleeper] = self.sleepers(1)
        self.waiting.committed("a")
        self.assertEqual(0, sleeper.woken)
        self.clock.turn()
        self.assertEqual(1, sleeper.woken)

    def test_the_first_commit_after_a_pause_wakes_in_the_next_turn(self) -> None:
        [sleeper] = self.sleepers(1)
        self.waiting.committed("a")
        self.settle()
        self.clock.turn(2 * GATHERING)
        self.waiting.committed("a")
        self.clock.turn()
        self.assertEqual(2, sleeper.woken)

    def test_commits_that_follow_each_other_closely_wake_once(self) -> None:
        [sleeper] = self.sleepers(1)
        self.waiting.committed("a")
        self.clock.turn()
        for _ in range(5):
            self.waiting.committed("a")
            self.clock.turn(GATHERING / 10)
        self.assertEqual(1, sleeper.woken)
        self.clock.turn(GATHERING)
        self.assertEqual(2, sleeper.woken)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_commits_of_one_turn_wake_once(self) -> None:
        [sleeper] = self.sleepers(1)
        for _ in range(5):
            self.waiting.committed("a")
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.settle()
        self.assertEqual(1, sleeper.woken)

    def test_only_watchers_of_the_changed_stream_are_woken(self) -> None:
        [here], [there] = self.sleepers(1, "a"), self.sleepers(1, "b")
        self.waiting.committed("a")
        self.settle()
        self.assertEqual((1, 0), (here.woken, there.woken))

    def test_a_commit_to_a_stream_without_watchers_schedules_nothing(self) -> None:
        self.waiting.committed("a")
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_watcher_that_is_added_twice_is_woken_once_and_removed_once(self) -> None:
        [sleeper] = self.sleepers(1)
        self.waiting.watch("a", sleeper.wake)
        self.waiting.committed("a")
        self.settle()
        self.assertEqual(1, sleeper.woken)
        self.waiting.unwatch("a", sleeper.wake)
        self.assertEqual([], list(self.waiting.watched()))

    def test_an_unwatched_watcher_is_not_woken(self) -> None:
        first, second = self.sleepers(2)
        self.waiting.committed("a")
        self.waiting.unwatch("a", first.wake)
        self.settle()
        self.assertEqual((0, 1), (first.woken, second.woken))

    def test_a_watcher_that_is_removed_during_a_round_is_not_woken(self) -> None:
        sleepers: list[Sleeper] = []

        def send_the_others_away() -> None:
            for sleeper in sleepers:
                self.waiting.unwatch("a", sleeper.wake)

        sleepers += [Sleeper(send_the_others_away), Sleeper(send_the_others_away)]
        for sleeper in sleepers:
            self.waiting.watch("a", sleeper.wake)
        self.waiting.committed("a")
        self.settle()
        self.assertEqual(1, sum(sleeper.woken for sleeper in sleepers))
        self.assertEqual([], list(self.waiting.watched()))

    def test_a_watcher_that_is_added_during_a_round_is_woken_in_the_next(self) -> None:
        late = Sleeper()
        early = Sleeper(lambda: self.waiting.watch("a", late.wake))
        self.waiting.watch("a", early.wake)
        self.waiting.committed("a")
        self.settle()
        self.assertEqual((1, 0), (early.woken, late.woken))
        self.waiting.committed("a")
        self.settle()
        self.assertEqual((2, 1), (early.woken, late.woken))

    def test_a_commit_during_a_round_wakes_in_a_later_turn(self) -> None:
        def commit_once() -> None:
            if sleeper.woken == 1:
                self.waiting.committed("a")

        sleeper = Sleeper(commit_once)
        self.waiting.watch("a", sleeper.wake)
        self.waiting.committed("a")
        self.clock.turn()
        self.assertEqual(1, sleeper.woken)
        self.settle()
        self.assertEqual(2, sleeper.woken)

    def test_unwatching_an_unknown_watcher_does_nothing(self) -> None:
        self.waiting.unwatch("a", Sleeper().wake)
        [sleeper] = self.sleepers(1)
        self.waiting.unwatch("a", Sleeper().wake)
        self.waiting.unwatch("b", sleeper.wake)
        self.assertEqual(["a"], list(self.waiting.watched()))

    def test_watched_returns_the_streams_with_watchers(self) -> None:
        [here], _ = self.sleepers(1, "a"), self.sleepers(2, "b")
        self.assertEqual({"a", "b"}, set(self.waiting.watched()))
        self.waiting.unwatch("a", here.wake)
        self.assertEqual(["b"], list(self.waiting.watched()))

    def test_wake_all_wakes_every_watcher(self) -> None:
        sleepers = [*self.sleepers(2, "a"), *self.sleepers(2, "b")]
        self.waiting.wake_all()
        self.assertEqual({0}, {sleeper.woken for sleeper in sleepers})
        self.settle()
        self.assertEqual({1}, {sleeper.woken for sleeper in sleepers})

    def test_all_watchers_can_be_removed_during_a_round(self) -> None:
        woken: list[str] = []

        def come_and_leave(name: str) -> None:
            def wake() -> None:
                woken.append(name)
                self.waiting.unwatch(name, wake)

            self.waiting.watch(name, wake)

        for name in "abc":
            come_and_leave(name)
        self.waiting.wake_all()
        self.settle()
        self.assertEqual(["a", "b", "c"], sorted(woken))
        self.assertEqual([], list(self.waiting.watched()))


class CrowdTests(Case):
    def sleepers(self, count: int, name: str = "a") -> list[Sleeper]:
        """Make some of whom a turn has time for :data:`CROWD`."""
        sleepers = [Sleeper(lambda: self.stopwatch.spend(BUDGET / CROWD)) for _ in range(count)]
        for sleeper in sleepers:
            self.waiting.watch(name, sleeper.wake)
        return sleepers

    def test_a_round_of_slow_watchers_runs_within_the_time_budget(self) -> None:
        sleepers = [Sleeper(lambda: self.stopwatch.spend(BUDGET)) for _ in range(3)]
        for sleeper in sleepers:
            self.waiting.watch("a", sleeper.wake)
        self.waiting.committed("a")
        woken = []
        for _ in range(3):
            self.clock.turn()
            woken.append(sum(sleeper.woken for sleeper in sleepers))
        self.assertEqual([1, 2, 3], woken)

    def test_other_calls_run_between_two_slices_of_a_round(self) -> None:
        sleepers = self.sleepers(2 * CROWD + 1)
        self.waiting.committed("a")
        woken = []
        for _ in range(4):
            self.clock.turn()
            woken.append(sum(sleeper.woken for sleeper in sleepers))
        self.assertEqual([CROWD, 2 * CROWD, 2 * CROWD + 1, 2 * CROWD + 1], woken)
        self.assertEqual({1}, {sleeper.woken for sleeper in sleepers})

    def test_a_watcher_that_is_removed_between_two_slices_is_not_woken(self) -> None:
        sleepers = self.sleepers(CROWD + 50)
        self.waiting.committed("a")
        self.clock.turn()
        waiting_still = [sleeper for sleeper in sleepers if not sleeper.woken]
        self.waiting.unwatch("a", waiting_still[0].wake)
        self.settle()
        self.assertEqual(0, waiting_still[0].woken)
        self.assertEqual({1}, {sleeper.woken for sleeper in waiting_still[1:]})

    def test_a_commit_between_two_slices_wakes_all_watchers_in_the_next_round(self) -> None:
        sleepers = self.sleepers(CROWD + 1)
        self.waiting.committed("a")
        self.clock.turn()
        before = [sleeper.woken for sleeper in sleepers]
        self.waiting.committed("a")
        self.settle()
        self.assertTrue(all(sleeper.woken > woken for sleeper, woken in zip(sleepers, before, strict=True)))

    def test_a_busy_stream_does_not_accumulate_wake_ups(self) -> None:
        crowd = 8 * CROWD
        sleepers = self.sleepers(crowd)
        for _ in range(200):
            self.waiting.committed("a")
            self.clock.turn()
        self.assertLessEqual(self.settle(), 2 * crowd // CROWD)
        counts = Counter(sleeper.woken for sleeper in sleepers)
        self.assertLessEqual(max(counts) - min(counts), 1)

    def test_a_crowd_does_not_starve_a_lone_reader_of_another_stream(self) -> None:
        self.sleepers(4 * CROWD, "busy")
        [lone] = self.sleepers(1, "quiet")
        self.waiting.committed("busy")
        self.clock.turn()
        self.waiting.committed("quiet")
        for _ in range(8):
            self.waiting.committed("busy")
            self.clock.turn()
        self.assertEqual(1, lone.woken)


class FailingTests(Case):
    def test_a_failing_watcher_does_not_stop_others_from_being_woken(self) -> None:
        def fail() -> None:
            raise RuntimeError("not today")

        failing = [Sleeper(fail) for _ in range(3)]
        for sleeper in failing:
            self.waiting.watch("a", sleeper.wake)
        others = [*self.sleepers(CROWD, "a"), *self.sleepers(3, "b")]
        self.waiting.wake_all()
        self.settle()
        self.assertEqual({1}, {sleeper.woken for sleeper in [*failing, *others]})
        self.assertEqual(3, len(self.flushLoggedErrors(RuntimeError)))

    def test_a_failing_watcher_does_not_stop_later_wake_ups(self) -> None:
        def fail() -> None:
            raise RuntimeError("not today")

        self.waiting.watch("a", Sleeper(fail).wake)
        [other] = self.sleepers(1)
        for expected in (1, 2):
            self.waiting.committed("a")
            self.settle()
            self.assertEqual(expected, other.woken)
            self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(
            st.tuples(st.sampled_from(["watch", "unwatch", "commit", "turn"]), st.sampled_from("abc")), max_size=60
        )
    )
    def test_no_commit_is_missed_by_a_watcher(self, steps: list[tuple[str, str]]) -> None:
        clock = Reactor()
        waiting = Waiting(clock, RunQueue(clock))
        sleepers = {name: Sleeper() for name in "abc"}
        owed: dict[str, int] = {}
        for step, name in steps:
            if step == "watch":
                waiting.watch(name, sleepers[name].wake)
            elif step == "unwatch":
                waiting.unwatch(name, sleepers[name].wake)
                owed.pop(name, None)
            elif step == "turn":
                clock.turn(GATHERING / 2)
            elif name in waiting.watched():
                waiting.committed(name)
                owed[name] = sleepers[name].woken + 1
        for _ in range(3):
            clock.turn(GATHERING)
        for name, least in owed.items():
            self.assertGreaterEqual(sleepers[name].woken, least)
        self.assertEqual([], clock.getDelayedCalls())
