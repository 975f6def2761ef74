"""Tests of the reads that find what other nodes have changed, in a real database."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.model import KnownTail, StorageLimits
from durable_streams.server.storage.postgres.shared_reads import SharedReads
from durable_streams.server.storage.postgres.stored_values import StoredValues
from tests.storage.postgres.nodes import Node
from tests.support.postgres_tables import SCHEMA, Tables

T = TypeVar("T")


class SharedReadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        tables = Tables(self)
        self.node = Node(tables)
        self.reads = SharedReads(tables.query, SCHEMA)
        self.values = StoredValues(tables.query, self.node.queue, SCHEMA, StorageLimits(), self.node.totals)

    def get(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        result: T = self.successResultOf(Deferred.fromCoroutine(work))
        return result

    def write(self, puts: Mapping[str, bytes | None]) -> None:
        self.node.finish(self.values.write(puts, {}))

    def known(self, name: str) -> KnownTail:
        head = self.node.head(name)
        assert head is not None
        return KnownTail(name, head.facts.id, head.facts.incarnation, head.tail)

    def test_values_are_read_by_their_keys(self) -> None:
        self.write({"a": b"1", "b": b"2", "\u00e9/c": b""})
        self.assertEqual(self.get(self.reads.read_values(["a", "\u00e9/c", "d"])), {"a": b"1", "\u00e9/c": b""})
        self.write({"a": None})
        self.assertEqual(self.get(self.reads.read_values(["a"])), {})
        self.assertEqual(self.get(self.reads.read_values([])), {})

    def test_values_are_counted_by_their_prefix(self) -> None:
        self.write({"a/1": b"", "a/\u00ff": b"", "a": b"", "b/1": b"", "a0": b""})
        self.assertEqual([self.get(self.reads.count_values(each)) for each in ("a/", "a", "c", "")], [2, 4, 0, 5])
        self.write({"a/1": None})
        self.assertEqual(self.get(self.reads.count_values("a/")), 1)

    def test_only_streams_that_differ_are_returned(self) -> None:
        self.node.create("a", body=b"12")
        self.node.create("b")
        a, b = self.known("a"), self.known("b")
        self.assertEqual(self.get(self.reads.changed_tails([a, b, KnownTail("c")])), [])
        behind = KnownTail("a", a.stream_id, a.incarnation, 1)
        self.assertEqual(self.get(self.reads.changed_tails([b, behind, KnownTail("c")])), [a])
        self.assertEqual(self.get(self.reads.changed_tails([KnownTail("b")])), [b])

    def test_a_stream_that_was_deleted_or_made_again_differs(self) -> None:
        self.node.create("a")
        before = self.known("a")
        self.node.delete("a")
        self.assertEqual(self.get(self.reads.changed_tails([before])), [KnownTail("a")])
        self.node.create("a")
        self.assertEqual(self.get(self.reads.changed_tails([before])), [self.known("a")])

    def test_streams_that_were_created_after_another_one(self) -> None:
        self.assertEqual(self.get(self.reads.last_id()), 0)
        self.node.create("a")
        last = self.get(self.reads.last_id())
        self.assertEqual(self.get(self.reads.created_after(last)), [])
        self.node.create("c")
        self.node.create("b")
        expected = [(self.known(name).stream_id, name) for name in ("c", "b")]
        self.assertEqual(self.get(self.reads.created_after(last)), expected)
        self.node.delete("c")
        self.assertEqual(self.get(self.reads.created_after(last)), expected[1:])

    def test_all_streams_are_found_page_by_page(self) -> None:
        self.node.connection.execute(
            f"INSERT INTO {SCHEMA}.streams (id, name, incarnation, content_type, config, created_at, updated_at, "
            "used_at, closed, base, tail) SELECT n, 's' || n, n, '', '', 0, 0, 0, false, 0, 0 "
            "FROM generate_series(1, 12001) AS n"
        )
        found = self.get(self.reads.created_after(0))
        self.assertEqual([stream_id for stream_id, _ in found], list(range(1, 12_002)))
