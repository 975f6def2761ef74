"""The head of an answer is the same on each front, and each answer is recorded once."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.answers import Answer, AnswerBody, Sink
from durable_streams.server.web.callers import NOBODY, Caller, Client
from durable_streams.server.web.framing import Framer
from durable_streams.server.web.pages import PageRequest
from durable_streams.server.web.requests import stream_request
from durable_streams.server.web.telemetry import Occasion, Telemetry

DATE = b"Fri, 15 Jan 2027 08:00:00 GMT"


class Noting(Telemetry):
    def __init__(self) -> None:
        self.noted: list[tuple[Any, int, int]] = []

    def answered(self, asked: Any, number: int, answer: Answer, began_at: float) -> None:
        self.noted.append((asked, number, answer.status))


class Pieces:
    """A body of some length, or of one that is not known."""

    def __init__(self, length: int | None) -> None:
        self.length = length

    def start(self, sink: Sink) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class FramerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.telemetry = Noting()
        self.framer = Framer(self.telemetry)
        self.framer.date_line = b"Date: %b\r\n" % DATE

    def occasions(self, method: bytes) -> list[Occasion]:
        named = Caller("192.0.2.1", trusted=True, client=Client(request_id=b"theirs"))
        made: list[Occasion] = [PageRequest(method, b"/a", [], b"", caller, 7) for caller in (NOBODY, named)]
        return [stream_request(method, b"/s/", b"a", b"", {}, b"", named, 8), NOBODY, named, *made]

    def test_all_fronts_have_the_same_head_fields(self) -> None:
        bodies: list[bytes | AnswerBody] = [b"", b"hello", Pieces(3), Pieces(None)]
        for method, status, body in itertools.product((b"GET", b"HEAD", b"POST"), (200, 304, 404), bodies):
            if status == 304 and body != b"":
                continue
            answer = Answer(status, b"Content-Type: text/plain\r\nETag: x\r\n", body)
            for asked in self.occasions(method):
                self.telemetry.noted.clear()
                head, _, rest = self.framer.http1(answer, asked, 0.0, b"Connection: close\r\n").partition(b"\r\n\r\n")
                fields = self.framer.fields(answer, asked, 0.0)
                line, *lines = head.split(b"\r\n")
                self.assertTrue(line.startswith(b"HTTP/1.1 %d " % status))
                self.assertIn(b"Connection: close", lines)
                lines.remove(b"Connection: close")
                own = [b"%b: %b" % (name, value) for name, value in fields]
                if isinstance(asked, Caller) and asked.client is None:
                    # No request was read, so each answer has a number of its own.
                    lines, own = ([each for each in these if b"X-Req" not in each] for these in (lines, own))
                self.assertEqual(sorted(lines), sorted(own), (asked, answer))
                self.assertIn((b"Date", DATE), fields)
                has_body = isinstance(body, bytes) and (isinstance(asked, Caller) or method != b"HEAD")
                self.assertEqual(rest, body if has_body else b"")
                self.assertEqual([(said, of) for said, _, of in self.telemetry.noted], [(asked, status)] * 2)

    def test_an_answer_without_content_has_no_length(self) -> None:
        asked = stream_request(b"POST", b"/s/", b"a", b"", {}, b"")
        for status in (204, 304):
            answer = Answer(status, b"")
            self.assertNotIn(b"Content-Length", self.framer.http1(answer, asked, 0.0))
            self.assertNotIn(b"Content-Length", dict(self.framer.fields(answer, asked, 0.0)))

    def test_without_a_date_line_the_transport_adds_the_date(self) -> None:
        framer = Framer(self.telemetry)
        self.assertNotIn(b"Date", dict(framer.fields(Answer(200, b""), NOBODY, 0.0)))

    def test_the_id_of_a_trusted_proxys_request_is_kept(self) -> None:
        caller = Caller("192.0.2.1", trusted=True, client=Client(request_id=b"theirs"))
        self.assertIn(b"\r\nX-Request-Id: theirs\r\n", self.framer.http1(Answer(200, b""), caller, 0.0))
        self.assertEqual(dict(self.framer.fields(Answer(200, b""), caller, 0.0))[b"X-Request-Id"], b"theirs")
