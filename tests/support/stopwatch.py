"""A time source that a test advances."""

from __future__ import annotations


class Stopwatch:
    """
    A time source for slices of the run queue in a test.

    :param step: how much is spent whenever it is looked at, in seconds.
    :ivar now: the time, in seconds.
    """

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self._step = step

    def __call__(self) -> float:
        self.now += self._step
        return self.now

    def spend(self, seconds: float) -> None:
        """Advance the time, as work does."""
        self.now += seconds
