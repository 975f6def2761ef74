"""Tests of nodes that change the same streams at the same time, in a real database."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from threading import Thread

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamsError, Unavailable
from durable_streams.server.model import Fork, Lifetime, StreamConfig, StreamRestoration
from durable_streams.server.storage.postgres.queries import QueryFailed
from durable_streams.server.storage.postgres.stored_values import StoredValues
from durable_streams.server.testing.values import TEXT
from tests.support.postgres_tables import SCHEMA, Tables

from .nodes import Node

NAMES = "abcdefgh"


class TogetherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tables = Tables(self)
        self.failures: list[BaseException] = []

    def rows(self, query: str, *params: object) -> list[tuple[object, ...]]:
        return self.tables.connection.execute(query.replace("{}", SCHEMA), params).fetchall()

    def run_threads(self, *works: Callable[[], None]) -> None:
        """Run functions at the same time, and raise what they raise."""

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                self.failures.append(error)

        threads = [Thread(target=guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            self.assertFalse(thread.is_alive(), "a thread hangs")
        if self.failures:
            raise self.failures[0]

    def check(self, deadlocks: int = 0) -> None:
        """Check what must be true of the rows whatever was done."""
        self.assertEqual(
            self.rows(
                "SELECT s.name, s.forks, count(f.id) FROM {}.streams AS s "
                "LEFT JOIN {}.streams AS f ON f.source_id = s.id GROUP BY s.id HAVING s.forks <> count(f.id)"
            ),
            [],
        )
        self.assertEqual(self.rows("SELECT name FROM {}.streams WHERE deleted AND forks = 0"), [])
        self.assertEqual(
            self.rows(
                "SELECT s.name FROM {}.streams AS s WHERE source_id IS NOT NULL "
                "AND NOT EXISTS (SELECT 1 FROM {}.streams AS p WHERE p.id = s.source_id)"
            ),
            [],
        )
        self.assertEqual(
            self.rows(
                "SELECT s.name, s.tail - s.base, coalesce(sum(c.finish - c.start), 0) FROM {}.streams AS s "
                "LEFT JOIN {}.chunks AS c ON c.stream_id = s.id GROUP BY s.id "
                "HAVING s.tail - s.base <> coalesce(sum(c.finish - c.start), 0)"
            ),
            [],
        )
        left = (
            "SELECT DISTINCT c.stream_id FROM {}.chunks AS c "
            "WHERE NOT EXISTS (SELECT 1 FROM {}.streams AS s WHERE s.id = c.stream_id) "
        )
        self.assertEqual(Counter(self.rows(left)), Counter(self.rows("SELECT stream_id FROM {}.removed")))
        (counted,) = self.rows("SELECT sum(streams), sum(bytes) FROM {}.nodes")
        (there,) = self.rows("SELECT count(*), coalesce(sum(tail - base), 0) FROM {}.streams")
        self.assertEqual(counted, there)
        self.rows("SELECT pg_sleep(0.6)")
        (found,) = self.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        self.assertEqual(found, (deadlocks,))

    def change_at_random(self, node: Node, random: Random, steps: int) -> None:
        for _ in range(steps):
            name, source = random.choice(NAMES), random.choice(NAMES)
            try:
                match random.randrange(6):
                    case 0:
                        node.create(name, TEXT, b"x" * random.randrange(3))
                    case 1 | 2:
                        node.create(name, StreamConfig(fork=Fork(source)), b"y" * random.randrange(3))
                    case 3 | 4:
                        node.delete(name)
                    case _:
                        staged = f"__ds/{random.randrange(3)}"
                        fork = random.choice([None, Fork(source)])
                        config = StreamConfig(None if fork else "text/plain", Lifetime(ttl=3600), fork=fork)
                        node.create(staged, config, b"z")
                        deleted = random.random() < 0.3
                        restoration = StreamRestoration(StreamConfig(), Lifetime(), deleted=deleted)
                        node.install(staged, name, restoration, random.random() < 0.7)
            except StreamsError:
                pass

    def test_random_changes_of_the_same_streams_do_not_deadlock_and_are_whole(self) -> None:
        nodes = [Node(self.tables) for _ in range(4)]
        self.run_threads(*(partial(self.change_at_random, node, Random(seed), 120) for seed, node in enumerate(nodes)))
        self.assertGreater(sum(node.queue.misses for node in nodes), 0)
        self.check()

    def wait_for_lock(self, node: Node) -> None:
        """Wait until a statement of a node waits for a lock."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        until = time.monotonic() + 20
        while not self.rows(waiting, node.connection.info.backend_pid):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.005)

    def test_rows_are_locked_in_the_order_of_their_ids(self) -> None:
        node = Node(self.tables)
        other = self.tables.connect()
        for position in range(3):
            staged, source, name = f"__ds/{position}", f"source-{position}", f"fork-{position}"
            node.create(staged, StreamConfig("text/plain", Lifetime(ttl=3600)))
            node.create(source, TEXT)
            node.create(name, StreamConfig(fork=Fork(source)))
            ids = self.rows("SELECT id FROM {}.streams ORDER BY id DESC LIMIT 3")[::-1]
            # The stream that gets the name is older than the source of the one that has it.
            restoration = StreamRestoration(StreamConfig(), Lifetime())
            installing = Thread(target=partial(node.install, staged, name, restoration, True))
            with other.transaction():
                other.execute(f"SELECT 1 FROM {SCHEMA}.streams WHERE id = %s FOR UPDATE", ids[position])
                installing.start()
                self.wait_for_lock(node)
                free = "SELECT id FROM {}.streams WHERE id >= %s ORDER BY id FOR UPDATE SKIP LOCKED"
                self.assertEqual(self.rows(free, *ids[0]), ids[position + 1 :])
            installing.join(20)
            self.assertEqual(self.rows("SELECT id FROM {}.streams WHERE name = %s", name), [ids[0]])

    def test_an_append_for_which_a_change_waits_is_kept(self) -> None:
        node = Node(self.tables)
        append = (
            f"WITH s AS (UPDATE {SCHEMA}.streams SET tail = tail + 3, version = version + 1, sequence = '12' "
            "WHERE name = %s RETURNING id, tail), "
            f"c AS (INSERT INTO {SCHEMA}.chunks SELECT id, tail - 3, tail, tail - 3, '', 0, 'abc' FROM s) "
            f"UPDATE {SCHEMA}.nodes SET bytes = bytes + 3 WHERE id = %s"
        )
        # What is changed, the stream that is appended to, and what its row says then.
        changes: list[tuple[Callable[[], object], str, tuple[object, ...] | None]] = [
            (lambda: node.create("b", StreamConfig(fork=Fork("a")), b"x"), "a", (4, 1, 3, False)),
            (lambda: node.delete("b"), "a", (7, 0, 5, False)),
            (lambda: node.create("b", StreamConfig(fork=Fork("a"))), "a", (10, 1, 7, False)),
            (lambda: node.create("b", StreamConfig(fork=Fork("a")), bytes(2 << 20)), "a", (13, 2, 9, False)),
            (lambda: node.delete("a"), "a", (16, 2, 11, True)),
            (lambda: node.delete("b"), "b", None),
            (lambda: node.delete("c"), "c", None),
        ]
        node.create("a", TEXT, b"a")
        node.create("c", TEXT, b"a")
        blocker = self.tables.connect()
        for number, (change, name, expected) in enumerate(changes):
            if number == 3:
                # A fork with two chunks is written by itself.
                self.rows("UPDATE {}.streams SET name = 'd' WHERE name = 'b' RETURNING 1")
            thread = Thread(target=change)
            with blocker.transaction():
                blocker.execute(append, (name, node.id))
                thread.start()
                self.wait_for_lock(node)
            thread.join(20)
            found = self.rows("SELECT tail, forks, version, deleted FROM {}.streams WHERE name = %s", name)
            self.assertEqual(found, [] if expected is None else [expected], number)
        node.delete("d")
        self.assertEqual(self.rows("SELECT name FROM {}.streams"), [])
        self.check()

    def test_names_are_created_in_their_order(self) -> None:
        node, other = Node(self.tables), Node(self.tables)
        blocker = self.tables.connect()
        deferreds = [node.changes.create(name, TEXT, b"", None) for name in "cab"]
        creating = Thread(target=lambda: [node.finish(deferred) for deferred in deferreds])
        with blocker.transaction(force_rollback=True):
            blocker.execute(
                f"INSERT INTO {SCHEMA}.streams (id, name, incarnation, content_type, config, created_at, updated_at, "
                "used_at, closed, base, tail) VALUES (1, 'b', 1, '', '', 0, 0, 0, false, 0, 0)"
            )
            creating.start()
            self.wait_for_lock(node)
            other.connection.execute("SET lock_timeout = '50ms'")
            self.assertTrue(other.create("c").new)
            with self.assertRaises(Unavailable):
                other.create("a")
        creating.join(20)
        found = self.rows("SELECT name FROM {}.streams ORDER BY name")
        self.assertEqual((found, node.queue.misses), ([("a",), ("b",), ("c",)], 1))

    def test_names_that_two_nodes_create_at_once_are_created_once(self) -> None:
        names = [f"{number:03}" for number in range(300)]
        outcomes: list[list[bool]] = []

        def create(node: Node, ordered: list[str]) -> None:
            deferreds = [(name, node.changes.create(name, TEXT, b"x", None)) for name in ordered]
            created = {name: node.finish(deferred) for name, deferred in deferreds}
            outcomes.append([created[name].new for name in names])

        nodes = [Node(self.tables) for _ in range(4)]
        self.run_threads(
            *(partial(create, node, Random(seed).sample(names, len(names))) for seed, node in enumerate(nodes))
        )
        self.assertEqual([sum(new) for new in zip(*outcomes, strict=True)], [1] * len(names))
        self.assertEqual(self.rows("SELECT count(*) FROM {}.chunks"), [(300,)])
        self.check()

    def test_forks_on_two_nodes_of_a_source_that_is_deleted_are_whole_or_refused(self) -> None:
        nodes = [Node(self.tables) for _ in range(3)]
        for round_number in range(15):
            nodes[0].create("s", TEXT, b"source")
            made: list[str] = []

            def fork(node: Node, prefix: str, made: list[str] = made) -> None:
                for number in range(4):
                    try:
                        node.create(f"{prefix}{number}", StreamConfig(fork=Fork("s")), b"!")
                    except StreamsError:
                        continue
                    made.append(f"{prefix}{number}")

            self.run_threads(lambda: fork(nodes[0], "a"), lambda: fork(nodes[1], "b"), lambda: nodes[2].delete("s"))
            self.assertEqual(self.rows("SELECT forks FROM {}.streams WHERE name = 's'"), [(len(made),)] if made else [])
            self.check()
            for name in made:
                nodes[round_number % 3].delete(name)
            self.assertEqual(self.rows("SELECT count(*) FROM {}.streams"), [(0,)])

    def test_values_that_nodes_count_up_together_lose_no_step(self) -> None:
        def count(node: Node) -> None:
            values = StoredValues(node.query, node.queue, SCHEMA, node.limits, node.totals)
            for _ in range(40):
                while True:
                    found = dict(node.finish(values.page("", "", 10)))
                    puts = {key: b"%d" % (int(found.get(key, b"0")) + 1) for key in ("x", "y")}
                    try:
                        node.finish(values.write(puts, {key: found.get(key) for key in ("y", "x")}))
                    except StreamsError:
                        continue
                    break

        nodes = [Node(self.tables) for _ in range(3)]
        self.run_threads(*(partial(count, node) for node in nodes))
        self.assertEqual(self.rows("SELECT DISTINCT value FROM {}.key_values"), [(b"120",)])
        self.check()

    def test_backends_that_are_killed_leave_all_or_nothing(self) -> None:
        nodes = [Node(self.tables) for _ in range(3)]
        over: list[bool] = []

        def change(node: Node, seed: int) -> None:
            random = Random(seed)
            while not over:
                try:
                    self.change_at_random(node, random, 5)
                except (QueryFailed, psycopg.Error, AssertionError):
                    node.reconnect(self.tables)

        def kill() -> None:
            random = Random(9)
            for _ in range(40):
                random_node = random.choice(nodes)
                self.rows("SELECT pg_sleep(%s)", random.uniform(0, 0.05))
                self.rows("SELECT pg_terminate_backend(%s)", random_node.connection.info.backend_pid)
            over.append(True)

        self.run_threads(*(partial(change, node, seed) for seed, node in enumerate(nodes)), kill)
        self.check()
