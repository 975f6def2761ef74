"""Tests of the descriptor budget, and of ports without free descriptors."""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import Any

from msgspec.structs import replace
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings
from durable_streams.server.listening.descriptors import ACCEPTS, AcceptLimiter, budget_from, count_open
from durable_streams.server.startup import StartupError
from tests.support.descriptors import no_more_descriptors
from tests.support.fronts import settings_with


def settings_for(mode: str, **limits: Any) -> Settings:
    settings = settings_with(**limits)
    return replace(settings, storage=replace(settings.storage, mode=mode))


class BudgetTests(SynchronousTestCase):
    def test_connections_are_limited_by_the_setting_or_by_the_process_limit(self) -> None:
        for limit, most, connections in ((20_000, 10_000, 10_000), (20_000, 5, 5)):
            budget = budget_from(settings_for("memory", max_connections=most), limit, 10)
            self.assertEqual(budget.connections, connections)
        self.assertLess(budget_from(settings_for("memory"), 1024, 10).connections, 1024 - 100)

    def test_the_storage_gets_its_descriptors_before_connections(self) -> None:
        modes = ("memory", "acid", "postgres", "file-durable")
        left = {mode: budget_from(settings_for(mode), 1024, 10).connections for mode in modes}
        self.assertEqual(left["memory"] - left["acid"], 24)
        self.assertEqual(left["memory"] - left["postgres"], 16 + 4)
        self.assertEqual(left["memory"] - left["file-durable"], 24 + 128)

    def test_all_parts_together_are_within_the_limit(self) -> None:
        for limit in (128, 256, 1024, 4096):
            for mode in ("memory", "acid", "file-fast"):
                settings = settings_for(mode)
                settings = replace(settings, admin=replace(settings.admin, bind_address="127.0.0.1:1"))
                try:
                    budget = budget_from(settings, limit, 10)
                except StartupError:
                    self.assertEqual(limit, 128)
                    continue
                parts = budget.open_files + budget.connections + budget.admin_connections + budget.refusals
                # Two ports, and what each of them accepts in two turns
                self.assertLessEqual(10 + parts + 2 * 2 * ACCEPTS + 24, limit)

    def test_a_limit_without_room_for_connections_is_an_error_that_names_the_limit(self) -> None:
        error = self.assertRaises(StartupError, budget_from, settings_for("acid"), 64, 10)
        self.assertEqual(error.phase, "resolve_transport")
        self.assertIn("ulimit -n", error.cause)


class Listener:
    """A listening socket whose accept always fails."""

    def __init__(self, error: int) -> None:
        self.error = error
        self.asked = 0

    def accept(self) -> Any:
        self.asked += 1
        raise OSError(self.error, "made to fail")


class PortReactor(Clock):
    """A reactor that records its readers."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """There are none."""


class AcceptLimiterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = PortReactor()
        self.factory = Factory.forProtocol(Protocol)
        self.port: Any = Port(0, self.factory, interface="127.0.0.1", reactor=self.reactor)
        self.port.startListening()
        self.addCleanup(self.port.connectionLost, None)
        self.limiter = AcceptLimiter(self.port, self.reactor)
        self.addCleanup(self.limiter.stop)
        self.events: list[Any] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    @staticmethod
    def note(made: list[Any], address: Any) -> None:
        """Return None, so that the connection is closed."""
        made.append(address)

    def warnings(self) -> int:
        return sum(
            event.get("log_namespace") == "durable_streams.server.listening.descriptors" for event in self.events
        )

    def test_a_port_that_cannot_accept_pauses_and_tries_again(self) -> None:
        real = self.port.socket
        for error in (errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            listener = self.port.socket = Listener(error)
            self.port.doRead()
            self.assertEqual((listener.asked, self.port in self.reactor.readers), (1, False))
            self.reactor.advance(0.1)
            self.assertIn(self.port, self.reactor.readers)
        self.port.socket = real
        self.assertEqual(self.warnings(), 1)

    def test_a_port_without_free_descriptors_pauses_and_accepts_afterwards(self) -> None:
        client = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.addCleanup(client.close)
        with no_more_descriptors():
            self.port.doRead()
            self.assertNotIn(self.port, self.reactor.readers)
        self.reactor.advance(0.1)
        self.assertIn(self.port, self.reactor.readers)
        later = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.addCleanup(later.close)
        made: list[Any] = []
        self.patch(self.factory, "buildProtocol", partial(self.note, made))
        self.port.doRead()
        self.assertEqual(len(made), 1)

    def test_a_port_accepts_at_most_16_connections_in_one_turn(self) -> None:
        clients = [socket.create_connection(("127.0.0.1", self.port.getHost().port)) for _ in range(ACCEPTS * 2 + 1)]
        for client in clients:
            self.addCleanup(client.close)
        made: list[Any] = []
        self.patch(self.factory, "buildProtocol", partial(self.note, made))
        for expected in (ACCEPTS, 2 * ACCEPTS, 2 * ACCEPTS + 1):
            self.port.doRead()
            self.assertEqual(len(made), expected)

    def test_a_stopped_limiter_does_not_resume_the_port(self) -> None:
        real, self.port.socket = self.port.socket, Listener(errno.ENFILE)
        self.port.doRead()
        self.port.socket = real
        self.limiter.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_port_of_another_class_is_left_unchanged(self) -> None:
        reactor: Any = MemoryReactorClock()
        AcceptLimiter(reactor.listenTCP(0, self.factory), reactor).stop()
        self.assertEqual(reactor.getDelayedCalls(), [])


class CountTests(SynchronousTestCase):
    def test_open_descriptors_are_counted(self) -> None:
        before = count_open()
        with socket.socket():
            self.assertEqual(count_open(), before + 1)
        self.assertEqual(count_open(), before)
