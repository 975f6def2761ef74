"""Tests that no spelling of a request goes around the gate, and that what is refused does not touch storage."""

from __future__ import annotations

from typing import Any, Final, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.errors import StreamNotFound
from durable_streams.server.model import StreamConfig
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.requests import stream_request
from tests.support.cases import TEXT
from tests.support.fronts import BASE, ChannelFront, Front, Headers, Peer, SiteFront, request
from tests.support.gates import GateTestCase, bearer
from tests.support.http2 import Http2Front, Http2Peer
from tests.support.identities import Control, TokenBook, person
from tests.support.late_storage import LateStorage

#: What bob may not read, in every spelling that some reader may take for it.
SPELLINGS: Final = (
    *(
        "secret/s",
        "secret%2Fs",
        "secret%2fs",
        "%73ecret/s",
        "%73%65%63%72%65%74/%73",
        "secret/s?",
        "secret/s?offset=-1",
    ),
    *("secret/s?offset=-1", "secret/s?offset=now", "secret/s?offset=-1&live=sse", "secret/s?offset=-1&live=long-poll"),
    *("/secret/s", "%2Fsecret/s", "./secret/s", "%2e/secret/s", "bob/../secret/s", "bob/%2e%2e/secret/s"),
    *("bob%2f..%2fsecret%2fs", "secret/s/", "secret//s", "secret/./s", "secret/s/.", "secret/s/../s", "secret%252Fs"),
    *("secret\\s", "secret;x/s", "secret/s;x", "secret/s%00", "secret/s%20", "SECRET/s", "secret/s%3Foffset=-1"),
    *(
        "__ds/../secret/s",
        "__ds%2F..%2Fsecret/s",
        "%5f%5fds/subscriptions/x",
        "__ds",
        "__ds/jwks.json",
        "secret%c0%afs",
    ),
)

#: Headers by which some servers let a client name another method, target or user.
OVERRIDES: Final[dict[str, str]] = {
    "X-HTTP-Method-Override": "DELETE",
    "X-HTTP-Method": "DELETE",
    "X-Method-Override": "DELETE",
    "X-Original-URL": BASE + "secret/s",
    "X-Rewrite-URL": BASE + "secret/s",
    "X-Forwarded-Path": BASE + "secret/s",
    "X-Forwarded-User": "owner",
    "X-Forwarded-For": "127.0.0.1",
    "X-Real-IP": "127.0.0.1",
    "Remote-User": "owner",
    "Proxy-Authorization": "Bearer owner",
    "X-Authorization": "Bearer owner",
    "Cookie": "access_token=owner; Authorization=Bearer owner",
}

#: The calls of storage that a request for a stream may make.
TOUCHING: Final = frozenset(["create", "append", "read", "read_range", "status", "record", "delete", "install"])


class BypassTestCase(GateTestCase):
    """A test case in which bob may use only what is his, with a storage that records its calls."""

    late = True
    rules = ("allow subject:bob all bob/**", "allow anyone read public/**", "allow subject:owner all **")
    streams = {"secret/s": b"the secret", "public/p": b"hello", "bob/b": b"hello"}  # noqa: RUF012 (not changed)
    methods = ("GET", "HEAD", "PUT", "POST", "DELETE", "get", "Delete", "PATCH", "QUERY", "TRACE", "PROPFIND")

    def setUp(self) -> None:
        super().setUp()
        assert isinstance(self.front.storage, LateStorage)
        self.calls = self.front.storage.calls
        self.calls.clear()

    def touched(self) -> list[str]:
        """Return the calls of storage since the last time."""
        calls = [call for call in self.calls if call in TOUCHING]
        self.calls.clear()
        return calls

    def assert_refused(self, peer: Peer, what: object) -> None:
        """Assert that no request on a connection was performed, and end it."""
        self.front.pass_time(0.01, 0.01)
        self.assertEqual(self.touched(), [], what)
        self.assertNotIn(b"the secret", bytes(peer.received), what)
        for reply in peer.replies:
            self.assertIn(reply.status, (400, 401, 403, 404, 405), what)
        peer.leave()


