"""Tests of messages between nodes, as a node sends and receives them; its look-ups are the test's."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from durable_streams.server.errors import Unavailable
from durable_streams.server.interfaces import ICommitListener
from durable_streams.server.model import FOREVER, StreamConfig
from durable_streams.server.storage.entry import facts_of
from durable_streams.server.storage.postgres.heads import Head
from durable_streams.server.storage.postgres.neighbours import Neighbours


def head(stream_id: int, name: str) -> Head:
    """Return a head."""
    facts = facts_of(name, stream_id, stream_id, "text/plain")
    times = (0.0, 0.0, 0.0)
    return Head(facts, StreamConfig("text/plain"), FOREVER, *times, False, False, 0, 0, None, 0, None, 0, 0, 1, 0.0)


@implementer(ICommitListener)
class LookUps:
    """Look-ups by id that the test answers, and a listener."""

    def __init__(self) -> None:
        self.seen: Any = None
        self.asked: list[tuple[int, Deferred[Head | None]]] = []
        self.heard: list[str] = []

    def fresh_id(self, stream_id: int) -> Deferred[Head | None]:
        answer: Deferred[Head | None] = Deferred()
        self.asked.append((stream_id, answer))
        return answer

    def committed(self, name: str) -> None:
        self.heard.append(name)


class NeighboursTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lookups = cast("Any", LookUps())
        self.neighbours = Neighbours(Deferred, "s", UUID(int=1), self.lookups, lambda head: None, Clock())
        self.neighbours.listener = self.lookups

    def receive(self, topic: str, *items: str) -> None:
        self.neighbours._receive(topic, list(items))

    def test_changes_of_unknown_streams_are_not_looked_up_without_an_observer(self) -> None:
        self.receive("streams", "7:1")
        self.assertEqual(self.lookups.asked, [])

    def test_messages_of_others_who_use_the_channel_are_ignored(self) -> None:
        self.neighbours.observe(True)
        self.receive("streams", "", "x:1", "7", "7:", "7:-1", ":1")
        self.receive("")
        self.assertEqual(self.lookups.asked, [])

    def test_a_stream_that_is_observed_is_looked_up_once(self) -> None:
        self.neighbours.observe(True)
        self.receive("streams", "7:1", "7:2")
        [(stream_id, answer)] = self.lookups.asked
        self.assertEqual(stream_id, 7)
        answer.callback(head(7, "a"))
        self.assertEqual(self.lookups.heard, ["a"])
        self.receive("streams", "7:3")
        self.assertEqual((self.lookups.heard, len(self.lookups.asked)), (["a", "a"], 1))

    def test_the_removal_of_a_known_stream_is_announced(self) -> None:
        self.neighbours.observe(True)
        self.lookups.seen("a", head(7, "a"))
        self.receive("streams", "7:0", "8:0")
        self.assertEqual((self.lookups.heard, self.lookups.asked), (["a"], []))

    def test_a_stream_is_looked_up_again_after_a_failure(self) -> None:
        self.neighbours.observe(True)
        for _ in range(2):
            self.receive("streams", "7:1")
            _, answer = self.lookups.asked[-1]
            answer.errback(Unavailable("The database is away."))
        self.assertEqual((len(self.lookups.asked), self.lookups.heard), (2, []))

    def test_changes_of_more_streams_than_can_be_looked_up_are_missed_once(self) -> None:
        missed: list[None] = []
        self.neighbours.missed = lambda: missed.append(None)
        self.neighbours.observe(True)
        self.receive("streams", *(f"{number}:1" for number in range(1, 20_001)))
        self.assertEqual((len(self.lookups.asked), missed), (10_000, []))
        for stream_id, answer in self.lookups.asked[:9_999]:
            answer.callback(head(stream_id, f"s{stream_id}"))
        self.assertEqual(missed, [])
        self.lookups.asked[-1][1].errback(Unavailable("The database is away."))
        self.assertEqual((len(self.lookups.heard), len(missed)), (9_999, 1))
        self.receive("streams", "20000:2")
        self.lookups.asked[-1][1].callback(head(20_000, "s20000"))
        self.assertEqual((self.lookups.heard[-1], len(missed)), ("s20000", 1))

    def test_names_are_forgotten_when_nothing_is_observed(self) -> None:
        self.neighbours.observe(True)
        self.lookups.seen("a", head(7, "a"))
        self.neighbours.observe(False)
        self.receive("streams", "7:1")
        self.assertEqual(self.lookups.heard, [])
        self.neighbours.observe(True)
        self.receive("streams", "7:2")
        self.assertEqual([stream_id for stream_id, _ in self.lookups.asked], [7])

    def test_subjects_and_released_leases_are_passed_on(self) -> None:
        received: list[str] = []
        released: list[None] = []
        self.neighbours.received = received.append
        self.neighbours.leases_released = lambda: released.append(None)
        self.receive("subjects", "runner:1", "b")
        self.receive("leases", "")
        self.assertEqual((received, len(released)), (["runner:1", "b"], 1))
