"""What a node does by itself: refresh the totals, keep its rows alive, and write the uses of streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...clocks import clock_of
from ...errors import StreamsError
from .lookups import LookUps
from .packing import FLOAT8S, INT8S, TEXTS, float8s, int8s, texts, to_int
from .queries import Query, Statement, value_of
from .repeating import RepeatedTask
from .totals import Totals

#: How often the totals are refreshed, and the node's rows are kept alive, in seconds.
_REFRESH: Final = 1.0
_KEEP_ALIVE: Final = 300.0

#: How often one kind of cleaning is repeated in a second.
_CLEANED_AT_ONCE: Final = 20

# As in the statement of commits, INSERT never inserts here: each row is found by the index, and locked in the order of
# the ids before any is changed.
_USES: Final = """
WITH l AS MATERIALIZED (
    SELECT s.*, u.at
    FROM unnest($1, $2) AS u (id, at),
        LATERAL (SELECT * FROM {schema}.streams AS x WHERE x.id = u.id FOR NO KEY UPDATE SKIP LOCKED) AS s
), w AS (
    INSERT INTO {schema}.streams AS s
        (id, name, incarnation, content_type, config, created_at, updated_at, used_at, closed, base, tail)
    SELECT id, name, incarnation, content_type, config, created_at, updated_at, at, closed, base, tail FROM l
    WHERE l.used_at < l.at AND l.ttl IS NOT NULL AND NOT l.deleted
    ON CONFLICT (id) DO UPDATE SET used_at = greatest(s.used_at, excluded.used_at), version = s.version + 1
    RETURNING s.id, s.name
)
SELECT w.id, w.name FROM w
UNION ALL
SELECT x.id, NULL FROM {schema}.streams AS x WHERE x.id = ANY ($1) AND x.id <> ALL (ARRAY(SELECT l.id FROM l))
"""

_log = Logger()


class UseWriter:
    """
    Writes the last uses of streams.

    :param execute: runs a statement, perhaps twice.
    """

    def __init__(self, execute: Query, schema: str, lookups: LookUps) -> None:
        self._execute = execute
        self._lookups = lookups
        self._statement = Statement("uses", _USES.format(schema=schema), (INT8S, FLOAT8S))

    def write(self, uses: Mapping[int, float]) -> Deferred[frozenset[int]]:
        """
        Write the times of uses by the ids of the streams; earlier ones than those stored change nothing.

        :returns: the ids of the streams that other transactions have locked, whose uses were not written.
        """
        return Deferred.fromCoroutine(self._write(uses))

    async def _write(self, uses: Mapping[int, float]) -> frozenset[int]:
        ids = sorted(uses)
        result = await self._execute(self._statement, [int8s(ids), float8s([uses[each] for each in ids])])
        held: list[int] = []
        for number in range(result.ntuples):
            name = result.get_value(number, 1)
            if name is None:
                held.append(to_int(value_of(result, number, 0)))
            else:
                # Its version has changed, so that nobody removes it for having expired.
                self._lookups.forget(name.decode())
        return frozenset(held)


class Upkeep:
    """
    Refreshes the totals of all nodes each second, keeps the rows of this node alive, and cleans up after all nodes.

    :param rows: returns the ids of the rows.
    :param clean: removes some rows that nothing refers to, and returns whether there may be more.
    :param cleans: returns whether this node has the task to clean up.
    """

    def __init__(
        self,
        execute: Query,
        schema: str,
        totals: Totals,
        rows: Callable[[], list[UUID]],
        clean: Sequence[Callable[[], Awaitable[bool]]],
        cleans: Callable[[], bool],
        clock: IReactorTime,
    ) -> None:
        self._execute = execute
        self._totals = totals
        self._rows = rows
        self._clean = clean
        self._cleans = cleans
        self._clock = clock_of(clock)
        self._touch = Statement(
            "touch-nodes",
            f"UPDATE {schema}.nodes SET seen = {schema}.clock() WHERE id = ANY ($1::text[]::uuid[])",
            (TEXTS,),
        )
        self._refreshing = RepeatedTask(self._refresh, _REFRESH, "The database could not be maintained.", clock)
        self._touched_at = 0.0

    def start(self) -> None:
        """Begin at once."""
        self._touched_at = self._clock.seconds()
        self._refreshing.start()

    async def stop(self) -> None:
        """End, when the statement that runs has ended."""
        await self._refreshing.stop()

    async def _refresh(self) -> None:
        try:
            await self._totals.refresh()
            if self._clock.seconds() - self._touched_at > _KEEP_ALIVE:
                await self._execute(self._touch, [texts([str(row) for row in self._rows()])])
                await self._totals.fold()
                self._touched_at = self._clock.seconds()
            for clean in self._clean:
                # At most so much in a second, so that requests do not wait behind it.
                for _ in range(_CLEANED_AT_ONCE):
                    if self._refreshing.stopped or not self._cleans() or not await clean():
                        break
        except StreamsError as error:
            _log.debug("The database could not be maintained: {error}", error=error)
