"""
Random bytes, mutated requests and random packets: the server answers as if nothing had happened, and always alike.

How many examples are tried of each, ``FUZZ_EXAMPLES`` says.
"""

from __future__ import annotations

import os
import re
from typing import TypeAlias

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fronts import BASE, ChannelFront, Front, SiteFront, WrappedFront, chunked, request, settings_with
from tests.support.replies import ReplyReader

SETTINGS = settings_with(
    {"long_poll_timeout_secs": 1, "sse_reconnect_interval_secs": 2}, max_request_body_bytes=2_000, max_streams=50
)

#: What of an answer must not depend on the packets: all of it, but for the moment.
Digest: TypeAlias = "tuple[int, frozenset[tuple[str, str]], bytes]"

_MOMENTS = frozenset(["date", "stream-cursor", "server", "x-request-id"])
_INCARNATION = re.compile(r"18000000[0-9]{8}")
_CURSOR = re.compile(r'"streamCursor":"[0-9]+"')

fuzzing = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "25")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

# Requests that may come

names = st.sampled_from(["a", "a", "a", "j", "b", "c/d", "%61", "none", "", "..", "%zz", "__ds", "x" * 2000])
texts = st.one_of(
    st.sampled_from(
        ["", "true", "0", "1", "5", "-1", "now", "a", "text/plain", "application/json", "*", '"x"', "1" * 20]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, blacklist_characters="\x7f"), max_size=12),
)
header_names = st.sampled_from(
    [
        *("Content-Type", "Stream-TTL", "Stream-Expires-At", "Stream-Closed", "Stream-Seq", "Stream-Forked-From"),
        *("Stream-Fork-Offset", "Stream-Fork-Sub-Offset", "Producer-Id", "Producer-Epoch", "Producer-Seq", "Origin"),
        *("If-None-Match", "Connection", "Expect", "Upgrade", "Host", "Cookie", "Content-Length", "Transfer-Encoding"),
    ]
)
queries = st.sampled_from(
    [
        *("", "", "?offset=-1", "?offset=now", "?offset=-1&live=long-poll", "?offset=now&live=long-poll", "?offset=x"),
        *("?offset=-1&live=sse", "?live=sse", "?offset=-1&live=x", "?cursor=5&offset=-1&live=long-poll", "?&=&"),
    ]
)
bodies = st.one_of(
    st.sampled_from([b"", b"x", b"[1,2]", b'{"a":1}', b"[", b"x" * 1500, b"x" * 2500]), st.binary(max_size=30)
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, most often a sound one."""
    method = draw(st.sampled_from(["GET", "GET", "POST", "POST", "PUT", "PUT", "DELETE", "OPTIONS", "PATCH"]))
    path = draw(
        st.one_of(names.map(lambda name: BASE + name), st.sampled_from(["/healthz", "/readyz", "/", "*", "/x%ff"]))
    )
    headers = draw(st.dictionaries(header_names, texts, max_size=3))
    if method in ("POST", "PUT") and draw(st.integers(0, 9)):
        headers.setdefault("Content-Type", draw(st.sampled_from(["text/plain", "text/plain", "application/json"])))
    if draw(st.integers(0, 9)):
        for name in ("Host", "Content-Length", "Transfer-Encoding", "Upgrade"):
            headers.pop(name, None)
    body = draw(bodies) if method in ("POST", "PUT", "PATCH") else b""
    version = draw(st.sampled_from(["1.1"] * 8 + ["1.0"]))
    if body and not draw(st.integers(0, 3)) and "Transfer-Encoding" not in headers:
        size = draw(st.integers(1, 10))
        pieces = [body[place : place + size] for place in range(0, len(body), size)]
        headers["Transfer-Encoding"] = "chunked"
        body = chunked(pieces)
    return request(method, path + draw(queries), headers, body, version)


@st.composite
def mutated(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    """The same, with a few accidents."""
    data = bytearray(draw(sound))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        accident = draw(st.integers(0, 4))
        if accident == 0:
            data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif accident == 1:
            del data[place : place + draw(st.integers(1, 20))]
        elif accident == 2:
            data[place:place] = draw(
                st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"\r\n\r\n", b"\xff", b"0"])
            )
        elif accident == 3:
            data[place:place] = data[place : place + draw(st.integers(1, 40))]
        else:
            data[place:place] = draw(st.binary(max_size=20))
    return bytes(data)


cuts = st.lists(st.integers(1, 200), max_size=40)
tiny_cuts = st.lists(st.integers(1, 3), max_size=300)
beginnings = st.sampled_from([b"GET ", b"POST /v1/stream/a HTTP/1.1\r\n", b"PUT /v1/stream/"])
pipelines = st.lists(requests(), min_size=1, max_size=6).map(b"".join)


class FuzzTestCase(SynchronousTestCase):
    fronts: tuple[type[Front], ...] = (ChannelFront, SiteFront)

    def outcome(self, front_type: type[Front], data: bytes, sizes: list[int]) -> tuple[list[Digest], list[int], bool]:
        """
        Send data in packets of these sizes, and wait for the answers.

        :returns: the answers, the interim ones, and whether the connection ended.
        """
        front = front_type(SETTINGS)
        front.create("a", body=b"hello")
        front.create("j", "application/json", b'["hello"]')
        peer = front.connect(read_replies=False)
        peer.send_bit_by_bit(data, sizes)
        front.pass_time(8, step=1)
        reader = ReplyReader(strict=front.front == "channel")
        for method in re.findall(rb"(HEAD) [^ ]+ HTTP/1\.[01]\r\n", data):
            reader.expect(method.decode())
        reader.feed(bytes(peer.received))
        if peer.ended:
            reader.end()
        self.assertFalse(peer.aborted)
        self.assertTrue(front.is_healthy())
        front.stop()
        digests = [
            (
                reply.status,
                frozenset((name, _still(value)) for name, value in reply.headers if name not in _MOMENTS),
                _still(bytes(reply.body).decode("latin-1")).encode("latin-1"),
            )
            for reply in reader.replies
        ]
        self.assertNotIn(500, [status for status, _, _ in digests])
        self.assertEqual(self.flushLoggedErrors(), [])
        return digests, reader.interim, peer.ended

    def check_packets(self, data: bytes, sizes: list[int]) -> None:
        """Compare the answers to data in these packets with those to one packet."""
        for front_type in self.fronts:
            whole = self.outcome(front_type, data, [])
            self.assertEqual(self.outcome(front_type, data, sizes), whole, front_type.front)


def _still(text: str) -> str:
    return _CURSOR.sub("", _INCARNATION.sub("X", text))


class PacketTests(FuzzTestCase):
    @fuzzing
    @given(pipelines, st.one_of(cuts, tiny_cuts))
    def test_valid_requests_are_answered_alike_in_any_packets(self, data: bytes, sizes: list[int]) -> None:
        self.check_packets(data, sizes)

    @fuzzing
    @given(mutated(pipelines), st.one_of(cuts, tiny_cuts))
    def test_invalid_requests_are_answered_alike_in_any_packets(self, data: bytes, sizes: list[int]) -> None:
        self.check_packets(data, sizes)

    @fuzzing
    @given(st.binary(max_size=300), cuts)
    @example(b"\r\n" * 50, [1] * 100)
    def test_random_bytes_are_answered_alike_in_any_packets(self, data: bytes, sizes: list[int]) -> None:
        self.check_packets(data, sizes)

    @fuzzing
    @given(beginnings, st.binary(max_size=200), cuts)
    def test_valid_requests_before_random_bytes_are_answered_alike_in_any_packets(
        self, beginning: bytes, noise: bytes, sizes: list[int]
    ) -> None:
        self.check_packets(beginning + noise, sizes)


readings = st.lists(
    st.sampled_from(
        [
            *(
                "big",
                "huge",
                "a",
                "none",
                "big?offset=now",
                "huge?offset=-1&live=long-poll",
                "a?offset=now&live=long-poll",
            ),
            *("done?offset=-1&live=sse", "huge?offset=-1&live=sse"),
        ]
    ),
    min_size=1,
    max_size=6,
)
paces = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 90_000)), max_size=30)


class ReaderTests(FuzzTestCase):
    def read(self, front_type: type[Front], targets: list[str], room: int, pace: list[tuple[int, int]]) -> list[Digest]:
        """Ask for all of it, sending and reading at some pace."""
        front = front_type(SETTINGS)
        for name in ("a", "big", "huge"):
            front.create(name, body=b"hello")
        front.create("done", body=b"x" * 1_500, Stream_Closed="true")
        front.append_directly("big", b"y" * 100_000, "text/plain")
        for _ in range(8):
            front.append_directly("huge", b"z" * 50_000, "text/plain")
        data = b"".join(request("GET", BASE + target) for target in targets)
        peer = front.connect(room, read_replies=False)
        for sending, taking in pace:
            peer.send(data[:sending])
            data = data[sending:]
            peer.take_piece(taking)
        peer.send(data)
        peer.read_freely()
        front.pass_time(15, step=1)
        reader = ReplyReader(strict=front.front == "channel")
        reader.feed(bytes(peer.received))
        front.stop()
        self.assertFalse(peer.aborted)
        self.assertTrue(all(reply.complete for reply in reader.replies))
        self.assertEqual(len(reader.replies), len(targets))
        # Keep-alives and the size of events are the pace's own.
        return [
            (reply.status, frozenset(), b"" if reply.framing == "chunked" else bytes(reply.body))
            for reply in reader.replies
        ]

    @fuzzing
    @given(readings, st.sampled_from([1, 1_000, 50_000, 150_000]), paces)
    def test_a_reader_of_any_speed_receives_everything_in_order(
        self, targets: list[str], room: int, pace: list[tuple[int, int]]
    ) -> None:
        for front_type in (ChannelFront, WrappedFront, SiteFront):
            wanted = self.read(front_type, targets, 1 << 60, [])
            self.assertEqual(self.read(front_type, targets, room, pace), wanted, front_type.front)


class LivingTests(FuzzTestCase):
    @fuzzing
    @given(st.lists(st.one_of(requests(), mutated(requests())), min_size=1, max_size=8), st.integers(0, 3))
    def test_closed_connections_leave_no_state(self, sent: list[bytes], patience: int) -> None:
        for front_type in self.fronts:
            front = front_type(SETTINGS)
            front.create("a", body=b"hello")
            peers = []
            for data in sent:
                peer = front.connect(read_replies=False)
                peer.send(data)
                peers.append(peer)
                if len(peers) > patience:
                    peers.pop(0).leave()
            front.pass_time(0.5)
            for peer in peers:
                peer.leave()
            self.assertTrue(front.is_healthy())
            self.assertEqual(list(front.streams._waiting._watchers), [])
            front.stop()
            self.assertEqual(self.flushLoggedErrors(), [])
