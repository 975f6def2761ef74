"""Tests of expiry in a real database, whose time the tests set."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import Fork, Lifetime, StreamConfig
from durable_streams.server.storage.postgres import sweeping
from durable_streams.server.storage.postgres.sweeping import RowCleaner, Sweep
from durable_streams.server.testing.values import T0, TEXT
from tests.support.postgres_tables import SCHEMA, Tables

from .nodes import Node

MINUTE = StreamConfig("text/plain", Lifetime(ttl=60))


class SweepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tables = Tables(self)
        self.tables.freeze(T0)
        self.node = Node(self.tables)
        self.is_holder = True
        self._sweep = Sweep(self.node.query, SCHEMA, self.node.changes, self.node.uses, lambda: self.is_holder)
        self.cleaner = RowCleaner(self.node.query, SCHEMA)

    def rows(self, query: str, *params: object) -> list[tuple[object, ...]]:
        return self.tables.connection.execute(query.replace("{}", SCHEMA), params).fetchall()

    def use(self, stream_id: int, used_at: float) -> None:
        """Write a use of a stream."""
        change = "UPDATE {}.streams SET used_at = %s, version = version + 1 WHERE id = %s RETURNING 1"
        self.rows(change, used_at, stream_id)

    def sweep(self, max_count: int = 1000) -> int:
        return self.node.finish(self._sweep.sweep(max_count))

    def names(self) -> list[object]:
        return [name for (name,) in self.rows("SELECT name FROM {}.streams ORDER BY name")]

    def test_expired_streams_are_removed_in_groups(self) -> None:
        for number in range(30):
            self.node.create(f"{number:02}", MINUTE, b"x")
        self.node.create("stays", TEXT)
        self.assertEqual(self.sweep(), 0)
        self.tables.freeze(T0 + 60)
        self.assertEqual(self.sweep(10), 10)
        self.assertEqual(len(self.names()), 21)
        batch = self.node.batch
        self.assertEqual((self.sweep(), self.sweep()), (20, 0))
        self.assertEqual((self.names(), self.node.batch), (["stays"], batch + 1))
        self.assertIn("07", self.node.heard)
        self.assertEqual(self.node.counters[:2], (1, 0))

    def test_a_full_queue_stops_a_sweep_which_goes_on_later(self) -> None:
        for number in range(5):
            self.node.create(f"{number}", MINUTE, b"x")
        self.tables.freeze(T0 + 60)
        self.patch(self.node.queue, "_max_bytes", 2_500)
        self.assertRaises(Unavailable, self.sweep)
        self.assertEqual(self.names(), ["2", "3", "4"])
        self.patch(self.node.queue, "_max_bytes", 1 << 20)
        self.assertEqual((self.sweep(), self.names(), self.node.counters), (3, [], (0, 0, 0)))

    def test_only_the_holder_of_the_task_sweeps(self) -> None:
        self.node.create("a", MINUTE)
        self.tables.freeze(T0 + 60)
        self.is_holder = False
        self.assertEqual((self.sweep(), self.names()), (0, ["a"]))
        self.is_holder = True
        self.assertEqual((self.sweep(), self.names()), (1, []))

    def test_streams_that_were_used_stay_and_are_not_read_again_before_they_may_expire(self) -> None:
        self.patch(sweeping, "_AT_ONCE", 5)
        ids = [self.node.create(f"{number:02}", MINUTE).facts.id for number in range(30)]
        self.tables.freeze(T0 + 40)
        for stream_id in ids[:20]:
            self.use(stream_id, T0 + 30)
        for stream_id in ids[20:25]:
            self.node.uses.times[stream_id] = T0 + 35
        self.tables.freeze(T0 + 60)
        self.assertEqual(self.sweep(), 5)
        due = self.rows("SELECT DISTINCT due FROM {}.streams ORDER BY 1")
        self.assertEqual(due, [(T0 + 90,), (T0 + 95,)])
        self.node.uses.times.clear()
        self.tables.freeze(T0 + 95)
        self.assertEqual((self.sweep(), self.names()), (25, []))

    def test_a_stream_that_is_used_while_it_is_swept_stays(self) -> None:
        stream_id = self.node.create("a", MINUTE).facts.id
        self.tables.freeze(T0 + 60)
        self.node.between = lambda: self.use(stream_id, T0 + 59)
        self.assertEqual((self.sweep(), self.names()), (0, ["a"]))

    def test_a_family_that_expires_together_is_removed(self) -> None:
        self.node.create("a", MINUTE, b"a")
        self.node.create("b", StreamConfig(fork=Fork("a")), b"b")
        self.node.create("c", StreamConfig(fork=Fork("b")), b"c")
        self.tables.freeze(T0 + 60)
        self.assertEqual(self.sweep(2), 2)
        self.assertEqual((self.sweep(), self.names()), (1, []))
        self.assertEqual(self.node.counters, (0, 0, 0))

    def test_rows_of_removed_streams_are_removed_in_slices(self) -> None:
        for name in ("a", "b", "c"):
            head = self.node.create(name, TEXT, b"x").facts
            for number in range(1, 12):
                self.rows(
                    "INSERT INTO {}.chunks VALUES (%s, %s, %s, %s, '', 0, 'x') RETURNING 1",
                    head.id,
                    number,
                    number + 1,
                    number,
                )
                self.rows("INSERT INTO {}.writers VALUES (%s, %s, 0, 0, 0) RETURNING 1", head.id, f"{number}")
            self.rows("UPDATE {}.streams SET tail = 12, writers = 11 RETURNING 1")
        for name in ("a", "b"):
            self.node.delete(name)
        left = []
        while self.node.finish(self.cleaner.clean(streams=2, rows=4, size=6)):
            left.append(self.rows("SELECT count(*) FROM {}.chunks")[0][0])
        self.assertEqual(left[:3], [30, 24, 18])
        self.assertEqual(left[-1], 12)
        self.assertEqual(self.rows("SELECT count(*) FROM {}.writers"), [(11,)])
        self.assertEqual(self.rows("SELECT count(*) FROM {}.removed"), [(0,)])

    def test_a_stream_without_data_leaves_no_rows(self) -> None:
        self.node.create("a", MINUTE)
        self.node.delete("a")
        self.assertEqual(self.rows("SELECT count(*) FROM {}.removed"), [(0,)])
