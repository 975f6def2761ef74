"""The values beside the streams: compared and written by groups of calls, each call as a whole or not at all.

A key can be longer than an entry of an index may be. So its row is found by a digest, and pages are read in the order
of the first bytes of the keys. A key that must not exist and is not written gets a row without a value, so that another
node that writes it at the same time does not pass unnoticed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from msgspec import Struct
from twisted.internet.defer import Deferred

from ...errors import StreamsError, Unavailable, ValuesChanged
from ...model import StorageLimits
from ..limits import check_values_room
from ..values import MAX_BYTES_AT_ONCE, MAX_KEYS_AT_ONCE, VALUE_BYTES, check_puts
from .change_queue import ChangeQueue
from .change_statement import FENCE, NODE
from .packing import BYTEA, BYTEAS, INT8, INT8S, byteas, int8, int8s, to_int
from .queries import Query, Statement, value_of
from .refusals import refusal_of
from .totals import Totals

#: How often calls are decided again, since another node has changed their values.
_MAX_MISSES: Final = 30

#: How many of the first bytes of keys are in the index: those of two keys take less than a page.
_INDEXED: Final = 2_000

_FIND: Final = """
SELECT k.digest, k.version, octet_length(k.value), sha256(k.value)
FROM {schema}.key_values AS k WHERE k.digest = ANY ($1::bytea[])
"""

# Rows are found by the index alone: a join whose plan was made while the table was small would read all of it. So the
# second INSERT only updates rows, which are locked.
_WRITE: Final = """
WITH {fence},
l AS MATERIALIZED (
    SELECT u.digest FROM f, unnest($4::bytea[], $5::bigint[]) AS u(digest, version),
        LATERAL (SELECT k.version FROM {schema}.key_values AS k WHERE k.digest = u.digest FOR UPDATE) AS x
    WHERE x.version = u.version
),
o AS MATERIALIZED (SELECT f.now FROM f WHERE (SELECT count(*) FROM l) = cardinality($4)),
i AS (
    INSERT INTO {schema}.key_values (digest, key, value, version)
    SELECT v.digest, v.key, v.value, nextval('{schema}.ids')
    FROM o, unnest($6::bytea[], $7::bytea[], $8::bytea[]) AS v(digest, key, value) RETURNING 1
),
c AS MATERIALIZED (SELECT o.now FROM o WHERE (SELECT count(*) FROM i) = cardinality($6)),
w AS (
    INSERT INTO {schema}.key_values AS k (digest, key, value, version)
    SELECT v.digest, '', v.value, nextval('{schema}.ids') FROM c, unnest($9::bytea[], $10::bytea[]) AS v(digest, value)
    ON CONFLICT (digest) DO UPDATE SET value = excluded.value, version = excluded.version
),
d AS (
    DELETE FROM {schema}.key_values AS k
    WHERE k.digest = ANY (ARRAY(SELECT v.digest FROM c, unnest($11::bytea[]) AS v(digest)))
)
UPDATE {schema}.nodes AS n
SET batch = $3, written = CASE WHEN c.now IS NULL THEN '{{}}'::bigint[] END,
    metadata = n.metadata + CASE WHEN c.now IS NULL THEN 0 ELSE $12 END
FROM f LEFT JOIN c ON true
WHERE n.id = $1 AND n.epoch = $2
RETURNING coalesce(c.now, f.now), n.written
"""

_PAGE: Final = """
SELECT k.key, k.value FROM {schema}.key_values AS k
WHERE substring(k.key, 1, {indexed}) >= substring($1, 1, {indexed}) AND k.key >= $1 AND k.key <> $2
    AND substring(k.key, 1, {indexed}) <= substring($3, 1, {indexed}) AND k.key < $3 AND k.value IS NOT NULL
