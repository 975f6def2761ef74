"""The stream service: a storage, the readers that wait on it, and the removal of expired streams."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Collection, Container, Mapping, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .clocks import STEP, clock_of
from .errors import InvalidRequest, StreamsError, Unavailable
from .interfaces import IFileRanges, IPacedWrites, ISharedStorage, IStorage, NowOrLater, settle
from .model import (
    Append,
    Appended,
    Chunk,
    Created,
    FileRange,
    Fork,
    ForkPoint,
    Offset,
    StorageFigures,
    StreamConfig,
    StreamFacts,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
)
from .protocol.forks import LongSearch
from .run_queue import RunQueue
from .waiting import ObservedListener, Waiting

#: The interval between sweeps for expired streams, in seconds, and how many streams one step of a sweep removes.
SWEEP_INTERVAL = 0.5
SWEEP_AT_ONCE = 100

#: The wall clock's offset is updated when it changes by more than this, in seconds; less is noise of two clock reads.
_CLOCK_NOISE = 0.001

_log = Logger()


_NOT_OPEN: Final = "The storage is not open yet: the service is not started or still loads its data. Retry later."


class _ClosedStorage:
    """
    The storage of a service that is not started: every operation raises :exc:`.Unavailable`.

    :param reason: a sentence or two for clients and operators.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def obstacle(self) -> str:
        return self._reason

    def __getattr__(self, name: str) -> Any:
        raise Unavailable(self.obstacle())


