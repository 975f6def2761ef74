"""A clock whose wall clock can be set without affecting intervals."""

from __future__ import annotations

from twisted.internet.task import Clock
from zope.interface import implementer

from durable_streams.server.clocks import IClock


@implementer(IClock)
class SteppedClock(Clock):
    """
    A Clock with a separate wall clock.

    :ivar offset: how many seconds the wall clock is ahead.
    """

    offset = 0.0

    def wall(self) -> float:
        return self.seconds() + self.offset

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back by so many seconds."""
        self.offset += seconds
