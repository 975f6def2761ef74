"""Tests of parsing requests, and of their limits."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamsError
from durable_streams.server.web.admission import Admission, AdmittedRequest, RequestLimits
from durable_streams.server.web.callers import NOBODY
from durable_streams.server.web.http1.intake import Intake
from durable_streams.server.web.http1.known_heads import HeadCache
from tests.support.cases import TEXT, ChannelTestCase, get, post
from tests.support.fronts import BASE, Peer, chunked, request, settings_with
from tests.support.intake import WithoutPages


class Asker(WithoutPages):
    """An owner that counts requests."""

    def __init__(self) -> None:
        self.asked_for = 0

    def asked(self, request: AdmittedRequest, lives_on: bool, old: bool) -> None:
        self.asked_for += 1

    def refused(self, error: StreamsError) -> None:
        raise error

    def expects_continue(self) -> None:
        raise AssertionError("nobody waits")


class ExpectTests(ChannelTestCase):
    settings = settings_with(max_request_body_bytes=1000)
    expecting: Mapping[str, str] = TEXT | {"Expect": "100-continue"}

    def test_expect_100_continue_is_answered_with_100(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {**self.expecting, "Content-Length": "3"}), "POST")
        self.assertEqual((peer.interim, peer.replies), ([100], []))
        peer.send(b"one")
        self.assertEqual((peer.interim, peer.statuses), ([100], [204]))

    def test_expect_100_continue_with_chunks_is_answered_with_100(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {**self.expecting, "Transfer-Encoding": "chunked"}), "POST")
        self.assertEqual(peer.interim, [100])
        peer.send(chunked([b"one"]))
        self.assertEqual(peer.statuses, [204])

    def test_a_body_over_the_limit_is_413_instead_of_100(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {**self.expecting, "Content-Length": "1001"}), "POST")
        self.assertEqual((peer.interim, peer.statuses), ([], [413]))
        self.assertEqual(peer.reply.code, "REQUEST_BODY_TOO_LARGE")
        self.assert_ends_politely(peer)

    def test_a_request_without_a_body_gets_no_100(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", headers={"Expect": "100-continue"}))
        self.assertEqual((peer.interim, peer.statuses), ([], [200]))

    def test_http_1_0_requests_get_no_100(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {**self.expecting, "Content-Length": "3"}, version="1.0"))
        self.assertEqual(peer.interim, [])
        peer.send(b"one")
        self.assertEqual(peer.statuses, [204])

    def test_a_pipelined_request_gets_100_after_earlier_answers(self) -> None:
        offset = self.front.create("a")
        for between in (b"", get("a")):
            peer = self.front.connect()
            peer.send(get("a", "?offset=now&live=long-poll") + between)
            peer.send(request("POST", BASE + "a", {**self.expecting, "Content-Length": "3"}))
            self.assertEqual(peer.interim, [])
            self.front.append("a", b"one")
            self.assertEqual(peer.interim, [100])
            peer.send(b"two")
            self.assertEqual(peer.statuses[-1], 204)
        self.assertEqual(self.read("a?offset=" + offset), b"onetwoonetwo")

    def test_a_client_that_has_sent_its_body_gets_no_100(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", "?offset=now&live=long-poll"))
        peer.send(request("POST", BASE + "a", {**self.expecting, "Content-Length": "3"}, b"two"))
        self.front.append("a", b"one")
        self.assertEqual((peer.interim, peer.statuses), ([], [200, 204]))


class BodyTests(ChannelTestCase):
    settings = settings_with(max_request_body_bytes=10_000, max_header_bytes=2_000)

    def setUp(self) -> None:
        super().setUp()
        self.front.create("a")

    def send_chunked(self, body: bytes, **headers: str) -> Peer:
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", TEXT | {"Transfer-Encoding": "chunked"} | headers, body), "POST")
        return peer

    def test_chunks_are_joined(self) -> None:
        peer = self.send_chunked(chunked([b"one", b"two", b"x" * 300]))
        self.assertEqual((peer.statuses, self.read("a")), ([204], b"onetwo" + b"x" * 300))

    def test_chunk_extensions_and_trailers_are_ignored(self) -> None:
        trailers = b"Stream-Closed: true\r\nHost: elsewhere\r\nStream-Seq: zzz\r\n"
        peer = self.send_chunked(chunked([b"one"], b';name="value"', trailers))
        self.assertEqual((peer.statuses, self.read("a")), ([204], b"one"))
        self.assertEqual(self.front.ask("HEAD", BASE + "a").get("stream-closed"), None)
        peer.send(post("a", b"two", {"Stream-Seq": "a"}))
        self.assertEqual(peer.statuses, [204, 204])

    def test_a_chunked_body_without_chunks_is_empty(self) -> None:
        peer = self.send_chunked(chunked([]))
        self.assertEqual((peer.statuses, peer.reply.code), ([400], "EMPTY_BODY"))
        self.assertFalse(peer.ended)

    def test_a_body_of_exactly_the_limit_is_accepted(self) -> None:
        peer = self.front.connect()
        peer.send(post("a", b"x" * 10_000), "POST")
        self.assertEqual(peer.statuses, [204])
        peer = self.send_chunked(chunked([b"y" * 9_999, b"y"]))
        self.assertEqual(peer.statuses, [204])

    def test_leading_zeros_of_a_content_length_are_ignored(self) -> None:
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", TEXT | {"Content-Length": "0" * 1500 + "3"}, b"one"), "POST")
        self.assertEqual((peer.statuses, self.read("a")), ([204], b"one"))

    def test_a_content_length_over_the_limit_is_413_before_the_body(self) -> None:
        for length in ("10001", "18446744073709551615", "0" * 500 + "99999999999"):
            peer = self.front.connect()
            peer.send(request("POST", BASE + "a", TEXT | {"Content-Length": length}), "POST")
            self.assertEqual((peer.statuses, peer.reply.code), ([413], "REQUEST_BODY_TOO_LARGE"))
            peer.send(b"x" * 100_000)
            self.assertEqual(peer.unread_by_server, 0)
            self.assert_ends_politely(peer)
        self.assertEqual(self.read("a"), b"")

    def test_chunks_over_the_limit_are_413_as_soon_as_they_exceed_it(self) -> None:
        peer = self.send_chunked(b"1388\r\n" + b"x" * 5_000 + b"\r\n")
        self.assertEqual(peer.replies, [])
        peer.send(b"1388\r\n" + b"x" * 5_000 + b"\r\n")
        self.assertEqual(peer.replies, [])
        peer.send(b"1\r\nx")
        self.assertEqual((peer.statuses, peer.reply.code), ([413], "REQUEST_BODY_TOO_LARGE"))
        self.assertEqual(self.read("a"), b"")
        self.assert_ends_politely(peer)

    def test_a_body_announced_as_one_huge_chunk_is_read_no_further_than_the_limit(self) -> None:
        peer = self.send_chunked(b"ffffffff\r\n")
        sent = 0
        while not peer.replies:
            peer.send(b"x" * 1_000)
            sent += 1_000
        self.assertEqual((peer.statuses, sent), ([413], 11_000))

    def test_the_overhead_of_small_chunks_is_limited(self) -> None:
        peer = self.send_chunked(b"")
        sent = 0
        while not peer.replies:
            peer.send(b"1\r\nx\r\n" * 100)
            sent += 600
            self.assertLess(sent, 30_000)
        self.assertEqual((peer.statuses, peer.reply.code), ([413], "REQUEST_BODY_TOO_LARGE"))

    def test_trailers_in_any_packets_are_limited(self) -> None:
        for pieces in ([b"X: " + b"y" * 500], [b"X" * 50], [b"X: y\r\n"] * 10, [b"y"]):
            peer = self.send_chunked(b"3\r\none\r\n0\r\nX-First: ")
            sent = 0
            while not peer.replies:
                for piece in pieces:
                    peer.send(piece)
                    sent += len(piece)
                self.assertLess(sent, 5_000)
            self.assertEqual((peer.statuses, peer.reply.code), ([431], "HEADERS_TOO_LARGE"))
            self.assertTrue(peer.ended)
        self.assertEqual(self.read("a"), b"")

    def test_chunk_extensions_are_limited(self) -> None:
        peer = self.send_chunked(b"3\r\none\r\n3;")
        sent = 0
        while not peer.replies:
            peer.send(b"x" * 100)
            sent += 100
            self.assertLess(sent, 5_000)
        self.assertEqual(peer.statuses, [431])

    def test_headers_at_the_end_of_a_large_packet_do_not_count_as_body(self) -> None:
        peer = self.front.connect()
        head = request("POST", BASE + "a", TEXT | {"Content-Length": "10"})
        peer.send(post("a", b"x" * 5_000) + post("a", b"y" * 5_000) + head)
        self.assertEqual(peer.statuses, [204, 204])
        peer.send(b"z" * 4)
        peer.send(b"z" * 6)
        self.assertEqual(peer.statuses, [204, 204, 204])

    def test_a_body_can_arrive_byte_by_byte(self) -> None:
        peer = self.front.connect()
        peer.send_bit_by_bit(post("a", b"one by one"), [1] * 1000)
        self.assertEqual((peer.statuses, self.read("a")), ([204], b"one by one"))

    def test_the_body_of_a_get_is_ignored(self) -> None:
        peer = self.front.connect()
        peer.send(request("GET", BASE + "a", {"Content-Length": "5"}, b"hello") + get("a"))
        self.assertEqual(peer.statuses, [200, 200])


class UpgradeTests(ChannelTestCase):
    upgrading: Mapping[str, str] = {"Connection": "Upgrade", "Upgrade": "websocket"}

    def test_an_upgrade_request_is_answered_without_the_upgrade(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", headers=self.upgrading))
        self.assertEqual((peer.statuses, bytes(peer.reply.body)), ([200], b"one"))
        self.assertFalse(peer.ended)

    def test_requests_after_an_upgrade_request_are_answered(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", headers=self.upgrading) + get("a", headers=self.upgrading) + post("a", b"two") + get("a"))
        self.assertEqual(peer.statuses, [200, 200, 204, 200])
        self.assertEqual(bytes(peer.reply.body), b"onetwo")

    def test_an_upgrade_request_with_a_body_is_answered(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(post("a", b"one", self.upgrading) + post("a", b"two"), "POST", "POST")
        self.assertEqual((peer.statuses, self.read("a")), ([204, 204], b"onetwo"))

    def test_an_h2c_upgrade_is_ignored(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
        peer.send(get("a", headers=headers))
        self.assertEqual(peer.statuses, [200])
        peer = self.front.connect()
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.assertEqual(peer.statuses, [400])

    def test_connect_is_405(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(b"CONNECT streams.example:443 HTTP/1.1\r\nHost: streams.example:443\r\n\r\n" + get("a"))
        self.assertEqual((peer.statuses, peer.reply.code), ([405], "METHOD_NOT_ALLOWED"))
        self.assert_ends_politely(peer)

    def test_connect_to_a_stream_is_rejected(self) -> None:
        self.front.create("a", body=b"one")
        hidden = request("DELETE", BASE + "a")
        for target in (BASE + "a", "http://streams.example" + BASE + "a"):
            for headers in ({}, self.upgrading):
                for sizes in ([], [1] * 500):
                    peer = self.front.connect()
                    asked = request("CONNECT", target, {**headers, "Content-Length": str(len(hidden))}, hidden)
                    peer.send_bit_by_bit(asked + get("a"), sizes)
                    self.assertEqual(len(peer.statuses), 1)
                    self.assertGreaterEqual(peer.reply.status, 400)
                    self.assert_ends_politely(peer)
        self.assertEqual(self.read("a"), b"one")

    def test_the_body_of_an_upgrade_request_is_not_parsed_as_a_request(self) -> None:
        self.front.create("a")
        hidden = request("DELETE", BASE + "a")
        for headers in (self.upgrading, {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}):
            for sizes in ([], [1] * 500):
                peer = self.front.connect()
                peer.send_bit_by_bit(post("a", hidden, headers) + get("a"), sizes)
                self.assertEqual(peer.statuses, [204, 200])
                peer = self.front.connect()
                head = request("POST", BASE + "a", {**TEXT, **headers, "Transfer-Encoding": "chunked"})
                peer.send_bit_by_bit(head + chunked([hidden]) + get("a"), sizes)
                self.assertEqual(peer.statuses, [204, 200])
        self.assertEqual(self.read("a"), hidden * 8)

    def test_the_body_of_an_upgrade_request_for_a_page_is_not_parsed_as_a_request(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", "/healthz", self.upgrading, request("DELETE", BASE + "a")) + get("a"))
        self.assertEqual(peer.statuses, [405, 200])

    def test_an_upgrade_request_gets_one_100_and_keeps_connection_close(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        headers = {"Connection": "Upgrade, close", "Upgrade": "h2c", "Expect": "100-continue", "Content-Length": "3"}
        peer.send(request("POST", BASE + "a", {**TEXT, **headers}))
        self.assertEqual(peer.interim, [100])
        peer.send(b"one")
        self.assertEqual((peer.interim, peer.statuses, peer.reply.get("connection")), ([100], [204], "close"))
        self.assertTrue(peer.ended)

    def test_an_upgrade_request_with_a_body_over_the_limit_is_413(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {**TEXT, **self.upgrading, "Content-Length": "99999999"}))
        self.assertEqual(peer.statuses, [413])


class AbsoluteTargetTests(ChannelTestCase):
    """A URL for a target: its host and Host are one."""

    def test_an_absolute_target_that_agrees_with_host_is_accepted(self) -> None:
        for url, host in (
            ("http://a", "a"),
            ("HTTP://A.Example", "a.eXample"),
            ("http://a:80", "a"),
            ("http://a", "a:80"),
            ("https://a:443", "a"),
            ("http://a:8080", "a:8080"),
            ("http://[::1]:80", "[::1]"),
        ):
            for sizes in ([], [1] * 500):
                peer = self.front.connect()
                peer.send_bit_by_bit(request("PUT", url + BASE + "a", {**TEXT, "Host": host}), sizes)
                self.assertIn(peer.statuses, ([201], [200]), (url, host))
                self.assertFalse(peer.ended)

    def test_an_absolute_target_that_differs_from_host_is_rejected(self) -> None:
        for url, host in (
            ("http://evil", "a"),
            ("http://a:443", "a"),
            ("https://a:80", "a"),
            ("http://a:8080", "a"),
            ("http://a@evil", "a"),
            ("http://evil@a", "a"),
            ("http://a.", "a"),
            ("http://a", ""),
        ):
            for target in (BASE + "a", "/healthz"):
                peer = self.front.connect()
                peer.send(request("PUT", url + target, {**TEXT, "Host": host}))
                self.assertEqual((peer.statuses, peer.reply.code), ([400], "BAD_REQUEST"), (url, host))
                self.assertIn(b"Host", bytes(peer.reply.body))
                self.assert_ends_politely(peer)
        self.assertEqual(self.front.ask("GET", BASE + "a").status, 404)

    def test_an_absolute_target_without_host_is_accepted_from_http_1_0(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(b"GET http://a/v1/stream/a HTTP/1.0\r\n\r\n")
        self.assertEqual(peer.statuses, [200])


class VersionTests(ChannelTestCase):
    def test_the_version_is_not_read_from_a_later_header(self) -> None:
        self.front.create("a", body=b"one")
        target = BASE + "a"
        for piece in (b" " + b"x" * len(target) + b" HTTP/1.1\r\n\r\n", b"\r\n\r\n"):
            peer = self.front.connect()
            peer.send(request("GET", target, {"Connection": "keep-alive", "X": "y"}, version="1.0")[:-4])
            peer.send(piece)
            self.assertEqual((peer.statuses, peer.reply.get("connection")), ([200], "keep-alive"))


class HeaderLimitTests(ChannelTestCase):
    settings = settings_with(max_header_bytes=2_000, max_target_bytes=300)

    def test_headers_over_the_limit_are_refused(self) -> None:
        peer = self.front.connect()
        peer.send(get("a", headers={"X-Long": "x" * 2_000}))
        self.assertEqual((peer.statuses, peer.reply.code), ([431], "HEADERS_TOO_LARGE"))
        self.assert_ends_politely(peer)

    def test_incomplete_headers_over_the_limit_are_refused(self) -> None:
        for piece in (b"x" * 90, b"X: y\r\n" * 15):
            peer = self.front.connect()
            peer.send(b"GET /v1/stream/a HTTP/1.1\r\nHost: a\r\nX: ")
            for _ in range(30):
                if not peer.replies:
                    peer.send(piece)
            self.assertEqual(peer.statuses, [431])
            self.assert_ends_politely(peer)

    def test_the_header_limit_is_exact_in_any_packets(self) -> None:
        self.front.create("a")
        frame = len(get("a", headers={"X-Long": ""}))
        for size, status in ((2_000, 200), (2_200, 431)):
            whole = get("a", headers={"X-Long": "x" * (size - frame)})
            self.assertEqual(len(whole), size)
            for sizes in ([], [1_990], [100] * 30):
                peer = self.front.connect()
                peer.send_bit_by_bit(whole, sizes)
                self.assertEqual(peer.statuses, [status], (size, sizes))

    def test_the_number_of_headers_is_not_limited(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", headers={f"X-{number}": "y" for number in range(100)}))
        self.assertEqual(peer.statuses, [200])

    def test_a_target_over_the_limit_is_refused(self) -> None:
        for target in ("/" + "x" * 300, BASE + "x" * 300, BASE + "a?" + "x" * 300):
            peer = self.front.connect()
            peer.send(request("GET", target))
            self.assertEqual((peer.statuses, peer.reply.code), ([414], "TARGET_TOO_LONG"))
            self.assert_ends_politely(peer)

    def test_an_incomplete_target_over_the_limit_is_refused(self) -> None:
        peer = self.front.connect()
        peer.send(b"GET /")
        for _ in range(40):
            if not peer.replies:
                peer.send(b"x" * 10)
        self.assertEqual(peer.statuses, [414])

    def test_a_target_of_exactly_the_limit_is_accepted(self) -> None:
        self.front.create("a", body=b"one")
        target = BASE + "a?"
        self.assertEqual(self.front.ask("GET", target + "x" * (300 - len(target))).status, 200)


class PacketTests(SynchronousTestCase):
    """The amount of a packet that is parsed in one call."""

    def setUp(self) -> None:
        self.owner = Asker()
        self.intake = Intake(HeadCache(Admission(BASE.encode(), RequestLimits())), self.owner, NOBODY)

    def test_only_a_few_kilobytes_of_many_requests_are_parsed_at_a_time(self) -> None:
        packet = get("a") * 1000
        taken = self.intake.feed(packet)
        self.assertLess(taken, 5000)
        self.assertEqual(self.owner.asked_for, taken // len(get("a")))

    def test_a_request_with_a_large_body_is_parsed_in_one_step(self) -> None:
        packet = post("a", b"x" * 60_000)
        for number in (1, 2):
            # The second time, its head is known.
            self.assertEqual(self.intake.feed(packet), len(packet))
            self.assertEqual(self.owner.asked_for, number)

    def test_many_requests_after_the_rest_of_a_body_are_parsed_in_steps(self) -> None:
        packet = post("a", b"x" * 30_000)
        self.intake.feed(packet[:10_000])
        rest = packet[10_000:] + get("a") * 1000
        taken = 0
        while self.owner.asked_for < 1:
            taken += self.intake.feed(rest[taken:])
        self.assertLess(taken, 40_000)
        self.assertLess(self.owner.asked_for, 500)
