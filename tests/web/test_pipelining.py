"""Property tests: bodies are never parsed as requests, nor requests as bodies, in any packets."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamsError
from durable_streams.server.web.admission import Admission, AdmittedRequest, RequestLimits
from durable_streams.server.web.callers import NOBODY
from durable_streams.server.web.http1.intake import Intake
from durable_streams.server.web.http1.known_heads import HeadCache
from tests.support.fronts import BASE, chunked, request
from tests.support.intake import WithoutPages

#: A request that nobody sends: it stands in bodies.
HIDDEN = request("DELETE", BASE + "hidden")

UPGRADES: tuple[dict[str, str], ...] = (
    {},
    {"Connection": "Upgrade", "Upgrade": "websocket"},
    {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"},
    {"Upgrade": "websocket"},
)


class Sent(Struct, frozen=True):
    """A request of a client's."""

    method: str
    target: str
    upgrade: int
    framing: str
    body: bytes
    padding: int

    def written(self) -> tuple[bytes, bytes]:
        """Write its head and what follows that."""
        headers = {**UPGRADES[self.upgrade], "X-Pad": "x" * self.padding}
        if self.framing == "chunked":
            whole = request(self.method, self.target, {**headers, "Transfer-Encoding": "chunked"})
            pieces = [self.body[at : at + 20] for at in range(0, len(self.body), 20)]
            return whole, chunked(pieces)
        if self.framing == "length":
            return request(self.method, self.target, {**headers, "Content-Length": str(len(self.body))}), self.body
        return request(self.method, self.target, {"Host": "a", **headers}), b""

    @property
    def seen(self) -> tuple[str, str, bytes]:
        """The expected request."""
        return self.method, self.target, b"" if self.framing == "none" else self.body


class Owner(WithoutPages):
    """An owner that records requests."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def asked(self, request: AdmittedRequest, lives_on: bool, old: bool) -> None:
        body = request.body
        self.seen.append((request.method.decode(), request.target.decode(), body))

    def refused(self, error: StreamsError) -> None:
        self.seen.append(str(error))

    def expects_continue(self) -> None:
        self.seen.append("continue")


def seen(shared: HeadCache, data: bytes, cuts: list[int]) -> list[object]:
    """Parse the data in packets that are divided at these positions."""
    owner = Owner()
    intake = Intake(shared, owner, NOBODY)
    places = sorted({cut % len(data) for cut in cuts} | {0}) if data else []
    for start, end in zip(places, [*places[1:], len(data)], strict=True):
        fed = start
        while fed < end and not intake.deaf:
            fed += intake.feed(data[fed:end])
    return owner.seen


sendings = st.builds(
    Sent,
    # A POST or PUT always says how long its body is.
    st.sampled_from(["GET", "HEAD", "DELETE", "OPTIONS", "PATCH"]),
    st.sampled_from([BASE + "a", BASE + "b?offset=-1", "/healthz", "/v1"]),
    st.integers(0, len(UPGRADES) - 1),
    st.sampled_from(["none", "length", "chunked"]),
    st.sampled_from([b"", b"one", HIDDEN, b"\r\n\r\n", HIDDEN + b"x"]),
    st.integers(0, 60),
)
sequences = st.lists(sendings, min_size=1, max_size=6)

UPGRADED_POST = Sent("POST", BASE + "a", 1, "length", b"abc", 0)
UPGRADED_GET = Sent("GET", BASE + "b", 1, "none", b"", 0)
PLAIN_POST = Sent("POST", BASE + "c", 0, "length", HIDDEN, 14)


class PipeliningTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @example([UPGRADED_POST, UPGRADED_GET, PLAIN_POST], [])
    @given(sequences, st.lists(st.integers(0, 3000), max_size=30))
    def test_every_sent_request_is_parsed_once_and_unchanged(self, sent: list[Sent], cuts: list[int]) -> None:
        written = [each.written() for each in sent]
        shared = HeadCache(Admission(BASE.encode(), RequestLimits()))
        data = b"".join(head + body for head, body in written)
        for _ in range(2):
            # The second time, some heads are known.
            self.assertEqual(seen(shared, data, cuts), [each.seen for each in sent])

    def test_a_second_upgrade_request_in_a_packet_loses_no_bytes(self) -> None:
        shared = HeadCache(Admission(BASE.encode(), RequestLimits()))
        for padding in range(200):
            sent = [UPGRADED_POST, UPGRADED_GET, Sent("POST", BASE + "c", 0, "length", HIDDEN, padding)]
            data = b"".join(head + body for head, body in (each.written() for each in sent))
            self.assertEqual(seen(shared, data, []), [each.seen for each in sent])

    def test_a_head_in_several_packets_is_counted_once(self) -> None:
        for framing in ("length", "chunked"):
            head, body = Sent("POST", BASE + "a", 1, framing, HIDDEN, 60).written()
            shared = HeadCache(Admission(BASE.encode(), RequestLimits(header_bytes=len(head))))
            data = head + body
            self.assertEqual(seen(shared, data, list(range(len(data)))), [("POST", BASE + "a", HIDDEN)])
