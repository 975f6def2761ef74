"""The service that all callers use: a storage, who waits on it, and what expires; one method an operation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .clocks import STEP, clock_of
from .errors import InvalidRequest, StreamsError, Unavailable
from .interfaces import IStorage, NowOrLater, settle
from .model import (
    Append,
    Appended,
    Chunk,
    Created,
    Fork,
    ForkPoint,
    Offset,
    StorageFigures,
    StreamConfig,
    StreamFacts,
    StreamStatus,
)
from .protocol.forks import LongSearch
from .run_queue import RunQueue
from .waiting import Waiting

#: How often expired streams are looked for, in seconds, and how many are removed before others get their turn.
SWEEP_INTERVAL = 0.5
SWEEP_AT_ONCE = 100

#: By how many seconds the wall clock and the steady clock may seem to differ because they are read one after the other.
_CLOCK_NOISE = 0.001

_log = Logger()


class _Shut:
    """What stands for a storage until it is open."""

    def obstacle(self) -> str:
        return "The storage is not open yet: the service is not started, or still takes up what is kept. Wait for it."

    def __getattr__(self, name: str) -> Any:
        raise Unavailable(self.obstacle())


class Streams(Service):
    """
    A storage in service. Until it is open, everything is refused with :exc:`.Unavailable`.

    :param clock: the reactor, or a Clock (:func:`.clock_of`). Lifetimes and waking go by its ``seconds()``, dates by
        its wall clock.
    :param turns: None for a run queue on ``clock``.
    :ivar turns: the run queue of everything that many clients have done at a time.
    :ivar draining: the service is about to stop, so nobody is to wait any longer.
    """

    name = "streams"
    draining = False

    def __init__(self, storage: IStorage, clock: IReactorTime, turns: RunQueue | None = None) -> None:
        self._clock = clock = clock_of(clock)
        self.turns = RunQueue(clock) if turns is None else turns
        self._owned = storage
        self._storage: IStorage = _Shut()  # type: ignore[assignment]
        self._taking_up: threading.Thread | None = None
        self._now = clock.seconds
        self._wall_offset = 0.0
        self._unswept_for = ""
        self._waiting = Waiting(clock, self.turns)
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock
        self._follow_wall_clock()
        storage.listen(self._waiting)

    def obstacle(self) -> str | None:
        """Say what keeps the storage from taking writes; None when nothing does."""
        return self._storage.obstacle()

    def figures(self) -> StorageFigures:
        """Say how much the storage has; see :meth:`.IStorage.figures`."""
        return self._owned.figures()

    def take_up(self, patience: float, reactor: Any) -> Deferred[None]:
        """
        Have the storage taken up in a thread, and the service started after it; requests are refused meanwhile.

        :param patience: for how many seconds the caller is kept waiting for it. What a small storage has, or why it
            can't be opened, is known by then.
        :returns: fires when the service is started; fails with what :meth:`.IStorage.take_up` raises.
        """
        done: Deferred[None] = Deferred()
        failures: list[Failure] = []

        def work() -> None:
            try:
                self._owned.take_up()
            except BaseException:
                failures.append(Failure())
            reactor.callFromThread(self._taken_up, done, failures)

        self._taking_up = threading.Thread(target=work, name="opening", daemon=True)
        self._taking_up.start()
        self._taking_up.join(patience)
        if not self._taking_up.is_alive():
            self._taken_up(done, failures)
        return done

    def _taken_up(self, done: Deferred[None], failures: list[Failure]) -> None:
        if self._taking_up is None:
            return
        self._taking_up = None
        if self.draining:
            # Nobody waits for it any more.
            self._owned.close()
        elif failures:
            done.errback(failures[0])
        else:
            self.startService()
            done.callback(None)

    def startService(self) -> None:
        """
        Open the storage, which may take some seconds, and begin to look for what expires.

        :raises Exception: what :meth:`.IStorage.open` raises.
        """
        self._owned.open()
        self._storage = self._owned
        super().startService()
        self._follow_wall_clock()
        self._sweeping.start(SWEEP_INTERVAL, now=False)

    def drain(self) -> None:
        """Send everybody home who waits, and let nobody wait from now on."""
        self.draining = True
        self._waiting.wake_all()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.drain()
        if self._sweeping.running:
            self._sweeping.stop()
        return maybeDeferred(self._close)

    async def _close(self) -> None:
        # What is still being taken up can't be closed; it has promised nothing to anybody.
        if self._taking_up is None:
            await settle(self._owned.close())

    # Operations

    def create(self, name: str, config: StreamConfig, body: bytes) -> NowOrLater[Created]:
        """Make a stream or find it; see :meth:`.IStorage.create`. Where a fork diverges is searched for in slices."""
        if config.fork is None:
            return self._storage.create(name, config, body, self._now())
        try:
            created = self._storage.create(name, config, body, self._now())
        except LongSearch as search:
            created = fail(search)
        if isinstance(created, Deferred):
            return Deferred.fromCoroutine(self._create_fork(name, config, body, config.fork, created))
        return created

    async def _create_fork(
        self, name: str, config: StreamConfig, body: bytes, fork: Fork, attempt: Deferred[Created]
    ) -> Created:
        """Wait for an attempt; search where the fork diverges, and attempt it again, as often as the storage asks."""
        point = None
        while True:
            try:
                if point is None:
                    return await attempt
                return await settle(self._storage.create(name, config, body, self._now(), point))
            except LongSearch as search:
                source_id, steps = search.source_id, search.steps
            result: int | str
            try:
                result = await self.turns.finish(steps)
            except InvalidRequest as refusal:
                # The storage refuses it if the source stream is still the same, and its append is committed.
                result = str(refusal)
            point = ForkPoint(fork, source_id, result)

    def append(self, name: str, append: Append) -> NowOrLater[Appended]:
        """Append, close, or both; see :meth:`.IStorage.append`."""
        return self._storage.append(name, append, self._now())

    def read(self, name: str, offset: Offset, limit: int, whole: bool = False, renew: bool = True) -> NowOrLater[Chunk]:
        """Read up to ``limit`` bytes; see :meth:`.IStorage.read`."""
        return self._storage.read(name, offset, limit, self._now(), whole, renew)

    def read_range(self, facts: StreamFacts, start: int, end: int) -> NowOrLater[bytes]:
        """Read on where a read ended; see :meth:`.IStorage.read_range`."""
        return self._storage.read_range(facts, start, end)

    def status(self, name: str) -> NowOrLater[StreamStatus]:
        """Describe a stream; see :meth:`.IStorage.status`."""
        return self._storage.status(name, self._now())

    def delete(self, name: str) -> NowOrLater[None]:
        """Delete a stream; see :meth:`.IStorage.delete`."""
        return self._storage.delete(name, self._now())

    def statuses(self, after: str = "", max_count: int = 1000) -> NowOrLater[list[StreamStatus]]:
        """Describe a page of all streams; see :meth:`.IStorage.statuses`."""
        return self._storage.statuses(self._now(), after, max_count)

    # Waiting

    def watch(self, name: str, wake: Callable[[], None]) -> None:
        """Call ``wake`` after each change of a stream, and when the service drains; see :class:`.Waiting`."""
        self._waiting.watch(name, wake)

    def unwatch(self, name: str, wake: Callable[[], None]) -> None:
        """Take back a :meth:`watch`."""
        self._waiting.unwatch(name, wake)

    # Lifetimes

    def _follow_wall_clock(self) -> None:
        """Tell the storage how far the wall clock is from the time that requests are given."""
        offset = self._clock.wall() - self._now()
        step = offset - self._wall_offset
        if abs(step) > _CLOCK_NOISE:
            self._wall_offset = offset
            self._owned.set_wall_offset(offset)
            if abs(step) > STEP and self.running:
                _log.warn(
                    "The system's clock was set by {step:+.3f} s. Timeouts and Stream-TTL go on as before; "
                    "Stream-Expires-At follows the new time.",
                    step=step,
                )

    async def _sweep(self) -> None:
        """Remove expired streams. A stream that a reader waits on is in use (PROTOCOL section 5.1, Stream-TTL)."""
        self._follow_wall_clock()
        now = self._now()
        try:
            for name in self._waiting.watched():
                self._storage.renew(name, now)
            while not self.draining and await settle(self._storage.sweep(now, SWEEP_AT_ONCE)) == SWEEP_AT_ONCE:
                await deferLater(self._clock, 0)
            self._unswept_for = ""
        except StreamsError as error:
            # A disk that is full or has failed stays so for a while, and is not news each time.
            if self._unswept_for != str(error):
                self._unswept_for = str(error)
                _log.warn("Removing expired streams failed and is tried again: {reason}", reason=error)
        except Exception:
            _log.failure("Removing expired streams failed and is tried again.")
