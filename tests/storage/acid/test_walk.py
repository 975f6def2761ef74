"""Random walks beside the model, with rows and memory so small that there are edges everywhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.acid import AcidStorage, content, transactions
from durable_streams.server.testing import storage_machine

from .turns import Turns


class RandomWalkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(transactions, "ROW_BYTES", 5)
        self.patch(transactions, "_ROWS_AT_ONCE", 2)
        self.patch(content, "_RECENT_OF_ONE", 8)
        self.patch(content, "_RECENT_OF_ALL", 40)
        self.turns = Turns()
        self.walked = 0

    def run_now(self, outcome: Any) -> Any:
        if not isinstance(outcome, Deferred):
            return outcome
        self.turns.run()
        outcomes: list[Any] = []
        outcome.addBoth(outcomes.append)
        if isinstance(outcomes[0], Failure):
            outcomes[0].raiseException()
        return outcomes[0]

    def made(self, directory: Path | None, limits: StorageLimits) -> AcidStorage:
        storage = AcidStorage(directory, self.turns.clock, limits, workers=lambda name, hands: self.turns)
        storage.open()
        storage._database.execute("PRAGMA synchronous = OFF")
        self.walked += 1
        return storage

    def walk(self, directory: Path | None, examples: int) -> None:
        def make_storage(limits: StorageLimits) -> AcidStorage:
            self.limits = limits
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
            return self.made(directory, limits)

        def reopen(storage: IStorage) -> AcidStorage:
            assert isinstance(storage, AcidStorage)
            deadlines = {name: stream.deadline for name, stream in storage._catalogue.streams.items()}
            self.run_now(storage.close())
            again = self.made(directory, self.limits)
            # What reads have renewed is not kept, and the model does not know that.
            for name, deadline in deadlines.items():
                again._catalogue.streams[name].deadline = deadline
            again._catalogue._deadlines.clear()
            for stream in again._catalogue.streams.values():
                again._catalogue._deadlines.add(stream)
            return again

        steps = settings(
            max_examples=examples,
            stateful_step_count=40,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        machine = storage_machine(make_storage, self.run_now, None if directory is None else reopen)
        run_state_machine_as_test(machine, settings=steps)
        self.assertGreaterEqual(self.walked, examples)

    def test_a_database_in_memory_agrees_with_the_model(self) -> None:
        self.walk(None, 60)

    def test_a_reopened_database_agrees_with_the_model(self) -> None:
        self.walk(Path(self.mktemp()), 30)
