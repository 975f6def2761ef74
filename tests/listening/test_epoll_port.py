"""The port whose connections share an epoll, over real sockets."""

from __future__ import annotations

import select
import socket
from functools import partial
from typing import Any, cast

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from durable_streams.server.listening.epoll_port import (
    HELD_SECONDS,
    MAX_HELD,
    MAX_SLICE,
    MIN_SLICE,
    WRITE_LULL,
    WRITERS_BATCH,
    WRITERS_SLICE,
    ConnectionPoller,
    EpollPort,
    PolledConnection,
    is_epoll,
    listen,
)
from tests.support.skipping import skip_other_platform

reactor = cast(Any, running)


class Echo(Protocol):
    """Echoes data in capitals; raises an error if the data is ``bug``."""

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
    """Records what it receives."""

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


class EpollPortTests(TestCase):
    def setUp(self) -> None:
        if not is_epoll(reactor):
            skip_other_platform("the reactor does not use epoll")
        self.servers: list[Echo] = []
        self.clients: list[Client] = []
        factory: Any = Factory.forProtocol(Echo)
        build = factory.buildProtocol

        def kept(address: Any) -> Any:
            self.servers.append(cast(Echo, build(address)))
            return self.servers[-1]

        factory.buildProtocol = kept
        self.port = cast(EpollPort, listen(reactor, 0, factory, 50, "127.0.0.1"))
        self.assertIsInstance(self.port, EpollPort)
        self.addCleanup(self.leave)

    async def leave(self) -> None:
        await maybeDeferred(self.port.stopListening)
        for client in self.clients:
            cast(Any, client.transport).abortConnection()
            await client.lost
        for server in self.servers:
            await server.lost
        await deferLater(reactor, 0)
        self.assertTrue(self.port.poller._ready.closed)
        self.assertNotIn(self.port.poller, reactor.getReaders())

    async def connect(self) -> Client:
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        client = cast(Client, await connectProtocol(endpoint, Client()))
        self.clients.append(client)
        return client

    async def test_every_connection_is_read(self) -> None:
        clients = [await self.connect() for _ in range(50)]
        for _ in range(3):
            for number, client in enumerate(clients):
                client.say(b"word %02d " % number)
        for number, client in enumerate(clients):
            self.assertEqual(await client.hears(24), b"WORD %02d " % number * 3)

    async def test_a_paused_connection_is_not_read_until_it_is_resumed(self) -> None:
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

    async def test_a_protocol_is_notified_when_its_client_disconnects(self) -> None:
        client = await self.connect()
        client.say(b"a")
        await client.hears(1)
        cast(Any, client.transport).loseConnection()
        await self.servers[0].lost
        assert self.servers[0].reason is not None
        self.servers[0].reason.trap(ConnectionDone)

    async def test_an_exception_in_a_protocol_closes_only_its_connection(self) -> None:
        one, other = await self.connect(), await self.connect()
        one.say(b"bug")
        await one.lost
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        other.say(b"a")
        self.assertEqual(await other.hears(1), b"A")

    async def test_an_exception_when_a_connection_is_lost_leaves_others_open(self) -> None:
        one, other = await self.connect(), await self.connect()
        one.say(b"a")
        await one.hears(1)
        server: Any = self.servers[0]
        end = server.connectionLost

        def end_badly(reason: Failure) -> None:
            end(reason)
            raise ZeroDivisionError

        server.connectionLost = end_badly
        cast(Any, one.transport).loseConnection()
        await server.lost
        await deferLater(reactor, 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        other.say(b"b")
        self.assertEqual(await other.hears(1), b"B")

    async def test_open_connections_are_read_after_the_port_is_closed(self) -> None:
        client = await self.connect()
        client.say(b"a")
        await client.hears(1)
        cast(Any, self.servers[0].transport).pauseProducing()
        await maybeDeferred(self.port.stopListening)
        cast(Any, self.servers[0].transport).resumeProducing()
        client.say(b"b")
        self.assertEqual(await client.hears(2), b"AB")


class Scribe(Protocol):
    """Records that it was served, which takes ``cost`` seconds; ``writes`` is whether its last request was a write."""

    def __init__(self, served: list[Scribe], clock: Clock) -> None:
        self._served = served
        self._clock = clock
        self.writes = False
        self.cost = 0.0
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._served.append(self)
        self._clock.pump([self.cost])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class ShareTests(TestCase):
    """Which connections are served in a turn of the reactor, and for how long; only serving them advances the clock."""

    def setUp(self) -> None:
        if not is_epoll(reactor):
            skip_other_platform("the reactor does not use epoll")
        self.clock = Clock()
        self.clock.advance(1_000)
        self.served: list[Scribe] = []
        self.most_held = 0
        self.poller = ConnectionPoller(reactor, self.clock.seconds)
        self.sockets: dict[Scribe, socket.socket] = {}
        self.addCleanup(self.leave)

    def leave(self) -> None:
        self.poller.close()
        for scribe, ours in self.sockets.items():
            ours.close()
            if not scribe.lost.called:
                cast(Any, scribe.transport).connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.poller._ready.closed)

    def connect(self, cost: float, writes: bool = False) -> Scribe:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        scribe = Scribe(self.served, self.clock)
        server = PolledConnection(self.poller, theirs, scribe, ("", 0), None, 0, reactor)
        scribe.makeConnection(cast(Any, server))
        server.startReading()
        self.sockets[scribe] = ours
        # Its first request decides of which kind it is.
        scribe.writes = writes
        self.say(scribe)
        self.poller.doRead()
        scribe.cost = cost
        self.served.clear()
        return scribe

    def say(self, *scribes: Scribe) -> None:
        for scribe in scribes:
            self.sockets[scribe].send(b"x")

    def turn(self) -> list[Scribe]:
        """Return the connections that are served in one turn of the reactor."""
        self.served.clear()
        self.poller.doRead()
        return list(self.served)

    def answer(self, *scribes: Scribe) -> list[Scribe]:
        """Let each be served with an answer that is held back; return, in the end, whose answers were sent."""
        sent: list[Scribe] = []

        def serve(scribe: Scribe, data: bytes) -> None:
            Scribe.dataReceived(scribe, data)
            cast(Any, scribe.transport).hold(lambda: sent.append(scribe))
            self.most_held = max(self.most_held, len(self.served) - len(sent))

        for scribe in scribes:
            self.patch(scribe, "dataReceived", partial(serve, scribe))
        self.say(*scribes)
        return sent

    def test_answers_are_sent_when_all_ready_writers_were_read(self) -> None:
        writers = [self.connect(0.0, True) for _ in range(5)]
        sent = self.answer(*writers)
        self.assertEqual(self.turn(), sent)
        self.assertCountEqual(sent, writers)
        self.assertEqual(self.most_held, 5)

    def test_no_more_than_the_maximum_of_answers_is_held_back(self) -> None:
        writers = [self.connect(0.0, True) for _ in range(2 * MAX_HELD)]
        sent = self.answer(*writers)
        self.turn()
        self.assertCountEqual(sent, writers)
        self.assertLessEqual(self.most_held, MAX_HELD)

    def test_answers_to_slow_readers_are_not_held_back_for_long(self) -> None:
        readers = [self.connect(HELD_SECONDS / 2.5) for _ in range(12)]
        sent = self.answer(*readers)
        self.turn()
        self.assertGreater(len(sent), 0)
        self.assertLessEqual(self.most_held, 4)

    def test_answers_to_writers_are_sent_before_readers_are_read(self) -> None:
        writer, reader = self.connect(0.0, True), self.connect(0.0)
        sent = self.answer(writer)
        seen: list[list[Scribe]] = []
        self.patch(reader, "dataReceived", lambda data: seen.append(list(sent)))
        self.say(reader)
        self.turn()
        self.assertEqual(seen, [[writer]])

    def test_answers_are_sent_before_something_that_takes_long(self) -> None:
        first, second = self.connect(0.0, True), self.connect(0.0, True)
        sent = self.answer(first, second)
        seen: list[list[Scribe]] = []

        def serve(scribe: Scribe, data: bytes) -> None:
            transport = cast(Any, scribe.transport)
            transport.send_held()
            seen.append(list(sent))
            transport.hold(lambda: sent.append(scribe))

        for scribe in (first, second):
            self.patch(scribe, "dataReceived", partial(serve, scribe))
        self.turn()
        self.assertEqual([len(each) for each in seen], [0, 1])

    def test_an_answer_that_cannot_be_sent_does_not_keep_others_from_being_sent(self) -> None:
        writers = [self.connect(0.0, True) for _ in range(3)]
        sent = self.answer(*writers)
        self.poller.hold(lambda: 1 / 0)  # type: ignore[arg-type]
        self.turn()
        self.assertCountEqual(sent, writers)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_writers_are_served_first_and_readers_for_as_long_as_they_took(self) -> None:
        readers = [self.connect(0.001) for _ in range(50)]
        writers = [self.connect(0.002, True) for _ in range(5)]
        self.say(*readers, *writers)
        served = self.turn()
        self.assertCountEqual(served[:5], writers)
        self.assertEqual(len(served[5:]), 10)
        self.assertTrue(set(served[5:]) <= set(readers))

    def test_many_writers_are_served_in_turn_for_a_bounded_time(self) -> None:
        reader = self.connect(0.001)
        writers = [self.connect(0.001, True) for _ in range(100)]
        counts = dict.fromkeys(writers, 0)
        self.say(reader, *writers)
        for _ in range(12):
            before = self.clock.seconds()
            served = self.turn()
            self.assertLess(self.clock.seconds() - before, 2 * (WRITERS_SLICE + WRITERS_BATCH * 0.001))
            self.assertIn(reader, served)
            for scribe in served:
                if scribe is not reader:
                    counts[scribe] += 1
            self.say(*served)
            self.assertLessEqual(max(counts.values()) - min(counts.values()), 1)
        self.assertGreaterEqual(min(counts.values()), 2)

    def test_a_writer_that_closes_or_pauses_before_its_turn_is_not_served(self) -> None:
        writers = [self.connect(0.001, True) for _ in range(60)]
        self.say(*writers)
        first = self.turn()
        left = [writer for writer in writers if writer not in first]
        gone, paused = left[-1], left[-2]
        self.sockets[gone].close()
        cast(Any, gone.transport).connectionLost(Failure(ConnectionDone()))
        cast(Any, paused.transport).pauseProducing()
        served = [scribe for _ in range(3) for scribe in self.turn()]
        self.assertCountEqual(served, set(left) - {gone, paused})

    def test_readers_get_the_minimum_slice_beside_one_small_write(self) -> None:
        readers = [self.connect(MIN_SLICE / 4) for _ in range(50)]
        writer = self.connect(0.0, True)
        self.say(*readers, writer)
        self.assertEqual(len(self.turn()), 1 + 4)

    def test_readers_get_the_maximum_slice_after_a_lull_of_writes(self) -> None:
        readers = [self.connect(MAX_SLICE / 19.5) for _ in range(50)]
        writer = self.connect(0.0, True)
        self.clock.advance(WRITE_LULL)
        self.say(*readers)
        self.assertEqual(len(self.turn()), 20)
        self.assertFalse(self.poller.crowded)
        self.say(writer)
        self.assertIs(self.turn()[0], writer)
        self.assertTrue(self.poller.crowded)

    def test_no_reader_is_served_twice_before_all_were_served(self) -> None:
        readers = [self.connect(0.001) for _ in range(40)]
        writer = self.connect(0.003, True)
        counts = dict.fromkeys(readers, 0)
        self.say(*readers, writer)
        for _ in range(60):
            served = self.turn()
            self.assertIs(served[0], writer)
            for reader in served[1:]:
                counts[reader] += 1
            # Each served connection sends again at once.
            self.say(*served)
            self.assertLessEqual(max(counts.values()) - min(counts.values()), 1)
        self.assertGreaterEqual(min(counts.values()), 60 * 3 // 40)

    def test_a_connection_whose_requests_change_is_served_by_its_new_kind(self) -> None:
        readers = [self.connect(0.001) for _ in range(10)]
        one = self.connect(0.001)
        one.writes = True
        self.say(one)
        self.assertEqual(self.turn(), [one])
        self.say(*readers, one)
        self.assertIs(self.turn()[0], one)
        one.writes = False
        self.say(one, *readers)
        while one not in self.turn():
            pass
        self.say(one, *readers)
        self.assertLess(len(self.turn()), 11)

    def test_a_reader_that_closes_before_its_turn_is_not_served(self) -> None:
        readers = [self.connect(MAX_SLICE) for _ in range(3)]
        self.say(*readers)
        (first,) = self.turn()
        gone, other = (reader for reader in readers if reader is not first)
        cast(Any, gone.transport).connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.turn() + self.turn(), [other])

    def test_a_connection_that_reuses_the_descriptor_of_a_closed_one_is_not_served_in_its_place(self) -> None:
        readers = [self.connect(MAX_SLICE) for _ in range(3)]
        self.say(*readers)
        (first,) = self.turn()
        gone, other = (reader for reader in readers if reader is not first)
        server = cast(Any, gone.transport)
        descriptor = server.fileno()
        self.sockets[gone].close()
        server.connectionLost(Failure(ConnectionDone()))
        ours, theirs = socket.socketpair()
        # One of the two has it, as the lowest that is free; what it is said to be ready for was not meant for it.
        self.assertIn(descriptor, (ours.fileno(), theirs.fileno()))
        if theirs.fileno() != descriptor:
            ours, theirs = theirs, ours
        theirs.setblocking(False)
        heir = Scribe(self.served, self.clock)
        heir.makeConnection(
            cast(Any, PolledConnection(self.poller, theirs, heir, ("", 0), None, 0, reactor)),
        )
        cast(Any, heir.transport).startReading()
        self.sockets[heir] = ours
        self.assertEqual(self.turn() + self.turn(), [other])
        self.assertFalse(heir.lost.called)

    def test_a_write_of_a_reader_is_sent_in_the_next_turn(self) -> None:
        reader = self.connect(0.0)
        cast(Any, reader.transport).write(b"x" * 10)
        self.sockets[reader].setblocking(False)
        self.assertRaises(BlockingIOError, self.sockets[reader].recv, 100)
        self.poller.doRead()
        self.assertEqual(self.sockets[reader].recv(100), b"x" * 10)
        self.assertEqual(reader.transport and cast(Any, reader.transport).watched, select.EPOLLIN)

    def test_a_connection_whose_client_disconnects_is_closed(self) -> None:
        reader, writer = self.connect(0.0), self.connect(0.0, True)
        for scribe in (reader, writer):
            self.sockets[scribe].close()
        self.poller.doRead()
        self.assertTrue(reader.lost.called and writer.lost.called)

    def test_a_paused_connection_that_is_reset_while_it_is_written_to_is_closed(self) -> None:
        reader = self.connect(0.0)
        server = cast(Any, reader.transport)
        server.pauseProducing()
        server.write(b"x")
        self.sockets[reader].close()
        self.poller.doRead()
        self.assertTrue(reader.lost.called)
