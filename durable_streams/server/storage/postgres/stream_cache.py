"""The cache of what a node knows of streams: the least recently used ones are dropped."""

from __future__ import annotations

from collections import OrderedDict

from .heads import Head
from .known import KnownStream


class StreamCache:
    """
    Heads and writers by the names of streams.

    A cached head may be out of date. It is for writes that compare its version; and the bytes before its tail never
    change.

    :param max_streams: the maximum number of cached heads.
    :param max_bytes: the maximum memory of the cache, about.
    """

    def __init__(self, max_streams: int, max_bytes: int) -> None:
        self._max_streams = max_streams
        self._max_bytes = max_bytes
        self._cache: OrderedDict[str, KnownStream] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._bytes = 0

    def cached(self, name: str) -> Head | None:
        """Return the head that was read or written last, or None."""
        known = self._cache.get(name)
        return None if known is None else known.head

    def known(self, name: str) -> KnownStream | None:
        """Return what is cached of a stream, or None."""
        known = self._cache.get(name)
        if known is not None:
            self._cache.move_to_end(name)
        return known

    def store(self, head: Head) -> None:
        """Cache a head that a statement has returned; writers that were known are kept if it has the same version."""
        self.keep(KnownStream(head))

    def keep(self, known: KnownStream) -> KnownStream:
        """
        Cache what a statement has returned.

        :returns: what is cached now: the same, or what is known of a later version.
        """
        head = known.head
        name = head.facts.name
        current = self._cache.get(name)
        if current is not None and _is_earlier(known, current):
            if current.head.version == head.version:
                current.head = head
                current.add(known)
            # A later version was committed after this look-up began, so it is confirmed as well.
            current.confirmed = max(current.confirmed, known.confirmed)
            known = current
        self._cache[name] = known
        self._cache.move_to_end(name)
        self._bytes += known.size - self._sizes.get(name, 0)
        self._sizes[name] = known.size
        while len(self._cache) > self._max_streams or (self._bytes > self._max_bytes and len(self._cache) > 1):
            self._drop(next(iter(self._cache)))
        return known

    def forget(self, name: str) -> None:
        """Remove a head from the cache, because it is known to be out of date."""
        if name in self._cache:
            self._drop(name)

    def clear(self) -> None:
        """Remove all heads from the cache, because the database may have lost what was read or written last."""
        self._cache.clear()
        self._sizes.clear()
        self._bytes = 0

    def _drop(self, name: str) -> None:
        del self._cache[name]
        self._bytes -= self._sizes.pop(name)

    @property
    def figures(self) -> tuple[int, int]:
        """The number of cached heads, and about how many bytes they take."""
        return len(self._cache), self._bytes


def _is_earlier(known: KnownStream, other: KnownStream) -> bool:
    """Return whether another object has the same or a later version of a stream."""
    mine, others = known.head, other.head
    return other is not known and others.facts.id == mine.facts.id and others.version >= mine.version
