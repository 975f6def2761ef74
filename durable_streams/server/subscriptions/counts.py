"""Counters of subscriptions, for metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from ..model import Distribution

#: The upper bounds of the buckets of durations, in seconds.
DURATIONS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


class Durations:
    """The number of durations in each bucket of :data:`DURATIONS`, and their sum in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(DURATIONS) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(DURATIONS, seconds)] += 1
        self._total += seconds

    def distribution(self) -> Distribution:
        """Return the counts so far."""
        return Distribution(DURATIONS, tuple(self._counts), self._total)


class SubscriptionCounts:
    """
    What has happened to subscriptions since the start.

    :ivar happened: transitions by name; see :attr:`.Decision.happened`.
    :ivar deliveries: delivery attempts by type and outcome: ``done``, ``accepted``, ``failed``, ``dropped``.
    :ivar retries: attempts after a failed one.
    :ivar claims: claims by outcome: ``claimed``, ``already_claimed``, ``no_pending_work``.
    :ivar fenced: requests whose wake had ended.
    :ivar delivery_seconds: durations of webhook requests.
    :ivar sweep_seconds: durations of sweeps.
    """

    def __init__(self) -> None:
        self.happened: Counter[str] = Counter()
        self.deliveries: Counter[tuple[str, str]] = Counter()
        self.claims: Counter[str] = Counter()
        self.retries = 0
        self.fenced = 0
        self.delivery_seconds = Durations()
        self.sweep_seconds = Durations()
