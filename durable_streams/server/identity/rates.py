"""
Rate limits as token buckets in constant memory, for any number of keys.

A bucket is one number (GCRA): the time at which it would be full again. Spending moves that time forward, and is
refused if the time would then be further away than a full bucket takes to fill. The buckets of the keys that were used
last are exact (:class:`Account`). Those of all others are in a count-min sketch of such times (:class:`Sketch`), which
may find a bucket emptier than it is, and never fuller.
"""

from __future__ import annotations

import secrets
import socket
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import ceil, inf
from typing import Final

from msgspec import Struct

#: The number of rows of a sketch, and of columns for buckets by address: 2 MiB of times.
DEPTH: Final = 4
WIDTH: Final = 65_536

#: The maximum number of exact buckets of keys with nothing under way.
RECENT: Final = 8_192

#: Rounding errors of times, in seconds: a burst that is spent at once is spent whole.
_ROUNDING: Final = 1e-9


class Rate(Struct, frozen=True, gc=False):
    """
    A limit: so many units a second on average, and a burst.

    :ivar per_second: the units that a bucket gains in a second.
    :ivar burst: the units in a full bucket.
    """

    per_second: float
    burst: float

    @property
    def interval(self) -> float:
        """The seconds in which a bucket gains one unit."""
        return 1 / self.per_second

    @property
    def window(self) -> int:
        """The whole seconds in which an empty bucket fills, rounded up."""
        return max(1, ceil(self.burst / self.per_second - _ROUNDING))


class Sketch:
    """
    A count-min sketch of times: for each key, a time that is not before the latest one that was recorded for it.

    A key has one cell in each row, at places that depend on a secret. A cell has the latest time of all its keys, and
    the time of a key is the earliest of its cells. If N keys have a time in the future, any other key is found to have
    one with a probability of about ``(N / width) ** depth``: for N = 1,000 and the defaults 5e-8, for 10,000 5e-4.

    :param width: the number of cells in a row.
    :param depth: the number of rows, at most 8.
    """

    __slots__ = ("_cells", "_width")

    def __init__(self, width: int = WIDTH, depth: int = DEPTH) -> None:
        self._width = width
        # Pages of zeros that nothing is written to take no memory.
        self._cells = [array("d", bytes(8 * width)) for _ in range(depth)]

    @property
    def size(self) -> int:
        """The size of all cells, in bytes."""
        return 8 * self._width * len(self._cells)

    def read(self, places: bytes) -> float:
        """
        Return the time of a key; 0 if none of its cells was written.

        :param places: the hash of the key (:meth:`Ledger.hash`).
        """
        earliest = inf
        for row, cells in enumerate(self._cells):
            earliest = min(earliest, cells[int.from_bytes(places[4 * row : 4 * row + 4], "little") % self._width])
        return earliest

    def record(self, places: bytes, at: float) -> None:
        """
        Record a time of a key.

        :param places: the hash of the key.
        """
        for row, cells in enumerate(self._cells):
            place = int.from_bytes(places[4 * row : 4 * row + 4], "little") % self._width
            cells[place] = max(cells[place], at)


class Account:
    """
    The exact buckets of one key, and what it has under way.

    :ivar key: the key in its ledger.
    :ivar times: when each bucket would be full again, in seconds of the ledger's clock, in the order of its rates.
    :ivar connections: its open connections.
    :ivar live_reads: its live reads.
    :ivar incoming: the bytes of its bodies that are arriving.
    :ivar holds: how many things are under way; while there are any, the account is kept.
    """

    __slots__ = ("connections", "holds", "incoming", "key", "live_reads", "times")

    def __init__(self, key: str, times: list[float]) -> None:
        self.key = key
        self.times = times
        self.holds = self.connections = self.live_reads = self.incoming = 0


