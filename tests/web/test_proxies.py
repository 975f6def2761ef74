"""Tests of forwarding headers: which are trusted, and their effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.sections import IdentitySettings, ProxySettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.errors import InvalidRequest
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.callers import (
    UNIX_PEER,
    Caller,
    Client,
    RequestWithCaller,
    caller_on,
    client_of,
)
from durable_streams.server.web.forwarded import read_forwarded, read_x_forwarded
from durable_streams.server.web.pages import PageRequest
from durable_streams.server.web.proxies import Networks, Proxies
from durable_streams.server.web.site.app import Routes
from durable_streams.server.web.telemetry import Telemetry
from tests.support.cases import TEXT, FrontTestCase, each_way, each_way_in_turn
from tests.support.fronts import BASE, ChannelFront, Front, SiteFront, request

PROXY = "192.0.2.1"
CDN = "198.51.100.7"
CLIENT = "203.0.113.9"
OTHER = "203.0.113.66"


def believing(forwarded_headers: str, *trusted: str, identity: str | None = None) -> Settings:
    """Make settings with proxies that are trusted."""
    mode = IdentitySettings("header", identity) if identity else IdentitySettings()
    return Settings(proxy=ProxySettings(True, forwarded_headers, trusted or (PROXY, CDN), mode))


X_FORWARDED = believing("x-forwarded")
FORWARDED = believing("forwarded")


class Noting(Telemetry):
    """A telemetry that records requests."""

    def __init__(self) -> None:
        self.asked: list[RequestWithCaller] = []

    def answered(self, asked: Any, number: int, answer: Answer, began_at: float) -> None:
        if asked is not None:
            self.asked.append(asked)


def noting(front: Front) -> Noting:
    """Record the requests of a front."""
    told = Noting()
    front.record_with(told)
    return told


class NetworksTests(SynchronousTestCase):
    def test_networks_contain_their_addresses(self) -> None:
        networks = Networks(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"])
        for address in (
            "10.0.0.0",
            "10.255.1.2",
            "192.0.2.1",
            "2001:db8::",
            "2001:db8:ffff::1",
            "::1",
            "::ffff:10.1.2.3",
        ):
            self.assertIn(address, networks)
        for address in ("11.0.0.0", "9.255.255.255", "192.0.2.2", "2001:db9::", "::2", "::ffff:11.0.0.1", "::10.1.2.3"):
            self.assertNotIn(address, networks)

    def test_text_that_is_not_an_address_is_in_no_network(self) -> None:
        everything = Networks(["0.0.0.0/0", "::/0"])
        self.assertIn("192.0.2.1", everything)
        for address in ("", UNIX_PEER, "unknown", "_hidden", "localhost", "10.0.0.1:80", "1.2.3"):
            self.assertNotIn(address, everything)

    def test_unix_sockets_are_trusted_by_name(self) -> None:
        self.assertIn(UNIX_PEER, Networks(["unix"]))
        self.assertNotIn("", Networks(["unix"]))
        self.assertNotIn("127.0.0.1", Networks(["unix"]))

    def test_a_link_local_address_with_a_zone_is_in_its_network(self) -> None:
        self.assertIn("fe80::1%eth0", Networks(["fe80::/10"]))

    @given(
        st.one_of(
            st.tuples(st.ip_addresses(v=4), st.integers(0, 32)),
            st.tuples(st.ip_addresses(v=6), st.integers(97, 128)),
        ),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    )
    def test_networks_agree_with_the_standard_library(
        self, chosen: tuple[IPv4Address | IPv6Address, int], noise: int, size: int
    ) -> None:
        base, length = chosen
        network = ip_network(f"{base}/{length}", strict=False)
        # Somewhere near it, for the most part.
        address = type(base)(int(base) ^ (noise >> size))
        for networks in ([network], [ip_network("192.0.2.0/31"), network]):
            found = Networks(map(str, networks))
            self.assertEqual(str(address) in found, any(address in one for one in networks))
            if isinstance(address, IPv4Address):
                self.assertEqual(f"::ffff:{address}" in found, any(address in one for one in networks))


def x_forwarded(**values: str) -> Client:
    """Read ``X-Forwarded-...`` from proxies of which two are trusted."""
    headers = {b"x-forwarded-" + name.encode(): value.encode() for name, value in values.items()}
    if host := headers.pop(b"x-forwarded-own", None):
        headers[b"host"] = host
    return read_x_forwarded(headers, Networks([PROXY, CDN]).__contains__)


def forwarded(value: str) -> Client:
    """Read ``Forwarded`` from the same."""
    return read_forwarded({b"forwarded": value.encode("latin-1")}, Networks([PROXY, CDN]).__contains__)


LEFT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


class XForwardedTests(SynchronousTestCase):
    def test_empty_x_forwarded_headers_name_no_client(self) -> None:
        self.assertEqual(x_forwarded(), Client())
        self.assertEqual(x_forwarded(**{"for": "", "host": " , ", "proto": ",", "port": ""}), Client())

    def test_the_client_is_the_first_from_the_right_that_is_not_trusted(self) -> None:
        for value, address in (
            (CLIENT, CLIENT),
            (f"{OTHER}, {CLIENT}", CLIENT),
            (f"{CLIENT}, {CDN}", CLIENT),
            (f"{OTHER}, {CLIENT}, {CDN},{PROXY}", CLIENT),
            (f"{CDN}, {PROXY}", CDN),
            (f"{CLIENT}:50123", CLIENT),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:DB8:0::1]:443", "2001:db8::1"),
            ("::ffff:203.0.113.9", CLIENT),
            (f"{CLIENT}, ::ffff:{CDN}", CLIENT),
            ("unknown", "unknown"),
            ("_gateway", "_gateway"),
        ):
            self.assertEqual(x_forwarded(**{"for": value}).address, address, value)

    @given(LEFT)
    def test_addresses_left_of_the_client_are_ignored(self, left: str) -> None:
        self.assertEqual(x_forwarded(**{"for": f"{left},{CLIENT}, {CDN}"}).address, CLIENT)

    def test_scheme_and_host_are_those_of_the_nearest_proxy(self) -> None:
        said = x_forwarded(proto="http, HTTPS", host="evil.example, outer.example:8443")
        self.assertEqual((said.scheme, said.authority), (b"https", b"outer.example:8443"))

    def test_a_port_completes_a_host_without_one(self) -> None:
        for values, authority in (
            ({"host": "a.example", "port": "8443"}, b"a.example:8443"),
            ({"host": "a.example:1", "port": "8443"}, b"a.example:1"),
            ({"host": "a.example", "port": "443"}, b"a.example"),
            ({"host": "a.example", "port": "80"}, b"a.example"),
            ({"host": "[2001:db8::1]", "port": "8443"}, b"[2001:db8::1]:8443"),
            ({"host": "[2001:db8::1]:2", "port": "8443"}, b"[2001:db8::1]:2"),
            ({"own": "b.example", "port": "8443"}, b"b.example:8443"),
            ({"own": "b.example:3", "port": "8443"}, None),
            ({"port": "8443"}, None),
        ):
            self.assertEqual(x_forwarded(**values).authority, authority, values)

    def test_malformed_x_forwarded_headers_are_rejected_by_name(self) -> None:
        for name, values in (
            (
                "For",
                (
                    "me",
                    "1.2.3",
                    "1.2.3.400",
                    "1.2.3.4:x",
                    "[1.2.3.4",
                    "::1::2",
                    "fe80::1%eth0",
                    "<b>",
                    f"{CLIENT} {CDN}",
                ),
            ),
            ("Host", ("a b", "a/b", "http://a", "a:b", ":80", "a@b", "\xe4")),
            ("Proto", ("ftp", "https/1.1", "on", "h ttps")),
            ("Port", ("0", "http", "65536", "-1", "8443a")),
        ):
            for value in values:
                error = self.assertRaises(InvalidRequest, x_forwarded, **{name.lower(): value, "own": "h"})
                self.assertIn(f"X-Forwarded-{name} must be", str(error))


class ForwardedTests(SynchronousTestCase):
    def test_an_empty_forwarded_header_names_no_client(self) -> None:
        for value in ("", ",", " ; , ;", "by=_us"):
            self.assertEqual(forwarded(value), Client(), value)

    def test_one_forwarded_element_is_parsed(self) -> None:
        for value, expected in (
            (f"for={CLIENT};proto=https;host=a.example", Client(CLIENT, b"https", b"a.example")),
            (f'For="{CLIENT}:4711";Proto="HTTPS";Host="a.example:8443"', Client(CLIENT, b"https", b"a.example:8443")),
            ('for="[2001:db8::1]:4711"', Client("2001:db8::1")),
            ('for="\\[2001:db8::1]"', Client("2001:db8::1")),
            ("for=unknown;by=_us;secret=x", Client("unknown")),
            ('for="_hidden:_port"', Client("_hidden")),
            ('host="a.example" ; proto=http', Client(None, b"http", b"a.example")),
        ):
            self.assertEqual(forwarded(value), expected, value)

    def test_the_client_is_in_the_element_of_the_outermost_trusted_proxy(self) -> None:
        said = forwarded(
            f"for={OTHER};host=evil.example, for={CLIENT};host=outer.example;proto=https, "
            f"for={CDN};host=inner;proto=http"
        )
        self.assertEqual(said, Client(CLIENT, b"https", b"outer.example"))

    def test_missing_parameters_are_taken_from_the_next_element(self) -> None:
        said = forwarded(f"for={CLIENT};proto=https, for={CDN};host=inner;proto=http")
        self.assertEqual(said, Client(CLIENT, b"https", b"inner"))

    def test_elements_left_of_one_without_a_client_are_ignored(self) -> None:
        self.assertEqual(forwarded(f"for={OTHER};host=evil.example, host=inner"), Client(None, None, b"inner"))

    @given(LEFT)
    def test_elements_from_the_client_are_rejected_or_ignored(self, left: str) -> None:
        try:
            said = forwarded(f"{left}, for={CLIENT};host=a.example")
        except InvalidRequest:
            return
        self.assertEqual((said.address, said.authority), (CLIENT, b"a.example"))

    def test_malformed_forwarded_headers_are_rejected(self) -> None:
        for value in (
            "for",
            "for=",
            f"for={CLIENT}:80",
            "for=2001:db8::1",
            'for="2001:db8::1"',
            'for="[::1"',
            'for="unclosed',
            f"for={CLIENT};for={OTHER}",
            f"for={CLIENT} host=a",
            "for = a",
            "for=me",
            "proto=ftp",
            'host="a b"',
            "host=a:80",
            'host=""',
            'host="a\\"b"',
            "\xe4=b",
        ):
            error = self.assertRaises(InvalidRequest, forwarded, value)
            self.assertIn("Forwarded", str(error))


class OriginTests(SynchronousTestCase):
    def test_the_origin_is_the_one_that_the_client_sees(self) -> None:
        for caller, origin in (
            (Caller(), b"http://h"),
            (Caller(secure=True), b"https://h"),
            (Caller(client=Client()), b"http://h"),
            (Caller(secure=True, client=Client(scheme=b"http")), b"http://h"),
            (Caller(client=Client(scheme=b"https", authority=b"o:1")), b"https://o:1"),
        ):
            self.assertEqual(caller.origin(b"h"), origin)
        self.assertEqual(Caller(client=Client(scheme=b"https")).origin(None), b"")
        self.assertEqual(Caller(client=Client(authority=b"o")).origin(None), b"http://o")


@each_way
class TrustedTests(FrontTestCase):
    settings = X_FORWARDED

    def location(self, headers: Mapping[str, str]) -> str | None:
        reply = self.front.ask("PUT", BASE + "a", {**TEXT, **headers})
        self.assertEqual(reply.status, 201, bytes(reply.body))
        self.front.delete("a")
        return reply.get("location")

    def test_location_has_the_scheme_and_host_that_the_proxy_names(self) -> None:
        own = self.front.scheme
        for headers, origin in (
            ({}, f"{own}://streams.example"),
            ({"X-Forwarded-Proto": "http"}, "http://streams.example"),
            ({"X-Forwarded-Proto": "https"}, "https://streams.example"),
            ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "outer.example"}, "https://outer.example"),
            ({"X-Forwarded-Host": "outer.example", "X-Forwarded-Port": "8080"}, f"{own}://outer.example:8080"),
            ({"Forwarded": "host=evil.example;proto=gopher"}, f"{own}://streams.example"),
        ):
            for _ in range(2):
                self.assertEqual(self.location(headers), f"{origin}/v1/stream/a", headers)

    def test_the_client_is_the_one_that_the_proxy_names(self) -> None:
        told = noting(self.front)
        self.front.ask("GET", BASE + "a", {"X-Forwarded-For": f"{OTHER}, {CLIENT}"})
        self.front.ask("GET", BASE + "a", {"X-Forwarded-For": CLIENT, "Forwarded": f"for={OTHER}"})
        self.front.ask("GET", BASE + "a")
        self.assertEqual([client_of(asked) for asked in told.asked], [CLIENT, CLIENT, PROXY])
        self.assertEqual({asked.caller.address for asked in told.asked}, {PROXY})

    def test_malformed_headers_of_a_trusted_proxy_are_400(self) -> None:
        for target in (BASE + "a", "/healthz", "/nowhere"):
            for name, value in (
                ("X-Forwarded-For", "somebody"),
                ("X-Forwarded-Host", "a b"),
                ("X-Forwarded-Proto", "gopher"),
                ("X-Forwarded-Port", "many"),
            ):
                reply = self.front.ask("GET", target, {name: value})
                self.assertEqual((reply.status, reply.code), (400, "BAD_REQUEST"))
                self.assertIn(name, reply.json()["detail"])
            self.assertNotEqual(self.front.ask("GET", target, {"Forwarded": '"'}).status, 400)

    def test_a_request_keeps_the_id_given_by_the_proxy(self) -> None:
        for target in (BASE + "none", "/healthz"):
            if self.front.front == "site" and target == "/healthz":
                # What is beside the streams has ids on the daemon's own front only.
                continue
            for given_id in ("abc-1", "x" * 128, "A.b_c"):
                reply = self.front.ask("GET", target, {"X-Request-Id": given_id})
                self.assertEqual(reply.get("x-request-id"), given_id)
            for odd in ("", "a b", "x" * 129, "a,b", "\xe4", "<b>"):
                reply = self.front.ask("GET", target, {"X-Request-Id": odd})
                self.assertRegex(reply.get("x-request-id") or "", r"\A[0-9a-f]{8}-[0-9a-f]+\Z")


@each_way_in_turn
class PartsTests(FrontTestCase):
    settings = X_FORWARDED

    def test_repeated_forwarding_headers_are_joined(self) -> None:
        told = noting(self.front)
        peer = self.front.connect()
        lines = f"X-Forwarded-For: {OTHER}\r\nX-Forwarded-For: {CLIENT}\r\nX-Forwarded-Proto: https\r\n\r\n".encode()
        peer.send(request("PUT", BASE + "a", TEXT)[:-2] + lines, "PUT")
        self.assertEqual(peer.reply.get("location"), "https://streams.example/v1/stream/a")
        self.assertEqual([client_of(asked) for asked in told.asked], [CLIENT])


@each_way
class ForwardedFamilyTests(FrontTestCase):
    settings = FORWARDED

    def test_headers_of_the_other_family_are_ignored(self) -> None:
        for headers, origin in (
            ({"Forwarded": "proto=https;host=outer.example"}, "https://outer.example"),
            (
                {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "?"},
                f"{self.front.scheme}://streams.example",
            ),
        ):
            location = self.front.ask("PUT", BASE + "a", TEXT | headers).get("location")
            self.assertEqual(location, f"{origin}/v1/stream/a")
            self.front.delete("a")

    def test_a_malformed_forwarded_header_is_400(self) -> None:
        reply = self.front.ask("GET", BASE + "a", {"Forwarded": "for=::1"})
        self.assertEqual((reply.status, reply.code), (400, "BAD_REQUEST"))
        self.assertIn("Forwarded must be", reply.json()["detail"])


EVIL = {
    "X-Forwarded-For": OTHER,
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "666",
    "Forwarded": 'for="',
    "X-Request-Id": "mine",
    "X-User": "root",
}


def warnings(logs: Iterable[LogEvent]) -> list[LogEvent]:
    """Return the log events about proxies."""
    return [event for event in logs if event["log_namespace"] == "durable_streams.server.web.proxies"]


class UntrustedCases(FrontTestCase):
    """Forwarding headers that must be ignored."""

    def check(self) -> None:
        told = noting(self.front)
        for _ in range(2):
            reply = self.front.ask("PUT", BASE + "a", TEXT | EVIL)
            self.assertEqual(reply.get("location"), f"{self.front.scheme}://streams.example/v1/stream/a")
            self.assertNotEqual(reply.get("x-request-id"), "mine")
            self.front.delete("a")
        self.assertEqual({client_of(asked) for asked in told.asked}, {PROXY})
        self.assertEqual({asked.caller.identity for asked in told.asked}, {None})


@each_way
class DisabledTests(UntrustedCases):
    def test_forwarding_headers_are_ignored_without_a_warning_if_disabled(self) -> None:
        with capturedLogs() as logs:
            self.check()
        self.assertEqual(warnings(logs), [])


@each_way
class UntrustedTests(UntrustedCases):
    settings = believing("x-forwarded", "10.0.0.0/8", identity="X-User")

    def test_forwarding_headers_of_untrusted_peers_are_ignored(self) -> None:
        self.check()

    def test_ignored_forwarding_headers_are_logged_once_a_minute(self) -> None:
        with capturedLogs() as logs:
            for _ in range(5):
                self.front.ask("GET", BASE + "a", {"X-Forwarded-For": OTHER})
                self.front.ask("GET", "/healthz", {"Forwarded": f"for={OTHER}"})
            self.front.pass_time(59)
            self.front.ask("GET", BASE + "a", {"X-User": "root", "A": "b"})
            self.assertEqual([event["peer"] for event in warnings(logs)], [PROXY])
            self.front.pass_time(2)
            self.front.ask("GET", BASE + "a", {"X-User": "root", "B": "c"})
            self.front.ask("GET", BASE + "a", {"X-Other": "root"})
        self.assertEqual(len(warnings(logs)), 2)

    def test_other_ignored_headers_are_not_logged(self) -> None:
        with capturedLogs() as logs:
            self.front.ask("GET", BASE + "a", {"X-Other": "x"})
            self.front.ask("GET", "/healthz", {"X-Request-Id": "x"})
        self.assertEqual(warnings(logs), [])


def add_echo(app: Routes) -> None:
    """Add a page that answers with the names of the headers that it sees."""

    @app.route("/echo", methods=["GET"])
    def echo(request: PageRequest) -> Answer:
        return Answer(200, b"", b"\n".join(sorted(name.lower() for name, _ in request.fields)))


class TreeTests(SynchronousTestCase):
    """Pages see no forwarding header that is dropped."""

    def seen(self, kind: type[Front], settings: Settings) -> set[str]:
        front = kind(settings)
        self.addCleanup(front.stop)
        front.pages.add(add_echo)
        reply = front.ask("GET", "/echo", EVIL | {"Forwarded": "for=unknown", "X-Other": "x"})
        self.assertEqual(reply.status, 200, bytes(reply.body))
        return set(bytes(reply.body).decode().split("\n"))

    def test_pages_do_not_see_dropped_headers_on_both_fronts(self) -> None:
        family = {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port"}
        for kind in (ChannelFront, SiteFront):
            for settings, left in (
                (Settings(), {"x-user"}),
                (believing("x-forwarded", identity="X-User"), family),
                (believing("forwarded", identity="X-User"), {"forwarded"}),
                (believing("x-forwarded", "10.0.0.1", identity="X-User"), set[str]()),
            ):
                expected = {"host", "x-other", "x-request-id", *left}
                self.assertEqual(self.seen(kind, settings), expected, (kind, settings))


class IdentityTests(SynchronousTestCase):
    def test_the_identity_header_needs_a_trusted_proxy_with_a_certificate(self) -> None:
        proxies = Proxies(Clock().seconds, "x-forwarded", [PROXY], "X-User")
        for caller, believed in (
            (Caller(PROXY, True, True, "CN=proxy"), True),
            (Caller(PROXY, True, True), False),
            (Caller(CLIENT, True, False, "CN=client"), False),
            (Caller(CLIENT), False),
        ):
            reading = proxies.reading(caller)
            self.assertEqual(b"x-user" in reading.read, believed)
            self.assertEqual(b"x-user" in reading.dropped, not believed)

    def test_without_identity_mode_the_header_is_not_special(self) -> None:
        reading = Proxies(Clock().seconds, "x-forwarded", [PROXY]).reading(Caller(PROXY, True, True, "CN=proxy"))
        self.assertNotIn(b"x-user", reading.read | reading.dropped)

    def test_the_identity_is_from_the_header_or_else_the_certificate(self) -> None:
        proxies = Proxies(Clock().seconds, "x-forwarded", [PROXY], "X-User")
        proxy = Caller(PROXY, True, True, "CN=proxy")
        said = proxies.client({b"x-user": b"alice"})
        self.assertEqual(proxy.forwarding(said).identity, "alice")
        self.assertEqual(proxy.forwarding(proxies.client({b"x-user": b""})).identity, "CN=proxy")
        self.assertEqual(proxy.forwarding(proxies.client({})).identity, "CN=proxy")
        self.assertEqual(Caller(CLIENT, True, False, "CN=client").identity, "CN=client")
        self.assertIsNone(Caller(CLIENT).identity)


class PeerTests(SynchronousTestCase):
    """The peer of a connection."""

    def test_a_unix_socket_peer_is_named_unix(self) -> None:
        class Connection:
            def getPeer(self) -> IAddress:
                return UNIXAddress(None)

        for trusted, believed in ((["unix"], True), (["127.0.0.1", "0.0.0.0/0"], False)):
            caller = caller_on(Connection(), Proxies(Clock().seconds, "x-forwarded", trusted).trusts)
            self.assertEqual((caller.address, caller.trusted), (UNIX_PEER, believed))

    def test_cached_headers_of_trusted_peers_are_not_used_for_others(self) -> None:
        front = ChannelFront(X_FORWARDED)
        self.addCleanup(front.stop)
        told = noting(front)
        for address in (PROXY, OTHER, PROXY, OTHER):
            front.network.client_address = address
            for _ in range(2):
                front.ask("GET", BASE + "a", {"X-Forwarded-For": CLIENT, "X-Forwarded-Host": "outer.example"})
        self.assertEqual([client_of(asked) for asked in told.asked], [CLIENT, CLIENT, OTHER, OTHER] * 2)

    def test_a_cached_header_block_has_its_own_client(self) -> None:
        front = ChannelFront(X_FORWARDED)
        self.addCleanup(front.stop)
        told = noting(front)
        peer = front.connect()
        for client in (CLIENT, OTHER, CLIENT, OTHER):
            peer.send_request("GET", BASE + "a", {"X-Forwarded-For": client})
        peer.send_request("GET", BASE + "a")
        self.assertEqual([client_of(asked) for asked in told.asked], [CLIENT, OTHER, CLIENT, OTHER, PROXY])


class BalancedFront(ChannelFront):
    """The daemon's own HTTP/1.1 behind a balancer that speaks the PROXY protocol."""

    @staticmethod
    def wrap(factory: IProtocolFactory, clock: Clock) -> IProtocolFactory:
        return HAProxyWrappingFactory(factory)


class ProxyProtocolTests(SynchronousTestCase):
    def test_the_peer_is_the_address_from_the_proxy_protocol(self) -> None:
        front = BalancedFront(X_FORWARDED)
        self.addCleanup(front.stop)
        told = noting(front)
        peer = front.connect()
        # What the client says is not believed because the balancer would be.
        asked = request("PUT", BASE + "a", {**TEXT, "X-Forwarded-Host": "evil.example", "X-Forwarded-For": OTHER})
        peer.send(f"PROXY TCP4 {CLIENT} {PROXY} 50000 443\r\n".encode() + asked, "PUT")
        self.assertEqual(peer.reply.get("location"), "http://streams.example/v1/stream/a")
        self.assertEqual([client_of(asked) for asked in told.asked], [CLIENT])
