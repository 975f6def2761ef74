"""The connections of ``admin.bind_address`` when the daemon stops."""

from __future__ import annotations

import socket
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from durable_streams.server.config.sections import AdminSettings, ConnectionSettings, ServerSettings, TransportSettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.service import Daemon
from durable_streams.server.web.connections import LimitedFactory

#: How long, in seconds, a test waits for what should happen at once.
PATIENCE = 20.0

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class AdminConnectionTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 (trial chooses it)

        self.reactor: Any = reactor
        connection = replace(ConnectionSettings(), drain_timeout_secs=1)
        self.daemon = Daemon(
            replace(
                Settings(),
                server=ServerSettings(bind_address="127.0.0.1:0"),
                admin=AdminSettings(enabled=True, bind_address="127.0.0.1:0"),
                transport=TransportSettings(connection=connection),
            ),
            self.reactor,
        )
        self.addCleanup(self.daemon.stopService)

    async def connect(self) -> socket.socket:
        address: Any = self.daemon.listeners.admin_addresses[0]
        client = await deferToThread(socket.create_connection, ("127.0.0.1", address.port), PATIENCE)
        self.addCleanup(client.close)
        return client

    async def ask(self, client: socket.socket, request: bytes) -> bytes:
        client.sendall(request)
        return await deferToThread(client.recv, 65_536)

    async def test_idle_admin_connection_is_closed_when_the_daemon_stops(self) -> None:
        await self.daemon.start()
        client = await self.connect()
        self.assertIn(b"200 OK", await self.ask(client, REQUEST))
        await self.daemon.stopService()
        self.assertEqual(await deferToThread(client.recv, 1), b"")

    async def test_admin_connection_that_never_ends_is_aborted_after_the_drain_timeout(self) -> None:
        await self.daemon.start()
        client = await self.connect()
        # The request is begun, and never finished.
        client.sendall(REQUEST[:-2] + b"Content-Length: 10\r\n\r\nabc")
        await self.until(lambda: self.channels() and self.channels()[0].requests)
        began = self.reactor.seconds()
        await self.daemon.stopService()
        self.assertGreaterEqual(self.reactor.seconds() - began, 0.9)
        self.assertEqual(self.channels(), [])

    async def test_admin_answer_on_its_way_is_finished_before_the_connection_closes(self) -> None:
        await self.daemon.start()
        client = await self.connect()
        client.sendall(REQUEST[:-2] + b"Content-Length: 4\r\n\r\n")
        await self.until(lambda: self.channels() and self.channels()[0].requests)
        stopping = self.daemon.stopService()
        self.assertNoResult(stopping)
        self.assertIn(b"HTTP/1.1", await self.ask(client, b"body"))
        self.assertEqual(await deferToThread(client.recv, 1), b"")
        await stopping

    def channels(self) -> list[Any]:
        admin: Any = self.daemon._fronts.admin
        return [wrapper.wrappedProtocol._channel for wrapper in admin.protocols]

    async def until(self, condition: Any) -> None:
        for _ in range(int(PATIENCE / 0.01)):
            if condition():
                return
            await deferLater(self.reactor, 0.01)
        raise AssertionError("It did not happen.")


class DrainTests(TestCase):
    def test_draining_a_factory_without_connections_is_done_at_once_and_refuses_further_ones(self) -> None:
        refusal = Protocol()
        factory = LimitedFactory(Factory.forProtocol(Protocol), 2, lambda: refusal)
        drained: Deferred[None] = factory.drain()
        self.assertIsNone(self.successResultOf(drained))
        self.assertIs(factory.buildProtocol(None), refusal)
