"""The table of names behaves as a dictionary, and is compact."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.transfer.archive.name_table import NameTable

NUMBERS = st.integers(0, 2**64 - 1)


class NameTableTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefgh"), NUMBERS, NUMBERS)))
    def test_it_behaves_as_a_dictionary(self, steps: list[tuple[bool, str, int, int]]) -> None:
        table, expected = NameTable(columns=2), dict[str, tuple[int, int]]()
        for is_put, name, first, second in steps:
            if not is_put:
                self.assertEqual(table.add(name, first, second), name not in expected)
                expected.setdefault(name, (first, second))
            elif name in expected:
                table.put(name, first, second)
                expected[name] = (first, second)
            for each in "abcdefgh":
                self.assertEqual(table.get(each), expected.get(each))
                self.assertEqual(each in table, each in expected)

    def test_a_name_takes_few_bytes(self) -> None:
        tracemalloc.start()
        try:
            table = NameTable(columns=1)
            for number in range(50_000):
                table.add(f"a/quite/long/name/of/a/stream/{number}", number)
            size = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        # Most of it are the empty arrays, whose number does not grow.
        self.assertLess(size, 50_000 * 60)
