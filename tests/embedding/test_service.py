"""The service of each storage, method by method."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server import (
    AcidStorage,
    FileStorage,
    MemoryStorage,
    Settings,
    StorageError,
    StreamService,
    build_service,
    errors,
)
from durable_streams.server.embedding import service as service_module
from tests.embedding.each_method import LIMITS, EachMethod
from tests.support.late_storage import LateStorage
from tests.test_loading import SlowStorage, ThreadedClock


class MemoryTests(EachMethod, TestCase):
    """In memory, where Deferreds have fired already, except those that wait for the clock."""

    def make_service(self, settings: Settings) -> StreamService:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.storage = MemoryStorage(LIMITS)
        return StreamService(self.storage, self.clock, settings)

    async def pause(self) -> None:
        for _ in range(20):
            self.clock.advance(0.001)


class OnDisk(EachMethod):
    """On disk, in the running reactor."""

    async def pause(self) -> None:
        await deferLater(reactor, 0.01)


class FileDurableTests(OnDisk, TestCase):
    """Mode file-durable."""

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

    async def test_streams_on_disk_are_there_after_a_restart(self) -> None:
        directory = self.mktemp()
        for number in range(3):
            service = StreamService(FileStorage(directory, reactor))
            service.startService()
            await service.create("log", "text/plain")
            await service.writer("log", "me", number).append(b"%d" % number)
            data = (await service.read("log")).data
            await service.stopService()
            self.assertEqual(data, b"012"[: number + 1])

    async def test_a_memory_storage_can_be_used_by_the_next_service(self) -> None:
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

    async def test_a_failed_start_can_be_repeated(self) -> None:
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

    async def test_a_service_that_was_never_started_releases_its_storage(self) -> None:
        storage = FileStorage(self.mktemp(), reactor)
        await StreamService(storage).stopService()
        service = StreamService(storage)
        self.assertIsNotNone(service)
        await service.stopService()


class UnsettledTests(SynchronousTestCase):
    """A writer whose appends fail with an unknown outcome."""

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

    def test_a_repeated_append_of_unknown_outcome_is_stored_once(self) -> None:
        for error in (errors.Unavailable("late"), errors.InsufficientStorage("full"), OSError("odd")):
            self.storage.failures["append"] = [error]
            failed = self.writer.append(b"x")
            self.settle()
            self.assertIs(self.failureResultOf(failed).value, error)
            self.get(self.writer.append(b"x"))
        self.assertEqual((self.data(), self.writer.seq), (b"xxx", 3))

    def test_other_appends_are_refused_while_the_outcome_of_one_is_unknown(self) -> None:
        self.storage.failures["append"] = [errors.Unavailable("late")]
        waiting = [self.writer.append(data) for data in (b"a", b"b", b"c")]
        self.settle()
        for each in waiting:
            self.failureResultOf(each, errors.Unavailable)
        self.assertEqual(self.data(), b"")
        for data in (b"a", b"b", b"c"):
            self.get(self.writer.append(data))
        self.assertEqual(self.data(), b"abc")

    def test_cancelling_an_append_does_not_undo_it(self) -> None:
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

    def test_a_queued_append_can_be_cancelled(self) -> None:
        first, second, third = (self.writer.append(data) for data in (b"a", b"b", b"c"))
        second.cancel()
        self.failureResultOf(second)
        self.settle()
        self.successResultOf(first)
        self.successResultOf(third)
        self.assertEqual(self.data(), b"ac")


class SlowOpeningTests(SynchronousTestCase):
    """A storage that loads for longer than a start waits."""

    def setUp(self) -> None:
        self.patch(service_module, "PATIENCE", 0.01)
        self.clock = ThreadedClock()

    def start(self, failure: Exception | None = None) -> StreamService:
        self.storage = SlowStorage(failure)
        self.addCleanup(self.storage.may.set)
        self.service = StreamService(self.storage, self.clock)
        self.service.startService()
        return self.service

    def finish_loading(self) -> None:
        self.storage.may.set()
        self.clock.run_calls()

    def test_operations_wait_for_the_storage_and_keep_their_order(self) -> None:
        service = self.start()
        opened = service.when_open()
        outcomes: list[Deferred[Any]] = [service.create("log", "text/plain")]
        outcomes += [service.append("log", data) for data in (b"a", b"b")]
        following = Deferred.fromCoroutine(service.tail("log").__anext__())
        reading = service.read("log")
        for each in (opened, reading, following, *outcomes):
            self.assertNoResult(each)
        self.finish_loading()
        self.successResultOf(opened)
        for each in outcomes:
            self.successResultOf(each)
        self.assertEqual(self.successResultOf(reading).data, b"ab")
        self.clock.advance(0.01)
        self.assertTrue(self.successResultOf(following).data.startswith(b"a"))
        self.assertEqual(self.storage.loaded_by, ["opening"])
        self.successResultOf(service.when_open())
        self.successResultOf(service.stopService())

    def test_an_operation_that_waits_for_the_storage_can_be_cancelled(self) -> None:
        service = self.start()
        cancelled = service.create("log", "text/plain")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.finish_loading()
        self.failureResultOf(service.head("log"), errors.StreamNotFound)
        self.successResultOf(service.stopService())

    def test_a_failure_to_load_is_logged_and_operations_fail_with_its_reason(self) -> None:
        service = self.start(StorageError("The disk is gone."))
        opened, waiting = service.when_open(), service.create("log", "text/plain")
        with capturedLogs() as logged:
            self.finish_loading()
        self.failureResultOf(opened, StorageError)
        self.assertIn("The disk is gone.", str(self.failureResultOf(waiting, errors.Unavailable).value))
        self.assertEqual([formatEvent(event) for event in logged], ["Cannot open the storage: The disk is gone."])
        self.assertFalse(service.running)
        self.assertEqual(service.streams.obstacle(), "The storage is not open: The disk is gone.")
        self.successResultOf(service.stopService())

    def test_stopping_while_the_storage_loads_waits_until_it_is_closed(self) -> None:
        service = self.start()
        waiting = service.create("log", "text/plain")
        stopped = service.stopService()
        self.failureResultOf(waiting, errors.Unavailable)
        self.assertNoResult(stopped)
        self.assertRaises(errors.StorageOwned, StreamService, self.storage, self.clock)
        self.finish_loading()
        self.successResultOf(stopped)
        self.assertEqual(self.storage.closed, 1)

    def test_a_server_listens_while_its_storage_loads_and_says_so(self) -> None:
        self.storage = SlowStorage()
        self.addCleanup(self.storage.may.set)
        server = build_service(self.storage, reactor=self.clock)
        started = server.start()
        self.assertNoResult(started)
        self.assertIn("not open yet", server.obstacle() or "")
        self.finish_loading()
        self.successResultOf(started)
        self.assertIsNone(server.obstacle())
        self.successResultOf(server.stopService())

    def test_a_start_that_failed_at_once_can_be_repeated_before_the_reactor_runs(self) -> None:
        self.patch(service_module, "PATIENCE", 10.0)
        self.storage = SlowStorage(StorageError("In use."))
        self.storage.may.set()
        service = StreamService(self.storage, self.clock)
        self.assertRaises(StorageError, service.startService)
        self.storage._failure = None
        self.storage.may.clear()
        self.patch(service_module, "PATIENCE", 0.01)
        service.startService()
        opened = service.when_open()
        # The call of the first thread comes while the second loads.
        self.clock.run_calls()
        self.assertNoResult(opened)
        self.finish_loading()
        self.successResultOf(opened)
        self.assertIsNone(service.streams.obstacle())
        self.successResultOf(service.stopService())
