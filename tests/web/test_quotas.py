"""Tests of quotas on every front: what is refused, what is slowed down, and who is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.protocols.policies import WrappingFactory

from durable_streams.server.config.settings import Settings
from durable_streams.server.identity.quotas import Quotas, ScopeQuotas
from durable_streams.server.identity.rates import Account, Rate
from durable_streams.server.web.callers import NOBODY
from durable_streams.server.web.http2.errors import ErrorCode
from durable_streams.server.web.metering import Pacer
from durable_streams.server.web.proxies import Proxies
from durable_streams.server.web.quotas import RequestQuotas
from tests.support.cases import TEXT, FrontTestCase, each_way, get
from tests.support.fronts import BASE, ChannelFront, Front, Peer, SiteFront, request
from tests.support.gates import GateTestCase, bearer
from tests.support.http2 import Http2Front, Http2Peer
from tests.support.replies import read_replies

NONE = ScopeQuotas()


class QuotaTestCase(FrontTestCase):
    """A test case with a front that limits how much is done."""

    def limit(self, address: ScopeQuotas = NONE, principal: ScopeQuotas = NONE) -> Quotas:
        """Limit how much is done from now on."""
        quotas = Quotas(address, principal, self.front.clock.seconds)
        self.requests = RequestQuotas(quotas, self.front.operations.live.clock, self.front.streams)
        self.front.operations.limit(self.requests)
        return quotas

    @property
    def pacer(self) -> Pacer:
        return self.requests._pacer

    def held(self, quotas: Quotas) -> int:
        """Return how many accounts have something under way."""
        return len(quotas.by_address.ledger._held) + len(quotas.by_principal.ledger._held)


@each_way
class RequestQuotaTests(QuotaTestCase):
    def test_requests_over_the_rate_are_429_with_the_fields(self) -> None:
        self.front.create("a", body=b"data")
        quotas = self.limit(ScopeQuotas(Rate(0.1, 2)))
        self.assertEqual([200, 200], [self.front.ask("GET", BASE + "a").status for _ in range(2)])
        reply = self.front.ask("GET", BASE + "a")
        self.assertEqual((429, "RATE_LIMITED"), (reply.status, reply.code))
        self.assertEqual("10", reply.get("retry-after"))
        self.assertEqual('"requests-by-address";q=2;w=20', reply.get("ratelimit-policy"))
        self.assertEqual('"requests-by-address";r=0;t=10', reply.get("ratelimit"))
        self.assertEqual(["requests-by-address"], reply.json()["violated-policies"])
        self.assertIn("quotas.address.requests_per_sec", reply.json()["detail"])
        self.assertEqual("*", reply.get("access-control-allow-origin"))
        self.assertEqual(1, quotas.all()[0].refusals)
        self.front.pass_time(10.5, 10.5)
        self.assertEqual(200, self.front.ask("GET", BASE + "a").status)

    def test_a_refused_write_is_not_performed(self) -> None:
        self.front.create("a", body=b"data")
        self.limit(ScopeQuotas(Rate(0.1, 1)))
        self.assertEqual(204, self.front.ask("POST", BASE + "a", TEXT, b"+").status)
        for method in ("POST", "PUT", "DELETE"):
            self.assertEqual(429, self.front.ask(method, BASE + "a", TEXT, b"!").status)
        self.front.operations.gate = None
        self.assertEqual(b"data+", bytes(self.front.ask("GET", BASE + "a").body))

    def test_a_client_that_has_little_left_is_told(self) -> None:
        self.front.create("a", body=b"data")
        self.limit(ScopeQuotas(Rate(1, 10)))
        said = [self.front.ask("GET", BASE + "a").get("ratelimit") for _ in range(10)]
        self.assertEqual([None] * 8, said[:8])
        self.assertEqual(['"requests-by-address";r=1;t=9', '"requests-by-address";r=0;t=10'], said[8:])

    def test_an_answer_that_a_cache_may_keep_does_not_say_what_is_left(self) -> None:
        self.front.create("a", body=b"data")
        self.front.operations.answers._caching = b"Cache-Control: public\r\n"
        self.limit(ScopeQuotas(Rate(0.1, 1)))
        reply = self.front.ask("GET", BASE + "a")
        self.assertEqual(("public", None), (reply.get("cache-control"), reply.get("ratelimit")))

    def test_bytes_in_are_debts_that_delay_the_next_write(self) -> None:
        self.front.create("a")
        self.limit(ScopeQuotas(bytes_in=Rate(100, 100)))
        self.assertEqual(204, self.front.ask("POST", BASE + "a", TEXT, b"x" * 1100).status)
        reply = self.front.ask("POST", BASE + "a", TEXT, b"x")
        self.assertEqual((429, "10"), (reply.status, reply.get("retry-after")))
        self.assertEqual(200, self.front.ask("GET", BASE + "a").status)
        self.front.pass_time(11, 11)
        self.assertEqual(204, self.front.ask("POST", BASE + "a", TEXT, b"x").status)

    def test_bytes_out_are_debts_that_delay_the_next_read(self) -> None:
        self.front.create("a", body=b"x" * 1100)
        self.limit(ScopeQuotas(bytes_out=Rate(100, 100)))
        self.assertEqual(1100, len(self.front.ask("GET", BASE + "a").body))
        reply = self.front.ask("GET", BASE + "a")
        self.assertEqual((429, "10"), (reply.status, reply.get("retry-after")))
        self.assertEqual(204, self.front.ask("POST", BASE + "a", TEXT, b"x").status)

    def test_creations_are_counted_if_they_create(self) -> None:
        quotas = self.limit(principal=ScopeQuotas(creations=Rate(2 / 3600, 2)))
        self.assertEqual(201, self.front.ask("PUT", BASE + "a", TEXT).status)
        for _ in range(3):
            self.assertEqual(200, self.front.ask("PUT", BASE + "a", TEXT).status)
        self.assertEqual(201, self.front.ask("PUT", BASE + "b", TEXT).status)
        reply = self.front.ask("PUT", BASE + "c", TEXT)
        self.assertEqual(429, reply.status)
        self.assertEqual('"creations-by-principal";q=2;w=3600', reply.get("ratelimit-policy"))
        self.assertEqual(0, self.held(quotas))

    def test_setting_the_wall_clock_neither_refills_nor_empties_a_bucket(self) -> None:
        self.front.create("a")
        self.limit(ScopeQuotas(Rate(0.1, 2)))
        statuses = []
        for step in (0, 7200, -7200, -86_400):
            self.front.clock.step(step)
            statuses.append(self.front.ask("GET", BASE + "a").status)
        self.assertEqual([200, 200, 429, 429], statuses)
        self.front.pass_time(11, 11)
        self.assertEqual(200, self.front.ask("GET", BASE + "a").status)

    def test_live_reads_are_counted_until_they_end(self) -> None:
        self.front.create("a")
        quotas = self.limit(ScopeQuotas(live_reads=2))
        tail = self.front.follow(BASE + "a?offset=now&live=sse")
        poll = self.front.follow(BASE + "a?offset=now&live=long-poll")
        self.front.pass_time(1)
        self.assertEqual(429, self.front.ask("GET", BASE + "a?offset=now&live=sse").status)
        self.assertEqual(200, self.front.ask("GET", BASE + "a").status)
        self.front.append("a", b"data")
        self.front.pass_time(1)
        self.assertEqual(200, poll.reply.status)
        again = self.front.follow(BASE + "a?offset=now&live=long-poll")
        self.front.pass_time(1)
        self.assertEqual(429, self.front.ask("GET", BASE + "a?offset=now&live=sse").status)
        tail.leave()
        again.leave()
        self.front.pass_time(1)
        self.assertEqual(0, self.held(quotas))
        self.assertEqual(200, self.front.follow(BASE + "a?offset=now&live=sse").reply.status)

    def test_a_download_is_slowed_down_to_the_rate(self) -> None:
        self.front.create("a", body=b"x" * 1_000_000)
        quotas = self.limit(ScopeQuotas(bytes_out=Rate(100_000, 200_000)))
        peer = self.front.follow(BASE + "a")
        self.front.pass_time(1)
        self.assertLess(len(peer.reply.body), 500_000)
        self.assertEqual(1, len(self.pacer))
        self.front.pass_time(4)
        self.assertLess(len(peer.reply.body), 1_000_000)
        self.front.pass_time(6)
        self.assertEqual(1_000_000, len(peer.reply.body))
        self.assertTrue(peer.reply.complete)
        self.assertEqual(0, len(self.pacer))
        self.assertEqual(0, self.held(quotas))
        self.assertGreater(quotas.all()[0].delays, 0)

    def test_tails_of_one_account_share_the_rate_in_turn(self) -> None:
        self.front.create("a")
        quotas = self.limit(ScopeQuotas(bytes_out=Rate(1_000, 1_000)))
        tails = [self.front.follow(BASE + "a?offset=now&live=sse") for _ in range(3)]
        sent = b""
        for letter in b"abcdefgh":
            piece = bytes([letter]) * 1000
            self.front.append("a", piece)
            sent += piece
            self.front.pass_time(1)
        received = [sum(tail.reply.body.count(bytes([letter])) for letter in b"bcdfgh") for tail in tails]
        self.assertLess(sum(received), 14_000)
        self.front.pass_time(40)
        for tail in tails:
            data = "".join(event.data for event in tail.events if event.kind == "data")
            self.assertEqual(sent.decode(), data)
        self.assertEqual(3, self.held(quotas) * 3)

    def test_a_body_that_waits_for_its_quota_ends_with_its_client(self) -> None:
        self.front.create("a", body=b"x" * 1_000_000)
        quotas = self.limit(ScopeQuotas(bytes_out=Rate(1_000, 1_000)))
        peer = self.front.follow(BASE + "a")
        self.front.pass_time(1)
        self.assertEqual(1, len(self.pacer))
        peer.reset()
        self.front.pass_time(1)
        self.assertEqual((0, 0), (len(self.pacer), self.held(quotas)))

    def test_what_waits_for_its_quota_is_sent_when_the_service_drains(self) -> None:
        self.front.create("a", body=b"x" * 500_000)
        quotas = self.limit(ScopeQuotas(bytes_out=Rate(100, 100)))
        download = self.front.follow(BASE + "a")
        self.front.pass_time(1)
        tail = self.front.follow(BASE + "a?offset=now&live=sse")
        self.front.pass_time(1)
        self.assertEqual([429], tail.statuses)
        self.assertFalse(download.reply.complete)
        self.front.streams.drain()
        self.front.pass_time(3)
        self.assertEqual((True, 500_000), (download.reply.complete, len(download.reply.body)))
        self.assertEqual((0, 0), (len(self.pacer), self.held(quotas)))


class ReleaseTests(QuotaTestCase):
    """Whatever clients do, nothing of theirs is counted as under way when they have gone."""

    queries = ("?offset=now&live=sse", "?offset=now&live=long-poll", "?offset=-1&live=sse", "", "?offset=-1")

    @given(
        st.sampled_from([(ChannelFront, False), (ChannelFront, True), (SiteFront, True), (Http2Front, True)]),
        st.lists(st.tuples(st.sampled_from(["follow", "append", "leave", "reset", "wait", "put"]), st.integers(0, 9))),
    )
    @settings(max_examples=60, deadline=None)
    def test_accounts_are_released(self, way: tuple[type[Front], bool], steps: list[tuple[str, int]]) -> None:
        front_type, late = way
        self.front = front_type(self.settings, late)
        self.front.create("a", body=b"x" * 300_000)
        count = ScopeQuotas(Rate(5, 20), Rate(1_000, 20_000), Rate(50_000, 100_000), Rate(1, 2), None, None, 3)
        quotas = self.limit(count, count)
        peers = []
        for action, number in steps:
            if action == "follow":
                peers.append(self.front.follow(BASE + "a" + self.queries[number % 5]))
            elif action == "append":
                self.front.ask("POST", BASE + "a", TEXT, b"y" * 1000 * number)
            elif action == "put":
                self.front.ask("PUT", BASE + f"b{number}", TEXT)
            elif action == "wait":
                self.front.pass_time(number / 4)
            elif peers:
                peer = peers.pop(number % len(peers))
                peer.leave() if action == "leave" else peer.reset()
                self.front.peers.remove(peer)
        for peer in peers:
            peer.reset()
        # That a client has gone shows when the next piece is sent to it, which may have to wait for its quota.
        self.front.pass_time(60, 1)
        self.assertEqual((0, 0), (self.held(quotas), len(self.pacer)))
        self.front.stop()


class ProxyTests(QuotaTestCase):
    settings = Settings.from_mapping(
        {
            "proxy.enabled": True,
            "proxy.forwarded_headers": "x-forwarded",
            "proxy.trusted_proxies": ["127.0.0.1", "10.0.0.0/8", "192.0.2.0/24"],
        }
    )

    def ask_for(self, client: str) -> int:
        return self.front.ask("GET", BASE + "a", {"X-Forwarded-For": client}).status

    def test_the_client_that_a_trusted_proxy_names_is_counted_and_never_the_proxy(self) -> None:
        self.front.create("a", body=b"data")
        self.limit(ScopeQuotas(Rate(0.1, 1)))
        self.assertEqual([200, 429], [self.ask_for("203.0.113.1") for _ in range(2)])
        self.assertEqual([200, 429], [self.ask_for("203.0.113.2") for _ in range(2)])

    def test_the_connection_of_a_proxy_is_not_closed_because_of_one_client(self) -> None:
        self.limit(ScopeQuotas(Rate(0.1, 1)))
        peer = self.front.connect()
        flood = request("GET", BASE + "a", {"X-Forwarded-For": "203.0.113.1"})
        other = request("GET", BASE + "a", {"X-Forwarded-For": "203.0.113.2"})
        peer.send(flood * 200 + other, *["GET"] * 201)
        self.front.settle()
        self.assertEqual([404, *[429] * 199, 404], peer.statuses)

    def test_ipv6_clients_are_counted_by_their_network(self) -> None:
        self.front.create("a", body=b"data")
        self.limit(ScopeQuotas(Rate(0.1, 1)))
        self.assertEqual(
            [200, 429, 200], [self.ask_for(client) for client in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1")]
        )


class EarlyTests(QuotaTestCase):
    front_type = ChannelFront

    def test_a_request_over_its_quota_is_refused_before_its_body_and_without_100_continue(self) -> None:
        self.front.create("a")
        self.limit(ScopeQuotas(Rate(0.1, 1), Rate(1, 1)))
        self.front.ask("GET", BASE + "a")
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {**TEXT, "Content-Length": "100000", "Expect": "100-continue"}), "POST")
        self.assertEqual(([], [429], "close"), (peer.interim, peer.statuses, peer.reply.get("connection")))

    def test_debts_refuse_a_body_before_it_arrives(self) -> None:
        self.front.create("a")
        self.limit(principal=ScopeQuotas(bytes_in=Rate(1, 1)))
        self.front.ask("POST", BASE + "a", TEXT, b"x" * 50)
        peer = self.front.connect()
        peer.send(request("POST", BASE + "a", {**TEXT, "Content-Length": "100000"}), "POST")
        self.assertEqual(["49"], [reply.get("retry-after") for reply in peer.replies])


class ConnectionTests(FrontTestCase):
    settings = Settings.from_mapping({"quotas.address.max_connections": 2})

    def test_connections_over_the_quota_are_answered_and_closed_at_once(self) -> None:
        first, second = self.front.connect(), self.front.connect()
        third = self.front.connect()
        third.send_unseen(b"")
        self.assertTrue(third.closed)
        reply = read_replies(bytes(third.received), "GET")[0]
        self.assertEqual((429, "close"), (reply.status, reply.get("connection")))
        self.assertEqual('"connections-by-address";q=2;qu="concurrent-requests"', reply.get("ratelimit-policy"))
        self.assertIsNotNone(reply.get("date"))
        self.assertEqual((2, 1), (self.front.channels.connections, self.front.channels.refused))
        first.leave()
        self.front.settle()
        self.assertEqual(404, self.front.ask("GET", BASE + "none").status)
        second.leave()
        self.front.settle()
        self.assert_nothing_is_held()

    def assert_nothing_is_held(self) -> None:
        quotas = self.front.operations.quotas
        assert quotas is not None
        self.assertEqual({}, quotas.quotas.by_address.ledger._held)
        self.assertEqual({}, self.front.channels._accounts)


class ConnectionRateTests(FrontTestCase):
    settings = Settings.from_mapping({"quotas.address.connections_per_sec": 1, "quotas.address.connection_burst": 3})

    def test_connections_that_are_opened_too_fast_are_closed_at_once(self) -> None:
        self.assertEqual([404] * 3, [self.front.ask("GET", BASE + "none").status for _ in range(3)])
        peer = self.front.connect()
        peer.send_unseen(b"")
        self.assertTrue(peer.closed)
        reply = read_replies(bytes(peer.received), "GET")[0]
        self.assertEqual((429, "1"), (reply.status, reply.get("retry-after")))
        self.front.pass_time(1.5)
        self.assertEqual(404, self.front.ask("GET", BASE + "none").status)


class FloodTests(FrontTestCase):
    settings = Settings.from_mapping({"quotas.address.requests_per_sec": 1, "quotas.address.request_burst": 1})

    def test_a_connection_with_too_many_refusals_in_a_second_is_closed(self) -> None:
        peer = self.front.connect()
        peer.send(get("a") * 200, *["GET"] * 200)
        self.front.settle()
        self.assertEqual([404, *[429] * 101], peer.statuses)
        self.assertEqual("close", peer.replies[-1].get("connection"))
        self.assertIsNone(peer.replies[-2].get("connection"))

    def test_refusals_that_are_spread_over_time_close_nothing(self) -> None:
        peer = self.front.connect()
        for _ in range(3):
            peer.send(get("a") * 90, *["GET"] * 90)
            self.front.pass_time(1)
        self.assertEqual(270, len(peer.statuses))
        self.assertFalse(peer.closed)


class FloodOverHttp2Tests(FrontTestCase):
    settings = FloodTests.settings
    front_type = Http2Front

    def test_a_connection_with_too_many_refusals_in_a_second_is_ended(self) -> None:
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        for _ in range(150):
            if peer.goodbye is None:
                peer.ask("GET", BASE + "a")
                self.front.settle()
        self.assertEqual({404: 1, 429: 101}, dict(Counter(peer.statuses)))
        assert peer.goodbye is not None
        self.assertEqual(ErrorCode.ENHANCE_YOUR_CALM, peer.goodbye[0])


class ConnectionOverHttp2Tests(ConnectionTests):
    front_type = Http2Front

    def test_connections_over_the_quota_are_answered_and_closed_at_once(self) -> None:
        """Over TLS they are closed before a handshake."""
        first, second = self.front.connect(), self.front.connect()
        protocol = self.front.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        assert protocol is not None
        transport = StringTransportWithDisconnection()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        self.assertFalse(transport.connected)
        # An alert, which an abort of a socket drops.
        self.assertLess(len(transport.value()), 8)
        self.assertEqual(0, self.front.channels.handshake_failures.count)
        first.leave()
        second.leave()
        self.front.settle()
        self.assert_nothing_is_held()
        self.assertEqual(404, self.front.ask("GET", BASE + "none").status)
        self.assert_nothing_is_held()


class TrustedConnectionTests(FrontTestCase):
    settings = Settings.from_mapping(
        {
            "quotas.address.max_connections": 1,
            "proxy.enabled": True,
            "proxy.forwarded_headers": "x-forwarded",
            "proxy.trusted_proxies": ["127.0.0.1", "192.0.2.0/24"],
        }
    )

    def test_connections_of_trusted_proxies_are_not_counted(self) -> None:
        peers = [self.front.connect() for _ in range(4)]
        self.assertEqual(4, self.front.channels.connections)
        self.assertEqual([False] * 4, [peer.closed for peer in peers])

    def test_a_client_that_is_known_later_is_counted_then(self) -> None:
        factory = self.front.channels
        factory.operations.proxies = Proxies()
        statuses = []
        for _ in range(2):
            skt, transport = self.front.network.accept(UnknownPeers(factory))
            peer = Peer(self.front.network, skt, transport, True)
            self.front.peers.append(peer)
            peer.send(get("none"))
            statuses.append(peer.reply.status)
        self.assertEqual([404, 429], statuses)
        self.assertEqual(1, len(factory._accounts))


class UnknownPeers(WrappingFactory):
    """A factory whose connections are those of a proxy, until it has said who the client is."""

    def buildProtocol(self, addr: object) -> Any:
        return self.protocol(self, self.wrappedFactory.buildProtocol(None))


class IncomingTests(FrontTestCase):
    settings = Settings.from_mapping(
        {
            "quotas.address.max_incoming_bytes": 100_000,
            "limits.max_request_body_bytes": 100_000,
            "quotas.address.bytes_in_per_sec": 1_000,
            "quotas.address.bytes_in_burst": 1_000_000,
            "limits.max_incoming_bytes": 150_000,
        }
    )

    def begin(self, size: int, length: int | None = 100_000) -> Peer:
        """Begin to send a body; None for one whose length is not known."""
        peer = self.front.connect()
        if length is None:
            head = request("POST", BASE + "a", {**TEXT, "Transfer-Encoding": "chunked"})
            peer.send(head, "POST")
        else:
            peer.send(request("POST", BASE + "a", {**TEXT, "Content-Length": str(length)}), "POST")
        self.send(peer, size, length is None)
        return peer

    def send(self, peer: Peer, size: int, is_chunk: bool = False) -> None:
        peer.send(b"%x\r\n%b\r\n" % (size, b"x" * size) if is_chunk and size else b"x" * size)

    def accounts(self) -> dict[str, Account]:
        quotas = self.front.operations.quotas
        assert quotas is not None
        return quotas.quotas.by_address.ledger._held

    def test_bodies_over_the_quota_of_their_address_are_refused_and_the_others_arrive(self) -> None:
        self.front.create("a")
        first = self.begin(60_000)
        second = self.begin(30_000, None)
        self.assertEqual(([], []), (first.replies, second.replies))
        self.send(second, 20_000, True)
        self.assertEqual((429, ["incoming-bytes-by-address"]), self.refusal(second))
        self.send(first, 40_000)
        self.assertEqual(204, first.reply.status)
        self.assertEqual({}, self.accounts())
        self.assertEqual(0, self.front.channels.admission(NOBODY).incoming.size)

    def refusal(self, peer: Peer) -> tuple[int, list[str]]:
        return peer.reply.status, peer.reply.json()["violated-policies"]

    def test_a_body_that_has_no_room_is_refused_before_it_arrives(self) -> None:
        peer = self.begin(60_000)
        with_room, without_room = self.begin(0, 30_000), self.begin(0, 50_000)
        self.assertEqual([], with_room.replies)
        self.assertEqual((429, ["incoming-bytes-by-address"]), self.refusal(without_room))
        peer.leave()

    def test_a_body_that_is_broken_off_is_charged_and_its_room_is_given_back(self) -> None:
        self.front.create("a")
        for _ in range(11):
            self.begin(95_000).leave()
            self.front.settle()
        self.assertEqual({}, self.accounts())
        self.assertEqual(429, self.begin(0).reply.status)


class IncomingOverHttp2Tests(IncomingTests):
    front_type = Http2Front

    def begin(self, size: int, length: int | None = 100_000) -> Peer:
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        headers = TEXT if length is None else {**TEXT, "Content-Length": str(length)}
        self.begun[peer] = peer.begin("POST", BASE + "a", headers, is_all=False)
        self.send(peer, size)
        return peer

    def send(self, peer: Peer, size: int, is_chunk: bool = False) -> None:
        assert isinstance(peer, Http2Peer)
        self.sent[peer] = self.sent.get(peer, 0) + size
        peer.upload(self.begun[peer], b"x" * size, is_all=self.sent[peer] == 100_000)
        peer.pass_on()

    def setUp(self) -> None:
        super().setUp()
        self.begun: dict[Peer, int] = {}
        self.sent: dict[Peer, int] = {}


class OverloadTests(FrontTestCase):
    settings = Settings.from_mapping({"limits.max_incoming_bytes": 150_000, "limits.max_request_body_bytes": 100_000})

    def test_a_body_is_refused_before_it_arrives_if_there_is_no_room_for_it(self) -> None:
        self.front.create("a")
        peers = [self.front.connect() for _ in range(2)]
        for peer in peers:
            head = request("POST", BASE + "a", {**TEXT, "Content-Length": "100000", "Expect": "100-continue"})
            peer.send(head, "POST")
            peer.send(b"x" * 60_000)
        self.assertEqual([[100], []], [peer.interim for peer in peers])
        self.assertEqual([[], [503]], [peer.statuses for peer in peers])
        peers[0].send(b"x" * 40_000)
        self.assertEqual(204, peers[0].reply.status)


class PageTests(FrontTestCase):
    settings = Settings.from_mapping({"quotas.address.requests_per_sec": 1, "quotas.address.request_burst": 2})

    def setUp(self) -> None:
        super().setUp()
        self.front.pages.quotas = self.front.operations.quotas

    def test_pages_are_counted_and_probes_are_not(self) -> None:
        self.assertEqual([404, 404, 429], [self.front.ask("GET", "/nothing").status for _ in range(3)])
        self.assertEqual(
            [200] * 3, [self.front.ask("GET", path).status for path in ("/healthz", "/readyz", "/metrics")]
        )


@each_way
class PrincipalQuotaTests(GateTestCase):
    def limit(self, address: ScopeQuotas = NONE, principal: ScopeQuotas = NONE) -> Quotas:
        quotas = Quotas(address, principal, self.front.clock.seconds)
        self.gate.limit(RequestQuotas(quotas, self.front.operations.live.clock, self.front.streams))
        return quotas

    def test_one_principal_over_its_rate_leaves_the_others_theirs(self) -> None:
        self.limit(principal=ScopeQuotas(Rate(0.1, 2)))
        statuses = [self.ask("GET", "public/p", "alice").status for _ in range(4)]
        self.assertEqual([200, 200, 429, 429], statuses)
        self.assertEqual([200, 200], [self.ask("GET", "public/p", "bob").status for _ in range(2)])

    def test_failed_authentications_are_refused_before_they_are_checked(self) -> None:
        quotas = self.limit(ScopeQuotas(failures=Rate(0.1, 2)))
        statuses = [self.ask("GET", "public/p", f"guess-{number}").status for number in range(4)]
        self.assertEqual([401, 401, 429, 429], statuses)
        self.assertEqual(2, quotas.all()[0].refusals)
        self.front.pass_time(11, 11)
        self.assertEqual(200, self.ask("GET", "public/p", "alice").status)

    def test_requests_without_credentials_are_no_failed_authentications(self) -> None:
        self.limit(ScopeQuotas(failures=Rate(0.1, 1)))
        self.assertEqual([401] * 3, [self.ask("GET", "alice/a").status for _ in range(3)])

    def test_a_tail_whose_principal_is_revoked_while_it_waits_for_its_quota_ends(self) -> None:
        quotas = self.limit(principal=ScopeQuotas(bytes_out=Rate(100, 100)))
        peer = self.front.follow(BASE + "alice/a?offset=-1&live=sse", bearer("alice"))
        self.ask("POST", "alice/a", "owner", TEXT, b"x" * 1000)
        self.front.pass_time(1)
        self.ask("POST", "alice/a", "owner", TEXT, b"y" * 1000)
        self.front.pass_time(1)
        self.control.set_rules("allow subject:owner all **")
        self.front.pass_time(2)
        self.assertTrue(peer.reply.complete)
        self.assertEqual({}, quotas.by_principal.ledger._held)
