"""Attempts to get around the gate: forms of targets, base paths, pseudo-headers, proxies and doubled headers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_streams.server.config.sections import HttpSettings, IdentitySettings, ProxySettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.errors import InvalidRequest
from durable_streams.server.identity.principal import Principal
from durable_streams.server.web.callers import Caller
from durable_streams.server.web.proxies import Proxies
from tests.support.cases import TEXT, each_way, each_way_in_turn
from tests.support.fronts import BASE, settings_with
from tests.support.gated_pages import GatedPagesCase
from tests.support.gates import GateTestCase, bearer
from tests.support.http2 import Http2Front, Http2Peer

#: Ways of naming the stream ``alice/a``, as clients may spell it.
SPELLINGS = ("alice/a", "%61lice/a", "alice/%61", "alice%2Fa", "alice%2fa", "%61%6C%69%63%65/a")

#: Paths that might be taken for that name, and are none.
NO_NAMES = (
    "/alice/a",
    "alice//a",
    "alice/a/",
    "./alice/a",
    "alice/./a",
    "bob/../alice/a",
    "bob/%2e%2e/alice/a",
    "bob/..%2Falice/a",
    "alice/a%00",
    "alice/a%0A",
    "%2Falice/a",
    "alice/%FFa",
    "alice/a/..",
)

#: Other names, which are not the stream's.
OTHER_NAMES = ("ALICE/a", "alice/A", "alice/a.", "alice/a%20", "alice/a;x", "alice%252Fa", "alice\\a", "alice/a%3Fx")


@each_way
class NameTests(GateTestCase):
    rules = ("allow subject:alice all alice/**", "allow subject:bob all bob/**")

    def test_each_spelling_of_a_name_needs_the_same_right(self) -> None:
        for path in SPELLINGS:
            for method, body in (("GET", b""), ("HEAD", b""), ("POST", b"x"), ("PUT", b""), ("DELETE", b"")):
                reply = self.ask(method, path, "bob", TEXT, body)
                self.assertEqual(reply.status, 403, (method, path))
            self.assertEqual(bytes(self.ask("GET", path, "alice").body), b"hello", path)

    def test_paths_that_are_no_names_do_nothing(self) -> None:
        for path in NO_NAMES:
            for method in ("GET", "DELETE", "PUT"):
                for token in ("alice", "bob"):
                    self.assertIn(self.ask(method, path, token).status, (400, 404), (method, path))
        self.assertEqual(bytes(self.ask("GET", "alice/a", "alice").body), b"hello")

    def test_other_names_are_other_streams(self) -> None:
        for path in OTHER_NAMES:
            self.assertIn(self.ask("GET", path, "bob").status, (400, 403), path)
            self.assertIn(self.ask("GET", path, "alice").status, (400, 403, 404), path)

    def test_the_name_of_a_fork_s_source_is_read_as_that_of_a_stream(self) -> None:
        for source in (*SPELLINGS, *(BASE + path for path in SPELLINGS)):
            self.assertEqual(self.ask("PUT", "bob/f", "bob", {"Stream-Forked-From": source}).status, 403, source)
        for source in ("/alice/a", "../alice/a", "bob/../alice/a", "http://streams.example" + BASE + "alice/a"):
            self.assertIn(
                self.ask("PUT", "bob/f", "bob", {"Stream-Forked-From": source}).status, (400, 403, 404), source
            )

    def test_methods_are_not_overridden(self) -> None:
        self.control.set_rules("allow subject:bob read alice/**")
        for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            for method in ("GET", "HEAD"):
                self.assertEqual(self.ask(method, "alice/a?_method=DELETE", "bob", {name: "DELETE"}).status, 200)
        for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Path", "Stream-Name"):
            self.assertEqual(self.ask("GET", "bob/b", "bob", {name: BASE + "alice/a"}).status, 403)
        for method in ("TRACE", "PATCH", "get", "GETX", "PROPFIND", "QUERY"):
            self.assertIn(self.ask(method, "alice/a", "bob").status, (400, 405, 501), method)

    def test_credentials_that_are_sent_twice_are_refused(self) -> None:
        for first, second in (("bob", "alice"), ("alice", "bob"), ("alice", "alice")):
            fields = {"Authorization": f"Bearer {first}", "authorization": f"Bearer {second}"}
            self.assertEqual(self.front.ask("GET", BASE + "alice/a", fields).status, 400)
        for value in (
            "Bearer alice, Bearer bob",
            "Bearer bob alice",
            "alice",
            "Basic alice",
            "Bearer",
            "Bearer alice\t",
        ):
            self.assertIn(self.front.ask("GET", BASE + "alice/a", {"Authorization": value}).status, (200, 400, 401))
            self.assertIn(self.front.ask("GET", BASE + "bob/b", {"Authorization": value}).status, (400, 401, 403))


@each_way_in_turn
class TargetTests(GatedPagesCase):
    def test_a_target_in_absolute_form_is_decided_by_its_path(self) -> None:
        for path in ("/admin/streams", "/metrics", BASE + "alice/a", BASE + "__ds/subscriptions/s"):
            for origin in ("http://localhost", "HTTP://LOCALHOST:80", "https://localhost"):
                peer = self.front.connect(read_replies=False)
                peer.send(f"GET {origin}{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                self.front.pass_time(0.3, 0.05)
                # A Site refuses this form.
                self.assertIn(bytes(peer.received).split(b" ")[1], (b"400", b"401"), path)

    def test_other_forms_of_targets_reach_nothing(self) -> None:
        for method, target in (
            ("GET", "admin/streams"),
            ("GET", "*"),
            ("GET", "localhost/admin/streams"),
            ("GET", "/healthz#/../admin/streams"),
            ("GET", "\\admin\\streams"),
            ("CONNECT", "localhost:4437"),
            ("GET", "?/admin/streams"),
        ):
            peer = self.front.connect(read_replies=False)
            peer.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self.front.pass_time(0.3, 0.05)
            received = bytes(peer.received)
            self.assertIn(received.split(b" ")[1][:3], (b"400", b"404", b"405"), target)
            self.assertNotIn(b'"streams"', received)

    def test_a_second_request_in_the_body_of_the_first_is_not_performed(self) -> None:
        inner = b"GET /admin/streams HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ops\r\n\r\n"
        for lines in (
            b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(inner),
            b"Transfer-Encoding : chunked\r\n",
        ):
            peer = self.front.connect(read_replies=False)
            peer.send(b"POST " + BASE.encode() + b"alice/a HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n" + inner)
            self.front.pass_time(0.3, 0.05)
            self.assertNotIn(b"HTTP/1.1 200", bytes(peer.received), lines)


class RootTests(GatedPagesCase):
    """Streams at all paths of the listener but those of probes and metrics."""

    settings = Settings(http=HttpSettings(stream_base_path="/"))
    has_pages = False
    streams: Mapping[str, bytes] = MappingProxyType({})

    def test_reserved_paths_are_below_the_base_path_only(self) -> None:
        for path, status in (
            ("/__ds/subscriptions/s", 401),
            ("/%5F_ds/subscriptions/s", 401),
            ("//__ds/subscriptions/s", 400),
            ("/v1/stream/__ds/subscriptions/s", 401),
            ("/x/../__ds/subscriptions/s", 400),
        ):
            self.assertEqual(self.get(path).status, status, path)
        self.assertEqual(self.get("/__ds/jwks.json").status, 200)
        # This one is the name of a stream.
        self.assertEqual(self.get("/v1/stream/__ds/jwks.json").status, 401)
        self.control.set_rules("allow subject:alice read **")
        self.assertEqual(self.get("/v1/stream/__ds/subscriptions/s", "alice").status, 404)
        self.assertEqual(self.get("/__ds/subscriptions/s", "alice").status, 403)

    def test_metrics_need_admin_by_their_path_and_other_spellings_are_streams(self) -> None:
        self.control.set_rules("allow subject:alice read **")
        for path in ("/metrics", "/metrics?x", "/metrics?/healthz"):
            self.assertEqual(self.get(path).status, 401, path)
            self.assertEqual(self.get(path, "alice").status, 403, path)
        for path in ("/%6Detrics", "//metrics", "/metrics/", "/METRICS", "/metrics;x", "/metrics%00", "/./metrics"):
            reply = self.get(path, "alice")
            self.assertIn(reply.status, (400, 404), path)
            self.assertNotIn(b"durable_streams_", bytes(reply.body))


class PseudoHeaderTests(GatedPagesCase):
    front_type = Http2Front

    def send(self, *fields: tuple[str, str]) -> int | None:
        """Send header fields as they are, and return the status; None if the stream is reset."""
        peer = self.front.connect()
        assert isinstance(peer, Http2Peer)
        peer.h2.config.validate_outbound_headers = False
        peer.h2.config.normalize_outbound_headers = False
        peer.h2.send_headers(1, fields, end_stream=True)
        peer.asked.append(1)
        peer.pass_on()
        self.front.pass_time(0.3, 0.05)
        return peer.streams[1].status if 1 in peer.streams else None

    def test_pseudo_headers_do_not_lead_around_the_gate(self) -> None:
        common = (":scheme", "https"), (":authority", "localhost")
        self.assertEqual(self.send((":method", "GET"), (":path", "/admin/streams"), *common), 401)
        self.assertEqual(self.send((":method", "GET"), (":path", "/metrics"), *common), 401)
        self.assertEqual(self.send((":method", "GET"), (":path", BASE + "alice/a"), *common), 401)
        for fields in (
            ((":method", "GET"), (":path", "/healthz"), (":path", "/admin/streams"), *common),
            ((":method", "GET"), (":method", "DELETE"), (":path", BASE + "alice/a"), *common),
            ((":method", "GET"), (":path", "admin/streams"), *common),
            ((":method", "GET"), (":path", ""), *common),
            ((":method", "GET"), (":path", "*"), *common),
            ((":method", "GET"), (":path", "https://localhost/admin/streams"), *common),
            ((":method", "GET"), (":path", "/admin/streams"), (":protocol", "x"), *common),
            ((":method", "GET"), (":path", "/admin/streams"), *common, (":path", "/healthz")),
            ((":method", "GET"), (":path", "/admin/streams"), *common, ("host", "evil.example")),
            ((":method", "GET"), (":path", "/admin/streams"), *common, ("Authorization", "Bearer ops")),
            (
                (":method", "GET"),
                (":path", "/admin/streams"),
                *common,
                ("authorization", "Bearer bob"),
                ("authorization", "Bearer ops"),
            ),
            ((":method", "CONNECT"), (":authority", "localhost")),
            ((":method", "GET "), (":path", "/admin/streams"), *common),
        ):
            self.assertIn(self.send(*fields), (None, 400, 401, 404, 405), fields)


@each_way
class ProxyTests(GateTestCase):
    """The front is plain, so that no peer has a certificate, trusted or not."""

    rules = ("allow subject:alice all **", "allow kind:header all **")
    settings = Settings(
        proxy=ProxySettings(
            enabled=True,
            forwarded_headers="x-forwarded",
            trusted_proxies=("192.0.2.1",),
            identity=IdentitySettings("header", "X-User"),
        )
    )
    streams: Mapping[str, bytes] = MappingProxyType({})

    def test_an_identity_header_proves_nothing_without_a_certificate(self) -> None:
        self.control.set_rules(*self.rules)
        for address in ("192.0.2.1", "192.0.2.2", "127.0.0.1"):
            self.front.network.client_address = address
            for name in ("X-User", "x-user", "X-USER"):
                for value in ("alice", "alice, bob", " alice "):
                    fields = {name: value, "X-Forwarded-For": "192.0.2.9"}
                    self.assertEqual(self.front.ask("GET", BASE + "a", fields).status, 401, (address, name))
            self.assertEqual(self.front.ask("GET", BASE + "a", {"X_User": "alice"}).status, 401)
            self.assertEqual(self.front.ask("GET", BASE + "a", {"X-User": "alice", "x-user": "bob"}).status, 401)


class IdentityHeaderTests(GateTestCase):
    def test_an_identity_header_that_is_sent_twice_is_refused(self) -> None:
        proxies = Proxies(self.front.clock.seconds, "x-forwarded", ["192.0.2.1"], "X-User")
        operations = self.front.operations
        operations.proxies = proxies
        policy = operations.admission_policy(b"/")
        trusted = Caller("192.0.2.1", True, True, "CN=proxy")
        admission = policy.admission(trusted)
        fields = [(b"X-User", b"alice"), (b"x-user", b"bob")]
        self.assertRaises(InvalidRequest, admission.read, fields)
        client = admission.identify(trusted, admission.read(fields[:1])).client
        assert client is not None
        self.assertEqual((client.identity, client.identified), ("alice", True))
        for other in (replace(trusted, subject=None), replace(trusted, trusted=False), Caller("192.0.2.1")):
            self.assertNotIn(b"x-user", policy.admission(other).read(fields))


@each_way
class AttachedCredentialTests(GateTestCase):
    """Pages of other origins send requests with what a browser attaches by itself."""

    rules = ("allow authenticated all **",)
    settings = settings_with(cors_origins=("*", "https://listed.example"))
    streams: Mapping[str, bytes] = MappingProxyType({})

    def setUp(self) -> None:
        super().setUp()
        for kind in ("certificate", "header", "token"):
            self.book.tokens[kind] = Principal("alice", kind)
        self.ask("PUT", "a", "token", TEXT)

    def test_pages_of_other_origins_cannot_write_with_attached_credentials(self) -> None:
        for kind in ("certificate", "header"):
            for origin in ("https://evil.example", "null"):
                fields = {"Origin": origin, **TEXT}
                for method, name, body in (("POST", "a", b"x"), ("PUT", "b", b""), ("DELETE", "a", b"")):
                    reply = self.ask(method, name, kind, fields, body)
                    self.assertEqual((reply.status, reply.code), (403, "ORIGIN_NOT_ALLOWED"), (kind, method))
                self.assertEqual(self.ask("GET", "a", kind, fields).status, 200)
            for fields in (TEXT, {"Origin": "https://listed.example", **TEXT}):
                self.assertEqual(self.ask("POST", "a", kind, fields, b"x").status, 204, fields)

    def test_pages_that_know_a_token_can_write(self) -> None:
        self.assertEqual(self.ask("POST", "a", "token", {"Origin": "https://page.example", **TEXT}, b"x").status, 204)


#: Pieces of targets that a reader might normalize.
_TEXT_OF_PIECES = r"""/ // /./ /../ %2F %2f %2e%2e/ ..;/ \ ;x . %00 %20 ? ?x= %23 %25
    admin %61dmin ADMIN streams counts export backup metrics %6detrics healthz readyz
    v1 stream v1/stream __ds %5F_ds subscriptions mine alice %61lice a jwks.json claim"""
_PIECES = st.sampled_from(_TEXT_OF_PIECES.split())
_METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"])
_TARGETS = st.one_of(
    st.lists(_PIECES, min_size=1, max_size=8).map("".join),
    st.tuples(st.sampled_from(["/admin/", BASE, BASE + "__ds/", "/"]), st.lists(_PIECES, max_size=6)).map(
        lambda parts: parts[0] + "".join(parts[1])
    ),
)

#: What everybody may see, on this front.
_PUBLIC = (b"ok", b"ready", b'{"keys":[]}')


@each_way_in_turn
class RandomTargetTests(GatedPagesCase):
    rules = ("allow subject:ops admin", "allow subject:owner all **")

    def test_no_target_shows_or_changes_anything_to_those_without_a_right(self) -> None:
        before = self.contents()

        @settings(max_examples=150, deadline=None)
        @given(
            _TARGETS, st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]), st.sampled_from([None, "bob", "wrong"])
        )
        def check(target: str, method: str, token: str | None) -> None:
            if not target.startswith("/"):
                target = "/" + target
            peer = self.front.connect()
            peer.send_request(method, target, {"Host": "localhost", **TEXT, **bearer(token)})
            self.front.pass_time(0.05, 0.01)
            reply = peer.reply
            if reply.status < 400:
                self.assertEqual(reply.status, 200, target)
                self.assertIn(bytes(reply.body), (*_PUBLIC, b"") if method == "HEAD" else _PUBLIC, target)
            peer.leave()
            self.front.peers.remove(peer)

        check()
        self.assertEqual(self.contents(), before)

    def contents(self) -> list[tuple[int, bytes]]:
        """Return what all streams have."""
        replies = [self.ask("GET", name, "owner") for name in self.streams]
        return [(reply.status, bytes(reply.body)) for reply in replies]
