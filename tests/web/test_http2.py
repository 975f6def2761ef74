"""Tests of HTTP/2 connections and their limits."""

from __future__ import annotations

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings
from durable_streams.server.model import Append
from durable_streams.server.run_queue import SLICE
from durable_streams.server.web.callers import NOBODY
from durable_streams.server.web.http2.heads import Head
from durable_streams.server.web.http2.stream import Exchange
from tests.support.cases import TEXT
from tests.support.fronts import BASE, settings_with
from tests.support.http2 import Http2Front, Http2Peer
from tests.support.stopwatch import Stopwatch


class Http2TestCase(SynchronousTestCase):
    settings = Settings()
    late = False

    def setUp(self) -> None:
        self.front = Http2Front(self.settings, self.late)
        self.addCleanup(self.front.stop)

    def get(self, peer: Http2Peer, query: str = "", name: str = "a") -> int:
        return peer.ask("GET", BASE + name + query)

    def send(self, peer: Http2Peer, *frames: Frame) -> None:
        """Send frames that h2 would not."""
        peer.send(b"".join(frame.serialize() for frame in frames))

    def kept(self) -> int:
        """The number of bytes buffered for the client in the server."""
        [channel] = self.front.channels._channels
        exchanges = channel.exchanges.values()  # type: ignore[attr-defined]
        kept = sum(len(piece) for exchange in exchanges for piece in exchange._pieces)
        self.assertEqual(channel.waiting_bytes, kept)  # type: ignore[attr-defined]
        return kept

    def grow(self, times: int) -> None:
        for _ in range(times):
            self.front.streams.append("a", Append("text/plain", b"x" * 50_000))
            self.front.settle()


class ConnectionTests(Http2TestCase):
    def test_the_server_announces_its_settings(self) -> None:
        peer = self.front.connect()
        self.assertEqual(peer.settings[SettingCodes.MAX_CONCURRENT_STREAMS], 100)
        self.assertEqual(peer.settings[SettingCodes.MAX_HEADER_LIST_SIZE], 32_768)
        self.assertGreaterEqual(peer.h2.outbound_flow_control_window, 1_000_000)

    def test_answers_on_one_connection_are_independent(self) -> None:
        offset = self.front.create("a", body=b"hello")
        peer = self.front.connect()
        poll = self.get(peer, f"?offset={offset}&live=long-poll")
        tail = self.get(peer, "?offset=-1&live=sse")
        read = self.get(peer)
        self.assertNotIn(poll, peer.streams)
        self.assertFalse(peer.streams[tail].complete)
        self.assertEqual(bytes(peer.streams[read].body), b"hello")
        self.front.append("a", b" world")
        self.assertEqual(bytes(peer.streams[poll].body), b" world")
        self.assertIn(b"data:  world", bytes(peer.streams[tail].body))

    def test_the_authority_is_used_as_host(self) -> None:
        peer = self.front.connect()
        made = peer.ask("PUT", BASE + "a", TEXT | {"Host": "other.example:8443"})
        self.assertEqual(peer.streams[made].get("location"), "https://other.example:8443/v1/stream/a")
        for host in ("other.example/path", "user@other.example", "a b"):
            bad = peer.ask("PUT", BASE + "b", TEXT | {"Host": host})
            self.assertEqual((peer.streams[bad].status, peer.streams[bad].code), (400, "BAD_REQUEST"))

    def test_a_duplicate_header_is_rejected(self) -> None:
        peer = self.front.connect()
        stream_id = peer.h2.get_next_available_stream_id()
        fields = [(":method", "GET"), (":path", BASE + "a"), (":scheme", "https"), (":authority", "x")]
        peer.h2.send_headers(stream_id, [*fields, ("stream-seq", "1"), ("stream-seq", "2")], True)
        peer.pass_on()
        self.assertEqual(peer.streams[stream_id].status, 400)

    def test_expect_100_continue_is_answered_with_100(self) -> None:
        peer = self.front.connect()
        made = peer.ask("PUT", BASE + "a", TEXT | {"Expect": "100-continue"}, is_all=False)
        self.assertEqual(peer.interim_statuses, [100])
        peer.upload(made, b"hello")
        self.assertEqual(peer.streams[made].status, 201)

    def test_a_client_without_alpn_uses_http1(self) -> None:
        class OldPeer(Http2Peer):
            protocols: tuple[bytes, ...] = ()

        self.front.create("a", body=b"hello")
        self.front.peer_type = OldPeer
        with self.assertRaises(AssertionError):
            self.front.connect()

    def test_a_connection_over_the_limit_is_refused_with_goaway(self) -> None:
        self.front.channels.settings = self.front.channels.settings.__class__(
            connections=1, protocols=(b"h2", b"http/1.1")
        )
        self.front.connect()
        refused = self.front.connect()
        self.assertEqual(refused.goodbye, (ErrorCodes.NO_ERROR, 0))
        self.assertTrue(refused.told)


