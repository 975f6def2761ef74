"""Tests of leases in a real database, whose time the tests set."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.leases import LEASE_SECONDS, Leases
from durable_streams.server.storage.postgres.queries import Statement
from tests.support.postgres_tables import SCHEMA, Tables

INTERVAL = LEASE_SECONDS / 4


class Node:
    """A node, and how often its leases changed."""

    def __init__(self, case: LeaseTests, number: int, **groups: int) -> None:
        self.clock = Clock()
        case.clocks.append(self.clock)
        self.is_away = False
        self.changes = 0
        self._tables = case.tables
        self.leases = Leases(self.query, SCHEMA, bytes([number]) * 16, self.clock, groups, self.changed)

    def changed(self) -> None:
        self.changes += 1

    def query(self, statement: Statement, params: Sequence[bytes | None]) -> Deferred[PGresult]:
        if self.is_away:
            return fail(Unavailable("The database is away."))
        return self._tables.query(statement, params)


class LeaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tables = Tables(self)
        self.clocks: list[Clock] = []
        self.now = 1000.0
        self.tables.freeze(self.now)

    def pass_time(self, seconds: float, step: float = INTERVAL / 2) -> None:
        """Advance the database's clock and those of all nodes."""
        while seconds > 0:
            passed = min(step, seconds)
            seconds -= passed
            self.now += passed
            self.tables.freeze(self.now)
            for clock in self.clocks:
                clock.advance(passed)

    def test_one_node_takes_all_leases(self) -> None:
        node = Node(self, 1, sweep=1, part=4)
        node.leases.start()
        self.assertEqual((node.leases.held("sweep"), node.leases.held("part")), ([0], [0, 1, 2, 3]))
        self.assertEqual((node.leases.epoch("sweep"), node.changes), (1, 1))
        self.pass_time(100)
        self.assertEqual((node.leases.held("part"), node.leases.epoch("sweep")), ([0, 1, 2, 3], 1))
        self.assertEqual(node.changes, 1)

    def test_a_single_task_has_one_holder(self) -> None:
        nodes = [Node(self, number, sweep=1) for number in (1, 2, 3)]
        for node in nodes:
            node.leases.start()
        for _ in range(20):
            self.pass_time(INTERVAL)
            self.assertEqual([node.leases.held("sweep") for node in nodes], [[0], [], []])

    def test_a_node_that_joins_gets_its_share(self) -> None:
        first, second = Node(self, 1, part=5), Node(self, 2, part=5)
        first.leases.start()
        self.pass_time(1)
        second.leases.start()
        self.assertEqual(second.leases.held("part"), [])
        self.pass_time(2 * LEASE_SECONDS)
        self.assertEqual((len(first.leases.held("part")), len(second.leases.held("part"))), (3, 2))
        self.assertEqual(sorted(first.leases.held("part") + second.leases.held("part")), [0, 1, 2, 3, 4])
        self.assertEqual((first.leases.nodes, second.leases.nodes), (2, 2))

    def test_no_task_ever_has_two_holders(self) -> None:
        nodes = [Node(self, number, part=7) for number in (1, 2, 3)]
        for turn in range(60):
            if turn % 7 == 0:
                nodes[turn // 7 % 3].is_away = not nodes[turn // 7 % 3].is_away
            if turn < 3:
                nodes[turn].leases.start()
            self.pass_time(1.3, 0.65)
            held = [number for node in nodes for number in node.leases.held("part")]
            self.assertEqual(len(held), len(set(held)), f"turn {turn}: {held}")

    def test_a_lease_of_a_node_that_died_is_taken_over_with_the_next_epoch(self) -> None:
        first, second = Node(self, 1, sweep=1), Node(self, 2, sweep=1)
        first.leases.start()
        second.leases.start()
        self.clocks.remove(first.clock)
        self.pass_time(LEASE_SECONDS - 0.1)
        self.assertIsNone(second.leases.epoch("sweep"))
        self.pass_time(2 * INTERVAL)
        self.assertEqual(second.leases.epoch("sweep"), 2)
        # The suspended node goes on: it knows by its clock that time has passed.
        first.clock.rightNow += LEASE_SECONDS + 2 * INTERVAL
        self.assertIsNone(first.leases.epoch("sweep"))

    def test_a_node_without_a_database_stops_before_another_one_begins(self) -> None:
        first, second = Node(self, 1, sweep=1), Node(self, 2, sweep=1)
        first.leases.start()
        second.leases.start()
        first.is_away = True
        for _ in range(200):
            self.pass_time(0.1, 0.1)
            self.assertFalse(first.leases.held("sweep") and second.leases.held("sweep"))
        self.assertEqual((first.leases.held("sweep"), second.leases.held("sweep")), ([], [0]))

    def test_a_node_that_stops_releases_its_leases_at_once(self) -> None:
        first, second = Node(self, 1, sweep=1), Node(self, 2, sweep=1)
        first.leases.start()
        second.leases.start()
        self.successResultOf(Deferred.fromCoroutine(first.leases.stop()))
        self.assertEqual((first.leases.held("sweep"), first.clock.getDelayedCalls()), ([], []))
        self.pass_time(INTERVAL)
        self.assertEqual((second.leases.held("sweep"), second.leases.nodes), ([0], 1))

    def test_a_node_stops_without_a_database(self) -> None:
        node = Node(self, 1, sweep=1)
        node.leases.start()
        node.is_away = True
        self.successResultOf(Deferred.fromCoroutine(node.leases.stop()))
        self.assertEqual(node.leases.held("sweep"), [])

    def test_rows_of_nodes_that_ended_are_removed_after_an_hour(self) -> None:
        first, second = Node(self, 1, sweep=1), Node(self, 2, sweep=1)
        first.leases.start()
        second.leases.start()
        self.clocks.remove(first.clock)
        self.tables.freeze(self.now + 3700)
        second.clock.advance(3700)
        names = self.tables.connection.execute(f"SELECT name FROM {SCHEMA}.leases ORDER BY name").fetchall()
        self.assertEqual(names, [("node/" + "02" * 16,), ("sweep/0",)])

    def test_a_group_is_divided_among_those_that_have_joined_it(self) -> None:
        nodes = [Node(self, number) for number in (1, 2, 3)]
        for node in nodes:
            node.leases.start()
        first, second, third = (node.leases for node in nodes)
        first.join("part", 6)
        self.assertEqual(first.held("part"), [0, 1, 2, 3, 4, 5])
        second.join("part", 6)
        self.pass_time(2 * LEASE_SECONDS)
        self.assertEqual((len(first.held("part")), len(second.held("part"))), (3, 3))
        self.assertEqual((first.members("part"), first.nodes), (2, 3))
        third.join("part", 6)
        self.pass_time(2 * LEASE_SECONDS)
        self.assertEqual([len(each.held("part")) for each in (first, second, third)], [2, 2, 2])

    def test_a_group_that_is_left_is_taken_over_without_waiting_for_its_leases(self) -> None:
        first, second = Node(self, 1), Node(self, 2)
        for node in (first, second):
            node.leases.start()
            node.leases.join("part", 4)
        self.pass_time(2 * LEASE_SECONDS)
        self.assertEqual(len(second.leases.held("part")), 2)
        left = Deferred.fromCoroutine(first.leases.leave("part"))
        self.successResultOf(left)
        second.leases.renew_soon()
        self.assertEqual((second.leases.held("part"), second.leases.members("part")), ([0, 1, 2, 3], 1))
        self.pass_time(2 * LEASE_SECONDS)
        self.assertEqual((second.leases.held("part"), second.leases.nodes), ([0, 1, 2, 3], 2))

    def test_a_change_of_the_number_of_members_is_announced(self) -> None:
        first, second = Node(self, 1), Node(self, 2)
        for node in (first, second):
            node.leases.start()
            node.leases.join("part", 1)
        self.pass_time(LEASE_SECONDS)
        changes = first.changes
        second.is_away = True
        self.pass_time(2 * LEASE_SECONDS)
        self.assertEqual((first.leases.members("part"), first.changes), (1, changes + 1))

    def test_the_databases_clock_is_known(self) -> None:
        node = Node(self, 1)
        node.leases.start()
        self.assertEqual(node.leases.ahead, self.now)
        node.clock.advance(3)
        self.pass_time(2 * INTERVAL)
        self.assertAlmostEqual(node.leases.ahead + node.clock.seconds(), self.now)
