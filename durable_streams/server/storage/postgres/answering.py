"""Answers to many callers of one statement, in several turns of the reactor: 1,000 answers to requests take 80 ms."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Final

from twisted.internet.interfaces import IReactorTime

#: How many answers are given in the turn of the reactor in which they become known: those of a whole batch of look-ups,
#: so that one commit writes the appends that waited for it. And how many in each later turn.
AT_ONCE: Final = 256
_IN_A_TURN: Final = 64


class Answers:
    """Gives answers in bounded numbers, and lets the reactor do other work between them."""

    def __init__(self, clock: IReactorTime) -> None:
        self._call_later = clock.callLater
        self._waiting: deque[Generator[None, None, None]] = deque()

    def give(self, steps: Generator[None, None, None]) -> None:
        """
        Give answers, the first ones now.

        :param steps: gives one answer with each step.
        """
        if _has_more(steps, AT_ONCE):
            self._waiting.append(steps)
            if len(self._waiting) == 1:
                self._call_later(0, self._go_on)

    def _go_on(self) -> None:
        if not _has_more(self._waiting[0], _IN_A_TURN):
            self._waiting.popleft()
        if self._waiting:
            self._call_later(0, self._go_on)


def _has_more(steps: Generator[None, None, None], count: int) -> bool:
    """Make a number of steps, and return False if there are no more."""
    try:
        for _ in range(count):
            next(steps)
    except StopIteration:
        return False
    return True
