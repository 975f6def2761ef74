"""Leases: rows that say until when a node does a task that only one node may do, such as the sweep.

A lease has a fencing epoch, which increases each time that the lease changes its holder. A node counts the time of its
leases by the steady clock, from before it asked for them. So it stops before another node can take over, even if its
process was suspended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...clocks import clock_of
from ...errors import StreamsError
from .packing import FLOAT8, INT8, TEXT, TEXTS, UUID, float8, int8, texts, to_float, to_int
from .queries import ConnectionLost, Query, QueryFailed, Statement, value_of
from .repeating import RepeatedTask

#: How long a lease lasts without renewal, in seconds, and how often it is renewed.
LEASE_SECONDS: Final = 10.0
_INTERVAL: Final = LEASE_SECONDS / 4

#: How long the row of a node that has ended is kept, in seconds.
_KEPT: Final = 3600.0

_NODES: Final = "node/"
_MEMBERS: Final = "member/"

_log = Logger()


class Leases:
    """
    The leases of one node.

    Tasks come in groups of equal ones, numbered from 0, such as the partitions of a set. A node takes free leases of a
    group up to its share: the number of tasks divided by the number of live nodes, rounded up. It releases those above
    its share, so that a new node gets its share, too. All nodes have the groups of ``groups``; others are divided among
    those that have joined them (:meth:`join`).

    :param query: runs a statement.
    :param schema: the name of the schema, which needs no quotes.
    :param node: the UUID of this node, as bytes.
    :param groups: the number of tasks in each group, by the group's name.
    :ivar changed: is called after leases were taken, released or lost, and after the number of members has changed.
    :ivar nodes: the number of live nodes at the last renewal.
    :ivar ahead: by how many seconds the database's clock is ahead of this node's steady clock, with an error of at
        most half of the time of a query.
    """

    def __init__(
        self,
        query: Query,
        schema: str,
        node: bytes,
        clock: IReactorTime,
        groups: dict[str, int],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._query = query
        self._node = node
        self._own_name = f"{_NODES}{node.hex()}"
        self._clock = clock_of(clock)
        self._groups = dict(groups)
        self.changed = changed
        # Joined group -> the number of its members at the last renewal.
        self._members: dict[str, int] = {}
        # Lease name -> its epoch, and when this node stops to rely on it.
        self._held: dict[str, tuple[int, float]] = {}
        self._renewing = RepeatedTask(self._renew, _INTERVAL, "Renewing leases failed.", clock)
        self.nodes = 1
        self.ahead = 0.0
        self._beat = Statement("lease-beat", _BEAT.format(schema), (TEXTS, UUID, FLOAT8))
        self._nodes = Statement("lease-nodes", _COUNT.format(schema), (TEXT,))
        self._make = Statement("lease-make", _MAKE.format(schema), (TEXTS, UUID))
        self._claim = Statement("lease-claim", _CLAIM.format(schema), (TEXTS, UUID, INT8, FLOAT8))
        self._release = Statement("lease-release", _RELEASE.format(schema), (TEXTS, UUID))
        self._clean = Statement("lease-clean", _CLEAN.format(schema), (FLOAT8,))

    def epoch(self, group: str, number: int = 0) -> int | None:
        """Return the fencing epoch of a task's lease, or None if this node does not hold it now."""
        held = self._held.get(_name(group, number))
        return None if held is None or held[1] <= self._clock.seconds() else held[0]

    def held(self, group: str) -> list[int]:
        """Return the numbers of the tasks of a group whose leases this node holds now."""
        return [number for number in range(self._groups[group]) if self.epoch(group, number) is not None]

    def members(self, group: str) -> int:
        """Return the number of nodes that share a group, as of the last renewal."""
        return self._members.get(group, self.nodes)

    def start(self) -> None:
        """Take leases now, and renew them from now on."""
        self._renewing.start()

    def join(self, group: str, count: int) -> None:
        """
        Take part in a group of tasks.

        :param count: the number of tasks, the same for all members.
        """
        self._groups[group] = count
        self._members[group] = 1
        self.renew_soon()

    async def leave(self, group: str) -> None:
        """Release the leases of a group that was joined, and take no more of them."""
        count = self._groups.pop(group, 0)
        names = [_name(group, number) for number in range(count)]
        self._members.pop(group, None)
        self._held = {name: held for name, held in self._held.items() if name not in names}
        await self._renewing.wait()
        if count:
            await self._release_all([*names, self._member(group)])

    def renew_soon(self) -> None:
        """Renew the leases now, or again when the renewal that runs has ended."""
        self._renewing.run_soon()

    def _member(self, group: str) -> str:
        return f"{_MEMBERS}{group}/{self._node.hex()}"

    async def stop(self) -> None:
        """Release all leases, so that another node can take over at once. If the database is away, they run out."""
        await self._renewing.stop()
        names = [*self._held, self._own_name, *(self._member(group) for group in self._members)]
        self._held.clear()
        await self._release_all(names)

    async def _release_all(self, names: Sequence[str]) -> None:
        try:
            await self._query(self._release, (texts(names), self._node))
        except (QueryFailed, ConnectionLost, StreamsError) as error:
            _log.info("The leases of this node were not released, and run out: {reason}", reason=error)

    async def _renew(self) -> None:
        before = set(self._held), dict(self._members)
        try:
            await self._beat_all()
            self.nodes = await self._count(_NODES)
            for group, count in list(self._groups.items()):
                if group in self._members:
                    self._members[group] = await self._count(f"{_MEMBERS}{group}/")
                await self._renew_group(group, [_name(group, number) for number in range(count)])
            await self._query(self._clean, (float8(_KEPT),))
        except (QueryFailed, ConnectionLost, StreamsError) as error:
            _log.warn("Leases were not renewed, which will be tried again: {reason}", reason=error)
        now = self._clock.seconds()
        self._held = {name: held for name, held in self._held.items() if held[1] > now}
        if (set(self._held), self._members) != before:
            self.changed()

    async def _beat_all(self) -> None:
        """Renew the rows of this node, and note the database's time."""
        names = sorted([self._own_name, *(self._member(group) for group in self._members)])
        asked_at = self._clock.seconds()
        result = await self._query(self._beat, (texts(names), self._node, float8(LEASE_SECONDS)))
        now = to_float(value_of(result, 0, 0))
        # The answer was made between the two moments.
        self.ahead = min(max(self.ahead, now - self._clock.seconds()), now - asked_at)

    async def _count(self, prefix: str) -> int:
        return max(1, to_int(value_of(await self._query(self._nodes, (prefix.encode(),)), 0, 0)))

    async def _renew_group(self, group: str, names: Sequence[str]) -> None:
        share = ceil(len(names) / self.members(group))
        asked_at = self._clock.seconds()
        params = (texts(names), self._node, int8(share), float8(LEASE_SECONDS))
        rows = await self._query(self._claim, params)
        if not rows.ntuples and not any(name in self._held for name in names):
            # The first node of all makes the rows.
            await self._query(self._make, (texts(names), self._node))
            rows = await self._query(self._claim, params)
        claimed = {
            value_of(rows, number, 0).decode(): (to_int(value_of(rows, number, 1)), asked_at + LEASE_SECONDS)
            for number in range(rows.ntuples)
        }
        if group not in self._groups:
            # It was left meanwhile, and its leases are released when this renewal has ended.
            return
        surplus = [name for name in names if name in self._held and name not in claimed]
        self._held = {name: held for name, held in self._held.items() if name not in names} | claimed
        if surplus:
            await self._query(self._release, (texts(surplus), self._node))