class Meter:
    """
    One rate of a ledger, applied to its accounts.

    :param place: the rate's place among the ledger's rates.
    """

    __slots__ = ("_interval", "_limit", "_place", "rate")

    def __init__(self, rate: Rate, place: int) -> None:
        self.rate = rate
        self._place = place
        self._interval = rate.interval
        self._limit = rate.burst * rate.interval + _ROUNDING

    def spend(self, account: Account, units: float, now: float) -> float:
        """
        Take units from a bucket, if it has them.

        :param now: the time by the ledger's clock.
        :returns: 0 if they were taken; otherwise in how many seconds the bucket would have them.
        """
        times = account.times
        at = times[self._place]
        at = (at if at > now else now) + units * self._interval
        excess = at - now - self._limit
        if excess > 0:
            return excess
        times[self._place] = at
        return 0.0

    def charge(self, account: Account, units: float, now: float) -> None:
        """Take units from a bucket, which has debts if it does not have them."""
        times = account.times
        at = times[self._place]
        times[self._place] = (at if at > now else now) + units * self._interval

    def refund(self, account: Account, units: float, since: float) -> None:
        """
        Put units back that were taken from a bucket, except those that it may have gained again.

        :param since: how many seconds ago they were taken.
        """
        account.times[self._place] -= max(0.0, units * self._interval - since)

    def wait(self, account: Account, now: float) -> float:
        """Return in how many seconds a bucket has no debts; 0 or less if it has none."""
        return account.times[self._place] - now - self._limit

    def wait_for(self, account: Account, units: float, now: float) -> float:
        """Return in how many seconds a bucket has so many units; 0 or less if it has them."""
        return max(0.0, account.times[self._place] - now) + units * self._interval - self._limit

    def until_full(self, account: Account, now: float) -> float:
        """Return in how many seconds a bucket is full; 0 or less if it is."""
        return account.times[self._place] - now

    def remaining(self, account: Account, now: float) -> int:
        """Return how many whole units a bucket has; 0 if it has debts."""
        return max(0, int((self._limit - max(0.0, account.times[self._place] - now)) / self._interval))


class Ledger:
    """
    The accounts of all keys of one kind.

    The accounts that were used last, and those with something under way, are exact. When another one is forgotten, its
    buckets that are not full are recorded in sketches, from which it is made when its key comes again.

    :param rates: the limits; None for none, which costs no memory.
    :param now: a steady clock that starts near 0: a time since 1970 has no room for the nanoseconds that a byte takes.
    :param recent: the maximum number of exact accounts with nothing under way.
    :ivar meters: the rates, in their order.
    """

    def __init__(
        self, rates: Sequence[Rate | None], now: Callable[[], float], recent: int = RECENT, width: int = WIDTH
    ) -> None:
        self.now = now
        self.meters = [None if rate is None else Meter(rate, place) for place, rate in enumerate(rates)]
        self._width = width
        self._max_recent = recent
        self._full = [0.0] * len(rates)
        self._recent: OrderedDict[str, Account] = OrderedDict()
        self._held: dict[str, Account] = {}
        # Made when the first account with a bucket that is not full is forgotten.
        self._sketches: list[Sketch | None] = [None] * len(rates)
        self._secret = secrets.token_bytes(16)

    def __len__(self) -> int:
        """Return the number of exact accounts."""
        return len(self._recent) + len(self._held)

    @property
    def sketch_bytes(self) -> int:
        """The size of all sketches, in bytes."""
        return sum(0 if sketch is None else sketch.size for sketch in self._sketches)

    def account(self, key: str) -> Account:
        """Return the account of a key. It is valid until another one is asked for, or while it is held."""
        account = self._held.get(key)
        if account is not None:
            return account
        recent = self._recent
        account = recent.get(key)
        if account is not None:
            recent.move_to_end(key)
            return account
        account = recent[key] = Account(key, self._recorded(key))
        if len(recent) > self._max_recent:
            self._forget(recent.popitem(last=False)[1])
        return account

    def hold(self, key: str) -> Account:
        """Return the account of a key, and keep it until it is released: it has one more thing under way."""
        account = self.account(key)
        account.holds += 1
        if account.holds == 1:
            del self._recent[key]
            self._held[key] = account
        return account

    def release(self, account: Account) -> None:
        """Release an account that was held."""
        account.holds -= 1
        if not account.holds:
            del self._held[account.key]
            self._recent[account.key] = account
            if len(self._recent) > self._max_recent:
                self._forget(self._recent.popitem(last=False)[1])

    def hash(self, key: str) -> bytes:
        """Return the places of a key in sketches, which depend on a secret of this ledger."""
        return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32, key=self._secret).digest()

    def _recorded(self, key: str) -> list[float]:
        times = self._full.copy()
        if any(self._sketches):
            places = self.hash(key)
            for place, sketch in enumerate(self._sketches):
                if sketch is not None:
                    times[place] = sketch.read(places)
        return times

    def _forget(self, account: Account) -> None:
        now = self.now()
        places = None
        for place, at in enumerate(account.times):
            if at > now:
                places = places or self.hash(account.key)
                sketch = self._sketches[place]
                if sketch is None:
                    sketch = self._sketches[place] = Sketch(self._width)
                sketch.record(places, at)


def address_key(address: str) -> str:
    """
    Return what an address is counted as: an IPv4 address as itself, an IPv6 address as its network of 64 bits.

    A host usually has all addresses of such a network. What is no IP address is counted as it is.
    """
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)) + "/64"