class RawTests(BypassTestCase):
    front_type: type[Front] = ChannelFront

    def test_no_spelling_of_a_forbidden_name_reaches_storage(self) -> None:
        for spelling in SPELLINGS:
            for method in self.methods:
                for target in (BASE + spelling, "http://streams.example" + BASE + spelling):
                    peer = self.front.connect(read_replies=False)
                    body = b"" if method in ("GET", "HEAD", "get", "DELETE") else b"x"
                    peer.send(request(method, target, {**TEXT, **bearer("bob")}, body))
                    self.front.pass_time(0.01, 0.01)
                    what = method, target
                    self.assertEqual(self.touched(), [], what)
                    self.assertNotIn(b"the secret", bytes(peer.received), what)
                    self.assertNotIn(b" 200 ", bytes(peer.received[:20]), what)
                    self.assertNotIn(b" 204 ", bytes(peer.received[:20]), what)
                    peer.leave()
        self.assertEqual(bytes(self.ask("GET", "secret/s", "owner").body), b"the secret")

    def test_no_path_beside_the_base_path_reaches_storage(self) -> None:
        for path in (
            "/v1/../v1/stream/secret/s",
            "//v1/stream/secret/s",
            "/v1//stream/secret/s",
            "/V1/stream/secret/s",
        ):
            peer = self.front.connect(read_replies=False)
            peer.send(request("GET", path, bearer("bob")))
            self.front.pass_time(0.01, 0.01)
            self.assertEqual(self.touched(), [], path)
            self.assertNotIn(b"the secret", bytes(peer.received))
            peer.leave()

    def test_a_target_of_another_host_is_decided_as_the_servers_own(self) -> None:
        for target, host in (
            (BASE + "secret/s", "public"),
            ("http://a" + BASE + "secret/s", "a"),
            ("HTTP://A:80" + BASE + "secret/s", "a"),
            ("http://bob" + BASE + "secret/s", "owner"),
        ):
            peer = self.front.connect(read_replies=False)
            peer.send(request("GET", target, {"Host": host, **bearer("bob")}))
            self.front.pass_time(0.01, 0.01)
            self.assertEqual(self.touched(), [], (target, host))
            peer.leave()


class RawOnSiteTests(RawTests):
    front_type: type[Front] = SiteFront


class OverHttp2Tests(BypassTestCase):
    front_type: type[Front] = Http2Front

    def test_no_spelling_of_a_forbidden_name_reaches_storage(self) -> None:
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        for spelling in SPELLINGS:
            for method in self.methods:
                stream = peer.ask(method, BASE + spelling, {**TEXT, **bearer("bob")})
                self.front.pass_time(0.01, 0.01)
                what = method, spelling
                self.assertEqual(self.touched(), [], what)
                reply = peer.streams.get(stream)
                if reply is not None:
                    self.assertIn(reply.status, (400, 403, 404, 405), what)
                    self.assertNotIn(b"the secret", bytes(reply.body), what)

    def test_an_authority_does_not_change_what_is_decided(self) -> None:
        for authority in ("public", "streams.example/v1/stream/public/p?", "owner@streams.example"):
            reply = self.ask("GET", "secret/s", "bob", {"Host": authority})
            self.assertIn(reply.status, (400, 403), authority)
            self.assertEqual(self.touched(), [])

    def test_requests_of_one_connection_are_decided_by_their_own_credentials(self) -> None:
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        tokens = ("owner", "bob", None, "owner", None, "nonsense", "bob")
        for token in tokens:
            peer.begin("GET", BASE + "secret/s", bearer(token))
        peer.pass_on()
        self.front.pass_time(0.5)
        statuses = {"owner": 200, "bob": 403, None: 401, "nonsense": 401}
        self.assertEqual([reply.status for reply in peer.replies], [statuses[token] for token in tokens])


