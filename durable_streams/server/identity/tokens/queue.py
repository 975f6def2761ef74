"""A bounded queue of computations in threads, in which the addresses of clients take turns."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address
from typing import Any, Final, TypeVar

from msgspec import Struct
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from ...errors import Unavailable

T = TypeVar("T")

#: How many computations run at the same time.
MAX_RUNNING: Final = 2

#: How many wait, of all addresses and of one. With two threads and 20 ms each, 100 take a second. After a restart all
#: clients behind one address may come at once.
MAX_WAITING: Final = 512
MAX_WAITING_OF_ADDRESS: Final = 256

#: By how much the threads' priority is lower than the reactor's, so that a flood of tokens does not slow down streams.
NICENESS: Final = 10

#: The size of the network prefix of an IPv6 address, in bytes: all addresses of a /64 network belong to one client.
_IPV6_NETWORK: Final = 8


class QueueLimits(Struct, frozen=True):
    """
    The bounds of the queue.

    :ivar running: how many computations run at the same time.
    :ivar waiting: how many wait.
    :ivar waiting_of_address: how many of one address wait.
    """

    running: int = MAX_RUNNING
    waiting: int = MAX_WAITING
    waiting_of_address: int = MAX_WAITING_OF_ADDRESS


class _Job:
    """A computation and the Deferred of its result."""

    __slots__ = ("done", "work")

    def __init__(self, work: Callable[[], Any], done: Deferred[Any]) -> None:
        self.work = work
        self.done = done


class FairQueue:
    """
    Runs computations in threads, at most some at the same time; those that wait are bounded.

    The addresses take turns, so that many computations of one address do not delay the first of another. If the queue
    is full, the last computation of the address with most of them makes room. A thread ends with its computation: an
    idle queue has none.

    :param reactor: in whose thread the Deferreds fire. If it has no threads, such as a Clock, computations run at once.
    :ivar waiting: how many computations wait.
    :ivar refused: how many were refused because too many waited.
    """

    def __init__(self, reactor: Any, limits: QueueLimits = QueueLimits()) -> None:  # noqa: B008 (it is frozen)
        self._reactor = reactor if IReactorFromThreads.providedBy(reactor) else None
        self._limits = limits
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self.waiting = 0
        self._running = 0
        self.refused = 0

    def do(self, address: str, work: Callable[[], T]) -> Deferred[T]:
        """
        Run a computation. If its Deferred is cancelled while it waits, it is removed.

        :param address: of the client that needs it.
        :raises Unavailable: too many computations wait; also as the Deferred's failure, if it has to make room.
        """
        if self._reactor is None:
            return maybeDeferred(work)
        key = _turn_of(address)
        if self._running >= self._limits.running:
            self._make_room(key)
        done: Deferred[T] = Deferred(lambda _: self._remove(key, job))
        job = _Job(work, done)
        self._waiting.setdefault(key, deque()).append(job)
        self.waiting += 1
        self._start()
        return done

    def _make_room(self, key: str) -> None:
        own = len(self._waiting.get(key, ()))
        if own < self._limits.waiting_of_address:
            if self.waiting < self._limits.waiting:
                return
            longest = max(self._waiting, key=lambda other: len(self._waiting[other]))
            if len(self._waiting[longest]) > own + 1:
                job = self._waiting[longest][-1]
                self._remove(longest, job)
                self.refused += 1
                job.done.errback(_overload())
                return
        self.refused += 1
        raise _overload()

    def _remove(self, key: str, job: _Job) -> None:
        jobs = self._waiting.get(key)
        if jobs is not None and job in jobs:
            jobs.remove(job)
            self.waiting -= 1
            if not jobs:
                del self._waiting[key]

    def _start(self) -> None:
        """Start threads for the next computations, of an address after the other."""
        while self._waiting and self._running < self._limits.running:
            key, jobs = next(iter(self._waiting.items()))
            job = jobs.popleft()
            self.waiting -= 1
            del self._waiting[key]
            if jobs:
                # The address waits behind the others.
                self._waiting[key] = jobs
            self._running += 1
            try:
                threading.Thread(target=self._work, args=(job,), name="token hashing", daemon=True).start()
            except RuntimeError:
                # The system allows no more threads.
                self._running -= 1
                self.refused += 1
                job.done.errback(_overload())

    def _work(self, job: _Job) -> None:
        with suppress(OSError, AttributeError):
            # On Linux, threads have priorities of their own; elsewhere that would be the priority of the process.
            if os.uname().sysname == "Linux":
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        outcome: Any
        try:
            outcome = job.work()
        except BaseException:
            outcome = Failure()
        assert self._reactor is not None
        self._reactor.callFromThread(self._finish, job, outcome)

    def _finish(self, job: _Job, outcome: Any) -> None:
        self._running -= 1
        self._start()
        if not job.done.called:
            job.done.callback(outcome)


def _overload() -> Unavailable:
    return Unavailable("The server verifies too many tokens. Try again in a moment.")


def _turn_of(address: str) -> str:
    """Return the key by which clients take turns: an IPv4 address, or the /64 network of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return found.packed[:_IPV6_NETWORK].hex()
