"""Request bodies as asynchronous iterables, on each front."""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidRequest
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.incoming import IncomingBody
from durable_streams.server.web.pages import PageRequest, streams_body
from durable_streams.server.web.problems import BadFraming, RequestTimeout
from durable_streams.server.web.site.admin.uploads import BodyPieces
from durable_streams.server.web.site.app import Routes
from tests.support.fronts import Front, SiteFront, settings_with
from tests.web.test_page_streams import FRONTS, MAX_BUFFERED, SIZE, Upload, begin_upload

HEAD = b"Content-Type: text/plain\r\n"


class Reader:
    """
    A page that iterates over its request's body.

    :ivar taken: what it has read.
    :ivar gate: for which it waits before each piece.
    """

    def __init__(self) -> None:
        self.taken = bytearray()
        self.gate: Deferred[None] | None = None
        self.incoming: Any = None
        self.outcome: Any = None
        self.stop_after = SIZE + 1

    def add(self, app: Routes) -> None:
        @app.route("/upload", methods=["POST"])
        @streams_body
        async def upload(request: PageRequest) -> Answer:
            self.incoming = request.incoming
            assert request.incoming is not None
            pieces = aiter(BodyPieces(request.incoming))
            try:
                async for piece in pieces:
                    self.taken += piece
                    if len(self.taken) >= self.stop_after:
                        raise InvalidRequest("Enough.")
                    if self.gate is not None:
                        await self.gate
            except BaseException as error:
                self.outcome = type(error)
                raise
            finally:
                await pieces.aclose()
            self.outcome = "whole"
            return Answer(200, HEAD, b"%d" % len(self.taken))


class RateTests(SynchronousTestCase):
    """The minimum rate of a body."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.incoming = IncomingBody(Source())
        self.taken = bytearray()
        self.outcomes: list[Any] = []
        pieces = BodyPieces(self.incoming, 500, self.clock.seconds)

        async def read() -> None:
            async with aclosing(aiter(pieces)) as each:
                async for piece in each:
                    self.taken += piece

        Deferred.fromCoroutine(read()).addBoth(self.outcomes.append)

    def send(self, size: int, times: int, interval: float) -> None:
        for _ in range(times):
            if not self.outcomes:
                self.clock.advance(interval)
                self.incoming.received(b"x" * size)

    def test_a_body_that_trickles_is_refused(self) -> None:
        self.send(1, 1000, 10)
        self.assertEqual(len(self.taken), 3)
        error = self.outcomes[0].value
        self.assertIsInstance(error, RequestTimeout)
        self.assertEqual(str(error), "The body arrives too slowly: send at least 500 bytes a second.")

    def test_a_fast_beginning_does_not_allow_for_a_trickle(self) -> None:
        self.send(100_000, 10, 0.1)
        self.send(1, 1000, 10)
        self.assertEqual(len(self.taken), 1_000_003)

    def test_a_body_at_the_minimum_rate_is_received(self) -> None:
        self.send(5000, 1000, 10)
        self.send(1, 2, 14)
        self.incoming.ended()
        self.assertEqual((len(self.taken), self.outcomes), (5_000_002, [None]))


class Source:
    """A connection whose body is made by the test."""

    def pause_body(self) -> None:
        """Do nothing."""

    def resume_body(self) -> None:
        """Do nothing."""


class PiecesTests(SynchronousTestCase):
    def each(self) -> list[tuple[Front, Reader]]:
        made = []
        for kind in FRONTS:
            front = kind(settings_with(max_request_body_bytes=1000))
            self.addCleanup(front.stop)
            reader = Reader()
            front.pages.add(reader.add)
            made.append((front, reader))
        return made

    def test_a_body_arrives_whole_and_in_order(self) -> None:
        body = random.Random(3).randbytes(400_000)
        for front, reader in self.each():
            peer = front.connect()
            upload = Upload(front, peer, "/upload", body, chunk=True)
            for _ in range(100):
                front.pass_time(0.02, 0.01)
                upload.send_on()
            self.assertEqual((peer.reply.status, bytes(peer.reply.body)), (200, b"400000"), front)
            self.assertEqual(bytes(reader.taken), body)

    def test_an_empty_body_has_no_pieces(self) -> None:
        for front, reader in self.each():
            self.assertEqual(front.ask("POST", "/upload").status, 200, front)
            self.assertEqual((reader.outcome, bytes(reader.taken)), ("whole", b""))

    def test_a_client_is_not_read_from_while_nothing_asks_for_a_piece(self) -> None:
        for front, reader in self.each():
            reader.gate = Deferred()
            peer = front.connect()
            upload = Upload(front, peer, "/upload", b"x" * SIZE)
            for _ in range(10):
                front.pass_time(0.1)
                upload.send_on()
            self.assertLess(len(reader.taken), 100_000, front)
            self.assertLessEqual(reader.incoming.buffered_bytes, MAX_BUFFERED, front)
            if not isinstance(front, SiteFront):
                self.assertGreater(upload.left_bytes, SIZE - 1_500_000, front)
            gate, reader.gate = reader.gate, None
            gate.callback(None)
            for _ in range(200):
                front.pass_time(0.02, 0.01)
                upload.send_on()
            self.assertEqual((reader.outcome, len(reader.taken)), ("whole", SIZE), front)

    def test_a_client_that_disconnects_ends_the_iteration(self) -> None:
        for front, reader in self.each():
            if isinstance(front, SiteFront):
                continue
            peer = front.connect()
            begin_upload(peer, "/upload", b"x" * 50_000, 200_000)
            front.pass_time(0.1)
            peer.leave()
            front.pass_time(1)
            # Over HTTP/1.1, the end of what the client sends is the end of a body that is too short. Some fronts cancel
            # the page first.
            self.assertIn(reader.outcome, (ConnectionLost, BadFraming, CancelledError), front)
            self.assertEqual(len(reader.taken), 50_000, front)

    def test_an_iteration_that_is_given_up_refuses_the_rest(self) -> None:
        for front, reader in self.each():
            reader.stop_after = 1
            peer = front.connect()
            Upload(front, peer, "/upload", b"x" * 500_000)
            front.pass_time(1)
            self.assertEqual((peer.reply.status, peer.reply.complete), (400, True), front)
            self.assertIs(reader.outcome, InvalidRequest)
            self.assertEqual(reader.incoming.buffered_bytes, 0, front)

    def test_pieces_that_arrive_in_one_turn_are_all_delivered(self) -> None:
        class Source:
            def pause_body(self) -> None: ...

            def resume_body(self) -> None: ...

        incoming = IncomingBody(Source())
        for piece in (b"a", b"b", b"c"):
            incoming.received(piece)
        incoming.ended()

        async def read() -> list[bytes]:
            return [piece async for piece in BodyPieces(incoming)]

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(read())), [b"a", b"b", b"c"])
