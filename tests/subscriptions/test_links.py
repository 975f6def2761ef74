"""The links of a subscription in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.links import SORTED_FROM, LinkTable
from durable_streams.server.subscriptions.model import Link, StreamTail


class LinkTableTests(SynchronousTestCase):
    def test_pending_follows_tails_and_cursors(self) -> None:
        tails = {"a": StreamTail(1, 1, 5)}
        table = LinkTable(tails)
        table.apply({"a": Link(False, 1, 1, 5), "b": Link(True)})
        self.assertEqual((set(), 0), (set(table.pending), table.pending_bytes))
        tails["a"] = StreamTail(1, 1, 9)
        self.assertTrue(table.refresh("a"))
        self.assertFalse(table.refresh("c"))
        self.assertEqual(({"a"}, 4), (set(table.pending), table.pending_bytes))
        tails["a"] = StreamTail(2, 2, 3)
        table.refresh("a")
        self.assertEqual(3, table.pending_bytes, "a cursor of an earlier stream counts as the start")
        del tails["a"]
        self.assertFalse(table.refresh("a"))
        tails["b"] = StreamTail(3, 3, 1)
        self.assertTrue(table.refresh("b"))
        table.apply({"b": None, "a": None})
        self.assertEqual((set(), 0), (set(table.pending), len(table)))

    def test_tables_that_were_pending_share_nothing_that_changes(self) -> None:
        tails = {"a": StreamTail(1, 1, 5)}
        tables = [LinkTable(tails), LinkTable(tails)]
        for _ in range(2):
            tables[0].apply({"a": Link(True)})
            self.assertEqual([{"a"}, set()], [set(table.pending) for table in tables])
            tables[0].apply({"a": Link(True, 1, 1, 5)})
            self.assertEqual([set(), set()], [set(table.pending) for table in tables])

    def test_a_large_table_stays_sorted_when_nothing_is_pending_for_a_while(self) -> None:
        tails = {str(number): StreamTail(number, number, 5) for number in range(SORTED_FROM + 1)}
        table = LinkTable(tails)
        table.apply({path: Link(True, tail.stream_id, 1, 5) for path, tail in tails.items()})
        for _ in range(2):
            table.apply({"9": Link(True), "10": Link(True)})
            self.assertEqual(["10", "9"], list(table.pending), "in order, without a search for the first ones")
            table.apply({path: Link(True, tails[path].stream_id, 1, 5) for path in ("9", "10")})
            self.assertEqual([], list(table.pending))

    def test_the_first_pending_paths_are_the_same_for_few_and_for_many_links(self) -> None:
        for count in (SORTED_FROM - 1, SORTED_FROM + 1):
            tails = {f"s/{number:06d}": StreamTail(number, number, 5) for number in reversed(range(count))}
            table = LinkTable(tails)
            table.apply({path: Link(False) for path in tails})
            table.apply({"s/000001": None, "s/000003": Link(False, 3, 3, 5)})
            first = table.first_pending(3, {"s/000002"})
            self.assertEqual(["s/000000", "s/000004", "s/000005"], first)
            self.assertEqual((count - 2) * 5, table.pending_bytes)

    def test_pages_are_sorted(self) -> None:
        table = LinkTable({})
        table.apply({path: Link(True) for path in "dbca"})
        self.assertEqual((["b", "c"], ["d"]), (table.page("a", 2), table.page("c", 2)))
