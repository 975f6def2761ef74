"""Connections that are opened again, with a connection that a test gives and takes away."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.connecting import ConnectFailed
from durable_streams.server.storage.postgres.connection import Connection
from durable_streams.server.storage.postgres.pool import Pool
from durable_streams.server.storage.postgres.queries import Statement
from durable_streams.server.storage.postgres.reconnecting import MAX_PAUSE, Reconnector, share_outage


class GivenConnection:
    """What a reconnector uses of a connection."""

    lost: Callable[[str], None]

    def close(self) -> None:
        """Do nothing."""


class OutageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.problem: str | None = None
        self.given: list[GivenConnection] = []
        self.lines: list[str] = []
        observer = cast(ILogObserver, self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def observe(self, event: LogEvent) -> None:
        if event["log_namespace"].endswith(".reconnecting"):
            self.lines.append(formatEvent(event))

    def connect(self) -> Deferred[Connection]:
        if self.problem is not None:
            return fail(ConnectFailed(self.problem))
        self.given.append(GivenConnection())
        return succeed(cast(Connection, self.given[-1]))

    def start(self, count: int) -> list[Reconnector]:
        reconnectors = [Reconnector(self.connect, self.clock, lambda _: None) for _ in range(count)]
        share_outage(reconnectors)
        for reconnector in reconnectors:
            reconnector.start()
            self.addCleanup(reconnector.stop)
        return reconnectors

    def lose_all(self, reason: str) -> None:
        """End all connections."""
        given, self.given = self.given, []
        for connection in given:
            connection.lost(reason)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds / 0.1))

    def test_opening_connections_is_not_logged(self) -> None:
        self.start(9)
        self.assertEqual((9, []), (len(self.given), self.lines))

    def test_each_reason_is_logged_once_for_all_connections_and_then_that_they_are_open(self) -> None:
        reconnectors = self.start(9)
        self.problem = "Connection refused."
        self.lose_all("The connection was lost.")
        self.pass_time(30)
        self.problem = "It is starting."
        self.pass_time(30)
        self.problem = None
        self.pass_time(2 * MAX_PAUSE)
        self.assertEqual(
            [
                "The connection was lost. It is tried again.",
                "The database cannot be reached: Connection refused. It is tried again.",
                "The database cannot be reached: It is starting. It is tried again.",
                "The connections to the database are open again.",
            ],
            self.lines,
        )
        self.assertEqual([None] * 9, [reconnector.problem for reconnector in reconnectors])

    def test_the_next_outage_is_logged_again(self) -> None:
        self.start(2)
        for _ in range(2):
            self.lose_all("Lost.")
            self.pass_time(MAX_PAUSE)
        self.assertEqual(2, self.lines.count("Lost. It is tried again."))
        self.assertEqual(2, self.lines.count("The connections to the database are open again."))

    def test_reasons_that_are_all_different_take_bounded_memory(self) -> None:
        [reconnector] = self.start(1)
        self.problem = "0"
        self.lose_all("Lost.")
        for number in range(1000):
            self.problem = str(number)
            self.clock.advance(MAX_PAUSE)
        self.assertLessEqual(len(reconnector.outage._reasons), 100)


class ShorterWaitTests(SynchronousTestCase):
    def test_statements_that_wait_for_a_connection_wait_no_longer_than_the_shorter_time(self) -> None:
        clock = Clock()
        pool = Pool(Deferred, 2, clock, 30.0)
        pool.start()
        first = pool.execute(Statement("one", "SELECT 1"))
        clock.advance(1)
        pool.shorten_wait(2.0)
        second = pool.execute(Statement("one", "SELECT 1"))
        clock.advance(0.9)
        self.assertNoResult(first)
        clock.advance(0.2)
        self.failureResultOf(first, Unavailable)
        self.assertNoResult(second)
        clock.advance(1)
        self.failureResultOf(second, Unavailable)
