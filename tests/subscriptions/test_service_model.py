"""
Random histories of the service over a storage that fails, with receivers that fail and processes that end.

Afterwards the storage and the receivers work again. Then each stream is processed to its tail: no wake is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamsError, Unavailable
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.subscriptions.model import Outcome
from tests.subscriptions.serving import Serving, pull, webhook

HISTORIES = 25
STEPS = 120
NAMES = ("events/a", "events/b", "x")
SUBSCRIPTIONS = ("hook", "pulled")


class FailingStorage(MemoryStorage):
    """
    A storage whose writes of values fail, before or after they are done.

    :ivar rate: the probability of each of the two.
    """

    rate = 0.0

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        if self._random.random() < self.rate:
            raise Unavailable("Nothing was written.")
        super().write_values(puts, expected)
        if self._random.random() < self.rate:
            raise Unavailable("It is not known what was written.")

    def close(self) -> None:
        """Keep everything for the next process."""


class History:
    """One history."""

    def __init__(self, case: SynchronousTestCase, seed: int) -> None:
        self._case = case
        self._random = Random(seed)
        self._storage = FailingStorage(self._random)
        self._serving = Serving(case, self._storage)
        self._serving.put("wakes")
        self._serving.create(webhook("events/*", "x", lease=2000), "hook")
        self._serving.create(pull("events/*", "x", lease=2000), "pulled")
        self._serving.parts.receive = self._receive
        self._existing: set[str] = set()
        self._wakes: list[dict[str, Any]] = []
        self._generations = dict.fromkeys(SUBSCRIPTIONS, 0)

    def run(self) -> None:
        """Do random steps. Generations never fall."""
        self._storage.rate = 0.15
        steps = (self._write, self._write, self._delete, self._claim, self._ack, self._restart, self._pass_time)
        for _ in range(STEPS):
            self._random.choices(steps, (20, 20, 6, 14, 10, 3, 27))[0]()
            if self._random.random() < 0.5:
                self._serving.work()
            for name in SUBSCRIPTIONS:
                current = self._serving.service._registry.find(name).current
                assert current is not None
                self._case.assertGreaterEqual(current.state.generation, self._generations[name])
                self._generations[name] = current.state.generation

    def end(self) -> None:
        """Let everything work for five minutes, and assert that all streams were processed to their tails."""
        self._storage.rate = 0.0
        serving = self._serving
        serving.parts.receive = lambda body: Outcome.DONE
        for _ in range(300):
            serving.advance(1)
            self._wakes.clear()
            self._claim()
            serving.work()
            for wake in self._wakes:
                serving.get(serving.acking(wake, done=True, subscription_id="pulled"))
        expected = {}
        for name in self._existing:
            status: Any = serving.streams.status(name)
            expected[name] = str(status.tail)
        for name in SUBSCRIPTIONS:
            cursors = {path: at for path, at in serving.cursors(name).items() if at != "-1"}
            self._case.assertEqual(expected, cursors, name)
        figures = serving.service.figures()
        self._case.assertEqual((0, 0), (figures.waiting, figures.running))
        serving.stop()

    def _receive(self, body: object) -> Outcome | Deferred[Outcome]:
        outcome = self._random.choice([Outcome.DONE, Outcome.ACCEPTED, Outcome.FAILED])
        if self._random.random() < 0.5:
            return outcome
        later: Deferred[Outcome] = Deferred()
        self._serving.clock.callLater(self._random.random() * 3, later.callback, outcome)
        return later

    def _write(self) -> None:
        name = self._random.choice(NAMES)
        if name in self._existing:
            self._serving.append(name)
        else:
            self._existing.add(name)
            self._serving.put(name, 1)

    def _delete(self) -> None:
        if self._existing:
            name = self._random.choice(sorted(self._existing))
            self._existing.discard(name)
            self._serving.delete_stream(name)

    def _claim(self) -> None:
        self._serving.service.claim("pulled", "w").addCallbacks(self._wakes.append, _ignore_refusal)

    def _ack(self) -> None:
        if self._wakes:
            wake, done = self._random.choice(self._wakes[-3:]), self._random.random() < 0.6
            self._serving.acking(wake, done, "pulled").addErrback(_ignore_refusal)

    def _restart(self) -> None:
        """End the process without a word, and begin another one."""
        rate, self._storage.rate = self._storage.rate, 0.0
        self._serving.clock.calls.clear()
        self._serving = Serving(self._case, self._storage, self._serving.clock)
        self._serving.parts.receive = self._receive
        self._storage.rate = rate

    def _pass_time(self) -> None:
        self._serving.advance(self._random.random() * 4)


def _ignore_refusal(failure: Failure) -> None:
    failure.trap(StreamsError)


class HistoryTests(SynchronousTestCase):
    def test_no_wake_is_lost_and_no_generation_falls(self) -> None:
        for seed in range(HISTORIES):
            history = History(self, seed)
            history.run()
            history.end()
