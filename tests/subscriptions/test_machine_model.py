"""Random lives of a subscription: the state machine beside a model, through crashes and refused writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.decisions import Decision
from durable_streams.server.subscriptions.errors import Fenced, SubscriptionError
from durable_streams.server.subscriptions.machine import needs_evaluation
from durable_streams.server.subscriptions.model import (
    Ack,
    Acked,
    AckRequest,
    AppendWakeEvent,
    DeliverWebhook,
    DeliveryDue,
    Outcome,
    StreamTail,
    TokenClaims,
)

from .driving import PULL, WEBHOOK, Driven, load
from .model import MATCHING, Model, Refused

PATHS = ("events/a", "events/b", "other/c", "events/d/e")
LINKABLE = st.sampled_from((*PATHS, "events/a", "events/a"))


class Lives(RuleBasedStateMachine):
    """One subscription with streams, workers, deliveries, a clock and crashes."""

    @initialize(webhook=st.booleans(), explicit=st.sets(LINKABLE, max_size=2))
    def begin(self, webhook: bool, explicit: set[str]) -> None:
        """Create the subscription."""
        config = replace(WEBHOOK if webhook else PULL, streams=tuple(sorted(explicit)))
        self.driven = Driven(config)
        self.model = Model(config, self.driven.now)
        self.next_stream = 1
        #: The token of each claim and webhook, with the incarnation of each stream that its worker saw.
        self.tokens: list[TokenClaims] = []
        self.running: list[str] = []
        self.due: str | None = None
        self.generations = [0]
        self.wake_ids: dict[str, int] = {}
        self.cursors: dict[tuple[str, int], int] = {}
        self.refused = False

    def step(self, decide: Callable[[str], Decision], predict: Callable[[str], Any]) -> Any:
        """
        Decide, and write unless writes are refused; compare the answer or the refusal with that of the model.

        :param decide: gets the wake id that a new wake has.
        """
        driven = self.driven
        wake_id = f"w{driven.drawn + 1}"
        before = dict(driven.records)
        decision, refusal = _attempted(decide, wake_id)
        assert before == driven.records, "a decision writes nothing by itself"
        assert self.same()
        if self.refused:
            self.refused = False
            return None
        if decision is not None:
            driven.write(decision.puts, decision.expected)
            driven.current = driven.current.following(decision)
            for effect in decision.effects:
                if isinstance(effect, DeliveryDue):
                    self.due = effect.wake_id
        predicted, code = _predicted(predict, wake_id)
        assert (refusal.code if refusal is not None else None) == code
        if decision is not None and isinstance(decision.answer, Acked):
            assert decision.answer.next_wake == predicted
        return decision if code is None else None

    def same(self) -> bool:
        """Return whether the state in memory is what a crash would leave."""
        current, loaded = self.driven.current, load(self.driven.records, self.driven.tails)
        return (current.state, current.snapshot, dict(_links(current)), set(current.links.pending)) == (
            loaded.state,
            loaded.snapshot,
            dict(_links(loaded)),
            set(loaded.links.pending),
        )

    def reconcile(self, path: str) -> None:
        """Tell the subscription of a change of a stream, until it has written that."""
        driven, model = self.driven, self.model

        def predict(wake_id: str) -> None:
            model.seen(path)
            model.rest(wake_id, driven.now)

        self.refused = False
        self.step(
            lambda _id: driven.machine.reconcile(
                driven.current, {path: driven.tails.get(path)}, driven.now, driven.draw()
            ),
            predict,
        )

    def change(self, path: str, stream: dict[str, int] | None) -> None:
        """Change a stream, in the streams and in the model."""
        if stream is None:
            self.driven.tails.pop(path, None)
            self.model.streams.pop(path, None)
        else:
            self.driven.tails[path] = StreamTail(stream["id"], stream["id"], stream["tail"])
            self.model.streams[path] = stream
        self.driven.current.links.refresh(path)

    @rule(path=LINKABLE, size=st.integers(0, 9))
    def append(self, path: str, size: int) -> None:
        """Append to a stream; create it first if there is none."""
        old = self.model.streams.get(path)
        if old is None:
            self.create(path, size)
        else:
            self.change(path, {"id": old["id"], "tail": old["tail"] + size})
            self.reconcile(path)

    def create(self, path: str, size: int) -> None:
        """Create a stream with a body."""
        self.change(path, {"id": self.next_stream, "tail": size})
        self.next_stream += 1
        self.reconcile(path)

    @rule(path=LINKABLE, size=st.none() | st.integers(0, 9))
    def delete(self, path: str, size: int | None) -> None:
        """Delete a stream, or replace it by a new one of the name before anybody looks."""
        if size is None:
            self.change(path, None)
            self.reconcile(path)
        else:
            self.create(path, size)

    @rule(paths=st.sets(LINKABLE, min_size=1, max_size=2), added=st.booleans())
    def change_membership(self, paths: set[str], added: bool) -> None:
        """Add explicit streams, or remove them."""
        if added:
            self.add(paths)
            return
        for path in sorted(paths):
            self.remove(path)

    def add(self, paths: set[str]) -> None:
        """Add explicit streams."""
        driven, model = self.driven, self.model

        def predict(wake_id: str) -> None:
            for path in paths:
                stream = model.streams.get(path)
                if path in model.links:
                    model.links[path]["explicit"] = True
                elif stream is None:
                    model.links[path] = model.absent()
                else:
                    model.links[path] = {"explicit": True, "id": stream["id"], "at": stream["tail"]}
            model.rest(wake_id, driven.now)

        tails = {path: driven.tails.get(path) for path in sorted(paths)}
        self.step(lambda _id: driven.machine.add_streams(driven.current, tails, driven.now, driven.draw()), predict)

    def remove(self, path: str) -> None:
        """Remove an explicit stream."""
        driven, model = self.driven, self.model

        def predict(wake_id: str) -> None:
            if path in model.links and model.links[path]["explicit"]:
                if path in MATCHING and path in model.streams:
                    model.links[path]["explicit"] = False
                else:
                    del model.links[path]
            model.rest(wake_id, driven.now)

        self.step(lambda _id: driven.machine.remove_stream(driven.current, path, driven.now, driven.draw()), predict)

    @rule(worker=st.sampled_from(["one", "two"]))
    def work(self, worker: str) -> None:
        """Give a wake to a worker: make sure that there is work, then claim, or send the request."""
        if not self.model.pending():
            self.append("events/a", 5)
        if self.model.webhook:
            self.attempt(early=True)
        else:
            self.claim(worker)

    @precondition(lambda self: not self.model.webhook)
    @rule(worker=st.sampled_from(["one", "two"]))
    def claim(self, worker: str) -> None:
        """Claim, as two workers do that race."""
        driven, model = self.driven, self.model
        decision = self.step(
            lambda _id: driven.machine.claim(driven.current, worker, driven.now, driven.draw()),
            lambda wake_id: model.claim(worker, wake_id, driven.now),
        )
        if decision is not None:
            assert model.wake is not None
            entries = {entry.path: (entry.stream_id, entry.tail) for entry in decision.answer.snapshot.entries}
            assert entries == model.wake["given"]
            self.tokens.append(driven.claims())

    @precondition(lambda self: self.tokens)
    @rule(
        data=st.data(),
        acks=st.lists(st.tuples(LINKABLE, st.integers(0, 3), st.integers(0, 12)), max_size=3),
        done=st.booleans(),
    )
    def ack(self, data: st.DataObject, acks: list[tuple[str, int, int]], done: bool) -> None:
        """Acknowledge with a token of any age, positions in streams of any age."""
        driven, model = self.driven, self.model
        token = self.token(data)
        named = [(path, max(1, self.stream_id(path) - age), position) for path, age, position in acks]
        request = AckRequest(
            token.wake_id,
            token.generation,
            tuple(Ack(path, f"{stream:016d}_{position:016d}") for path, stream, position in named),
            done,
        )
        fence = (token.wake_id, token.generation)
        self.step(
            lambda _id: driven.machine.ack(driven.current, token, request, driven.now, driven.draw()),
            lambda wake_id: model.ack(fence, named, done, wake_id, driven.now),
        )

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), done=st.booleans())
    def ack_everything(self, data: st.DataObject, done: bool) -> None:
        """Acknowledge the tails of all linked streams."""
        self.ack_tails(self.token(data), done)

    def ack_tails(self, token: TokenClaims, done: bool) -> None:
        """Acknowledge what a good worker does."""
        driven, model = self.driven, self.model
        named = [(p, model.streams[p]["id"], model.streams[p]["tail"]) for p in model.links if p in model.streams]
        acks = tuple(Ack(path, f"{stream:016d}_{tail:016d}") for path, stream, tail in named)
        request = AckRequest(token.wake_id, token.generation, acks, done)
        self.step(
            lambda _id: driven.machine.ack(driven.current, token, request, driven.now, driven.draw()),
            lambda wake_id: model.ack((token.wake_id, token.generation), named, done, wake_id, driven.now),
        )

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), own=st.booleans())
    def mix_fences(self, data: st.DataObject, own: bool) -> None:
        """Send one token with the wake_id or the generation of another: it is fenced whatever they are."""
        first, second = self.token(data), self.token(data)
        if first == second:
            return
        body = (second.wake_id, first.generation) if own else (first.wake_id, second.generation)
        driven = self.driven
        request = AckRequest(*body, done=True)
        _decision, refusal = _attempted(
            lambda _id: driven.machine.ack(driven.current, first, request, driven.now, driven.draw()), ""
        )
        assert isinstance(refusal, Fenced)

    @precondition(lambda self: self.tokens and not self.model.webhook)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Release with a token of any age."""
        driven, model = self.driven, self.model
        token = self.token(data)

        def predict(wake_id: str) -> None:
            model.check((token.wake_id, token.generation), driven.now)
            model.end(driven.now)
            model.rest(wake_id, driven.now)

        request = AckRequest(token.wake_id, token.generation)
        self.step(
            lambda _id: driven.machine.release(driven.current, token, request, driven.now, driven.draw()), predict
        )

    def token(self, data: st.DataObject) -> TokenClaims:
        """Return the token of the current wake, or one of the last tokens."""
        current = [token for token in self.tokens[-3:] if self.model.wake and token.wake_id == self.model.wake["id"]]
        return data.draw(st.sampled_from([*current[-1:] * 3, *self.tokens[-3:]]))

    def stream_id(self, path: str) -> int:
        """Return the id of a stream, or the next one."""
        return self.model.streams.get(path, {"id": self.next_stream})["id"]

    def evaluate(self) -> None:
        """Sweep."""
        driven, model = self.driven, self.model
        needed = needs_evaluation(driven.current, driven.now)
        refused = self.refused
        decision = self.step(
            lambda _id: driven.machine.evaluate(driven.current, driven.now, driven.draw()),
            lambda wake_id: model.rest(wake_id, driven.now),
        )
        if not refused:
            assert needed or not (decision.puts or decision.effects)
            again = driven.machine.evaluate(driven.current, driven.now, driven.draw())
            assert not again.puts

    @rule(
        seconds=st.none() | st.sampled_from([0.5, 1, 2, 6, 10, 60]),
        late=st.booleans(),
    )
    def wait(self, seconds: float | None, late: bool) -> None:
        """Let some time pass, or that of the timer; the timer is called, or late."""
        driven = self.driven
        if seconds is not None:
            driven.now += seconds
        elif driven.deadline is not None:
            driven.now = max(driven.now, driven.deadline)
        if not late:
            self.evaluate()

    @rule(early=st.booleans())
    def attempt(self, early: bool) -> None:
        """Begin the delivery that is due; or one of the current wake that nobody has asked for."""
        driven, wake = self.driven, self.model.wake
        wake_id, self.due = self.due, None
        if early and wake is not None:
            wake_id = wake["id"]
        if wake_id is None:
            return
        expected = self.model.sends(wake_id, driven.now)
        decision = driven.machine.attempt(driven.current, wake_id, driven.now)
        driven.write(decision.puts, decision.expected)
        driven.current = driven.current.following(decision)
        assert bool(decision.effects) == expected
        if not expected:
            assert not decision.puts
            return
        assert wake is not None
        [effect] = decision.effects
        wake.update(due=driven.wake.next_attempt_at, trying=True)
        assert driven.now + 5 <= wake["due"] <= driven.now + 6
        self.running.append(wake_id)
        if isinstance(effect, DeliverWebhook):
            assert {e.path: (e.stream_id, e.tail) for e in effect.snapshot.entries} == wake["given"]
            self.tokens.append(driven.claims())
        else:
            assert isinstance(effect, AppendWakeEvent)

    @precondition(lambda self: self.running)
    @rule(outcome=st.sampled_from(Outcome), data=st.data())
    def outcome(self, outcome: Outcome, data: st.DataObject) -> None:
        """Let a delivery end, perhaps after its wake."""
        driven, model = self.driven, self.model
        wake_id = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.refused = False
        self.step(
            lambda _id: driven.machine.outcome(driven.current, wake_id, outcome, driven.now, driven.draw()),
            lambda new: model.outcome(wake_id, outcome.value, new, driven.now),
        )

    @rule(crash=st.booleans())
    def trouble(self, crash: bool) -> None:
        """Lose everything but the records; or let the storage refuse the next write, as if its event had not come."""
        self.refused = not crash
        if crash:
            self.driven.reload()
            self.running, self.due = [], None

    @invariant()
    def it_is_as_the_model(self) -> None:
        """Compare links and wake."""
        if not hasattr(self, "model"):
            return
        current, model = self.driven.current, self.model
        assert set(current.links) == set(model.links)
        for path, link in _links(current):
            assert (link.explicit, link.stream_id) == (model.links[path]["explicit"], model.links[path]["id"])
            assert link.cursor(self.driven.tails.get(path)) == model.at(path)
        state, wake = current.state, model.wake
        assert (state.generation, state.fruitless, state.scheduled_at) == (
            model.generation,
            model.fruitless,
            model.scheduled,
        )
        assert (state.wake is None) == (wake is None)
        if state.wake is not None and wake is not None:
            own = (state.wake.wake_id, state.wake.holder, state.wake.delivered, state.wake.failures)
            assert own == (wake["id"], wake["holder"], wake["delivered"], wake["failures"])
            assert state.wake.next_attempt_at == wake["due"]
            if model.taken():
                assert state.wake.lease_until == wake["until"]
        assert set(model.pending()) == set(current.links.pending)
        assert current.links.pending_bytes == sum(
            model.streams[path]["tail"] - model.at(path) for path in model.pending()
        )

    @invariant()
    def nothing_goes_back(self) -> None:
        """Neither generations nor cursors fall, and a wake_id belongs to one generation."""
        if not hasattr(self, "model"):
            return
        state = self.driven.current.state
        assert state.generation >= self.generations[-1]
        self.generations.append(state.generation)
        if state.wake is not None:
            assert state.wake.generation == state.generation
            assert self.wake_ids.setdefault(state.wake.wake_id, state.generation) == state.generation
            assert list(self.wake_ids.values()).count(state.generation) == 1
        held = {(path, link.stream_id): link.position for path, link in _links(self.driven.current)}
        for key, position in held.items():
            if key[1] is not None:
                assert position >= self.cursors.get(key, 0), key
        # A link that was removed and added again begins anew, so cursors are compared while it exists.
        self.cursors = {key: position for key, position in held.items() if key[1] is not None}

    @invariant()
    def work_is_never_stranded(self) -> None:
        """Pending work has a wake or a scheduled one, and each of them has a timer or a holder who may claim it."""
        if not hasattr(self, "model"):
            return
        state, driven = self.driven.current.state, self.driven
        if driven.current.links.pending:
            assert state.wake is not None or state.scheduled_at is not None
        if state.wake is not None:
            waits_for_claim = not self.model.webhook and state.wake.delivered and state.wake.holder is None
            assert waits_for_claim or driven.deadline is not None
        assert self.same()


def _attempted(decide: Callable[[str], Decision], wake_id: str) -> tuple[Decision | None, SubscriptionError | None]:
    """Return a decision and its refusal, however that comes."""
    try:
        decision = decide(wake_id)
    except SubscriptionError as error:
        return None, error
    return decision, decision.refusal


def _predicted(predict: Callable[[str], Any], wake_id: str) -> tuple[Any, str | None]:
    """Return the prediction of the model, or the code of its refusal."""
    try:
        return predict(wake_id), None
    except Refused as error:
        return None, str(error)


def _links(current: Any) -> list[tuple[str, Any]]:
    """Return the links of a subscription by path."""
    return [(path, current.links.get(path)) for path in current.links]


class ModelTests(SynchronousTestCase):
    def test_random_lives_agree_with_the_model(self) -> None:
        run_state_machine_as_test(Lives, settings=settings(max_examples=150, stateful_step_count=50, deadline=None))
