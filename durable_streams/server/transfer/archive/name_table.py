"""A table of names with numbers. It takes about 10 bytes for each name, whatever its length, and 8 for each number."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from hashlib import blake2b
from typing import Final

#: The number of sorted arrays. A million names are 250 in each, so that an insertion moves 1 KiB on average.
_SHARD_BITS: Final = 12


class NameTable:
    """
    A table of names, each with the same number of unsigned integers of 64 bits. Nothing can be removed.

    It keeps a keyed hash of 64 bits of each name. Two of a million names have the same hash in one of about 37 million
    tables. The key is random, so that nobody can choose names with one hash.

    :param columns: how many integers belong to a name.
    """

    def __init__(self, columns: int = 0) -> None:
        self._key = os.urandom(16)
        self._columns = columns
        self._shards: dict[int, list[array[int]]] = {}

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> tuple[int, ...] | None:
        """Return the integers of a name; None if it is not in the table."""
        shard, index, hashed = self._place(name)
        keys = shard[0]
        if index == len(keys) or keys[index] != hashed:
            return None
        return tuple(column[index] for column in shard[1:])

    def add(self, name: str, *values: int) -> bool:
        """Add a name, unless it is in the table; return whether it is new."""
        shard, index, hashed = self._place(name)
        keys = shard[0]
        if index < len(keys) and keys[index] == hashed:
            return False
        for column, value in zip(shard, (hashed, *values), strict=True):
            column.insert(index, value)
        return True

    def put(self, name: str, *values: int) -> None:
        """Replace the integers of a name that is in the table."""
        shard, index, _ = self._place(name)
        for column, value in zip(shard[1:], values, strict=True):
            column[index] = value

    def _place(self, name: str) -> tuple[list[array[int]], int, int]:
        hashed = int.from_bytes(blake2b(name.encode(), key=self._key, digest_size=8).digest())
        number = hashed >> (64 - _SHARD_BITS)
        shard = self._shards.get(number)
        if shard is None:
            shard = self._shards[number] = [array("Q") for _ in range(1 + self._columns)]
        return shard, bisect_left(shard[0], hashed), hashed
