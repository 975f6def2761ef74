"""Reads that are larger than one piece."""

from __future__ import annotations

from durable_streams.server.web.http1.channel import StreamChannel
from tests.support.cases import ChannelTestCase, get
from tests.support.fronts import BASE, settings_with


class StreamingTests(ChannelTestCase):
    settings = settings_with(max_total_bytes=100_000_000, max_stream_bytes=100_000_000)

    def test_ten_mebibytes_are_sent_in_bounded_pieces_with_their_length(self) -> None:
        self.front.create("a")
        data = bytes(range(256)) * 4096 * 10
        for start in range(0, len(data), 300_001):
            self.front.append_directly("a", data[start : start + 300_001], "text/plain")
        peer = self.front.follow(BASE + "a", room=50_000)
        self.assertEqual(peer.waiting_bytes, 50_000)
        channel = peer.transport.protocol
        assert isinstance(channel, StreamChannel)
        while peer.waiting_bytes:
            kept = sum(map(len, channel._outlet._waiting))
            self.assertLessEqual(kept, 200_000)
            peer.take_piece(40_000)
        self.assertEqual((peer.reply.framing, peer.reply.length), ("length", len(data)))
        self.assertTrue(peer.reply.complete)
        self.assertEqual(bytes(peer.reply.body), data)
        peer.read_freely()
        peer.send(get("a", "?offset=now"))
        self.assertEqual(peer.statuses, [200, 200])

    def test_a_large_json_stream_is_sent_in_pieces_with_its_length(self) -> None:
        self.front.create("a", "application/json")
        message = b'{"text":"' + b"x" * 990 + b'"},'
        for _ in range(10):
            self.front.append_directly("a", message * 1_048, "application/json")
        peer = self.front.follow(BASE + "a", room=100_000)
        peer.take_all()
        peer.read_freely()
        self.assertEqual(peer.reply.length, len(message) * 10_480 + 1)
        self.assertTrue(peer.reply.complete)
        self.assertEqual(len(peer.reply.json()), 10_480)

    def test_data_appended_during_a_read_is_returned_by_the_next_read(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=100_000)
        self.front.append_directly("a", b"y" * 1_000_000, "text/plain")
        peer.read_freely()
        self.assertEqual(bytes(peer.reply.body), b"x" * 1_000_000)
        rest = self.front.ask("GET", BASE + "a?offset=" + (peer.reply.get("stream-next-offset") or ""))
        self.assertEqual(bytes(rest.body), b"y" * 1_000_000)

    def test_a_long_poll_far_behind_the_tail_is_streamed(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a?offset=-1&live=long-poll", room=100_000)
        peer.read_freely()
        self.assertEqual((peer.statuses, len(peer.reply.body)), ([200], 1_000_000))
        self.assertIsNotNone(peer.reply.get("stream-cursor"))

    def test_a_stream_deleted_during_a_read_aborts_the_connection(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=100_000)
        self.front.delete("a")
        peer.read_freely()
        self.assertFalse(peer.reply.complete)
        self.assertTrue(peer.aborted)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_recreated_stream_is_not_mixed_into_a_read(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=100_000)
        self.front.delete("a")
        self.front.create("a")
        self.front.append_directly("a", b"y" * 2_000_000, "text/plain")
        peer.read_freely()
        self.assertFalse(peer.reply.complete)
        self.assertTrue(peer.aborted)
        self.assertNotIn(b"y", bytes(peer.reply.body))

    def test_a_reader_that_disconnects_stops_the_read(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=100_000)
        peer.leave()
        self.assertTrue(peer.closed)
        self.assertTrue(self.front.is_healthy())
