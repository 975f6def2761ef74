"""Patterns of stream names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.patterns import matches
from tests.support.naive_patterns import pattern_matches

SEGMENTS = st.sampled_from(["a", "b", "done", "A", "é", "%2A"])
NAME_SEGMENTS = SEGMENTS | st.sampled_from(["__ds", "*", "**"])
NAMES = st.lists(NAME_SEGMENTS, min_size=1, max_size=6).map("/".join)
PATTERNS = st.lists(st.one_of(SEGMENTS, st.just("*"), st.just("**")), min_size=1, max_size=6).map("/".join)


def matched(pattern: str, name: str) -> bool:
    """Match by the definition."""
    segments = name.split("/")
    return segments[0] != "__ds" and pattern_matches(pattern.split("/"), segments)


class MatchTests(SynchronousTestCase):
    def test_one_star_is_exactly_one_segment(self) -> None:
        self.assertEqual([True, False, False], [matches("events/*", n) for n in ("events/a", "events", "events/a/b")])

    def test_two_stars_are_any_number_of_segments(self) -> None:
        for pattern, name, expected in (
            ("events/**", "events", True),
            ("events/**", "events/a/b", True),
            ("events/**", "event", False),
            ("events/**/done", "events/done", True),
            ("events/**/done", "events/a/b/done", True),
            ("events/**/done", "events/a/b/done/c", False),
            ("**/done", "done", True),
            ("**", "anything/at/all", True),
            ("**/**/done", "a/done", True),
        ):
            self.assertEqual(expected, matches(pattern, name), (pattern, name))

    def test_no_pattern_matches_a_reserved_name(self) -> None:
        for pattern in ("**", "*/a", "*/**"):
            self.assertFalse(matches(pattern, "__ds/a"), pattern)
        self.assertTrue(matches("**", "a/__ds"))

    def test_literal_segments_are_compared_with_their_case_and_without_decoding(self) -> None:
        self.assertFalse(matches("Events/*", "events/a"))
        self.assertFalse(matches("%2A", "a"))
        self.assertTrue(matches("%2A", "%2A"))

    def test_stars_in_a_name_are_literal(self) -> None:
        self.assertTrue(matches("*", "**"))
        self.assertFalse(matches("a", "*"))

    @given(PATTERNS, NAMES)
    def test_matching_agrees_with_the_definition(self, pattern: str, name: str) -> None:
        self.assertEqual(matched(pattern, name), matches(pattern, name))

    def test_many_runs_of_stars_do_not_multiply_the_steps(self) -> None:
        steps = 0

        class Counted(str):
            def __eq__(self, other: object) -> bool:
                nonlocal steps
                steps += 1
                return str.__eq__(self, other)

            __hash__ = str.__hash__

        class Text(str):
            def split(self, *_arguments: object) -> list[str]:
                return [Counted(part) for part in str.split(self, "/")]

        name = Text("/".join(["a"] * 200))
        self.assertFalse(matches("/".join(["**", "a"] * 40) + "/b", name))
        self.assertLess(steps, 40 * 200 * 4)
