"""What nodes read to find out what others have changed: values by key, and streams that differ from what they know."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from ...model import KnownTail
from .packing import BYTEA, BYTEAS, INT8, INT8S, TEXTS, byteas, int8, int8s, texts, to_int
from .queries import Query, Statement, value_of

#: How many ids and names one statement returns.
_PAGE: Final = 5_000

_VALUES: Final = """
SELECT k.key, k.value FROM {schema}.key_values AS k WHERE k.digest = ANY ($1::bytea[]) AND k.value IS NOT NULL
"""

# The condition on the first bytes is the one that the index has.
_COUNT: Final = """
SELECT count(*) FROM {schema}.key_values AS k
WHERE substring(k.key, 1, 2000) >= $1 AND substring(k.key, 1, 2000) < $2 AND k.value IS NOT NULL
"""

# OFFSET 0 keeps the planner from joining in another way than by the index of the names.
_CHANGED: Final = """
SELECT u.number, s.id, s.incarnation, s.tail
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS u (name, id, tail, number)
LEFT JOIN LATERAL (
    SELECT x.id, x.incarnation, x.tail FROM {schema}.streams AS x WHERE x.name = u.name AND NOT x.deleted OFFSET 0
) AS s ON true
WHERE coalesce(s.id, 0) <> u.id OR coalesce(s.tail, 0) <> u.tail
"""

_LAST_ID: Final = "SELECT coalesce(max(id), 0) FROM {schema}.streams"

_CREATED: Final = """
SELECT s.id, s.name FROM {schema}.streams AS s WHERE s.id > $1 AND NOT s.deleted ORDER BY s.id LIMIT $2
"""


class SharedReads:
    """
    Reads for the :class:`.ISharedStorage`.

    :param query: runs a statement.
    :param schema: the name of the schema, which needs no quotes.
    """

    def __init__(self, query: Query, schema: str) -> None:
        self._query = query
        self._values = Statement("values-by-key", _VALUES.format(schema=schema), (BYTEAS,))
        self._count = Statement("count-values", _COUNT.format(schema=schema), (BYTEA, BYTEA))
        self._changed = Statement("changed-tails", _CHANGED.format(schema=schema), (TEXTS, INT8S, INT8S))
        self._last = Statement("last-id", _LAST_ID.format(schema=schema))
        self._created = Statement("created-after", _CREATED.format(schema=schema), (INT8, INT8))

    async def read_values(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See :meth:`.ISharedStorage.read_values`."""
        result = await self._query(self._values, [byteas([sha256(key.encode()).digest() for key in keys])])
        return {value_of(result, number, 0).decode(): value_of(result, number, 1) for number in range(result.ntuples)}

    async def count_values(self, prefix: str) -> int:
        """See :meth:`.ISharedStorage.count_values`."""
        start = prefix.encode()
        # No byte of UTF-8 is 255.
        result = await self._query(self._count, [start, start + b"\xff"])
        return to_int(value_of(result, 0, 0))

    async def changed_tails(self, known: Sequence[KnownTail]) -> list[KnownTail]:
        """See :meth:`.ISharedStorage.changed_tails`."""
        parameters = [
            texts([each.name for each in known]),
            int8s([each.stream_id for each in known]),
            int8s([each.tail for each in known]),
        ]
        result = await self._query(self._changed, parameters)
        found = []
        for row in range(result.ntuples):
            name = known[to_int(value_of(result, row, 0)) - 1].name
            values = (result.get_value(row, column) for column in range(1, 4))
            found.append(KnownTail(name, *(0 if value is None else to_int(value) for value in values)))
        return found

    async def last_id(self) -> int:
        """See :meth:`.ISharedStorage.last_id`."""
        return to_int(value_of(await self._query(self._last, []), 0, 0))

    async def created_after(self, stream_id: int) -> list[tuple[int, str]]:
        """See :meth:`.ISharedStorage.created_after`."""
        found: list[tuple[int, str]] = []
        while True:
            result = await self._query(self._created, [int8(stream_id), int8(_PAGE)])
            for number in range(result.ntuples):
                stream_id = to_int(value_of(result, number, 0))
                found.append((stream_id, value_of(result, number, 1).decode()))
            if result.ntuples < _PAGE:
                return found
