"""Caches of the results of authentication: principals until they expire, refusals for some seconds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from twisted.internet.interfaces import IDelayedCall

from ..clocks import IClock
from .principal import Principal

#: The maximum interval of the checks for expired principals, in seconds. It bounds the delay after a clock step.
_INTERVAL: Final = 1.0

#: Expiries of entries that are gone are dropped when there are more than the others and this.
_SLACK: Final = 64

#: What an entry takes in memory besides its key, its claims, groups and grants, in bytes.
_ENTRY_SIZE: Final = 512

#: The memory of a value of a claim without the characters of a text, of a list or object, and of its member, in bytes.
_VALUE_SIZE: Final = 56
_CONTAINER_SIZE: Final = 80
_MEMBER_SIZE: Final = 32


def size_of_key(key: Hashable) -> int:
    """Return about how many bytes an entry takes without its principal; a key that is no text is a certificate."""
    return _ENTRY_SIZE + (2 * len(key) if isinstance(key, bytes | str) else _ENTRY_SIZE)


def size_of_principal(principal: Principal) -> int:
    """Return about how many bytes the claims, groups and grants of a principal take: often ten times those of a JWT."""
    size = 0
    grants = [(*grant.operations, grant.pattern) for grant in principal.grants or ()]
    left: list[object] = [part for part in (principal.claims, principal.groups, grants) if part]
    while left:
        value = left.pop()
        if isinstance(value, str):
            size += _VALUE_SIZE + len(value)
        elif isinstance(value, Mapping):
            size += _CONTAINER_SIZE + 2 * _MEMBER_SIZE * len(value)
            left += value.keys()
            left += value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            size += _CONTAINER_SIZE + _MEMBER_SIZE * len(value)
            left += value
        else:
            size += _VALUE_SIZE
    return size


class PrincipalCache:
    """
    Principals by the credentials that they were made of.

    An entry is removed when its principal expires, when its lifetime ends, or, oldest first, when there are too many. A
    delayed call removes expired entries, so that a look-up need not read a clock. It is pending only while there are
    entries that expire.

    :param clock: gives the wall clock for the expiry of principals, and steady seconds for the lifetime of entries.
    :param max_entries: the largest number of entries.
    :param max_bytes: about how much memory they may take, in bytes.
    :param lifetime: of an entry that is to be verified again, in seconds.
    :param removed: is called with the principal of each entry that is removed, except by :meth:`clear`.
    :ivar principals: the entries, to look up; it stays the same object.
    """

    def __init__(
        self,
        clock: IClock,
        max_entries: int,
        max_bytes: int,
        lifetime: float,
        removed: Callable[[Principal], None] | None = None,
    ) -> None:
        self._clock = clock
        self._removed = removed
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lifetime = lifetime
        self.principals: dict[Hashable, Principal] = {}
        self._sizes: dict[Hashable, int] = {}
        self._size = 0
        # The ends of entries with a lifetime, in the order of the ends.
        self._ends: dict[Hashable, float] = {}
        # The expiry of each principal that expires, a number that orders equal ones, and its key. Of entries that were
        # removed or replaced, it stays until then.
        self._expiries: list[tuple[float, int, Hashable]] = []
        self._number = 0
        self._timer: IDelayedCall | None = None

    def add(self, key: Hashable, principal: Principal, has_lifetime: bool = False) -> None:
        """
        Add an entry, or replace it; do nothing if the principal has expired.

        :param has_lifetime: whether the entry ends after the lifetime.
        """
        remaining = inf
        if principal.expires_at is not None:
            remaining = principal.expires_at - self._clock.wall()
            if remaining <= 0:
                return
        self.remove(key)
        self.principals[key] = principal
        size = self._sizes[key] = size_of_key(key) + size_of_principal(principal)
        self._size += size
        if principal.expires_at is not None:
            self._number += 1
            heappush(self._expiries, (principal.expires_at, self._number, key))
            self._compact()
        if has_lifetime:
            self._ends[key] = self._clock.seconds() + self._lifetime
        while len(self.principals) > self._max_entries or self._size > self._max_bytes:
            self.remove(next(iter(self.principals)))
        if self._expiries or self._ends:
            self._schedule(min(_INTERVAL, remaining))

    def remove(self, key: Hashable) -> None:
        """Remove an entry if there is one."""
        principal = self.principals.pop(key, None)
        if principal is not None:
            self._ends.pop(key, None)
            self._size -= self._sizes.pop(key)
            if self._removed is not None:
                self._removed(principal)

    def clear(self) -> None:
        """Remove all entries, and cancel the pending call."""
        self.principals.clear()
        self._sizes.clear()
        self._ends.clear()
        self._expiries.clear()
        self._size = 0
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _is_live(self, expiry: tuple[float, int, Hashable]) -> bool:
        """Return whether an expiry is that of the present entry of its key."""
        principal = self.principals.get(expiry[2])
        return principal is not None and principal.expires_at == expiry[0]

    def _compact(self) -> None:
        """Drop the expiries of entries that are gone, if they are most of all."""
        if len(self._expiries) > 2 * len(self.principals) + _SLACK:
            self._expiries = [expiry for expiry in self._expiries if self._is_live(expiry)]
            heapify(self._expiries)

    def _schedule(self, delay: float) -> None:
        timer = self._timer
        if timer is None or not timer.active():
            self._timer = self._clock.callLater(delay, self._expire)
        elif timer.getTime() > self._clock.seconds() + delay:
            timer.reset(delay)

    def _expire(self) -> None:
        """Remove the entries that have expired, and schedule the next check: at an expiry, at most 1 s later."""
        self._timer = None
        wall, now = self._clock.wall(), self._clock.seconds()
        while self._expiries and self._expiries[0][0] <= wall:
            expiry = heappop(self._expiries)
            if self._is_live(expiry):
                self.remove(expiry[2])
        while self._ends and self._ends[oldest := next(iter(self._ends))] <= now:
            self.remove(oldest)
        if self._expiries or self._ends:
            self._schedule(min(_INTERVAL, self._expiries[0][0] - wall if self._expiries else inf))


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
