"""The sequence of the ids and incarnations of streams."""

from __future__ import annotations

from typing import Final

from .packing import INT8, int8
from .queries import Query, Statement

#: Advances the sequence of ids beyond an incarnation. The sequence is not transactional: an advisory lock serializes
#: nodes that advance it, and 100,000 ids are skipped for those that are taken at the same time.
_ADVANCE: Final = """
WITH l AS MATERIALIZED (SELECT pg_advisory_xact_lock('{schema}.ids'::regclass::oid::bigint))
SELECT setval('{schema}.ids', $1 + 100000)
WHERE (SELECT i.last_value FROM {schema}.ids AS i WHERE (SELECT count(*) FROM l) = 1) < $1
"""


class IdSequence:
    """
    The sequence of a schema.

    :param query: runs a statement.
    :param schema: the name of the schema, which needs no quotes.
    """

    def __init__(self, query: Query, schema: str) -> None:
        self._query = query
        self._advance = Statement("advance-ids", _ADVANCE.format(schema=schema), (INT8,))

    async def advance(self, incarnation: int) -> None:
        """Advance the sequence, so that all later ids are greater than an incarnation that is to be installed."""
        await self._query(self._advance, [int8(incarnation)])
