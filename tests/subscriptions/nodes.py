"""Services of subscriptions on several nodes that share a storage, on one Clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.partitions import HeldPartitions
from tests.subscriptions.serving import Serving
from tests.support.shared_memory import RENEWAL, Node, SharedMemory


class Nodes:
    """
    Nodes with a service each.

    :ivar shared: what they share.
    """

    def __init__(self, case: SynchronousTestCase, count: int = 2) -> None:
        self.case = case
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.shared = SharedMemory(self.clock)
        self.all: list[Serving] = []
        self.storages: list[Node] = []
        for _ in range(count):
            self.start()
        self.advance(3 * RENEWAL)

    def start(self) -> Serving:
        """Start another node."""
        storage = self.shared.node()
        serving = Serving(self.case, storage, self.clock)
        serving.parts.tokens = self.all[0].parts.tokens if self.all else serving.parts.tokens
        self.all.append(serving)
        self.storages.append(storage)
        return serving

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps that are shorter than the intervals of what happens."""
        while seconds > 0:
            step = min(seconds, 0.5)
            self.all[0].advance(step)
            seconds -= step

    def holder(self, subscription_id: str = "s") -> int:
        """Return the number of the node that is responsible for a subscription."""
        holders = [
            number for number, storage in enumerate(self.storages) if HeldPartitions(storage).holds(subscription_id)
        ]
        self.case.assertEqual(1, len(holders), holders)
        return holders[0]

    def others(self, subscription_id: str = "s") -> tuple[Serving, Serving]:
        """Return the node that is responsible for a subscription, and another one."""
        holder = self.holder(subscription_id)
        return self.all[holder], self.all[1 - holder]

    def kill(self, number: int) -> None:
        """Kill a node."""
        self.storages[number].kill()
        self.all[number].service._updates.stop()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What the receivers of all nodes were sent."""
        return [body for serving in self.all for body in serving.parts.bodies]
