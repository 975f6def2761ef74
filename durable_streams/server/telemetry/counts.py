"""Request counters as plain ints; prometheus_client objects would add about 10 % to a request."""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter
from typing import Final

from twisted.internet.defer import Deferred

from ..web.answers import Answer
from ..web.requests import StreamRequest
from ..web.telemetry import Occasion, Telemetry
from .describing import OPERATIONS, operation_of

#: The upper bounds of the duration buckets, in seconds: from appends in memory to long-polls.
DURATIONS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

_SHORT: Final = DURATIONS[0]


class Tally(dict[int, list[int]]):
    """
    The answers to one operation: status -> the number of answers in each bucket of :data:`DURATIONS`, and one above.

    :ivar seconds: the sum of all durations.
    """

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def __missing__(self, status: int) -> list[int]:
        counts = self[status] = [0] * (len(DURATIONS) + 1)
        return counts

    def statuses(self) -> list[tuple[int, int]]:
        """Return the number of answers of each status."""
        return [(status, sum(counts)) for status, counts in sorted(self.items())]

    def durations(self) -> list[int]:
        """Return the number of answers in each duration bucket, over all statuses."""
        return [sum(counts) for counts in zip(*self.values(), strict=True)] or [0] * (len(DURATIONS) + 1)


class RequestCounts(Telemetry):
    """
    Counter of answers, which passes each answer on to another telemetry.

    :param beyond: the telemetry that receives the answers from its ``min_status`` on.
    :ivar operations: the tally of each operation.
    :ivar read_bytes: bytes in the answers to reads that were sent in one piece.
    """

    def __init__(self, beyond: Telemetry) -> None:
        self.operations = {operation: Tally() for operation in OPERATIONS}
        self.read_bytes = 0
        self.headers = beyond.headers
        self.min_status = 0
        self._beyond = beyond
        self._beyond_status = beyond.min_status

    def answered(self, asked: Occasion, number: int, answer: Answer, began_at: float) -> None:
        # This runs up to 100,000 times a second: the first duration bucket is found without a search.
        took = perf_counter() - began_at
        status = answer.status
        if type(asked) is StreamRequest:
            tally = self.operations[asked.operation]
            if status == 200 and asked.method == b"GET":
                body = answer.body
                if type(body) is bytes:
                    self.read_bytes += len(body)
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
