"""The sorted index of names."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.name_index import _BUCKET, NameIndex
from tests.protocol.samples import examples

names = some.text("ab/\u00e9\U0001f600", min_size=1, max_size=3)


class NameIndexTests(SynchronousTestCase):
    @examples(200)
    @given(some.lists(names, max_size=60), names, names)
    def test_the_index_agrees_with_a_sorted_set(self, changed: list[str], after: str, start: str) -> None:
        index, expected = NameIndex(), set[str]()
        for name in changed:
            if name in expected:
                index.remove(name)
                expected.remove(name)
            else:
                index.add(name)
                expected.add(name)
            self.assertEqual(list(index.after("")), sorted(expected))
            self.assertEqual(list(index.after(after)), sorted(other for other in expected if other > after))
            rest = sorted(other for other in expected if other > after and other >= start)
            self.assertEqual(list(index.after(after, start)), rest)

    def test_many_names_in_any_order_are_sorted_in_buckets_of_bounded_size(self) -> None:
        count = 10 * _BUCKET
        up = [f"{number:08d}" for number in range(count)]
        mixed = up.copy()
        random.Random(1).shuffle(mixed)
        for order in (up, up[::-1], mixed):
            index = NameIndex()
            for name in order:
                index.add(name)
            self.assertEqual(list(index.after("")), up)
            self.assertEqual(list(index.after(up[5000])), up[5001:])
            self.assertLessEqual(max(map(len, index._buckets)), _BUCKET)
            self.assertLess(len(index._buckets), 3 * count // _BUCKET)
            for name in mixed[: count // 2]:
                index.remove(name)
            self.assertEqual(list(index.after("")), sorted(mixed[count // 2 :]))
            for name in mixed[count // 2 :]:
                index.remove(name)
            self.assertEqual((list(index.after("")), index._buckets), ([], []))
