"""The collection of the metrics of all workers by the supervisor."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ...telemetry.metrics import MAX_AGE
from .messages import Message, MetricsAnswer, MetricsRequest
from .metrics import combine

#: How long the metrics of a worker are waited for, in seconds.
PATIENCE: Final = 1.0


class Source(Protocol):
    """A worker."""

    number: int
    serves: bool
    restarts: int

    def send(self, message: Message, /) -> None:
        """Send a message to its process."""


class MetricsCollector:
    """
    Collects the metrics of all workers, once for all who ask meanwhile.

    :param clock: limits the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._number = 0
        self._waiting: list[Deferred[str]] = []
        self._texts: dict[int, str | None] = {}
        self._missing: set[int] = set()
        self._restarts: dict[int, int] = {}
        self._too_late: IDelayedCall | None = None
        self._collected = ""
        self._collected_at = -inf

    def collect(self, workers: Sequence[Source]) -> Deferred[str]:
        """
        Collect the metrics of all workers that serve.

        :returns: fires with the combined text after :data:`PATIENCE` at the latest; the last one if it is not older
            than :data:`.metrics.MAX_AGE`.
        """
        if not self._waiting and self._clock.seconds() - self._collected_at < MAX_AGE:
            return succeed(self._collected)
        waiting: Deferred[str] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) > 1:
            return waiting
        self._number += 1
        self._texts = dict.fromkeys((worker.number for worker in workers), None)
        self._restarts = {worker.number: worker.restarts for worker in workers}
        self._missing = {worker.number for worker in workers if worker.serves}
        self._too_late = self._clock.callLater(PATIENCE, self._finish)
        for worker in workers:
            if worker.serves:
                worker.send(MetricsRequest(self._number))
        self._check_complete()
        return waiting

    def answered(self, number: int, answer: MetricsAnswer) -> None:
        """Take the metrics of a worker; those that come too late are ignored."""
        if answer.number == self._number and number in self._missing:
            self._texts[number] = answer.text
            self.lost(number)

    def lost(self, number: int) -> None:
        """Do not wait for a worker."""
        if number in self._missing:
            self._missing.discard(number)
            self._check_complete()

    def _check_complete(self) -> None:
        if self._waiting and not self._missing:
            self._finish()

    def _finish(self) -> None:
        if self._too_late is not None and self._too_late.active():
            self._too_late.cancel()
        self._missing = set()
        text = self._collected = combine(self._texts, self._restarts)
        self._collected_at = self._clock.seconds()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(text)
