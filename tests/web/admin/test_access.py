"""Who may use the pages for operators, on each front."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.sections import HttpSettings, ProxySettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.errors import NotAllowed, NotAuthenticated
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.callers import Caller, Client
from durable_streams.server.web.pages import PageRequest, streams_body
from durable_streams.server.web.problems import OriginNotAllowed
from durable_streams.server.web.site.admin.access import AdminGuard, allow_certificates, allow_local, is_local
from durable_streams.server.web.site.app import Routes
from tests.support.cases import FrontTestCase, each_way
from tests.support.fronts import SiteFront
from tests.support.replies import Reply

#: Paths that are routed to the pages, or could be taken for others.
SPELLINGS = ("/admin/it", "//admin/it", "/%61dmin/it", "/admin%2Fit", "/admin/%69t")

#: Paths below the base path that have no page.
MISSING = ("/admin", "/admin/", "/admin/none", "/admin//it", "/admin/../admin/it", "/admin/it/more", "/admin/%FF")


def add_pages(app: Routes) -> None:
    """Add a page below the base path, and one that receives a body."""

    @app.route("/admin/it", methods=["GET", "HEAD", "POST"])
    def it(request: PageRequest) -> Answer:
        return Answer(200, b"Content-Type: text/plain\r\n", b"secret")

    @app.route("/admin/body", methods=["POST"])
    @streams_body
    def body(request: PageRequest) -> Answer:
        return Answer(200, b"Content-Type: text/plain\r\n", b"secret")


class AccessCase(FrontTestCase):
    settings = Settings(http=HttpSettings(cors_origins=("*",)))

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[PageRequest] = []
        self.verdict: Any = True
        self.front.pages.guard = AdminGuard("/admin", self.authorize)
        self.front.pages.add(add_pages)

    def authorize(self, request: PageRequest) -> Any:
        self.asked.append(request)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def assert_private(self, reply: Reply) -> None:
        """Assert that no page of another origin may read an answer."""
        for name in ("access-control-allow-origin", "access-control-expose-headers", "vary"):
            self.assertIsNone(reply.get(name), name)
        self.assertEqual(reply.get("cross-origin-resource-policy"), "same-origin")


@each_way
class GuardTests(AccessCase):
    def test_each_spelling_of_a_path_is_checked(self) -> None:
        for path in SPELLINGS:
            self.verdict = True
            self.assertEqual(self.front.ask("GET", path).status, 200, path)
            self.verdict = False
            self.assertEqual(self.front.ask("GET", path).status, 403, path)

    def test_paths_without_a_page_and_methods_without_one_are_checked_as_well(self) -> None:
        self.verdict = NotAuthenticated("Log in.", 'Bearer realm="x"')
        for path in MISSING:
            self.assertEqual(self.front.ask("GET", path).status, 401, path)
        self.assertEqual(self.front.ask("PUT", "/admin/it").status, 401)
        self.verdict = True
        for path in MISSING:
            self.assertEqual(self.front.ask("GET", path).status, 404, path)
        self.assertEqual(self.front.ask("PUT", "/admin/it").status, 405)

    def test_other_paths_are_not_checked(self) -> None:
        self.verdict = False
        self.assertEqual(self.front.ask("GET", "/healthz").status, 200)
        self.assertEqual(self.front.ask("GET", "/administrators").status, 404)
        self.assertEqual(self.asked, [])

    def test_a_refusal_has_a_challenge_and_the_path(self) -> None:
        self.verdict = NotAuthenticated("Log in.", 'Bearer realm="x"')
        reply = self.front.ask("GET", "/admin/it?a=b")
        self.assertEqual((reply.status, reply.code), (401, "UNAUTHORIZED"))
        self.assertEqual(reply.get("www-authenticate"), 'Bearer realm="x"')
        self.assertEqual(reply.get("content-type"), "application/problem+json")
        self.assertEqual((reply.json()["detail"], reply.json()["instance"]), ("Log in.", "/admin/it?a=b"))
        self.verdict = NotAllowed("Not you.")
        reply = self.front.ask("HEAD", "/admin/it")
        self.assertEqual((reply.status, reply.get("www-authenticate"), bytes(reply.body)), (403, None, b""))

    def test_only_true_is_a_permission(self) -> None:
        for verdict in (False, None, 1, "yes"):
            self.verdict = self.later(verdict)
            self.assertEqual(self.front.ask("GET", "/admin/it").status, 403, verdict)
        self.verdict = self.later(True)
        self.assertEqual(self.front.ask("GET", "/admin/it").status, 200)
        self.verdict = fail(NotAllowed("Not you."))
        self.assertEqual(self.front.ask("GET", "/admin/it").status, 403)

    @staticmethod
    async def later(verdict: Any) -> Any:
        return verdict

    def test_a_check_that_fails_is_a_500_and_not_a_permission(self) -> None:
        self.verdict = ZeroDivisionError()
        reply = self.front.ask("GET", "/admin/it")
        self.assertEqual((reply.status, reply.code), (500, "INTERNAL_ERROR"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_private(reply)

    def test_a_client_that_disconnects_cancels_the_check(self) -> None:
        cancelled: list[Any] = []
        self.verdict = Deferred(cancelled.append)
        peer = self.front.follow("/admin/it")
        self.assertEqual(cancelled, [])
        peer.reset()
        self.front.pass_time(0.5)
        self.assertEqual(len(cancelled), 1)

    def test_a_refused_body_is_not_read(self) -> None:
        self.verdict = NotAuthenticated("Log in.")
        peer = self.front.connect()
        peer.send_request("POST", "/admin/body", None, b"x" * 100)
        self.assertEqual(peer.reply.status, 401)
        if self.asked[0].incoming is not None and self.front_type is not SiteFront:
            self.assertIsNone(self.asked[0].incoming._consumer)

    def test_no_page_of_another_origin_may_read_an_answer_even_if_all_may_use_streams(self) -> None:
        self.assert_private(self.front.ask("GET", "/admin/it"))
        for verdict in (False, NotAuthenticated("Log in.")):
            self.verdict = verdict
            self.assert_private(self.front.ask("GET", "/admin/it"))
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
        self.assert_private(self.front.ask("OPTIONS", "/admin/it", preflight))
        self.assertEqual(self.front.ask("GET", "/healthz").get("access-control-allow-origin"), "*")

    def test_requests_of_pages_of_other_origins_are_refused_without_a_check(self) -> None:
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
            {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        ):
            reply = self.front.ask("POST", "/admin/it", headers)
            self.assertEqual((reply.status, reply.code), (403, "ORIGIN_NOT_ALLOWED"), headers)
        self.assertEqual(self.asked, [])
        own = f"{self.front.scheme}://streams.example"
        for headers in (
            {"Origin": own},
            {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
            {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        ):
            self.assertEqual(self.front.ask("GET", "/admin/it", headers).status, 200, headers)


@each_way
class LocalTests(AccessCase):
    """Without an authorization, only this machine may use the pages."""

    def setUp(self) -> None:
        super().setUp()
        self.front.pages.guard = AdminGuard("/admin")

    def status(self, address: str, headers: dict[str, str] | None = None) -> int:
        self.front.network.client_address = address
        return self.front.ask("GET", "/admin/it", {"Host": "localhost:4437"} | (headers or {})).status

    def test_clients_of_other_machines_are_refused(self) -> None:
        for address in ("192.0.2.1", "10.0.0.1", "::ffff:192.0.2.1", "2001:db8::1", ""):
            self.assertEqual(self.status(address), 403, address)

    def test_clients_of_this_machine_are_allowed(self) -> None:
        for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
            self.assertEqual(self.status(address), 200, address)

    def test_a_host_that_is_not_this_machine_is_refused(self) -> None:
        for host in ("evil.example", "streams.example:4437", "127.0.0.1.evil.example", "[2001:db8::1]:80", "10.0.0.1"):
            self.assertEqual(self.status("127.0.0.1", {"Host": host}), 403, host)
        for host in ("localhost", "LOCALHOST:80", "a.localhost", "localhost.", "127.0.0.1:4437", "[::1]:80", "[::1]"):
            self.assertEqual(self.status("127.0.0.1", {"Host": host}), 200, host)

    def test_a_request_through_a_proxy_on_this_machine_is_refused(self) -> None:
        for header in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"):
            self.assertEqual(self.status("127.0.0.1", {header: "192.0.2.7"}), 403, header)
        self.assertEqual(self.status("127.0.0.1", {"X-Request-Id": "abc"}), 200)


class TrustedProxyTests(FrontTestCase):
    settings = Settings(
        proxy=ProxySettings(enabled=True, forwarded_headers="x-forwarded", trusted_proxies=("127.0.0.1",))
    )

    def test_clients_of_a_trusted_proxy_are_judged_by_their_own_addresses(self) -> None:
        self.front.pages.guard = AdminGuard("/admin")
        self.front.pages.add(add_pages)
        self.front.network.client_address = "127.0.0.1"
        for address, status in (("192.0.2.7", 403), ("127.0.0.1", 200), (None, 200)):
            headers = {"Host": "localhost"} | ({} if address is None else {"X-Forwarded-For": address})
            self.assertEqual(self.front.ask("GET", "/admin/it", headers).status, status, address)

    def test_a_client_that_a_trusted_proxy_does_not_name_is_refused(self) -> None:
        self.front.pages.guard = AdminGuard("/admin")
        self.front.pages.add(add_pages)
        self.front.network.client_address = "127.0.0.1"
        for header, value in (
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "localhost"),
            ("X-Forwarded-For", ""),
        ):
            reply = self.front.ask("GET", "/admin/it", {"Host": "localhost", header: value})
            self.assertEqual(reply.status, 403, header)


class ForwardedProxyTests(FrontTestCase):
    settings = Settings(
        proxy=ProxySettings(enabled=True, forwarded_headers="forwarded", trusted_proxies=("127.0.0.1",))
    )

    def test_a_client_that_a_trusted_proxy_does_not_name_is_refused(self) -> None:
        self.front.pages.guard = AdminGuard("/admin")
        self.front.pages.add(add_pages)
        self.front.network.client_address = "127.0.0.1"
        for value, status in (("proto=https;host=localhost", 403), ("for=192.0.2.7", 403), ("for=127.0.0.1", 200)):
            reply = self.front.ask("GET", "/admin/it", {"Host": "localhost", "Forwarded": value})
            self.assertEqual(reply.status, status, value)


class RuleTests(SynchronousTestCase):
    def request(self, caller: Caller, **fields: str) -> PageRequest:
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
        return PageRequest(b"GET", b"/admin/x", pairs, caller=caller)

    def test_a_verified_certificate_counts_from_any_address(self) -> None:
        self.assertTrue(allow_certificates(self.request(Caller("192.0.2.1", True, subject="CN=ops"))))
        self.assertTrue(allow_certificates(self.request(Caller("127.0.0.1"))))
        self.assertRaises(NotAllowed, allow_certificates, self.request(Caller("192.0.2.1", True)))

    def test_the_certificate_of_a_trusted_proxy_does_not_count(self) -> None:
        caller = Caller("192.0.2.1", True, True, "CN=proxy", Client(address="192.0.2.9"))
        self.assertRaises(NotAllowed, allow_certificates, self.request(caller))

    def test_without_certificates_in_use_a_certificate_does_not_count(self) -> None:
        self.assertRaises(NotAllowed, allow_local, self.request(Caller("192.0.2.1", True, subject="CN=ops")))

    def test_clients_of_unix_sockets_are_local(self) -> None:
        self.assertTrue(allow_local(self.request(Caller("unix"), host="localhost")))
        self.assertTrue(is_local("unix"))

    def test_a_page_that_has_its_name_resolve_to_a_loopback_address_is_refused(self) -> None:
        # Its origin is the server's own then.
        request = self.request(Caller("127.0.0.1"), host="evil.example:4437", origin="http://evil.example:4437")
        self.failureResultOf(_checked(AdminGuard("/admin"), request), NotAllowed)

    def test_a_foreign_origin_is_refused_whatever_the_authorization_says(self) -> None:
        request = self.request(Caller("127.0.0.1"), host="localhost", origin="http://evil.example")
        guard = AdminGuard("/admin", lambda _: True)
        self.failureResultOf(_checked(guard, request), OriginNotAllowed)

    @given(st.text())
    def test_no_text_but_an_address_is_local(self, text: str) -> None:
        self.assertEqual(is_local(text), text in ("unix", "::1") or text.startswith("127."))

    @given(st.ip_addresses().map(str))
    def test_only_loopback_addresses_are_local(self, address: str) -> None:
        self.assertEqual(is_local(address), address.startswith("127.") or address == "::1")


def _checked(guard: AdminGuard, request: PageRequest) -> Deferred[None]:
    return Deferred.fromCoroutine(guard.check(request))
