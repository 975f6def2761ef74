"""Tests of CORS on every path: pages of other origins can use the server and read its answers."""

from __future__ import annotations

from tests.support.cases import TEXT, ChannelTestCase, FrontTestCase, each_way
from tests.support.fronts import BASE, request, settings_with
from tests.support.replies import Reply

LISTED = "https://app.example"
UNLISTED = "https://other.example"

#: Requests of all kinds, and their statuses.
ASKED = (
    ("PUT", BASE + "a", 201),
    ("POST", BASE + "a", 204),
    ("GET", BASE + "a", 200),
    ("GET", BASE + "a?offset=-1&live=what", 400),
    ("GET", BASE + "none", 404),
    ("PATCH", BASE + "a", 405),
    ("HEAD", BASE + "a", 200),
    ("GET", "/healthz", 200),
    ("HEAD", "/readyz", 200),
    ("PUT", "/healthz", 405),
    ("GET", "/nowhere", 404),
    ("GET", "/%ff", 404),
    ("DELETE", BASE + "a", 204),
)

#: Where a preflight may be for.
PLACES = (BASE + "a", BASE + "__ds/x", "/v1/stream", "/healthz", "/readyz", "/nowhere", "/%ff", "/")


def allowed(reply: Reply) -> str | None:
    return reply.get("access-control-allow-origin")


