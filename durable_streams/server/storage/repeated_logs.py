"""Log lines about one place, which recur with each read of it, are written once a minute."""

from __future__ import annotations

from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime

from ..clocks import clock_of

#: How often one place is logged, in seconds, and how many places are remembered for that.
_INTERVAL: Final = 60.0
_MAX_PLACES: Final = 1000


class RepeatedLogs:
    """The times at which places were logged."""

    __slots__ = ("_clock", "_logged_at")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock_of(clock)
        self._logged_at: dict[str, float] = {}

    def is_due(self, place: str) -> bool:
        """Return whether a place is to be logged now, and record that it is."""
        now = self._clock.seconds()
        logged_at = self._logged_at.get(place, -inf)
        if logged_at <= now < logged_at + _INTERVAL:
            return False
        if len(self._logged_at) >= _MAX_PLACES:
            self._logged_at.clear()
        self._logged_at[place] = now
        return True
