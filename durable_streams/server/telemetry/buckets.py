"""The buckets of histograms in Prometheus' form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.utils import floatToGoString

Buckets: TypeAlias = "list[tuple[str, float]]"


def buckets(bounds: Sequence[float], counts: Sequence[int]) -> Buckets:
    """Return the cumulative count of each bucket, by the text of its upper bound."""
    names = [*map(floatToGoString, bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))
