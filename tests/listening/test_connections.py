"""Tests of TLS records: received data equals sent data for any division of records into packets."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import reactor as running_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.listening.epoll_port import is_epoll, listen
from durable_streams.server.listening.tls import Certificates, NamedFile, TLSFactory, TLSFiles
from tests.support.authority import authority
from tests.support.daemon import PATIENCE
from tests.support.handshakes import Echo, Wire

reactor: Any = running_reactor

_MESSAGES = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4)


class RecordTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        certificate, key = authority().issue().write(folder, "server")
        self.certificates = Certificates(TLSFiles(NamedFile("c", certificate), NamedFile("k", key)))

    def connect(self, wire: Wire) -> tuple[SSL.Connection, Any, Any]:
        """Shake hands by OpenSSL itself, which leaves it to the test how the records travel."""
        served = TLSFactory(self.certificates, Factory.forProtocol(Echo), wire.clock)
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        client.set_connect_state()
        skt, transport = wire.network.accept(served)
        for _ in range(3):
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            self.carry(client, wire, skt, [])
        return client, skt, transport

    def carry(self, client: SSL.Connection, wire: Wire, skt: Any, cuts: list[int]) -> None:
        """Pass the client's bytes to the server in pieces of these sizes, and the answers back."""
        data = b""
        while True:
            try:
                data += client.bio_read(65_536)
            except SSL.WantReadError:
                break
        for size in [*cuts, len(data)]:
            skt.inbound += data[:size]
            data = data[size:]
            wire.network.settle()
        if skt.outbound:
            client.bio_write(bytes(skt.outbound))
            skt.outbound.clear()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(_MESSAGES, st.data()), max_size=6))
    def test_records_are_passed_on_however_packets_are_cut(self, rounds: list[tuple[list[bytes], Any]]) -> None:
        wire = Wire()
        client, skt, transport = self.connect(wire)
        for messages, data in rounds:
            for message in messages:
                client.send(message)
            cuts = data.draw(st.lists(st.integers(1, 400), max_size=6))
            self.carry(client, wire, skt, cuts)
            whole = b"".join(messages)
            received = b""
            while len(received) < len(whole):
                received += client.recv(65_536)
            self.assertEqual(received, whole)
        client.shutdown()
        self.carry(client, wire, skt, [])
        wire.network.settle()
        self.assertTrue(skt.closed or transport.disconnecting or skt.ended)

    def test_all_records_of_a_packet_are_passed_on_in_one_call(self) -> None:
        wire = Wire()
        client, skt, transport = self.connect(wire)
        heard: list[bytes] = []
        transport.protocol.wrappedProtocol.dataReceived = heard.append
        for number in range(20):
            client.send(b"%d" % number)
        self.carry(client, wire, skt, [])
        self.assertEqual(heard, [b"".join(b"%d" % number for number in range(20))])
        client.send(b"last")
        client.shutdown()
        self.carry(client, wire, skt, [])
        self.assertEqual(heard[1:], [b"last"])
        self.assertTrue(skt.ended)

    def test_the_end_of_the_connection_is_passed_on(self) -> None:
        wire = Wire()
        client, skt, _ = self.connect(wire)
        client.shutdown()
        self.carry(client, wire, skt, [])
        self.assertTrue(skt.ended)

    def test_an_invalid_record_ends_the_connection(self) -> None:
        wire = Wire()
        _, skt, _ = self.connect(wire)
        skt.inbound += b"\x17\x03\x03\x00\x05hello"
        wire.network.settle()
        self.assertTrue(skt.ended)


class PromptTests(TestCase):
    timeout = 60

    async def test_a_large_transfer_arrives_whole_and_in_order(self) -> None:
        if not is_epoll(reactor):
            # There is nothing of ours to be tested where there is no epoll.
            self.assertFalse(is_epoll(reactor))
            return
        paused: list[bool] = []

        class Flood(Protocol):
            """A producer that writes until it is paused."""

            def connectionMade(self) -> None:
                self.left = 400
                self.waiting = False
                assert self.transport is not None
                self.transport.registerProducer(self, True)  # type: ignore[attr-defined]
                self.resumeProducing()

            def pauseProducing(self) -> None:
                paused.append(True)
                self.waiting = True

            def resumeProducing(self) -> None:
                self.waiting = False
                assert self.transport is not None
                while self.left and not self.waiting:
                    self.left -= 1
                    self.transport.write(b"%06d" % self.left * 5000)
                if not self.left:
                    self.transport.unregisterProducer()  # type: ignore[attr-defined]
                    self.transport.loseConnection()

            def stopProducing(self) -> None:
                """The connection is lost."""

        port = listen(reactor, 0, Factory.forProtocol(Flood), 5, "127.0.0.1", prompt=True)
        self.addCleanup(port.stopListening)
        where: Any = port.getHost()
        received = await self.read(where.port)
        self.assertEqual(received, b"".join(b"%06d" % number * 5000 for number in range(399, -1, -1)))
        self.assertTrue(paused)

    def read(self, port: int) -> Deferred[bytes]:
        def read() -> bytes:
            received = bytearray()
            with socket.socket() as connection:
                connection.settimeout(PATIENCE)
                # It does not take it as fast as it comes.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
                connection.connect(("127.0.0.1", port))
                time.sleep(0.3)
                while data := connection.recv(65_536):
                    received += data
            return bytes(received)

        return deferToThread(read)
