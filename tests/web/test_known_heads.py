"""Heads that were taken in before are not parsed again, and nobody can tell."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamsError
from durable_streams.server.web.admission import Admission, AdmittedRequest, RequestLimits
from durable_streams.server.web.callers import NOBODY, Client
from durable_streams.server.web.http1.intake import Intake
from durable_streams.server.web.http1.known_heads import HeadCache
from durable_streams.server.web.requests import StreamRequest

BASE = b"/v1/stream/"


class Owner:
    """Writes down what it is told."""

    def __init__(self, shared: HeadCache) -> None:
        self.told: list[object] = []
        self.intake = Intake(shared, self, NOBODY)

    def asked(self, request: AdmittedRequest, lives_on: bool, old: bool) -> None:
        what: object = type(request)
        if isinstance(request, StreamRequest):
            what = (request.method, request.mount, request.path, request.query, dict(request.headers), request.body)
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


def shared_by(kind: type[HeadCache]) -> HeadCache:
    return kind(Admission(BASE, RequestLimits(header_bytes=400, target_bytes=100, body_bytes=20)))


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


class KnownHeadTests(SynchronousTestCase):
    @settings(max_examples=600, deadline=None)
    @given(st.lists(st.lists(pieces, max_size=6), min_size=1, max_size=3))
    def test_every_connection_is_told_the_same_as_by_the_parser_alone(self, connections: list[list[bytes]]) -> None:
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
        self.assertEqual(list(shared.blocks), [b"\r\nHost: a\r\nContent-Length: 3\r\n\r\n"])
        parsed: list[bytes] = []
        self.patch(owner.intake, "_feed", parsed.append)
        owner.take([post(b"a", b"two"), post(b"b?c=d", b"six")])
        self.assertEqual(parsed, [])
        bodies = [told[0][5] for told in owner.told if isinstance(told, tuple) and isinstance(told[0], tuple)]
        self.assertEqual(bodies, [b"one", b"two", b"six"])

    def test_a_request_that_came_in_pieces_leaves_the_next_one_known(self) -> None:
        shared = shared_by(HeadCache)
        owner = Owner(shared)
        whole = post(b"a", b"one")
        owner.take([whole, whole[:-2], whole[-2:]])
        self.patch(owner.intake, "_feed", self.fail)
        owner.take([whole])

    def test_heads_are_bounded(self) -> None:
        shared = shared_by(HeadCache)
        for number in range(5000):
            Owner(shared).take([post(b"a", b"one", b"X-Number: %d" % number)])
        self.assertLessEqual(len(shared.blocks), 2048)
        Owner(shared).take([post(b"a", b"one", b"X-Long: " + b"y" * 3000)])
        self.assertLessEqual(max(map(len, shared.blocks)), 2048)
