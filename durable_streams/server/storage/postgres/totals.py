"""The numbers of streams, bytes and bytes of metadata of all nodes together, for the limits and the figures.

Each node counts what it writes, in rows of its own. The sums are refreshed each second, so a limit may be exceeded by
what the other nodes write in that time. What this node writes is counted at once, except a write without a certain
outcome: if it was made, it is counted by a refresh during which this node writes nothing.
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
    :param is_idle: returns whether no write of this node is queued or in progress.
    :ivar streams: the number of streams, with those that this node is creating.
    :ivar bytes: bytes of data, with those of this node's writes in progress.
    :ivar metadata: bytes of metadata, with those of this node's writes in progress.
    :ivar written: bytes of data that this node has written.
    """

    __slots__ = (
        "_changes",
        "_find_own",
        "_fold",
        "_is_idle",
        "_others",
        "_own",
        "_query",
        "_sum",
        "bytes",
        "metadata",
        "streams",
        "written",
    )

    def __init__(
        self, query: Query, schema: str, own: Callable[[], Iterable[UUID]], is_idle: Callable[[], bool]
    ) -> None:
        self._query = query
        self._find_own = own
        self._is_idle = is_idle
        # How often add() was called.
        self._changes = 0
        self._own: set[str] = set()
        self._others = (0, 0, 0)
        self.streams = self.bytes = self.metadata = self.written = 0
        # The sums of the other nodes, then those of all nodes.
        sums = [
            f"coalesce(sum(n.{column}) FILTER (WHERE {chosen}), 0)::bigint"
            for chosen in ("n.id <> ALL ($1::text[]::uuid[])", "true")
            for column in ("streams", "bytes", "metadata")
        ]
        self._sum = Statement("totals", f"SELECT {', '.join(sums)} FROM {schema}.nodes AS n", (TEXTS,))
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
        """Count a write that is about to begin; or, with negative numbers, subtract a failed write or a removal."""
        self._changes += 1
        self.streams += streams
        self.bytes += size
        self.metadata += metadata

    async def refresh(self) -> None:
        """
        Read the sums of the other nodes. It is called when the storage is opened, and then each second.

        If this node writes nothing meanwhile, the sums of all nodes are taken from the database. This node's own count
        is wrong after a write without a certain outcome that was made, or one that the database has lost.
        """
        self._own.update(map(str, self._find_own()))
        changes = self._changes if self._is_idle() else None
        result = await self._query(self._sum, [texts(sorted(self._own))])
        sums = [to_int(value_of(result, 0, column)) for column in range(6)]
        before, self._others = self._others, (sums[0], sums[1], sums[2])
        if changes == self._changes:
            self.streams, self.bytes, self.metadata = sums[3:]
        else:
            self.add(*(now - then for now, then in zip(self._others, before, strict=True)))

    async def fold(self, gone_after: float = GONE_AFTER) -> bool:
        """
        Add the counters of the nodes that are gone to one row, and remove theirs.

        :param gone_after: the number of seconds after which a node that has written nothing is gone. Nodes that write
            nothing for long must update their row before.
        :returns: whether there were any.
        """
        result = await self._query(self._fold, [float8(gone_after)])
        return bool(result.ntuples)
