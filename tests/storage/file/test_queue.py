"""Tests of the limit of queued writes."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import START, Append, StorageLimits, StreamConfig
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.storage.logged.storage import LoggedStorage
from durable_streams.server.testing import settled

reactor = cast(Any, running)
MOST = 50_000


class QueueTests(TestCase):
    """In files; and in SQLite, which has room without end when it is in memory."""

    def make_storage(self) -> LoggedStorage[Any]:
        return FileStorage(self.mktemp(), reactor, StorageLimits(), FileSettings(queued_bytes=MOST))

    async def test_writes_beyond_the_queues_limit_are_refused_and_others_are_stored(self) -> None:
        storage = self.make_storage()
        storage.open()
        self.addCleanup(storage.close)
        await settled(storage.create("a", StreamConfig("text/plain"), b"", 0.0))
        append = Append("text/plain", b"x" * 10_000)
        refused = 0

        def count(failure: Any) -> None:
            nonlocal refused
            failure.trap(Unavailable)
            refused += 1

        for _ in range(2):
            # Once beside nothing, once beside a batch that is under way.
            waiting: list[Deferred[Any]] = [
                maybeDeferred(storage.append, "a", append, 0.0).addErrback(count) for _ in range(20)
            ]
            self.assertLessEqual(storage._queue.queued_bytes, MOST)
            storage._queue.flush()
            waiting += [maybeDeferred(storage.append, "a", append, 0.0).addErrback(count) for _ in range(20)]
            self.assertLessEqual(storage._queue.queued_bytes, MOST)
            await gatherResults(waiting)
        self.assertGreaterEqual(refused, 2 * 2 * 15)
        data = (await settled(storage.read("a", START, 2**40, 0.0))).data
        self.assertEqual(len(data), (2 * 2 * 20 - refused) * 10_000)


class AcidQueueTests(QueueTests):
    def make_storage(self) -> LoggedStorage[Any]:
        return AcidStorage(None, reactor, StorageLimits(), MOST)
