"""A storage that takes long to be taken up: the service is there meanwhile, and refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import START, StreamConfig
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.storage.ownership import StorageError
from durable_streams.server.streams import Streams

PATIENCE = 10.0


class SlowStorage(MemoryStorage):
    """A storage that is taken up when it is told to, in whichever thread that is asked for."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.may = threading.Event()
        self.taken_up_by: list[str] = []
        self.opened_by: list[str] = []
        self.closed = 0
        self._failure = failure

    def take_up(self) -> None:
        self.may.wait(PATIENCE)
        self.taken_up_by.append(threading.current_thread().name)
        if self._failure is not None:
            raise self._failure

    def open(self) -> None:
        super().open()
        self.opened_by.append(threading.current_thread().name)

    def close(self) -> None:
        super().close()
        self.closed += 1


class ThreadedClock(Clock):
    """A Clock to which another thread can say something."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._calls.append((call, arguments))
        self.said.set()

    def listen(self) -> None:
        """Do what was said, as a reactor would in its own thread."""
        assert self.said.wait(PATIENCE)
        for call, arguments in self._calls:
            call(*arguments)
        self._calls.clear()


class TakingUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ThreadedClock()

    def serve(self, storage: SlowStorage) -> Streams:
        self.addCleanup(storage.may.set)
        return Streams(storage, self.clock)

    def test_before_it_is_open_everything_is_refused(self) -> None:
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

    def test_a_slow_one_is_open_when_the_reactor_hears_of_it(self) -> None:
        storage = SlowStorage()
        streams = self.serve(storage)
        done = streams.take_up(0.01, self.clock)
        self.assertNoResult(done)
        self.assertFalse(streams.running)
        self.assertRaises(Unavailable, streams.status, "a")
        storage.may.set()
        self.clock.listen()
        self.successResultOf(done)
        self.assertTrue(streams.running)
        self.assertIsNone(streams.obstacle())
        self.assertEqual((storage.taken_up_by, storage.opened_by), (["opening"], [threading.current_thread().name]))
        self.successResultOf(streams.stopService())

    def test_a_quick_one_is_open_at_once(self) -> None:
        storage = SlowStorage()
        storage.may.set()
        streams = self.serve(storage)
        self.successResultOf(streams.take_up(PATIENCE, self.clock))
        self.assertTrue(streams.running)
        # What the thread has said as well changes nothing.
        self.clock.listen()
        self.assertEqual(len(storage.opened_by), 1)
        self.successResultOf(streams.stopService())

    def test_a_failure_is_told_at_once_or_later(self) -> None:
        quick = SlowStorage(StorageError("It is damaged."))
        quick.may.set()
        streams = self.serve(quick)
        self.failureResultOf(streams.take_up(PATIENCE, self.clock), StorageError)
        self.assertFalse(streams.running)
        self.assertIn("not open yet", streams.obstacle() or "")
        self.clock.listen()

        self.clock = ThreadedClock()
        slow = SlowStorage(StorageError("It is damaged."))
        done = self.serve(slow).take_up(0.01, self.clock)
        slow.may.set()
        self.clock.listen()
        self.failureResultOf(done, StorageError)

    def test_who_stops_meanwhile_does_not_wait_for_it(self) -> None:
        storage = SlowStorage()
        streams = self.serve(storage)
        done = streams.take_up(0.01, self.clock)
        self.successResultOf(streams.stopService())
        self.assertEqual(storage.closed, 0)
        storage.may.set()
        self.clock.listen()
        self.assertEqual((storage.closed, streams.running), (1, False))
        self.assertNoResult(done)