class SameFrontTests(BypassTestCase):
    """Tests on the daemon's HTTP/1.1 that concern connections."""

    front_type: type[Front] = ChannelFront
    statuses: Final = {"owner": 200, "bob": 403, None: 401, "nonsense": 401}

    def test_requests_of_one_packet_are_decided_by_their_own_credentials(self) -> None:
        tokens = ("owner", "bob", None, "owner", "nonsense", "owner", None, "bob") * 3
        peer = self.front.connect()
        peer.send(
            b"".join(request("GET", BASE + "secret/s", bearer(token)) for token in tokens), *["GET"] * len(tokens)
        )
        self.front.pass_time(1)
        self.assertEqual(peer.statuses, [self.statuses[token] for token in tokens])

    def test_known_headers_with_other_credentials_are_decided_by_these(self) -> None:
        peer = self.front.connect()
        tokens = ("owner", "owner", "owner", "bob", "bob", "bob", "owner", None, None, None, "owner", "nonsense") * 2
        for token in tokens:
            peer.send(request("GET", BASE + "secret/s", bearer(token)), "GET")
            self.front.pass_time(0.1)
        self.assertEqual(peer.statuses, [self.statuses[token] for token in tokens])

    def test_a_mixture_of_reads_and_writes_in_one_packet_is_decided_one_by_one(self) -> None:
        self.ask("HEAD", "bob/b", "bob")
        peer = self.front.connect()
        data = b"".join(
            [
                request("POST", BASE + "bob/b", {**TEXT, **bearer("bob")}, b"1"),
                request("POST", BASE + "secret/s", {**TEXT, **bearer("bob")}, b"2"),
                request("GET", BASE + "bob/b", bearer("bob")),
                request("DELETE", BASE + "secret/s", bearer("bob")),
                request("GET", BASE + "public/p"),
                request("DELETE", BASE + "secret/s", bearer("owner")),
                request("GET", BASE + "secret/s", bearer("owner")),
            ]
        )
        peer.send(data, "POST", "POST", "GET", "DELETE", "GET", "DELETE", "GET")
        self.front.pass_time(1)
        self.assertEqual(peer.statuses, [204, 403, 200, 403, 200, 204, 404])


class EverywhereTests(BypassTestCase):
    """Tests of single requests, on each front."""

    def test_headers_that_name_another_method_target_or_user_are_ignored(self) -> None:
        for name, value in OVERRIDES.items():
            reply = self.ask("POST", "public/p", None, {**TEXT, name: value}, b"x")
            self.assertEqual(reply.status, 401, name)
            self.assertEqual(self.touched(), [], name)
            self.assertEqual(bytes(self.ask("GET", "public/p", None, {name: value}).body), b"hello", name)
            self.touched()

    def test_parameters_that_name_another_method_or_a_token_are_ignored(self) -> None:
        for query in ("_method=DELETE", "access_token=owner", "token=owner", "Authorization=Bearer%20owner"):
            self.assertEqual(self.ask("GET", f"secret/s?{query}").status, 401)
            self.assertEqual(self.ask("POST", f"secret/s?{query}", "bob", TEXT, b"x").status, 403)
            self.assertEqual(self.touched(), [])

    def test_what_is_not_one_bearer_token_is_401(self) -> None:
        for value in (
            *(
                "owner",
                "Bearer",
                "Bearer ",
                "Bearer owner, Bearer bob",
                "Bearer owner bob",
                "Token owner",
                "Bearer\towner",
            ),
            *(
                "Basic b3duZXI6b3duZXI=",
                "Bearer owner;x",
                '"Bearer owner"',
                "Bearer b\xf6b",
                "Negotiate abc",
                "Bearer\towner",
            ),
        ):
            reply = self.ask("GET", "secret/s", None, {"Authorization": value})
            self.assertEqual(reply.status, 401, value)
            self.assertEqual(self.touched(), [], value)

    def test_a_condition_about_a_forbidden_stream_is_not_evaluated(self) -> None:
        tag = self.ask("GET", "secret/s", "owner").get("etag") or ""
        self.touched()
        for headers in (
            {"If-None-Match": tag},
            {"If-None-Match": "*"},
            {"Range": "bytes=0-0"},
            {"Last-Event-ID": "-1"},
        ):
            self.assertEqual(self.ask("GET", "secret/s", "bob", headers).status, 403)
            self.assertEqual(self.ask("HEAD", "secret/s", "bob", headers).status, 403)
        self.assertEqual(self.touched(), [])

    def test_an_empty_put_on_an_existing_stream_needs_create(self) -> None:
        self.assertEqual(self.ask("PUT", "secret/s", "bob", TEXT).status, 403)
        self.assertEqual(self.touched(), [])

    def test_existing_and_missing_forbidden_streams_are_answered_alike_without_storage(self) -> None:
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            replies = []
            for name in ("secret/s", "secret/t"):
                reply = self.ask(method, name, "bob", TEXT, b"x" if method in ("PUT", "POST") else b"")
                self.assertEqual(self.touched(), [], (method, name))
                fields = [(key, value) for key, value in reply.headers if key not in ("x-request-id", "date")]
                replies.append((reply.status, fields, bytes(reply.body).replace(name.encode(), b"NAME")))
            self.assertEqual(replies[0], replies[1], method)
            self.assertEqual(replies[0][0], 403)

    def test_a_fork_of_a_forbidden_source_is_refused_whether_it_exists_or_not(self) -> None:
        for source in ("secret/s", "secret/t", BASE + "secret/s", "%73ecret/s", BASE + "secret%2Fs", " secret/s "):
            for offset in ({}, {"Stream-Fork-Offset": "-1"}):
                headers: Headers = {"Stream-Forked-From": source, **offset}
                self.assertEqual(self.ask("PUT", "bob/fork", "bob", headers).status, 403, source)
                self.assertEqual(self.touched(), [], source)

    def test_a_malformed_request_for_a_forbidden_stream_is_refused_as_any_other(self) -> None:
        for method, query, headers in (
            ("GET", "?offset=nonsense", {}),
            ("GET", "?live=nonsense", {}),
            ("POST", "", {"Content-Type": "nonsense"}),
            ("PUT", "", {"Stream-TTL": "nonsense"}),
            ("PUT", "", {"Stream-Forked-From": "../x"}),
        ):
            self.assertEqual(self.ask(method, "secret/s" + query, "bob", headers, b"").status, 403, (method, query))
        self.assertEqual(self.touched(), [])


