"""Clients that shut down their sending half after their last request, as ``nc -N`` does."""

from __future__ import annotations

from durable_streams.server.config.settings import Settings
from durable_streams.server.web.callers import NOBODY
from tests.support.cases import TEXT, FrontTestCase, get, post
from tests.support.fronts import BASE, Peer, request, settings_with

LARGE = b"x" * 1_048_576


class HalfClosedTests(FrontTestCase):
    settings: Settings = settings_with(
        {"stall_timeout_secs": 5, "body_timeout_secs": 5, "idle_timeout_secs": 5}, max_stream_bytes=2 * len(LARGE)
    )

    def setUp(self) -> None:
        super().setUp()
        self.front.create("a", body=b"one")

    def send_and_shut(self, data: bytes, *methods: str, room: int | None = None) -> Peer:
        """Send requests and the end of the stream in one packet."""
        peer = self.front.connect() if room is None else self.front.connect(room)
        for method in methods:
            assert peer._reader is not None
            peer._reader.expect(method)
        peer._socket.inbound += data
        peer.send_no_more()
        self.front.pass_time(0.25)
        return peer

    def assert_closed(self, peer: Peer) -> None:
        self.assertTrue(peer.ended)
        self.assertTrue(peer.closed)
        self.assertFalse(peer.aborted)
        self.assertEqual(self.front.channels.connections, 0)

    def test_each_operation_is_answered(self) -> None:
        for method, name, body, status in (
            ("POST", "a", b"two", 204),
            ("PUT", "b", b"", 201),
            ("GET", "a", b"", 200),
            ("HEAD", "a", b"", 200),
            ("DELETE", "a", b"", 204),
            ("GET", "a", b"", 404),
        ):
            peer = self.send_and_shut(request(method, BASE + name, TEXT, body), method)
            self.assertEqual(peer.statuses, [status], method)
            # An answer that is sent at once is sent before the end is read.
            self.assertEqual(peer.reply.get("connection"), "close" if self.late else None)
            self.assert_closed(peer)

    def test_a_body_that_cannot_be_completed_is_dropped_at_once(self) -> None:
        self.front.append("a", LARGE)
        incoming = self.front.channels.admission(NOBODY).incoming
        peer = self.front.connect(1000)
        peer.send(get("a") + request("POST", BASE + "a", {**TEXT, "Content-Length": "100000"}) + b"x" * 50_000)
        peer.send(b"x" * 1000)
        self.assertEqual(incoming.size, 51_000)
        peer.send_no_more()
        self.assertEqual(incoming.size, 0)
        peer.read_freely()
        self.front.pass_time(1)
        self.assertEqual((peer.statuses, len(peer.reply.body)), ([200], 3 + len(LARGE)))
        self.assert_closed(peer)

    def test_requests_for_pages_are_answered(self) -> None:
        peer = self.send_and_shut(request("GET", "/healthz"))
        self.assertEqual(peer.statuses, [200])
        self.assert_closed(peer)

    def test_a_chunked_body_is_answered(self) -> None:
        head = request("POST", BASE + "a", {**TEXT, "Transfer-Encoding": "chunked"})
        peer = self.send_and_shut(head + b"3\r\ntwo\r\n0\r\n\r\n", "POST")
        self.assertEqual(peer.statuses, [204])
        self.assert_closed(peer)

    def test_all_of_several_requests_are_answered_in_order(self) -> None:
        peer = self.send_and_shut(post("a", b"two") + get("a") + get("none") + get("a"), "POST")
        self.assertEqual(peer.statuses, [204, 200, 404, 200])
        self.assertEqual([reply.get("connection") for reply in peer.replies[:3]], [None] * 3)
        self.assert_closed(peer)

    def test_requests_before_an_incomplete_one_are_answered(self) -> None:
        for rest in (b"GET /v1/str", post("a", b"two")[:-1]):
            peer = self.send_and_shut(get("a") + rest)
            self.assertEqual((peer.statuses, len(peer.replies)), ([200], 1))
            self.assert_closed(peer)
        self.assertEqual(bytes(self.front.ask("GET", BASE + "a").body), b"one")

    def test_a_connection_without_a_request_is_closed(self) -> None:
        for sent in (b"", b"GET /v1/str", post("a", b"two")[:-1]):
            peer = self.send_and_shut(sent)
            self.assertEqual(peer.replies, [])
            self.assert_closed(peer)

    def test_a_large_read_is_sent_whole_to_a_slow_reader(self) -> None:
        self.front.append_directly("a", LARGE, "text/plain")
        peer = self.send_and_shut(get("a"), room=10_000)
        self.assertFalse(peer.closed)
        peer.read_freely()
        self.front.pass_time(3)
        self.assertEqual((peer.reply.complete, len(peer.reply.body)), (True, 3 + len(LARGE)))
        self.assert_closed(peer)

    def test_a_reader_that_takes_nothing_is_ended_by_the_stall_timeout(self) -> None:
        self.front.append_directly("a", LARGE, "text/plain")
        peer = self.send_and_shut(get("a"), room=10_000)
        self.front.pass_time(3)
        self.assertFalse(peer.closed)
        self.front.pass_time(4)
        self.assertTrue(peer.closed)
        self.assertEqual(self.front.channels.connections, 0)

    def test_a_long_poll_is_answered_at_once(self) -> None:
        peer = self.send_and_shut(get("a", "?offset=now&live=long-poll"))
        # A read that is still under way is cancelled.
        self.assertEqual(peer.statuses, [503 if self.late else 204])
        self.assert_closed(peer)
        self.assertEqual(self.front.operations.live.polls, 0)

    def test_a_tail_ends_after_the_stored_data(self) -> None:
        peer = self.send_and_shut(get("a", "?offset=-1&live=sse"))
        self.assertEqual(peer.statuses, [503 if self.late else 200])
        if not self.late:
            self.assertEqual(peer.events[0].data, "one")
        self.assert_closed(peer)
        self.assertEqual(self.front.operations.live.tails, 0)
        self.assertEqual(list(self.front.streams._waiting._watchers), [])

    def test_waiting_live_reads_end_when_the_client_half_closes(self) -> None:
        poll = self.front.follow(BASE + "a?offset=now&live=long-poll")
        tail = self.front.follow(BASE + "a?offset=now&live=sse")
        self.front.pass_time(1)
        for peer, status in ((poll, 204), (tail, 200)):
            peer.send_no_more()
            self.front.pass_time(0.25)
            self.assertEqual(peer.statuses, [status])
            self.assertTrue(peer.closed)
        self.assertEqual(list(self.front.streams._waiting._watchers), [])

    def test_a_live_read_behind_other_requests_ends(self) -> None:
        poll = get("a", "?offset=now&live=long-poll")
        peer = self.send_and_shut(post("a", b"two") + get("a") + poll, "POST")
        self.assertEqual(peer.statuses[:2], [204, 200])
        self.assertEqual(bytes(peer.replies[1].body), b"onetwo")
        self.assertEqual(peer.statuses[2:], [503 if self.late else 204])
        self.assert_closed(peer)

    def test_the_connection_of_a_gone_client_is_closed_after_its_answer(self) -> None:
        for data in (post("a", b"two"), get("a"), get("a", "?offset=now&live=sse")):
            peer = self.front.connect()
            peer.send(data)
            peer.leave()
            self.front.pass_time(0.5)
            self.assertEqual(self.front.channels.connections, 0)


class LateTests(HalfClosedTests):
    late = True
