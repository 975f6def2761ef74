"""The totals of a node against the rows that count what all nodes have written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.queries import Statement
from durable_streams.server.storage.postgres.totals import Totals
from durable_streams.server.testing.values import TEXT
from tests.support.postgres_tables import SCHEMA, Tables

from .nodes import Node


class SilentNode(Node):
    """A node whose commits are made, but never confirmed."""

    is_silent = False

    def commit(self, statement: Statement, parameters: Sequence[bytes | None]) -> Deferred[Any]:
        committed = super().commit(statement, parameters)
        return fail(Unavailable("The write may have been made.")) if self.is_silent else committed


class TotalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tables = Tables(self)
        self.node = SilentNode(self.tables)
        self.is_idle = True
        self.totals = Totals(self.query, SCHEMA, lambda: [self.node.id], lambda: self.is_idle)
        self.node.queue._totals = self.totals
        # The growth that a write adds while the sums are read.
        self.meanwhile: tuple[int, int, int] | None = None

    def query(self, statement: Statement, params: Sequence[bytes | None]) -> Deferred[Any]:
        result = self.node.query(statement, params)
        if self.meanwhile is not None:
            self.totals.add(*self.meanwhile)
        return result

    def refresh(self) -> tuple[int, int, int]:
        self.node.finish(self.totals.refresh())
        return self.totals.streams, self.totals.bytes, self.totals.metadata

    def test_a_write_without_a_certain_outcome_that_was_made_is_counted_by_the_next_refresh(self) -> None:
        self.node.is_silent = True
        self.assertRaises(Unavailable, self.node.create, "a", TEXT, b"three")
        self.assertEqual(0, self.totals.streams)
        counters = self.node.counters
        self.assertEqual((1, 5), counters[:2])
        self.assertEqual(counters, self.refresh())

    def test_a_removal_without_a_certain_outcome_that_was_made_is_subtracted_by_the_next_refresh(self) -> None:
        self.node.create("a", TEXT, b"three")
        self.node.is_silent = True
        self.assertRaises(Unavailable, self.node.delete, "a")
        self.assertEqual((1, 5), (self.totals.streams, self.totals.bytes))
        self.assertEqual((0, 0, 0), self.refresh())

    def test_writes_in_progress_stay_counted(self) -> None:
        self.is_idle = False
        self.totals.add(1, 10, 100)
        self.assertEqual((1, 10, 100), self.refresh())

    def test_a_write_that_begins_while_the_sums_are_read_stays_counted(self) -> None:
        self.meanwhile = (1, 10, 100)
        self.assertEqual((1, 10, 100), self.refresh())

    def test_what_other_nodes_write_is_counted_while_this_one_writes(self) -> None:
        other = Node(self.tables)
        other.create("b", TEXT, b"four")
        metadata = other.totals.metadata
        for self.is_idle in (False, True):
            self.assertEqual((1, 4, metadata), self.refresh())
