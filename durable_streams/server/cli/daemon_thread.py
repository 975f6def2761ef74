"""A thread for calls that may block for ever, such as reads of a terminal. The process can end meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class DaemonThread:
    """
    Carries out one call after the other.

    Reads and writes must be those of :mod:`os`: the lock of a buffered file would make the interpreter abort at its
    end.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """
        Call a function in the thread, and return its result.

        If the Deferred is cancelled, the function is called or goes on nevertheless.
        """
        called: Deferred[T] = Deferred()

        def work() -> None:
            try:
                result: Any = function(*arguments)
            except Exception:
                result = Failure()
            self._reactor.callFromThread(_fire, called, result)

        self._calls.put(work)
        return called

    def _run(self) -> None:
        while True:
            self._calls.get()()


def _fire(called: Deferred[Any], result: Any) -> None:
    # A cancelled Deferred ignores its result.
    called.callback(result)
