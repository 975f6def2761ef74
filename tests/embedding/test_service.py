"""The service of each storage, method by method."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server import (
    AcidStorage,
    FileStorage,
    MemoryStorage,
    Settings,
    StorageError,
    StreamService,
    errors,
)
from tests.embedding.each_method import LIMITS, EachMethod
from tests.support.late_storage import LateStorage


class MemoryTests(EachMethod, TestCase):
    """In memory, where everything is answered at once, but for what waits for the clock."""

    def make_service(self, settings: Settings) -> StreamService:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.storage = MemoryStorage(LIMITS)
        return StreamService(self.storage, self.clock, settings)

    async def pause(self) -> None:
        for _ in range(20):
            self.clock.advance(0.001)


class OnDisk(EachMethod):
    """On a disk, in the running reactor."""

    async def pause(self) -> None:
        await deferLater(reactor, 0.01)


class FileDurableTests(OnDisk, TestCase):
    """In files, answered when the disk has it."""

    def make_service(self, settings: Settings) -> StreamService:
        self.storage = FileStorage(self.mktemp(), reactor, LIMITS)
        return StreamService(self.storage, settings=settings)


class AcidTests(OnDisk, TestCase):
    """In SQLite."""

    def make_service(self, settings: Settings) -> StreamService:
        self.storage = AcidStorage(self.mktemp(), reactor, LIMITS)
        return StreamService(self.storage, settings=settings)


class RestartTests(TestCase):
    """One service after another."""

    async def test_what_is_on_disk_is_there_again(self) -> None:
        directory = self.mktemp()
        for number in range(3):
            service = StreamService(FileStorage(directory, reactor))
            service.startService()
            await service.create("log", "text/plain")
            await service.writer("log", "me", number).append(b"%d" % number)
            data = (await service.read("log")).data
            await service.stopService()
            self.assertEqual(data, b"012"[: number + 1])

    async def test_memory_is_taken_over_by_the_next_service(self) -> None:
        storage = MemoryStorage()
        first = StreamService(storage, Clock())
        first.startService()
        await first.create("log", "text/plain", b"kept")
        await first.stopService()
        clock = Clock()
        second = StreamService(storage, clock)
        second.startService()
        following = Deferred.fromCoroutine(second.tail("log", "now").__anext__())
        await second.append("log", b"more")
        clock.advance(0.01)
        self.assertEqual((await following).data, b"more")
        await second.stopService()

    async def test_a_start_that_failed_can_be_tried_again(self) -> None:
        directory = self.mktemp()
        first = StreamService(FileStorage(directory, reactor))
        second = StreamService(FileStorage(directory, reactor))
        first.startService()
        with self.assertRaisesRegex(StorageError, "is in use by process"):
            second.startService()
        self.assertFalse(second.running)
        await first.stopService()
        second.startService()
        self.assertEqual(await second.list(), [])
        await second.stopService()

    async def test_one_that_was_never_started_lets_go_of_its_storage(self) -> None:
        storage = FileStorage(self.mktemp(), reactor)
        await StreamService(storage).stopService()
        service = StreamService(storage)
        self.assertIsNotNone(service)
        await service.stopService()


class UnsettledTests(SynchronousTestCase):
    """A writer whose storage fails it, on a storage that answers late."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.storage = LateStorage(MemoryStorage(), self.clock)
        self.service = StreamService(self.storage, self.clock)
        self.service.startService()
        self.get(self.service.create("log", "text/plain"))
        self.writer = self.service.writer("log", "me")

    def settle(self) -> None:
        for _ in range(10):
            self.clock.advance(0.001)

    def get(self, deferred: Deferred[Any]) -> Any:
        self.settle()
        return self.successResultOf(deferred)

    def data(self) -> bytes:
        reading = self.service.read("log")
        self.settle()
        return self.successResultOf(reading).data

    def test_what_may_not_be_there_is_sent_again_and_is_there_once(self) -> None:
        for error in (errors.Unavailable("late"), errors.InsufficientStorage("full"), OSError("odd")):
            self.storage.failures["append"] = [error]
            failed = self.writer.append(b"x")
            self.settle()
            self.assertIs(self.failureResultOf(failed).value, error)
            self.get(self.writer.append(b"x"))
        self.assertEqual((self.data(), self.writer.seq), (b"xxx", 3))

    def test_nothing_gets_past_it(self) -> None:
        self.storage.failures["append"] = [errors.Unavailable("late")]
        waiting = [self.writer.append(data) for data in (b"a", b"b", b"c")]
        self.settle()
        for each in waiting:
            self.failureResultOf(each, errors.Unavailable)
        self.assertEqual(self.data(), b"")
        for data in (b"a", b"b", b"c"):
            self.get(self.writer.append(data))
        self.assertEqual(self.data(), b"abc")

    def test_to_give_up_the_answer_is_not_to_take_back_the_write(self) -> None:
        given_up = self.writer.append(b"a")
        self.clock.advance(0.001)
        self.assertIn("append", self.storage.calls)
        given_up.cancel()
        self.failureResultOf(given_up)
        other = self.writer.append(b"b")
        self.settle()
        self.failureResultOf(other, errors.Unavailable)
        self.get(self.writer.append(b"a"))
        self.get(self.writer.append(b"b"))
        self.assertEqual(self.data(), b"ab")

    def test_one_that_waits_for_its_turn_can_be_given_up(self) -> None:
        first, second, third = (self.writer.append(data) for data in (b"a", b"b", b"c"))
        second.cancel()
        self.failureResultOf(second)
        self.settle()
        self.successResultOf(first)
        self.successResultOf(third)
        self.assertEqual(self.data(), b"ac")
