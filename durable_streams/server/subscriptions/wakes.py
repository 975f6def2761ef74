"""The life of a wake: attempts, delivery, end, and the times between them."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from .model import Draw, State, SubscriptionConfig, Wake

#: After so many wakes in a row without progress, the next ones are spaced by the retry schedule.
FRUITLESS_WAKES: Final = 3

_MAX_DELAY: Final = 60.0


def retry_delay(failures: int, jitter: float) -> float:
    """
    Return the seconds between a failure and the next attempt: 1, 2, 4 ... 60, times the jitter.

    :param failures: the failures in a row, at least 1.
    """
    return jitter * min(2.0 ** min(failures - 1, 6), _MAX_DELAY)


def attempting(config: SubscriptionConfig, wake: Wake, now: float, limit: float) -> Wake:
    """
    Return the wake while an attempt runs: if it has no outcome, the next one is due a second after its time limit.

    :param limit: the time limit of the attempt, in seconds.
    """
    lease_until = now + config.lease_seconds if config.type == "webhook" else None
    return replace(wake, lease_until=lease_until, attempting=True, next_attempt_at=now + limit + 1)


def delivered(wake: Wake, lease_until: float | None) -> Wake:
    """Return the wake with its delivery complete."""
    return replace(wake, lease_until=lease_until, delivered=True, failures=0, attempting=False, next_attempt_at=None)


def ended(state: State, now: float, draw: Draw) -> State:
    """Return the state after the end of its wake; after several without progress, the next one is scheduled."""
    fruitless = 0 if state.wake is None or state.wake.progress else state.fruitless + 1
    spaced = fruitless - FRUITLESS_WAKES + 1
    scheduled_at = now + retry_delay(spaced, draw.jitter) if spaced > 0 else None
    return State(state.generation, None, fruitless, scheduled_at)
