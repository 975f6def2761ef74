"""Which subscriptions a stream concerns: those that link it, and those whose pattern matches its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Set
from typing import Final, Generic, TypeVar

from .model import StreamTail
from .patterns import PatternIndex

#: The maximum number of names without links that are known to concern no subscription.
MAX_UNMATCHED: Final = 100_000

#: How many names one step looks at, which takes some 0.2 ms.
_AT_ONCE: Final = 500

_T = TypeVar("_T")


class SubscriptionIndex(Generic[_T]):
    """
    The links and patterns of all subscriptions, by the name of the stream.

    :ivar tails: the tails of the linked streams that exist.
    :ivar quiet: names whose next change leads to nothing: those that concern no subscription, and those in ``stale``.
        An append to such a stream costs one look-up here. A name may be missing: then it is found out again.
    :ivar settled: streams that are pending in all subscriptions that link them, so that more data changes nothing. Each
        name is also its value, so that one string serves for all of these sets.
    :ivar stale: those of ``settled`` that have changed since, in this order: their tails must be read before they are
        used.
    :ivar reread: is called with the name of a stream whose tail must be read again.
    :ivar links: the number of links.
    """

    def __init__(self) -> None:
        self.tails: dict[str, StreamTail] = {}
        self.quiet: set[str] = set()
        self.settled: dict[str, str] = {}
        self.stale: dict[str, None] = {}
        self.links = 0
        self.reread: Callable[[str], None] = lambda path: None
        #: By path: the subscription that links it, or a set of several. A set for each would take 40 % of a link.
        self._linked: dict[str, _T | set[_T]] = {}
        self._patterns: PatternIndex[_T] = PatternIndex()

    @property
    def patterns(self) -> int:
        """The number of patterns."""
        return len(self._patterns)

    def add_pattern(self, pattern: str, subscription: _T) -> None:
        """Register the pattern of a subscription."""
        self._patterns.add(pattern, subscription)
        self.quiet.clear()

    def remove_pattern(self, pattern: str, subscription: _T) -> None:
        """Remove the pattern of a subscription."""
        self._patterns.remove(pattern, subscription)

    def link(self, path: str, subscription: _T) -> None:
        """Register a link, or that its cursor has changed."""
        self.unsettle(path)
        linked = self._linked.get(path)
        if linked is None:
            self._linked[path] = subscription
        elif isinstance(linked, set):
            if subscription in linked:
                return
            linked.add(subscription)
        elif linked == subscription:
            return
        else:
            self._linked[path] = {linked, subscription}
        self.links += 1
        self.quiet.discard(path)

    def unsettle(self, path: str) -> None:
        """Follow a stream again whose changes were not followed; read its tail if it has changed."""
        self.settled.pop(path, None)
        if path in self.stale:
            self.stale.pop(path, None)
            self.quiet.discard(path)
            self.reread(path)

    def unsettle_among(self, pending: Collection[str]) -> Generator[None, None, bool]:
        """
        Follow those of some pending streams again that have changed while they were not followed, some at each step.

        :returns: whether there were any.
        """
        stale, found = self.stale, False
        few, many = (pending, stale) if len(pending) < len(stale) else (stale, pending)
        for count, path in enumerate(list(few), 1):
            if path in many and path in stale:
                found = True
                self.unsettle(path)
            if count % _AT_ONCE == 0:
                yield
        return found

    def unmatched(self, name: str) -> bool:
        """Return whether a stream is known to concern no subscription."""
        return name in self.quiet and name not in self.stale

    def silence(self, name: str) -> None:
        """Note that the next change of a stream leads to nothing."""
        if len(self.quiet) >= MAX_UNMATCHED + len(self.stale):
            self.quiet.clear()
        self.quiet.add(name)

    def unlink(self, path: str, subscription: _T) -> None:
        """Remove a link. To remove one that is not there has no effect."""
        linked = self.linked(path)
        if subscription not in linked:
            return
        linked.discard(subscription)
        self.links -= 1
        if not linked:
            del self._linked[path]
            self.tails.pop(path, None)
            self.settled.pop(path, None)
            self.stale.pop(path, None)
            self.quiet.discard(path)

    def linked(self, path: str) -> set[_T]:
        """Return the subscriptions that link a stream. Do not change the set."""
        linked = self._linked.get(path)
        if linked is None:
            return set()
        return linked if isinstance(linked, set) else {linked}

    def linked_paths(self) -> Collection[str]:
        """Return the names of all linked streams."""
        return self._linked.keys()

    def matching(self, name: str) -> Set[_T]:
        """Return the subscriptions whose pattern matches a name."""
        return self._patterns.matching(name)

    def concerned(self, name: str) -> Set[_T]:
        """Return all subscriptions that a stream concerns, and remember the name if there are none."""
        found = self._patterns.matching(name) | self.linked(name)
        if not found:
            self.silence(name)
        return found

    def set_tail(self, path: str, tail: StreamTail | None) -> None:
        """Note the tail of a stream if it is linked; None if it does not exist."""
        if path not in self._linked:
            return
        if tail is None:
            self.tails.pop(path, None)
            return
        known = self.tails.get(path)
        if known is None or known.stream_id != tail.stream_id or known.position < tail.position:
            self.tails[path] = tail
