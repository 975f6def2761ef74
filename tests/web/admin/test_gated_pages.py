"""Tests of the pages for operators and of the metrics behind the gate, on every front."""

from __future__ import annotations

from typing import Any

from durable_streams.server.errors import NotAllowed
from durable_streams.server.web.callers import Caller, Client
from durable_streams.server.web.page_access import presented_by_page
from durable_streams.server.web.pages import PageRequest
from tests.support.cases import each_way
from tests.support.gated_pages import OPERATOR_TOKEN, GatedPagesCase

PAGES = ("/admin/streams", "/admin/counts", "/admin/subscriptions", "/admin", "/admin/none", "/metrics")


@each_way
class StreamsListenerTests(GatedPagesCase):
    def test_pages_and_metrics_need_the_right_admin(self) -> None:
        for path in PAGES:
            found = 404 if path in ("/admin", "/admin/none") else 200
            self.assertEqual(self.get(path, "ops").status, found, path)
            self.assertEqual(self.get(path, "owner").status, found, path)
            for token, status in ((None, 401), ("wrong", 401), ("alice", 403), ("bob", 403)):
                reply = self.get(path, token)
                self.assertEqual(reply.status, status, (path, token))
                self.assertTrue(reply.code in ("UNAUTHORIZED", "FORBIDDEN"), path)
        self.assertIn("insufficient_scope", self.get("/metrics", "alice").get("www-authenticate") or "")
        self.assertEqual(self.get("/metrics").get("www-authenticate"), 'Bearer realm="durable-streams"')

    def test_probes_and_unknown_paths_need_no_credentials(self) -> None:
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/none", 404), ("/", 404), ("/administrators", 404)):
            self.assertEqual(self.get(path).status, status, path)
            self.assertEqual(self.get(path, "wrong").status, status, path)

    def test_a_principal_with_admin_has_no_other_rights(self) -> None:
        self.assertEqual(self.ask("GET", "alice/a", "ops").status, 403)

    def test_each_spelling_of_a_path_is_checked(self) -> None:
        for path in (
            "/%61dmin/streams",
            "//admin/streams",
            "///admin/streams",
            "/admin%2Fstreams",
            "/admin/%73treams",
            "/admin/streams/../streams",
            "/admin/./streams",
            "/admin//streams",
            "/admin/streams/",
            "/admin/streams.",
            "/admin/streams;x",
            "/admin/STREAMS",
            "/admin/streams%00",
            "/admin/streams%20",
            "/admin/",
            "/admin?x=y",
            "//metrics",
            "/%6Detrics",
            "/metrics?x=/healthz",
        ):
            self.assertEqual(self.get(path).status, 401, path)
            self.assertEqual(self.get(path, "alice").status, 403, path)

    def test_other_spellings_are_no_pages(self) -> None:
        for path in (
            "/ADMIN/streams",
            "/Admin/streams",
            "/./admin/streams",
            "/healthz/../admin/streams",
            "/healthz/../metrics",
            "/%2e/admin/streams",
            "/%252fadmin/streams",
            "/%2561dmin/streams",
            "/admin./streams",
            "/admin;/streams",
            "/admin%00/streams",
            "/admin%20/streams",
            "/v1/../admin/streams",
            "/v1//stream/../../admin/streams",
            "/metrics/",
            "/METRICS",
            "/metrics.",
            "/metrics;x",
            "/metrics%00",
        ):
            reply = self.get(path)
            self.assertIn(reply.status, (400, 404), path)
            self.assertNotIn(b"durable_streams_", bytes(reply.body))

    def test_each_method_is_checked(self) -> None:
        for method in ("HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE"):
            reply = self.get("/admin/streams", None, method)
            self.assertIn(reply.status, (400, 401), method)
        self.assertEqual(self.get("/admin/streams/alice/a", None, "DELETE").status, 401)
        self.assertEqual(self.get("/metrics", None, "HEAD").status, 401)
        for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Original-URL", "X-Rewrite-URL"):
            self.assertEqual(self.get("/admin/streams/alice/a", None, **{name: "/healthz"}).status, 401)
            self.assertEqual(self.get("/healthz", None, **{name: "/admin/streams"}).status, 200)
        self.assertEqual(self.ask("HEAD", "alice/a", "alice").status, 200)

    def test_a_preflight_for_pages_of_operators_shows_nothing(self) -> None:
        preflight = {"Origin": "https://page.example", "Access_Control_Request_Method": "GET"}
        self.assertEqual(self.get("/admin/streams", None, "OPTIONS", **preflight).status, 403)
        reply = self.get("/metrics", None, "OPTIONS", **preflight)
        self.assertEqual((reply.status, bytes(reply.body)), (204, b""))

    def test_a_page_of_another_origin_is_refused_with_any_credentials(self) -> None:
        for path in ("/admin/streams", "/metrics"):
            for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://localhost:1"):
                reply = self.get(path, "ops", Origin=origin)
                self.assertEqual((reply.status, reply.code), (403, "ORIGIN_NOT_ALLOWED"), origin)
                self.assertIsNone(reply.get("access-control-allow-origin"))
            self.assertEqual(self.get(path, "ops", Sec_Fetch_Site="cross-site").status, 403)

    def test_a_rule_for_everybody_opens_the_pages_to_this_machine_only(self) -> None:
        self.control.set_rules("allow anyone all **")
        self.assertEqual(self.get("/admin/streams").status, 200)
        for host in ("evil.example", "evil.example:4437", "127.0.0.1.evil.example"):
            # A name of the page's own that it has resolve to this machine.
            self.assertEqual(self.get("/admin/streams", Host=host).status, 403, host)
        self.assertEqual(self.get("/admin/streams", X_Forwarded_For="192.0.2.1").status, 403)
        self.assertEqual(self.get("/admin/streams", "bob", Host="evil.example").status, 200)

    def test_a_changed_rule_counts_for_the_next_request(self) -> None:
        self.assertEqual(self.get("/admin/streams", "ops").status, 200)
        self.control.set_rules("allow subject:owner all **")
        self.assertEqual(self.get("/admin/streams", "ops").status, 403)
        self.control.revoke("owner")
        self.assertEqual(self.get("/admin/streams", "owner").status, 401)

    def test_doubled_credentials_are_refused(self) -> None:
        for path in ("/admin/streams", "/metrics"):
            for first, second in (("bob", "ops"), ("ops", "bob"), ("ops", "ops")):
                fields = {"Host": "localhost", "Authorization": f"Bearer {first}", "authorization": f"Bearer {second}"}
                self.assertEqual(self.front.ask("GET", path, fields).status, 400, path)

    def test_the_check_of_a_program_decides_alone(self) -> None:
        asked: list[bytes] = []

        def check(request: PageRequest) -> Any:
            asked.append(request.path)
            if request.header(b"x-key") is None:
                raise NotAllowed("No key.")
            return True

        self.protect(check)
        for path in ("/admin/streams", "/metrics"):
            self.assertEqual(self.get(path, "ops").status, 403)
            self.assertEqual(self.get(path, X_Key="1").status, 200)
        self.assertEqual(len(asked), 4)


