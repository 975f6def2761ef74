"""Tests of the announcement of other nodes' changes, on a Clock."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import Lifetime, StreamConfig
from durable_streams.server.storage.entry import facts_of
from durable_streams.server.storage.postgres.heads import Head
from durable_streams.server.storage.postgres.watches import POLL_INTERVAL, Watches


def head(version: int, stream_id: int = 7, name: str = "a") -> Head:
    facts = facts_of(name, stream_id, stream_id, "text/plain")
    return Head(facts, StreamConfig(), Lifetime(), 0, 0, 0, False, False, 0, 0, None, 0, None, 0, 0, version, 0)


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.announced: list[str] = []
        self.used: list[Head] = []
        self.looked_up: list[tuple[str, Deferred[Head | None]]] = []
        self.watches = Watches(self.look_up, self.announced.append, self.used.append, self.clock)

    def look_up(self, name: str) -> Deferred[Head | None]:
        self.looked_up.append((name, Deferred()))
        return self.looked_up[-1][1]

    def watch(self, version: int = 1, stream_id: int = 7, name: str = "a") -> None:
        """Watch a stream that has a version, and forget its first announcement."""
        self.watches.renew(name)
        self.looked_up[-1][1].callback(head(version, stream_id, name))
        self.assertEqual(self.announced, [name])
        self.announced.clear()

    def test_a_stream_is_announced_once_when_it_begins_to_be_watched(self) -> None:
        renewed = self.watches.renew("a")
        assert renewed is not None
        self.assertEqual(self.announced, [])
        self.looked_up[0][1].callback(head(5))
        self.successResultOf(renewed)
        self.assertEqual((self.announced, self.used), (["a"], [head(5)]))
        for _ in range(10):
            self.clock.advance(POLL_INTERVAL)
            self.watches.renew("a")
            self.looked_up[-1][1].callback(head(5))
        self.assertEqual((self.announced, len(self.looked_up)), (["a"], 11))

    def test_a_watched_stream_is_looked_up_once_per_interval(self) -> None:
        for _ in range(20):
            self.watches.renew("a")
            self.clock.advance(POLL_INTERVAL / 4)
        self.assertEqual(len(self.looked_up), 5)

    def test_a_change_whose_message_was_lost_is_found_by_the_next_look_up(self) -> None:
        self.watch()
        self.clock.advance(POLL_INTERVAL)
        self.watches.renew("a")
        self.looked_up[-1][1].callback(head(2))
        self.assertEqual(self.announced, ["a"])

    def test_a_message_announces_a_change_before_it_is_looked_up(self) -> None:
        self.watch()
        self.watches.changed(7, 2)
        self.assertEqual(self.announced, ["a"])
        self.watches.seen("a", head(2))
        self.watches.changed(7, 2)
        self.watches.changed(7, 1)
        self.assertEqual(self.announced, ["a"])

    def test_a_readers_look_up_announces_a_change_to_all_others(self) -> None:
        self.watch()
        self.watches.seen("a", head(2))
        self.assertEqual(self.announced, ["a"])
        self.watches.changed(7, 2)
        self.assertEqual(self.announced, ["a"])

    def test_a_change_of_this_node_is_not_announced_again(self) -> None:
        self.watch()
        self.watches.committed("a", 7, 2)
        self.watches.seen("a", head(2))
        self.watches.seen("a", head(1))
        self.watches.changed(7, 2)
        self.assertEqual(self.announced, [])
        self.watches.seen("a", head(3))
        self.assertEqual(self.announced, ["a"])

    def test_the_removal_and_the_next_stream_of_the_name_are_announced(self) -> None:
        self.watch()
        self.watches.seen("a", None)
        self.watches.seen("a", None)
        self.assertEqual((self.announced, self.watches.name(7)), (["a"], None))
        self.watches.seen("a", head(1, 8))
        self.assertEqual((self.announced, self.watches.name(8)), (["a", "a"], "a"))
        self.watches.changed(8, 2)
        self.assertEqual(len(self.announced), 3)

    def test_streams_that_nobody_watches_are_not_announced(self) -> None:
        self.watch()
        self.watches.seen("b", head(3, 9, "b"))
        self.watches.changed(9, 3)
        self.watches.committed("b", 9, 3)
        self.assertEqual((self.announced, len(self.watches)), ([], 1))

    def test_a_stream_is_forgotten_when_nobody_waits_any_more(self) -> None:
        self.watch()
        for _ in range(12):
            self.clock.advance(1)
            self.watches.renew("b")
        self.assertEqual((len(self.watches), self.watches.name(7)), (1, None))
        self.watches.changed(7, 2)
        self.watches.seen("a", head(2))
        self.assertEqual(self.announced, [])

    def test_all_are_looked_up_again_after_messages_may_have_been_lost(self) -> None:
        self.watch()
        self.assertIsNone(self.watches.renew("a"))
        self.watches.look_again()
        self.assertIsNotNone(self.watches.renew("a"))

    def test_a_change_that_the_database_has_lost_meanwhile_is_announced_and_so_are_those_after_it(self) -> None:
        self.watch(5)
        self.watches.look_again()
        self.watches.seen("a", head(3))
        self.assertEqual(self.announced, ["a"])
        self.watches.seen("a", head(2))
        self.watches.changed(7, 4)
        self.assertEqual(self.announced, ["a", "a"])

    def test_a_stream_that_has_not_changed_meanwhile_is_not_announced(self) -> None:
        self.watch(5)
        self.watches.look_again()
        self.watches.seen("a", head(5))
        self.watches.seen("a", head(4))
        self.assertEqual(self.announced, [])

    def test_a_database_that_is_away_is_asked_again(self) -> None:
        self.watch()
        self.clock.advance(POLL_INTERVAL)
        renewed = self.watches.renew("a")
        assert renewed is not None
        self.looked_up[-1][1].errback(Unavailable("The database is away."))
        self.successResultOf(renewed)
        self.clock.advance(POLL_INTERVAL)
        self.watches.renew("a")
        self.looked_up[-1][1].callback(head(2))
        self.assertEqual(self.announced, ["a"])
