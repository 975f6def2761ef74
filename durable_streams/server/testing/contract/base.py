"""The base class of the contract's tests, and a listener that records announcements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from ...errors import (
    ForkFromDeleted,
    InvalidRequest,
    PathBlocked,
    StreamGone,
    StreamNotFound,
    StreamsError,
)
from ...interfaces import ICommitListener, IStorage, NowOrLater
from ...model import (
    START,
    Append,
    Appended,
    Chunk,
    Created,
    Fork,
    ForkPoint,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    StreamStatus,
    Writer,
)
from ...protocol.forks import LongSearch
from ..values import ALL, T0, TEXT, E, T, settled

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _TestCase

else:
    # At run time the mixin must not be a test case: trial would run it in every module that imports it.
    _TestCase = object


@implementer(ICommitListener)
class RecordingListener:
    """
    A commit listener that records each announcement with the stream's status at that time.

    :ivar heard: the announced names, in order.
    """

    def __init__(self, look: Callable[[str], NowOrLater[StreamStatus]], patience: float) -> None:
        self.heard: list[str] = []
        self._look = look
        self._patience = patience
        self._glances: list[tuple[str, Deferred[StreamStatus | StreamsError]]] = []
        self._waiting: list[Deferred[None]] = []

    def committed(self, name: str) -> None:
        self.heard.append(name)
        glance = maybeDeferred(self._look, name).addErrback(as_value)
        self._glances.append((name, cast("Deferred[StreamStatus | StreamsError]", glance)))
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    async def sees(self, name: str, what: Callable[[StreamStatus | StreamsError], bool]) -> bool:
        """
        Wait for an announcement at which the stream's status, or its error, satisfies a condition.

        :returns: whether one came within ``patience`` seconds.
        """
        from twisted.internet import reactor  # noqa: PLC0415 (the program may choose one until now)

        while True:
            while self._glances:
                seen_name, glance = self._glances.pop(0)
                if what(await glance) and seen_name == name:
                    return True
            again: Deferred[None] = Deferred()
            self._waiting.append(again)
            timeout = reactor.callLater(self._patience, again.errback, TimeoutError())
            try:
                await again
            except TimeoutError:
                return False
            finally:
                if timeout.active():
                    timeout.cancel()


def as_value(failure: Any) -> StreamsError:
    """Return the :exc:`.StreamsError` of a failure."""
    failure.trap(StreamsError)
    return cast("StreamsError", failure.value)


class Contract(_TestCase):
    """
    The base class of the contract's tests, with one short method for each operation.

    :cvar patience: the maximum time of a commit's announcement, in seconds.
    :ivar storage: the storage under test.
    :ivar now: the time that is passed to the storage.
    """

    patience = 2.0
    storage: IStorage
    now: float

    def make_storage(self, limits: StorageLimits) -> IStorage | Awaitable[IStorage]:
        """
        Create an empty storage that is open. May return it or an awaitable, so ``async def`` is fine.

        :param limits: the limits of the storage.
        """
        raise NotImplementedError("Override make_storage to create the storage under test.")

    async def setUp(self) -> None:  # type: ignore[override]
        self.now = T0
        self._incarnations: dict[str, int] = {}
        self.storage = await settled(self.make_storage(StorageLimits()))
        self.set_time(self.now)
        self.addCleanup(self._close)

    async def _close(self) -> None:
        await settled(self.storage.close())

    def listen(self) -> RecordingListener:
        """Register a listener with the storage."""
        listener = RecordingListener(lambda name: self.storage.status(name, self.now), self.patience)
        self.storage.listen(listener)
        return listener

    async def take(self, **limits: int) -> None:
        """Replace the storage by an empty one with these limits."""
        await self._close()
        self.storage = await settled(self.make_storage(StorageLimits(**limits)))
        self.set_time(self.now)

    # Operations

    def set_time(self, now: float) -> None:
        """
        Set the storage's own clock. Override this for a storage that does not use the time that callers pass.

        It is called when the tests begin, and each time that the time advances, and must not return before the clock
        is set.
        """

    def later(self, seconds: float) -> None:
        """Advance the time."""
        self.now += seconds
        self.set_time(self.now)

    def at(self, name: str, position: int) -> Offset:
        """Return the offset of a position in a stream."""
        return Offset(self._incarnations[name], position)

    async def create(self, name: str = "a", config: StreamConfig = TEXT, body: bytes = b"") -> Created:
        created = await self.searching(name, config, body)
        self._incarnations[name] = created.facts.incarnation
        return created

    async def searching(self, name: str, config: StreamConfig, body: bytes = b"") -> Created:
        """Create a stream, and finish the searches that the storage asks for."""
        point = None
        while True:
            try:
                return await settled(self.storage.create(name, config, body, self.now, point))
            except LongSearch as search:
                point = self.search(config, search)

    def search(self, config: StreamConfig, search: LongSearch) -> ForkPoint:
        """Finish a search for where a fork diverges."""
        assert config.fork is not None
        try:
            while True:
                next(search.steps)
        except StopIteration as stop:
            result: int | str = stop.value
        except InvalidRequest as refusal:
            result = str(refusal)
        return ForkPoint(config.fork, search.source_id, result)

    async def fork(
        self, name: str, source: str, position: int | None = None, sub_offset: int = 0, body: bytes = b""
    ) -> Created:
        return await self.create(name, self.forking(source, position, sub_offset), body)

    def forking(self, source: str, position: int | None = None, sub_offset: int = 0) -> StreamConfig:
        """Return the configuration of a fork with no other option."""
        offset = None if position is None else self.at(source, position)
        return StreamConfig(fork=Fork(source, offset, sub_offset))

    async def append(
        self,
        name: str = "a",
        data: bytes = b"",
        close: bool = False,
        sequence: bytes | None = None,
        writer: Writer | None = None,
        media_type: str | None = "text/plain",
    ) -> Appended:
        append = Append(media_type if data else None, data, close, sequence, writer)
        return await settled(self.storage.append(name, append, self.now))

    async def read(
        self, name: str = "a", offset: Offset | int = START, limit: int = ALL, whole: bool = False, renew: bool = False
    ) -> Chunk:
        place = self.at(name, offset) if isinstance(offset, int) else offset
        return await settled(self.storage.read(name, place, limit, self.now, whole, renew))

    async def content(self, name: str = "a") -> bytes:
        """Read a whole stream without renewing its TTL."""
        return (await self.read(name)).data

    async def range(self, facts: StreamFacts, start: int, end: int) -> bytes:
        return await settled(self.storage.read_range(facts, start, end))

    async def status(self, name: str = "a") -> StreamStatus:
        return await settled(self.storage.status(name, self.now))

    async def statuses(self, after: str = "", max_count: int = 1000) -> list[StreamStatus]:
        return await settled(self.storage.statuses(self.now, after, max_count))

    async def names(self) -> list[str]:
        return [status.facts.name for status in await self.statuses()]

    async def delete(self, name: str = "a") -> None:
        await settled(self.storage.delete(name, self.now))

    async def sweep(self, max_count: int = 1000) -> int:
        """Remove all expired streams, at most ``max_count`` in a call, and return how many were removed."""
        removed = 0
        while count := await settled(self.storage.sweep(self.now, max_count)):
            self.assertLessEqual(count, max_count)
            removed += count
        return removed

    # Assertions

    async def everything(self) -> list[tuple[StreamStatus, bytes]]:
        """Return the status and content of all streams, without renewing their TTL."""
        return [(status, await self.content(status.facts.name)) for status in await self.statuses()]

    async def refused(self, error: type[E], attempt: Coroutine[Any, Any, object]) -> E:  # noqa: RET503 (fail raises)
        """
        Assert that an attempt raises an error and changes nothing.

        :returns: the error.
        """
        before = await self.everything()
        try:
            outcome = await attempt
        except error as reason:
            self.assertEqual(await self.everything(), before)
            return reason
        self.fail(f"{error.__name__} was expected, not {outcome!r}")

    async def assert_absent(self, name: str = "a") -> None:
        """Assert that no operation finds the stream."""
        await self.refused(StreamNotFound, self.status(name))
        await self.refused(StreamNotFound, self.read(name))
        await self.refused(StreamNotFound, self.append(name, b"x"))
        await self.refused(StreamNotFound, self.delete(name))
        self.assertNotIn(name, await self.names())

    async def assert_hidden(self, name: str = "a") -> None:
        """Assert that a deleted stream with forks rejects every operation."""
        await self.refused(StreamGone, self.status(name))
        await self.refused(StreamGone, self.read(name))
        await self.refused(StreamGone, self.append(name, b"x"))
        await self.refused(StreamGone, self.append(name, close=True))
        await self.refused(StreamGone, self.delete(name))
        await self.refused(PathBlocked, self.create(name))
        await self.refused(ForkFromDeleted, self.fork("fork-of-hidden", name))
        self.assertNotIn(name, await self.names())

    def begin(self, call: Callable[[], NowOrLater[T]]) -> Deferred[T]:
        """Call, and return the result as a Deferred."""
        return cast("Deferred[T]", maybeDeferred(call))

    async def together(self, calls: Iterable[Callable[[], NowOrLater[T]]]) -> list[T | StreamsError]:
        """Start all calls before any has answered; return their results, errors included."""
        started = [self.begin(call) for call in calls]
        outcomes: list[T | StreamsError] = []
        for deferred in started:
            try:
                outcomes.append(await deferred)
            except StreamsError as error:
                outcomes.append(error)
        return outcomes

    async def assert_reads(self, name: str, appends: Sequence[bytes]) -> None:
        """Assert that reads from every position, with every limit, return the data of these appends."""
        data = b"".join(appends)
        edges = [len(b"".join(appends[:count])) for count in range(len(appends) + 1)]
        for position in range(len(data) + 2):
            start = max(edge for edge in edges if edge <= position)
            for limit in (1, 2, 3, 4, 5, max(len(data), 1), len(data) + 1):
                for whole in (False, True):
                    chunk = await self.read(name, position, limit, whole)
                    says = f"{name} from {position}, limit {limit}, whole {whole}: {chunk}"
                    self.assertEqual((chunk.start, chunk.tail), (start, len(data)), says)
                    end = start + len(chunk.data)
                    self.assertEqual(chunk.data, data[start:end], says)
                    if end < len(data):
                        self.assertGreater(len(data) - start, limit, f"It all fits. {says}")
                        self.assertGreater(end, start, f"Nothing is there. {says}")
                    self.assertLessEqual(end - start, limit, says)
                    first = next((edge for edge in edges if edge > start), start)
                    self.assertEqual(chunk.more, max(0, first - start - limit) if whole else 0, says)
                    if whole:
                        self.assertIn(end + chunk.more, edges, says)
        for start in range(len(data) + 1):
            for end in range(start, len(data) + 1):
                self.assertEqual(await self.range((await self.status(name)).facts, start, end), data[start:end])