class Streams(Service):
    """
    The service that all callers use, one method for each operation.

    Until it is started, every operation raises :exc:`.Unavailable`.

    :param clock: the reactor, or a Clock (:func:`.clock_of`). Lifetimes and wake-ups use its ``seconds()``, dates its
        wall clock.
    :param turns: None for a new run queue on ``clock``.
    :ivar turns: the run queue for work that many clients cause at the same time.
    :ivar changes: counts the changes for which watchers are woken.
    :ivar draining: whether the service is stopping, so that readers must not wait any longer.
    :ivar shared: what is special about a storage that several nodes share; None if only this one uses it.
    """

    name = "streams"
    draining = False

    def __init__(self, storage: IStorage, clock: IReactorTime, turns: RunQueue | None = None) -> None:
        self._clock = clock = clock_of(clock)
        self.turns = RunQueue(clock) if turns is None else turns
        self._owned = storage
        self._file_ranges: IFileRanges | None = IFileRanges(storage, None)
        self._paced_writes: IPacedWrites | None = IPacedWrites(storage, None)
        self.shared: ISharedStorage | None = ISharedStorage(storage, None)
        self._storage: IStorage = _ClosedStorage(_NOT_OPEN)  # type: ignore[assignment]
        self._loading: threading.Thread | None = None
        self._abandoned: Deferred[None] = Deferred()
        self._now = clock.seconds
        self._wall_offset = 0.0
        self._unswept_for = ""
        self._waiting = Waiting(clock, self.turns)
        self.changes = self._waiting.changes
        # Made by startService: to make a LoopingCall installs a reactor, whichever clock it is given.
        self._sweeping: LoopingCall | None = None
        self._follow_wall_clock()
        storage.listen(self._waiting)

    def obstacle(self) -> str | None:
        """Return why writes are refused, as a sentence for operators, or None; see :meth:`.IStorage.obstacle`."""
        return self._storage.obstacle()

    def figures(self) -> StorageFigures:
        """Return the storage's figures; see :meth:`.IStorage.figures`."""
        return self._owned.figures()

    def congested(self) -> bool:
        """Return whether a writer of much data should wait; see :class:`.IPacedWrites`. False if it is not known."""
        return self._paced_writes is not None and bool(self.running) and self._paced_writes.congested()

    def load(self, patience: float, reactor: Any) -> Deferred[None]:
        """
        Load the storage in a thread, then start the service. Requests are refused until then.

        :param patience: for how many seconds this call blocks for the thread. A small storage is loaded, or has failed
            to load, within that time.
        :returns: fires when the service is started; fails with what :meth:`.IStorage.load` raises.
        """
        done: Deferred[None] = Deferred()
        failures: list[Failure] = []

        def work() -> None:
            try:
                self._owned.load()
            except BaseException:
                failures.append(Failure())
            reactor.callFromThread(self._loaded, done, failures)

        self._loading = threading.Thread(target=work, name="opening", daemon=True)
        self._loading.start()
        self._loading.join(patience)
        if not self._loading.is_alive():
            self._loaded(done, failures)
        return done

    def _loaded(self, done: Deferred[None], failures: list[Failure]) -> None:
        if self._loading is None or done.called:
            return
        self._loading = None
        if self.draining:
            closed: Deferred[Any] = succeed(None) if failures else maybeDeferred(self._owned.close)
            closed.addErrback(lambda failure: _log.failure("Closing the storage failed.", failure=failure))
            closed.addCallback(lambda _: self._abandoned.callback(None))
            return
        if not failures:
            try:
                self.startService()
            except Exception:
                failures.append(Failure())
        if failures:
            reason = f"The storage is not open: {failures[0].getErrorMessage()}"
            self._storage = _ClosedStorage(reason)  # type: ignore[assignment]
            done.errback(failures[0])
        else:
            done.callback(None)

    def startService(self) -> None:
        """
        Open the storage, which may block for some seconds, and start the sweeps for expired streams.

        :raises Exception: what :meth:`.IStorage.open` raises.
        """
        self._owned.open()
        self._storage = self._owned
        super().startService()
        self._follow_wall_clock()
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = self._clock
        self._sweeping.start(SWEEP_INTERVAL, now=False)

    def drain(self) -> None:
        """Wake all waiting readers, and let no reader wait from now on."""
        self.draining = True
        self._waiting.wake_all()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.drain()
        if self._sweeping is not None and self._sweeping.running:
            self._sweeping.stop()
        return maybeDeferred(self._close)

    async def _close(self) -> None:
        # A storage that still loads cannot be closed yet. It has acknowledged nothing, so nothing is lost.
        if self._loading is None:
            await settle(self._owned.close())

    def abandoned(self) -> Deferred[None]:
        """
        Wait for a storage that was still being loaded when the service was stopped.

        :returns: fires when it is loaded and closed again; at once if it was not being loaded.
        """
        return succeed(None) if self._loading is None else self._abandoned

    # Operations

    def create(self, name: str, config: StreamConfig, body: bytes) -> NowOrLater[Created]:
        """Create a stream, or return the existing one; see :meth:`.IStorage.create`. Long searches run in slices."""
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
        """Await the first attempt; for each :exc:`.LongSearch`, finish the search in slices and try again."""
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
                # The next attempt rejects it if the source is still the same stream and its append is committed.
                result = str(refusal)
            point = ForkPoint(fork, source_id, result)

    def append(self, name: str, append: Append) -> NowOrLater[Appended]:
        """Append data, close the stream, or both; see :meth:`.IStorage.append`."""
        return self._storage.append(name, append, self._now())

    def read(self, name: str, offset: Offset, limit: int, whole: bool = False, renew: bool = True) -> NowOrLater[Chunk]:
        """Read at most ``limit`` bytes; see :meth:`.IStorage.read`."""
        return self._storage.read(name, offset, limit, self._now(), whole, renew)

    def read_range(self, facts: StreamFacts, start: int, end: int, hidden: bool = False) -> NowOrLater[bytes]:
        """Read a range of positions that an earlier read returned; see :meth:`.IStorage.read_range`."""
        return self._storage.read_range(facts, start, end, hidden)

    def file_range(self, facts: StreamFacts, start: int, end: int) -> NowOrLater[FileRange | None]:
        """Find the beginning of a range in a file; None if the storage has it elsewhere. See :class:`.IFileRanges`."""
        ranges = self._file_ranges
        return None if ranges is None else ranges.file_range(facts, start, end)

    def status(self, name: str) -> NowOrLater[StreamStatus]:
        """Return a stream's metadata; see :meth:`.IStorage.status`."""
        return self._storage.status(name, self._now())

    def delete(self, name: str) -> NowOrLater[None]:
        """Delete a stream; see :meth:`.IStorage.delete`."""
        return self._storage.delete(name, self._now())

    def statuses(self, after: str = "", max_count: int = 1000, prefix: str = "") -> NowOrLater[list[StreamStatus]]:
        """Return the metadata of a page of streams; see :meth:`.IStorage.statuses`."""
        return self._storage.statuses(self._now(), after, max_count, prefix)

    async def status_pages(
        self, after: str = "", prefix: str = "", page_size: int = 500
    ) -> AsyncGenerator[list[StreamStatus], None]:
        """
        Yield the metadata of all streams by name, a page at a time.

        It waits for the storage only: to let the reactor do other work after a page is up to the caller.
        """
        while True:
            page: list[StreamStatus] = await settle(self.statuses(after, page_size, prefix))
            if page:
                yield page
            if len(page) < page_size:
                return
            after = page[-1].facts.name

    def record(self, name: str, hidden: bool = False) -> NowOrLater[StreamRecord]:
        """Return all that is stored of a stream besides its bytes; see :meth:`.IStorage.record`."""
        return self._storage.record(name, self._now(), hidden)

    def install(
        self, staged: str, name: str, restoration: StreamRestoration, replace: bool
    ) -> NowOrLater[StreamStatus]:
        """Turn a staged stream into the stream ``name``; see :meth:`.IStorage.install`."""
        return self._storage.install(staged, name, restoration, replace, self._now())

    def append_ends(
        self, facts: StreamFacts, start: int, max_count: int, hidden: bool = False
    ) -> NowOrLater[Sequence[int]]:
        """Return where appends end; see :meth:`.IStorage.append_ends`."""
        return self._storage.append_ends(facts, start, max_count, hidden)

    def values(self, prefix: str = "", after: str = "", max_count: int = 1000) -> NowOrLater[list[tuple[str, bytes]]]:
        """Return a page of values by key; see :meth:`.IStorage.values`."""
        return self._storage.values(prefix, after, max_count)

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> NowOrLater[None]:
        """Compare values and write others in one step; see :meth:`.IStorage.write_values`."""
        return self._storage.write_values(puts, expected)

    # Waiting

    def observe(self, observer: Callable[[str], None] | None, quiet: Container[str] = ()) -> None:
        """
        Call ``observer`` with the name of the stream for each committed change, or no longer if it is None.

        It is called in the reactor's thread, in the turn of the commit, before the writer is answered, and should only
        take a note. It replaces the observer before. As for :class:`.ICommitListener`, one change may be announced more
        than once, and several changes once. What it raises is logged.

        :param quiet: names of streams whose changes the observer is not called for; the caller may change them at any
            time. A call costs an append about 0.5 % more than a look-up.
        """
        self._owned.listen(self._waiting if observer is None else ObservedListener(self._waiting, observer, quiet))
        if self.shared is not None:
            self.shared.observe(observer is not None)

    def watch(self, name: str, wake: Callable[[], None]) -> None:
        """Call ``wake`` after each change of a stream, and when the service drains; see :class:`.Waiting`."""
        self._waiting.watch(name, wake)

    def unwatch(self, name: str, wake: Callable[[], None]) -> None:
        """Cancel a :meth:`watch`."""
        self._waiting.unwatch(name, wake)

    def watchers(self, name: str) -> Collection[Callable[[], None]]:
        """Return the watchers of a stream, as :meth:`watch` was given them."""
        return self._waiting.watchers(name)

    def watched(self) -> Collection[str]:
        """Return the names of the streams that have watchers."""
        return self._waiting.watched()

    # Lifetimes

    def _follow_wall_clock(self) -> None:
        """Pass the wall clock's offset to the storage if it has changed."""
        offset = self._clock.wall() - self._now()
        step = offset - self._wall_offset
        if abs(step) > _CLOCK_NOISE:
            self._wall_offset = offset
            self._owned.set_wall_offset(offset)
            if abs(step) > STEP and self.running:
                _log.warn(
                    "The system's clock was set by {step:+.3f} s. Timeouts and Stream-TTL are not affected; "
                    "Stream-Expires-At uses the new time.",
                    step=step,
                )

    async def _sweep(self) -> None:
        """Remove expired streams. A waiting reader renews its stream's TTL (PROTOCOL section 5.1, Stream-TTL)."""
        self._follow_wall_clock()
        now = self._now()
        try:
            for name in self._waiting.watched():
                self._storage.renew(name, now)
            while not self.draining and await settle(self._storage.sweep(now, SWEEP_AT_ONCE)) == SWEEP_AT_ONCE:
                await deferLater(self._clock, 0)
            self._unswept_for = ""
        except StreamsError as error:
            # A full or failed disk causes the same error at each sweep: log it once.
            if self._unswept_for != str(error):
                self._unswept_for = str(error)
                _log.warn("Removing expired streams failed and will be retried: {reason}", reason=error)
        except Exception:
            _log.failure("Removing expired streams failed and will be retried.")
