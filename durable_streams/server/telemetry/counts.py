"""Requests, counted: plain numbers, for a request must not cost a tenth more because somebody may ask."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
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


class Tally:
    """
    The answers to one operation.

    :ivar statuses: how many had which status.
    :ivar durations: how many began within which of :data:`DURATIONS`, or after all of them.
    :ivar seconds: how long they took together.
    """

    __slots__ = ("durations", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: defaultdict[int, int] = defaultdict(int)
        self.durations = [0] * (len(DURATIONS) + 1)
        self.seconds = 0.0

    @property
    def successes(self) -> int:
        """How many were not refused."""
        return sum(count for status, count in self.statuses.items() if status < 300)


class RequestCounts(Telemetry):
    """
    Counts answers, and passes them on.

    :param beyond: who else is to hear of those that are of interest.
    :ivar operations: what was counted, by operation.
    :ivar appended_bytes: of the bodies of appends and creations that were accepted.
    :ivar read_bytes: of the answers to reads that were sent in one piece.
    """

    def __init__(self, beyond: Telemetry) -> None:
        self.operations = {operation: Tally() for operation in OPERATIONS}
        self.appended_bytes = 0
        self.read_bytes = 0
        self.headers = beyond.headers
        self._beyond = beyond
        self._least_status = beyond.least_status
        self._appends = self.operations["append"]
        self.least_status = 0

    def answered(self, asked: Asked, number: int, answer: Answer, began_at: float) -> None:
        took = perf_counter() - began_at
        status = answer.status
        if isinstance(asked, StreamRequest) and asked.method == b"POST":
            tally = self._appends
            if status < 300:
                self.appended_bytes += len(asked.body)
        else:
            tally = self._tally(asked, answer)
        tally.statuses[status] += 1
        tally.durations[bisect_left(DURATIONS, took)] += 1
        tally.seconds += took
        if status >= self._least_status:
            self._beyond.answered(asked, number, answer, began_at)

    def _tally(self, asked: Asked, answer: Answer) -> Tally:
        if isinstance(asked, StreamRequest):
            if asked.method == b"GET":
                if answer.status == 200 and isinstance(answer.body, bytes):
                    self.read_bytes += len(answer.body)
            elif answer.status == 201:
                self.appended_bytes += len(asked.body)
        return self.operations[operation_of(asked)]

    def stop(self) -> Deferred[None] | None:
        return self._beyond.stop()
