"""Tests of the table of values, beside a plain dict."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.values import VALUE_BYTES, ValueTable

_keys = some.text("ab/\u2603", min_size=1, max_size=3)
_puts = some.dictionaries(_keys, some.one_of(some.none(), some.binary(max_size=4)))


class ValueTableTests(SynchronousTestCase):
    @given(some.lists(_puts), some.sampled_from(["", "a", "a/", "b"]), _keys, some.integers(0, 4), some.integers(0, 20))
    def test_a_table_agrees_with_a_dict(
        self, writes: list[dict[str, bytes | None]], prefix: str, after: str, count: int, size: int
    ) -> None:
        table, plain = ValueTable(), dict[str, bytes]()
        for puts in writes:
            self.assertEqual(table.changes(puts), {key: puts[key] for key in puts if puts[key] != plain.get(key)})
            grown = table.size + table.growth(puts)
            table.apply(puts)
            plain = {key: value for key, value in {**plain, **puts}.items() if value is not None}
            self.assertEqual(table.size, grown)
        self.assertEqual(table.size, sum(VALUE_BYTES + len(key.encode()) + len(plain[key]) for key in plain))
        self.assertEqual(len(table), len(plain))
        found = [item for item in sorted(plain.items()) if item[0].startswith(prefix) and item[0] > after]
        self.assertEqual(table.page(prefix, after, count), found[:count])
        page = table.page(prefix, after, 100, size)
        self.assertEqual(page, found[: len(page)])
        sizes = [len(key) + len(value) for key, value in page]
        self.assertLessEqual(sum(sizes[:-1]), size)
        self.assertTrue(len(page) == len(found) or sum(sizes) > size)

    def test_pages_of_a_bounded_size_reach_every_value(self) -> None:
        values = {f"{number:05d}": b"x" * (number % 900) for number in range(3000)}
        table = ValueTable(values)
        read: list[tuple[str, bytes]] = []
        while page := table.page("", read[-1][0] if read else "", 100, 2000):
            read += page
        self.assertEqual(dict(read), values)

    def test_the_counted_memory_of_a_value_is_about_what_it_takes(self) -> None:
        count = 20_000
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            table = ValueTable()
            for number in range(count):
                table.apply({f"links/{number % 100}/events/{number}": b"%d" % number * 20})
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        self.assertLess(abs(taken - table.size) / count, 80)
