"""Work that would block the reactor, done elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Worker(Protocol):
    """Whoever does such work: in the order in which it is asked, unless it has several hands."""

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        """
        Do some work, and say its outcome in a later turn of the reactor. Who cancels the Deferred does not stop it.
        """

    def close(self) -> None:
        """Do what was asked for, and nothing more."""


class ThreadWorker:
    """
    Threads of a storage's own. They start with the first work: a process that becomes a daemon loses those it has.

    :param reactor: where outcomes are told (``IReactorFromThreads``).
    :param name: what the threads are called.
    :param hands: how many there are.
    """

    def __init__(self, reactor: Any, name: str, hands: int = 1) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(hands)
        ]
        self._started = False

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        done: Deferred[T] = Deferred()
        self._jobs.put((work, done))
        return done

    def close(self) -> None:
        if not self._started:
            return
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
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
