"""HTTP/2 clients that send random frames to a server: no error in it, nothing kept, and others are served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import hpack
from hyperframe.frame import ContinuationFrame, HeadersFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.tcp import Server
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.callers import NOBODY
from tests.support.fronts import BASE, settings_with
from tests.support.http2 import Http2Front, Http2Peer
from tests.support.tls import TLSFront, TLSPeer
from tests.support.wire import Network, Socket

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class FramePeer(TLSPeer):
    """
    A client that sends frames as they are, and reads none.

    :ivar encoder: of its heads.
    """

    protocols = (b"h2",)

    def __init__(self, network: Network, skt: Socket, transport: Server, read_replies: bool) -> None:
        self.encoder = hpack.Encoder()
        super().__init__(network, skt, transport, False)

    def _open(self, piece: bytes) -> bytes:
        super()._open(piece)
        return b""


Step: TypeAlias = Callable[[FramePeer], bytes | float]


def raw(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return a frame, right or wrong."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def request(stream_id: int, line: tuple[str, str], extra: tuple[tuple[str, str], ...], ends: bool, cut: int) -> Step:
    """Send the head of a request."""

    def step(peer: FramePeer) -> bytes:
        method, target = line
        fields = [(":method", method), (":scheme", "https"), (":path", target), (":authority", "x"), *extra]
        block = peer.encoder.encode(fields)
        flags = ["END_STREAM"] if ends else []
        if not cut:
            return bytes(HeadersFrame(stream_id, block, flags=[*flags, "END_HEADERS"]).serialize())
        rest = ContinuationFrame(stream_id, block[cut:], flags=["END_HEADERS"])
        return bytes(HeadersFrame(stream_id, block[:cut], flags=flags).serialize() + rest.serialize())

    return step


def constant(step: bytes | float) -> Step:
    """Send a frame, or let some seconds pass."""
    return lambda _: step


STREAMS: Final = st.sampled_from([1, 1, 3, 3, 5, 7, 9, 11, 2])
LINES: Final = st.sampled_from(
    [
        ("PUT", BASE + "new"),
        ("POST", BASE + "a"),
        ("GET", BASE + "a"),
        ("GET", BASE + "large"),
        ("GET", BASE + "a?offset=-1&live=sse"),
        ("GET", BASE + "large?offset=-1&live=sse"),
        ("GET", BASE + "a?offset=now&live=long-poll"),
        ("HEAD", BASE + "a"),
        ("DELETE", BASE + "new"),
        ("GET", "/healthz"),
        ("CONNECT", "x"),
        ("OPTIONS", "*"),
        ("GET", "nowhere"),
    ]
)
EXTRA: Final = st.sampled_from(
    [
        *[(), (("content-type", "text/plain"),), (("content-type", "text/plain"), ("content-length", "5"))],
        *[(("content-length", "99999999"),), (("expect", "100-continue"), ("content-type", "text/plain"))],
        *[(("stream-seq", "1"), ("stream-seq", "2")), (("x-large", "x" * 5000),), (("host", "x"),)],
    ]
)
STEPS: Final = st.lists(
    st.one_of(
        st.builds(request, STREAMS, LINES, EXTRA, st.booleans(), st.sampled_from([0, 0, 0, 2])),
        st.builds(request, STREAMS, LINES, EXTRA, st.booleans(), st.just(0)),
        st.builds(
            lambda stream_id, size, ends: constant(raw(0, ends, stream_id, b"x" * size)),
            STREAMS,
            st.sampled_from([0, 5, 5, 300, 16_000]),
            st.sampled_from([0, 1]),
        ),
        st.builds(lambda stream_id: constant(raw(3, 0, stream_id, bytes(4))), STREAMS),
        st.builds(
            lambda stream_id, more: constant(raw(8, 0, stream_id, more.to_bytes(4, "big"))),
            st.sampled_from([0, 1, 3, 5]),
            st.sampled_from([1, 100, 100_000, 2**31 - 1]),
        ),
        st.builds(
            lambda setting, value: constant(raw(4, 0, 0, setting.to_bytes(2, "big") + value.to_bytes(4, "big"))),
            st.sampled_from([1, 4, 4, 4, 5]),
            st.sampled_from([0, 10, 4096, 20_000, 1_000_000]),
        ),
        st.sampled_from([0.5, 1.5, 4.0]).map(constant),
        st.sampled_from(
            [raw(7, 0, 0, bytes(8)), raw(6, 0, 0, bytes(8)), raw(4, 1, 0, b""), raw(99, 0, 0, b"x"), b"\0"]
        ).map(constant),
    ),
    max_size=20,
)


class RandomTests(SynchronousTestCase):
    def check(self, steps: list[Step], joined: bool, late: bool) -> None:
        """Have a client send frames and leave, while another asks."""
        front = Http2Front(settings_with({"body_timeout_secs": 5}, max_request_body_bytes=40_000), late)
        try:
            front.create("a", body=b"hello")
            front.create("large", body=b"x")
            for _ in range(5):
                front.append_directly("large", b"x" * 40_000, "text/plain")
            front.peer_type = FramePeer  # type: ignore[assignment]
            peer = TLSFront.connect(front)
            [channel] = front.channels._channels
            assert isinstance(peer, FramePeer)
            pending = PREFACE + raw(4, 0, 0, b"")
            for step in steps:
                found = step(peer)
                if isinstance(found, bytes):
                    pending += found
                if isinstance(found, float) or not joined:
                    peer.send(pending)
                    pending = b""
                    front.pass_time(found if isinstance(found, float) else 0)
            peer.send(pending)
            front.append_directly("a", b"more", "text/plain")
            front.pass_time(0.5)
            front.peer_type = Http2Peer
            self.assertEqual(front.ask("GET", BASE + "a").status, 200)
            peer.leave()
            front.pass_time(0.5)
            self.assertNotIn(channel, front.channels._channels)
            for name in ("body_bytes", "waiting_bytes", "reads"):
                self.assertEqual(getattr(channel, name), 0, name)
            self.assertEqual(vars(channel)["exchanges"], {})
            self.assertEqual(front.channels.admission(NOBODY).incoming.size, 0)
        finally:
            front.stop()
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(max_examples=60, deadline=None)
    @given(STEPS, st.booleans())
    def test_a_lost_client_leaves_no_state_and_others_are_served(self, steps: list[Step], joined: bool) -> None:
        self.check(steps, joined, False)

    @settings(max_examples=60, deadline=None)
    @given(STEPS, st.booleans())
    def test_a_lost_client_leaves_no_state_with_a_slow_storage(self, steps: list[Step], joined: bool) -> None:
        self.check(steps, joined, True)
