"""Starting the service while a slow storage loads in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import START, StreamConfig
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.storage.ownership import StorageError
from durable_streams.server.streams import Streams

PATIENCE = 10.0


class SlowStorage(MemoryStorage):
    """A storage whose ``load`` blocks until the test sets :attr:`may`."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.may = threading.Event()
        self.loaded_by: list[str] = []
        self.opened_by: list[str] = []
        self.closed = 0
        self._failure = failure

    def load(self) -> None:
        self.may.wait(PATIENCE)
        self.loaded_by.append(threading.current_thread().name)
        if self._failure is not None:
            raise self._failure

    def open(self) -> None:
        super().open()
        self.opened_by.append(threading.current_thread().name)

    def close(self) -> None:
        super().close()
        self.closed += 1


class ThreadedClock(Clock):
    """A Clock with callFromThread."""

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, IReactorFromThreads, IReactorTime)
        self.called = threading.Event()
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._calls.append((call, arguments))
        self.called.set()

    def run_calls(self) -> None:
        """Run the calls from other threads, as a reactor would."""
        assert self.called.wait(PATIENCE)
        for call, arguments in self._calls:
            call(*arguments)
        self._calls.clear()
        self.called.clear()


class LoadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ThreadedClock()

    def serve(self, storage: SlowStorage) -> Streams:
        self.addCleanup(storage.may.set)
        return Streams(storage, self.clock)

    def test_before_the_storage_is_open_every_operation_raises_unavailable(self) -> None:
        streams = self.serve(SlowStorage())
        self.assertIn("not open yet", streams.obstacle() or "")
        for call in (
            lambda: streams.create("a", StreamConfig(), b""),
            lambda: streams.read("a", START, 1),
            lambda: streams.status("a"),
            lambda: streams.delete("a"),
            streams.statuses,
        ):
            self.assertRaises(Unavailable, call)

    def test_a_slow_storage_is_opened_in_the_reactors_thread_after_it_has_loaded(self) -> None:
        storage = SlowStorage()
        streams = self.serve(storage)
        done = streams.load(0.01, self.clock)
        self.assertNoResult(done)
        self.assertFalse(streams.running)
        self.assertRaises(Unavailable, streams.status, "a")
        storage.may.set()
        self.clock.run_calls()
        self.successResultOf(done)
        self.assertTrue(streams.running)
        self.assertIsNone(streams.obstacle())
        self.assertEqual((storage.loaded_by, storage.opened_by), (["opening"], [threading.current_thread().name]))
        self.successResultOf(streams.stopService())

    def test_a_quick_storage_is_open_when_load_returns(self) -> None:
        storage = SlowStorage()
        storage.may.set()
        streams = self.serve(storage)
        self.successResultOf(streams.load(PATIENCE, self.clock))
        self.assertTrue(streams.running)
        # The thread's own call comes later and changes nothing.
        self.clock.run_calls()
        self.assertEqual(len(storage.opened_by), 1)
        self.successResultOf(streams.stopService())

    def test_an_error_while_loading_fails_the_deferred_at_once_or_later(self) -> None:
        quick = SlowStorage(StorageError("It is damaged."))
        quick.may.set()
        streams = self.serve(quick)
        self.failureResultOf(streams.load(PATIENCE, self.clock), StorageError)
        self.assertFalse(streams.running)
        self.assertEqual(streams.obstacle(), "The storage is not open: It is damaged.")
        self.clock.run_calls()

        self.clock = ThreadedClock()
        slow = SlowStorage(StorageError("It is damaged."))
        done = self.serve(slow).load(0.01, self.clock)
        slow.may.set()
        self.clock.run_calls()
        self.failureResultOf(done, StorageError)

    def test_stopping_while_the_storage_loads_closes_it_afterwards(self) -> None:
        storage = SlowStorage()
        streams = self.serve(storage)
        done = streams.load(0.01, self.clock)
        self.successResultOf(streams.stopService())
        self.assertEqual(storage.closed, 0)
        storage.may.set()
        self.clock.run_calls()
        self.assertEqual((storage.closed, streams.running), (1, False))
        self.assertNoResult(done)
