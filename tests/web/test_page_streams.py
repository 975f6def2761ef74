"""Pages that stream the bodies of requests and answers, on each front, with peers that are slow."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncGenerator
from typing import Any, ClassVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from durable_streams.server.errors import InvalidRequest, StreamsError
from durable_streams.server.run_queue import RunQueue
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.bodies import GeneratedBody
from durable_streams.server.web.incoming import IncomingBody
from durable_streams.server.web.pages import PageRequest, streams_body
from durable_streams.server.web.site.app import Routes
from tests.support.cases import get
from tests.support.fronts import (
    BASE,
    ChannelFront,
    Front,
    Peer,
    SiteFront,
    WrappedFront,
    chunked,
    request,
    settings_with,
)
from tests.support.http2 import Http2Front, Http2Peer
from tests.support.tls import TLSFront
from tests.support.wire import ENDLESS

FRONTS: tuple[type[Front], ...] = (ChannelFront, WrappedFront, TLSFront, Http2Front, SiteFront)

#: Over ``max_request_body_bytes`` of the tests, and over what is buffered anywhere.
SIZE = 4_000_000

#: The most that may be buffered of a request's body: HTTP/2's flow-control window of a stream.
MAX_BUFFERED = 262_144

#: The most that may be rendered of an answer that its client does not read.
MAX_RENDERED = 600_000

PIECE = 16_384


@implementer(IConsumer)
class SlowConsumer:
    """
    Pauses its producer after each write.

    :ivar taken: all that was written.
    """

    def __init__(self, pauses: bool = True) -> None:
        self.taken = bytearray()
        self.pauses = pauses
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.taken += data
        if self.pauses:
            self.producer.pauseProducing()

    def read_freely(self) -> None:
        self.pauses = False
        if self.producer is not None:
            self.producer.resumeProducing()


def begin_upload(peer: Peer, target: str, part: bytes, size: int) -> None:
    """Send a POST with the first part of its body; ``size`` is that of the whole body."""
    if isinstance(peer, Http2Peer):
        peer.upload(peer.begin("POST", target, {}, False), part, False)
    else:
        peer.send(request("POST", target, {"Content-Length": str(size)}) + part, "POST")


class Pages:
    """
    The pages of the tests.

    :ivar errors: with which the deliveries of bodies failed.
    :ivar rendered: the size of the answer that was rendered so far.
    :ivar closed: whether its generator was closed.
    """

    def __init__(self, turns: RunQueue) -> None:
        self.turns = turns
        self.consumer = SlowConsumer()
        self.seen: list[PageRequest] = []
        self.errors: list[BaseException] = []
        self.reads: Deferred[None] | None = None
        self.rendered = 0
        self.closed = False
        self.fails_after = ENDLESS

    @property
    def incoming(self) -> IncomingBody:
        incoming = self.seen[-1].incoming
        assert incoming is not None
        return incoming

    def add(self, app: Routes) -> None:
        @app.route("/import/<name>", methods=["POST"])
        @streams_body
        async def take_in(request: PageRequest, name: str) -> Answer:
            self.seen.append(request)
            if self.reads is not None:
                await self.reads
            try:
                await self.incoming.startProducing(self.consumer)
            except (StreamsError, ConnectionLost, CancelledError) as error:
                self.errors.append(error)
                raise
            return Answer(200, b"Content-Type: text/plain\r\n", b"%d of %b" % (len(self.consumer.taken), name.encode()))

        @app.route("/refuse", methods=["POST"])
        @streams_body
        def refuse(request: PageRequest) -> Answer:
            self.seen.append(request)
            raise InvalidRequest("Not this.")

        @app.route("/export", methods=["GET", "HEAD"])
        def export(request: PageRequest) -> Answer:
            return Answer(
                200, b"Content-Type: application/octet-stream\r\n", GeneratedBody(self.render(), self.turns, SIZE)
            )

        @app.route("/echo", methods=["POST"])
        @streams_body
        def echo(request: PageRequest) -> Answer:
            assert request.incoming is not None
            return Answer(200, b"Content-Type: text/plain\r\n", Echo(request.incoming))

        @app.route("/raise", methods=["GET", "POST"])
        async def broken(request: PageRequest) -> Answer:
            raise ZeroDivisionError

        @app.route("/wrong", methods=["GET"])
        def wrong(request: PageRequest) -> Answer:
            return cast(Answer, b"no answer")

        @app.route("/whole", methods=["POST"])
        def whole(request: PageRequest) -> Answer:
            return Answer(200, b"Content-Type: text/plain\r\n", request.body)

    async def render(self) -> AsyncGenerator[bytes, None]:
        try:
            while self.rendered < SIZE:
                if self.rendered >= self.fails_after:
                    raise ZeroDivisionError
                size = min(PIECE, SIZE - self.rendered)
                self.rendered += size
                yield b"x" * size
        finally:
            self.closed = True


@implementer(IConsumer)
class Echo:
    """An answer's body that is the request's."""

    length: int | None = None

    def __init__(self, incoming: IncomingBody) -> None:
        self.incoming = incoming

    def start(self, sink: Any) -> None:
        self.sink = sink
        self.incoming.startProducing(self).addCallbacks(lambda _: sink.finish(), lambda _: sink.abort())

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def write(self, data: bytes) -> None:
        self.sink.write(data)

    def pauseProducing(self) -> None:
        self.incoming.pauseProducing()

    def resumeProducing(self) -> None:
        self.incoming.resumeProducing()

    def stopProducing(self) -> None:
        self.incoming.stopProducing()


class Silence:
    """An answer's body that never comes."""

    length: int | None = None

    def start(self, sink: Any) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class Upload:
    """A request on a connection, whose body is sent as far as the server takes it."""

    def __init__(self, front: Front, peer: Peer, target: str, body: bytes, chunk: bool = False) -> None:
        self.front, self.peer = front, peer
        if isinstance(peer, Http2Peer):
            self.left = body
            self.stream = peer.begin("POST", target, {}, False)
            peer.pass_on()
            self.send_on()
            return
        if chunk:
            pieces = chunked(body[place : place + 10_000] for place in range(0, len(body), 10_000))
            peer.send(request("POST", target, {"Transfer-Encoding": "chunked"}) + pieces, "POST")
        else:
            peer.send(request("POST", target, {"Content-Length": str(len(body))}) + body, "POST")

    def send_on(self) -> None:
        """Send what HTTP/2's flow control lets."""
        if not isinstance(self.peer, Http2Peer):
            return
        before = -1
        while self.left and before != len(self.left):
            before = len(self.left)
            room = self.peer.h2.local_flow_control_window(self.stream)
            self.peer.upload(self.stream, self.left[:room], room >= len(self.left))
            self.left = self.left[room:]
            self.front.settle()

    @property
    def left_bytes(self) -> int:
        """The size of what the server has not read."""
        return len(self.left) if isinstance(self.peer, Http2Peer) else self.peer.unread_by_server


