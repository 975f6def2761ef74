"""The state machine as a table: each event in each state."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.errors import SubscriptionError
from durable_streams.server.subscriptions.model import Outcome, StreamTail, TokenClaims

from .driving import PULL, WEBHOOK, Driven

A, B = "events/a", "events/b"
Step = Callable[[Driven], object]


def _idle(driven: Driven) -> None:
    driven.stream(A, 0)


def _waking(driven: Driven) -> None:
    driven.stream(A, 5)


def _sent(driven: Driven) -> None:
    _waking(driven)
    driven.attempt()


def _told(driven: Driven) -> None:
    _sent(driven)
    driven.outcome(Outcome.ACCEPTED)


def _retrying(driven: Driven) -> None:
    _sent(driven)
    driven.outcome(Outcome.FAILED)


def _claimed(driven: Driven) -> None:
    _told(driven)
    driven.claim("first")


def _overdue(driven: Driven) -> None:
    _claimed(driven)
    driven.now += 10


def _lapsed(driven: Driven) -> None:
    _told(driven)
    driven.now += 10


def _spaced(driven: Driven) -> None:
    _claimed(driven)
    for _ in range(2):
        driven.release(driven.claims())
        driven.claim()
    driven.release(driven.claims())


def _spaced_webhook(driven: Driven) -> None:
    _told(driven)
    for _ in range(2):
        driven.now += 10
        driven.evaluate()
        driven.attempt()
        driven.outcome(Outcome.ACCEPTED)
    driven.now += 10
    driven.evaluate()


def _own(driven: Driven) -> TokenClaims:
    """Return the token of the current wake, or one of no wake."""
    return driven.claims() if driven.current.state.wake is not None else TokenClaims("s", 99, "w99")


EVENTS: dict[str, Step] = {
    "append": lambda d: d.stream(A, 9),
    "create another": lambda d: d.stream(B, 1),
    "delete": lambda d: d.stream(A, None),
    "time": lambda d: d.evaluate(),
    "claim": lambda d: d.claim("second"),
    "heartbeat": lambda d: d.ack(_own(d)),
    "ack": lambda d: d.ack(_own(d), (A, 5)),
    "done": lambda d: d.ack(_own(d), (A, 5), done=True),
    "done without acks": lambda d: d.ack(_own(d), done=True),
    "old token": lambda d: d.ack(TokenClaims("s", 1, "w0"), (A, 5), done=True),
    "release": lambda d: d.release(_own(d)),
    "answer done": lambda d: d.outcome(Outcome.DONE, _own(d).wake_id),
    "answer": lambda d: d.outcome(Outcome.ACCEPTED, _own(d).wake_id),
    "failure": lambda d: d.outcome(Outcome.FAILED, _own(d).wake_id),
    "old answer": lambda d: d.outcome(Outcome.DONE, "w0"),
}

#: For each state, what an event leads to, in its order: the refusal, then the wake (``same``, ``new``, ``none`` or
#: ``later``), the cursor of the stream, and the seconds to the timer. The stream has 5 bytes, 0 in the state idle.
PULL_TABLE: dict[str, tuple[Step, dict[str, str]]] = {
    "idle": (
        _idle,
        {
            "append": "new 0 6",
            "create another": "new 0 6",
            "delete": "none",
            "time": "none 0",
            "claim": "NO_PENDING_WORK none 0",
            "heartbeat": "FENCED none 0",
            "done": "FENCED none 0",
            "old token": "FENCED none 0",
            "release": "FENCED none 0",
            "answer": "none 0",
            "old answer": "none 0",
        },
    ),
    "event not appended yet": (
        _sent,
        {
            "append": "same 0 6",
            "create another": "same 0 6",
            "delete": "none",
            "time": "same 0 6",
            "claim": "same 0 10",
            "old token": "FENCED same 0 6",
            "answer": "same 0",
            "failure": "same 0 1",
            "old answer": "same 0 6",
        },
    ),
    "event appended": (
        _told,
        {
            "append": "same 0",
            "delete": "none",
            "time": "same 0",
            "claim": "same 0 10",
            "old token": "FENCED same 0",
        },
    ),
    "event to be tried again": (
        _retrying,
        {
            "append": "same 0 1",
            "delete": "none",
            "time": "same 0 1",
            "claim": "same 0 10",
            "old answer": "same 0 1",
        },
    ),
    "claimed": (
        _claimed,
        {
            "append": "same 0 10",
            "create another": "same 0 10",
            "delete": "same 10",
            "time": "same 0 10",
            "claim": "ALREADY_CLAIMED same 0 10",
            "heartbeat": "same 0 10",
            "ack": "same 5 10",
            "done": "none 5",
            "done without acks": "new 0 6",
            "old token": "FENCED same 0 10",
            "release": "new 0 6",
            "answer": "same 0 10",
            "failure": "same 0 10",
            "old answer": "same 0 10",
        },
    ),
    "lease over": (
        _overdue,
        {
            "append": "new 0 6",
            "delete": "none",
            "time": "new 0 6",
            "claim": "new 0 10",
            "heartbeat": "FENCED same 0 0",
            "ack": "FENCED same 0 0",
            "done": "FENCED same 0 0",
            "release": "FENCED same 0 0",
        },
    ),
    "third wake without progress over": (
        _spaced,
        {
            "append": "later 0 1",
            "create another": "later 0 1",
            "delete": "none",
            "time": "later 0 1",
            "claim": "new 0 10",
            "old token": "FENCED later 0 1",
        },
    ),
}

WEBHOOK_TABLE: dict[str, tuple[Step, dict[str, str]]] = {
    "idle": (
        _idle,
        {
            "append": "new 0 6",
            "delete": "none",
            "time": "none 0",
            "claim": "INVALID_REQUEST none 0",
            "release": "INVALID_REQUEST none 0",
            "heartbeat": "FENCED none 0",
            "answer done": "none 0",
        },
    ),
    "request under way": (
        _sent,
        {
            "append": "same 0 6",
            "create another": "same 0 6",
            "delete": "none",
            "time": "same 0 6",
            "heartbeat": "same 0 10",
            "ack": "same 5 10",
            "done": "none 5",
            "done without acks": "new 0 6",
            "old token": "FENCED same 0 6",
            "answer done": "none 5",
            "answer": "same 0 10",
            "failure": "same 0 1",
            "old answer": "same 0 6",
        },
    ),
    "request to be tried again": (
        _retrying,
        {
            "append": "same 0 1",
            "create another": "same 0 1",
            "delete": "none",
            "time": "same 0 1",
            "heartbeat": "same 0 10",
            "ack": "same 5 10",
            "done": "none 5",
            "old answer": "same 0 1",
        },
    ),
    "accepted": (
        _told,
        {
            "append": "same 0 10",
            "delete": "same 10",
            "time": "same 0 10",
            "heartbeat": "same 0 10",
            "ack": "same 5 10",
            "done": "none 5",
            "done without acks": "new 0 6",
            "old token": "FENCED same 0 10",
            "old answer": "same 0 10",
        },
    ),
    "lease over": (
        _lapsed,
        {
            "append": "new 0 6",
            "delete": "none",
            "time": "new 0 6",
            "heartbeat": "FENCED same 0 0",
            "done": "FENCED same 0 0",
        },
    ),
    "third wake without progress over": (
        _spaced_webhook,
        {
            "append": "later 0 1",
            "delete": "none",
            "time": "later 0 1",
            "old token": "FENCED later 0 1",
            "old answer": "later 0 1",
        },
    ),
}


def happens(driven: Driven, event: Step) -> str:
    """Perform an event, and describe what it led to."""
    before = driven.current.state.wake
    words = []
    try:
        event(driven)
    except SubscriptionError as error:
        words.append(error.code)
    state = driven.current.state
    if state.wake is None:
        words.append("none" if state.scheduled_at is None else "later")
    else:
        same = before is not None and before.wake_id == state.wake.wake_id
        words.append("same" if same else "new")
        assert state.wake.generation == state.generation
    if A in driven.current.links:
        words.append(str(driven.cursor(A)))
    if driven.deadline is not None:
        words.append(f"{driven.deadline - driven.now:g}")
    return " ".join(words)


class TableTests(SynchronousTestCase):
    def test_each_event_in_each_state_of_a_pull_wake(self) -> None:
        for state, (reach, row) in PULL_TABLE.items():
            for event, expected in row.items():
                driven = Driven(PULL)
                reach(driven)
                self.assertEqual(expected, happens(driven, EVENTS[event]), f"{state}: {event}")

    def test_each_event_in_each_state_of_a_webhook(self) -> None:
        for state, (reach, row) in WEBHOOK_TABLE.items():
            for event, expected in row.items():
                driven = Driven(WEBHOOK)
                reach(driven)
                self.assertEqual(expected, happens(driven, EVENTS[event]), f"{state}: {event}")

    def test_an_event_that_changes_nothing_writes_nothing(self) -> None:
        for table, config in ((PULL_TABLE, PULL), (WEBHOOK_TABLE, WEBHOOK)):
            for state, (reach, _row) in table.items():
                if state == "lease over":
                    continue
                driven = Driven(config)
                reach(driven)
                for event in ("append", "time", "old answer"):
                    if state == "idle" and event == "append":
                        continue
                    EVENTS[event](driven)
                    assert driven.decision is not None
                    self.assertEqual({}, driven.decision.puts, f"{state}: {event}")

    def test_every_write_compares_the_stored_state(self) -> None:
        for table, config in ((PULL_TABLE, PULL), (WEBHOOK_TABLE, WEBHOOK)):
            for reach, row in table.values():
                for event in row:
                    driven = Driven(config)
                    reach(driven)
                    happens(driven, EVENTS[event])
                    if driven.decision is not None and driven.decision.puts:
                        self.assertEqual(["wakes/s"], list(driven.decision.expected))


class TailTests(SynchronousTestCase):
    def test_existing_streams_are_not_pending_in_a_new_subscription(self) -> None:
        tails = {A: StreamTail(1, 1, 5), "other": StreamTail(2, 2, 5)}
        driven = Driven(PULL, tails)
        self.assertEqual((5, None), (driven.cursor(A), driven.cursor("other")))
        self.assertEqual("none 5", happens(driven, EVENTS["time"]))
        self.assertEqual("new 5 6", happens(driven, EVENTS["append"]))
