"""Comparison of the sets of names that patterns match. Names may have any text as a segment."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Final

from ..protocol.names import RESERVED_SEGMENT
from .patterns import PlainParts, Star

#: The maximum of alternatives that :func:`includes` follows at once.
_MAX_ALTERNATIVES: Final = 256

#: The maximum of searches of a :class:`Comparison`, about 50 ms. Patterns such as ``chats/alice/**`` need none.
MAX_COMPARISONS: Final = 2048


def is_reserved(parts: PlainParts) -> bool:
    """Return whether a pattern matches reserved names, which no other pattern does."""
    return parts[0] == RESERVED_SEGMENT


def _begin_differently(first: PlainParts, second: PlainParts) -> bool:
    """Return whether two patterns match no common name because of their first segments."""
    one, other = first[0], second[0]
    if one == other:
        return False
    return (isinstance(one, str) and isinstance(other, str)) or RESERVED_SEGMENT in (one, other)


def _includes_plainly(outer: PlainParts, inner: PlainParts) -> bool | None:
    """Return the result of :func:`includes` if it takes no search; None if it does."""
    if outer[0] != inner[0] and (isinstance(outer[0], str) or is_reserved(inner)):
        return False
    if outer[-1] is Star.ANY and not any(isinstance(part, Star) for part in outer[:-1]):
        # Most rules are of this form, such as chats/alice/**.
        return inner[: len(outer) - 1] == outer[:-1]
    return None


def overlaps(first: PlainParts, second: PlainParts) -> bool:
    """Return whether there is a name that both patterns match."""
    if _begin_differently(first, second):
        return False
    # reached[j]: whether the pattern up to here and the first j parts of the second match a common beginning.
    reached = _with_empty_runs([True] + [False] * len(second), second)
    for part in first:
        following = [False] * len(reached)
        for index, here in enumerate(reached):
            if not here:
                continue
            if part is Star.ANY:
                # Any number of segments: as many as the rest of the second pattern takes.
                following[index:] = [True] * (len(reached) - index)
                break
            if index < len(second):
                other = second[index]
                if other is Star.ANY:
                    following[index] = True
                elif other is Star.ONE or part is Star.ONE or other == part:
                    following[index + 1] = True
        reached = _with_empty_runs(following, second)
    return reached[-1]


def _with_empty_runs(reached: list[bool], parts: PlainParts) -> list[bool]:
    for index, part in enumerate(parts):
        if part is Star.ANY and reached[index]:
            reached[index + 1] = True
    return reached


def includes(outer: PlainParts, inner: PlainParts) -> bool:
    """
    Return whether each name that the inner pattern matches is matched by the outer one too.

    The result is exact, except that it is False if too many alternatives would have to be followed.

    A star of the inner pattern stands for any text, so also for one that no pattern has: such a text is matched by the
    stars of the outer pattern alone, and any other text by those at least.
    """
    known = _includes_plainly(outer, inner)
    if known is not None:
        return known
    if inner == (Star.ANY,):
        # No name is empty.
        inner = (Star.ONE, Star.ANY)
    # Each alternative is the set of the places in the outer pattern that have been reached, as bits.
    alternatives = {_settled(1, outer)}
    for part in inner:
        if part is Star.ANY:
            alternatives = _repeated(alternatives, outer)
        else:
            alternatives = {_step(places, part, outer) for places in alternatives}
        alternatives = _smallest(alternatives)
        if 0 in alternatives or len(alternatives) > _MAX_ALTERNATIVES:
            return False
    last = 1 << len(outer)
    return all(places & last for places in alternatives)


def _repeated(alternatives: set[int], outer: PlainParts) -> set[int]:
    """Return what alternatives become by any number of segments of which no pattern has the text."""
    found: set[int] = set()
    for alternative in alternatives:
        places = alternative
        while places not in found:
            found.add(places)
            places = _step(places, Star.ONE, outer)
    return found


def _step(places: int, part: str | Star, outer: PlainParts) -> int:
    """Return the places that are reached after one more segment: a text, or one that no pattern has."""
    following = 0
    for index, other in enumerate(outer):
        if places >> index & 1:
            if other is Star.ANY:
                following |= 1 << index
            elif other is Star.ONE or other == part:
                following |= 2 << index
    return _settled(following, outer)


def _settled(places: int, outer: PlainParts) -> int:
    """Return places with those behind a ``**``, which may match no segment."""
    for index, other in enumerate(outer):
        if other is Star.ANY and places >> index & 1:
            places |= 2 << index
    return places


def _smallest(alternatives: set[int]) -> set[int]:
    """Return the alternatives that contain no other: what those match, the others do too."""
    kept: list[int] = []
    for places in sorted(alternatives, key=int.bit_count):
        if not any(smaller & places == smaller for smaller in kept):
            kept.append(places)
    return set(kept)


class TooManyComparisons(Exception):
    """A pattern was compared with :data:`MAX_COMPARISONS` others, and was still not decided about."""


class Comparison:
    """
    The comparison of a pattern with those of rules, one rule after the other, in bounded time.

    :param inner: the pattern, every name of which is asked about.
    """

    def __init__(self, inner: PlainParts) -> None:
        self._inner = inner
        self._left = MAX_COMPARISONS
        # Those that allow, by the texts with which they begin: a pattern includes only those that begin so, too.
        self._allowing: dict[tuple[str, ...], list[PlainParts]] = {}

    def is_included(self, patterns: Iterable[PlainParts]) -> bool:
        """
        Return whether one of some patterns matches all names of the pattern.

        :raises TooManyComparisons: that was not found out.
        """
        return any(self._includes(outer, self._inner) for outer in patterns)

    def allow(self, patterns: Iterable[PlainParts]) -> None:
        """Note patterns whose names are allowed: a later rule does not concern those."""
        for parts in patterns:
            if not _begin_differently(parts, self._inner):
                self._allowing.setdefault(_beginning(parts), []).append(parts)

    def is_concerned(self, patterns: Iterable[PlainParts]) -> bool:
        """
        Return whether one of some patterns matches names of the pattern that were not allowed before.

        :raises TooManyComparisons: that was not found out.
        """
        return any(self._overlaps(parts) and not self._is_allowed(parts) for parts in patterns)

    def _is_allowed(self, parts: PlainParts) -> bool:
        beginning = _beginning(parts)
        return any(
            self._includes(outer, parts)
            for length in range(len(beginning) + 1)
            for outer in self._allowing.get(beginning[:length], ())
        )

    def _includes(self, outer: PlainParts, inner: PlainParts) -> bool:
        known = _includes_plainly(outer, inner)
        if known is not None:
            return known
        self._spend()
        return includes(outer, inner)

    def _overlaps(self, parts: PlainParts) -> bool:
        if _begin_differently(parts, self._inner):
            return False
        if self._inner == (Star.ANY,):
            return True
        self._spend()
        return overlaps(parts, self._inner)

    def _spend(self) -> None:
        if not self._left:
            raise TooManyComparisons
        self._left -= 1


def _beginning(parts: PlainParts) -> tuple[str, ...]:
    """Return the texts with which a pattern begins, up to its first star."""
    return tuple(part for part in takewhile(lambda part: isinstance(part, str), parts) if isinstance(part, str))
