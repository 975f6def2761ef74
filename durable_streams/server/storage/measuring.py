"""Histograms of a storage's commits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from ..model import Distribution


class Measure:
    """
    A histogram: counts values in buckets.

    :param bounds: the upper ends of the buckets, in order.
    """

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total: float = 0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def distribution(self) -> Distribution:
        """Return the distribution so far."""
        return Distribution(self._bounds, tuple(self._counts), self._total)
