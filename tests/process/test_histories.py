"""Histories of two nodes on one database: a round with each fault, and bugs that are planted in the nodes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.histories.cluster import Cluster
from tests.histories.clusters import CLUSTERS
from tests.histories.faults import FAULTS
from tests.histories.planted import BUGS, planted
from tests.histories.round import Round
from tests.histories.standby import STANDBY_FAULTS, replicated_cluster
from tests.support.daemon import TWISTD
from tests.support.postgres_server import started_server

#: How many rounds a planted bug may stay unnoticed. It is noticed in most rounds.
_MAX_ROUNDS = 12


class FaultTests(SynchronousTestCase):
    def test_nothing_is_lost_doubled_torn_or_brought_back_by_any_fault(self) -> None:
        cluster = Cluster(started_server(self))
        self.addCleanup(cluster.close)
        for seed, (name, fault) in enumerate(FAULTS.items()):
            with self.subTest(name):
                one = Round(cluster, seed)
                self.assertEqual(one.run(fault), [], f"{name}, seed {seed}")
                done, _ = one.counts
                self.assertGreater(done, 100, name)


class ClusterTests(SynchronousTestCase):
    def check(self, name: str) -> None:
        start, fault = CLUSTERS[name]
        one = Round(start(self, 2, TWISTD), 1)
        self.assertEqual(one.run(fault), [])
        done, _ = one.counts
        self.assertGreater(done, 100)

    def test_a_node_far_from_the_database_and_one_near_it_agree(self) -> None:
        self.check("delayed-node")

    def test_nodes_whose_clocks_are_an_hour_apart_agree(self) -> None:
        self.check("clocks-apart")

    def test_a_full_disk_of_the_database_takes_nothing_back(self) -> None:
        self.check("fill-disk")


class StandbyTests(SynchronousTestCase):
    """With a synchronous standby, also the loss of the primary takes nothing back."""

    def check(self, name: str) -> None:
        cluster, standby = replicated_cluster(self, 2, TWISTD)
        one = Round(cluster, 1)
        self.assertEqual(one.run(lambda cluster, random: STANDBY_FAULTS[name](cluster, standby, random)), [])
        done, _ = one.counts
        self.assertGreater(done, 100)

    def test_each_fault_has_a_test(self) -> None:
        self.assertEqual(
            {name.removeprefix("test_").replace("_", "-") for name in dir(self) if name.startswith("test_")},
            {*STANDBY_FAULTS, "each-fault-has-a-test"},
        )

    def test_lose_standby(self) -> None:
        self.check("lose-standby")

    def test_cancel_waits(self) -> None:
        self.check("cancel-waits")

    def test_promote(self) -> None:
        self.check("promote")

    def test_cancel_and_promote(self) -> None:
        self.check("cancel-and-promote")


class PlantedBugTests(SynchronousTestCase):
    def check(self, bug: str) -> None:
        """Run rounds until the bug is noticed."""
        cluster = Cluster(started_server(self), program=planted(bug))
        self.addCleanup(cluster.close)
        for seed in range(_MAX_ROUNDS):
            if Round(cluster, seed).run(FAULTS["nothing"]):
                return
        self.fail(f"{bug} was not noticed in {_MAX_ROUNDS} rounds")

    def test_each_bug_has_a_test(self) -> None:
        self.assertEqual(
            {name.removeprefix("test_").replace("_", "-") for name in dir(self) if name.startswith("test_")},
            {*BUGS, "each-bug-has-a-test"},
        )

    def test_no_version_check(self) -> None:
        self.check("no-version-check")

    def test_stale_refusals(self) -> None:
        self.check("stale-refusals")

    def test_early_messages(self) -> None:
        self.check("early-messages")

    def test_locks_in_any_order(self) -> None:
        self.check("locks-in-any-order")
