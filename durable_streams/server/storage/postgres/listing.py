"""Lists of streams, and records with all that is stored of one."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ...model import StreamRecord, StreamStatus, WriterState
from ...protocol.names import RESERVED_PREFIX
from .append_queue import Uses
from .heads import COLUMNS, WIDTH, Head, decode_head
from .known import check_present
from .packing import INT8, TEXT, int8, to_float, to_int
from .queries import Query, Statement

#: Not more than any name after those that begin with the reserved prefix.
_AFTER_RESERVED: Final = RESERVED_PREFIX[:-1] + chr(ord(RESERVED_PREFIX[-1]) + 1)

#: The maximum number of heads that are read at once: to decode one takes 5 us.
_AT_ONCE: Final = 1_000

_LAST: Final = "\U0010ffff"
_BEFORE_SURROGATES: Final = "\ud7ff"
_AFTER_SURROGATES: Final = "\ue000"

_LIST: Final = f"""
SELECT {COLUMNS} FROM {{schema}}.streams AS s
WHERE s.name >= $1 AND s.name <> $2{{end}} AND NOT s.deleted ORDER BY s.name LIMIT $3
"""

_RECORD: Final = f"""
SELECT {COLUMNS}, r.name, w.writer, w.epoch, w.seq, w.seen FROM {{schema}}.streams AS s
LEFT JOIN {{schema}}.streams AS r ON r.id = s.source_id
LEFT JOIN {{schema}}.writers AS w ON w.stream_id = s.id
WHERE s.name = $1 ORDER BY w.seen, w.writer
"""


class Listing:
    """
    Reads of heads in the order of their names, and of records.

    :param query: runs a statement.
    :param schema: the name of the schema, which needs no quotes.
    """

    def __init__(self, query: Query, schema: str, uses: Uses) -> None:
        self._query = query
        self._uses = uses
        types = (TEXT, TEXT, INT8)
        self._list = Statement("list-streams", _LIST.format(schema=schema, end=""), types)
        self._list_to = Statement("list-range", _LIST.format(schema=schema, end=" AND s.name < $4"), (*types, TEXT))
        self._record = Statement("stream-record", _RECORD.format(schema=schema), (TEXT,))

    async def statuses(self, after: str, max_count: int, prefix: str) -> list[StreamStatus]:
        """Return the metadata of streams in the order of their names; see :meth:`.IStorage.statuses`."""
        found: list[StreamStatus] = []
        end = end_of(prefix)
        # Names of the reserved segment are jumped over, however many there are.
        for start, stop in ((prefix, RESERVED_PREFIX), (max(prefix, _AFTER_RESERVED), None)):
            first_end = stop if end is None else end if stop is None else min(end, stop)
            await self._list_range(max(start, after), after, first_end, max_count, found)
        return found

    async def _list_range(
        self, start: str, after: str, end: str | None, max_count: int, found: list[StreamStatus]
    ) -> None:
        """Add the present streams from a name on, without ``after``, before an end."""
        while len(found) < max_count and (end is None or start < end):
            count = min(max_count - len(found), _AT_ONCE)
            parameters = [start.encode(), after.encode(), int8(count)]
            if end is None:
                result = await self._query(self._list, parameters)
            else:
                result = await self._query(self._list_to, [*parameters, end.encode()])
            heads = [decode_head(result, number) for number in range(result.ntuples)]
            found += [head.status() for head in heads if head.expires(self._last_use(head)) > head.read_at]
            if len(heads) < count:
                return
            start = after = heads[-1].facts.name

    async def record(self, name: str, hidden: bool) -> StreamRecord:
        """Return all that is stored of a stream besides its bytes; see :meth:`.IStorage.record`."""
        result = await self._query(self._record, [name.encode()])
        head = decode_head(result, 0) if result.ntuples else None
        last_use = self._last_use(head)
        if hidden and head is not None and head.forks and head.expires(last_use) <= head.read_at:
            # It is kept for its forks, though no sweep has hidden it yet.
            head = replace(head, deleted=True)
        if not hidden or head is None or not head.deleted:
            head = check_present(head, name, last_use)
        source = result.get_value(0, WIDTH)
        writers: dict[str, WriterState] = {}
        for number in range(result.ntuples):
            writer, epoch, seq, seen = (result.get_value(number, WIDTH + column) for column in range(1, 5))
            if writer is not None and epoch is not None and seq is not None and seen is not None:
                writers[writer.decode()] = WriterState(to_int(epoch), to_int(seq), to_float(seen))
        return head.record(None if source is None else source.decode(), writers, last_use)

    def _last_use(self, head: Head | None) -> float:
        return 0.0 if head is None else self._uses.last_use(head.facts.id)


def end_of(prefix: str) -> str | None:
    """Return the first text after all that begin with a prefix; None if there is none."""
    shorter = prefix.rstrip(_LAST)
    if not shorter:
        return None
    last = shorter[-1]
    return shorter[:-1] + (_AFTER_SURROGATES if last == _BEFORE_SURROGATES else chr(ord(last) + 1))