class WithoutPagesTests(GatedPagesCase):
    has_pages = False

    def test_the_metrics_need_the_right_admin(self) -> None:
        self.assertEqual([self.get("/metrics", token).status for token in (None, "alice", "ops")], [401, 403, 200])
        self.assertEqual(self.get("/admin/streams").status, 404)
        self.assertEqual(self.get("/healthz").status, 200)


@each_way
class TokenFileTests(GatedPagesCase):
    has_file = True

    def test_a_token_of_the_file_opens_pages_and_metrics_and_no_stream(self) -> None:
        for path in ("/admin/streams", "/metrics"):
            self.assertEqual(self.get(path, OPERATOR_TOKEN).status, 200, path)
            self.assertEqual(self.get(path, "ops").status, 200, path)
            for token, status in ((None, 401), (OPERATOR_TOKEN + "x", 401), ("alice", 403)):
                self.assertEqual(self.get(path, token).status, status, (path, token))
        self.assertEqual(self.ask("GET", "alice/a", OPERATOR_TOKEN).status, 401)
        self.assertEqual(self.ask("GET", "public/p", OPERATOR_TOKEN).status, 401)


class OwnListenerTests(GatedPagesCase):
    bind_address = "127.0.0.1:4438"

    def test_this_machine_and_principals_with_admin_may_use_the_pages(self) -> None:
        self.assertEqual(self.get("/admin/streams").status, 200)
        self.assertEqual(self.get("/admin/streams", Host="streams.example").status, 403)
        self.assertEqual(self.get("/admin/streams", "ops", Host="streams.example").status, 200)
        self.assertEqual(self.get("/admin/streams", "alice", Host="streams.example").status, 403)
        self.assertEqual(self.get("/admin/streams", "wrong", Host="streams.example").status, 401)

    def test_the_metrics_need_no_credentials(self) -> None:
        self.assertEqual(self.get("/metrics", Host="streams.example").status, 200)


class OwnListenerWithFileTests(GatedPagesCase):
    bind_address = "127.0.0.1:4438"
    has_file = True

    def test_this_machine_needs_a_token(self) -> None:
        self.assertEqual(self.get("/admin/streams").status, 401)
        self.assertEqual(self.get("/admin/streams", OPERATOR_TOKEN).status, 200)
        self.assertEqual(self.get("/admin/streams", "ops").status, 200)
        self.assertEqual(self.get("/admin/streams", "alice").status, 403)


class ProxyCertificateTests(GatedPagesCase):
    def test_the_certificate_of_a_trusted_proxy_proves_nothing_to_pages(self) -> None:
        class Presented:
            subject = "CN=proxy"
            names = "the names"

        def presented(trusted: bool, client: Client | None = None) -> Any:
            caller = Caller("192.0.2.1", True, trusted, "CN=proxy", client, Presented())  # type: ignore[arg-type]
            return presented_by_page(PageRequest(b"GET", b"/admin", [], caller=caller))

        self.assertEqual(presented(False).certificate, "the names")
        self.assertIsNone(presented(True).certificate)
        named = presented(True, Client(identity="alice", identified=True))
        self.assertEqual((named.certificate, named.proxy_identity), (None, "alice"))

    def test_a_signed_url_is_not_presented_to_pages(self) -> None:
        presented = presented_by_page(PageRequest(b"GET", b"/admin/streams?ds_sig=x&ds_key=y", []))
        self.assertEqual((presented.query, presented.name), (b"", b""))