ORDER BY substring(k.key, 1, {indexed}), k.key LIMIT $4
"""

_FORGET: Final = """
WITH l AS MATERIALIZED (
    SELECT digest FROM {schema}.key_values WHERE value IS NULL ORDER BY digest LIMIT $1 FOR UPDATE SKIP LOCKED
)
DELETE FROM {schema}.key_values WHERE digest = ANY (ARRAY(SELECT digest FROM l)) RETURNING 1
"""


class _State(Struct, frozen=True, gc=False):
    """
    The value of a key: its length and its digest, or None for both.

    :ivar version: that of its row; 0 if there is none.
    :ivar value: the value, if it is to be written.
    """

    version: int
    length: int | None = None
    digest: bytes | None = None
    value: bytes | None = None

    def matches(self, value: bytes | None) -> bool:
        """Return whether this is a value."""
        if value is None or self.length is None:
            return value is None and self.length is None
        return self.length == len(value) and self.digest == sha256(value).digest()


class _Call(Struct):
    """A call that waits, and its answer."""

    puts: Mapping[str, bytes | None]
    expected: Mapping[str, bytes | None]
    size: int
    answer: Deferred[None]


class StoredValues:
    """
    The values of a schema.

    :param query: runs a statement.
    :param queue: runs statements that write.
    :param schema: the name of the schema, which needs no quotes.
    """

    def __init__(self, query: Query, queue: ChangeQueue, schema: str, limits: StorageLimits, totals: Totals) -> None:
        self._query = query
        self._queue = queue
        self._limits = limits
        self._totals = totals
        self._calls: deque[_Call] = deque()
        self._working: Deferred[None] | None = None
        self._find = Statement("find-values", _FIND.format(schema=schema), (BYTEAS,))
        self._write = Statement(
            "write-values",
            _WRITE.format(schema=schema, fence=FENCE.format(schema=schema)),
            (*NODE, BYTEAS, INT8S, BYTEAS, BYTEAS, BYTEAS, BYTEAS, BYTEAS, BYTEAS, INT8),
        )
        self._page = Statement(
            "page-of-values", _PAGE.format(schema=schema, indexed=_INDEXED), (BYTEA, BYTEA, BYTEA, INT8)
        )
        self._forget = Statement("forget-keys", _FORGET.format(schema=schema), (INT8,))

    async def page(self, prefix: str, after: str, max_count: int) -> list[tuple[str, bytes]]:
        """Return values in the order of their keys; see :meth:`.IStorage.values`."""
        if max_count <= 0:
            return []
        start, last = prefix.encode(), after.encode()
        # No byte of UTF-8 is 255.
        end = start[:-1] + bytes([start[-1] + 1]) if start else b"\xff"
        result = await self._query(self._page, [max(start, last), last, end, int8(max_count)])
        found = []
        for number in range(result.ntuples):
            found.append((value_of(result, number, 0).decode(), value_of(result, number, 1)))
        return found

    def write(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> Deferred[None]:
        """
        Compare and write values; see :meth:`.IStorage.write_values`.

        :raises InvalidRequest: a key is malformed, or something is too long.
        """
        size = check_puts(puts, expected)
        call = _Call(dict(puts), dict(expected), size, Deferred())
        self._calls.append(call)
        if self._working is None:
            self._working = Deferred.fromCoroutine(self._work())
            self._working.addBoth(self._stop)
        return call.answer

    def _stop(self, outcome: object) -> object:
        self._working = None
        return outcome

    async def close(self) -> None:
        """Return when all calls are answered. None may come meanwhile."""
        if self._working is not None:
            await self._working

    async def forget_absent(self, max_count: int = 1_000) -> bool:
        """Remove rows of keys without a value; return whether there may be more."""
        result = await self._query(self._forget, [int8(max_count)])
        return bool(result.ntuples == max_count)

    # Groups of calls

    async def _work(self) -> None:
        while self._calls:
            calls = self._next_calls()
            try:
                await self._perform(calls)
            except Exception as error:
                reason = refusal_of(error)
                for call in calls:
                    call.answer.errback(reason)

    def _next_calls(self) -> list[_Call]:
        """Take the first calls, as many as may be written together."""
        calls: list[_Call] = []
        keys = size = 0
        while self._calls:
            call = self._calls[0]
            keys += len(call.puts) + len(call.expected)
            size += call.size
            if calls and (keys > MAX_KEYS_AT_ONCE or size > MAX_BYTES_AT_ONCE):
                break
            calls.append(self._calls.popleft())
        return calls

    async def _perform(self, calls: list[_Call]) -> None:
        for _ in range(_MAX_MISSES):
            keys = {key: sha256(key.encode()).digest() for call in calls for key in (*call.expected, *call.puts)}
            before = await self._read(keys)
            after = dict(before)
            refusals: dict[int, StreamsError] = {}
            growth = 0
            for number, call in enumerate(calls):
                try:
                    growth += self._decide(call, after, growth)
                except StreamsError as error:
                    refusals[number] = error.with_traceback(None)
            if await self._commit(keys, calls, before, after, growth):
                for number, call in enumerate(calls):
                    if number in refusals:
                        call.answer.errback(refusals[number])
                    else:
                        call.answer.callback(None)
                return
        raise Unavailable("The values are changed by too many others at present. Retry later.")

    async def _read(self, keys: Mapping[str, bytes]) -> dict[str, _State]:
        result = await self._query(self._find, [byteas(sorted(keys.values()))])
        rows: dict[bytes, _State] = {}
        for number in range(result.ntuples):
            length = result.get_value(number, 2)
            rows[value_of(result, number, 0)] = _State(
                to_int(value_of(result, number, 1)),
                None if length is None else to_int(length),
                result.get_value(number, 3),
            )
        missing = _State(0)
        return {key: rows.get(digest, missing) for key, digest in keys.items()}

    def _decide(self, call: _Call, states: dict[str, _State], growth: int) -> int:
        """
        Decide a call against the state that those before it leave, and apply it.

        :param growth: by how many bytes the calls before it increase the metadata.
        :returns: by how many bytes this one does.
        """
        for key, value in call.expected.items():
            if not states[key].matches(value):
                raise ValuesChanged(key)
        changes: dict[str, _State] = {}
        size = 0
        for key, value in call.puts.items():
            before = states[key]
            if before.matches(value):
                continue
            after = _State(before.version)
            if value is not None:
                after = _State(before.version, len(value), sha256(value).digest(), value)
            changes[key] = after
            size += _size(key, after) - _size(key, before)
        check_values_room(self._totals.metadata + growth, size, self._limits)
        states.update(changes)
        return size

    async def _commit(
        self,
        keys: Mapping[str, bytes],
        calls: list[_Call],
        before: Mapping[str, _State],
        after: Mapping[str, _State],
        growth: int,
    ) -> bool:
        """Write what has changed, if nobody else has changed any of it; return whether that was so."""
        changed = {key for key, state in after.items() if state is not before[key]}
        if not changed:
            return True
        compared = {key for call in calls for key in call.expected} | changed
        ordered = sorted(compared, key=lambda key: keys[key])
        there = [key for key in ordered if before[key].version]
        new = [key for key in ordered if not before[key].version]
        put = [key for key in there if key in changed and after[key].value is not None]
        removed = [key for key in there if key in changed and after[key].value is None]
        parameters = [
            byteas([keys[key] for key in there]),
            int8s([before[key].version for key in there]),
            byteas([keys[key] for key in new]),
            byteas([key.encode() for key in new]),
            byteas([after[key].value for key in new]),
            byteas([keys[key] for key in put]),
            byteas([after[key].value for key in put]),
            byteas([keys[key] for key in removed]),
            int8(growth),
        ]
        self._totals.add(0, 0, growth)
        written = False
        try:
            written = await self._queue.execute(self._write, parameters, sum(call.size for call in calls))
        finally:
            if not written:
                self._totals.add(0, 0, -growth)
        return written


def _size(key: str, state: _State) -> int:
    """Return how many bytes the limit of metadata counts for a value."""
    return 0 if state.length is None else VALUE_BYTES + len(key.encode()) + state.length
