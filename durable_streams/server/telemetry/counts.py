"""Requests, counted: plain numbers, for a request must not cost a tenth more because somebody may ask."""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter
from typing import Final

from twisted.internet.defer import Deferred

from ..web.answers import Answer
from ..web.requests import StreamRequest
from ..web.telemetry import Asked, Telemetry
from .describing import OPERATIONS, operation_of

#: The classes of durations, in seconds: appends to memory at the one end, long-polls at the other.
DURATIONS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

_SHORT: Final = DURATIONS[0]

#: The queries of most readers that only begin. Their hash is known by now, so they are found at once.
_FIRST_READS: Final = frozenset([b"", b"offset=-1", b"offset=now"])


class Tally(dict[int, list[int]]):
    """
    The answers to one operation, by status: how many began within which of :data:`DURATIONS`, or after all of them.

    :ivar seconds: how long they took together.
    """

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def __missing__(self, status: int) -> list[int]:
        counts = self[status] = [0] * (len(DURATIONS) + 1)
        return counts

    def statuses(self) -> list[tuple[int, int]]:
        """Say how many answers had which status."""
        return [(status, sum(counts)) for status, counts in sorted(self.items())]

    def durations(self) -> list[int]:
        """Say how many answers began within which time, whatever their status."""
        return [sum(counts) for counts in zip(*self.values(), strict=True)] or [0] * (len(DURATIONS) + 1)


class RequestCounts(Telemetry):
    """
    Counts answers, and passes them on.

    :param beyond: who else is to hear of those that are of interest.
    :ivar operations: what was counted, by operation.
    :ivar read_bytes: of the answers to reads that were sent in one piece.
    """

    def __init__(self, beyond: Telemetry) -> None:
        self.operations = {operation: Tally() for operation in OPERATIONS}
        self.read_bytes = 0
        self.headers = beyond.headers
        self.least_status = 0
        self._beyond = beyond
        self._beyond_status = beyond.least_status
        self._appends = self.operations["append"]
        self._reads = self.operations["read"]

    def answered(self, asked: Asked, number: int, answer: Answer, began_at: float) -> None:
        # Appends and reads come here a hundred thousand times a second, and what is written out here is what they pay
        # for: mostly the time, and where it is counted, which a short one is told without a search.
        took = perf_counter() - began_at
        status = answer.status
        if type(asked) is StreamRequest:
            method = asked.method
            if method == b"POST":
                tally = self._appends
            elif method == b"GET":
                query = asked.query
                # To ask "in" of bytes takes several times as long as to find.
                plain = query in _FIRST_READS or query.find(b"live=") < 0
                tally = self._reads if plain else self.operations[operation_of(asked)]
                body = answer.body
                if status == 200 and type(body) is bytes:
                    self.read_bytes += len(body)
            else:
                tally = self.operations[operation_of(asked)]
        else:
            tally = self.operations[operation_of(asked)]
        tally.seconds += took
        if took <= _SHORT:
            tally[status][0] += 1
        else:
            tally[status][bisect_left(DURATIONS, took)] += 1
        if status >= self._beyond_status:
            self._beyond.answered(asked, number, answer, began_at)

    def stop(self) -> Deferred[None] | None:
        return self._beyond.stop()
