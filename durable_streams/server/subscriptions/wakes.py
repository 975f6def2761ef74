"""The life of a wake: attempts, delivery, end, and the times between them."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from .model import Draw, State, SubscriptionConfig, Wake

#: After so many wakes in a row without progress, the next ones are spaced by the retry schedule.
FRUITLESS_WAKES: Final = 3

_MAX_DELAY: Final = 60.0

#: The longest time until an attempt or a scheduled wake: the maximum delay with its jitter.
LONGEST_DELAY: Final = 1.2 * _MAX_DELAY


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


def due(config: SubscriptionConfig, wake: Wake, now: float) -> Wake:
    """Return a new wake whose first attempt is due now, and is another node's to make."""
    lease_until = now + config.lease_seconds if config.type == "webhook" else None
    return replace(wake, lease_until=lease_until, next_attempt_at=now)


def delivered(wake: Wake, lease_until: float | None) -> Wake:
    """Return the wake with its delivery complete."""
    return replace(wake, lease_until=lease_until, delivered=True, failures=0, attempting=False, next_attempt_at=None)


def ended(state: State, now: float, draw: Draw) -> State:
    """Return the state after the end of its wake; after several without progress, the next one is scheduled."""
    fruitless = 0 if state.wake is None or state.wake.progress else state.fruitless + 1
    spaced = fruitless - FRUITLESS_WAKES + 1
    scheduled_at = now + retry_delay(spaced, draw.jitter) if spaced > 0 else None
    return State(state.generation, None, fruitless, scheduled_at)


def within_reach(config: SubscriptionConfig, state: State, now: float, limit: float) -> State:
    """
    Return the state without deadlines that are later than any that is set now: the clock was set back since.

    :param limit: the time limit of an attempt, in seconds.
    """
    wake = state.wake
    if wake is None:
        if state.scheduled_at is not None and state.scheduled_at > now + LONGEST_DELAY:
            return replace(state, scheduled_at=now + LONGEST_DELAY)
        return state
    lease_end, attempt_at = now + config.lease_seconds, now + max(LONGEST_DELAY, limit + 1)
    if wake.lease_until is not None and wake.lease_until > lease_end:
        wake = replace(wake, lease_until=lease_end)
    if wake.next_attempt_at is not None and wake.next_attempt_at > attempt_at:
        wake = replace(wake, next_attempt_at=attempt_at)
    return state if wake is state.wake else replace(state, wake=wake)
