"""Tests of sending answers to fast and slow readers."""

from __future__ import annotations

import json
from typing import cast

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProducer
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.model import StreamFacts
from durable_streams.server.web.http1.channel import StreamChannel
from durable_streams.server.web.http1.outlet import Outlet
from durable_streams.server.web.transports import Transport
from tests.support.cases import ChannelTestCase, get
from tests.support.fronts import BASE, Peer, WrappedFront, settings_with
from tests.support.replies import read_events
from tests.support.tls import TLSFront, TLSPeer


class ReaderTests(ChannelTestCase):
    """Clients that read slowly, or not at all."""

    settings = settings_with({"stall_timeout_secs": 20, "idle_timeout_secs": 50, "sse_reconnect_interval_secs": 0})
    #: How long one that reads nothing may keep a small answer from being sent, in seconds.
    patience = 22

    def outlet(self, peer: Peer) -> Outlet:
        channel = peer.transport.protocol
        if isinstance(channel, ProtocolWrapper):
            channel = channel.wrappedProtocol
        assert isinstance(channel, StreamChannel)
        return channel._outlet

    def kept(self, peer: Peer) -> int:
        """Return the number of bytes buffered for a client in the outlet and the transport."""
        transport = peer.transport
        kept = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        if isinstance(transport.protocol, TLSMemoryBIOProtocol):
            kept += sum(map(len, transport.protocol._appSendBuffer))
        outlet = self.outlet(peer)
        return kept + sum(map(len, outlet._waiting)) + sum(map(len, outlet._gathered))

    def test_a_slow_reader_gets_every_byte_once_and_in_order(self) -> None:
        data = bytes(range(251)) * 600
        self.front.create("a", "application/octet-stream", data)
        self.front.create("b", body=b"second")
        for step in (1_000, 7_777, 65_536):
            peer = self.front.connect(room=20_000)
            peer.send(get("a") + get("b") + get("a"))
            while peer.waiting_bytes:
                peer.take_piece(step)
            self.assertEqual([bytes(reply.body) for reply in peer.replies], [data, b"second", data], step)

    def test_a_request_during_a_blocked_write_does_not_overtake_it(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        self.front.create("b", body=b"second")
        for take in range(1_000, 60_000, 4_000):
            peer = self.front.connect(room=50_000)
            peer.send(get("a"))
            while peer.waiting_bytes == 50_000:
                peer.take_piece(take)
                peer.send_unseen(get("b"))
            peer.read_freely()
            bodies = {bytes(reply.body) for reply in peer.replies[1:]}
            self.assertEqual((bytes(peer.replies[0].body), bodies), (b"x" * 100_000, {b"second"}))

    def test_a_client_that_never_reads_uses_bounded_memory(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        peer = self.front.connect(room=1_000)
        for _ in range(100):
            peer.send(get("a") * 10)
        self.assertLess(self.kept(peer), 400_000)
        self.assertGreater(peer.unread_by_server, 0)

    def test_a_client_that_reads_late_receives_all_answers(self) -> None:
        self.front.create("a", body=b"x" * 10_000)
        peer = self.front.connect(room=1_000)
        for _ in range(100):
            peer.send(get("a"))
        peer.read_freely()
        self.assertEqual(peer.statuses, [200] * 100)
        self.assertEqual(peer.unread_by_server, 0)

    def test_no_data_is_read_for_a_tail_after_unread_answers(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        self.front.create("b")
        for _ in range(100):
            self.front.append_directly("b", b"y" * 50_000, "text/plain")
        peer = self.front.connect(room=1_000)
        peer.send(get("a") + get("b", "?offset=-1&live=sse"))
        self.assertLess(self.kept(peer), 300_000)
        peer.read_freely()
        text = "".join(event.data for event in peer.events if event.kind == "data")
        self.assertEqual(len(text), 5_000_000)

    def test_no_data_is_read_for_a_catch_up_read_after_unread_answers(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        self.front.create("b")
        self.front.append_directly("b", b"y" * 5_000_000, "text/plain")
        peer = self.front.connect(room=1_000)
        peer.send(get("a") + get("b"))
        self.assertLess(self.kept(peer), 300_000)
        peer.read_freely()
        self.assertEqual([len(reply.body) for reply in peer.replies], [100_000, 5_000_000])

    def test_no_data_is_read_for_a_tail_that_stops_reading(self) -> None:
        self.front.create("a")
        peer = self.front.follow(BASE + "a?offset=-1&live=sse", room=5_000)
        for number in range(200):
            self.front.append("a", b"%05d" % number + b"x" * 20_000)
        self.assertLess(self.kept(peer), 200_000)
        peer.read_freely()
        text = "".join(event.data for event in peer.events if event.kind == "data")
        self.assertEqual(text, "".join(f"{number:05}" + "x" * 20_000 for number in range(200)))

    def test_a_slow_tail_reads_every_byte_once(self) -> None:
        self.front.create("a", "application/json")
        peer = self.front.follow(BASE + "a?offset=-1&live=sse", room=3_000)
        for number in range(300):
            self.front.append("a", b'{"number":%d,"rest":"%b"}' % (number, b"x" * 500), "application/json")
            peer.take_piece(200)
        peer.take_all(1_000)
        peer.read_freely()
        found = [
            message["number"]
            for event in read_events(bytes(peer.reply.body))
            if event.kind == "data"
            for message in json.loads(event.data)
        ]
        self.assertEqual(found, list(range(300)))

    def test_little_of_a_large_event_is_buffered_for_slow_readers(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 3_000_000, "text/plain")
        peers = [self.front.follow(BASE + "a?offset=-1&live=sse", room=65_536) for _ in range(2)]
        for peer in peers:
            self.assertLess(self.kept(peer), 200_000)
            self.assertLess(peer.transport._tempDataLen + len(peer.transport.dataBuffer), 200_000)
        for _ in range(60):
            self.front.pass_time(1)
            for peer in peers:
                peer.take_piece(65_536)
        self.assertEqual([peer.closed for peer in peers], [False, False])
        for peer in peers:
            peer.read_freely()
            self.assertEqual([event.data for event in peer.events if event.kind == "data"], ["x" * 3_000_000])

    def test_a_client_that_reads_nothing_is_aborted_after_the_stall_timeout(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        readers = [
            self.front.follow(BASE + "a", room=10_000),
            self.front.follow(BASE + "a?offset=-1&live=sse", room=10_000),
            self.front.follow(BASE + "a?offset=-1&live=long-poll", room=10_000),
        ]
        self.front.pass_time(18.5)
        self.assertEqual([peer.closed for peer in readers], [False] * 3)
        self.front.pass_time(3)
        self.assertEqual([peer.aborted for peer in readers], [True] * 3)

    def test_a_stalled_client_with_a_small_answer_is_aborted(self) -> None:
        self.front.create("a", body=b"x" * 20_000)
        peer = self.front.follow(BASE + "a", room=10_000)
        self.front.pass_time(self.patience)
        self.assertTrue(peer.aborted)

    def test_a_stalled_client_with_a_late_answer_is_aborted(self) -> None:
        self.front.create("a")
        for size in (50_000, 500_000):
            peer = self.front.follow(BASE + "a?offset=now&live=long-poll", room=10_000)
            self.front.pass_time(5)
            self.front.append_directly("a", b"x" * size, "text/plain")
            self.front.pass_time(self.patience)
            self.assertTrue(peer.aborted, size)

    def test_a_client_that_reads_slowly_is_not_aborted(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=100_000)
        while peer.waiting_bytes:
            self.front.pass_time(7)
            self.assertFalse(peer.closed)
            peer.take_piece(100_000)
        self.assertTrue(peer.reply.complete)
        self.assertEqual(len(peer.reply.body), 1_000_000)

    def test_a_slow_reader_receives_all_of_the_last_answer(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        peer = self.front.connect(room=10_000)
        peer.send(get("a", headers={"Connection": "close"}))
        while not peer.ended:
            self.front.pass_time(1)
            peer.take_piece(15_000)
        self.assertEqual(len(peer.reply.body), 100_000)
        self.assertTrue(peer.reply.complete)

    def test_a_connection_lost_during_an_answer_is_released(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 5_000_000, "text/plain")
        peer = self.front.connect(room=10_000)
        peer.send(get("a"))
        peer.break_off()
        self.front.settle()
        self.assertTrue(peer.closed)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_no_data_is_read_for_a_lost_connection(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 5_000_000, "text/plain")
        reads: list[int] = []
        read_range = self.front.storage.read_range

        def counted(facts: StreamFacts, start: int, end: int) -> object:
            reads.append(start)
            return read_range(facts, start, end)

        self.patch(self.front.storage, "read_range", counted)
        peer = self.front.connect()
        peer.break_off()
        peer.send(get("a"))
        self.assertTrue(peer.closed)
        self.assertLess(len(reads), 3)


class KernelTests(ChannelTestCase):
    def test_data_in_the_kernels_buffer_arrives_after_the_close(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        peer = self.front.connect(room=1_000_000)
        peer.send(get("a", headers={"Connection": "close"}))
        self.front.pass_time(10)
        self.assertTrue(peer.closed)
        self.assertFalse(peer.aborted)
        peer.read_freely()
        self.assertTrue(peer.reply.complete)


class WrappedReaderTests(ReaderTests):
    """The same tests on a wrapped transport, which uses its own buffer."""

    front_type = WrappedFront
    patience = 50 + 22


class TLSReaderTests(ReaderTests):
    """The same over TLS."""

    front_type = TLSFront
    patience = 50 + 22


class TLSTests(ChannelTestCase):
    front_type = TLSFront

    def connect(self) -> TLSPeer:
        peer = self.front.connect()
        assert isinstance(peer, TLSPeer)
        return peer

    def test_everything_sent_is_encrypted(self) -> None:
        self.front.create("a", body=b"secret")
        peer = self.connect()
        seen = bytearray()
        unseal = peer._open

        def overheard(piece: bytes) -> bytes:
            seen.extend(piece)
            return unseal(piece)

        self.patch(peer, "_open", overheard)
        peer.send(get("a"))
        self.assertEqual(bytes(peer.reply.body), b"secret")
        self.assertGreater(len(seen), 100)
        self.assertNotIn(b"secret", seen)
        self.assertNotIn(b"HTTP/1.1", seen)

    def test_close_notify_is_sent_after_the_last_byte(self) -> None:
        self.front.create("a", body=b"x" * 200_000)
        for target in (get("a", headers={"Connection": "close"}), get("a") + b"garbage\r\n\r\n"):
            peer = self.connect()
            peer.send(target)
            self.assertTrue(all(reply.complete for reply in peer.replies))
            self.assertEqual(len(peer.replies[0].body), 200_000)
            self.assertTrue(peer.told)
            peer.send_no_more()
            self.assertTrue(peer.closed)
            self.assertFalse(peer.aborted)

    def test_a_closed_tail_ends_with_close_notify(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.connect()
        peer.send(get("a", "?offset=-1&live=sse", version="1.0"))
        self.front.close_stream("a")
        self.assertTrue(peer.told)
        self.assertTrue(peer.events[-1].control["streamClosed"])

    def test_a_client_that_does_not_close_is_disconnected(self) -> None:
        self.front.create("a")
        peer = self.connect()
        peer.send(get("a", headers={"Connection": "close"}))
        self.front.pass_time(1)
        self.assertFalse(peer.closed)
        self.front.pass_time(3)
        self.assertTrue(peer.closed)
        self.assertFalse(peer.aborted)

    def test_a_client_that_keeps_sending_is_not_read_after_the_end(self) -> None:
        self.front.create("a")
        peer = self.connect()
        peer.send(get("a", headers={"Connection": "close"}))
        for _ in range(100):
            peer.send(b"x" * 50_000)
        self.assertGreater(peer.unread_by_server, 3_000_000)
        self.front.pass_time(4)
        self.assertTrue(peer.closed)

    def test_a_drain_does_not_wait_for_a_clients_close_notify(self) -> None:
        self.front.create("a")
        peer = self.connect()
        peer.send(get("a"))
        drained = self.front.channels.drain()
        self.front.pass_time(4)
        self.successResultOf(drained)

    def test_a_slow_client_receives_everything_before_the_close(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 400_000, "text/plain")
        peer = self.front.connect(room=50_000)
        peer.send(get("a", headers={"Connection": "close"}), "GET")
        for _ in range(30):
            self.front.pass_time(1)
            peer.take_piece(50_000)
        self.assertTrue(peer.reply.complete)
        self.assertEqual(len(peer.reply.body), 400_000)
        self.assertTrue(peer.closed)

    def test_a_client_without_a_handshake_is_disconnected(self) -> None:
        skt, _ = self.front.network.accept(self.front.factory)
        self.front.pass_time(17)
        self.assertTrue(skt.closed)


class _Told:
    """The owner of an outlet, which records its calls."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def blocked(self) -> None:
        self.told.append("blocked")

    def drained(self) -> None:
        self.told.append("drained")


class _StingyTransport(StringTransport):
    """Takes a few bytes at a time, the rest when its buffer is empty."""

    TLS = False
    takes: list[object]
    aborted = False
    crowded = False
    asked = 0

    def startWriting(self) -> None:
        self.asked += 1

    def abortConnection(self) -> None:
        self.aborted = True

    def writeSomeData(self, data: bytes) -> object:
        taken = self.takes.pop(0) if self.takes else len(data)
        if isinstance(taken, int) and taken > 0:
            self.io.write(data[:taken])
        return taken

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        if not streaming:
            producer.resumeProducing()  # type: ignore[attr-defined]

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It has no packets."""


class OutletTests(SynchronousTestCase):
    def outlet(self, *takes: object) -> Outlet:
        self.transport = _StingyTransport()
        self.transport.takes = list(takes)
        self.owner = _Told()
        return Outlet(cast(Transport, self.transport), self.owner)

    def test_a_write_that_the_socket_accepts_registers_no_producer(self) -> None:
        outlet = self.outlet()
        outlet.write(b"one")
        outlet.write(b"two")
        self.assertEqual((self.transport.value(), self.transport.producer, self.owner.told), (b"onetwo", None, []))

    def test_an_outlet_yields_after_its_share_while_the_port_is_crowded(self) -> None:
        outlet = self.outlet()
        self.transport.crowded = True
        for _ in range(4):
            self.assertFalse(outlet.behind)
            outlet.write(b"x" * 131_072)
        self.assertTrue(outlet.behind)
        self.assertEqual((self.transport.asked, self.owner.told), (1, ["blocked"]))
        outlet.write(b"last")
        self.assertEqual(len(self.transport.value()), 524_288)
        outlet.resumeProducing()
        self.assertEqual(self.owner.told, ["blocked", "blocked"])
        outlet.resumeProducing()
        self.assertEqual((self.transport.value()[524_288:], outlet.behind), (b"last", False))
        self.assertEqual((self.owner.told[-1], self.transport.producer), ("drained", None))

    def test_a_flush_starts_the_outlets_share_again(self) -> None:
        outlet = self.outlet()
        self.transport.crowded = True
        for _ in range(20):
            outlet.gather()
            outlet.write(b"x" * 131_072)
            outlet.flush()
        self.assertEqual((outlet.behind, self.transport.asked), (False, 0))

    def test_an_outlet_does_not_yield_while_the_port_is_not_crowded(self) -> None:
        outlet = self.outlet()
        for _ in range(20):
            outlet.write(b"x" * 131_072)
        self.assertEqual((outlet.behind, self.transport.asked), (False, 0))

    def test_gathered_writes_are_sent_in_one_call(self) -> None:
        outlet = self.outlet(6)
        outlet.gather()
        outlet.write(b"one")
        outlet.write(b"two")
        self.assertEqual(self.transport.value(), b"")
        outlet.flush()
        self.assertEqual((self.transport.value(), outlet.behind), (b"onetwo", False))

    def test_large_gathered_writes_are_sent_early(self) -> None:
        outlet = self.outlet()
        outlet.gather()
        for _ in range(10):
            outlet.write(b"x" * 50_000)
        self.assertGreater(len(self.transport.value()), 400_000)
        outlet.flush()
        self.assertEqual(len(self.transport.value()), 500_000)

    def test_queued_data_is_written_in_slices(self) -> None:
        for taken in (0, 1, 99_999):
            outlet = self.outlet(taken)
            data = bytes(range(250)) * 800
            outlet.write(data)
            self.assertTrue(outlet.behind)
            outlet.write(b"and more")
            for _ in range(10):
                if self.transport.producer is not None:
                    outlet.resumeProducing()
            self.assertEqual(self.transport.value(), data + b"and more")
            self.assertEqual((outlet.behind, self.owner.told[-1]), (False, "drained"))

    def test_a_write_does_not_overtake_the_last_slice(self) -> None:
        outlet = self.outlet(3)
        outlet.write(b"abcdef")
        self.assertEqual(self.transport.value(), b"abcdef")
        self.transport.clear()
        outlet.write(b"ghi")
        self.assertEqual(self.transport.value(), b"")
        outlet.resumeProducing()
        self.assertEqual(self.transport.value(), b"ghi")
        self.assertEqual(self.owner.told, ["blocked", "blocked"])
        outlet.resumeProducing()
        self.assertEqual(self.owner.told, ["blocked", "blocked", "drained"])

    def test_finish_is_called_after_all_queued_data(self) -> None:
        outlet = self.outlet(3)
        ended: list[bytes] = []
        outlet.write(b"abcdef")
        outlet.finish(lambda: ended.append(self.transport.value()))
        self.assertEqual(ended, [])
        outlet.resumeProducing()
        self.assertEqual(ended, [b"abcdef"])

    def test_writes_to_a_broken_connection_are_dropped(self) -> None:
        for broken in (ConnectionLost(), -1):
            outlet = self.outlet(broken)
            outlet.write(b"abc")
            outlet.write(b"def")
            self.assertEqual((self.transport.value(), self.transport.aborted), (b"", True))
            self.assertEqual(self.owner.told, ["blocked"])
            self.assertTrue(outlet.behind)

    def test_a_wrapped_transport_uses_its_own_buffer(self) -> None:
        transport = StringTransport()
        owner = _Told()
        outlet = Outlet(cast(Transport, transport), owner)
        self.assertIs(transport.producer, outlet)
        self.assertTrue(transport.streaming)
        outlet.write(b"abc")
        outlet.pauseProducing()
        self.assertTrue(outlet.behind)
        outlet.resumeProducing()
        self.assertEqual((transport.value(), owner.told, outlet.behind), (b"abc", ["blocked", "drained"], False))
        outlet.finish(transport.loseConnection)
        self.assertEqual((transport.producer, transport.disconnecting), (None, True))

    def test_a_wrapped_transport_is_written_to_until_its_buffer_is_full(self) -> None:
        transport = _FullTransport()
        owner = _Told()
        outlet = Outlet(cast(Transport, transport), owner)
        data = bytes(range(250)) * 800
        outlet.write(data)
        outlet.write(b"and more")
        outlet.finish(transport.loseConnection)
        self.assertEqual((len(transport.value()), owner.told), (65_536, ["blocked"]))
        while not transport.disconnecting:
            outlet.resumeProducing()
        self.assertEqual(owner.told, ["blocked"] * 3 + ["drained"])
        self.assertEqual(transport.value(), data + b"and more")


class _FullTransport(StringTransport):
    """A transport that pauses its producer after each large write."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(data) > 50_000 and self.producer is not None:
            self.producer.pauseProducing()