def _name(group: str, number: int) -> str:
    return f"{group}/{number}"


# The database's clock decides when a lease has run out. Rows are locked in the order of their names; a row that another
# node has locked is left to it.

_BEAT: Final = (
    "INSERT INTO {0}.leases (name, node, epoch, until) SELECT n, $2, 1, {0}.clock() + $3 FROM unnest($1) n ORDER BY n "
    "ON CONFLICT (name) DO UPDATE SET until = excluded.until RETURNING {0}.clock()"
)
_COUNT: Final = "SELECT count(*) FROM {0}.leases WHERE starts_with(name, $1) AND until > {0}.clock()"
_MAKE: Final = (
    "INSERT INTO {0}.leases (name, node, epoch, until) SELECT n, $2, 0, 0 FROM unnest($1) n ORDER BY n "
    "ON CONFLICT (name) DO NOTHING"
)
_CLAIM: Final = """
WITH mine AS MATERIALIZED (
    SELECT name FROM {0}.leases WHERE name = ANY($1) AND node = $2 AND until > {0}.clock()
    ORDER BY name LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
), free AS MATERIALIZED (
    SELECT name FROM {0}.leases WHERE name = ANY($1) AND until <= {0}.clock()
    ORDER BY name LIMIT greatest(0, $3 - (SELECT count(*) FROM mine)) FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE {0}.leases l
SET node = $2, epoch = l.epoch + (u.is_new)::int, until = {0}.clock() + $4
FROM (SELECT name, false AS is_new FROM mine UNION ALL SELECT name, true FROM free) u
WHERE l.name = u.name RETURNING l.name, l.epoch
"""
_RELEASE: Final = "UPDATE {0}.leases SET until = 0 WHERE name = ANY($1) AND node = $2"
_CLEAN: Final = "DELETE FROM {0}.leases WHERE (name LIKE 'node/%' OR name LIKE 'member/%') AND until < {0}.clock() - $1"
