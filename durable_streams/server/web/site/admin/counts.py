"""Totals for operators: streams, bytes, connections and readers."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ....streams import Streams
from ...answers import Answer
from ...live import Live
from ...pages import PageRequest
from ..app import Routes
from .heads import JSON_HEAD
from .listing import Selection, select
from .query import Query


class StatusCounts(Struct):
    """The number of streams of each status."""

    open: int = 0
    closed: int = 0


class Counts(Struct):
    """
    The totals.

    :ivar streams: including deleted ones that are kept for their forks.
    :ivar bytes: of data, as the limits count them.
    :ivar connections: of clients, including that of the request; None if somebody else has them.
    :ivar status: only if it is asked for, since each stream is looked at.
    """

    streams: int
    bytes: int
    metadata_bytes: int
    connections: int | None
    tails: int
    long_polls: int
    status: StatusCounts | UnsetType = UNSET


def add_counts(
    app: Routes, base_path: str, streams: Streams, live: Live, connections: Callable[[], int | None]
) -> None:
    """
    Add the page of totals, which is at ``/counts`` below the base path.

    :param connections: returns how many connections there are.
    """

    @app.route(f"{base_path}/counts", methods=["GET", "HEAD"])
    async def counts(request: PageRequest) -> Answer:
        """Answer with a JSON object."""
        by_status = Query(request, ("by",)).word("by", ("status",))
        status = await _count(streams) if by_status else UNSET
        figures, readers = streams.figures(), live.readers()
        totals = Counts(
            figures.streams, figures.bytes, figures.metadata_bytes, connections(), readers.tails, readers.polls, status
        )
        return Answer(200, JSON_HEAD, msgspec.json.encode(totals))


async def _count(streams: Streams) -> StatusCounts:
    counts = StatusCounts()
    async for page in select(streams, Selection()):
        closed = sum(status.closed for status in page)
        counts.closed += closed
        counts.open += len(page) - closed
        await streams.turns.turn()
    return counts
