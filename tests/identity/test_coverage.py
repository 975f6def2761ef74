"""Comparison of patterns by the sets of names that they match, beside all names of a small alphabet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity import coverage
from durable_streams.server.identity.coverage import includes, overlaps
from durable_streams.server.identity.patterns import Part, PlainParts, Star, joined

ONE, ANY = Star.ONE, Star.ANY

#: All names of up to six segments: two texts that patterns have, and one that none has.
UNIVERSE = [name for length in range(1, 7) for name in product("abc", repeat=length)]

_PARTS: list[Part] = ["a", "b", ONE, ANY, ANY]
PATTERNS = st.lists(st.sampled_from(_PARTS), min_size=1, max_size=5).map(
    lambda parts: tuple(part for part in joined(parts) if isinstance(part, (str, Star)))
)


def plain_matches(parts: Sequence[object], name: Sequence[str]) -> bool:
    """Match by the definition, as fast as a table can."""
    reached = [True] + [False] * len(name)
    for part in parts:
        if part is ANY:
            reached = [any(reached[: index + 1]) for index in range(len(reached))]
        else:
            reached = [False] + [reached[i] and (part is ONE or part == name[i]) for i in range(len(name))]
    return reached[-1]


def matched(parts: PlainParts) -> set[tuple[str, ...]]:
    """Return all names that a pattern matches."""
    return {name for name in UNIVERSE if plain_matches(parts, name)}


class InclusionTests(SynchronousTestCase):
    @given(PATTERNS, PATTERNS)
    @example((ONE, ANY), (ANY,))
    @example((ANY, "a", ONE, ANY), ("a", ANY, "a"))
    @settings(max_examples=400)
    def test_inclusion_agrees_with_all_names(self, outer: PlainParts, inner: PlainParts) -> None:
        self.assertEqual(matched(inner) <= matched(outer), includes(outer, inner))

    def test_examples(self) -> None:
        for outer, inner, expected in (
            ((ANY,), (ONE, ANY), True),
            ((ONE, ANY), (ANY,), True),  # no name has no segment
            (("a", ANY), ("a",), True),
            (("a", ANY), ("a", ONE), True),
            (("a", ONE), ("a", ANY), False),
            (("a", ANY), (ANY,), False),
            (("a", "b"), ("a", ONE), False),
            ((ANY, "a", ONE, ANY), ("a", ANY, "a"), True),
            ((ANY, "b"), ("a", ANY, "b"), True),
        ):
            self.assertEqual(expected, includes(outer, inner), (outer, inner))

    def test_a_text_that_is_a_star_is_no_star(self) -> None:
        self.assertFalse(includes(("a", "*"), ("a", ONE)))
        self.assertFalse(includes(("**",), (ANY,)))
        self.assertTrue(includes(("a", ONE), ("a", "*")))
        self.assertFalse(overlaps(("a", "*"), ("a", "b")))

    def test_too_many_alternatives_are_not_included(self) -> None:
        self.patch(coverage, "_MAX_ALTERNATIVES", 1)
        self.assertFalse(includes((ANY, "a", ONE, ANY), ("a", ANY, "a")))

    def test_patterns_of_the_largest_size_are_compared_in_bounded_steps(self) -> None:
        outer = (ANY, "a", "b") * 21
        steps = 0

        def step(*arguments: object) -> int:
            nonlocal steps
            steps += 1
            return original(*arguments)  # type: ignore[arg-type]

        original = coverage._step
        self.patch(coverage, "_step", step)
        for inner in ((ANY, "a") * 32, (ONE, ANY, "a", "b") * 16, (ANY, "b", "a") * 21):
            includes(outer, inner)
        self.assertLess(steps, 3 * 64 * 256 * 2)


class OverlapTests(SynchronousTestCase):
    @given(PATTERNS, PATTERNS)
    def test_overlap_agrees_with_all_names(self, first: PlainParts, second: PlainParts) -> None:
        # Patterns of more than six segments together may have longer names in common only.
        common = bool(matched(first) & matched(second))
        self.assertEqual(overlaps(first, second), overlaps(second, first))
        if common or len(first) + len(second) <= 6:
            self.assertEqual(common, overlaps(first, second))

    def test_only_patterns_that_begin_with_the_reserved_segment_concern_reserved_names(self) -> None:
        reserved = ("__ds", "subscriptions", ONE)
        for other in ((ANY,), (ONE, ANY), (ONE, ONE, ONE)):
            self.assertFalse(overlaps(other, reserved))
            self.assertFalse(includes(other, reserved))
        self.assertTrue(includes(("__ds", ANY), reserved))
        self.assertTrue(overlaps(("__ds", ANY), reserved))
