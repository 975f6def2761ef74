"""Tests of lists and records from a real database."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamGone, StreamNotFound
from durable_streams.server.model import Fork, Lifetime, StreamConfig, WriterState
from durable_streams.server.storage.postgres import listing
from durable_streams.server.storage.postgres.listing import Listing, end_of
from durable_streams.server.testing.values import T0, TEXT
from tests.support.postgres_tables import SCHEMA, Tables

from .nodes import Node

MINUTE = StreamConfig("text/plain", Lifetime(ttl=60))


class ListingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tables = Tables(self)
        self.tables.freeze(T0)
        self.node = Node(self.tables)
        self.listing = Listing(self.node.query, SCHEMA, self.node.uses)

    def names(self, after: str = "", max_count: int = 1000, prefix: str = "") -> list[str]:
        found = self.node.finish(self.listing.statuses(after, max_count, prefix))
        return [status.facts.name for status in found]

    def test_pages_leave_out_hidden_and_expired_streams_and_are_full(self) -> None:
        self.patch(listing, "_AT_ONCE", 3)
        for number in range(20):
            self.node.create(f"{number:02}", MINUTE if number % 3 == 0 else TEXT)
        for number in (1, 4, 7):
            self.node.create(f"fork-{number}", StreamConfig(fork=Fork(f"{number:02}")))
            self.node.delete(f"{number:02}")
        self.tables.freeze(T0 + 60)
        expected = [f"{number:02}" for number in range(20) if number % 3 and number not in (1, 4, 7)]
        expected += ["fork-1", "fork-4", "fork-7"]
        self.assertEqual(self.names(), expected)
        found: list[str] = []
        while page := self.names(found[-1] if found else "", 4):
            self.assertEqual(len(page), min(4, len(expected) - len(found)))
            found += page
        self.assertEqual(found, expected)

    def test_a_use_that_is_not_written_yet_counts(self) -> None:
        facts = self.node.create("a", MINUTE).facts
        self.tables.freeze(T0 + 60)
        self.assertEqual(self.names(), [])
        self.node.uses.times[facts.id] = T0 + 30
        self.assertEqual(self.names(), ["a"])
        self.assertEqual(self.node.finish(self.listing.record("a", False)).used_at, T0 + 30)

    def test_prefixes_end_before_the_next_text(self) -> None:
        self.assertEqual(end_of(""), None)
        self.assertEqual(end_of("\U0010ffff\U0010ffff"), None)
        self.assertEqual(end_of("a"), "b")
        self.assertEqual(end_of("a\U0010ffff"), "b")
        self.assertEqual(end_of("a\ud7ff"), "a\ue000")
        names = ["a", "a\ud7ff", "a\ud7ff1", "a\ue000", "a\U0010ffff", "a\U0010ffffx", "b", "\U0010ffff"]
        for name in names:
            self.node.create(name)
        for prefix in ("", *names, "c"):
            self.assertEqual(self.names(prefix=prefix), [name for name in names if name.startswith(prefix)], prefix)

    def test_a_record_has_the_writers_by_the_time_at_which_they_were_seen(self) -> None:
        head = self.node.create("a", TEXT, b"x").facts
        for writer, seen in (("v", T0 + 3), ("w", T0 + 1), ("x", T0 + 2)):
            self.tables.connection.execute(
                f"INSERT INTO {SCHEMA}.writers VALUES (%s, %s, 1, 2, %s)", (head.id, writer, seen)
            )
        record = self.node.finish(self.listing.record("a", False))
        self.assertEqual(next(iter(record.writers.items())), ("w", WriterState(1, 2, T0 + 1)))
        self.assertEqual(list(record.writers), ["w", "x", "v"])
        self.node.create("b", StreamConfig(fork=Fork("a")))
        fork = self.node.finish(self.listing.record("b", False))
        self.assertEqual((fork.source, fork.source_id, fork.writers, fork.base), ("a", head.id, {}, 1))

    def test_hidden_streams_have_records_only_if_asked_for(self) -> None:
        self.node.create("a", MINUTE, b"x")
        self.node.create("b", StreamConfig(lifetime=Lifetime(ttl=600), fork=Fork("a")))
        self.tables.freeze(T0 + 60)
        for _ in range(2):
            with self.assertRaises(StreamGone):
                self.node.finish(self.listing.record("a", False))
            record = self.node.finish(self.listing.record("a", True))
            self.assertEqual((record.deleted, record.forks), (True, 1))
            self.tables.connection.execute(f"UPDATE {SCHEMA}.streams SET deleted = true WHERE name = 'a'")
        for hidden in (False, True):
            with self.assertRaises(StreamNotFound):
                self.node.finish(self.listing.record("c", hidden))
