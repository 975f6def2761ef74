"""The connections of ``admin.bind_address``."""

from __future__ import annotations

import socket
from typing import Any

from msgspec.structs import replace
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from durable_streams.server.config.sections import (
    AdminSettings,
    ConnectionSettings,
    LimitSettings,
    ServerSettings,
    TransportSettings,
    VersionSettings,
)
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.service import Daemon
from durable_streams.server.web.connections import Connections

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
                limits=replace(LimitSettings(), max_connections=3),
                # Over plain HTTP there is no HTTP/2 to negotiate, whatever the streams' listener has.
                transport=TransportSettings(connection=connection, http=VersionSettings(("http2",))),
            ),
            self.reactor,
        )
        self.addCleanup(self.daemon.stopService)

    @property
    def factory(self) -> Connections:
        admin = self.daemon._fronts.admin
        assert admin is not None
        return admin

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
        await self.until(lambda: self.factory.connections == 1)
        await deferLater(self.reactor, 0.05)
        began = self.reactor.seconds()
        await self.daemon.stopService()
        self.assertGreaterEqual(self.reactor.seconds() - began, 0.9)
        self.assertEqual(self.factory.connections, 0)

    async def test_admin_answer_on_its_way_is_finished_before_the_connection_closes(self) -> None:
        await self.daemon.start()
        client = await self.connect()
        client.sendall(REQUEST[:-2] + b"Content-Length: 4\r\n\r\nb")
        await self.until(lambda: self.factory.connections == 1)
        await deferLater(self.reactor, 0.05)
        stopping = self.daemon.stopService()
        self.assertNoResult(stopping)
        self.assertIn(b"HTTP/1.1", await self.ask(client, b"ody"))
        self.assertEqual(await deferToThread(client.recv, 1), b"")
        await stopping

    async def test_admin_connections_over_the_limit_are_refused(self) -> None:
        await self.daemon.start()
        for _ in range(3):
            await self.connect()
        await self.until(lambda: self.factory.connections == 3)
        refused = await self.connect()
        self.assertIn(b"503 Service Unavailable", await deferToThread(refused.recv, 65_536))

    async def test_a_body_of_a_client_without_authorization_is_not_received(self) -> None:
        await self.daemon.start()
        client = await self.connect()
        head = b"POST /admin/streams HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 10000000000\r\n\r\n"
        self.assertIn(b"413", (await self.ask(client, head)).split(b"\r\n")[0])

    async def test_streams_are_not_served_there(self) -> None:
        await self.daemon.start()
        for method in (b"GET", b"PUT", b"DELETE"):
            client = await self.connect()
            answer = await self.ask(client, method + b" /v1/stream/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertIn(b"404 Not Found", answer)
            client.close()

    async def until(self, condition: Any) -> None:
        for _ in range(int(PATIENCE / 0.01)):
            if condition():
                return
            await deferLater(self.reactor, 0.01)
        raise AssertionError("It did not happen.")
