"""Tests of requests that are refused before their body has arrived."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.support.cases import TEXT, ChannelTestCase
from tests.support.fronts import BASE, ChannelFront, Headers, Peer, request
from tests.support.gates import GateTestCase, bearer
from tests.support.http2 import Http2Front, Http2Peer

LARGE = 1_000_000


class EarlyRefusalTests(GateTestCase):
    front_type = ChannelFront

    def begin(self, method: str, name: str, token: str | None, headers: Headers | None = None) -> Peer:
        """Send the head of a request with a large body."""
        peer = self.front.connect()
        fields = {**TEXT, "Content-Length": str(LARGE), **bearer(token), **(headers or {})}
        peer.send(request(method, BASE + name, fields), method)
        return peer

    def test_a_body_without_credentials_is_refused_after_the_head(self) -> None:
        peer = self.begin("POST", "alice/a", None)
        self.assertEqual((peer.reply.status, peer.reply.get("connection")), (401, "close"))
        self.assertEqual(peer.reply.json()["instance"], BASE + "alice/a")

    def test_a_body_of_a_known_principal_without_the_right_is_refused_after_the_head(self) -> None:
        self.ask("GET", "shared/s", "bob")
        self.assertEqual(self.begin("POST", "shared/s", "bob").reply.status, 403)
        self.assertEqual(self.begin("PUT", "bob/new", "bob").reply.status, 403)

    def test_an_allowed_body_is_read(self) -> None:
        self.ask("GET", "alice/a", "alice")
        peer = self.begin("POST", "alice/a", "alice")
        self.assertEqual(peer.replies, [])
        peer.send(b"x" * LARGE)
        self.assertEqual(peer.reply.status, 204)

    def test_an_invalid_token_is_refused_after_the_head(self) -> None:
        self.assertEqual(self.begin("POST", "alice/a", "nonsense").reply.status, 401)

    def check_later(self) -> list[Deferred[None]]:
        """Have tokens checked when the Deferreds of the list are fired."""
        pending: list[Deferred[None]] = []
        self.book.pending = pending
        return pending

    def test_a_token_whose_check_takes_time_is_checked_once(self) -> None:
        pending = self.check_later()
        for token, status in (("alice", 204), ("nonsense", 401)):
            peer = self.begin("POST", "alice/a", token)
            self.assertEqual(peer.replies, [])
            peer.send(b"x" * LARGE)
            self.assertEqual(peer.replies, [])
            pending.pop().callback(None)
            self.front.settle()
            self.assertEqual((peer.reply.status, pending), (status, []))

    def test_a_body_is_refused_while_it_arrives_when_its_check_has_ended(self) -> None:
        pending = self.check_later()
        for token, name, status in (("nonsense", "alice/a", 401), ("bob", "shared/s", 403)):
            peer = self.begin("POST", name, token)
            peer.send(b"x" * 1000)
            self.assertEqual(peer.replies, [])
            pending.pop().callback(None)
            self.front.settle()
            self.assertEqual((peer.reply.status, peer.reply.get("connection")), (status, "close"))
            peer.send(b"x" * 1000)
            self.assertEqual(len(peer.replies), 1)

    def test_an_allowed_body_arrives_beyond_the_end_of_its_check(self) -> None:
        pending = self.check_later()
        peer = self.begin("POST", "alice/a", "alice")
        peer.send(b"x" * 1000)
        pending.pop().callback(None)
        self.front.settle()
        peer.send(b"x" * (LARGE - 1000))
        self.assertEqual(peer.reply.status, 204)

    def test_100_continue_is_sent_when_the_check_has_ended(self) -> None:
        pending = self.check_later()
        for token, outcome in (("alice", ([100], [])), ("nonsense", ([], [401]))):
            peer = self.begin("POST", "alice/a", token, {"Expect": "100-continue"})
            self.assertEqual((peer.interim, peer.replies), ([], []))
            pending.pop().callback(None)
            self.front.settle()
            self.assertEqual((peer.interim, peer.statuses), outcome)

    def test_a_check_ends_when_its_client_leaves(self) -> None:
        pending = self.check_later()
        peer = self.begin("POST", "alice/a", "alice", {"Expect": "100-continue"})
        peer.leave()
        self.assertEqual((len(pending), self.book.cancelled), (1, 1))

    def test_a_body_that_is_too_slow_ends_its_check(self) -> None:
        self.check_later()
        peer = self.begin("POST", "alice/a", "alice")
        self.front.pass_time(40)
        self.assertEqual((peer.reply.status, self.book.cancelled), (408, 1))

    def test_a_request_behind_one_whose_check_takes_time_is_answered_in_its_turn(self) -> None:
        self.ask("HEAD", "alice/a", "alice")
        pending = self.check_later()
        peer = self.front.connect()
        small = request("POST", BASE + "shared/s", {**TEXT, **bearer("bob")}, b"x")
        large = request("POST", BASE + "alice/a", {**TEXT, **bearer("owner"), "Content-Length": "9"})
        peer.send(small + large, "POST", "POST")
        peer.send(b"x" * 9)
        self.assertEqual(peer.statuses, [])
        # The check that began with the head ends with the request, which waits for its turn and is checked then.
        while waiting := [later for later in pending if not later.called]:
            waiting[0].callback(None)
            self.front.settle()
        self.assertEqual(peer.statuses, [403, 204])

    def test_a_refused_client_is_not_sent_100_continue(self) -> None:
        peer = self.begin("POST", "alice/a", None, {"Expect": "100-continue"})
        self.assertEqual((peer.interim, peer.reply.status), ([], 401))

    def test_an_allowed_client_is_sent_100_continue(self) -> None:
        self.ask("GET", "alice/a", "alice")
        peer = self.begin("POST", "alice/a", "alice", {"Expect": "100-continue"})
        self.assertEqual((peer.interim, peer.replies), ([100], []))

    def test_a_chunked_body_is_refused_by_what_it_needs_in_any_case(self) -> None:
        self.control.set_rules("allow subject:bob create new/**")
        self.ask("GET", "new/1", "bob")
        for name, expected in (("other/1", [403]), ("new/1", [])):
            peer = self.front.connect()
            head = request("PUT", BASE + name, {**TEXT, **bearer("bob"), "Transfer-Encoding": "chunked"})
            peer.send(head + b"5\r\nhello\r\n", "PUT")
            self.assertEqual(peer.statuses, expected)

    def test_a_refusal_waits_for_the_answers_before_it(self) -> None:
        peer = self.front.connect()
        poll = BASE + "public/p?offset=now&live=long-poll"
        head = request("POST", BASE + "alice/a", {**TEXT, "Content-Length": str(LARGE)})
        peer.send(request("GET", poll) + head, "GET", "POST")
        self.assertEqual(peer.statuses, [])
        self.front.operations.gate = None
        self.front.append("public/p", b"!")
        peer.look()
        self.assertEqual(peer.statuses, [200, 401])

    def test_what_follows_a_refused_request_is_not_parsed(self) -> None:
        self.ask("GET", "alice/a", "alice")
        peer = self.begin("POST", "alice/a", None)
        peer.send(request("DELETE", BASE + "alice/a", bearer("alice")))
        self.assertEqual(len(peer.replies), 1)
        self.assertEqual(self.ask("GET", "alice/a", "alice").status, 200)


class EarlyRefusalOverHttp2Tests(GateTestCase):
    front_type = Http2Front

    def begin(self, method: str, name: str, token: str | None, headers: Headers | None = None) -> Http2Peer:
        """Send the head of a request with a body."""
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        peer.ask(method, BASE + name, {**TEXT, **bearer(token), **(headers or {})}, is_all=False)
        return peer

    def test_a_body_without_credentials_is_refused_after_the_head(self) -> None:
        peer = self.begin("POST", "alice/a", None, {"Expect": "100-continue"})
        self.assertEqual((peer.reply.status, peer.reply.complete, peer.interim), (401, True, []))
        self.assertEqual(peer.reply.json()["instance"], BASE + "alice/a")

    def test_the_rest_of_a_refused_body_is_discarded(self) -> None:
        peer = self.begin("POST", "alice/a", None)
        peer.upload(peer.asked[0], b"x" * 10_000)
        peer.send_request("GET", BASE + "public/p")
        self.assertEqual(peer.statuses, [401, 200])

    def test_an_allowed_body_is_read(self) -> None:
        self.ask("GET", "alice/a", "alice")
        peer = self.begin("POST", "alice/a", "alice", {"Expect": "100-continue"})
        self.assertEqual((peer.interim, peer.replies), ([100], []))
        peer.upload(peer.asked[0], b"!")
        self.assertEqual(peer.reply.status, 204)

    def test_a_check_that_takes_time_decides_about_the_body_and_100_continue(self) -> None:
        for token, outcome in (("alice", ([100], [])), ("nonsense", ([], [401]))):
            pending: list[Deferred[None]] = []
            self.book.pending = pending
            peer = self.begin("POST", "alice/a", token, {"Expect": "100-continue"})
            self.assertEqual((peer.interim, peer.replies), ([], []))
            pending.pop().callback(None)
            self.front.settle()
            self.assertEqual((peer.interim, [reply.status for reply in peer.replies]), outcome)

    def test_a_body_that_arrives_before_the_end_of_its_check_is_performed_after_it(self) -> None:
        pending: list[Deferred[None]] = []
        self.book.pending = pending
        peer = self.begin("POST", "alice/a", "alice")
        peer.upload(peer.asked[0], b"!")
        self.assertEqual((peer.replies, self.book.cancelled), ([], 0))
        pending.pop().callback(None)
        self.front.settle()
        self.assertEqual((peer.reply.status, pending), (204, []))

    def test_a_check_ends_with_a_reset(self) -> None:
        self.book.pending = []
        peer = self.begin("POST", "alice/a", "alice")
        peer.h2.reset_stream(peer.asked[0])
        peer.pass_on()
        self.assertEqual(self.book.cancelled, 1)


class WithoutGateTests(ChannelTestCase):
    def test_a_body_in_parts_is_read_without_a_gate(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {**TEXT, "Content-Length": "6"}) + b"one", "POST")
        peer.send(b"two")
        self.assertEqual(peer.reply.status, 204)
