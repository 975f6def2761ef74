"""Tests of the header cache: requests from the cache equal parsed ones."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamsError
from durable_streams.server.web.admission import Admission, AdmissionPolicy, AdmittedRequest, RequestLimits
from durable_streams.server.web.callers import NOBODY, Caller, Client
from durable_streams.server.web.http1.intake import Intake
from durable_streams.server.web.http1.known_heads import HeadCache
from durable_streams.server.web.proxies import Proxies
from durable_streams.server.web.requests import StreamRequest
from tests.support.intake import WithoutPages

BASE = b"/v1/stream/"


class Owner(WithoutPages):
    """An owner that records its calls."""

    def __init__(self, shared: HeadCache, caller: Caller = NOBODY) -> None:
        self.told: list[object] = []
        self.intake = Intake(shared, self, caller)

    def asked(self, request: AdmittedRequest, lives_on: bool, old: bool) -> None:
        what: object = type(request)
        if isinstance(request, StreamRequest):
            line = (request.method, request.mount, request.path, request.query, request.version)
            what = (*line, dict(request.headers), request.body, request.caller)
        self.told.append((what, lives_on, old))

    def refused(self, error: StreamsError) -> None:
        self.told.append((type(error), str(error)))

    def expects_continue(self) -> None:
        self.told.append("continue")

    def take(self, packets: list[bytes]) -> list[object]:
        for packet in packets:
            if not self.intake.deaf:
                self.intake.feed(packet)
                self.told.append(("unfinished", self.intake.unfinished))
        return self.told


class Forgetful(HeadCache):
    """Parses every head."""

    def remember(self, block: bytes, headers: dict[bytes, bytes], length: int, client: Client | None = None) -> None:
        pass


LIMITS = RequestLimits(header_bytes=400, target_bytes=100, body_bytes=20)


def shared_by(kind: type[HeadCache]) -> HeadCache:
    return kind(Admission(BASE, LIMITS))


def post(path: bytes, body: bytes, *lines: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"POST %b%b HTTP/1.1" % (BASE, path), b"Host: a", length, *lines, b"", body])


GET = b"GET /v1/stream/a?offset=-1 HTTP/1.1\r\nHost: a\r\n\r\n"

WHOLE = [
    post(b"a", b"one"),
    post(b"a", b"two"),
    post(b"a", b""),
    post(b"b", b"\r\n\r\n"),
    post(b"a", b"GET / HTTP/1.1\r\n\r\n"[:20]),
    post(b"a", b"x" * 21),
    post(b"a", b"one", b"Connection: close"),
    post(b"a", b"one", b"Expect: 100-continue"),
    post(b"a", b"one", b"Upgrade: h2c", b"Connection: Upgrade"),
    post(b"a", b"one", b"X-Long: " + b"y" * 300),
    b"POST /v1/stream/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
    GET,
    GET.replace(b"GET", b"HEAD"),
    GET.replace(b"GET", b"get"),
    GET.replace(b"GET", b"BREW"),
    GET.replace(b"a?", b"a%2Fb/c?live=sse&"),
    GET.replace(b"a?", b"?"),
    GET.replace(b"a?", b"x" * 90 + b"?"),
    GET.replace(b"a?", b"a#b?"),
    GET.replace(b"a?", b"a\xc3\xa9?"),
    GET.replace(b" HTTP", b"  HTTP"),
    GET.replace(b"/v1/stream/", b"http://a/v1/stream/"),
    GET.replace(b"/v1/stream/", b"/v1/streams/"),
    GET.replace(b"1.1\r\n", b"1.1 \r\n"),
    GET.replace(b"\r\nHost", b"\nHost"),
    GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
    GET.replace(b"Host: a\r\n", b""),
    b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n" + GET,
    b"\r\n\r\n",
    b"no request\r\n\r\n",
]

pieces = st.one_of(
    st.sampled_from(WHOLE),
    st.tuples(st.sampled_from(WHOLE), st.sampled_from(WHOLE)).map(b"".join),
    st.tuples(st.sampled_from(WHOLE), st.integers(1, 40)).map(lambda cut: cut[0][: cut[1]]),
    st.tuples(st.sampled_from(WHOLE), st.integers(1, 40)).map(lambda cut: cut[0][cut[1] :]),
)


#: Lines of headers, those among them that two readers may take in two ways.
HEADER_LINES = [
    *(b"Host: a", b"host: b", b"HOST: a:80", b"Host:", b"Host: a b", b"Host: [::1]", b"Host: [::1", b"Host: a,b"),
    *(b"Content-Length: 3", b"content-length:3", b"Content-Length: 0", b"Content-Length: 003", b"Content-Length: 3, 3"),
    *(b"Content-Length: +3", b"Content-Length: 21", b"Content-Length: 3 ", b"Content-Length : 3", b"Content-Length:"),
    *(b"Content-Length: 99999999999999999999", b"Content-Length: 0x3", b"Content-Length:\t3", b"Content_Length: 3"),
    *(b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED", b"Transfer-Encoding: identity"),
    *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:", b"Transfer-Encoding : chunked"),
    *(b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket"),
    *(b"Expect: 100-continue", b"Expect: nothing", b"Stream-Closed: true", b"Stream-Seq: 1", b"Stream-Seq: 1 \t"),
    *(b"If-None-Match: a", b"Producer-Id: a", b"Producer-Id: \xff", b"Content-Type: text/plain", b"X: " + b"y" * 300),
    *(b" folded", b"\tContent-Length: 3", b"no colon", b": no name", b"X: a\x00b", b"X: a\rb", b"X: a\nHost: b", b""),
    *(b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-For: nobody", b"X-Forwarded-Host: c", b"X-Forwarded-Proto: https"),
    *(b"X-Forwarded-Proto: gopher", b"X-Request-Id: seven", b"Forwarded: for=1.2.3.4", b"Forwarded: ;;="),
]

#: Request lines: the same headers may come behind each of them.
REQUEST_LINES = [
    *(b"POST /v1/stream/a HTTP/1.1", b"POST /v1/stream/b?c=d HTTP/1.1", b"GET /v1/stream/a?offset=-1 HTTP/1.1"),
    *(b"PUT /v1/stream/a HTTP/1.1", b"DELETE /v1/stream/a HTTP/1.1", b"HEAD /v1/stream/a HTTP/1.1"),
    *(
        b"OPTIONS /v1/stream/a HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT a:80 HTTP/1.1",
        b"CONNECT /v1/stream/a HTTP/1.1",
    ),
    *(b"POST http://a/v1/stream/a HTTP/1.1", b"POST http://b/v1/stream/a HTTP/1.1", b"POST /v1/stream/a#b HTTP/1.1"),
    *(
        b"POST /v1/stream/a HTTP/1.0",
        b"POST /v1/stream/a HTTP/2.0",
        b"POST /v1/stream/a HTTP/1.2",
        b"POST /v1/stream/a",
    ),
    *(b"POST /v1/stream/" + b"x" * 90 + b" HTTP/1.1", b"POST /v1/stream HTTP/1.1", b"POST /healthz HTTP/1.1"),
    *(b"POST  /v1/stream/a HTTP/1.1", b"POST\t/v1/stream/a HTTP/1.1", b"POST /v1/stream/\xc3\xa9 HTTP/1.1"),
]

BODIES = [b"", b"one", b"two", b"3\r\none\r\n0\r\n\r\n", b"0\r\n\r\n", b"x" * 21, b"GET / HTTP/1.1\r\n\r\n"]

#: A head that is admitted often enough for the cache to be used, and any other.
blocks = st.one_of(
    st.lists(st.sampled_from(HEADER_LINES), max_size=3).map(lambda more: [b"Host: a", b"Content-Length: 3", *more]),
    st.lists(st.sampled_from(HEADER_LINES), max_size=5),
)

line_ends = st.sampled_from([b"\r\n"] * 8 + [b"\n"])


@st.composite
def same_headers(draw: st.DrawFn) -> list[bytes]:
    """Draw requests that have one block of headers behind different request lines, with different bodies."""
    end = draw(line_ends)
    block = end.join([*draw(blocks), b"", b""])
    lines = st.one_of(st.sampled_from(REQUEST_LINES[:3]), st.sampled_from(REQUEST_LINES))
    bodies = st.one_of(st.sampled_from(BODIES[1:3]), st.sampled_from(BODIES))
    sent = draw(st.lists(st.tuples(lines, bodies), min_size=2, max_size=5))
    return [line + end + block + body for line, body in sent]


#: The beginnings of lines whose values vary, in the spellings that the cache looks for and in others.
VARYING_LINES = [
    *(b"Content-Length: ", b"content-length: ", b"CONTENT-LENGTH: ", b"Content-Length:", b"Content-Length:  "),
    *(
        b"Producer-Seq: ",
        b"producer-seq: ",
        b"Producer-Seq:\t",
        b"Stream-Seq: ",
        b"If-None-Match: ",
        b"if-none-match: ",
    ),
    *(b"Traceparent: ", b"X-Request-Id: ", b"x-request-id: ", b"X-Producer-Seq: "),
]

#: Values of such lines; most are a valid length of one of the bodies, so that requests are admitted.
VARYING_VALUES = [
    *(b"3", b"3", b"3", b"0", b"003", b"18", b"21", b"17", b"7", b"99999999999999999999", b"0000000000000003"),
    *(
        b"",
        b" ",
        b"3 ",
        b" 3",
        b"3\t",
        b"+3",
        b"-3",
        b"3,3",
        b"3, 3",
        b"0x3",
        b"a",
        b"a b",
        b'"a"',
        b"\xff",
        b"\xc3\xa9",
    ),
    *(
        b"3\r\n 4",
        b"3\n",
        b"3\rX: a",
        b"3\x00",
        b"3\x7f",
        b"3\r\nContent-Length: 3",
        b"3\r\nTransfer-Encoding: chunked",
    ),
    b"x" * 257,
]


@st.composite
def varied_headers(draw: st.DrawFn) -> list[bytes]:
    """Draw requests whose headers differ only in the values of some lines."""
    names = [
        draw(st.sampled_from(VARYING_LINES[:2])),
        *draw(st.lists(st.sampled_from(VARYING_LINES), max_size=2)),
    ]
    others = draw(st.lists(st.sampled_from(HEADER_LINES), max_size=1))
    order = draw(st.permutations([*names, *others]))
    sent = []
    for _ in range(draw(st.integers(2, 5))):
        lines = [b"Host: a"]
        for line in order:
            value = draw(st.one_of(st.just(b"3"), st.sampled_from(VARYING_VALUES))) if line in names else b""
            lines.append(line + value)
        body = draw(st.one_of(st.sampled_from(BODIES[1:3]), st.sampled_from(BODIES)))
        sent.append(b"\r\n".join([draw(st.sampled_from(REQUEST_LINES[:3])), *lines, b"", body]))
    return sent


PROXIES = [
    Proxies(lambda: 0.0),
    Proxies(lambda: 0.0, "x-forwarded", ["9.9.9.9"]),
    Proxies(lambda: 0.0, "forwarded", ["9.9.9.9"]),
]


class KnownHeadTests(SynchronousTestCase):
    @settings(max_examples=1500, deadline=None)
    @given(same_headers(), st.sampled_from(PROXIES), st.booleans())
    def test_known_headers_are_admitted_as_the_parser_alone_admits_them(
        self, packets: list[bytes], proxies: Proxies, is_trusted: bool
    ) -> None:
        # On one connection each, so that a refusal does not hide the rest; then all on one.
        self.check_alike([*([packet] for packet in packets), packets, packets], proxies, is_trusted)

    @settings(max_examples=1500, deadline=None)
    @given(varied_headers(), st.sampled_from(PROXIES), st.booleans())
    def test_headers_that_differ_in_some_values_are_admitted_as_the_parser_alone_admits_them(
        self, packets: list[bytes], proxies: Proxies, is_trusted: bool
    ) -> None:
        alone = [[packet] for packet in packets]
        self.check_alike([*alone, *alone, packets, packets], proxies, is_trusted)

    def test_every_varying_value_is_admitted_as_the_parser_alone_admits_it(self) -> None:
        for line in VARYING_LINES:
            for value in VARYING_VALUES:
                packets = [
                    b"\r\n".join([REQUEST_LINES[0], b"Host: a", *lines, b"", body])
                    for each in (b"3", value)
                    for body in (b"one", b"x" * 18)
                    for lines in (
                        [line + each],
                        [b"Content-Length: 3", line + each],
                        [line + each, b"content-length: 3"],
                        [b"Content-Length: %d" % len(body), b"Producer-Seq: 3", line + each],
                    )
                ]
                alone = [[packet] for packet in packets]
                self.check_alike([*alone, *alone, *alone], PROXIES[1], True)

    def test_every_two_header_lines_are_admitted_as_the_parser_alone_admits_them(self) -> None:
        for first in HEADER_LINES:
            for second in HEADER_LINES:
                lines = [REQUEST_LINES[0], b"Host: a", b"Content-Length: 3", first, second, b"", b"one"]
                self.check_alike([[b"\r\n".join(lines)]] * 2, PROXIES[1], True)

    def check_alike(self, connections: list[list[bytes]], proxies: Proxies, is_trusted: bool) -> None:
        """Compare the requests from a connection with a header cache with those from one without."""
        caller = Caller("9.9.9.9", trusted=is_trusted)
        admission = AdmissionPolicy(BASE, LIMITS, proxies, frozenset([b"user-agent"])).admission(caller)
        learning = HeadCache(admission)
        for connection in connections:
            alone = Owner(Forgetful(admission), caller).take(connection)
            self.assertEqual(Owner(learning, caller).take(connection), alone, connection)

    @settings(max_examples=600, deadline=None)
    @given(st.lists(st.lists(pieces, max_size=6), min_size=1, max_size=3))
    def test_every_connection_gets_the_same_answers_as_from_the_parser_alone(
        self, connections: list[list[bytes]]
    ) -> None:
        learning = shared_by(HeadCache)
        for packets in connections:
            # Whatever was learned before, from others too.
            for _ in range(2):
                alone = Owner(shared_by(Forgetful)).take(packets)
                self.assertEqual(Owner(learning).take(packets), alone)

    def test_a_head_is_parsed_once(self) -> None:
        shared = shared_by(HeadCache)
        owner = Owner(shared)
        owner.take([post(b"a", b"one")])
        self.assertEqual(len(shared), 0)
        owner.take([post(b"a", b"one")])
        self.assertEqual(len(shared), 1)
        parsed: list[bytes] = []
        self.patch(owner.intake, "_feed", parsed.append)
        owner.take([post(b"a", b"two"), post(b"b?c=d", b"longer")])
        self.assertEqual(parsed, [])
        bodies = [told[0][6] for told in owner.told if isinstance(told, tuple) and isinstance(told[0], tuple)]
        self.assertEqual(bodies, [b"one", b"one", b"two", b"longer"])

    def test_the_headers_of_a_producer_are_cached_after_its_second_append(self) -> None:
        shared = shared_by(HeadCache)
        owner = Owner(shared)
        requests = [
            post(b"a", b"x" * (number + 1), b"Producer-Id: a", b"Producer-Epoch: 0", b"Producer-Seq: %d" % number)
            for number in range(12)
        ]
        owner.take(requests[:2])
        self.patch(owner.intake, "_feed", self.fail)
        owner.take(requests[2:])
        headers = [told[0][5] for told in owner.told if isinstance(told, tuple) and isinstance(told[0], tuple)]
        self.assertEqual([each[b"producer-seq"] for each in headers], [b"%d" % number for number in range(12)])
        self.assertEqual([each[b"content-length"] for each in headers], [b"%d" % (number + 1) for number in range(12)])
        self.assertEqual(len(shared), 1)

    def test_blocks_seen_once_do_not_evict_a_repeated_one(self) -> None:
        shared = shared_by(HeadCache)
        again = post(b"a", b"one", b"X-Client: a")
        Owner(shared).take([again, again])
        for number in range(10_000):
            Owner(shared).take([post(b"a", b"one", b"X-Number: %d" % number)])
            if number % 500 == 0:
                owner = Owner(shared)
                self.patch(owner.intake, "_feed", self.fail)
                owner.take([again])
        self.assertEqual(len(shared), 1)

    def test_blocks_seen_twice_do_not_evict_one_in_use(self) -> None:
        shared = shared_by(HeadCache)
        again = post(b"a", b"one", b"X-Client: a")
        Owner(shared).take([again, again])
        for number in range(5_000):
            other = post(b"a", b"one", b"X-Number: %d" % number)
            Owner(shared).take([other, other])
            if number % 500 == 0:
                owner = Owner(shared)
                self.patch(owner.intake, "_feed", self.fail)
                owner.take([again])

    def test_a_request_in_several_packets_keeps_the_next_ones_headers_cached(self) -> None:
        shared = shared_by(HeadCache)
        owner = Owner(shared)
        whole = post(b"a", b"one")
        owner.take([whole, whole, whole[:-2], whole[-2:]])
        self.patch(owner.intake, "_feed", self.fail)
        owner.take([whole])

    def test_the_header_cache_is_bounded(self) -> None:
        shared = shared_by(HeadCache)
        for number in range(5000):
            Owner(shared).take([post(b"a", b"one", b"X-Number: %d" % number)] * 2)
        self.assertLessEqual(len(shared), 2048)
        self.assertGreater(len(shared), 1000)

    def test_a_large_header_block_is_not_cached(self) -> None:
        shared = HeadCache(Admission(BASE, RequestLimits(header_bytes=4000)))
        Owner(shared).take([post(b"a", b"one", b"X-Long: " + b"y" * 3000)] * 3)
        self.assertEqual(len(shared), 0)
