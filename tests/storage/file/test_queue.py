"""Tests of the limit of queued writes."""

from __future__ import annotations

from random import Random
from typing import Any, cast

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import ContentTypeMismatch, Unavailable
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


class OrderTests(TestCase):
    async def test_appends_that_wait_for_a_new_segment_keep_their_order(self) -> None:
        storage = FileStorage(self.mktemp(), reactor, StorageLimits(), FileSettings(segment_sizes=(1 << 20,)))
        storage.open()
        self.addCleanup(storage.close)
        rng = Random(1)
        names = ("a", "b", "c")
        for name in names:
            await settled(storage.create(name, StreamConfig("text/plain"), b"", 0.0))
        expected = dict.fromkeys(names, b"")
        waiting: list[Any] = []
        for number in range(2_000):
            data = b"<%d:%b>" % (number, b"x" * rng.choice((1, 100, 20_000)))
            name = rng.choice(names)
            waiting.append(storage.append(name, Append("text/plain", data), 0.0))
            expected[name] += data
            if number % 100 == 0:
                await deferLater(reactor, 0)
        closed = [storage.append(name, Append(None, b"", close=True), 0.0) for name in names]
        for outcome in (*waiting, *closed):
            await settled(outcome)
        for name in names:
            chunk = await settled(storage.read(name, START, 2**40, 0.0))
            self.assertTrue(chunk.data == expected[name], f"the appends of {name} are not in their order")
            self.assertTrue(chunk.closed)

    async def test_an_append_that_is_refused_while_it_waits_does_not_hold_up_others(self) -> None:
        storage = FileStorage(self.mktemp(), reactor, StorageLimits(), FileSettings(segment_sizes=(1 << 20,)))
        storage.open()
        self.addCleanup(storage.close)
        await settled(storage.create("a", StreamConfig("text/plain"), b"", 0.0))
        waiting = [storage.append("a", Append("text/plain", b"%03d" % n + b"x" * 60_000), 0.0) for n in range(100)]
        self.assertIn("a", storage._held_names)
        refused = storage.append("a", Append("image/png", b"no"), 0.0)
        last = storage.append("a", Append("text/plain", b"last"), 0.0)
        assert isinstance(refused, Deferred)
        await self.assertFailure(refused, ContentTypeMismatch)
        for outcome in waiting:
            await settled(outcome)
        self.assertEqual((await settled(last)).tail, 100 * 60_003 + 4)
        self.assertEqual(storage._held_names, {})
