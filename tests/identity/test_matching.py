"""The index of patterns: its steps are bounded by rules and segments."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.matching import NameIndex
from durable_streams.server.identity.patterns import parse_parts
from durable_streams.server.identity.principal import ANONYMOUS


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
    return NameIndex((1 << n, parse_parts(pattern, substitutions=True)) for n, pattern in enumerate(patterns))


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
