"""Patterns of stream names, and their index."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.protocol.patterns import matches
from durable_streams.server.subscriptions.errors import InvalidConfig, InvalidPath
from durable_streams.server.subscriptions.patterns import PatternIndex, parse_pattern
from tests.protocol.test_patterns import NAMES, PATTERNS, matched

LIMITS = NameLimits()


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
    def test_stars_in_a_name_are_literal(self) -> None:
        index: PatternIndex[str] = PatternIndex()
        index.add("a/**", "runs")
        index.add("*", "one")
        self.assertEqual({"one"}, index.matching("**"))
        self.assertEqual({"runs"}, index.matching("a/**/*"))

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
