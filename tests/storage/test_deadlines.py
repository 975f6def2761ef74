from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.model import FOREVER, Lifetime, StreamConfig, StreamRestoration
from durable_streams.server.storage.deadlines import MAX_STALE
from durable_streams.server.storage.memory import MemoryStorage


class StaleDeadlineTests(SynchronousTestCase):
    def test_deadlines_of_installed_streams_are_removed_some_at_once(self) -> None:
        storage = MemoryStorage()
        storage.open()
        kept = StreamRestoration(StreamConfig("text/plain"), FOREVER, False)
        count = MAX_STALE + 10
        for number in range(count):
            storage.create(f"__ds/{number}", StreamConfig("text/plain", Lifetime(ttl=10)), b"", 0.0)
            storage.install(f"__ds/{number}", f"{number}", kept, False, 0.0)
        storage.create("mortal", StreamConfig("text/plain", Lifetime(ttl=11)), b"", 0.0)
        steady = storage._catalogue._deadlines.steady
        lengths = []
        removed = 0
        for _ in range(3):
            swept = storage.sweep(20.0, 100)
            assert not isinstance(swept, Deferred)
            removed += swept
            lengths.append(len(steady))
        self.assertEqual((lengths, removed), ([count + 1 - MAX_STALE, 0, 0], 1))
        self.assertEqual(storage.figures().streams, count)
