"""Tests of the origins that may write: a browser sends plain POSTs without a preflight."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.callers import Caller, Client
from durable_streams.server.web.origins import WritingOrigins
from durable_streams.server.web.problems import OriginNotAllowed
from durable_streams.server.web.requests import stream_request
from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE, settings_with

LISTED = "https://app.example"

#: Origins of pages that are not listed.
UNLISTED = ("https://other.example", "null", "http://app.example", "https://app.example:8443", "file://", "x")


@each_way
class ListedOriginTests(FrontTestCase):
    settings = settings_with({}, (LISTED,))

    def test_a_write_from_an_unlisted_origin_is_403_and_changes_nothing(self) -> None:
        self.front.create("a", body=b"one")
        for origin in UNLISTED:
            for method, name in (("POST", "a"), ("PUT", "new"), ("DELETE", "a")):
                reply = self.front.ask(method, BASE + name, {**TEXT, "Origin": origin}, b"two" * (method == "POST"))
                self.assertEqual((reply.status, reply.code), (403, "ORIGIN_NOT_ALLOWED"), (method, origin))
                self.assertIn("http.cors_origins", reply.json()["detail"])
        self.assertEqual(self.front.ask("GET", BASE + "a").body, b"one")
        self.assertEqual(self.front.ask("GET", BASE + "new").status, 404)

    def test_a_write_from_a_listed_origin_or_from_no_page_is_accepted(self) -> None:
        for headers in ({"Origin": LISTED}, {}):
            self.assertEqual(self.front.ask("PUT", BASE + "a", {**TEXT, **headers}).status, 201)
            self.assertEqual(self.front.ask("POST", BASE + "a", {**TEXT, **headers}, b"x").status, 204)
            self.assertEqual(self.front.ask("DELETE", BASE + "a", headers).status, 204)

    def test_a_read_from_an_unlisted_origin_has_no_allow_origin_header(self) -> None:
        self.front.create("a", body=b"one")
        reply = self.front.ask("GET", BASE + "a", {"Origin": UNLISTED[0]})
        self.assertEqual((reply.status, reply.get("access-control-allow-origin")), (200, None))


@each_way
class AnyOriginTests(FrontTestCase):
    def test_every_page_may_write(self) -> None:
        self.front.create("a")
        for origin in UNLISTED:
            self.assertEqual(self.front.ask("POST", BASE + "a", {**TEXT, "Origin": origin}, b"x").status, 204)


class OwnOriginTests(SynchronousTestCase):
    def may_write(self, origin: bytes, host: bytes, caller: Caller) -> bool:
        headers = {b"origin": origin, b"host": host}
        request = stream_request(b"POST", b"/v1/stream/", b"a", b"", headers, b"", caller)
        try:
            WritingOrigins([LISTED]).check(request)
        except OriginNotAllowed:
            return False
        return True

    def test_a_page_of_the_servers_own_origin_may_write(self) -> None:
        plain, secure = Caller(), Caller(secure=True)
        behind = Caller(trusted=True, client=Client(scheme=b"https", authority=b"outer.example"))
        for origin, host, caller in (
            (b"http://streams.example", b"streams.example", plain),
            (b"http://streams.example", b"Streams.Example:80", plain),
            (b"http://streams.example:8080", b"streams.example:8080", plain),
            (b"https://streams.example", b"streams.example", plain),
            (b"https://streams.example", b"streams.example:443", secure),
            (b"https://streams.example", b"streams.example:443", plain),
            (b"https://[::1]:4437", b"[::1]:4437", secure),
            (b"https://outer.example", b"inner:4437", behind),
        ):
            self.assertTrue(self.may_write(origin, host, caller), (origin, host))

    def test_a_page_of_another_host_port_or_of_a_weaker_scheme_may_not(self) -> None:
        plain, secure = Caller(), Caller(secure=True)
        behind = Caller(trusted=True, client=Client(scheme=b"https", authority=b"outer.example"))
        for origin, host, caller in (
            (b"http://other.example", b"streams.example", plain),
            (b"http://streams.example:81", b"streams.example", plain),
            (b"http://streams.example", b"streams.example", secure),
            (b"http://streams.example:443", b"streams.example", secure),
            (b"https://inner:4437", b"inner:4437", behind),
            (b"http://streams.example@evil.example", b"streams.example", plain),
            (b"null", b"streams.example", plain),
            (b"null", b"", plain),
            (b"http://", b"", plain),
        ):
            self.assertFalse(self.may_write(origin, host, caller), (origin, host))
