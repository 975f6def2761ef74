"""Tests of messages between nodes, over a real server."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.storage.postgres.connection import Connection
from durable_streams.server.storage.postgres.notifications import Listener, Notifier
from tests.support.postgres_server import database, shared_server

from .connections import connected


class MessageTests(TestCase):
    def setUp(self) -> None:
        self.dsn = database(self)
        self.received: list[tuple[str, list[str]]] = []
        self.opened = 0

    def connect(self) -> Deferred[Connection]:
        return connected(self, self.dsn)

    def notifier(self, sender: str = "a") -> Notifier:
        notifier = Notifier(self.connect, "streams", sender, reactor)
        self.addCleanup(notifier.stop)
        return notifier

    async def listener(self, sender: str = "b") -> Listener:
        """Start a listener, and wait until it listens."""
        listener = Listener(
            self.connect,
            "streams",
            sender,
            reactor,
            lambda topic, items: self.received.append((topic, items)),
            self.count_opening,
        )
        self.addCleanup(listener.stop)
        listener.start()
        await self.until(lambda: listener.is_open)
        return listener

    def count_opening(self) -> None:
        self.opened += 1

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail(f"Nothing happened; received: {self.received}")

    def items(self, topic: str) -> list[str]:
        return [item for found, items in self.received for item in items if found == topic]

    async def test_items_arrive_with_their_topic(self) -> None:
        await self.listener()
        notifier = self.notifier()
        notifier.start()
        notifier.publish("streams", "1", "1:5")
        notifier.publish("values", "k", "a b/%\u2603\n")
        await self.until(lambda: len(self.received) >= 2)
        self.assertEqual(self.received, [("streams", ["1:5"]), ("values", ["a b/%\u2603\n"])])

    async def test_a_node_does_not_receive_its_own_messages(self) -> None:
        listener = await self.listener("a")
        own, other = self.notifier("a"), self.notifier("c")
        own.start()
        own.publish("streams", "1", "1:1")
        await self.until(lambda: own.sent == 1)
        other.start()
        other.publish("streams", "2", "2:1")
        await self.until(lambda: bool(self.received))
        self.assertEqual((self.received, listener.received_count), ([("streams", ["2:1"])], 1))

    async def test_items_of_one_moment_are_one_message_and_a_later_one_replaces_an_earlier(self) -> None:
        await self.listener()
        notifier = self.notifier()
        for version in range(100):
            notifier.publish("streams", "7", f"7:{version}")
            notifier.publish("streams", "8", f"8:{version}")
        notifier.start()
        await self.until(lambda: bool(self.received))
        self.assertEqual((self.received, notifier.sent), ([("streams", ["7:99", "8:99"])], 1))

    async def test_an_item_after_a_pause_is_sent_in_the_next_turn_and_those_soon_after_it_together(self) -> None:
        clock = Clock()
        notifier = Notifier(self.connect, "streams", "a", clock)
        self.addCleanup(notifier.stop)
        notifier.start()
        clock.advance(0)
        await self.until(lambda: notifier.reconnectors[0].connection is not None)
        notifier.publish("streams", "1", "1:1")
        clock.advance(0)
        await self.until(lambda: notifier.sent == 1)
        notifier.publish("streams", "1", "1:2")
        notifier.publish("streams", "2", "2:1")
        clock.advance(0.004)
        await deferLater(reactor, 0.02)
        self.assertEqual(notifier.sent, 1)
        clock.advance(0.001)
        await self.until(lambda: notifier.sent == 2)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_many_items_are_sent_in_messages_that_the_database_accepts(self) -> None:
        await self.listener()
        notifier = self.notifier()
        expected = [f"{9 * 10**18 + number}:{9 * 10**18}" for number in range(2_000)]
        for item in expected:
            notifier.publish("streams", item, item)
        notifier.publish("values", "long", "\u2603" * 700)
        notifier.start()
        await self.until(lambda: bool(self.items("values")))
        self.assertEqual((self.items("streams"), self.items("values")), (expected, ["\u2603" * 700]))
        self.assertLess(notifier.sent, 15)

    async def test_an_item_that_no_message_can_have_is_dropped(self) -> None:
        await self.listener()
        notifier = self.notifier()
        notifier.publish("values", "long", "x" * 8_000)
        notifier.publish("values", "short", "x")
        notifier.start()
        await self.until(lambda: bool(self.received))
        self.assertEqual((self.received, notifier.dropped), ([("values", ["x"])], 1))

    async def test_items_are_kept_while_the_database_is_away_but_not_without_bound(self) -> None:
        await self.listener()
        notifier = self.notifier()
        for number in range(100_010):
            notifier.publish("streams", str(number), str(number))
        self.assertEqual(notifier.dropped, 10)
        notifier.start()
        await self.until(lambda: len(self.items("streams")) == 100_000)
        notifier.publish("streams", "x", "x")
        await self.until(lambda: self.items("streams")[-1] == "x")

    async def test_both_go_on_after_their_connections_were_lost(self) -> None:
        await self.listener()
        notifier = self.notifier()
        notifier.start()
        notifier.publish("streams", "1", "1:1")
        await self.until(lambda: bool(self.received))
        name = self.dsn.split("dbname=")[1].split()[0]
        shared_server().run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        await self.until(lambda: self.opened == 2)
        notifier.publish("streams", "1", "1:2")
        await self.until(lambda: len(self.received) > 1)
        self.assertEqual(self.items("streams")[-1], "1:2")
