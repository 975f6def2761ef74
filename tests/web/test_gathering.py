"""Connections that are read together, over real sockets."""

from __future__ import annotations

from typing import Any, cast
from unittest import SkipTest

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from durable_streams.server.web.gathering import GatheredPort, is_epoll, listen

reactor = cast(Any, running)


class Echo(Protocol):
    """Says it again, in capitals; a bug when it is told of one."""

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        if data == b"bug":
            raise ZeroDivisionError
        cast(Any, self.transport).write(data.upper())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.lost.callback(None)


class Client(Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Deferred[None] = Deferred()
        self._wanted: tuple[int, Deferred[bytes]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self._wanted is not None and len(self.heard) >= self._wanted[0]:
            (_, waiting), self._wanted = self._wanted, None
            waiting.callback(self.heard)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def say(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)

    def hears(self, size: int) -> Deferred[bytes]:
        heard: Deferred[bytes] = Deferred()
        if len(self.heard) >= size:
            heard.callback(self.heard)
        else:
            self._wanted = size, heard
        return heard


class GatheringTests(TestCase):
    def setUp(self) -> None:
        if not is_epoll(reactor):
            raise SkipTest("Only the epoll reactor has anything to gather.")
        self.servers: list[Echo] = []
        self.clients: list[Client] = []
        factory: Any = Factory.forProtocol(Echo)
        build = factory.buildProtocol

        def kept(address: Any) -> Any:
            self.servers.append(cast(Echo, build(address)))
            return self.servers[-1]

        factory.buildProtocol = kept
        self.port = cast(GatheredPort, listen(reactor, 0, factory, 50, "127.0.0.1"))
        self.assertIsInstance(self.port, GatheredPort)
        self.addCleanup(self.leave)

    async def leave(self) -> None:
        await maybeDeferred(self.port.stopListening)
        for client in self.clients:
            cast(Any, client.transport).abortConnection()
            await client.lost
        for server in self.servers:
            await server.lost
        await deferLater(reactor, 0)
        self.assertTrue(self.port._gathered._ready.closed)
        self.assertNotIn(self.port._gathered, reactor.getReaders())

    async def connect(self) -> Client:
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        client = cast(Client, await connectProtocol(endpoint, Client()))
        self.clients.append(client)
        return client

    async def test_all_are_read(self) -> None:
        clients = [await self.connect() for _ in range(50)]
        for _ in range(3):
            for number, client in enumerate(clients):
                client.say(b"word %02d " % number)
        for number, client in enumerate(clients):
            self.assertEqual(await client.hears(24), b"WORD %02d " % number * 3)

    async def test_a_paused_one_is_not_read_until_it_is_resumed(self) -> None:
        one, other = await self.connect(), await self.connect()
        one.say(b"a")
        await one.hears(1)
        server = cast(Any, self.servers[0].transport)
        server.pauseProducing()
        one.say(b"b")
        other.say(b"c")
        self.assertEqual(await other.hears(1), b"C")
        await deferLater(reactor, 0.01)
        self.assertEqual(one.heard, b"A")
        server.resumeProducing()
        self.assertEqual(await one.hears(2), b"AB")

    async def test_one_that_ends_is_told(self) -> None:
        client = await self.connect()
        client.say(b"a")
        await client.hears(1)
        cast(Any, client.transport).loseConnection()
        await self.servers[0].lost
        assert self.servers[0].reason is not None
        self.servers[0].reason.trap(ConnectionDone)

    async def test_a_bug_ends_its_connection_and_no_other(self) -> None:
        one, other = await self.connect(), await self.connect()
        one.say(b"bug")
        await one.lost
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        other.say(b"a")
        self.assertEqual(await other.hears(1), b"A")

    async def test_those_that_are_left_are_read_when_the_port_is_closed(self) -> None:
        client = await self.connect()
        client.say(b"a")
        await client.hears(1)
        cast(Any, self.servers[0].transport).pauseProducing()
        await maybeDeferred(self.port.stopListening)
        cast(Any, self.servers[0].transport).resumeProducing()
        client.say(b"b")
        self.assertEqual(await client.hears(2), b"AB")
