"""Delays between attempts, which grow and are random."""

from __future__ import annotations

import random
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from .errors import ClientError, Refusal

#: The first delay and the longest, in seconds. Each is multiplied by a random factor from 0.5 to 1.
_FIRST: Final = 0.2
_LONGEST: Final = 10.0


class Backoff:
    """
    Waits before another attempt.

    :param give_up_after: how long to try again without success, in seconds; None for no end.
    """

    def __init__(self, reactor: IReactorTime, give_up_after: float | None) -> None:
        self._reactor = reactor
        self._give_up_after = give_up_after
        self._failures = 0
        self._failing_since: float | None = None

    def reset(self) -> None:
        """Note a success."""
        self._failures = 0
        self._failing_since = None

    async def wait(self, error: ClientError | None = None) -> None:
        """
        Wait for the next attempt.

        :param error: why the last one failed; None if it only ended too soon.
        :raises ClientError: ``error``, if it is not temporary, or if there is no time left.
        """
        delay = min(_LONGEST, _FIRST * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1)
        self._failures += 1
        if error is not None:
            if not error.temporary:
                raise error
            if isinstance(error, Refusal) and error.retry_after is not None:
                delay = max(delay, error.retry_after)
            now = self._reactor.seconds()
            if self._failing_since is None:
                self._failing_since = now
            if self._give_up_after is not None and now + delay - self._failing_since > self._give_up_after:
                raise error
        await deferLater(self._reactor, delay)
