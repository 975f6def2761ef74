"""Tests of values in a real database, written by two nodes."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InsufficientStorage, Unavailable, ValuesChanged
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.postgres.stored_values import StoredValues
from tests.support.postgres_tables import SCHEMA, Tables

from .nodes import Node


class ValuesOf:
    """The values as a node has them."""

    def __init__(self, tables: Tables, limits: StorageLimits = StorageLimits()) -> None:  # noqa: B008 (frozen)
        self.node = Node(tables, limits)
        self.values = StoredValues(self.node.query, self.node.queue, SCHEMA, limits, self.node.totals)

    def write(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None] = {}) -> None:
        self.node.finish(self.values.write(puts, expected))

    def page(self, prefix: str = "", after: str = "", max_count: int = 1000) -> list[tuple[str, bytes]]:
        return self.node.finish(self.values.page(prefix, after, max_count))


class StoredValueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tables = Tables(self)
        self.first, self.second = ValuesOf(self.tables), ValuesOf(self.tables)

    def check_counters(self) -> None:
        """Check that the metadata is counted."""
        row = self.tables.connection.execute(
            f"SELECT coalesce(sum(160 + octet_length(key) + octet_length(value)), 0)::int8 FROM {SCHEMA}.key_values"
        ).fetchone()
        self.assertEqual(row, self.first.node.counters[2:])
        for values in (self.first, self.second):
            values.node.finish(values.node.totals.refresh())
            self.assertEqual((values.node.totals.metadata,), row)

    def test_nodes_read_what_others_write(self) -> None:
        self.first.write({"a": b"1", "b": b"2"})
        self.second.write({"a": b"3", "b": None, "c": b""}, {"a": b"1"})
        self.assertEqual(self.first.page(), [("a", b"3"), ("c", b"")])
        with self.assertRaises(ValuesChanged) as caught:
            self.first.write({"a": b"4"}, {"a": b"1"})
        self.assertEqual(caught.exception.key, "a")
        self.check_counters()

    def test_calls_that_come_together_are_one_commit_and_see_each_other(self) -> None:
        batch = self.first.node.batch
        calls = [
            self.first.values.write({"n": b"%d" % number}, {"n": b"%d" % (number - 1) if number else None})
            for number in range(50)
        ]
        wrong = self.first.values.write({"n": b"x", "m": b"x"}, {"n": b"7"})
        last = self.first.values.write({"n": b"50"}, {"n": b"49"})
        for call in calls:
            self.first.node.finish(call)
        self.assertRaises(ValuesChanged, self.first.node.finish, wrong)
        self.first.node.finish(last)
        self.assertEqual(self.first.page(), [("n", b"50")])
        self.assertLessEqual(self.first.node.batch, batch + 2)
        self.check_counters()

    def test_a_key_that_appears_meanwhile_is_noticed(self) -> None:
        actions = [lambda: self.second.write({"x": b"theirs"})]
        self.first.node.between = lambda: actions.pop()() if actions else None
        with self.assertRaises(ValuesChanged):
            self.first.write({"x": b"mine"}, {"x": None})
        self.assertEqual(self.first.page(), [("x", b"theirs")])
        self.check_counters()

    def test_keys_that_must_not_exist_are_not_written_by_another_node_meanwhile(self) -> None:
        """Each of two writes expects that the key of the other is absent: only one of them may succeed."""
        actions = [lambda: self.second.write({"y": b"2"}, {"x": None})]
        self.first.node.between = lambda: actions.pop()() if actions else None
        with self.assertRaises(ValuesChanged):
            self.first.write({"x": b"1"}, {"y": None})
        self.assertEqual(self.first.page(), [("y", b"2")])
        self.check_counters()

    def test_rows_without_values_are_removed(self) -> None:
        self.first.write({"x": b"1"}, {"y": None, "z": None})
        self.assertEqual(self.first.page(), [("x", b"1")])
        self.first.write({"y": b"1"}, {"y": None})
        self.assertFalse(self.first.node.finish(self.first.values.forget_absent()))
        row = self.tables.connection.execute(f"SELECT count(*) FROM {SCHEMA}.key_values").fetchone()
        self.assertEqual(row, (2,))
        self.second.write({"z": b"1"}, {"z": None, "x": b"1"})
        self.check_counters()

    def test_a_value_that_others_change_again_and_again_is_refused(self) -> None:
        self.first.write({"a": b"", "b": b""})
        self.first.node.between = lambda: self.second.write({"a": b"%d" % self.second.node.batch})
        self.assertRaises(Unavailable, self.first.write, {"a": b"mine"}, {"b": b""})
        self.first.node.between = lambda: None
        self.first.write({"a": b"mine"}, {"b": b""})
        self.check_counters()

    def test_long_keys_are_ordered_by_all_their_bytes(self) -> None:
        random = Random(7)
        keys = ["\u2603" * 1300 + chr(random.randrange(0x20, 0xD000)) * 500 for _ in range(20)]
        keys += ["".join(chr(random.randrange(1, 0xD000)) for _ in range(2700)) for _ in range(10)]
        keys += ["a\0b", "a", "a\0", "\x7f", "\U0010ffff", "a\U0010ffff", "b"]
        keys = sorted({key for key in keys if len(key.encode()) <= 8192})
        self.first.write({key: key.encode()[:9] for key in reversed(keys)})
        self.assertEqual([key for key, _ in self.second.page()], keys)
        found: list[str] = []
        while page := self.second.page("", found[-1] if found else "", 3):
            found += [key for key, _ in page]
        self.assertEqual(found, keys)
        for prefix in ("a", "a\0", "\u2603", "\u2603" * 1300, "\U0010ffff", "nothing"):
            self.assertEqual(
                [key for key, _ in self.first.page(prefix)], [key for key in keys if key.startswith(prefix)]
            )
        self.check_counters()

    def test_the_limit_of_metadata_counts_all_calls_of_a_group(self) -> None:
        values = ValuesOf(self.tables, StorageLimits(metadata_bytes=2 * 171))
        calls: list[Deferred[None]] = [values.values.write({f"{number}": b"x" * 10}, {}) for number in range(3)]
        outcomes = gatherResults(calls[:2])
        values.node.finish(outcomes)
        self.assertRaises(InsufficientStorage, values.node.finish, calls[2])
        self.assertEqual(len(values.page()), 2)
        values.write({"0": None, "2": b"x" * 10})
        self.check_counters()

    def test_a_write_whose_answer_was_lost_is_written(self) -> None:
        self.first.node.loses_answers = True
        self.first.write({"a": b"1"}, {"b": None})
        self.first.write({"a": b"2"}, {"a": b"1"})
        self.assertEqual(self.second.page(), [("a", b"2")])
        self.check_counters()
