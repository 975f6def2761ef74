"""Counters of subscriptions, for metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

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
    :ivar deliveries: delivery attempts by type and outcome: ``done``, ``accepted``, ``failed``.
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


class SubscriptionFigures(Struct, frozen=True):
    """
    The figures of the service, for metrics.

    :ivar subscriptions: the number of subscriptions by type and status.
    :ivar pending_bytes: bytes of linked streams that are not acknowledged; as of the last sweep.
    :ivar oldest_wake_seconds: the age of the oldest wake that no worker has; as of the last sweep.
    :ivar waiting: deliveries that wait for a slot.
    :ivar running: deliveries that run.
    :ivar failures: failed webhook requests by reason; see :class:`.FailureReason`.
    :ivar partitions: the number of partitions that this node holds; None if no other node shares the storage.
    """

    subscriptions: Mapping[tuple[str, str], int]
    links: int
    pending_bytes: int
    oldest_wake_seconds: float
    waiting: int
    running: int
    counts: SubscriptionCounts
    failures: Mapping[str, int] = {}
    partitions: int | None = None


class Lag:
    """
    What is pending, added up during a sweep.

    :ivar pending_bytes: see :class:`SubscriptionFigures`.
    :ivar oldest: when the oldest wake was issued that no worker has; None if there is none.
    """

    __slots__ = ("oldest", "pending_bytes")

    def __init__(self) -> None:
        self.pending_bytes = 0
        self.oldest: float | None = None
