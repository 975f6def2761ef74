"""Comparison of what a node knows of streams with a storage that it shares with others, whose messages may be lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final

from twisted.internet.defer import Deferred

from ..interfaces import LATE_CREATION, ISharedStorage, settle
from ..model import KnownTail, StreamStatus
from ..protocol.patterns import matches
from ..run_queue import RunQueue
from ..streams import Streams
from .creation import literal_prefix
from .entry import Entry
from .following import ChangeFollower
from .locks import together
from .model import StreamTail
from .registry import Registry
from .shared_store import SharedStore

#: How many tails are compared in one step, which takes a few milliseconds of the database and one of this process.
_AT_ONCE: Final = 1_000

#: How many streams are listed at a time.
_PAGE: Final = 500

#: For how long the ids are remembered that were the last ones, in seconds. A subscription that is read is compared with
#: the streams that were created since then.
_REMEMBERED: Final = 60.0

#: How many ids before the last one streams may be created with that began before the start.
_MARGIN: Final = 1_000

#: How many names of streams that were created lately are kept in memory, about 1 MiB; beyond it they are read again.
_MAX_RECENT: Final = 10_000


class CreatedStreams:
    """
    Finds streams that were created, on whatever node, by their ids.

    :param created: is called with the name of each stream that was created since the start, once.
    :param turns: lets the reactor do other work after some names.
    """

    def __init__(
        self,
        shared: ISharedStorage,
        seconds: Callable[[], float],
        created: Callable[[str], None],
        turns: RunQueue,
    ) -> None:
        self._shared = shared
        self._seconds = seconds
        self._created = created
        self._turns = turns
        # The names that were found in the last minute, by the time of the scan; how many there are; and the time of the
        # last scan whose names were dropped because there were too many.
        self._recent: deque[tuple[float, list[str]]] = deque()
        self._recent_count = 0
        self._dropped_at = float("-inf")
        # Moments of the last minute at which an id was the last one. All streams up to the base were found by an
        # earlier scan.
        self._samples: deque[tuple[float, int]] = deque()
        self._base = 0
        self._found: set[int] = set()
        self._running = False
        self._waiting: list[Deferred[None]] = []

    async def start(self) -> None:
        """Begin with the streams that are created from now on."""
        self._base = await settle(self._shared.last_id()) - _MARGIN
        self._samples.append((self._seconds(), self._base))

    def scan(self) -> Deferred[None]:
        """Find streams, by a look that begins after this call."""
        caller: Deferred[None] = Deferred()
        self._waiting.append(caller)
        if not self._running:
            self._scan_next()
        return caller

    def _scan_next(self) -> None:
        callers, self._waiting = self._waiting, []
        self._running = bool(callers)
        if callers:
            scanned = Deferred.fromCoroutine(self._scan())
            scanned.addBoth(self._scanned, callers)

    def _scanned(self, result: object, callers: list[Deferred[None]]) -> None:
        for caller in callers:
            caller.callback(result)  # type: ignore[arg-type]
        self._scan_next()

    async def _scan(self) -> None:
        began_at = self._seconds()
        rows = await settle(self._shared.created_after(self._base))
        names = []
        for count, (stream_id, name) in enumerate(rows, 1):
            if stream_id not in self._found:
                names.append(name)
                self._created(name)
            if count % _AT_ONCE == 0:
                await self._turns.turn()
        self._remember(began_at, names)
        last = max(rows[-1][0] if rows else 0, self._samples[-1][1])
        if began_at >= self._samples[-1][0] + 1:
            self._samples.append((began_at, last))
        for sampled_at, stream_id in self._samples:
            # Those that came later than greater ids were there when this scan began.
            if sampled_at <= began_at - LATE_CREATION:
                self._base = stream_id
        self._found = {stream_id for stream_id, _ in rows if stream_id > self._base}
        while len(self._samples) > 1 and self._samples[1][0] <= began_at - LATE_CREATION - _REMEMBERED:
            self._samples.popleft()

    def _remember(self, found_at: float, names: list[str]) -> None:
        """Keep the names that a scan found for a minute, or until there are too many."""
        if names:
            self._recent.append((found_at, names))
            self._recent_count += len(names)
        while self._recent and (self._recent[0][0] < found_at - _REMEMBERED or self._recent_count > _MAX_RECENT):
            if self._recent[0][0] >= found_at - _REMEMBERED:
                self._dropped_at = self._recent[0][0]
            self._recent_count -= len(self._recent.popleft()[1])

    async def lately(self) -> list[str]:
        """Return the names of streams that were created in the last minute, and perhaps of some before."""
        await self.scan()
        if self._dropped_at < self._seconds() - _REMEMBERED:
            return [name for _, names in self._recent for name in names]
        # The first sample is older than all that is to be found.
        return [name for _, name in await settle(self._shared.created_after(self._samples[0][1]))]


class Comparison:
    """Compares subscriptions and their streams with the storage."""

    def __init__(
        self,
        streams: Streams,
        shared: ISharedStorage,
        registry: Registry,
        store: SharedStore,
        changes: ChangeFollower,
        seconds: Callable[[], float],
    ) -> None:
        self._streams = streams
        self._shared = shared
        self._registry = registry
        self._store = store
        self._changes = changes
        self.created = CreatedStreams(shared, seconds, self._note_created, streams.turns)
        registry.read_tails = self.read_tails
        registry.loaded = self._loaded

    def _note_created(self, name: str) -> None:
        index = self._registry.index
        # Without subscriptions, no name need be remembered that concerns none.
        if (index.patterns or index.links) and index.concerned(name):
            self._changes.committed(name)

    async def refresh(self, entry: Entry) -> None:
        """Find all that is not known yet of a subscription and its streams, as of now."""
        current = entry.current
        if current is None:
            return
        work = [self._compare_record(entry), self.compare_tails(list(current.links))]
        if current.subscription.config.pattern is not None:
            work.append(self._scan())
        await together(work)

    async def _scan(self) -> None:
        await self.created.scan()

    async def _compare_record(self, entry: Entry) -> None:
        stored = (await self._store.stored([entry.id]))[entry.id]
        if entry.current is not None and stored != entry.current.stored:
            entry.notice()

    async def compare_tails(self, paths: Collection[str]) -> None:
        """Note the streams that have changed while that was not announced."""
        tails = self._registry.index.tails
        for each in await self._changed(paths):
            known = tails.get(each.name)
            if known is not None and known.stream_id == each.stream_id and known.position <= each.tail:
                self._changes.update_all(each.name, _tail(each))
            else:
                self._changes.committed(each.name)

    async def compare_links(self, entries: Iterable[Entry]) -> None:
        """Note the linked streams of subscriptions that have changed while that was not announced."""
        paths: set[str] = set()
        for entry in entries:
            for path in () if entry.current is None else list(entry.current.links):
                paths.add(path)
                if len(paths) == _AT_ONCE:
                    await self.compare_tails(paths)
                    paths.clear()
        await self.compare_tails(paths)

    async def read_tails(self, paths: Collection[str]) -> None:
        """Read the tails of streams that were linked now."""
        index = self._registry.index
        for each in await self._changed(paths):
            if each.stream_id and each.name not in index.tails:
                index.set_tail(each.name, _tail(each))
            else:
                self._changes.committed(each.name)

    async def _changed(self, paths: Collection[str]) -> list[KnownTail]:
        names, tails = list(paths), self._registry.index.tails
        found: list[KnownTail] = []
        for start in range(0, len(names), _AT_ONCE):
            known = []
            for name in names[start : start + _AT_ONCE]:
                tail = tails.get(name)
                known.append(
                    KnownTail(name)
                    if tail is None
                    else KnownTail(name, tail.stream_id, tail.incarnation, tail.position)
                )
            changed: list[KnownTail] = await settle(self._shared.changed_tails(known))
            found += changed
        return found

    async def _loaded(self, entry: Entry) -> None:
        """Compare a subscription that was read with its streams, and with those that were created lately."""
        current = entry.current
        if current is None:
            return
        for path in list(current.links):
            self._registry.compare(entry, path)
        pattern = current.subscription.config.pattern
        if pattern is not None:
            for count, name in enumerate(await self.created.lately(), 1):
                if name not in current.links and matches(pattern, name):
                    entry.note(name)
                if count % _AT_ONCE == 0:
                    await self._streams.turns.turn()

    async def list_matching(self, entries: Iterable[Entry]) -> None:
        """Link the streams that match patterns and were created while nobody was responsible for the subscriptions."""
        by_prefix: dict[str, list[Entry]] = {}
        for entry in entries:
            pattern = None if entry.current is None else entry.current.subscription.config.pattern
            if pattern is not None:
                by_prefix.setdefault(literal_prefix(pattern), []).append(entry)
        for prefix, concerned in by_prefix.items():
            async for page in self._streams.status_pages("", prefix, _PAGE):
                for status in page:
                    self._compare_patterns(status, concerned)
                await self._streams.turns.turn()

    def _compare_patterns(self, status: StreamStatus, entries: Iterable[Entry]) -> None:
        name = status.facts.name
        matching = self._registry.index.matching(name)
        for entry in entries:
            current = entry.current
            if current is not None and entry in matching and name not in current.links:
                entry.note_again({name: status.created_at <= current.subscription.created_at})

    async def compare_records(self, entries: Collection[Entry]) -> list[Entry]:
        """Find out which subscriptions other nodes have changed or deleted, and return them."""
        known = {entry.id: entry for entry in entries}
        changed = []
        for subscription_id, stored in (await self._store.stored(list(known))).items():
            entry = known[subscription_id]
            if entry.current is not None and entry.current.stored != stored:
                entry.notice()
                changed.append(entry)
        return changed


def _tail(known: KnownTail) -> StreamTail:
    return StreamTail(known.stream_id, known.incarnation, known.tail)