class PageCase(SynchronousTestCase):
    fronts: ClassVar[tuple[type[Front], ...]] = FRONTS

    def each(self) -> list[tuple[Front, Pages]]:
        """Make each front, with pages."""
        made = []
        for kind in self.fronts:
            front = kind(
                settings_with({"body_timeout_secs": 20, "stall_timeout_secs": 40}, max_request_body_bytes=1000)
            )
            self.addCleanup(front.stop)
            pages = Pages(front.streams.turns)
            front.pages.add(pages.add)
            made.append((front, pages))
        return made


class UploadTests(PageCase):
    def test_a_page_that_reads_slowly_bounds_the_buffered_body(self) -> None:
        body = random.Random(1).randbytes(SIZE)
        for front, pages in self.each():
            peer = front.connect()
            upload = Upload(front, peer, "/import/a", body)
            for _ in range(10):
                front.pass_time(0.1)
                upload.send_on()
                if pages.consumer.producer is not None:
                    pages.consumer.producer.resumeProducing()
                self.assertLessEqual(pages.incoming.buffered_bytes, MAX_BUFFERED, front)
            self.assertLess(len(pages.consumer.taken) + pages.incoming.buffered_bytes, 1_500_000, front)
            if not isinstance(front, SiteFront):
                # twisted.web has read all, and keeps it in a file.
                self.assertGreater(upload.left_bytes, SIZE - 1_500_000, front)
            pages.consumer.read_freely()
            for _ in range(200):
                front.pass_time(0.05)
                upload.send_on()
            self.assertEqual(bytes(pages.consumer.taken), body, front)
            self.assertEqual((peer.reply.status, bytes(peer.reply.body)), (200, b"%d of a" % SIZE), front)
            self.assertIsNone(pages.consumer.producer)
            # The connection is as good as before.
            peer.send_request("GET", "/healthz")
            self.assertEqual((peer.reply.status, bytes(peer.reply.body)), (200, b"ok"), front)

    def test_a_page_that_does_not_start_reading_bounds_the_buffered_body(self) -> None:
        for front, pages in self.each():
            pages.reads = Deferred()
            peer = front.connect()
            upload = Upload(front, peer, "/import/a", b"x" * SIZE)
            front.pass_time(1)
            self.assertLessEqual(pages.incoming.buffered_bytes, MAX_BUFFERED, front)
            pages.consumer.read_freely()
            pages.reads.callback(None)
            for _ in range(200):
                front.pass_time(0.05)
                upload.send_on()
            self.assertEqual(len(pages.consumer.taken), SIZE, front)
            self.assertEqual(peer.reply.status, 200, front)

    def test_a_body_is_a_body_producer_with_its_length(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            Upload(front, front.connect(), "/import/a", b"x" * 5000)
            front.pass_time(0.1)
            self.assertTrue(verifyObject(IBodyProducer, pages.incoming))
            self.assertEqual(len(pages.consumer.taken), 5000)
            if not isinstance(front, Http2Front | SiteFront):
                self.assertEqual(pages.incoming.length, 5000)

    def test_an_empty_body_ends_at_once(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            reply = front.ask("POST", "/import/none")
            front.pass_time(0.1)
            self.assertEqual((reply.status, bytes(reply.body)), (200, b"0 of none"), front)

    def test_a_client_that_disconnects_during_the_body_ends_the_page(self) -> None:
        for front, pages in self.each():
            for pauses in (True, False):
                pages.consumer = SlowConsumer(pauses)
                peer = front.connect()
                begin_upload(peer, "/import/a", b"x" * 100_000, 200_000)
                front.pass_time(0.1)
                peer.leave()
                front.pass_time(1)
            self.assertEqual(len(pages.errors), 0 if isinstance(front, SiteFront) else 2, front)

    def test_other_pages_get_complete_bodies_within_the_limit(self) -> None:
        for front, _ in self.each():
            reply = front.ask("POST", "/whole", None, b"y" * 1000)
            self.assertEqual((reply.status, bytes(reply.body)), (200, b"y" * 1000), front)
            peer = front.connect()
            peer.send_request("POST", "/whole", None, b"y" * 1001)
            self.assertEqual((peer.reply.status, peer.reply.code), (413, "REQUEST_BODY_TOO_LARGE"), front)

    def test_a_page_that_refuses_the_body_answers_and_ends_the_request(self) -> None:
        for front, pages in self.each():
            peer = front.connect()
            Upload(front, peer, "/refuse", b"x" * 500_000)
            front.pass_time(0.5)
            self.assertEqual((peer.reply.status, peer.reply.complete), (400, True), front)
            self.assertEqual(pages.incoming.buffered_bytes, 0, front)
            front.pass_time(5)
            if front.front == "channel":
                self.assertEqual(peer.reply.get("connection"), "close")
                self.assertTrue(peer.closed)
            else:
                self.assertTrue(front.is_healthy())

    def test_an_echo_streams_both_ways(self) -> None:
        body = random.Random(2).randbytes(300_000)
        for front, _ in self.each():
            peer = front.connect()
            upload = Upload(front, peer, "/echo", body)
            for _ in range(40):
                front.pass_time(0.05)
                upload.send_on()
            self.assertEqual((peer.reply.status, bytes(peer.reply.body)), (200, body), front)
            self.assertTrue(peer.reply.complete)


class Http1UploadTests(PageCase):
    fronts = (ChannelFront, WrappedFront, TLSFront)

    def test_bodies_arrive_complete_with_any_framing_packets_and_pauses(self) -> None:
        for front, pages in self.each():
            for seed in range(25):
                dice = random.Random(seed)
                body = dice.randbytes(dice.choice([1, 5000, 100_000]))
                pages.consumer = SlowConsumer(dice.random() < 0.7)
                after = get("none") if dice.random() < 0.5 else b""
                if dice.random() < 0.5:
                    size = dice.randint(1, 9000)
                    pieces = [body[place : place + size] for place in range(0, len(body), size)]
                    whole = request("POST", "/import/a", {"Transfer-Encoding": "chunked"}) + chunked(pieces)
                else:
                    whole = request("POST", "/import/a", {}, body)
                before = get("none") * dice.randint(0, 2)
                peer = front.connect()
                if before:
                    peer.send(before)
                place = 0
                if peer._reader is not None:
                    peer._reader.expect("POST")
                whole += after
                while place < len(whole):
                    size = dice.choice([1, 100, 5000, 70_000])
                    peer.send(whole[place : place + size])
                    place += size
                    if pages.consumer.producer is not None and dice.random() < 0.5:
                        pages.consumer.producer.resumeProducing()
                        front.settle()
                pages.consumer.read_freely()
                front.pass_time(0.5)
                self.assertEqual(bytes(pages.consumer.taken), body, (front, seed))
                expected = [404] * (len(before) // len(get("none"))) + [200] + [404] * bool(after)
                self.assertEqual(peer.statuses, expected, (front, seed))
                peer.leave()

    def test_a_body_in_small_packets_is_buffered_within_the_limit(self) -> None:
        for front, pages in self.each():
            peer = front.connect()
            peer.send(request("POST", "/import/a", {"Content-Length": "200000"}), "POST")
            for _ in range(200):
                peer.send(b"x" * 1000)
            self.assertLess(len(pages.consumer.taken) + pages.incoming.buffered_bytes, 20_000, front)
            pages.consumer.read_freely()
            front.pass_time(1)
            self.assertEqual((peer.statuses, len(pages.consumer.taken)), ([200], 200_000), front)

    def test_requests_before_the_upload_are_answered_first(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            tail = front.create("a")
            peer = front.connect()
            poll = get("a", f"?offset={tail}&live=long-poll")
            upload = request("POST", "/import/a", {"Content-Length": str(SIZE)}) + b"x" * SIZE
            peer.send(poll + upload, "GET", "POST")
            front.pass_time(1)
            self.assertEqual((peer.statuses, pages.seen), ([], []))
            self.assertGreater(peer.unread_by_server, SIZE - 400_000)
            front.append("a", b"one")
            front.pass_time(5, 0.01)
            self.assertEqual((peer.statuses, len(pages.consumer.taken)), ([200, 200], SIZE), front)

    def test_a_body_that_does_not_arrive_in_time_is_408(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            peer = front.connect()
            peer.send(request("POST", "/import/a", {"Content-Length": "100"}) + b"x" * 50, "POST")
            for _ in range(4):
                front.pass_time(15)
                peer.send(b"x")
            self.assertEqual(peer.replies, [])
            front.pass_time(22)
            self.assertEqual((peer.statuses, peer.reply.code), ([408], "REQUEST_TIMEOUT"), front)
            self.assertEqual(len(pages.consumer.taken), 54)
            front.pass_time(5)
            self.assertTrue(peer.closed)

    def test_the_bodys_timeout_does_not_run_while_the_page_pauses(self) -> None:
        for front, pages in self.each():
            peer = front.connect()
            peer.send(request("POST", "/import/a", {"Content-Length": "100000"}) + b"x" * 50_000, "POST")
            front.pass_time(300, 1)
            self.assertEqual((peer.replies, peer.closed), ([], False))
            pages.consumer.read_freely()
            peer.send(b"x" * 50_000)
            front.pass_time(1)
            self.assertEqual(peer.statuses, [200], front)

    def test_a_body_that_ends_early_or_is_malformed_is_400(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            peer = front.connect()
            peer.send(request("POST", "/import/a", {"Content-Length": "100"}) + b"x" * 50, "POST")
            peer.send_no_more()
            if front.front == "channel" and type(front) is ChannelFront:
                self.assertEqual((peer.statuses, peer.reply.code), ([400], "BAD_REQUEST"), front)
            self.assertEqual(len(pages.errors), 1, front)
            peer = front.connect()
            peer.send(request("POST", "/import/a", {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\nzz\r\n", "POST")
            self.assertEqual((peer.statuses, peer.reply.code), ([400], "BAD_REQUEST"), front)
            front.pass_time(5)
            self.assertTrue(peer.closed)

    def test_100_continue_is_sent_when_the_page_reads(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            pages.reads = Deferred()
            peer = front.connect()
            peer.send(request("POST", "/import/a", {"Content-Length": "5", "Expect": "100-continue"}), "POST")
            self.assertEqual(peer.interim, [])
            pages.reads.callback(None)
            front.settle()
            self.assertEqual(peer.interim, [100])
            peer.send(b"hello")
            front.pass_time(0.1)
            self.assertEqual(peer.statuses, [200])
            peer = front.connect()
            peer.send(request("POST", "/refuse", {"Content-Length": "5", "Expect": "100-continue"}), "POST")
            self.assertEqual((peer.interim, peer.statuses, peer.reply.get("connection")), ([], [400], "close"))

    def test_100_continue_is_not_sent_after_the_answer_has_begun(self) -> None:
        for front, _ in self.each():
            peer = front.connect()
            peer.send(request("POST", "/echo", {"Content-Length": "5", "Expect": "100-continue"}), "POST")
            peer.send(b"hello")
            front.pass_time(0.1)
            self.assertEqual((peer.interim, peer.statuses, bytes(peer.reply.body)), ([], [200], b"hello"), front)

    def test_an_upload_does_not_extend_the_stall_timeout_of_its_answer(self) -> None:
        for front, pages in self.each():

            def add(app: Routes, pages: Pages = pages) -> None:
                @app.route("/both", methods=["POST"])
                @streams_body
                def both(request: PageRequest) -> Answer:
                    assert request.incoming is not None
                    request.incoming.startProducing(pages.consumer).addErrback(lambda _: None)
                    return Answer(200, b"", GeneratedBody(pages.render(), pages.turns, SIZE))

            front.pages.add(add)
            pages.consumer.read_freely()
            peer = front.connect(2000)
            peer.send(request("POST", "/both", {"Content-Length": "1000"}), "POST")
            for _ in range(3):
                self.assertFalse(peer.closed, front)
                peer.send(b"x")
                front.pass_time(15)
            self.assertTrue(peer.closed, front)

    def test_an_upload_of_http_1_0_is_streamed(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            peer = front.connect()
            peer.send(request("POST", "/import/a", {}, b"y" * 50_000, "1.0"), "POST")
            front.pass_time(0.1)
            self.assertEqual((peer.statuses, len(pages.consumer.taken)), ([200], 50_000), front)


class Http2UploadTests(PageCase):
    fronts = (Http2Front,)

    def test_a_paused_upload_does_not_stop_other_requests(self) -> None:
        for front, _ in self.each():
            peer = front.connect()
            Upload(front, peer, "/import/a", b"x" * SIZE)
            peer.send_request("GET", "/healthz")
            self.assertEqual((peer.reply.status, bytes(peer.reply.body)), (200, b"ok"))

    def test_a_connection_that_ends_during_a_paused_upload_fails_it(self) -> None:
        goodbye = b"\x00\x00\x08\x07" + bytes(5) + bytes(4) + b"\x00\x00\x00\x02"
        too_long = b"\xff\xff\xff\x00" + bytes(5)
        odd_window = b"\x00\x00\x04\x08" + bytes(5) + bytes(4)
        for ending in (goodbye, too_long, odd_window):
            for front, pages in self.each():
                peer = front.connect()
                Upload(front, peer, "/import/a", b"x" * SIZE)
                peer.send(ending)
                front.pass_time(5)
                self.assertEqual(len(pages.errors), 1, ending)
                self.assertIsNone(pages.consumer.producer)
                pages.consumer.read_freely()

    def test_a_reset_gives_the_connections_window_back(self) -> None:
        for front, _ in self.each():
            peer = front.connect()
            assert isinstance(peer, Http2Peer)
            for _ in range(20):
                stream = peer.begin("POST", "/import/a", {}, False)
                peer.pass_on()
                room = peer.h2.local_flow_control_window(stream)
                self.assertGreater(room, 200_000)
                peer.upload(stream, b"x" * room, False)
                peer.h2.reset_stream(stream)
                peer.pass_on()
                front.settle()

    def test_a_body_that_does_not_arrive_in_time_is_408(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            peer = front.connect()
            assert isinstance(peer, Http2Peer)
            stream = peer.begin("POST", "/import/a", {}, False)
            peer.upload(stream, b"x" * 50, False)
            front.pass_time(25)
            self.assertEqual((peer.reply.status, peer.reply.code), (408, "REQUEST_TIMEOUT"))

    def test_the_timeout_begins_again_with_each_piece_of_an_upload(self) -> None:
        for front, pages in self.each():
            pages.consumer.read_freely()
            peer = front.connect()
            assert isinstance(peer, Http2Peer)
            stream = peer.begin("POST", "/import/a", {}, False)
            for _ in range(5):
                peer.upload(stream, b"x" * 50, False)
                front.pass_time(15)
            peer.upload(stream, b"x" * 50)
            front.pass_time(1)
            self.assertEqual((peer.reply.status, bytes(peer.reply.body)), (200, b"300 of a"))

    def test_a_stalled_answer_is_reset_while_its_request_still_arrives(self) -> None:
        for front, _ in self.each():
            peer = front.connect()
            assert isinstance(peer, Http2Peer)
            peer.keeps_up = False
            stream = peer.begin("POST", "/echo", {}, False)
            peer.upload(stream, b"x" * 100_000, False)
            front.pass_time(45)
            self.assertEqual((peer.reply.status, peer.resets, peer.goodbye), (200, {stream: 8}, None))

    def test_the_uploads_timeout_ends_when_the_answer_begins(self) -> None:
        for front, pages in self.each():
            answered: Deferred[None] = Deferred()

            def add(app: Routes, pages: Pages = pages, answered: Deferred[None] = answered) -> None:
                @app.route("/late", methods=["POST"])
                @streams_body
                async def late(request: PageRequest) -> Answer:
                    assert request.incoming is not None
                    request.incoming.startProducing(pages.consumer).addErrback(lambda _: None)
                    await answered
                    return Answer(200, b"Content-Type: text/plain\r\n", Silence())

            front.pages.add(add)
            pages.consumer.read_freely()
            peer = front.connect()
            assert isinstance(peer, Http2Peer)
            stream = peer.begin("POST", "/late", {}, False)
            peer.upload(stream, b"x" * 50, False)
            answered.callback(None)
            front.pass_time(45)
            self.assertEqual((peer.reply.status, peer.resets, peer.goodbye), (200, {}, None))
            self.assertTrue(front.is_healthy())


class DownloadTests(PageCase):
    def test_a_client_that_reads_slowly_bounds_the_rendered_answer(self) -> None:
        for front, pages in self.each():
            peer = front.connect(2000)
            if isinstance(peer, Http2Peer):
                peer.limit(ENDLESS)
                peer.keeps_up = False
            peer.send_request("GET", "/export")
            front.pass_time(2)
            self.assertLess(pages.rendered, MAX_RENDERED, front)
            peer.read_freely()
            if isinstance(peer, Http2Peer):
                peer.keeps_up = True
                peer.h2.acknowledge_received_data(len(peer.reply.body), peer.asked[-1])
                peer.pass_on()
            front.pass_time(3, 0.01)
            self.assertEqual((peer.reply.status, peer.reply.complete), (200, True), front)
            self.assertEqual((len(peer.reply.body), pages.closed), (SIZE, True), front)
            self.assertEqual(peer.reply.get("content-length"), str(SIZE))

    def test_a_client_that_disconnects_ends_the_rendering(self) -> None:
        for front, pages in self.each():
            peer = front.connect(2000)
            if isinstance(peer, Http2Peer):
                peer.keeps_up = False
                peer.limit(ENDLESS)
            peer.send_request("GET", "/export")
            front.pass_time(0.1)
            self.assertFalse(pages.closed)
            peer.leave()
            front.pass_time(0.5)
            self.assertTrue(pages.closed, front)

    def test_a_head_is_answered_without_rendering(self) -> None:
        for front, pages in self.each():
            reply = front.ask("HEAD", "/export")
            self.assertEqual((reply.status, bytes(reply.body), pages.rendered), (200, b"", 0), front)

    def test_an_answer_that_fails_during_its_body_is_aborted_and_logged(self) -> None:
        for front, pages in self.each():
            pages.fails_after = 3 * PIECE
            peer = front.connect()
            peer.send_request("GET", "/export")
            front.pass_time(0.5)
            # Whether the head came as far as the client depends on the transport.
            self.assertEqual([reply.status for reply in peer.replies if reply.complete], [], front)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, front)


class SliceTests(SynchronousTestCase):
    def test_a_generator_that_never_waits_lets_other_tasks_run(self) -> None:
        clock = Clock()
        seconds = itertools.count(0, 0.0004).__next__
        turns = RunQueue(clock, seconds)
        done: list[int] = []
        written: list[bytes] = []

        async def pieces() -> AsyncGenerator[bytes, None]:
            for _ in range(100):
                yield b"x"

        class Collector:
            def write(self, data: bytes) -> None:
                written.append(data)

            def finish(self) -> None:
                written.append(b"end")

            def abort(self) -> None: ...

        GeneratedBody(pieces(), turns).start(Collector())
        turns.add(lambda: done.append(len(written)))
        self.assertLess(len(written), 10)
        clock.advance(0)
        self.assertLess(done[0], 10)
        clock.pump([0] * 100)
        self.assertEqual(written, [b"x"] * 100 + [b"end"])


class ErrorTests(PageCase):
    def test_a_page_that_raises_is_500_and_logged(self) -> None:
        for front, _ in self.each():
            for path, kind in (("/raise", ZeroDivisionError), ("/wrong", TypeError)):
                reply = front.ask("GET", path)
                self.assertEqual((reply.status, reply.code), (500, "INTERNAL_ERROR"), front)
                self.assertEqual(reply.get("content-type"), "application/problem+json")
                self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_each_answer_has_an_id_and_the_headers_of_every_answer(self) -> None:
        for front, _ in self.each():
            ids = set()
            for path in ("/healthz", "/whole", "/none", "/import/a"):
                reply = front.ask("GET", path)
                ids.add(reply.get("x-request-id"))
                self.assertEqual(reply.get("access-control-allow-origin"), "*")
            self.assertEqual((len(ids), None in ids), (4, False), front)

    def test_a_wrong_method_is_405_with_the_allowed_methods(self) -> None:
        for front, _ in self.each():
            reply = front.ask("GET", "/import/a")
            self.assertEqual((reply.status, reply.get("allow")), (405, "POST"), front)
            reply = front.ask("GET", BASE)
            self.assertEqual(reply.status, 404)
