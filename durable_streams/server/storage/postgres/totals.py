"""The numbers of streams, bytes and bytes of metadata of all nodes together, for the limits and the figures.

Each node counts what it writes, in its own row. The sums are refreshed each second, so a limit may be exceeded by what
the other nodes write in that time. What this node writes is counted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

from .packing import FLOAT8, TEXTS, float8, texts, to_int
from .queries import Query, Statement, value_of

#: The row of the nodes that are gone.
GONE: Final = "00000000-0000-0000-0000-000000000000"

#: After how many seconds without a sign of life the row of a node is removed. A node whose row is missing cannot find
#: out whether an uncertain commit has landed, so this is longer than anybody waits for one.
GONE_AFTER: Final = 86_400.0


class Totals:
    """
    The totals of all nodes.

    :param query: runs a statement.
    :param schema: the name of the schema, which needs no quotes.
    :param own: returns the ids of the rows that count the writes of this node. A row of an earlier id still does.
    :ivar streams: the number of streams, with those that this node is creating.
    :ivar bytes: bytes of data, with those of this node's writes in progress.
    :ivar metadata: bytes of metadata, with those of this node's writes in progress.
    :ivar written: bytes of data that this node has written.
    """

    __slots__ = ("_find_own", "_fold", "_others", "_own", "_query", "_sum", "bytes", "metadata", "streams", "written")

    def __init__(self, query: Query, schema: str, own: Callable[[], Iterable[UUID]]) -> None:
        self._query = query
        self._find_own = own
        self._own: set[str] = set()
        self._others = (0, 0, 0)
        self.streams = self.bytes = self.metadata = self.written = 0
        self._sum = Statement(
            "totals",
            "SELECT coalesce(sum(n.streams), 0)::bigint, coalesce(sum(n.bytes), 0)::bigint, "
            f"coalesce(sum(n.metadata), 0)::bigint FROM {schema}.nodes AS n WHERE n.id <> ALL ($1::text[]::uuid[])",
            (TEXTS,),
        )
        self._fold = Statement(
            "fold-nodes",
            f"""WITH g AS (
    DELETE FROM {schema}.nodes WHERE id IN (
        SELECT n.id FROM {schema}.nodes AS n WHERE n.seen < {schema}.clock() - $1 AND n.id <> '{GONE}'
        ORDER BY n.id FOR UPDATE SKIP LOCKED
    ) RETURNING streams, bytes, metadata
)
INSERT INTO {schema}.nodes AS n (id, seen, streams, bytes, metadata)
SELECT '{GONE}', {schema}.clock(), sum(g.streams), sum(g.bytes), sum(g.metadata) FROM g HAVING count(*) > 0
ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, streams = n.streams + excluded.streams,
    bytes = n.bytes + excluded.bytes, metadata = n.metadata + excluded.metadata
RETURNING 1""",
            (FLOAT8,),
        )

    def add(self, streams: int, size: int, metadata: int) -> None:
        """Count a write that is about to begin; or, with numbers that are negative, one that has ended."""
        self.streams += streams
        self.bytes += size
        self.metadata += metadata

    async def refresh(self) -> None:
        """Read the sums of the other nodes. It is called when the storage is opened, and then each second."""
        self._own.update(map(str, self._find_own()))
        result = await self._query(self._sum, [texts(sorted(self._own))])
        others = (
            to_int(value_of(result, 0, 0)),
            to_int(value_of(result, 0, 1)),
            to_int(value_of(result, 0, 2)),
        )
        before, self._others = self._others, others
        self.add(others[0] - before[0], others[1] - before[1], others[2] - before[2])

    async def fold(self, gone_after: float = GONE_AFTER) -> bool:
        """
        Add the counters of the nodes that are gone to one row, and remove theirs.

        :param gone_after: the number of seconds after which a node that has written nothing is gone. Nodes that write
            nothing for long must update their row before.
        :returns: whether there were any.
        """
        result = await self._query(self._fold, [float8(gone_after)])
        return bool(result.ntuples)