class LimitTests(Http2TestCase):
    settings = settings_with(
        {"body_timeout_secs": 5, "header_timeout_secs": 7, "idle_timeout_secs": 9, "stall_timeout_secs": 11},
        max_request_body_bytes=100_000,
        max_header_bytes=4096,
        max_target_bytes=1024,
    )

    def assert_refused(self, peer: Http2Peer, stream_id: int, status: int, code: str) -> None:
        reply = peer.streams[stream_id]
        self.assertEqual((reply.status, reply.code, reply.complete), (status, code, True))

    def assert_alive(self, peer: Http2Peer) -> None:
        health = peer.ask("GET", "/healthz")
        self.assertEqual(bytes(peer.streams[health].body), b"ok")

    def test_a_content_length_over_the_limit_is_413(self) -> None:
        peer = self.front.connect()
        asked = peer.ask("PUT", BASE + "a", TEXT | {"Content-Length": "100001"}, is_all=False)
        self.assert_refused(peer, asked, 413, "REQUEST_BODY_TOO_LARGE")
        self.assert_alive(peer)

    def test_a_body_over_the_limit_is_413_and_discarded(self) -> None:
        peer = self.front.connect()
        asked = peer.begin("PUT", BASE + "a", TEXT, False)
        peer.upload(asked, b"x" * 400_000)
        self.assert_refused(peer, asked, 413, "REQUEST_BODY_TOO_LARGE")
        [channel] = self.front.channels._channels
        self.assertEqual(channel.body_bytes, 0)  # type: ignore[attr-defined]
        self.assert_alive(peer)

    def test_a_client_that_keeps_sending_a_refused_body_is_reset(self) -> None:
        peer = self.front.connect()
        asked = peer.begin("PUT", BASE + "a", TEXT, False)
        peer.upload(asked, b"x" * 150_000, False)
        self.assertEqual(peer.resets, {})
        self.front.pass_time(4)
        self.assertEqual(peer.resets, {asked: ErrorCodes.NO_ERROR})
        self.assert_alive(peer)

    def test_concurrent_bodies_share_a_limit(self) -> None:
        peer = self.front.connect()
        asked = [peer.begin("PUT", BASE + str(number), TEXT, False) for number in range(3)]
        for stream_id in asked:
            peer.upload(stream_id, b"x" * 90_000, False)
        self.assert_refused(peer, asked[2], 503, "UNAVAILABLE")
        for stream_id in asked[:2]:
            peer.upload(stream_id, b"y")
            self.assertEqual(peer.streams[stream_id].status, 201)
        self.assert_alive(peer)

    def test_a_head_over_the_limit_is_431(self) -> None:
        peer = self.front.connect()
        asked = peer.ask("GET", BASE + "a", {"X-Large": "x" * 5000})
        self.assert_refused(peer, asked, 431, "HEADERS_TOO_LARGE")
        self.assert_alive(peer)

    def test_a_head_far_over_the_limit_ends_the_connection(self) -> None:
        peer = self.front.connect()
        peer.ask("GET", BASE + "a", {"X-Large": "x" * 15_000})
        self.assertEqual(peer.goodbye, (ErrorCodes.ENHANCE_YOUR_CALM, 0))
        self.front.settle()
        self.assertTrue(peer.told)

    def test_a_head_of_too_many_frames_ends_the_connection(self) -> None:
        peer = self.front.connect()
        self.send(peer, HeadersFrame(1, b"\x82"))
        for _ in range(200):
            if peer.ended:
                break
            self.send(peer, ContinuationFrame(1, b"\x00\x01a\x01b" * 3000))
        assert peer.goodbye is not None
        self.assertIn(peer.goodbye[0], (ErrorCodes.PROTOCOL_ERROR, ErrorCodes.ENHANCE_YOUR_CALM))

    def test_a_target_over_the_limit_is_414(self) -> None:
        peer = self.front.connect()
        asked = peer.ask("GET", BASE + "a" * 1100)
        self.assert_refused(peer, asked, 414, "TARGET_TOO_LONG")
        self.assert_alive(peer)

    def test_an_invalid_target_is_400(self) -> None:
        peer = self.front.connect()
        for target in ("https://streams.example/v1/stream/a", "v1", BASE + "a#b", "/healthz#"):
            self.assert_refused(peer, peer.ask("OPTIONS", target), 400, "BAD_REQUEST")
        self.assert_refused(peer, peer.ask("GET", "*"), 400, "BAD_REQUEST")
        self.assert_alive(peer)

    def test_an_invalid_method_is_400(self) -> None:
        peer = self.front.connect()
        for method in (b"\xff", b"GE T", b"GET/", b"(", "GÄT".encode()):
            asked = peer.h2.get_next_available_stream_id()
            fields = [(b":method", method), (b":scheme", b"https"), (b":path", b"/x"), (b":authority", b"x")]
            peer.h2.send_headers(asked, fields, True)
            peer.pass_on()
            self.assert_refused(peer, asked, 400, "BAD_REQUEST")
        self.assertEqual(peer.streams[peer.ask("M-SEARCH", BASE + "a")].status, 405)
        self.assert_alive(peer)

    def test_too_many_concurrent_requests_are_refused(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        for _ in range(100):
            self.get(peer, f"?offset={offset}&live=long-poll")
        self.assertIsNone(peer.goodbye)
        peer.h2.remote_settings.max_concurrent_streams = 1000
        peer.h2.remote_settings.acknowledge()
        self.get(peer, f"?offset={offset}&live=long-poll")
        assert peer.goodbye is not None
        self.assertNotEqual(peer.goodbye[0], ErrorCodes.NO_ERROR)

    def test_a_client_that_resets_very_often_is_disconnected(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        for _ in range(1000):
            asked = self.get(peer, f"?offset={offset}&live=long-poll")
            peer.h2.reset_stream(asked)
            peer.pass_on()
            if peer.goodbye is not None:
                break
        assert peer.goodbye is not None
        self.assertEqual(peer.goodbye[0], ErrorCodes.ENHANCE_YOUR_CALM)

    def test_a_client_that_resets_sometimes_is_served(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        for _ in range(20):
            for _ in range(35):
                asked = self.get(peer, f"?offset={offset}&live=long-poll")
                peer.h2.reset_stream(asked)
                peer.pass_on()
            self.front.pass_time(1)
        self.assert_alive(peer)

    def test_a_client_that_changes_settings_very_often_is_disconnected(self) -> None:
        peer = self.front.connect()
        for _ in range(1000):
            self.send(peer, SettingsFrame(0))
            if peer.goodbye is not None:
                break
        self.assertEqual(peer.goodbye, (ErrorCodes.ENHANCE_YOUR_CALM, 0))

    def test_a_client_that_changes_settings_sometimes_is_served(self) -> None:
        peer = self.front.connect()
        for _ in range(20):
            self.assert_alive(peer)
            self.send(peer, *[SettingsFrame(0)] * 35)
            self.front.pass_time(1)
        self.assert_alive(peer)

    def test_a_flood_of_frames_without_requests_ends_the_connection(self) -> None:
        self.front.create("a")
        for frame in (
            PingFrame(0),
            PriorityFrame(1, depends_on=0, stream_weight=1),
            WindowUpdateFrame(0, window_increment=1),
            ExtensionFrame(0x20, 0),
            DataFrame(1),
            DataFrame(1, flags=["PADDED"], pad_length=255),
        ):
            peer = self.front.connect()
            self.assertEqual(peer.ask("POST", BASE + "a", TEXT, is_all=False), 1)
            for _ in range(10):
                self.assertIsNone(peer.goodbye, frame)
                self.send(peer, *[frame] * 39)
            self.send(peer, *[frame] * 100)
            self.assertEqual(peer.goodbye, (ErrorCodes.ENHANCE_YOUR_CALM, 1), frame)

    def test_a_flood_after_goaway_is_not_read_and_the_connection_is_closed(self) -> None:
        peer = self.front.connect()
        self.send(peer, *[PingFrame(0)] * 500)
        self.assertIsNotNone(peer.goodbye)
        for _ in range(100):
            peer.send(b"x" * 50_000)
        self.assertGreater(peer.unread_by_server, 3_000_000)
        self.front.pass_time(4)
        self.assertTrue(peer.closed)

    def test_a_few_frames_without_requests_per_second_are_accepted(self) -> None:
        peer = self.front.connect()
        for _ in range(20):
            self.send(peer, *[PingFrame(0)] * 20, *[PriorityFrame(1, depends_on=0, stream_weight=1)] * 15)
            self.assert_alive(peer)
            self.front.pass_time(1)
        self.assert_alive(peer)

    def test_window_updates_for_requests_and_received_frames_are_not_a_flood(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.keeps_up = False
        for _ in range(600):
            asked = self.get(peer, "?offset=now")
            self.send(peer, WindowUpdateFrame(asked, window_increment=1), WindowUpdateFrame(0, window_increment=1))
        self.grow(100)
        asked = self.get(peer)
        for _ in range(5000):
            if peer.streams[asked].complete:
                break
            for number in (None, asked):
                peer.h2.increment_flow_control_window(2000, number)
            peer.pass_on()
        self.assertTrue(peer.streams[asked].complete)
        self.assert_alive(peer)

    def test_requests_of_a_packet_are_processed_in_slices_of_time(self) -> None:
        self.front.streams.turns.seconds = Stopwatch(SLICE / 2)
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        begun: list[int] = []
        begin = Exchange.begin

        def counted(exchange: Exchange, head: Head, is_whole: bool) -> None:
            begun.append(exchange.id)
            begin(exchange, head, is_whole)

        self.patch(Exchange, "begin", counted)
        asked = [peer.begin("GET", BASE + "a") for _ in range(90)]
        peer.send_unseen(peer.h2.data_to_send())
        self.assertGreater(len(begun), 0)
        self.assertLess(len(begun), 30)
        before = len(begun)
        other = self.front.connect()
        self.assert_alive(other)
        self.assertGreaterEqual(len(begun), before)
        self.front.settle()
        self.assertEqual([bytes(peer.streams[number].body) for number in asked], [b"one"] * 90)
        self.assertEqual(begun[-90:].count(asked[-1]), 1)
        self.assert_alive(peer)

    def test_many_queued_answers_are_sent_in_slices_of_time(self) -> None:
        self.front.streams.turns.seconds = Stopwatch(SLICE / 5)
        self.front.create("a", body=b"x" * 1000)
        peer = self.front.connect()
        peer.keeps_up = False
        self.send(peer, SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        asked = [self.get(peer) for _ in range(50)]
        self.assertEqual({len(peer.streams[number].body) for number in asked}, {0})
        self.send(peer, SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 10_000}))
        self.front.settle()
        self.assertEqual([bytes(peer.streams[number].body) for number in asked], [b"x" * 1000] * 50)

    def test_a_packet_of_small_frames_visits_each_stream_once(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        for _ in range(50):
            self.get(peer, f"?offset={offset}&live=long-poll")
        looks: list[int] = []
        send_some = Exchange.send_some

        def counted(exchange: Exchange) -> bool:
            looks.append(exchange.id)
            return send_some(exchange)

        self.patch(Exchange, "send_some", counted)
        self.send(peer, *[SettingsFrame(0), WindowUpdateFrame(0, window_increment=1)] * 100)
        self.assertEqual(len(looks), 50)
        self.send(peer, *[WindowUpdateFrame(1, window_increment=1)] * 100)
        self.assertEqual(looks[50:], [1])

    def test_a_request_reset_in_the_same_packet_is_dropped(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.front.connect()
        for query in ("", "?offset=-1&live=sse", "?offset=now&live=long-poll"):
            asked = peer.begin("GET", BASE + "a" + query)
            peer.h2.reset_stream(asked)
            peer.pass_on()
            self.assertNotIn(asked, peer.streams)
        self.assert_alive(peer)

    def test_bytes_that_are_not_http2_end_the_connection(self) -> None:
        peer = self.front.connect()
        peer.send(b"GET / HTTP/1.1\r\n\r\n" * 10)
        self.assertEqual(peer.goodbye, (ErrorCodes.FRAME_SIZE_ERROR, 0))
        self.assertTrue(peer.told)

    def test_a_frame_over_the_size_limit_ends_the_connection(self) -> None:
        for cuts in ((1, 1, 1), (2, 7), (9,), (1, 8)):
            peer = self.front.connect()
            self.assert_alive(peer)
            head = b"\x00\x40\x01\x00\x00\x00\x00\x00\x01"
            for size in cuts:
                peer.send(head[:size])
                head = head[size:]
            assert peer.goodbye is not None, cuts
            self.assertEqual(peer.goodbye[0], ErrorCodes.FRAME_SIZE_ERROR)

    def test_frames_are_parsed_from_any_packets(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        asked = peer.begin("POST", BASE + "a", TEXT, False)
        peer.h2.send_data(asked, b"hello" * 100, True)
        packet = peer.h2.data_to_send()
        for place in range(len(packet)):
            peer.send(packet[place : place + 1])
        self.assertEqual(peer.streams[asked].status, 204)


class TimeTests(LimitTests):
    def test_a_connection_without_requests_is_closed_after_the_timeout(self) -> None:
        peer = self.front.connect()
        self.front.pass_time(6)
        self.assertIsNone(peer.goodbye)
        self.front.pass_time(3)
        self.assertEqual(peer.goodbye, (ErrorCodes.NO_ERROR, 0))
        self.assertTrue(peer.told)

    def test_pings_do_not_extend_the_idle_timeout(self) -> None:
        peer = self.front.connect()
        self.assert_alive(peer)
        for _ in range(12):
            if peer.goodbye is None:
                peer.h2.ping(b"12345678")
                peer.pass_on()
            self.front.pass_time(1)
        self.assertEqual(peer.goodbye, (ErrorCodes.NO_ERROR, 1))

    def test_requests_extend_the_idle_timeout(self) -> None:
        peer = self.front.connect()
        for _ in range(6):
            self.assert_alive(peer)
            self.front.pass_time(6)
        self.assertIsNone(peer.goodbye)

    def test_a_body_that_stops_arriving_is_408(self) -> None:
        peer = self.front.connect()
        asked = peer.ask("PUT", BASE + "a", TEXT, b"x", is_all=False)
        self.front.pass_time(4)
        peer.upload(asked, b"y" * 3000, False)
        self.front.pass_time(4)
        self.assertNotIn(asked, peer.streams)
        self.front.pass_time(4)
        self.assert_refused(peer, asked, 408, "REQUEST_TIMEOUT")
        self.assert_alive(peer)

    def test_a_body_below_the_minimum_rate_is_408(self) -> None:
        peer = self.front.connect()
        asked = peer.ask("PUT", BASE + "a", TEXT, b"x", is_all=False)
        for _ in range(3):
            self.front.pass_time(3)
            if asked not in peer.streams:
                peer.upload(asked, b"y" * 500, False)
        self.assert_refused(peer, asked, 408, "REQUEST_TIMEOUT")
        self.assertEqual(self.front.channels.admission(NOBODY).incoming.size, 0)
        self.assert_alive(peer)

    def test_a_tail_is_not_ended_by_the_idle_timeout(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        tail = self.get(peer, "?offset=-1&live=sse")
        self.front.pass_time(50)
        self.front.append("a", b"late")
        self.assertIn(b"late", peer.streams[tail].body)


class SlowReaderTests(Http2TestCase):
    settings = settings_with({"stall_timeout_secs": 11})

    def test_no_data_is_read_for_a_tail_without_window(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.keeps_up = False
        tail = self.get(peer, "?offset=-1&live=sse")
        self.grow(100)
        self.assertLess(self.kept(), 200_000)
        self.assertLess(len(peer.streams[tail].body), 70_000)
        health = peer.ask("GET", "/healthz")
        self.assertEqual(peer.streams[health].status, 200)

    def test_a_tail_continues_when_its_window_grows(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.keeps_up = False
        tail = self.get(peer, "?offset=-1&live=sse")
        self.grow(20)
        peer.keeps_up = True
        peer.h2.increment_flow_control_window(60_000, tail)
        peer.h2.increment_flow_control_window(60_000)
        peer.pass_on()
        self.front.settle()
        self.assertEqual(bytes(peer.streams[tail].body).count(b"x" * 50_000), 20)

    def test_a_stream_whose_window_does_not_grow_is_reset(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.keeps_up = False
        tail = self.get(peer, "?offset=-1&live=sse")
        self.grow(20)
        self.front.pass_time(9)
        self.assertEqual(peer.resets, {})
        self.front.pass_time(5)
        self.assertEqual(peer.resets, {tail: ErrorCodes.CANCEL})
        self.assertIsNone(peer.goodbye)
        self.assertEqual(self.kept(), 0)

    def test_a_client_that_sends_frames_but_opens_no_window_is_reset(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        peer = self.front.connect()
        peer.keeps_up = False
        self.send(peer, SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 0}))
        asked = [self.get(peer) for _ in range(8)]
        for second in range(14):
            self.assertEqual(peer.resets if second < 10 else {}, {})
            self.front.pass_time(1)
            self.send(peer, SettingsFrame(0), WindowUpdateFrame(0, window_increment=1))
            for stream_id in asked:
                if stream_id not in peer.resets:
                    self.send(peer, WindowUpdateFrame(stream_id, window_increment=1))
        self.assertEqual(peer.resets, dict.fromkeys(asked, ErrorCodes.CANCEL))
        self.assertIsNone(peer.goodbye)

    def test_a_client_that_opens_its_window_slowly_is_served(self) -> None:
        self.front.create("a")
        self.grow(20)
        peer = self.front.connect()
        peer.keeps_up = False
        asked = self.get(peer)
        while not peer.streams[asked].complete:
            self.front.pass_time(1)
            self.assertEqual(peer.resets, {})
            for stream_id in (0, asked):
                peer.h2.increment_flow_control_window(9_000, stream_id or None)
            peer.pass_on()
        self.assertEqual(len(peer.streams[asked].body), 1_000_000)

    def test_small_window_updates_are_not_a_flood(self) -> None:
        self.front.create("a")
        self.grow(100)
        peer = self.front.connect()
        peer.keeps_up = False
        asked = self.get(peer)
        # As Go's client does: both windows are opened for each 4 KiB that its reader has taken.
        while not peer.streams[asked].complete:
            self.assertIsNone(peer.goodbye)
            for stream_id in (None, asked) * 4:
                peer.h2.increment_flow_control_window(4096, stream_id)
            peer.pass_on()
        self.assertEqual(len(peer.streams[asked].body), 5_000_000)

    def test_a_small_connection_window_is_shared_by_the_streams(self) -> None:
        self.front.create("a")
        self.grow(20)
        peer = self.front.connect()
        peer.keeps_up = False
        self.send(peer, SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000}))
        peer.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 1_000_000
        peer.h2.local_settings.acknowledge()
        asked = [self.get(peer) for _ in range(3)]
        for _ in range(30):
            self.front.pass_time(1)
            peer.h2.increment_flow_control_window(30_000)
            peer.pass_on()
        self.assertEqual(peer.resets, {})
        for stream_id in asked:
            self.assertGreater(len(peer.streams[stream_id].body), 250_000)

    def test_a_client_that_reads_nothing_is_aborted(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.h2.increment_flow_control_window(2_000_000_000)
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2_000_000_000})
        peer.pass_on()
        self.get(peer, "?offset=-1&live=sse")
        peer.limit(10_000)
        self.grow(100)
        self.assertLess(self.kept(), 200_000)
        buffered = peer.transport.dataBuffer
        self.assertLess(len(buffered) + peer.transport._tempDataLen, 400_000)
        self.front.pass_time(13)
        self.assertTrue(peer.closed)

    def test_a_client_that_does_not_read_is_not_read_from(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.h2.increment_flow_control_window(2_000_000_000)
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2_000_000_000})
        peer.pass_on()
        self.get(peer, "?offset=-1&live=sse")
        peer.limit(10_000)
        self.grow(10)
        for _ in range(1000):
            self.send(peer, *(PingFrame(0, b"12345678") for _ in range(100)))
        self.assertGreater(peer.unread_by_server, 1_000_000)

    def test_a_catch_up_read_is_complete_and_sent_in_pieces(self) -> None:
        self.front.create("a")
        self.grow(100)
        peer = self.front.connect()
        read = self.get(peer)
        reply = peer.streams[read]
        self.assertEqual((len(reply.body), reply.get("content-length")), (5_000_000, "5000000"))
        self.assertTrue(reply.complete)

    def test_a_stream_deleted_during_a_read_resets_only_its_http2_stream(self) -> None:
        self.front.create("a")
        self.grow(20)
        peer = self.front.connect()
        peer.keeps_up = False
        read = self.get(peer)
        self.front.delete("a")
        peer.h2.increment_flow_control_window(1_000_000, read)
        peer.h2.increment_flow_control_window(1_000_000)
        peer.pass_on()
        self.assertEqual(peer.resets, {read: ErrorCodes.INTERNAL_ERROR})
        self.assertIsNone(peer.goodbye)


class CrowdTests(Http2TestCase):
    """Many answers on one connection that its client makes no room for."""

    settings = settings_with({"stall_timeout_secs": 11})

    def crowd(self, query: str, names: str = "a") -> tuple[Http2Peer, list[int]]:
        peer = self.front.connect()
        self.send(peer, SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 0}))
        peer.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 0
        peer.h2.local_settings.acknowledge()
        asked = [self.get(peer, query, names[number % len(names)]) for number in range(90)]
        self.front.pass_time(0.5)
        return peer, asked

    def make_room(self, peer: Http2Peer) -> None:
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
        peer.pass_on()
        self.front.settle()

    def assert_few_are_kept(self, peer: Http2Peer) -> None:
        self.assertLess(self.kept(), 1_250_000)
        self.assertGreater(self.kept(), 900_000)
        # Writes, and who asks what they came to, go on.
        for method in ("POST", "HEAD"):
            asked = peer.ask(method, BASE + "b", TEXT, b"x" * (method == "POST"))
            self.front.pass_time(0.5)
            self.assertTrue(peer.streams[asked].complete)

    def test_answers_are_not_read_while_others_fill_the_send_buffer(self) -> None:
        self.front.create("b")
        self.front.create("a", body=b"x" * 100_000)
        peer, asked = self.crowd("")
        self.assert_few_are_kept(peer)
        self.make_room(peer)
        self.assertEqual({len(peer.streams[stream_id].body) for stream_id in asked}, {100_000})
        self.assertTrue(all(peer.streams[stream_id].complete for stream_id in asked))
        self.assertEqual(self.kept(), 0)

    def test_catch_up_reads_are_paused_while_others_fill_the_send_buffer(self) -> None:
        self.front.create("b")
        self.front.create("a", body=b"x" * 400_000)
        peer, asked = self.crowd("")
        self.assert_few_are_kept(peer)
        self.make_room(peer)
        self.assertEqual({len(peer.streams[stream_id].body) for stream_id in asked}, {400_000})
        self.assertEqual(self.kept(), 0)

    def test_paused_answers_continue_after_others_were_reset(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        peer, asked = self.crowd("")
        for _ in range(10):
            self.front.pass_time(13)
        self.assertEqual(peer.resets, dict.fromkeys(asked, ErrorCodes.CANCEL))
        self.assertEqual(self.kept(), 0)

    def test_a_paused_answer_can_be_reset(self) -> None:
        self.front.create("a", body=b"x" * 100_000)
        peer, asked = self.crowd("")
        for stream_id in reversed(asked):
            peer.h2.reset_stream(stream_id)
            peer.pass_on()
        self.assertEqual(self.kept(), 0)
        health = peer.ask("GET", "/healthz")
        self.make_room(peer)
        self.assertEqual(bytes(peer.streams[health].body), b"ok")

    def test_tails_are_paused_together(self) -> None:
        names = "bcdefghijklmnop"
        for name in names:
            self.front.create(name)
        peer, asked = self.crowd("?offset=-1&live=sse", names)
        self.make_room(peer)
        self.send(peer, SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 0}))
        for name in names:
            self.front.append_directly(name, b"y" * 100_000, "text/plain")
            self.front.settle()
        self.assert_few_are_kept(peer)
        self.make_room(peer)
        self.front.pass_time(0.5)
        for stream_id in asked:
            self.assertEqual(bytes(peer.streams[stream_id].body).count(b"y" * 100_000), 1)
        self.assertEqual(self.kept(), 0)

    def test_polls_with_too_much_data_at_once_are_503(self) -> None:
        self.front.create("b")
        offset = self.front.create("a")
        peer, asked = self.crowd(f"?offset={offset}&live=long-poll")
        self.front.append_directly("a", b"x" * 100_000, "text/plain")
        self.front.pass_time(0.5)
        self.assert_few_are_kept(peer)
        self.make_room(peer)
        statuses = [peer.streams[stream_id].status for stream_id in asked]
        self.assertEqual(set(statuses), {200, 503})
        self.assertGreaterEqual(statuses.count(200), 10)
        refused = peer.streams[asked[statuses.index(503)]]
        self.assertEqual((refused.code, refused.complete), ("UNAVAILABLE", True))
        self.assertIsNotNone(refused.get("retry-after"))


class LateCrowdTests(CrowdTests):
    """The same where the storage takes its time."""

    late = True


class CompressionTests(Http2TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.front.create("a", body=b"hello")
        self.peer = self.front.connect()
        [channel] = self.front.channels._channels
        self.encoder = channel.engine.encoder  # type: ignore[attr-defined]

    def assert_understood(self) -> None:
        for _ in range(3):
            self.assertEqual(bytes(self.peer.streams[self.get(self.peer)].body), b"hello")
        self.assertLessEqual(self.encoder.table_bytes, 4096)

    def test_the_encoders_table_is_bounded_for_any_client_setting(self) -> None:
        self.assert_understood()
        for size in (2**32 - 1, 2**32 - 1, 65_536):
            self.peer.h2.decoder.max_allowed_table_size = size
            self.send(self.peer, SettingsFrame(0, {SettingCodes.HEADER_TABLE_SIZE: size}))
            self.assert_understood()

    def test_a_smaller_table_of_the_client_is_acknowledged_in_the_next_head(self) -> None:
        self.assert_understood()
        for sizes in ((1024,), (512, 512), (0, 4096), (4096, 100, 4096), (100, 2048, 8192), (300, 0, 8192, 200, 200)):
            self.peer.h2.decoder.max_allowed_table_size = sizes[-1]
            self.send(self.peer, *(SettingsFrame(0, {SettingCodes.HEADER_TABLE_SIZE: size}) for size in sizes))
            self.assert_understood()

    def test_rarely_repeated_headers_are_not_indexed(self) -> None:
        for number in range(20):
            writer = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(2 * number)}
            self.peer.ask("POST", BASE + "a", TEXT | writer, b"x")
            self.front.pass_time(1)
            self.get(self.peer, "?offset=-1")
        remembered = {name for name, _ in self.encoder.fields}
        self.assertIn(b"content-type", remembered)
        fleeting = (b"producer-", b"date", b"etag", b"stream-next")
        self.assertEqual([name for name in remembered if name.startswith(fleeting)], [])


class EndTests(Http2TestCase):
    def test_a_drain_completes_open_requests(self) -> None:
        offset = self.front.create("a")
        idle, busy = self.front.connect(), self.front.connect()
        poll = self.get(busy, f"?offset={offset}&live=long-poll")
        drained = self.front.channels.drain()
        self.front.settle()
        self.assertEqual((idle.goodbye, busy.goodbye), ((ErrorCodes.NO_ERROR, 0), (ErrorCodes.NO_ERROR, poll)))
        self.assertTrue(idle.told)
        self.assertFalse(busy.told)
        self.assertNoResult(drained)
        self.front.append_directly("a", b"one", "text/plain")
        self.assertEqual((busy.streams[poll].status, bytes(busy.streams[poll].body)), (200, b"one"))
        self.front.settle()
        self.assertTrue(busy.told)
        for peer in (idle, busy):
            peer.leave()
        self.assertIsNone(self.successResultOf(drained))

    def test_a_drain_refuses_new_requests(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        self.get(peer, f"?offset={offset}&live=long-poll")
        asked = peer.begin("GET", "/healthz")
        on_its_way = peer.h2.data_to_send()
        self.front.channels.drain()
        self.front.settle()
        peer.send(on_its_way)
        self.assertEqual(peer.resets, {asked: ErrorCodes.REFUSED_STREAM})
        self.assertNotIn(asked, peer.streams)

    def test_a_client_that_sends_goaway_gets_its_open_answers(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        poll = self.get(peer, f"?offset={offset}&live=long-poll")
        peer.send(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8))
        self.front.append("a", b"one")
        self.assertEqual(bytes(peer.streams[poll].body), b"one")
        self.front.settle()
        self.assertTrue(peer.told)

    def test_requests_in_a_packet_with_goaway_are_answered(self) -> None:
        offset = self.front.create("a")
        goodbye = GoAwayFrame(0, last_stream_id=0, additional_data=b"so long").serialize()
        ping = PingFrame(0, opaque_data=b"12345678").serialize()
        for cut in range(len(goodbye) + 1):
            peer = self.front.connect()
            poll = self.get(peer, f"?offset={offset}&live=long-poll")
            head, posted = peer.begin("GET", "/healthz"), peer.begin("POST", BASE + "a", TEXT, False)
            peer.h2.send_data(posted, b"one", True)
            before = peer.h2.data_to_send()
            for packet in (before + goodbye[:cut], goodbye[cut:] + ping * 2 + goodbye + ping):
                if packet:
                    peer.send(packet)
            self.front.settle()
            replies = [peer.streams[stream_id] for stream_id in (poll, head, posted)]
            self.assertEqual([reply.status for reply in replies], [200, 200, 204], cut)
            self.assertTrue(all(reply.complete for reply in replies))
            self.assertTrue(peer.told)
            offset = str(replies[0].get("stream-next-offset"))

    def test_an_upload_in_a_packet_with_goaway_is_answered(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        posted = peer.begin("POST", BASE + "a", TEXT, False)
        peer.pass_on()
        peer.h2.send_data(posted, b"one", True)
        peer.send(GoAwayFrame(0, last_stream_id=0).serialize() + peer.h2.data_to_send())
        self.assertEqual(peer.streams[posted].status, 204)
        self.front.settle()
        self.assertTrue(peer.told)

    def test_a_lost_connection_leaves_no_watcher(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        self.get(peer, "?offset=-1&live=sse")
        self.get(peer, "?offset=now&live=long-poll")
        peer.ask("PUT", BASE + "b", TEXT, b"half", is_all=False)
        peer.leave()
        self.assertEqual(self.front.channels._channels, set())

    def test_an_abort_closes_all_connections(self) -> None:
        self.front.create("a")
        peers = [self.front.connect() for _ in range(3)]
        self.get(peers[0], "?offset=-1&live=sse")
        self.front.channels.abort()
        self.front.settle()
        self.assertTrue(all(peer.aborted for peer in peers))


class LateTests(Http2TestCase):
    late = True

    def test_a_reset_cancels_the_operation(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.front.connect()
        asked = peer.begin("GET", BASE + "a")
        peer.pass_on()
        if asked not in peer.streams:
            peer.h2.reset_stream(asked)
            peer.pass_on()
        self.front.pass_time(2)
        health = peer.ask("GET", "/healthz")
        self.assertEqual(bytes(peer.streams[health].body), b"ok")


class StrangeFrameTests(Http2TestCase):
    def test_frames_for_unknown_streams_and_too_large_windows_end_the_connection(self) -> None:
        for frame in (
            DataFrame(1, b"x"),
            WindowUpdateFrame(0, window_increment=2**31 - 1),
            RstStreamFrame(7, error_code=0),
        ):
            peer = self.front.connect()
            self.send(peer, frame)
            self.front.settle()
            self.assertTrue(peer.told, frame)
            self.assertNotEqual(peer.goodbye, None)
