"""Tests of changes of several streams in a real database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import (
    InsufficientStorage,
    InvalidRequest,
    PathBlocked,
    ReplacementHasForks,
    StreamExists,
    StreamNotFound,
    Unavailable,
)
from durable_streams.server.model import (
    FOREVER,
    MAX_INCARNATION,
    Fork,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamRestoration,
    WriterState,
)
from durable_streams.server.storage.postgres.heads import Head
from durable_streams.server.testing.values import JSON, T0, TEXT
from tests.support.postgres_tables import SCHEMA, Tables

from .nodes import Node

T = TypeVar("T")

HOUR = StreamConfig("text/plain", Lifetime(ttl=3600))


class ChangeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tables = Tables(self)
        self.tables.freeze(T0)
        self.node = Node(self.tables)
        self.other = Node(self.tables)

    def rows(self, query: str, *params: object) -> list[tuple[object, ...]]:
        return self.tables.connection.execute(query.replace("{}", SCHEMA), params).fetchall()

    def names(self) -> list[object]:
        return [name for (name,) in self.rows("SELECT name FROM {}.streams ORDER BY name")]

    def check_counters(self) -> None:
        """Check that the counters are those of the rows, and that the node knows them."""
        (counted,) = self.rows("SELECT count(*), coalesce(sum(tail - base), 0)::int8 FROM {}.streams")
        self.assertEqual(self.node.counters[:2], counted)
        for node in (self.node, self.other):
            node.finish(node.totals.refresh())
            self.assertEqual((node.totals.streams, node.totals.bytes, node.totals.metadata), node.counters)

    def test_a_created_stream_has_a_row_a_chunk_and_is_counted(self) -> None:
        created = self.node.create("a", HOUR, b"hello")
        self.assertEqual((created.new, created.tail, created.closed), (True, 5, False))
        head = self.other.head("a")
        assert head is not None
        self.assertEqual((head.facts, head.version), (created.facts, 1))
        self.assertEqual((head.created_at, head.lifetime), (T0, HOUR.lifetime))
        self.assertEqual(self.rows("SELECT start, finish, first, data FROM {}.chunks"), [(0, 5, 0, b"hello")])
        self.assertEqual(self.rows("SELECT due FROM {}.streams"), [(T0 + 3600,)])
        self.assertEqual(self.node.counters, (1, 5, 11))
        self.assertEqual(self.node.heard, ["a"])
        self.check_counters()

    def test_many_creations_are_one_statement(self) -> None:
        deferreds = [self.node.changes.create(f"{number:03}", TEXT, b"x" * (number % 3), None) for number in range(100)]
        created = [self.node.finish(deferred) for deferred in deferreds]
        self.assertEqual(self.node.batch, 1)
        self.assertEqual(len({each.facts.id for each in created}), 100)
        for number, each in enumerate(created):
            head = self.node.head(f"{number:03}")
            assert head is not None
            self.assertEqual((each.facts, each.tail), (head.facts, number % 3))
        self.check_counters()

    def together(self, *operations: Deferred[T]) -> list[T]:
        """Return the results of operations that were begun together."""
        return [self.node.finish(operation) for operation in operations]

    def test_forks_that_come_together_are_one_statement(self) -> None:
        for source in "ab":
            self.node.create(source, TEXT, b"hello")
        self.node.create("b-7", TEXT)
        batch = self.node.batch
        create = self.node.changes.create
        names = [f"{source}-{number}" for number in range(30) for source in "ab" if (source, number) != ("b", 7)]
        forks = [create(name, StreamConfig(fork=Fork(name[0])), b"x" * (ord(name[-1]) % 3), None) for name in names]
        taken = create("b-7", StreamConfig(fork=Fork("b")), b"", None)
        created = self.together(*forks)
        with self.assertRaises(StreamExists):
            self.node.finish(taken)
        self.assertEqual(self.node.batch, batch + 1)
        for name, each in zip(names, created, strict=True):
            head = self.node.head(name)
            assert head is not None
            self.assertEqual((each.facts, each.tail), (head.facts, 5 + ord(name[-1]) % 3))
            self.assertEqual((head.base, head.depth, head.source_id is None), (5, 1, False))
        self.assertEqual(
            self.rows("SELECT name, forks, version FROM {}.streams WHERE depth = 0 ORDER BY name"),
            [("a", 30, 2), ("b", 29, 2), ("b-7", 0, 1)],
        )
        starts = "SELECT DISTINCT start, first FROM {}.chunks JOIN {}.streams ON id = stream_id WHERE depth = 1"
        self.assertEqual(self.rows(starts), [(5, 5)])
        self.check_counters()
        self.node.delete("a")
        batch = self.node.batch
        self.together(*[self.node.changes.delete(name) for name in names if name[0] == "b"])
        self.assertEqual(self.node.batch, batch + 1)
        self.assertEqual(self.rows("SELECT forks, version FROM {}.streams WHERE name = 'b'"), [(0, 3)])
        self.together(*[self.node.changes.delete(name) for name in names if name[0] == "a"])
        self.assertEqual(self.names(), ["b", "b-7"])
        self.check_counters()

    def test_a_group_of_forks_leaves_out_those_whose_source_is_deleted_meanwhile(self) -> None:
        for source in "ab":
            self.node.create(source, TEXT, b"hello")
        self.node.between = self.once(lambda: self.other.delete("a"))
        create = self.node.changes.create
        first = create("1", StreamConfig(fork=Fork("a")), b"", None)
        second = create("2", StreamConfig(fork=Fork("b")), b"", None)
        self.assertTrue(self.node.finish(second).new)
        with self.assertRaises(StreamNotFound):
            self.node.finish(first)
        self.node.create("c", StreamConfig(fork=Fork("b")))
        self.node.between = self.once(lambda: self.other.delete("b"))
        self.node.delete("c")
        self.node.delete("2")
        self.assertEqual(self.names(), [])
        self.check_counters()

    def test_of_equal_creations_one_is_new_and_the_others_find_it(self) -> None:
        deferreds = [node.changes.create("a", TEXT, b"x", None) for node in [self.node, self.other] * 5]
        created = [self.node.finish(each) for each in deferreds[::2]] + [
            self.other.finish(each) for each in deferreds[1::2]
        ]
        self.assertEqual([each.new for each in created].count(True), 1)
        self.assertEqual(len({each.facts.id for each in created}), 1)
        self.assertEqual(self.rows("SELECT count(*) FROM {}.chunks"), [(1,)])
        self.check_counters()

    def test_a_creation_whose_answer_was_lost_is_found(self) -> None:
        self.node.loses_answers = True
        created = self.node.create("a", TEXT, b"x")
        self.assertEqual((created.new, created.tail), (True, 1))
        fork = self.node.create("b", StreamConfig(fork=Fork("a")), b"y")
        self.assertEqual((fork.new, fork.tail), (True, 2))
        self.node.delete("b")
        self.node.delete("a")
        self.assertEqual(self.names(), [])
        self.check_counters()

    def test_a_large_body_has_several_chunks(self) -> None:
        self.node.create("a", TEXT, b"x" * (3 << 20))
        self.assertEqual(self.rows("SELECT count(*), sum(finish - start)::int8 FROM {}.chunks"), [(3, 3 << 20)])
        self.check_counters()

    def test_a_name_that_has_no_room_in_the_index_is_refused(self) -> None:
        error = self.assertRaises(InvalidRequest, self.node.create, "x" * 2501)
        self.assertIn("2500", str(error))
        self.node.create("\u2603" * 833)

    def test_a_stream_that_was_changed_meanwhile_is_looked_up_again(self) -> None:
        self.node.create("a", TEXT, b"hello")
        self.node.between = self.once(lambda: self.other.create("b", StreamConfig(fork=Fork("a"))))
        self.node.create("c", StreamConfig(fork=Fork("a")))
        head = self.node.head("a")
        assert head is not None
        self.assertEqual(head.forks, 2)
        self.node.between = self.once(lambda: self.other.create("d", StreamConfig(fork=Fork("a"))))
        self.node.delete("a")
        self.assertEqual(self.rows("SELECT deleted, forks FROM {}.streams WHERE name = 'a'"), [(True, 3)])
        self.assertEqual(self.node.queue.misses, 1)
        self.check_counters()

    def test_an_append_meanwhile_keeps_no_stream_from_being_forked_or_deleted(self) -> None:
        self.node.create("a", TEXT, b"hello")

        def append() -> None:
            self.tables.connection.execute(
                f"UPDATE {SCHEMA}.streams SET tail = tail + 1, version = version + 1, sequence = '12' WHERE name = 'a'"
            )
            self.tables.connection.execute(
                f"UPDATE {SCHEMA}.nodes SET bytes = bytes + 1 WHERE id = %s", (self.node.id,)
            )
            self.node.totals.add(0, 1, 0)

        self.node.between = append
        created = self.node.create("b", StreamConfig(fork=Fork("a")))
        self.assertEqual((created.tail, self.node.queue.misses), (5, 0))
        self.node.delete("b")
        self.node.delete("a")
        self.assertEqual((self.names(), self.node.queue.misses), ([], 0))
        self.node.between = lambda: None
        self.assertEqual(self.node.counters[:2], (0, 0))

    def test_an_expired_stream_that_was_used_meanwhile_is_not_replaced(self) -> None:
        self.node.create("a", HOUR)
        self.tables.freeze(T0 + 3600)
        use = f"UPDATE {SCHEMA}.streams SET used_at = {T0 + 3600}, version = version + 1"
        self.node.between = self.once(lambda: self.tables.connection.execute(use))
        self.assertRaises(StreamExists, self.node.create, "a", JSON)
        self.tables.freeze(T0 + 7200)
        again = self.node.create("a", JSON)
        self.assertEqual((again.new, again.facts.media_type), (True, "application/json"))
        self.check_counters()

    def test_an_expiry_between_the_look_up_and_the_write_counts(self) -> None:
        self.node.create("a", HOUR, b"x")
        self.node.between = self.once(lambda: self.tables.freeze(T0 + 3600))
        self.assertRaises(StreamNotFound, self.node.create, "b", StreamConfig(fork=Fork("a")))
        self.tables.freeze(T0)
        self.node.between = self.once(lambda: self.tables.freeze(T0 + 3600))
        self.assertRaises(StreamNotFound, self.node.delete, "a")
        self.assertEqual(self.names(), ["a"])

    def test_a_use_that_is_not_written_yet_counts(self) -> None:
        facts = self.node.create("a", HOUR, b"x").facts
        self.tables.freeze(T0 + 3600)
        self.node.uses.times[facts.id] = T0 + 1
        self.assertFalse(self.node.create("a", HOUR).new)
        self.assertTrue(self.other.create("a", HOUR).new)

    def test_deleted_sources_are_removed_with_their_last_fork(self) -> None:
        self.node.create("a", TEXT, b"a")
        self.node.create("b", StreamConfig(fork=Fork("a")), b"b")
        self.node.create("c", StreamConfig(fork=Fork("b")), b"c")
        self.node.delete("b")
        self.node.delete("a")
        self.assertRaises(PathBlocked, self.node.create, "a")
        self.assertEqual(
            self.rows("SELECT name, due FROM {}.streams WHERE deleted ORDER BY 1"), [("a", None), ("b", None)]
        )
        self.check_counters()
        self.other.delete("c")
        self.assertEqual(self.names(), [])
        self.assertEqual(self.rows("SELECT count(*) FROM {}.removed"), [(3,)])
        self.assertEqual(self.node.counters, (0, 0, 0))
        self.check_counters()

    def test_a_missed_change_set_changes_nothing(self) -> None:
        self.node.create("a", TEXT, b"a")
        self.node.create("b", StreamConfig(fork=Fork("a")), b"b")
        before = self.rows("SELECT id, version, forks, deleted FROM {}.streams ORDER BY id")
        batch = self.node.batch
        source = self.node.head("a")
        assert source is not None

        def fork_and_delete() -> None:
            name = f"other-{self.node.batch}"
            self.other.create(name, StreamConfig(fork=Fork("a")))
            self.forks.append(name)

        self.forks: list[str] = []
        self.node.between = fork_and_delete
        error = self.assertRaises(Unavailable, self.node.delete, "a")
        self.assertIn("Retry later", str(error))
        self.assertGreater(self.node.batch, batch + 10)
        self.assertEqual(self.names(), sorted(["a", "b", *self.forks]))
        for name in self.forks:
            self.other.delete(name)
        (now,) = self.rows("SELECT forks FROM {}.streams WHERE name = 'a'")
        self.assertEqual(
            (now, before[1]), ((1,), self.rows("SELECT id, version, forks, deleted FROM {}.streams ORDER BY id")[1])
        )
        self.check_counters()

    def test_writers_and_stream_seq_of_removed_streams_are_counted(self) -> None:
        self.node.create("a", TEXT, b"a")
        self.node.create("b", StreamConfig(fork=Fork("a")))
        self.node.create("c", TEXT)
        for name in ("a", "b", "c"):
            head = self.node.head(name)
            assert head is not None
            self.tables.connection.execute(
                f"UPDATE {SCHEMA}.streams SET writers = 2, sequence = '123' WHERE name = %s", (name,)
            )
            self.tables.connection.execute(
                f"INSERT INTO {SCHEMA}.writers VALUES (%s, 'v', 0, 0, 0), (%s, 'ww', 0, 0, 0)", (head.facts.id,) * 2
            )
            size = 2 * 256 + 3 + 3
            self.node.totals.add(0, 0, size)
            self.tables.connection.execute(
                f"UPDATE {SCHEMA}.nodes SET metadata = metadata + %s WHERE id = %s", (size, self.node.id)
            )
        for name in ("a", "c", "b"):
            self.node.delete(name)
        self.assertEqual(self.node.counters, (0, 0, 0))
        self.check_counters()

    def test_closing_waits_for_operations_that_are_not_decided_yet(self) -> None:
        self.node.create("a", TEXT, b"x")
        looking_up: Deferred[None] = Deferred()
        fresh = self.node.fresh

        async def slow(name: str) -> Head | None:
            await looking_up
            return await fresh(name)

        self.patch(self.node, "fresh", slow)
        deleting = self.node.changes.delete("a")
        closed = self.node.changes.close()
        self.assertRaises(Unavailable, self.node.changes.delete, "a")
        self.assertNoResult(closed)
        looking_up.callback(None)
        self.node.finish(deleting)
        self.node.finish(closed)
        self.node.finish(self.node.queue.close())
        self.assertEqual(self.names(), [])

    def test_a_cancelled_operation_is_performed_and_its_result_discarded(self) -> None:
        deleting = self.node.changes.create("a", TEXT, b"x", None)
        deleting.cancel()
        self.failureResultOf(deleting, CancelledError)
        self.node.clock.advance(1)
        self.assertEqual(self.names(), ["a"])
        self.check_counters()

    # Installing

    def staged(self, body: bytes = b"new", name: str = "__ds/1") -> str:
        self.node.create(name, HOUR, body)
        return name

    def test_an_installed_stream_has_the_restored_state(self) -> None:
        staged = self.staged()
        head = self.node.head(staged)
        assert head is not None
        self.tables.connection.execute(f"INSERT INTO {SCHEMA}.writers VALUES (%s, 'w', 9, 9, 9)", (head.facts.id,))
        self.tables.connection.execute(f"UPDATE {SCHEMA}.streams SET writers = 1")
        self.tables.connection.execute(
            f"UPDATE {SCHEMA}.nodes SET metadata = metadata + 257 WHERE id = %s", (self.node.id,)
        )
        self.node.totals.add(0, 0, 257)
        writers = {"w": WriterState(1, 2, 3.5), "v": WriterState(4, 5, 6.5)}
        restoration = StreamRestoration(
            TEXT, Lifetime(ttl=60), True, b"17", writers, T0 - 50, T0 - 40, T0 - 30, head.facts.incarnation + 10**12
        )
        status = self.node.install(staged, "a", restoration)
        self.assertEqual(
            (status.facts.name, status.facts.id, status.facts.incarnation),
            ("a", head.facts.id, restoration.incarnation),
        )
        self.assertEqual((status.tail, status.closed, status.lifetime), (3, True, Lifetime(ttl=60)))
        self.assertEqual((status.created_at, status.updated_at), (T0 - 50, T0 - 40))
        self.assertEqual(
            self.rows("SELECT writer, epoch, seq, seen FROM {}.writers ORDER BY 1"),
            [("v", 4, 5, 6.5), ("w", 1, 2, 3.5)],
        )
        self.assertEqual(
            self.rows("SELECT used_at, due, sequence, writers FROM {}.streams"), [(T0 - 30, T0 + 30, b"17", 2)]
        )
        self.assertEqual(self.node.counters, (1, 3, 11 + 2 * 257 + 2))
        self.check_counters()
        self.assertGreater(self.node.create("b").facts.id, restoration.incarnation or 0)
        self.assertIn("a", self.node.heard)

    def test_the_greatest_incarnation_leaves_room_for_ids(self) -> None:
        self.node.install(self.staged(), "a", StreamRestoration(TEXT, FOREVER, incarnation=MAX_INCARNATION))
        self.node.install(self.staged(), "b", StreamRestoration(TEXT, FOREVER, incarnation=MAX_INCARNATION))
        ids = [self.node.create(name).facts.id for name in "cd"]
        self.assertTrue(all(MAX_INCARNATION < each < 10**16 for each in ids))
        self.assertEqual(len(set(ids)), 2)

    def test_a_replaced_stream_goes_with_its_deleted_source(self) -> None:
        self.node.create("s", TEXT, b"source")
        self.node.create("a", StreamConfig(fork=Fork("s")), b"old")
        self.node.delete("s")
        self.node.install(self.staged(), "a", StreamRestoration(TEXT, FOREVER), replace=True)
        self.assertEqual((self.names(), self.node.counters[:2]), (["a"], (1, 3)))
        self.check_counters()

    def test_a_stream_that_gets_a_fork_meanwhile_is_not_replaced(self) -> None:
        self.node.create("a", TEXT, b"old")
        staged = self.staged()
        self.node.between = self.once(lambda: self.other.create("b", StreamConfig(fork=Fork("a"))))
        restoration = StreamRestoration(TEXT, FOREVER)
        self.assertRaises(ReplacementHasForks, self.node.install, staged, "a", restoration, True)
        self.assertEqual(self.names(), ["__ds/1", "a", "b"])
        self.check_counters()

    def test_a_fork_of_a_staged_stream_is_replaced_by_that_stream(self) -> None:
        staged = self.staged()
        self.node.create("a", StreamConfig(fork=Fork(staged)), b"!")
        self.node.install(staged, "a", StreamRestoration(TEXT, FOREVER), replace=True)
        head = self.node.head("a")
        assert head is not None
        self.assertEqual((head.forks, head.tail, self.names()), (0, 3, ["a"]))
        self.check_counters()

    def test_a_stream_that_is_installed_deleted_does_not_expire_and_is_kept_for_its_forks(self) -> None:
        staged = self.staged()
        self.node.create("b", StreamConfig(fork=Fork(staged)), b"!")
        wanted = StreamRestoration(TEXT, Lifetime(ttl=60), writers={"w": WriterState(1, 2, 3.5)}, deleted=True)
        status = self.node.install(staged, "a", wanted)
        self.assertEqual((status.facts.name, status.tail, status.lifetime), ("a", 3, Lifetime(ttl=60)))
        rows = self.rows("SELECT name, deleted, forks, due, writers FROM {}.streams ORDER BY name")
        self.assertEqual(rows, [("a", True, 1, None, 1), ("b", False, 0, T0 + 3600, 0)])
        self.assertIn("a", self.node.heard)
        self.check_counters()
        self.node.delete("b")
        self.assertEqual((self.names(), self.node.counters), ([], (0, 0, 0)))
        self.check_counters()

    def test_a_stream_whose_last_fork_goes_meanwhile_is_not_installed_deleted(self) -> None:
        staged = self.staged()
        self.node.create("b", StreamConfig(fork=Fork(staged)), b"!")
        self.node.between = self.once(lambda: self.other.delete("b"))
        self.node.install(staged, "a", StreamRestoration(TEXT, FOREVER, deleted=True))
        self.assertEqual(self.names(), [])
        self.check_counters()

    def test_a_stream_that_gets_a_fork_meanwhile_is_kept_when_it_is_installed_deleted(self) -> None:
        staged = self.staged()
        self.node.between = self.once(lambda: self.other.create("b", StreamConfig(fork=Fork(staged))))
        self.node.install(staged, "a", StreamRestoration(TEXT, FOREVER, deleted=True))
        rows = self.rows("SELECT name, deleted, forks FROM {}.streams ORDER BY name")
        self.assertEqual(rows, [("a", True, 1), ("b", False, 0)])
        self.check_counters()

    def test_a_name_that_is_taken_meanwhile_is_not_overwritten(self) -> None:
        staged = self.staged()
        self.node.between = self.once(lambda: self.other.create("a", TEXT, b"theirs"))
        self.assertRaises(StreamExists, self.node.install, staged, "a", StreamRestoration(TEXT, FOREVER))
        self.node.between = self.once(lambda: self.other.create("f", TEXT, b"theirs"))
        self.assertRaises(StreamExists, self.node.create, "f", StreamConfig(fork=Fork("a")))
        self.assertEqual(self.names(), ["__ds/1", "a", "f"])
        self.check_counters()

    def test_a_fork_point_inside_an_append_is_found(self) -> None:
        created = self.node.create("a", JSON, b'[1,"x",3]')
        fork = Fork("a", Offset(created.facts.incarnation, 0), 2)
        self.assertEqual(self.node.create("b", StreamConfig(fork=fork)).tail, 6)
        same = Fork("a", Offset(created.facts.incarnation, 2), 1)
        self.assertFalse(self.node.create("b", StreamConfig(fork=same)).new)
        self.assertRaises(StreamExists, self.node.create, "b", StreamConfig(fork=Fork("a")))

    def once(self, action: Callable[[], object]) -> Callable[[], object]:
        """Return a function that does something only when it is first called."""
        left = [action]
        return lambda: left.pop()() if left else None

    def test_limits_are_those_of_all_nodes(self) -> None:
        limits = StorageLimits(streams=2)
        nodes = [Node(self.tables, limits), Node(self.tables, limits)]
        for node in nodes:
            node.create(f"{node.id}")
            node.finish(node.totals.refresh())
        for node in nodes:
            node.finish(node.totals.refresh())
            self.assertIn("limits.max_streams", str(self.assertRaises(InsufficientStorage, node.create, "c")))
            self.assertFalse(node.create(f"{nodes[0].id}").new)
