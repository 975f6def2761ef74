"""Patterns of stream names, and their index."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.subscriptions.errors import InvalidConfig, InvalidPath
from durable_streams.server.subscriptions.patterns import PatternIndex, matches, parse_pattern

LIMITS = NameLimits()

SEGMENTS = st.sampled_from(["a", "b", "done", "A", "é", "%2A"])
NAME_SEGMENTS = SEGMENTS | st.sampled_from(["__ds", "*", "**"])
NAMES = st.lists(NAME_SEGMENTS, min_size=1, max_size=6).map("/".join)
PATTERNS = st.lists(st.one_of(SEGMENTS, st.just("*"), st.just("**")), min_size=1, max_size=6).map("/".join)


def matched(pattern: str, name: str) -> bool:
    """Match by the definition."""
    segments = name.split("/")
    return segments[0] != "__ds" and naive(pattern.split("/"), segments)


def naive(pattern: Sequence[str], name: Sequence[str]) -> bool:
    """Match segments by the definition: exponential, but plainly right."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(naive(pattern[1:], name[skipped:]) for skipped in range(len(name) + 1))
    return bool(name) and pattern[0] in ("*", name[0]) and naive(pattern[1:], name[1:])


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
        index: PatternIndex[str] = PatternIndex()
        index.add("a/**", "runs")
        index.add("*", "one")
        self.assertEqual({"one"}, index.matching("**"))
        self.assertEqual({"runs"}, index.matching("a/**/*"))

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


class ParseTests(SynchronousTestCase):
    def test_slashes_at_the_ends_are_removed_and_runs_of_stars_joined(self) -> None:
        self.assertEqual("events/*", parse_pattern("/events/*/", LIMITS))
        self.assertEqual("**/done", parse_pattern("**/**/done", LIMITS))
        self.assertEqual("*/*/**", parse_pattern("*/*/**", LIMITS))

    def test_a_star_inside_a_longer_segment_is_refused(self) -> None:
        for text in ("a*", "events/*b", "***", "a/**b"):
            self.assertEqual("pattern", self.assertRaises(InvalidConfig, parse_pattern, text, LIMITS).field)

    def test_the_rules_of_names_hold_for_patterns(self) -> None:
        for text in ("a//b", "a/../b", "__ds/*", "a\nb", "x" * 1025, "/".join("abcdefghi")):
            self.assertRaises(InvalidPath, parse_pattern, text, LIMITS)

    @given(PATTERNS, NAMES)
    def test_joining_runs_of_stars_does_not_change_what_a_pattern_matches(self, pattern: str, name: str) -> None:
        self.assertEqual(matches(pattern, name), matches(parse_pattern(pattern, LIMITS), name))


class IndexTests(SynchronousTestCase):
    @given(st.lists(PATTERNS, max_size=12), st.data(), NAMES)
    def test_the_index_finds_what_matches(self, patterns: list[str], data: st.DataObject, name: str) -> None:
        index: PatternIndex[int] = PatternIndex()
        for number, pattern in enumerate(patterns):
            index.add(pattern, number)
        removed = data.draw(st.sets(st.sampled_from(range(len(patterns))))) if patterns else set()
        for number in removed:
            index.remove(patterns[number], number)
        expected = {n for n, pattern in enumerate(patterns) if n not in removed and matched(pattern, name)}
        self.assertEqual(expected, index.matching(name))
        self.assertEqual(len(patterns) - len(removed), len(index))

    def test_removing_all_patterns_frees_the_nodes(self) -> None:
        index: PatternIndex[int] = PatternIndex()
        for pattern in ("a/b/c", "a/b", "a/*/**"):
            index.add(pattern, 1)
            index.add(pattern, 1)
        self.assertEqual(3, len(index))
        for pattern in ("a/b", "a/b/c", "a/*/**", "a/*/**", "x"):
            index.remove(pattern, 1)
        self.assertEqual((0, {}), (len(index), index._root.children))

    def test_a_look_up_does_not_visit_unrelated_patterns(self) -> None:
        index: PatternIndex[int] = PatternIndex()
        for number in range(10_000):
            index.add(f"tenant-{number}/*/events/**", number)
        visited: list[str] = []

        class Watched(dict):  # type: ignore[type-arg]
            def get(self, key: str, default: object = None) -> object:
                visited.append(key)
                return dict.get(self, key, default)

        index._root.children = Watched(index._root.children)
        self.assertEqual({77}, index.matching("tenant-77/a/events/b/c"))
        self.assertEqual(["**", "*", "tenant-77"], [visited[0], *sorted(visited[1:])])
