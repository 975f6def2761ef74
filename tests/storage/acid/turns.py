"""A database whose work is done when a test says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.model import START, Append, StorageLimits, StreamConfig
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.acid.checking import check_acid
from durable_streams.server.storage.findings import Counts, Finding

NOW = 1_800_000_000.0
TEXT = StreamConfig("text/plain")
ROOMY = StorageLimits(total_bytes=2**40, stream_bytes=2**40)


class Turns:
    """Workers that do their work when the test says so, all in this thread."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self._jobs: list[tuple[Any, Deferred[Any]]] = []

    def do(self, work: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._jobs.append((work, done))
        return done

    def close(self) -> None:
        pass

    def run(self) -> None:
        """Run all jobs without advancing the clock."""
        for _ in range(10_000):
            self.clock.advance(0)
            if not self._jobs:
                return
            self.step()
        raise AssertionError("There is no end of work.")

    def step(self) -> None:
        """Do the next piece of work."""
        work, done = self._jobs.pop(0)
        try:
            outcome = work()
        except Exception as error:
            done.errback(error)
        else:
            done.callback(outcome)


class DatabaseTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns()
        self.directory = Path(self.mktemp())
        self.storage = self.opened(self.directory)

    def opened(self, directory: Path) -> AcidStorage:
        storage = AcidStorage(directory, self.turns.clock, ROOMY, workers=lambda name, hands: self.turns)
        storage.open()
        self.addCleanup(self.close, storage)
        return storage

    def close(self, storage: AcidStorage) -> None:
        storage.close()
        self.turns.run()

    @staticmethod
    def begin(outcome: Any) -> Deferred[Any]:
        """Return a result that must not be available at once."""
        assert isinstance(outcome, Deferred)
        return outcome

    def now(self, outcome: Any) -> Any:
        if isinstance(outcome, Deferred):
            self.turns.run()
            return self.successResultOf(outcome)
        return outcome

    def create(self, name: str, config: StreamConfig = TEXT, body: bytes = b"") -> None:
        self.now(self.storage.create(name, config, body, NOW))

    def append(self, name: str, data: bytes, **more: Any) -> None:
        self.now(self.storage.append(name, Append("text/plain", data, **more), NOW))

    def content(self, storage: AcidStorage, name: str) -> bytes:
        data: bytes = self.now(storage.read(name, START, 2**40, NOW)).data
        return data

    def check(self, directory: Path) -> tuple[Counts, list[Finding]]:
        findings: list[Finding] = []
        return check_acid(directory, findings.append), findings

    def rows(self, statement: str) -> list[Any]:
        return self.storage._database.execute(statement).fetchall()
