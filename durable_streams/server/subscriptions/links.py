"""The links of one subscription in memory, with those that have pending data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import nsmallest

from .model import Link, StreamTail


class LinkTable:
    """
    The committed links of one subscription, by path.

    After the tail of a linked stream changes in ``tails``, call :meth:`refresh`.

    :param tails: the tails of the existing linked streams; one mapping for all subscriptions, kept by the caller.
    """

    __slots__ = ("_links", "_pending", "_tails")

    def __init__(self, tails: Mapping[str, StreamTail]) -> None:
        self._tails = tails
        self._links: dict[str, Link] = {}
        self._pending: set[str] = set()

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __contains__(self, path: str) -> bool:
        return path in self._links

    def get(self, path: str) -> Link | None:
        """Return the link of a path, or None."""
        return self._links.get(path)

    def tail(self, path: str) -> StreamTail | None:
        """Return the tail of a linked stream; None if it does not exist."""
        return self._tails.get(path)

    @property
    def pending(self) -> frozenset[str] | set[str]:
        """The paths with data after the cursor. Do not change the set."""
        return self._pending

    def refresh(self, path: str) -> bool:
        """Compare the cursor of a path with its tail again. Return whether data is pending; False if not linked."""
        link = self._links.get(path)
        if link is not None and link.pending(self._tails.get(path)):
            self._pending.add(path)
            return True
        self._pending.discard(path)
        return False

    def apply(self, changes: Mapping[str, Link | None]) -> None:
        """Store the links of a committed decision; None removes one. Set the tails of new paths before."""
        for path, link in changes.items():
            if link is None:
                self._links.pop(path, None)
            else:
                self._links[path] = link
            self.refresh(path)

    def page(self, after: str = "", max_count: int = 1000) -> list[str]:
        """Return the first paths after a path, sorted."""
        return nsmallest(max_count, (path for path in self._links if path > after))

    def pending_bytes(self) -> int:
        """Return the number of bytes after the cursors."""
        total = 0
        for path in self._pending:
            tail = self._tails.get(path)
            if tail is not None:
                total += tail.position - self._links[path].cursor(tail)
        return total