@each_way
class AnyOriginTests(FrontTestCase):
    def test_every_answer_allows_any_origin(self) -> None:
        for method, target, status in ASKED:
            for origin in ({"Origin": LISTED}, {}):
                reply = self.front.ask(method, target, {**TEXT, **origin}, b"x" if method == "POST" else b"")
                if (method, status) not in (("PUT", 201), ("DELETE", 204)):
                    self.assertEqual(reply.status, status, (method, target))
                self.assertEqual(allowed(reply), "*", (method, target))
                self.assertIn("Stream-Next-Offset", reply.get("access-control-expose-headers") or "")
                self.assertIn("X-Request-Id", reply.get("access-control-expose-headers") or "")
                self.assertIsNone(reply.get("access-control-allow-credentials"))
                self.assertIsNone(reply.get("vary"))

    def test_a_503_of_readyz_has_cors_headers(self) -> None:
        self.front.obstacle = "Not yet."
        reply = self.front.ask("GET", "/readyz", {"Origin": LISTED})
        self.assertEqual((reply.status, allowed(reply)), (503, "*"))

    def test_a_preflight_is_answered_on_every_path(self) -> None:
        for place in PLACES:
            asked = {"Origin": LISTED, "Access-Control-Request-Method": "POST"}
            reply = self.front.ask("OPTIONS", place, asked)
            self.assertEqual((reply.status, allowed(reply)), (204, "*"), place)
            self.assertEqual(reply.get("access-control-max-age"), "86400")
            methods = (reply.get("access-control-allow-methods") or "").split(", ")
            self.assertEqual(sorted(methods), ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"])
            headers = (reply.get("access-control-allow-headers") or "").split(", ")
            for name in ("*", "Authorization", "Content-Type", "If-None-Match", "Last-Event-ID", "Producer-Epoch"):
                self.assertIn(name, headers)
            for name in ("Producer-Id", "Producer-Seq", "Stream-Closed", "Stream-Expires-At", "Stream-Fork-Offset"):
                self.assertIn(name, headers)
            for name in ("Stream-Fork-Sub-Offset", "Stream-Forked-From", "Stream-Seq", "Stream-TTL"):
                self.assertIn(name, headers)

    def test_options_without_a_preflight_header_is_routed(self) -> None:
        self.assertEqual(self.front.ask("OPTIONS", BASE + "a").status, 204)
        self.assertEqual(self.front.ask("OPTIONS", "/healthz").status, 405)
        self.assertEqual(self.front.ask("OPTIONS", "/nowhere").status, 404)

    def test_answers_about_streams_have_nosniff_and_resource_policy(self) -> None:
        for method, target, _ in ASKED:
            reply = self.front.ask(method, target, TEXT, b"x" if method == "POST" else b"")
            probe = target in ("/healthz", "/readyz") and method != "PUT"
            self.assertEqual(reply.get("x-content-type-options"), None if probe else "nosniff", (method, target))
            self.assertEqual(reply.get("cross-origin-resource-policy"), None if probe else "cross-origin")


@each_way
class ListedOriginTests(FrontTestCase):
    settings = settings_with(cors_origins=(LISTED, "https://second.example"))

    def test_only_listed_origins_are_allowed(self) -> None:
        for method, target, _ in ASKED:
            for origin, told in ((LISTED, LISTED), (UNLISTED, None), ("*", None), (None, None)):
                headers = TEXT if origin is None else {**TEXT, "Origin": origin}
                reply = self.front.ask(method, target, headers, b"x" if method == "POST" else b"")
                self.assertEqual(allowed(reply), told, (method, target))
                self.assertEqual(reply.get("vary"), "Origin")

    def test_a_preflight_allows_only_listed_origins(self) -> None:
        for place in PLACES:
            for origin, told in ((LISTED, LISTED), (UNLISTED, None)):
                asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                reply = self.front.ask("OPTIONS", place, asked)
                self.assertEqual((reply.status, allowed(reply)), (204, told))
                self.assertEqual(reply.get("vary"), "Origin")

    def test_a_tail_allows_a_listed_origin(self) -> None:
        self.front.create("t")
        peer = self.front.follow(BASE + "t?offset=-1&live=sse", {"Origin": LISTED})
        self.assertEqual(allowed(peer.reply), LISTED)


@each_way
class ObjectionTests(FrontTestCase):
    """Refusals because of a header have CORS headers."""

    settings = settings_with(cors_origins=(LISTED,))

    def test_a_refusal_for_a_header_allows_the_origin(self) -> None:
        self.front.create("a")
        for target in (BASE + "a", "/healthz"):
            reply = self.front.ask("GET", target, {"Host": "a b", "Origin": LISTED})
            self.assertEqual((reply.status, allowed(reply)), (400, LISTED), target)


class RefusalTests(ChannelTestCase):
    """Refusals of malformed requests have CORS headers."""

    settings = settings_with(
        {"header_timeout_secs": 2, "body_timeout_secs": 2}, (LISTED,), max_header_bytes=2_000, max_request_body_bytes=10
    )

    def test_refusals_allow_an_origin_that_has_been_read(self) -> None:
        origin = {"Origin": LISTED}
        post = {**TEXT, **origin}
        for sent, status in (
            (request("GET", BASE + "a", {**origin, "Host": "a b"}), 400),
            (request("GET", BASE + "a", {**origin, "X": "y" * 3_000}), 431),
            (request("GET", "*", origin), 400),
            (request("POST", BASE + "a", post, b"x" * 11), 413),
            (request("POST", BASE + "a", {**post, "Transfer-Encoding": "gzip"}), 400),
            (request("POST", BASE + "a", {**post, "Content-Length": "5"}, b"x"), 408),
            (request("GET", BASE + "a", {**origin, "X": "y"})[:-2], 408),
            (request("GET", "/healthz", {**origin, "X": "y"})[:-2], 408),
        ):
            peer = self.front.connect()
            peer.send(sent, sent[:4].decode().strip())
            self.front.pass_time(4)
            self.assertEqual((peer.reply.status, allowed(peer.reply)), (status, LISTED), sent[:80])
            self.assertEqual(peer.reply.get("vary"), "Origin")

    def test_an_origin_is_not_used_for_the_next_request(self) -> None:
        peer = self.front.connect()
        peer.send_request("GET", BASE + "a", {"Origin": LISTED})
        peer.send(b"nonsense\r\n\r\n")
        self.assertEqual([allowed(reply) for reply in peer.replies], [LISTED, None])
        self.assertEqual(peer.statuses, [404, 400])


class AnybodysRefusalTests(ChannelTestCase):
    def test_refusals_allow_any_origin_if_all_are_allowed(self) -> None:
        for sent in (b"nonsense\r\n\r\n", request("GET", "/" + "x" * 9_000), request("OPTIONS", "*")):
            peer = self.front.connect()
            peer.send(sent)
            self.assertEqual((allowed(peer.reply), peer.reply.get("x-content-type-options")), ("*", "nosniff"))