class EverywhereOnSiteTests(EverywhereTests):
    front_type: type[Front] = SiteFront


class EverywhereOverHttp2Tests(EverywhereTests):
    front_type: type[Front] = Http2Front


class DoubledHeaderTests(BypassTestCase):
    """Tests of two Authorization headers, which no front takes."""

    def test_two_authorization_headers_are_refused(self) -> None:
        for first, second in (("bob", "owner"), ("owner", "bob"), ("owner", "owner")):
            for name in (b"Authorization", b"authorization", b"AUTHORIZATION"):
                peer = self.front.connect()
                head = request("GET", BASE + "secret/s", bearer(first))
                doubled = head.replace(b"\r\n\r\n", b"\r\n%b: Bearer %b\r\n\r\n" % (name, second.encode()))
                for _ in range(3):
                    if not peer.closed:
                        peer.send(doubled, "GET")
                self.assertEqual({reply.status for reply in peer.replies}, {400})
                self.assert_refused(peer, (first, second))


class DoubledHeaderOnSiteTests(DoubledHeaderTests):
    front_type: type[Front] = SiteFront


class LateAuthenticationTests(BypassTestCase):
    """Tests of authentications that take time while a client sends more, or leaves."""

    front_type: type[Front] = ChannelFront

    def setUp(self) -> None:
        super().setUp()
        self.ask("HEAD", "bob/b", "bob")
        self.touched()
        self.pending: list[Deferred[None]] = []
        self.book.pending = self.pending

    def test_answers_keep_the_order_of_requests(self) -> None:
        peer = self.front.connect()
        peer.send(
            request("GET", BASE + "secret/s", bearer("owner"))
            + request("GET", BASE + "secret/s", bearer("bob"))
            + request("GET", BASE + "public/p"),
            *["GET"] * 3,
        )
        self.front.pass_time(0.5)
        self.assertEqual((peer.statuses, self.touched()), ([], []))
        self.pending.pop().callback(None)
        self.front.pass_time(0.5)
        self.assertEqual(peer.statuses, [200, 403, 200])
        self.assertEqual(bytes(peer.replies[0].body), b"the secret")

    def test_requests_with_the_same_token_wait_for_one_check(self) -> None:
        peers = [self.front.connect() for _ in range(5)]
        for peer in peers:
            peer.send_request("GET", BASE + "secret/s", bearer("owner"))
        self.assertEqual(len(self.pending), 1)
        self.pending.pop().callback(None)
        self.front.pass_time(0.5)
        self.assertEqual([peer.reply.status for peer in peers], [200] * 5)

    def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(self) -> None:
        peer = self.front.connect()
        peer.send(request("DELETE", BASE + "secret/s", bearer("owner")) * 2, "DELETE", "DELETE")
        peer.leave()
        self.front.pass_time(0.5)
        self.assertEqual((self.book.cancelled, self.touched(), len(self.gate.readers)), (1, [], 0))

    def test_a_live_read_whose_client_leaves_meanwhile_leaves_nothing_behind(self) -> None:
        for live in ("sse", "long-poll"):
            peer = self.front.follow(BASE + f"secret/s?offset=-1&live={live}", bearer("owner"))
            peer.leave()
            self.front.pass_time(0.5)
            self.assertEqual((self.touched(), len(self.gate.readers)), ([], 0))
        self.assertEqual(self.book.cancelled, 2)

    def test_another_client_with_the_token_is_answered_though_the_first_has_left(self) -> None:
        first, second = self.front.connect(), self.front.connect()
        for peer in (first, second):
            peer.send_request("GET", BASE + "secret/s", bearer("owner"))
        first.leave()
        self.pending.pop().callback(None)
        self.front.pass_time(0.5)
        self.assertEqual((second.reply.status, self.book.cancelled), (200, 0))

    def test_a_failed_check_refuses_each_request_that_waits_for_it(self) -> None:
        peers = [self.front.connect() for _ in range(3)]
        for peer in peers:
            peer.send_request("POST", BASE + "secret/s", {**TEXT, **bearer("nonsense")}, b"x")
        self.pending.pop().callback(None)
        self.front.pass_time(0.5)
        self.assertEqual([peer.reply.status for peer in peers], [401] * 3)
        self.assertEqual(self.touched(), [])

    def test_a_check_that_breaks_is_503_and_performs_nothing(self) -> None:
        peer = self.front.connect()
        peer.send_request("GET", BASE + "secret/s", bearer("owner"))
        self.pending.pop().errback(ZeroDivisionError())
        self.front.pass_time(0.5)
        self.assertEqual((peer.reply.status, self.touched()), (503, []))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_token_that_is_revoked_during_its_check_is_refused(self) -> None:
        peer = self.front.connect()
        peer.send_request("GET", BASE + "secret/s", bearer("owner"))
        self.control.revoke("owner")
        self.pending.pop().callback(None)
        self.front.pass_time(0.5)
        self.assertEqual((peer.reply.status, self.touched()), (401, []))


