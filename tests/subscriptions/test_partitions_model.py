"""
Random histories of services on nodes that share a storage, which die, lose messages, and fail to write.

Generations never fall, and no cursor is before an ack that was answered. At the end each stream is processed to its
tail: nothing is stranded.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamsError, Unavailable
from durable_streams.server.subscriptions.model import Outcome
from tests.subscriptions.nodes import Nodes
from tests.subscriptions.serving import Serving, pull, webhook

HISTORIES = 30
STEPS = 100
NAMES = ("events/a", "events/b", "x")
SUBSCRIPTIONS = ("hook", "pulled")


class History:
    """
    One history.

    :ivar rate: the probability of a write that fails, before and after it is done, and of a message that is lost.
    """

    def __init__(self, case: SynchronousTestCase, seed: int) -> None:
        self._case = case
        self._random = Random(seed)
        self._nodes = Nodes(case)
        self.rate = 0.0
        shared = self._nodes.shared
        shared.loses = lambda: self._random.random() < self.rate
        shared.before_write = lambda puts: self._fail("Nothing was written.")
        shared.after_write = lambda puts: self._fail("It is not known what was written.")
        first = self._nodes.all[0]
        first.put("wakes")
        first.create(webhook("events/*", "x", lease=2000), "hook")
        first.create(pull("events/*", "x", lease=2000), "pulled")
        self._existing: set[str] = set()
        self._wakes: list[dict[str, Any]] = []
        self._generations = dict.fromkeys(SUBSCRIPTIONS, 0)
        self._alive = [0, 1]
        for serving in self._nodes.all:
            serving.parts.receive = self._receive

    def _fail(self, reason: str) -> None:
        if self._random.random() < self.rate:
            raise Unavailable(reason)

    @property
    def _node(self) -> Serving:
        """A node that lives."""
        return self._nodes.all[self._random.choice(self._alive)]

    def run(self) -> None:
        """Do random steps."""
        self.rate = 0.1
        steps = (self._write, self._write, self._delete, self._claim, self._ack, self._kill, self._pass_time)
        for _ in range(STEPS):
            self._random.choices(steps, (20, 20, 6, 14, 10, 2, 27))[0]()
            if self._random.random() < 0.5:
                self._nodes.all[0].work()
            for number in self._alive:
                for name, entry in self._nodes.all[number].service._registry.entries.items():
                    if entry.current is not None and not entry.stale:
                        generation = entry.current.state.generation
                        self._generations[name] = max(self._generations[name], generation)

    def end(self) -> None:
        """Let everything work, and assert that all streams were processed to their tails."""
        self.rate = 0.0
        for serving in self._nodes.all:
            serving.parts.receive = lambda body: Outcome.DONE
        for _ in range(150):
            self._nodes.advance(1)
            self._wakes.clear()
            self._claim()
            self._nodes.all[0].work()
            for wake in self._wakes:
                self._node.get(self._node.acking(wake, done=True, subscription_id="pulled"))
        expected = {}
        for name in self._existing:
            status: Any = self._nodes.shared.storage.status(name, self._nodes.clock.seconds())
            expected[name] = str(status.tail)
        for number in self._alive:
            for name in SUBSCRIPTIONS:
                serving = self._nodes.all[number]
                cursors = {path: at for path, at in serving.cursors(name).items() if at != "-1"}
                self._case.assertEqual(expected, cursors, name)
                current = serving.service._registry.find(name).current
                assert current is not None
                self._case.assertGreaterEqual(current.state.generation, self._generations[name])
            figures = self._nodes.all[number].service.figures()
            self._case.assertEqual((0, 0), (figures.waiting, figures.running))
        for number in self._alive:
            self._nodes.all[number].stop()

    def _receive(self, body: object) -> Outcome | Deferred[Outcome]:
        outcome = self._random.choice([Outcome.DONE, Outcome.ACCEPTED, Outcome.FAILED])
        if self._random.random() < 0.5:
            return outcome
        later: Deferred[Outcome] = Deferred()
        self._nodes.clock.callLater(self._random.random() * 3, later.callback, outcome)
        return later

    def _write(self) -> None:
        name = self._random.choice(NAMES)
        if name in self._existing:
            self._node.append(name)
        else:
            self._existing.add(name)
            self._node.put(name, 1)

    def _delete(self) -> None:
        if self._existing:
            name = self._random.choice(sorted(self._existing))
            self._existing.discard(name)
            self._node.delete_stream(name)

    def _claim(self) -> None:
        self._node.service.claim("pulled", "w").addCallbacks(self._wakes.append, _ignore_refusal)

    def _ack(self) -> None:
        if self._wakes:
            wake, done = self._random.choice(self._wakes[-3:]), self._random.random() < 0.6
            self._node.acking(wake, done, "pulled").addErrback(_ignore_refusal)

    def _kill(self) -> None:
        """End a node without a word, and start another one."""
        number = self._random.choice(self._alive)
        rate, self.rate = self.rate, 0.0
        self._nodes.kill(number)
        self._alive.remove(number)
        self._nodes.start().parts.receive = self._receive
        self._alive.append(len(self._nodes.all) - 1)
        self.rate = rate

    def _pass_time(self) -> None:
        self._nodes.advance(self._random.random() * 8)


def _ignore_refusal(failure: Failure) -> None:
    failure.trap(StreamsError)


class HistoryTests(SynchronousTestCase):
    def test_nothing_is_stranded_and_no_generation_falls(self) -> None:
        for seed in range(HISTORIES):
            history = History(self, seed)
            history.run()
            history.end()
