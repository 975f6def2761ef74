"""Comparison of the sets of names that patterns match. Names may have any text as a segment."""

from __future__ import annotations

from typing import Final, TypeAlias

from ..protocol.names import RESERVED_SEGMENT
from .patterns import Star

#: A pattern without substitutions.
PlainParts: TypeAlias = tuple[str | Star, ...]

#: The maximum of alternatives that :func:`includes` follows at once.
_MAX_ALTERNATIVES: Final = 256


def is_reserved(parts: PlainParts) -> bool:
    """Return whether a pattern matches reserved names, which no other pattern does."""
    return parts[0] == RESERVED_SEGMENT


def overlaps(first: PlainParts, second: PlainParts) -> bool:
    """Return whether there is a name that both patterns match."""
    if is_reserved(first) != is_reserved(second):
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
    if is_reserved(outer) != is_reserved(inner):
        return False
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
