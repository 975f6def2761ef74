"""Sorted index of names: streams are listed a page at a time, without sorting all of them for each page."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

#: How many names a bucket has at the most. An insertion moves half a bucket of pointers: about 0.2 us.
_BUCKET: Final = 1024


class NameIndex:
    """
    A sorted set of strings, kept in buckets, so that an insertion or a removal costs about a microsecond at any size.
    """

    __slots__ = ("_buckets", "_lasts")

    def __init__(self) -> None:
        self._buckets: list[list[str]] = []
        # The last name of each bucket, or one that was removed from its end since.
        self._lasts: list[str] = []

    def add(self, name: str) -> None:
        """Add a name that is not in the index."""
        lasts = self._lasts
        if not lasts:
            self._buckets.append([name])
            lasts.append(name)
            return
        index = bisect_left(lasts, name)
        if index == len(lasts):
            # A name after all others: names often count upwards.
            index -= 1
            lasts[index] = name
            bucket = self._buckets[index]
            bucket.append(name)
        else:
            bucket = self._buckets[index]
            insort(bucket, name)
        if len(bucket) > _BUCKET:
            # The last bucket is left full, since later names are probably added after it.
            middle = len(bucket) - 1 if index == len(lasts) - 1 and bucket[-1] == name else len(bucket) // 2
            self._buckets.insert(index, bucket[:middle])
            lasts.insert(index, bucket[middle - 1])
            del bucket[:middle]

    def remove(self, name: str) -> None:
        """Remove a name that is in the index."""
        index = bisect_left(self._lasts, name)
        bucket = self._buckets[index]
        del bucket[bisect_left(bucket, name)]
        if not bucket:
            del self._buckets[index]
            del self._lasts[index]

    def after(self, name: str, start: str = "") -> Iterator[str]:
        """Iterate over the names after ``name``, from ``start`` on, in order, while nothing is added or removed."""
        bisect, edge = (bisect_right, name) if name >= start else (bisect_left, start)
        index = bisect(self._lasts, edge)
        if index == len(self._buckets):
            return
        first = self._buckets[index]
        yield from first[bisect(first, edge) :]
        for bucket in self._buckets[index + 1 :]:
            yield from bucket
