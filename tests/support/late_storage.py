"""A storage in memory that answers later, as one on a disk does, and can be made to fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from durable_streams.server.interfaces import ICommitListener, IStorage
from durable_streams.server.model import (
    Append,
    Appended,
    Chunk,
    Created,
    ForkPoint,
    Offset,
    StorageFigures,
    StreamConfig,
    StreamFacts,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
)
from durable_streams.server.storage.memory import MemoryStorage

T = TypeVar("T")

#: The delay of each answer, in seconds.
DELAY = 0.001


@implementer(IStorage)
class LateStorage:
    """
    A memory storage whose answers are delayed.

    What is read is read when it is asked for, and told later; what is written is written later. So between a read and
    its outcome there may be a commit.

    :ivar failures: what the next calls fail with, by the method's name; each is used once.
    :ivar broken: methods that raise at once, as a bug does.
    :ivar calls: the names of the methods called so far, in order.
    :ivar cancelled: how many outcomes nobody wanted any more.
    """

    def __init__(self, inner: MemoryStorage, clock: IReactorTime, delay: float = DELAY) -> None:
        self._inner = inner
        self._clock = clock
        self.delay = delay
        self.failures: dict[str, list[Exception]] = {}
        self.broken: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.cancelled = 0
        self.closed = False

    def _later(self, method: str, work: Callable[[], T], at_once: bool = False) -> Deferred[T]:
        self.calls.append(method)
        if method in self.broken:
            raise self.broken[method]
        failures = self.failures.get(method)
        outcome: T | Failure | None = None
        if failures:
            outcome = Failure(failures.pop(0))
        elif at_once:
            outcome = _attempt(work)

        def tell() -> None:
            told = _attempt(work) if outcome is None else outcome
            if not later.called:
                later.callback(told)

        later: Deferred[T] = Deferred(self._cancel)
        self._clock.callLater(self.delay, tell)
        return later

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def load(self) -> None:
        self._inner.load()

    def open(self) -> None:
        self._inner.open()

    def obstacle(self) -> str | None:
        return None

    def figures(self) -> StorageFigures:
        return self._inner.figures()

    def listen(self, listener: ICommitListener) -> None:
        self._inner.listen(listener)

    def set_wall_offset(self, offset: float) -> None:
        self._inner.set_wall_offset(offset)

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> Deferred[Created]:
        return self._later("create", lambda: self._inner.create(name, config, body, now, point))

    def append(self, name: str, append: Append, now: float) -> Deferred[Appended]:
        return self._later("append", lambda: self._inner.append(name, append, now))

    def read(
        self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True
    ) -> Deferred[Chunk]:
        return self._later("read", lambda: self._inner.read(name, offset, limit, now, whole, renew), at_once=True)

    def read_range(self, facts: StreamFacts, start: int, end: int, hidden: bool = False) -> Deferred[bytes]:
        return self._later("read_range", lambda: self._inner.read_range(facts, start, end, hidden), at_once=True)

    def status(self, name: str, now: float) -> Deferred[StreamStatus]:
        return self._later("status", lambda: self._inner.status(name, now), at_once=True)

    def install(
        self, staged: str, name: str, restoration: StreamRestoration, replace: bool, now: float
    ) -> Deferred[StreamStatus]:
        return self._later("install", lambda: self._inner.install(staged, name, restoration, replace, now))

    def delete(self, name: str, now: float) -> Deferred[None]:
        return self._later("delete", lambda: self._inner.delete(name, now))

    def renew(self, name: str, now: float) -> None:
        self._inner.renew(name, now)

    def sweep(self, now: float, max_count: int) -> Deferred[int]:
        return self._later("sweep", lambda: self._inner.sweep(now, max_count))

    def record(self, name: str, now: float, hidden: bool = False) -> Deferred[StreamRecord]:
        return self._later("record", lambda: self._inner.record(name, now, hidden), at_once=True)

    def append_ends(
        self, facts: StreamFacts, start: int, max_count: int, hidden: bool = False
    ) -> Deferred[Sequence[int]]:
        return self._later(
            "append_ends", lambda: self._inner.append_ends(facts, start, max_count, hidden), at_once=True
        )

    def statuses(
        self, now: float, after: str = "", max_count: int = 1000, prefix: str = ""
    ) -> Deferred[list[StreamStatus]]:
        return self._later("statuses", lambda: self._inner.statuses(now, after, max_count, prefix), at_once=True)

    def values(self, prefix: str = "", after: str = "", max_count: int = 1000) -> Deferred[list[tuple[str, bytes]]]:
        return self._later("values", lambda: self._inner.values(prefix, after, max_count), at_once=True)

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> Deferred[None]:
        return self._later("write_values", lambda: self._inner.write_values(puts, expected))

    def close(self) -> Deferred[None]:
        def close() -> None:
            self.closed = True

        return self._later("close", close)


def _attempt(work: Callable[[], T]) -> T | Failure:
    try:
        return work()
    except Exception:
        return Failure()
