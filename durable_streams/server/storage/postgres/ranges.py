"""Reads of ranges: a stream's own bytes, and before its fork point those of its sources."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ...errors import DataDamaged, StreamNotFound
from ...model import Chunk, Offset, StreamFacts
from ...protocol.offsets import locate
from .chunk_index import StoredChunk
from .fetching import ChunkFetcher, MissingChunk
from .heads import Head
from .packing import INT8, int8, to_int
from .queries import Query, Statement, value_of

#: How many lineages of forks are kept in memory, and how many streams all of them together have.
_MAX_LINEAGES: Final = 1_000
_MAX_ANCESTORS: Final = 20_000

T = TypeVar("T")

#: A part of a range: the id of the stream that has it, the position of that stream's first own byte, and the part's
#: start and end.
Part = tuple[int, int, int, int]

#: Looks a stream up by its name: the committed state after the call, or None.
LookUp = Callable[[str], Awaitable[Head | None]]


class Ranges:
    """
    Reads of streams.

    :param look_up: finds the head of a stream, deleted and expired ones too.
    """

    def __init__(self, query: Query, schema: str, fetcher: ChunkFetcher, look_up: LookUp) -> None:
        self._query = query
        self._fetcher = fetcher
        self._look_up = look_up
        self._lineages: OrderedDict[int, list[tuple[int, int]]] = OrderedDict()
        self._ancestors = 0
        self._lineage = Statement(
            "lineage",
            f"WITH RECURSIVE l AS (SELECT id, base, source_id, 0 AS n FROM {schema}.streams WHERE id = $1 UNION ALL "
            f"SELECT s.id, s.base, s.source_id, l.n + 1 FROM l JOIN {schema}.streams s ON s.id = l.source_id) "
            "SELECT id, base FROM l ORDER BY n",
            (INT8,),
        )

    def clear(self) -> None:
        """Forget the lineages of forks."""
        self._lineages.clear()
        self._ancestors = 0

    # Operations

    async def read(self, head: Head, offset: Offset, limit: int, whole: bool) -> Chunk:
        """
        Read at most ``limit`` bytes of a stream that was looked up just now; see :meth:`.IStorage.read`.

        :raises StreamNotFound: it was deleted meanwhile.
        """
        position = locate(offset, head.facts, head.tail)
        if position == head.tail:
            return Chunk(head.facts, position, b"", position, head.closed)
        return await self._intact(head.facts, False, self._read(head, position, limit, whole))

    async def read_range(self, facts: StreamFacts, start: int, end: int, hidden: bool) -> bytes:
        """Read the bytes between two positions of a stream; see :meth:`.IStorage.read_range`."""
        head = await self._check_there(facts, hidden)
        return await self._intact(facts, hidden, self._bytes(head, start, min(end, head.tail)))

    async def append_ends(self, facts: StreamFacts, start: int, max_count: int, hidden: bool) -> list[int]:
        """Return where appends end after a position; see :meth:`.IStorage.append_ends`."""
        head = await self._check_there(facts, hidden)
        return await self._intact(facts, hidden, self._append_ends(head, start, max_count))

    async def append_at(self, head: Head, position: int) -> tuple[int, bytes]:
        """
        Return the start and the bytes of the append that has the byte at a position, as far as the stream has them.

        :raises StreamNotFound: the stream was deleted meanwhile.
        """
        return await self._intact(head.facts, False, self._append_at(head, position))

    async def _intact(self, facts: StreamFacts, hidden: bool, reading: Awaitable[T]) -> T:
        """
        Return the result of a read.

        :raises StreamNotFound: a chunk is missing because the stream was deleted meanwhile.
        :raises DataDamaged: a chunk is missing or damaged.
        """
        try:
            return await reading
        except MissingChunk:
            await self._check_there(facts, hidden)
            raise DataDamaged(facts.name) from None

    async def _read(self, head: Head, position: int, limit: int, whole: bool) -> Chunk:
        tail = head.tail
        start = await self._append_start(head, position)
        end, more = tail, 0
        if tail - start > limit:
            end = start + limit
            if whole:
                last = await self._append_start(head, end)
                if last > start:
                    end = last
                else:
                    more = await self._append_end(head, start) - end
        return Chunk(head.facts, start, await self._bytes(head, start, end), tail, head.closed, more)

    async def _append_ends(self, head: Head, start: int, max_count: int) -> list[int]:
        found: list[int] = []
        for stream_id, _, first, stop in await self._parts(head, start, head.tail):
            if len(found) < max_count:
                found += await self._fetcher.ends(stream_id, first, stop, max_count - len(found))
            if len(found) < max_count:
                found.append(stop)
        return found

    async def _append_at(self, head: Head, position: int) -> tuple[int, bytes]:
        start = await self._append_start(head, position)
        return start, await self._bytes(head, start, await self._append_end(head, start))

    async def _check_there(self, facts: StreamFacts, hidden: bool) -> Head:
        """
        Find the stream that was found before, and no later one of its name.

        :raises StreamNotFound: it was deleted meanwhile.
        """
        head = await self._look_up(facts.name)
        if head is None or head.facts.id != facts.id or (head.deleted and not hidden):
            raise StreamNotFound(facts.name)
        return head

    # Where bytes are

    async def _parts(self, head: Head, start: int, end: int) -> list[Part]:
        """
        Return the parts of a range, in order.

        :raises MissingChunk: a source is not there any more.
        """
        if start >= head.base or head.source_id is None:
            return [(head.facts.id, head.base, start, end)] if start < end else []
        parts: list[Part] = []
        for stream_id, base in await self._ancestry(head.facts.id):
            first = max(start, base)
            if first < end:
                parts.append((stream_id, base, first, end))
                end = first
        parts.reverse()
        return parts

    async def _ancestry(self, stream_id: int) -> list[tuple[int, int]]:
        """Return a stream and its sources, each with the position of its first own byte. It never changes."""
        known = self._lineages.get(stream_id)
        if known is not None:
            self._lineages.move_to_end(stream_id)
            return known
        rows = await self._query(self._lineage, (int8(stream_id),))
        found = [
            (to_int(value_of(rows, number, 0)), to_int(value_of(rows, number, 1))) for number in range(rows.ntuples)
        ]
        if not found or found[-1][1]:
            raise MissingChunk(f"the sources of stream {stream_id} are not all there")
        if stream_id not in self._lineages:
            self._lineages[stream_id] = found
            self._ancestors += len(found)
        while len(self._lineages) > _MAX_LINEAGES or (self._ancestors > _MAX_ANCESTORS and len(self._lineages) > 1):
            self._ancestors -= len(self._lineages.popitem(last=False)[1])
        return found

    async def _owner(self, head: Head, position: int) -> Part:
        """Return the part from a position to the end of what the same stream has of it."""
        return (await self._parts(head, position, head.tail))[0]

    async def _append_start(self, head: Head, position: int) -> int:
        """Return where the append with the byte at a position begins; the part of a fork's source is an append, too."""
        stream_id, base, _, stop = await self._owner(head, position)
        if position == base:
            return position
        chunk = await self._fetcher.chunk_at(stream_id, position, stop)
        return max(chunk.append_start(position), base)

    async def _append_end(self, head: Head, position: int) -> int:
        """Return where the append ends that has the byte at a position."""
        stream_id, _, _, stop = await self._owner(head, position)
        chunk = await self._fetcher.chunk_at(stream_id, position, position + 1)
        end = chunk.append_end(position)
        if end is None:
            ends = await self._fetcher.ends(stream_id, position, stop, 1)
            end = ends[0] if ends else stop
        return min(end, stop)

    async def _bytes(self, head: Head, start: int, end: int) -> bytes:
        pieces: list[bytes] = []
        for stream_id, _, first, stop in await self._parts(head, start, end):
            position = first
            while position < stop:
                chunk: StoredChunk = await self._fetcher.chunk_at(stream_id, position, stop)
                until = min(stop, chunk.finish)
                pieces.append(chunk.data[position - chunk.start : until - chunk.start])
                position = until
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
