"""What every part of the contract is written with."""

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
    # A mixin that were a test case itself would be run wherever it is imported.
    _TestCase = object


@implementer(ICommitListener)
class Ear:
    """
    Hears of commits, and looks at each stream the moment that it hears of it.

    :ivar heard: the names, as they came.
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
        Wait for an announcement that comes when the change is there to be seen.

        :returns: whether one came in time.
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
    """Take the error that a failure is of, to be looked at."""
    failure.trap(StreamsError)
    return cast("StreamsError", failure.value)


class Contract(_TestCase):
    """
    What the tests below have in common.

    :cvar patience: how many seconds the announcement of a commit may take.
    :ivar storage: the one under test.
    :ivar now: what its clock would say.
    """

    patience = 2.0
    storage: IStorage
    now: float

    def make_storage(self, limits: StorageLimits) -> IStorage | Awaitable[IStorage]:
        """
        Make a storage that is new and empty. Now or later; ``async def`` will do.

        :param limits: what it is to take.
        """
        raise NotImplementedError("Say in make_storage how to make the storage that is to be tested.")

    async def setUp(self) -> None:  # type: ignore[override]
        self.now = T0
        self._incarnations: dict[str, int] = {}
        self.storage = await settled(self.make_storage(StorageLimits()))
        self.addCleanup(self._close)

    async def _close(self) -> None:
        await settled(self.storage.close())

    def listen(self) -> Ear:
        """Listen to the storage from now on."""
        ear = Ear(lambda name: self.storage.status(name, self.now), self.patience)
        self.storage.listen(ear)
        return ear

    async def take(self, **limits: int) -> None:
        """Go on with a storage of other limits."""
        await self._close()
        self.storage = await settled(self.make_storage(StorageLimits(**limits)))

    # A word for each operation

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def at(self, name: str, position: int) -> Offset:
        """Say the offset of a position in a stream."""
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
        """Say how to make a fork, and nothing else of it."""
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
        """Read a stream from end to end, without using it."""
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

    async def sweep(self, most: int = 1000) -> int:
        """Remove all that has expired, ``most`` at a time."""
        removed = 0
        while count := await settled(self.storage.sweep(self.now, most)):
            self.assertLessEqual(count, most)
            removed += count
        return removed

    # What is seen of it

    async def everything(self) -> list[tuple[StreamStatus, bytes]]:
        """Say all that can be seen of all streams, without using them."""
        return [(status, await self.content(status.facts.name)) for status in await self.statuses()]

    async def refused(self, error: type[E], attempt: Coroutine[Any, Any, object]) -> E:  # noqa: RET503 (fail raises)
        """
        Expect an error, and that nothing has changed after it.

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
        """Expect that there is no such stream, whatever is asked of it."""
        await self.refused(StreamNotFound, self.status(name))
        await self.refused(StreamNotFound, self.read(name))
        await self.refused(StreamNotFound, self.append(name, b"x"))
        await self.refused(StreamNotFound, self.delete(name))
        self.assertNotIn(name, await self.names())

    async def assert_hidden(self, name: str = "a") -> None:
        """Expect that a deleted stream is kept for its forks, and for nobody else."""
        await self.refused(StreamGone, self.status(name))
        await self.refused(StreamGone, self.read(name))
        await self.refused(StreamGone, self.append(name, b"x"))
        await self.refused(StreamGone, self.append(name, close=True))
        await self.refused(StreamGone, self.delete(name))
        await self.refused(PathBlocked, self.create(name))
        await self.refused(ForkFromDeleted, self.fork("fork-of-hidden", name))
        self.assertNotIn(name, await self.names())

    def begin(self, call: Callable[[], NowOrLater[T]]) -> Deferred[T]:
        """Call, and let the answer wait."""
        return cast("Deferred[T]", maybeDeferred(call))

    async def together(self, calls: Iterable[Callable[[], NowOrLater[T]]]) -> list[T | StreamsError]:
        """Call all before the first has answered; say what each answered, errors included."""
        started = [self.begin(call) for call in calls]
        outcomes: list[T | StreamsError] = []
        for deferred in started:
            try:
                outcomes.append(await deferred)
            except StreamsError as error:
                outcomes.append(error)
        return outcomes

    async def assert_reads(self, name: str, appends: Sequence[bytes]) -> None:
        """Expect that a stream consists of these appends, wherever and however it is read."""
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
