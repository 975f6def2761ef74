"""Imports that are cancelled, as when the client of a request disconnects: at each moment, on a Clock."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from durable_streams.server.protocol.names import RESERVED_PREFIX
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.transfer import ImportStats, import_streams
from tests.support.late_storage import DELAY, LateStorage
from tests.support.transfers import MAX_STEPS, TransferCase, document_object, pretty, stream_object


class CancelledImportTests(TransferCase):
    def outcome(self, streams: Streams, data: bytes, policy: Any, cancelled_after: int | None = None) -> Any:
        """Import a document; see :meth:`.TransferCase.outcome_of`."""
        importing = import_streams(streams, io.BytesIO(data), policy, reactor=self.clock, directory=self.directory)
        return self.outcome_of(importing, cancelled_after)

    def test_the_next_import_succeeds_and_nothing_is_left_staged(self) -> None:
        messages = [b"x" * 100_000] * 4
        data = pretty(
            document_object(
                stream_object("long", "text/plain", *messages),
                *(stream_object(f"s{number}", "text/plain", b"hello") for number in range(3)),
                stream_object("empty"),
                stream_object("two", "text/plain", b"1", b"2"),
            )
        )
        for policy in ("skip", "replace"):
            for steps in range(1, MAX_STEPS):
                storage = MemoryStorage()
                streams = self.started(Streams(LateStorage(storage, self.clock), self.clock))
                outcome = self.outcome(streams, data, policy, steps)
                if isinstance(outcome, ImportStats):
                    break
                self.assertIsInstance(outcome, Failure, f"cancelled after {steps} steps, it does not end")
                outcome.trap(CancelledError)
                # A deletion in progress at the end of the import may take another step.
                self.clock.advance(DELAY)
                staged = [name for name in storage._catalogue.streams if name.startswith(RESERVED_PREFIX)]
                self.assertEqual(staged, [], f"left by a cancellation after {steps} steps")
                for name, stream in storage._catalogue.streams.items():
                    sizes = {"long": 400_000, "empty": 0, "two": 2}
                    self.assertEqual(stream.tail, sizes.get(name, 5), f"{name} after {steps} steps")
                again = self.outcome(streams, data, policy)
                self.assertIsInstance(again, ImportStats, f"after a cancellation after {steps} steps: {again}")
            else:
                self.fail("the import takes too many steps")
            self.assertGreater(steps, 5)
            self.assertEqual(self.left_files(), [])
