"""Caches of the results of authentication: principals until they expire, refusals for some seconds."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Final

from twisted.internet.interfaces import IDelayedCall

from ..clocks import IClock
from .principal import Principal

#: The longest time between two looks for expired principals, in seconds: so soon a step of the wall clock is noticed.
_INTERVAL: Final = 1.0

#: What an entry takes in memory besides its key, in bytes; claims take about as much as the token that has them.
_ENTRY_SIZE: Final = 512


def size_of_key(key: Hashable) -> int:
    """Return about how many bytes an entry takes; a key that is neither bytes nor text is a client certificate."""
    return _ENTRY_SIZE + (2 * len(key) if isinstance(key, bytes | str) else _ENTRY_SIZE)


class PrincipalCache:
    """
    Principals by the credentials that they were made of.

    An entry is removed when its principal expires, after ``lifetime`` seconds, or, oldest first, when there are too
    many. A delayed call removes expired entries, so that a look-up need not read a clock. It is pending only while
    there are entries.

    :param clock: gives the wall clock for the expiry of principals, and steady seconds for the lifetime of entries.
    :param max_entries: the largest number of entries.
    :param max_bytes: about how much memory they may take, in bytes.
    :param lifetime: of an entry, in seconds.
    :ivar principals: the entries, to look up; it stays the same object.
    """

    def __init__(self, clock: IClock, max_entries: int, max_bytes: int, lifetime: float) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lifetime = lifetime
        self.principals: dict[Hashable, Principal] = {}
        self._ends: dict[Hashable, float] = {}
        self._size = 0
        self._next_expiry = inf
        self._timer: IDelayedCall | None = None

    def add(self, key: Hashable, principal: Principal) -> None:
        """Add an entry, or replace it; do nothing if the principal has expired."""
        remaining = inf
        if principal.expires_at is not None:
            remaining = principal.expires_at - self._clock.wall()
            if remaining <= 0:
                return
            self._next_expiry = min(self._next_expiry, principal.expires_at)
        self.remove(key)
        self.principals[key] = principal
        self._ends[key] = self._clock.seconds() + self._lifetime
        self._size += size_of_key(key)
        while len(self.principals) > self._max_entries or self._size > self._max_bytes:
            self.remove(next(iter(self.principals)))
        self._schedule(min(_INTERVAL, remaining))

    def remove(self, key: Hashable) -> None:
        """Remove an entry if there is one."""
        if self.principals.pop(key, None) is not None:
            del self._ends[key]
            self._size -= size_of_key(key)

    def clear(self) -> None:
        """Remove all entries, and cancel the pending call."""
        self.principals.clear()
        self._ends.clear()
        self._size = 0
        self._next_expiry = inf
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _schedule(self, delay: float) -> None:
        timer = self._timer
        if timer is None or not timer.active():
            self._timer = self._clock.callLater(delay, self._expire)
        elif timer.getTime() > self._clock.seconds() + delay:
            timer.reset(delay)

    def _expire(self) -> None:
        """Remove the entries that have expired; look again at the next expiry, at latest after an interval."""
        self._timer = None
        wall, now = self._clock.wall(), self._clock.seconds()
        if self._next_expiry <= wall:
            ends = {key: found.expires_at for key, found in self.principals.items() if found.expires_at is not None}
            for key, expires_at in ends.items():
                if expires_at <= wall:
                    self.remove(key)
            self._next_expiry = min((at for at in ends.values() if at > wall), default=inf)
        # Entries are in the order of their ends.
        while self._ends and self._ends[oldest := next(iter(self._ends))] <= now:
            self.remove(oldest)
        if self.principals:
            self._schedule(min(_INTERVAL, self._next_expiry - wall))


class RefusalCache:
    """
    The refusals of credentials that were not valid, so that a client in a loop costs no verification at each request.

    :param clock: gives steady seconds.
    :param max_entries: the largest number of refusals; the oldest are forgotten.
    :param max_bytes: about how much memory they may take, in bytes.
    :param lifetime: how long a refusal is remembered, in seconds.
    """

    def __init__(self, clock: IClock, max_entries: int, max_bytes: int, lifetime: float) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lifetime = lifetime
        self._refusals: dict[Hashable, tuple[float, str, str]] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._refusals)

    def get(self, key: Hashable) -> tuple[str, str] | None:
        """Return the message and the challenge of a refusal, or None."""
        found = self._refusals.get(key)
        if found is None:
            return None
        end, message, challenge = found
        if end <= self._clock.seconds():
            self._remove(key)
            return None
        return message, challenge

    def add(self, key: Hashable, message: str, challenge: str) -> None:
        """Remember a refusal."""
        self._remove(key)
        self._refusals[key] = (self._clock.seconds() + self._lifetime, message, challenge)
        self._size += size_of_key(key)
        while len(self._refusals) > self._max_entries or self._size > self._max_bytes:
            self._remove(next(iter(self._refusals)))

    def clear(self) -> None:
        """Forget all refusals."""
        self._refusals.clear()
        self._size = 0

    def _remove(self, key: Hashable) -> None:
        if self._refusals.pop(key, None) is not None:
            self._size -= size_of_key(key)
