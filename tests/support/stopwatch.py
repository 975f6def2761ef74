"""Time that passes only when it is spent."""

from __future__ import annotations


class Stopwatch:
    """
    What measures slices of time in a test.

    :ivar now: the time, in seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        """Let time pass, as work does."""
        self.now += seconds
