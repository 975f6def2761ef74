"""The room of the journal on a full disk: what was accepted is always written."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InsufficientStorage
from durable_streams.server.storage.file import journal as journal_module
from durable_streams.server.storage.file.journal import Journal, encode
from durable_streams.server.storage.logged.commit_queue import NotYet
from tests.support.simulated_disk import SimulatedDisk

KIB = 1024


class ManualWorker:
    """A worker that runs a job when the test says so, and tells the outcome in a later turn."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self._outcomes: list[Callable[[], None]] = []

    def do(self, work: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._jobs.append((work, done))
        return done

    def close(self) -> None:
        """Do nothing."""

    def run(self) -> None:
        """Run the next job."""
        if self._jobs:
            work, done = self._jobs.pop(0)
            outcome: Any
            try:
                outcome = work()
            except Exception:
                outcome = Failure()

            def tell() -> None:
                done.callback(outcome)

            self._outcomes.append(tell)

    def tell(self) -> None:
        """Tell the outcome of the first job that was run."""
        if self._outcomes:
            self._outcomes.pop(0)()

    def finish(self) -> None:
        """Run all jobs."""
        while self._jobs or self._outcomes:
            self.run()
            self.tell()


class Queue:
    """A queue of changes before a journal on a disk that becomes full, as the storage has it."""

    def __init__(self, seed: int = 0) -> None:
        self.disk = SimulatedDisk(seed)
        self.worker = ManualWorker()
        self.journal = Journal(self.disk, self.worker, lambda: 0.0, True, 1, 0, (512 * KIB, 256 * KIB))
        self.journal.end_credit = self.end_credit  # type: ignore[method-assign]
        self.journal.open()
        self.changes: list[bytes] = []
        self.queued = self.credit = self.lsn = 0
        self.busy = self._rotating = False
        self.failures: list[Any] = []
        self.accepted = self.written = self.refused = 0

    def fill_disk(self, free: int = 0) -> None:
        """Leave little room besides what is reserved."""
        self.disk.capacity = self.disk.used + free

    def end_credit(self) -> int:
        self.credit = 0
        return self.queued

    def append(self, size: int) -> None:
        """Queue a change if there is room; changes that would have to wait are dropped."""
        change = b"x" * size
        size = len(encode([change]))
        if size > self.credit:
            try:
                self.credit = self.journal.check_room(size, self.queued, False)
            except InsufficientStorage:
                self.refused += 1
                return
            except NotYet:
                return
        self.accepted += 1
        self.changes.append(change)
        self.queued += size
        self.credit -= size

    def flush(self) -> None:
        """Hand the queued changes to the journal, unless it writes a batch."""
        if self.busy or not self.changes:
            return
        changes: Any = self.changes
        size, self.changes, self.queued, self.credit, self.busy = self.queued, [], 0, 0, True
        self.lsn += len(changes)
        written = self.journal.write(changes, self.lsn, size)
        written.addCallbacks(self._written, self.failures.append, (len(changes),))

    def _written(self, _: None, count: int) -> None:
        self.written += count
        self.busy = False

    def rotate(self) -> None:
        """Begin a new segment, as a checkpoint does; there is one at a time."""
        if not self._rotating:
            self._rotating = True
            self.journal.rotate().addCallbacks(self._rotated, self.failures.append)

    def _rotated(self, _: object) -> None:
        self._rotating = False

    def write_all(self) -> None:
        """Write all queued changes."""
        while (self.changes or self.busy) and not self.failures:
            self.flush()
            self.worker.finish()


class RoomTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(journal_module, "RESERVE", 64 * KIB)

    def prepared(self, left: int, spare: int) -> Queue:
        """Return a queue whose journal has so much left in its segment and in a spare one, on a full disk."""
        queue = Queue()
        queue.disk.capacity = queue.disk.used + 2 * spare
        queue.append(504 * KIB - left - 512)
        queue.write_all()
        queue.append(1)
        queue.write_all()
        self.assertEqual((queue.journal._left, queue.journal._spare_room), (left, spare))
        queue.fill_disk()
        return queue

    def test_a_batch_in_the_spare_segment_leaves_less_of_it_for_what_is_queued(self) -> None:
        queue = self.prepared(200 * KIB, 512 * KIB)
        for _ in range(2):
            queue.append(300 * KIB)
            queue.flush()
        queue.write_all()
        self.assertEqual((queue.failures, queue.written), ([], 3))
        queue.append(300 * KIB)
        self.assertGreater(queue.refused, 0)
        queue.append(100 * KIB)
        queue.write_all()
        self.assertEqual((queue.failures, queue.written), ([], 4))

    def test_a_checkpoint_begins_no_segment_that_is_too_small_for_what_is_queued(self) -> None:
        queue = self.prepared(400 * KIB, 256 * KIB)
        queue.append(300 * KIB)
        queue.rotate()
        queue.write_all()
        self.assertEqual((queue.failures, queue.written), ([], 3))

    @given(st.integers(0, 2**32), st.sampled_from([8, 64]))
    def test_every_accepted_change_is_written_whenever_the_disk_becomes_full(self, seed: int, reserve: int) -> None:
        random = Random(seed)
        with patch.object(journal_module, "RESERVE", reserve * KIB):
            queue = Queue(seed)
            steps: list[Callable[[], None]] = [
                *[lambda: queue.append(random.choice([1, 10_000, 100_000, 250_000]))] * 6,
                *[queue.flush, queue.worker.run, queue.worker.tell] * 3,
                queue.rotate,
                lambda: queue.fill_disk(random.choice([0, 300_000, 600_000])),
            ]
            for _ in range(200):
                random.choice(steps)()
            queue.write_all()
            queue.worker.finish()
        self.assertEqual(queue.failures, [])
        self.assertEqual(queue.written, queue.accepted)
