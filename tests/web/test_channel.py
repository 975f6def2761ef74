"""The daemon's connections: whose turn it is, how long a client may take, and how it ends."""

from __future__ import annotations

from durable_streams.server.web.callers import NOBODY
from durable_streams.server.web.http1.channel import StreamChannel
from tests.support.cases import TEXT, ChannelTestCase, get, post
from tests.support.fronts import BASE, chunked, request, settings_with


class KeepAliveTests(ChannelTestCase):
    def test_several_requests_are_served_on_one_connection(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        for _ in range(3):
            peer.send(get("a"))
        self.assertEqual(peer.statuses, [200, 200, 200])
        self.assertEqual([reply.get("connection") for reply in peer.replies], [None, None, None])
        self.assertFalse(peer.ended)

    def test_answers_are_held_back_until_all_clients_were_read(self) -> None:
        self.front.create("a")
        peers = [self.front.connect() for _ in range(3)]
        for peer in peers:
            peer.put(post("a", b"x"))
        network = self.front.network
        held: list[int] = []
        send_held = network.send_held

        def observe() -> None:
            held.append(len(network.held))
            send_held()

        self.patch(network, "send_held", observe)
        self.front.settle()
        self.assertEqual(max(held), 3)
        for peer in peers:
            peer.look()
        self.assertEqual([peer.statuses for peer in peers], [[204]] * 3)

    def test_answers_are_sent_before_a_large_body_is_read(self) -> None:
        self.front.create("a")
        first, second = self.front.connect(), self.front.connect()
        held: list[int] = []
        network = self.front.network
        send_held = network.send_held

        def observe() -> None:
            held.append(len(network.held))
            send_held()

        self.patch(network, "send_held", observe)
        second.send(post("a", b"y" * 1000)[:-100])
        held.clear()
        first.put(post("a", b"x"))
        second.put(b"y" * 100)
        network.turn()
        self.assertEqual(held[0], 1, "before the rest of the body was read")
        self.front.settle()
        for peer in (first, second):
            peer.look()
        self.assertEqual((first.statuses, second.statuses), ([204], [204]))

    def test_a_connection_with_a_tail_keeps_neither_a_parser_nor_a_head(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", "?offset=-1&live=sse", {"X-Odd": "headers that were not seen before"}))
        [channel] = self.front.channels._channels
        assert isinstance(channel, StreamChannel)
        intake = channel._intake
        self.assertEqual((intake._parser, intake._feed, intake._block), (None, None, b""))

    def test_requests_after_a_tail_are_parsed(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", "?offset=-1&live=sse", {"X-Odd": "1"}))
        peer.send(get("a", headers={"X-Odd": "2"})[:-30])
        self.front.streams.delete("a")
        self.front.settle()
        self.front.create("a", body=b"two")
        peer.send(get("a", headers={"X-Odd": "2"})[-30:])
        self.assertEqual(peer.statuses, [200, 200])
        self.assertEqual(bytes(peer.replies[1].body), b"two")

    def test_a_request_in_the_packet_of_a_tail_is_parsed(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", "?offset=-1&live=sse", {"X-Odd": "1"}) + get("a", headers={"X-Odd": "2"}))
        self.front.streams.delete("a")
        self.front.settle()
        self.assertEqual(peer.statuses, [200, 404])

    def test_connection_close_ends_the_connection_after_the_answer(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", headers={"Connection": "close"}))
        self.assertEqual((peer.statuses, peer.reply.get("connection")), ([200], "close"))
        self.assert_ends_politely(peer)

    def test_bytes_after_the_last_request_are_ignored(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", headers={"Connection": "close"}) + post("a", b"too late") + b"\x00garbage")
        peer.send(post("a", b"later still"))
        self.assertEqual(peer.statuses, [200])
        self.assertEqual(self.read("a"), b"")
        self.assert_ends_politely(peer)

    def test_the_connection_is_closed_when_the_client_has_half_closed(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", headers={"Connection": "close"}))
        peer.send_no_more()
        self.assertTrue(peer.closed)

    def test_http_1_0_connections_are_closed_after_one_request(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", version="1.0"))
        self.assertEqual((peer.statuses, peer.reply.get("connection")), ([200], "close"))
        self.assertEqual(bytes(peer.reply.body), b"one")
        self.assert_ends_politely(peer)

    def test_http_1_0_needs_no_host(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(b"GET /v1/stream/a HTTP/1.0\r\n\r\n")
        self.assertEqual(peer.statuses, [200])

    def test_http_1_0_keep_alive_is_accepted(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        for _ in range(2):
            peer.send(get("a", headers={"Connection": "keep-alive"}, version="1.0"))
        self.assertEqual(peer.statuses, [200, 200])
        self.assertEqual([reply.get("connection") for reply in peer.replies], ["keep-alive", "keep-alive"])
        self.assertFalse(peer.ended)

    def test_requests_of_both_versions_can_be_in_one_packet(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", headers={"Connection": "keep-alive"}, version="1.0") + get("a"))
        self.assertEqual([reply.get("connection") for reply in peer.replies], ["keep-alive", None])

    def test_a_header_value_that_ends_with_a_version_does_not_set_the_version(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", "?offset=-1&live=sse", {"X-Odd": "a HTTP/1.1"}, "1.0"))
        self.assertEqual((peer.reply.framing, peer.reply.get("connection")), ("end", "close"))

    def test_chunked_bodies_of_http_1_0_are_rejected(self) -> None:
        self.front.create("a")
        for odd in ({}, {"X-Odd": "a HTTP/1.1"}):
            peer = self.front.connect()
            body = chunked([b"smuggled"])
            peer.send(request("POST", BASE + "a", TEXT | odd | {"Transfer-Encoding": "chunked"}, body, "1.0"))
            self.assertEqual(peer.statuses, [400])
            self.assertTrue(peer.ended)
        self.assertEqual(self.read("a"), b"")

    def test_an_http_1_0_tail_is_not_chunked_and_ends_with_the_connection(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", "?offset=-1&live=sse", version="1.0"))
        self.assertEqual((peer.reply.framing, peer.reply.get("connection")), ("end", "close"))
        self.front.append("a", b"two")
        self.front.close_stream("a")
        self.assertTrue(peer.reply.complete)
        self.assertEqual([event.data for event in peer.events if event.kind == "data"], ["one", "two"])
        self.assertTrue(peer.events[-1].control["streamClosed"])
        self.assert_ends_politely(peer)

    def test_http_1_0_keep_alive_ends_with_a_body_of_unknown_length(self) -> None:
        self.front.create("a", body=b"one", Stream_Closed="true")
        peer = self.front.connect()
        peer.send(get("a", "?offset=-1&live=sse", {"Connection": "keep-alive"}, "1.0"))
        self.assertEqual(peer.reply.get("connection"), "close")
        self.assertTrue(peer.reply.complete)
        self.assertTrue(peer.ended)


class PipeliningTests(ChannelTestCase):
    def test_answers_come_in_the_order_of_the_requests(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(
            get("a") + request("GET", "/healthz") + post("a", b"two") + get("a") + request("DELETE", BASE + "a"),
            *("GET", "GET", "POST", "GET", "DELETE"),
        )
        self.assertEqual(peer.statuses, [200, 200, 204, 200, 204])
        self.assertEqual([bytes(reply.body) for reply in peer.replies], [b"one", b"ok", b"", b"onetwo", b""])

    def test_answers_of_pages_are_in_the_order_of_the_requests(self) -> None:
        self.front.create("a", body=b"one")
        self.front.obstacle = "It rains."
        peer = self.front.connect()
        peer.send(
            get("a")
            + request("GET", "/readyz")
            + get("a")
            + request("GET", "/nowhere")
            + get("a")
            + request("DELETE", "/healthz")
            + request("POST", "/healthz", TEXT, b"a body to read over")
            + request("HEAD", "/healthz")
            + get("a"),
            *("GET", "GET", "GET", "GET", "GET", "DELETE", "POST", "HEAD", "GET"),
        )
        self.assertEqual(peer.statuses, [200, 503, 200, 404, 200, 405, 405, 200, 200])
        self.assertEqual(
            [reply.code for reply in peer.replies if reply.framing != "none"],
            [None, "UNAVAILABLE", None, "NOT_FOUND", None, "METHOD_NOT_ALLOWED", "METHOD_NOT_ALLOWED", None],
        )
        self.assertEqual(peer.replies[5].get("allow"), "GET, HEAD")
        self.assertEqual(bytes(peer.replies[-1].body), b"one")

    def test_requests_after_a_long_poll_wait_for_its_answer(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", f"?offset={offset}&live=long-poll") + post("a", b"two") + get("a"), "GET", "POST", "GET")
        self.assertEqual(peer.replies, [])
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200, 204, 200])
        self.assertEqual([bytes(reply.body) for reply in peer.replies], [b"one", b"", b"onetwo"])

    def test_two_pipelined_long_polls_wait_one_after_the_other(self) -> None:
        offset = self.front.create("a")
        self.front.create("b")
        peer = self.front.connect()
        peer.send(get("a", f"?offset={offset}&live=long-poll") + get("b", "?offset=now&live=long-poll") + get("b"))
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200])
        self.front.append("b", b"two")
        self.assertEqual([bytes(reply.body) for reply in peer.replies], [b"one", b"two", b"two"])

    def test_requests_that_were_not_read_during_a_long_poll_are_read_after_it(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        poll = get("a", "?offset=now&live=long-poll")
        peer.send(poll)
        peer.send(poll)
        peer.send(get("a"))
        self.assertGreater(peer.unread_by_server, 0)
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200])
        self.front.append("a", b"two")
        self.assertEqual([bytes(reply.body) for reply in peer.replies], [b"one", b"two", b"onetwo"])

    def test_little_of_a_body_is_read_while_an_earlier_request_is_answered(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", "?offset=now&live=long-poll"))
        body = b"x" * 500_000
        sent = post("a", body)
        for place in range(0, len(sent), 16_000):
            peer.send(sent[place : place + 16_000])
        self.assertGreater(peer.unread_by_server, 400_000)
        self.front.append("a", b"one")
        self.front.pass_time(1)
        self.assertEqual((peer.statuses, peer.unread_by_server), ([200, 204], 0))
        self.assertEqual(bytes(self.front.ask("GET", BASE + "a").body), b"one" + body)

    def test_reading_pauses_while_requests_are_queued(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        poll = get("a", f"?offset={offset}&live=long-poll")
        peer.send(poll)
        peer.send(post("a", b"x" * 100))
        self.assertEqual(peer.unread_by_server, 0)
        peer.send(post("a", b"y" * 200_000))
        self.assertGreater(peer.unread_by_server, 200_000)
        self.front.append("a", b"one")
        self.assertEqual((peer.statuses, peer.unread_by_server), ([200, 204, 204], 0))
        self.assertEqual(self.read("a"), b"one" + b"x" * 100 + b"y" * 200_000)

    def test_a_thousand_requests_behind_a_long_poll_are_answered(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", f"?offset={offset}&live=long-poll") + get("a") * 1000)
        self.assertEqual(peer.replies, [])
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200] * 1001)

    def test_a_refusal_waits_for_its_turn(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", f"?offset={offset}&live=long-poll") + b"NONSENSE\r\n\r\n")
        self.assertEqual(peer.replies, [])
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200, 400])
        self.assert_ends_politely(peer)

    def test_a_request_that_ends_the_connection_waits_for_its_turn(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        last = get("a", headers={"Connection": "close"})
        peer.send(get("a", f"?offset={offset}&live=long-poll") + last + get("a"))
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200, 200])
        self.assert_ends_politely(peer)

    def test_a_client_that_keeps_sending_receives_the_last_answer(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", f"?offset={offset}&live=long-poll") + get("a"))
        peer.send(get("a", headers={"Connection": "close"}) + b"more" * 100_000)
        self.assertGreater(peer.unread_by_server, 0)
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200, 200, 200])
        self.assertEqual(peer.unread_by_server, 0)
        self.assert_ends_politely(peer)

    def test_a_client_that_sends_a_large_body_before_reading_receives_the_413(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {"Content-Type": "text/plain", "Content-Length": "90000000"}))
        for _ in range(240):
            peer.send(b"x" * 65_536)
        self.assertEqual((peer.statuses, peer.unread_by_server), ([413], 0))
        for _ in range(40):
            peer.send(b"x" * 65_536)
        self.assertGreater(peer.unread_by_server, 0)

    def test_queued_requests_of_a_lost_connection_are_dropped(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", f"?offset={offset}&live=long-poll") + post("a", b"never"))
        peer.leave()
        self.front.append("a", b"one")
        self.assertEqual(self.read("a"), b"one")
        self.assertEqual(peer.replies, [])


class BugTests(ChannelTestCase):
    """Unexpected errors in the server."""

    def test_an_unexpected_error_is_logged_and_answered_with_500(self) -> None:
        peer = self.front.connect()

        def broken(request: object) -> None:
            raise ZeroDivisionError("secret")

        channel = peer.transport.protocol
        assert isinstance(channel, StreamChannel)
        channel._perform = broken  # type: ignore[assignment]
        peer.send(get("a"))
        self.assertEqual((peer.statuses, peer.reply.code), ([500], "INTERNAL_ERROR"))
        self.assertNotIn(b"secret", peer.received)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_ends_politely(peer)


class HeadTests(ChannelTestCase):
    def test_answers_to_head_have_no_body(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(
            request("HEAD", BASE + "a") + request("HEAD", BASE + "none") + request("HEAD", "/nowhere") + get("a"),
            *("HEAD", "HEAD", "HEAD", "GET"),
        )
        self.assertEqual(peer.statuses, [200, 404, 404, 200])
        self.assertEqual(peer.replies[0].get("content-length"), None)
        self.assertEqual(bytes(peer.reply.body), b"one")


class IncomingTests(ChannelTestCase):
    settings = settings_with(max_incoming_bytes=28_000)

    def test_bodies_of_all_connections_share_a_limit(self) -> None:
        self.front.create("a")
        head = request("POST", BASE + "a", TEXT | {"Content-Length": "10000"})
        peers = [self.front.connect() for _ in range(4)]
        for peer in peers:
            peer.send(head + b"x" * 9000, "POST")
        self.assertEqual([peer.statuses for peer in peers], [[], [], [], [503]])
        self.assertIn("limits.max_incoming_bytes", peers[3].reply.json()["detail"])
        whole = self.front.connect()
        whole.send(head + b"x" * 10_000, "POST")
        self.assertEqual(whole.statuses, [204])
        peers[0].send(b"x" * 1000)
        peers[1].leave()
        self.assertEqual(peers[0].statuses, [204])
        again = [self.front.connect() for _ in range(3)]
        for peer in again:
            peer.send(head + b"x" * 9000, "POST")
        self.assertEqual([peer.statuses for peer in again], [[], [], [503]])
        for peer in (again[0], again[1], peers[2]):
            peer.send(b"x" * 1000)
        self.assertEqual(self.front.channels.admission(NOBODY).incoming.size, 0)


class TimeTests(ChannelTestCase):
    settings = settings_with(
        {
            "header_timeout_secs": 5,
            "body_timeout_secs": 10,
            "idle_timeout_secs": 20,
            "long_poll_timeout_secs": 100,
            "stall_timeout_secs": 30,
        }
    )

    def test_a_connection_without_a_request_is_closed_after_the_timeout(self) -> None:
        peer = self.front.connect()
        self.front.pass_time(3.9)
        self.assertFalse(peer.closed)
        self.front.pass_time(2.2)
        self.assertTrue(peer.closed)
        self.assertEqual(bytes(peer.received), b"")

    def test_headers_that_do_not_arrive_in_time_are_408(self) -> None:
        peer = self.front.connect()
        peer.send(b"GET /v1/stream/a HT")
        self.front.pass_time(6.1)
        self.assertEqual((peer.statuses, peer.reply.code), ([408], "REQUEST_TIMEOUT"))
        self.assertEqual(peer.reply.get("connection"), "close")
        self.assert_ends_politely(peer)

    def test_headers_sent_slowly_do_not_extend_the_timeout(self) -> None:
        peer = self.front.connect()
        peer.send(b"GET /v1/stream/a HTTP/1.1\r\n")
        for _ in range(7):
            self.front.pass_time(1)
            peer.send(b"X: y\r\n")
        self.assertEqual(peer.statuses, [408])

    def test_slow_headers_of_a_later_request_do_not_extend_the_timeout(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a"))
        self.front.pass_time(15)
        peer.send(b"GET /v1/stream/a HTTP/1.1\r\n")
        self.front.pass_time(3)
        peer.send(b"X: y\r\n")
        self.front.pass_time(4)
        self.assertEqual(peer.statuses, [200, 408])

    def test_empty_lines_before_a_request_do_not_extend_the_timeout(self) -> None:
        peer = self.front.connect()
        for _ in range(7):
            self.front.pass_time(1)
            peer.send(b"\r\n" * 10)
        self.assertTrue(peer.ended)

    def test_a_body_that_stops_arriving_is_408(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", TEXT | {"Content-Length": "100"}, b"some of it"), "POST")
        self.front.pass_time(9)
        self.assertEqual(peer.replies, [])
        self.front.pass_time(3)
        self.assertEqual((peer.statuses, self.read("a")), ([408], b""))
        self.assert_ends_politely(peer)

    def test_a_body_that_keeps_arriving_is_not_timed_out(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", TEXT | {"Content-Length": "40000"}), "POST")
        for _ in range(8):
            self.front.pass_time(8)
            peer.send(b"x" * 5000)
        self.assertEqual((peer.statuses, self.read("a")), ([204], b"x" * 40_000))

    def test_a_body_below_the_minimum_rate_is_408(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", TEXT | {"Content-Length": "40000"}), "POST")
        for _ in range(9):
            self.front.pass_time(3)
            if not peer.ended:
                peer.send(b"x" * 1000)
        self.assertEqual((peer.statuses, self.read("a")), ([408], b""))

    def test_a_body_that_is_fast_at_first_and_then_slow_is_refused(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", TEXT | {"Content-Length": "1000000"}), "POST")
        for _ in range(9):
            peer.send(b"x" * 100_000)
        for _ in range(5):
            self.front.pass_time(3)
            if not peer.ended:
                peer.send(b"x")
        self.assertEqual((peer.statuses, self.read("a")), ([408], b""))

    def test_a_body_that_keeps_to_the_rate_in_small_pieces_has_its_time(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", TEXT | {"Content-Length": "22000"}), "POST")
        for _ in range(40):
            self.front.pass_time(1)
            peer.send(b"x" * 550)
        self.assertEqual((peer.statuses, len(self.read("a"))), ([204], 22_000))

    def test_an_idle_connection_is_closed_without_an_answer(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a"))
        self.front.pass_time(19)
        self.assertFalse(peer.ended)
        self.front.pass_time(3)
        self.assertTrue(peer.closed)
        self.assertFalse(peer.aborted)
        self.assertEqual(peer.statuses, [200])

    def test_each_request_restarts_the_idle_timeout(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        for _ in range(5):
            peer.send(get("a"))
            self.front.pass_time(15)
        self.assertEqual(peer.statuses, [200] * 5)
        self.assertFalse(peer.ended)

    def test_a_connection_with_a_waiting_long_poll_is_not_idle(self) -> None:
        offset = self.front.create("a")
        peer = self.front.follow(BASE + f"a?offset={offset}&live=long-poll")
        self.front.pass_time(90)
        self.assertFalse(peer.ended)
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200])
        self.front.pass_time(19)
        self.assertFalse(peer.ended)
        self.front.pass_time(3)
        self.assertTrue(peer.ended)

    def test_the_timeout_of_a_request_after_a_long_poll_starts_with_its_answer(self) -> None:
        offset = self.front.create("a")
        peer = self.front.connect()
        peer.send(get("a", f"?offset={offset}&live=long-poll") + b"GET /v1/stream/a HTTP/1.1\r\n")
        self.front.pass_time(50)
        self.assertEqual(peer.replies, [])
        self.front.append("a", b"one")
        self.front.pass_time(22)
        self.assertEqual(peer.statuses, [200, 408])


class DrainTests(ChannelTestCase):
    def drain(self) -> None:
        self.front.streams.drain()
        self.drained = self.front.channels.drain()
        self.front.settle()

    def test_a_drain_closes_idle_connections(self) -> None:
        self.front.create("a")
        fresh, used = self.front.connect(), self.front.connect()
        used.send(get("a"))
        self.drain()
        self.assertTrue(fresh.closed)
        self.assertTrue(used.closed)
        self.assertFalse(used.aborted)
        self.assertIsNone(self.successResultOf(self.drained))

    def test_a_drain_without_connections_ends_at_once(self) -> None:
        self.drain()
        self.assertIsNone(self.successResultOf(self.drained))

    def test_a_drain_answers_long_polls_before_closing(self) -> None:
        offset = self.front.create("a")
        peer = self.front.follow(BASE + f"a?offset={offset}&live=long-poll")
        self.drain()
        self.assertEqual((peer.statuses, peer.reply.get("connection")), ([204], "close"))
        self.assertEqual(peer.reply.get("stream-next-offset"), offset)
        self.assertEqual(peer.reply.get("stream-closed"), None)
        self.assertTrue(peer.ended)
        self.assertIsNone(self.successResultOf(self.drained))

    def test_a_drain_ends_tails_with_complete_bodies(self) -> None:
        self.front.create("a", body=b"one")
        peer = self.front.follow(BASE + "a?offset=-1&live=sse")
        self.drain()
        self.assertTrue(peer.reply.complete)
        self.assertTrue(peer.ended)
        self.assertNotIn("streamClosed", peer.events[-1].control)
        self.assertIsNone(self.successResultOf(self.drained))

    def test_a_drain_answers_one_queued_request_and_closes(self) -> None:
        offset = self.front.create("a", body=b"one")
        peer = self.front.connect()
        peer.send(get("a", f"?offset={offset}&live=long-poll") + get("a") + get("a"))
        self.drain()
        self.assertEqual(peer.statuses[0], 204)
        self.assertEqual(peer.reply.get("connection"), "close")
        self.assertTrue(peer.ended)

    def test_a_drain_waits_for_a_request_that_is_arriving(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        whole = post("a", b"one")
        peer.send(whole[:-1])
        self.drain()
        self.assertNoResult(self.drained)
        peer.send(whole[-1:], "POST")
        self.assertEqual((peer.statuses, peer.reply.get("connection")), ([204], "close"))
        peer.send_no_more()
        self.assertIsNone(self.successResultOf(self.drained))

    def test_a_drain_sends_a_catch_up_read_to_its_end(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=10_000)
        self.drain()
        self.assertNoResult(self.drained)
        peer.read_freely()
        self.assertTrue(peer.reply.complete)
        self.assertEqual(len(peer.reply.body), 1_000_000)
        self.assertTrue(peer.ended)
        peer.leave()
        self.assertIsNone(self.successResultOf(self.drained))

    def test_an_abort_closes_slow_readers(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.follow(BASE + "a", room=10_000)
        self.drain()
        self.front.channels.abort()
        self.front.settle()
        self.assertTrue(peer.aborted)
        self.assertIsNone(self.successResultOf(self.drained))
