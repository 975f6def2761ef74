"""The start of the service: records are read, and all streams are compared once with links and patterns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from twisted.logger import Logger

from ..interfaces import settle
from ..model import StreamStatus
from ..streams import Streams
from .entry import Entry
from .following import as_tail, tail_of
from .registry import Registry

#: How many streams are compared at a time, which takes about a millisecond.
_PAGE: Final = 128

_log = Logger()


class Recovery:
    """Loads all subscriptions of a storage."""

    def __init__(self, streams: Streams, registry: Registry) -> None:
        self._streams = streams
        self._registry = registry

    async def run(self) -> None:
        """
        Read all records, then compare all streams.

        Commits must be followed before this is called. Afterwards, entries with changed streams are ``dirty``.

        :raises CorruptRecord: a record is damaged, or of another version.
        """
        registry, turns = self._registry, self._streams.turns
        for subscription_id, current in (await registry.store.load()).items():
            entry = Entry(subscription_id, current.subscription.birth)
            pattern = current.subscription.config.pattern
            if pattern is not None:
                registry.index.add_pattern(pattern, entry)
            for count, path in enumerate(current.links, 1):
                registry.index.link(path, entry)
                if count % 1000 == 0:
                    await turns.turn()
            registry.add(entry, current)
            await turns.turn()
        if registry.index.patterns:
            await self._compare_all()
        else:
            await self._compare_linked()
        if registry.entries:
            _log.info(
                "Loaded {subscriptions} subscriptions with {links} links.",
                subscriptions=len(registry.entries),
                links=registry.index.links,
            )

    async def _compare_all(self) -> None:
        """Compare all streams with patterns and links."""
        absent = set(self._registry.index.linked_paths())
        after = ""
        while True:
            page: list[StreamStatus] = await settle(self._streams.statuses(after, _PAGE))
            for status in page:
                absent.discard(status.facts.name)
                self._compare(status)
            if len(page) < _PAGE:
                break
            after = page[-1].facts.name
            await self._streams.turns.turn()
        await self._compare_paths(absent)

    async def _compare_linked(self) -> None:
        await self._compare_paths(list(self._registry.index.linked_paths()))

    async def _compare_paths(self, paths: Iterable[str]) -> None:
        for count, path in enumerate(paths, 1):
            tail = await tail_of(self._streams, path)
            index = self._registry.index
            index.set_tail(path, tail)
            for entry in index.linked(path):
                self._compare_link(entry, path, None if tail is None else tail.stream_id)
            if count % _PAGE == 0:
                await self._streams.turns.turn()

    def _compare(self, status: StreamStatus) -> None:
        name, tail = status.facts.name, as_tail(status)
        index = self._registry.index
        index.set_tail(name, tail)
        linked = index.linked(name)
        for entry in linked:
            self._compare_link(entry, name, tail.stream_id)
        for entry in index.matching(name) - linked:
            current = entry.current
            is_older = current is not None and status.created_at <= current.subscription.created_at
            entry.dirty[name] = is_older

    def _compare_link(self, entry: Entry, path: str, stream_id: int | None) -> None:
        current = entry.current
        if current is None:
            return
        link = current.links.get(path)
        if link is not None and link.stream_id != stream_id:
            entry.note(path)
        current.links.refresh(path)
