"""The index of patterns: its steps are bounded by rules and segments."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.matching import NameIndex
from durable_streams.server.identity.patterns import parse_parts
from durable_streams.server.identity.principal import ANONYMOUS, Principal

from .naive import name_matches


class CountedName(str):
    """A name that counts how often one of its segments is looked up."""

    steps = 0

    def split(self, *_: object) -> list[str]:
        counter = self

        class Segment(str):
            def __hash__(self) -> int:
                counter.steps += 1
                return str.__hash__(self)

            __eq__ = str.__eq__

        return [Segment(part) for part in str.split(self, "/")]


def index(*patterns: str) -> NameIndex:
    return NameIndex((1 << n, parse_parts(pattern)) for n, pattern in enumerate(patterns))


PARTS = st.sampled_from(["a", "b", "alice", "*", "**", "**", "{subject}", "{claim.t}"])
PATTERNS = st.lists(PARTS, min_size=1, max_size=5).map("/".join) | st.just("__ds/**/a")
NAMES = st.lists(st.sampled_from(["a", "a", "b", "alice", "x"]), min_size=1, max_size=6).map("/".join)
RESERVED = st.sampled_from(["__ds", "__ds/a", "__ds/subscriptions/a", "__ds/b"])
PRINCIPALS = st.builds(
    Principal,
    st.sampled_from(["alice", "a"]),
    st.just("jwt"),
    claims=st.fixed_dictionaries({"t": st.sampled_from(["a", "b", "x", "", 5])}),
)


class IndexTests(SynchronousTestCase):
    @given(st.lists(PATTERNS, max_size=8), PRINCIPALS, NAMES | RESERVED)
    @settings(max_examples=1000)
    def test_the_patterns_that_match_are_those_of_the_definition(
        self, patterns: list[str], principal: Principal, name: str
    ) -> None:
        found = index(*patterns).matching(principal, name)
        expected = [name_matches(pattern, principal, "read", name) for pattern in patterns]
        self.assertEqual(expected, [bool(found >> number & 1) for number in range(len(patterns))])

    def test_two_stars_inside_of_a_pattern_are_any_number_of_segments(self) -> None:
        for name, expected in (("a/b", 1), ("a/x/b", 1), ("a/x/y/z/b", 1), ("a/x", 0), ("x/a/b", 0), ("a", 0)):
            self.assertEqual(expected, index("a/**/b").matching(ANONYMOUS, name), name)

    def test_substitutions_at_the_same_place_are_told_apart(self) -> None:
        principal = Principal("alice", "jwt", claims={"t": "acme"})
        patterns = index("{subject}/x", "{claim.t}/x", "{claim.u}/x")
        self.assertEqual([0b1, 0b10], [patterns.matching(principal, name) for name in ("alice/x", "acme/x")])


class StepTests(SynchronousTestCase):
    def steps(self, name: str, *patterns: str) -> int:
        counted = CountedName(name)
        index(*patterns).matching(ANONYMOUS, counted)
        return counted.steps

    def test_patterns_that_do_not_agree_with_the_name_cost_no_step(self) -> None:
        # One look-up at the root of the trie, one below it, and one each of the segments after that.
        few = self.steps("tenant-7/a/b", "tenant-7/a/**")
        many = self.steps("tenant-7/a/b", *(f"tenant-{number}/a/**" for number in range(1_000)))
        self.assertEqual(few, many)

    def test_many_runs_of_stars_do_not_multiply_the_steps(self) -> None:
        name = "/".join(["a"] * 200)
        pattern = "**/a/" * 31 + "b"
        self.assertLess(self.steps(name, pattern), 200 * 64)
        self.assertLess(self.steps(name, pattern, *("**/a/" * n + "c" for n in range(1, 30))), 200 * 64)
        self.assertEqual(0, index(pattern).matching(ANONYMOUS, name))

    def test_stars_beside_texts_do_not_double_the_steps_at_each_segment(self) -> None:
        # Both branches of each segment exist, so the nodes are as many as the patterns have parts.
        patterns = [f"{'*/' * n}a/{'*/' * (20 - n)}b" for n in range(20)]
        self.assertLess(self.steps("/".join(["a"] * 22), *patterns), sum(p.count("/") + 1 for p in patterns))
