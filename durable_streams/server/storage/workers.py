"""Threads for work that would block the reactor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clocks import clock_of
from .shortages import RETRY_INTERVAL

T = TypeVar("T")

_log = Logger()


class Worker(Protocol):
    """A queue of blocking jobs. They run in order, unless the worker has several threads."""

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        """
        Run a job. The Deferred fires with its result in a later reactor turn; cancelling it does not stop the job.
        """

    def close(self) -> None:
        """Finish the queued jobs, and accept no more."""


class ThreadWorker:
    """
    Threads of a storage. They start with the first job, since threads do not survive the fork of a daemon.

    :param reactor: the reactor in whose thread Deferreds fire (``IReactorFromThreads``).
    :param name: what the threads are called.
    :param hands: how many there are.
    """

    def __init__(self, reactor: Any, name: str, hands: int = 1) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        self._name = name
        self._hands = hands
        self._started: list[threading.Thread] = []
        self._starting: IDelayedCall | None = None

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self._jobs.put((work, done))
        if len(self._started) < self._hands:
            self._start()
        return done

    def _start(self) -> None:
        """Start the threads, as many as the system allows now. If it allows none, the work waits for one."""
        while len(self._started) < self._hands:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._started)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not self._started and self._starting is None:
                    _log.warn("Cannot start a thread for the storage: {reason}. It will be retried.", reason=error)
                    self._starting = clock_of(self._reactor).callLater(RETRY_INTERVAL, self._start_again)
                return
            self._started.append(thread)

    def _start_again(self) -> None:
        self._starting = None
        self._start()

    def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            self._jobs.put(None)
            self._work()
        for _ in self._started:
            self._jobs.put(None)
        for thread in self._started:
            thread.join()

    def _work(self) -> None:
        tell = self._reactor.callFromThread
        while (job := self._jobs.get()) is not None:
            work, done = job
            try:
                outcome = work()
            except BaseException:
                outcome = Failure()
            tell(done.callback, outcome)
            del job, work, done, outcome
