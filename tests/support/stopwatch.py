"""Time that passes only when it is spent."""

from __future__ import annotations


class Stopwatch:
    """
    What measures slices of time in a test.

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
        """Let time pass, as work does."""
        self.now += seconds
