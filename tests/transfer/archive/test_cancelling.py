"""Restores that are cancelled, as when the client of a request disconnects: at each moment, on a Clock."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from durable_streams.server.protocol.names import RESERVED_PREFIX
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.transfer.archive.restore import RestoreStats, restore_streams
from tests.support.late_storage import DELAY, LateStorage
from tests.support.transfers import MAX_STEPS

from .families import make_world
from .samples import archive, sample
from .test_restore import ArchiveCase


class CancelledRestoreTests(ArchiveCase):
    def outcome(self, streams: Streams, data: bytes, policy: Any, cancelled_after: int | None = None) -> Any:
        """Restore an archive; see :meth:`.TransferCase.outcome_of`."""
        restoring = restore_streams(streams, io.BytesIO(data), on_conflict=policy, reactor=self.clock)
        return self.outcome_of(restoring, cancelled_after)

    def assert_cancelled_anywhere(self, data: bytes, policy: str = "skip", existing: bytes | None = None) -> None:
        for steps in range(1, MAX_STEPS):
            storage = MemoryStorage()
            streams = self.started(Streams(LateStorage(storage, self.clock), self.clock))
            if existing is not None:
                self.assertIsInstance(self.outcome(streams, existing, "skip"), RestoreStats)
            outcome = self.outcome(streams, data, policy, steps)
            if isinstance(outcome, RestoreStats):
                break
            self.assertIsInstance(outcome, Failure, f"cancelled after {steps} steps, it does not end")
            outcome.trap(CancelledError)
            # A deletion in progress at the end of the restore may take another step.
            self.clock.advance(DELAY)
            # A deleted one is kept for a fork that was installed.
            found = storage._catalogue.streams.items()
            staged = [name for name, stream in found if name.startswith(RESERVED_PREFIX) and not stream.deleted]
            self.assertEqual(staged, [], f"left by a cancellation after {steps} steps")
            again = self.outcome(streams, data, policy)
            self.assertIsInstance(again, RestoreStats, f"after a cancellation after {steps} steps: {again}")
        else:
            self.fail("the restore takes too many steps")
        self.assertGreater(steps, 5)

    def test_the_next_restore_succeeds_and_nothing_is_left_staged(self) -> None:
        self.assert_cancelled_anywhere(archive(*(sample(f"s{number}", [b"hello"]) for number in range(40))))

    def test_the_same_of_replacements(self) -> None:
        data = archive(*(sample(f"s{number}", [b"hello"]) for number in range(3)))
        self.assert_cancelled_anywhere(data, "replace", data)

    def test_the_same_of_families_of_forks(self) -> None:
        self.run_to_end(make_world(self.streams))
        self.assert_cancelled_anywhere(self.backup())
