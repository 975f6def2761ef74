"""Tests of kills at the points of a delivery and of an ack: nothing is stranded, and no cursor falls."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .subscription_kills import POINTS, run

#: How often a server is killed in each mode. ``python -m tests.process.subscription_kills`` goes on for longer.
KILLS = 2 * len(POINTS)


class SubscriptionKillTests(SynchronousTestCase):
    def strands_nothing(self, mode: str) -> None:
        campaign = run(mode, KILLS, f"{mode} in the tests")
        self.assertEqual(campaign.kills, dict.fromkeys(POINTS, KILLS // len(POINTS)))
        for what in ("webhooks acknowledged by their answer", "repeated webhooks", "answered ack"):
            self.assertGreater(campaign.ledger.done[what], 0, what)

    def test_file_durable_strands_no_wake_when_killed_at_each_point(self) -> None:
        self.strands_nothing("file-durable")

    def test_file_fast_strands_no_wake_when_killed_at_each_point(self) -> None:
        self.strands_nothing("file-fast")

    def test_acid_strands_no_wake_when_killed_at_each_point(self) -> None:
        self.strands_nothing("acid")
