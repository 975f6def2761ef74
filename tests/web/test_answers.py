"""Tests of answers to outcomes and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server import errors
from durable_streams.server.model import FOREVER, Appended, Chunk, Created, Lifetime, StreamFacts, StreamStatus
from durable_streams.server.web import problems
from durable_streams.server.web.answers import Answer, Answers
from durable_streams.server.web.callers import Caller
from durable_streams.server.web.problems import CATALOGUE, problem
from durable_streams.server.web.requests import StreamRequest, stream_request
from durable_streams.server.web.wire import BODILESS, STATUS_LINES

FACTS = StreamFacts("a b", 7, 5, "text/plain", "text/plain", False)


def asked(secure: bool = False, **headers: bytes) -> StreamRequest:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return stream_request(b"GET", b"/s/", b"a%20b", b"", named, b"", Caller(secure=secure))


def lines(answer: Answer) -> dict[bytes, bytes]:
    """Parse the head."""
    assert answer.head.endswith(b"\r\n")
    pairs = [line.partition(b": ")[::2] for line in answer.head.split(b"\r\n")[:-1]]
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def kinds_of(kind: type[errors.StreamsError]) -> Iterator[type[errors.StreamsError]]:
    for child in kind.__subclasses__():
        yield child
        yield from kinds_of(child)


class LocationTests(SynchronousTestCase):
    def location(self, request: StreamRequest) -> bytes | None:
        answer = Answers().created(request, Created(FACTS, 0, False, new=True))
        self.assertEqual(answer.status, 201)
        return lines(answer).get(b"Location")

    def test_location_is_a_url_with_the_clients_host(self) -> None:
        self.assertEqual(self.location(asked(host=b"h:1")), b"http://h:1/s/a%20b")
        self.assertEqual(self.location(asked(secure=True, host=b"h")), b"https://h/s/a%20b")

    def test_without_a_host_location_is_a_path(self) -> None:
        self.assertEqual(self.location(asked()), b"/s/a%20b")
        self.assertEqual(self.location(asked(host=b"")), b"/s/a%20b")

    def test_an_existing_stream_has_no_location(self) -> None:
        answer = Answers().created(asked(host=b"h"), Created(FACTS, 0, False, new=False))
        self.assertNotIn(b"Location", lines(answer))


class FaceTests(SynchronousTestCase):
    """Header prefixes cached for one stream must not be used for another."""

    def test_cached_headers_are_per_stream(self) -> None:
        answers = Answers()
        other = StreamFacts("b", 8, 6, "application/json", "application/json", True)
        for _ in range(2):
            for facts, offset in ((FACTS, b"0000000000000005_"), (other, b"0000000000000006_")):
                found = lines(answers.found(asked(), Chunk(facts, 0, b"1,", 2, False)))
                self.assertEqual(found[b"Content-Type"], facts.content_type.encode())
                self.assertTrue(found[b"Stream-Next-Offset"].startswith(offset))
                self.assertEqual(found[b"ETag"], b'"%d:0:2"' % facts.id)
                appended = lines(answers.appended(asked(), Appended(facts, 2, False)))
                self.assertTrue(appended[b"Stream-Next-Offset"].startswith(offset))

    def test_cached_headers_are_per_origin(self) -> None:
        answers = Answers(["https://a.example", "https://b.example"])
        for _ in range(2):
            for origin in (b"https://a.example", b"https://b.example", b"https://c.example", b""):
                found = lines(answers.found(asked(origin=origin), Chunk(FACTS, 0, b"1", 1, False)))
                listed = origin in (b"https://a.example", b"https://b.example")
                self.assertEqual(found.get(b"Access-Control-Allow-Origin"), origin if listed else None)
                self.assertEqual(found[b"Vary"], b"Origin")

    def test_credentials_of_pages_are_allowed_by_setting_and_for_listed_origins_only(self) -> None:
        origins = ["https://a.example", "https://b.example"]
        for listed, allowed, origin, expected in (
            (origins, True, b"https://a.example", b"true"),
            (origins, True, b"https://c.example", None),
            (origins, False, b"https://a.example", None),
            (["*"], True, b"https://a.example", None),
        ):
            answers = Answers(listed, cors_credentials=allowed)
            found = lines(answers.found(asked(origin=origin), Chunk(FACTS, 0, b"1", 1, False)))
            self.assertEqual(expected, found.get(b"Access-Control-Allow-Credentials"), (listed, allowed, origin))

    def test_the_cache_of_headers_is_bounded(self) -> None:
        answers = Answers()
        for number in range(25_000):
            facts = StreamFacts("a", number, number, "text/plain", "text/plain", False)
            answer = answers.appended(asked(), Appended(facts, 0, False))
            self.assertEqual(lines(answer)[b"Stream-Next-Offset"], b"%016d_%016d" % (number, 0))
        self.assertLessEqual(len(answers._faces), 10_000)


class OutcomeTests(SynchronousTestCase):
    def test_a_head_answer_has_the_streams_metadata(self) -> None:
        for lifetime, header in (
            (FOREVER, None),
            (Lifetime(ttl=5), (b"Stream-TTL", b"5")),
            (Lifetime(expires_at=1_893_456_000.25), (b"Stream-Expires-At", b"2030-01-01T00:00:00.250Z")),
        ):
            found = lines(Answers().status(asked(), StreamStatus(FACTS, 3, True, lifetime, 0.0, 0.0)))
            self.assertEqual(found[b"Stream-Closed"], b"true")
            expiry = {name: found[name] for name in (b"Stream-TTL", b"Stream-Expires-At") if name in found}
            self.assertEqual(expiry, dict([header] if header else []))

    def test_a_matching_etag_is_304(self) -> None:
        chunk = Chunk(FACTS, 2, b"cd", 4, False)
        answers = Answers()
        tag = lines(answers.found(asked(), chunk))[b"ETag"]
        self.assertEqual(tag, b'"7:2:4"')
        self.assertEqual(answers.found(asked(if_none_match=tag), chunk).status, 304)
        self.assertEqual(answers.found(asked(if_none_match=b'"7:2:5"'), chunk).body, b"cd")
        closed = Chunk(FACTS, 2, b"cd", 4, True)
        self.assertEqual(answers.found(asked(if_none_match=tag), closed).status, 200)


class CatalogueTests(SynchronousTestCase):
    def test_every_error_class_has_a_catalogue_entry(self) -> None:
        # Those of transfers and subscriptions are translated by the pages that meet them.
        kinds = [
            kind for kind in kinds_of(errors.StreamsError) if kind.__module__ in (errors.__name__, problems.__name__)
        ]
        self.assertGreater(len(kinds), 30)
        for kind in kinds:
            if kind is not errors.StreamError:
                self.assertIn(kind, CATALOGUE)

    def test_every_status_can_be_sent(self) -> None:
        for status, code, title in CATALOGUE.values():
            self.assertIn(status, STATUS_LINES)
            self.assertNotIn(status, BODILESS)
            self.assertRegex(code, r"^[A-Z_]+$")
            self.assertTrue(title)

    def test_an_error_of_an_unknown_class_is_rendered_as_its_base(self) -> None:
        class NewKind(errors.Unavailable):
            pass

        class NoKind(errors.StreamsError):
            pass

        self.assertEqual(problem(NewKind("Later."), "")[0], 503)
        self.assertEqual(problem(NoKind("Odd."), "")[0], 500)

    def test_a_problem_has_status_headers_and_body(self) -> None:
        status, head, body, report = problem(errors.WriterGap("a", 3, 5), '/s/a?x=\xff"')
        self.assertEqual(status, 409)
        self.assertEqual(
            head,
            b"Content-Type: application/problem+json\r\nProducer-Expected-Seq: 3\r\nProducer-Received-Seq: 5\r\n",
        )
        self.assertEqual((report.code, report.kind), ("SEQUENCE_CONFLICT", "WriterGap"))
        self.assertEqual(report.message, "Producer-Seq is 5, but 3 is expected next. Send the missing appends first.")
        told = json.loads(body)
        self.assertEqual(told["instance"], '/s/a?x=\xff"')
        self.assertEqual((told["type"], told["code"]), ("/errors/sequence-conflict", "SEQUENCE_CONFLICT"))

    def test_errors_have_headers_with_their_fields(self) -> None:
        for error, wanted in (
            (errors.StreamClosed("a", 5, 7), b"Stream-Next-Offset: 0000000000000005_0000000000000007\r\n"),
            (errors.StreamClosed("a", 5, 7), b"Stream-Closed: true\r\n"),
            (errors.WriterFenced("a", 3), b"Producer-Epoch: 3\r\n"),
            (errors.Unavailable("Later."), b"Retry-After: 1\r\n"),
            (problems.MethodNotAllowed("No."), b"Allow: GET, HEAD, PUT, POST, DELETE, OPTIONS\r\n"),
            (problems.MethodNotAllowed("No.", b"GET"), b"Allow: GET\r\n"),
        ):
            self.assertIn(wanted, problem(error, "")[1])
        self.assertNotIn(b"Retry-After", problem(errors.InsufficientStorage("Full."), "")[1])
