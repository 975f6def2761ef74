"""Tests of the index from streams to subscriptions."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.patterns import matches
from durable_streams.server.subscriptions import index as module
from durable_streams.server.subscriptions.index import SubscriptionIndex
from durable_streams.server.subscriptions.model import StreamTail

_names = st.sampled_from(["a", "a/b", "a/b/c", "b", "b/c"])
_patterns = st.sampled_from(["a", "a/*", "**", "*/b/**", "b"])
_steps = st.lists(
    st.tuples(st.sampled_from(["link", "unlink"]), _names, st.sampled_from("xyz"))
    | st.tuples(st.sampled_from(["add", "remove"]), _patterns, st.sampled_from("xyz"))
    | st.tuples(st.just("concerned"), _names, st.just("")),
    max_size=40,
)


class IndexTests(SynchronousTestCase):
    @given(_steps)
    def test_a_name_concerns_those_who_link_it_and_those_whose_pattern_matches(
        self, steps: list[tuple[str, str, str]]
    ) -> None:
        index: SubscriptionIndex[str] = SubscriptionIndex()
        links: set[tuple[str, str]] = set()
        patterns: set[tuple[str, str]] = set()
        for step, where, who in steps:
            if step == "link":
                index.link(where, who)
                links.add((where, who))
            elif step == "unlink":
                index.unlink(where, who)
                links.discard((where, who))
            elif step == "add":
                index.add_pattern(where, who)
                patterns.add((where, who))
            elif step == "remove":
                index.remove_pattern(where, who)
                patterns.discard((where, who))
            else:
                expected = {who for path, who in links if path == where}
                expected |= {who for pattern, who in patterns if matches(pattern, where)}
                self.assertEqual(expected, index.concerned(where))
                self.assertEqual((not expected, not expected), (where in index.quiet, index.unmatched(where)))
        self.assertEqual((len(links), len(patterns)), (index.links, index.patterns))
        self.assertEqual({path for path, _ in links}, set(index.linked_paths()))
        for name in index.quiet:
            self.assertEqual(set(), index.concerned(name))

    def test_unmatched_names_are_bounded(self) -> None:
        index: SubscriptionIndex[str] = SubscriptionIndex()
        with patch.object(module, "MAX_UNMATCHED", 10):
            for number in range(25):
                index.concerned(str(number))
        self.assertEqual(5, len(index.quiet))

    def test_streams_that_change_while_they_are_settled_are_quiet_without_a_limit(self) -> None:
        index: SubscriptionIndex[str] = SubscriptionIndex()
        reread: list[str] = []
        index.reread = reread.append
        names = [str(number) for number in range(25)]
        with patch.object(module, "MAX_UNMATCHED", 10):
            for name in names:
                index.link(name, "x")
                index.settled[name] = name
                index.stale[name] = None
                index.silence(name)
            self.assertEqual(set(names), index.quiet)
            self.assertFalse(index.unmatched("3"))
        index.unsettle("3")
        index.unlink("4", "x")
        index.link("5", "y")
        self.assertEqual(set(names) - {"3", "4", "5"}, index.quiet)
        self.assertEqual((["3", "5"], index.quiet), (reread, set(index.stale)))
        index.add_pattern("**", "z")
        self.assertEqual(set(), index.quiet)

    def test_streams_are_followed_again_in_steps_by_the_smaller_of_the_two_sets(self) -> None:
        for own, others, steps in ((10, 2, 3), (2, 10, 1), (9, 9, 3)):
            index: SubscriptionIndex[str] = SubscriptionIndex()
            names = [str(number) for number in range(own + others)]
            index.settled.update(zip(names, names, strict=True))
            index.stale.update(dict.fromkeys(names))
            with patch.object(module, "_AT_ONCE", 4):
                walk = index.unsettle_among(names[:own])
                for _ in range(steps - 1):
                    next(walk)
                with self.assertRaises(StopIteration) as caught:
                    next(walk)
            self.assertTrue(caught.exception.value)
            self.assertEqual((set(names[own:]),) * 2, (set(index.settled), set(index.stale)))
            with self.assertRaises(StopIteration) as caught:
                next(index.unsettle_among(names[:own]))
            self.assertFalse(caught.exception.value)

    def test_tails_are_kept_of_linked_streams_only_and_never_fall(self) -> None:
        index: SubscriptionIndex[str] = SubscriptionIndex()
        index.set_tail("a", StreamTail(1, 1, 5))
        self.assertEqual({}, index.tails)
        index.link("a", "x")
        index.set_tail("a", StreamTail(1, 1, 5))
        index.set_tail("a", StreamTail(1, 1, 3))
        self.assertEqual({"a": StreamTail(1, 1, 5)}, index.tails)
        index.set_tail("a", StreamTail(2, 2, 0))
        self.assertEqual({"a": StreamTail(2, 2, 0)}, index.tails)
        index.unlink("a", "x")
        self.assertEqual({}, index.tails)
