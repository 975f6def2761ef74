"""The first pass of a restore: it verifies the archive and decides what is done with each stream."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable
from enum import IntFlag

from ...errors import StreamError, StreamNotFound
from ...interfaces import settle
from ...model import StreamRecord
from ...streams import Streams
from ..policies import ConflictPolicy
from .entries import StreamEntry
from .errors import RestoreConflict
from .name_table import NameTable
from .reader import AppendSlice, Event, StreamEnd, StreamStart


class Flag(IntFlag):
    """
    What was decided about a stream of the archive.

    :cvar LEFT_OUT: it was deleted during the backup; it is ignored.
    :cvar EXISTS: a stream has its name and keeps it.
    :cvar AT_NAME: forks are made of the stream that has its name: it is installed, or was found to be the same.
    :cvar MADE: it is staged.
    :cvar VISIBLE: it is staged and installed under its name.
    :cvar EXPIRED: it has expired since the backup.
    """

    LEFT_OUT = 1
    EXISTS = 2
    AT_NAME = 4
    MADE = 8
    VISIBLE = 16
    EXPIRED = 32


async def find(streams: Streams, name: str) -> StreamRecord | None:
    """Find a stream, or a deleted one that is kept for its forks."""
    try:
        return await settle(streams.record(name, hidden=True))
    except StreamNotFound:
        return None


class Plan:
    """
    What is done with each stream of an archive. It takes about 30 bytes for each.

    A source that is not restored under its name, because it was deleted or because another stream has its name, is
    nevertheless staged if a fork of it is restored.

    :param wall: returns the wall clock's time.
    :param new_incarnation: whether restored streams get new offsets.
    :param remove_leftover: removes what an earlier, interrupted restore has staged for a name.
    :ivar flags: the decisions, by the number of the stream in the archive, from 1.
    :ivar needed: how many forks of a stream are still to be made, by its number.
    :ivar parents: the number of a fork's source, by its number; 0 for streams that are not forks.
    """

    def __init__(
        self,
        streams: Streams,
        policy: ConflictPolicy,
        new_incarnation: bool,
        wall: Callable[[], float],
        remove_leftover: Callable[[str], Awaitable[None]],
    ) -> None:
        self._streams = streams
        self._policy = policy
        self._new_incarnation = new_incarnation
        self._wall = wall
        self._remove_leftover = remove_leftover
        self._numbers = NameTable(columns=1)
        self.flags = array("B", [0])
        self.needed = array("Q", [0])
        self.parents = array("Q", [0])
        self._existing: StreamRecord | None = None
        self._same: StreamRecord | None = None
        self._position = 0
        self._conflict: RestoreConflict | None = None
        # Streams that are to be replaced: their names, and how many forks of each are to be replaced, by id.
        self._sources: dict[int, str] = {}
        self._replaced_forks: dict[int, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a stream of the archive, or 0."""
        found = self._numbers.get(name)
        return 0 if found is None else found[0]

    async def note(self, event: Event) -> None:
        """Take the next event of the archive."""
        if isinstance(event, StreamStart):
            await self._begin(event.entry)
        elif isinstance(event, AppendSlice):
            await self._compare(event.data)
        elif isinstance(event, StreamEnd):
            self._decide(event)

    async def finish(self) -> None:
        """
        Check that the archive can be restored.

        :raises RestoreConflict: it cannot be restored without changing other streams.
        """
        for stream_id, name in self._sources.items():
            # Some of its forks may have been leftovers, which are removed by now.
            source = await find(self._streams, name)
            if source is not None and self._replaced_forks.get(stream_id, 0) < source.forks:
                self._note_conflict(
                    name,
                    "has forks that are not in the archive, so it cannot be replaced",
                    "Delete these forks, or restore with the policy skip.",
                )
        if self._conflict is not None:
            raise self._conflict

    def need(self, number: int) -> None:
        """Note that a fork of this stream is to be made, so that the stream must be there, and its own source."""
        while number:
            self.needed[number] += 1
            if self.needed[number] > 1 or self.flags[number] & (Flag.AT_NAME | Flag.MADE):
                return
            self.flags[number] |= Flag.MADE
            number = self.parents[number]

    async def _begin(self, entry: StreamEntry) -> None:
        self.flags.append(0)
        self.needed.append(0)
        self.parents.append(0 if entry.source is None else self.number(entry.source))
        self._numbers.add(entry.name, len(self.flags) - 1)
        if self._policy == "replace" and entry.source is not None:
            await self._remove_leftover(entry.name)
        existing = self._existing = await find(self._streams, entry.name)
        self._position = entry.base
        self._same = existing if existing is not None and self._may_be_same(existing, entry) else None

    def _may_be_same(self, existing: StreamRecord, entry: StreamEntry) -> bool:
        """Return whether forks may be made of an existing stream, if its bytes are those of the archive's."""
        parent = self.parents[-1]
        return (
            self._policy == "skip"
            and entry.forks > 0
            and not existing.deleted
            and existing.tail >= entry.tail
            and existing.facts.json == entry.json
            and (self._new_incarnation or existing.facts.incarnation == entry.incarnation)
            and (not parent or bool(self.flags[parent] & Flag.AT_NAME))
        )

    async def _compare(self, data: bytes) -> None:
        start = self._position
        self._position += len(data)
        if self._same is not None:
            try:
                present = await settle(self._streams.read_range(self._same.facts, start, self._position))
            except StreamError:
                present = b""
            if present != data:
                self._same = None

    def _decide(self, event: StreamEnd) -> None:
        entry, existing, number = event.entry, self._existing, len(self.flags) - 1
        expires_at = entry.lifetime.expires_at
        is_over = expires_at is not None and expires_at <= self._wall()
        if not event.complete:
            self.flags[number] = Flag.LEFT_OUT
            return
        if is_over:
            self.flags[number] |= Flag.EXPIRED
        if existing is not None and self._policy == "fail":
            self._note_conflict(
                entry.name,
                "was deleted, and still has forks" if existing.deleted else "already exists",
                "Delete the stream, or restore with the policy skip or replace.",
            )
        if existing is not None and (self._policy == "skip" or entry.deleted or is_over):
            self.flags[number] |= Flag.EXISTS
            if self._same is not None:
                self.flags[number] |= Flag.AT_NAME
        elif not entry.deleted and not is_over:
            self.flags[number] |= Flag.MADE | Flag.VISIBLE
            self.need(self.parents[number])
            if existing is not None:
                self._note_replacement(existing)

    def _note_replacement(self, existing: StreamRecord) -> None:
        if existing.forks:
            self._sources[existing.facts.id] = existing.facts.name
        if existing.source_id is not None:
            self._replaced_forks[existing.source_id] = self._replaced_forks.get(existing.source_id, 0) + 1

    def _note_conflict(self, name: str, reason: str, remedy: str) -> None:
        if self._conflict is None:
            self._conflict = RestoreConflict(name, reason, remedy)