class LateAuthenticationOverHttp2Tests(BypassTestCase):
    front_type: type[Front] = Http2Front

    def test_a_check_delays_only_the_request_that_waits_for_it(self) -> None:
        self.ask("HEAD", "bob/b", "bob")
        pending: list[Deferred[None]] = []
        self.book.pending = pending
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        peer.ask("GET", BASE + "secret/s", bearer("owner"))
        peer.ask("GET", BASE + "bob/b", bearer("bob"))
        self.front.pass_time(0.5)
        self.assertEqual(peer.statuses, [200])
        pending.pop().callback(None)
        self.front.pass_time(0.5)
        self.assertEqual(peer.statuses, [200, 200])

    def test_a_reset_of_a_request_that_waits_for_a_check_performs_nothing(self) -> None:
        pending: list[Deferred[None]] = []
        self.book.pending = pending
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        stream = peer.ask("DELETE", BASE + "secret/s", bearer("owner"))
        self.touched()
        peer.h2.reset_stream(stream)
        peer.pass_on()
        self.front.pass_time(0.5)
        self.assertEqual((self.touched(), self.book.cancelled), ([], 1))


class RecordedStreams:
    """Records the name of each call of streams, and fails."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def _record(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.names.append(name)
        for argument in arguments:
            if isinstance(argument, StreamConfig) and argument.fork is not None:
                self.names.append(argument.fork.source)
        raise StreamNotFound(name)

    create = append = read = status = delete = _record


PATHS = st.lists(
    st.sampled_from(["secret", "bob", "s", "/", "%2F", ".", "..", "%2e", "%62ob", "__ds", "%", "%00", "\\", ";", "*"]),
    max_size=8,
).map("".join)


class AnyPathTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.front = ChannelFront()
        self.addCleanup(self.front.stop)
        clock = clock_of(self.front.clock)
        self.control = Control(TokenBook({"bob": person("bob")}), ("allow subject:bob all bob/**",), clock)
        self.addCleanup(self.control.authentication.close)
        self.front.operations.guard(self.control)
        self.recorded = RecordedStreams()
        self.front.operations.streams = cast(Any, self.recorded)

    @given(st.sampled_from([b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"PATCH"]), PATHS, PATHS, st.booleans())
    def test_only_names_that_are_allowed_reach_the_streams(
        self, method: bytes, path: str, source: str, closed: bool
    ) -> None:
        self.recorded.names.clear()
        headers = {b"authorization": b"Bearer bob", b"content-type": b"text/plain"}
        if source:
            headers[b"stream-forked-from"] = source.encode()
        if closed:
            headers[b"stream-closed"] = b"true"
        asked = stream_request(method, BASE.encode(), path.encode(), b"", headers, b"x")
        answer = self.front.operations.perform(asked)
        assert isinstance(answer, Answer)
        for name in self.recorded.names:
            self.assertEqual(name.partition("/")[0], "bob", (method, path, source, name))
        if answer.status in (401, 403):
            self.assertEqual(self.recorded.names, [])
