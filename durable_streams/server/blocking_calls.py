"""A thread for blocking calls, such as reads of a pipe or a terminal, and writes to them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")

_Jobs = SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None]


class BlockingCalls:
    """
    Run blocking calls one after the other in a thread.

    The thread does not keep the process alive, since a read from a pipe may never return. Reads and writes of the
    standard streams must not be buffered: the lock of a buffered file would make the interpreter abort at its end. With
    a reactor that has no threads, such as a Clock, the calls run at once.

    :param reactor: the reactor in whose thread the Deferreds fire.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor if IReactorFromThreads.providedBy(reactor) else None
        # The queue of the thread; None without one.
        self._jobs: _Jobs | None = None

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        """Run a call. To cancel the Deferred does not end the call; its result is dropped."""
        if self._reactor is None:
            return maybeDeferred(work)
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=self._work, args=(self._jobs,), name="blocking calls", daemon=True).start()
        done: Deferred[T] = Deferred()
        self._jobs.put((work, done))
        return done

    def close(self) -> None:
        """End the thread after the calls so far. A later call has a thread of its own."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    def _work(self, jobs: _Jobs) -> None:
        assert self._reactor is not None
        while (job := jobs.get()) is not None:
            work, done = job
            outcome: Any
            try:
                outcome = work()
            except BaseException:
                outcome = Failure()
            self._reactor.callFromThread(_fire, done, outcome)
            del job, work, done, outcome


def _fire(done: Deferred[Any], outcome: Any) -> None:
    if not done.called:
        done.callback(outcome)
