"""Tests of the answers of each operation, on both fronts, with fast and slow storages."""

from __future__ import annotations

from collections.abc import Iterable

from durable_streams.server.errors import InsufficientStorage, Unavailable
from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE, Headers, SiteFront, settings_with
from tests.support.late_storage import LateStorage
from tests.support.replies import Reply

JSON = {"Content-Type": "application/json"}

#: What every answer about streams has, and what twisted.web adds.
ALWAYS = {
    *("date", "x-content-type-options", "cross-origin-resource-policy", "cache-control"),
    *("access-control-allow-origin", "access-control-expose-headers", "x-request-id"),
}
SITES_OWN = {"server"}


class OperationTestCase(FrontTestCase):
    def assert_headers(self, reply: Reply, names: Iterable[str]) -> None:
        """Assert that the answer has these headers, the common ones, and no others."""
        self.assertEqual(reply.names() - SITES_OWN, ALWAYS | set(names))
        self.assertEqual(reply.get("x-content-type-options"), "nosniff")
        self.assertEqual(reply.get("cross-origin-resource-policy"), "cross-origin")
        self.assertEqual(reply.get("access-control-allow-origin"), "*")

    def assert_problem(self, reply: Reply, status: int, code: str, *names: str) -> None:
        """Assert that the answer is this problem, in the form of RFC 9457."""
        self.assertEqual((reply.status, reply.code), (status, code))
        self.assert_headers(reply, {"content-type", "content-length", *names})
        self.assertEqual(reply.get("cache-control"), "no-store")
        problem = reply.json()
        self.assertEqual(set(problem), {"type", "title", "status", "code", "detail", "instance"})
        slug = "internal" if code == "INTERNAL_ERROR" else code.lower().replace("_", "-")
        self.assertEqual((problem["type"], problem["status"]), (f"/errors/{slug}", status))
        self.assertTrue(problem["title"])
        self.assertTrue(problem["detail"])

    def put(self, name: str, headers: Headers | None = None, body: bytes = b"") -> Reply:
        return self.front.ask("PUT", BASE + name, headers, body)

    def post(self, name: str, headers: Headers | None = None, body: bytes = b"") -> Reply:
        return self.front.ask("POST", BASE + name, headers, body)

    def read(self, name: str, query: str = "", headers: Headers | None = None) -> Reply:
        return self.front.ask("GET", BASE + name + query, headers)


def position(reply: Reply) -> int:
    """The second part of an answer's offset."""
    return int((reply.get("stream-next-offset") or "").partition("_")[2])


@each_way
class CreationTests(OperationTestCase):
    def test_a_created_stream_is_201_with_its_headers(self) -> None:
        reply = self.put("a/b", {"Content-Type": "text/plain; charset=utf-8"})
        self.assertEqual(reply.status, 201)
        self.assert_headers(reply, {"location", "content-type", "stream-next-offset", "content-length"})
        self.assertEqual(reply.get("location"), f"{self.front.scheme}://streams.example/v1/stream/a/b")
        self.assertEqual(reply.get("content-type"), "text/plain; charset=utf-8")
        self.assertEqual(reply.get("stream-next-offset"), "1800000000000000_0000000000000000")
        self.assertEqual(reply.get("cache-control"), "no-store")
        self.assertEqual(bytes(reply.body), b"")

    def test_location_is_a_percent_encoded_url(self) -> None:
        for path, location in (
            ("%C3%A4%20%25", "%C3%A4%20%25"),
            ("a%2fb", "a/b"),
            ("%7e%41-._!$&'()*+,;=:@", "~A-._!$&'()*+,;=:@"),
            ('"<>\\^`{|}', "%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ):
            self.assertEqual(
                self.put(path).get("location"), f"{self.front.scheme}://streams.example/v1/stream/{location}"
            )
            self.assertEqual(self.read(location).status, 200)

    def test_the_default_content_type_is_octet_stream(self) -> None:
        self.assertEqual(self.put("a").get("content-type"), "application/octet-stream")

    def test_a_stream_can_be_created_with_content(self) -> None:
        self.assertEqual(position(self.put("a", TEXT, b"hello")), 5)
        self.assertEqual(bytes(self.read("a").body), b"hello")

    def test_a_json_body_is_stored_as_messages(self) -> None:
        self.put("a", JSON, b' [1, {"b": [2]}] ')
        self.assertEqual(self.read("a").json(), [1, {"b": [2]}])
        self.put("empty", JSON, b"[]")
        self.assertEqual(bytes(self.read("empty").body), b"[]")

    def test_a_stream_can_be_created_closed(self) -> None:
        reply = self.put("a", {**TEXT, "Stream-Closed": "true"}, b"all")
        self.assertEqual((reply.status, reply.get("stream-closed")), (201, "true"))
        reply = self.read("a")
        self.assertEqual((bytes(reply.body), reply.get("stream-closed")), (b"all", "true"))

    def test_put_with_the_same_configuration_is_200(self) -> None:
        offset = self.put("a", {**TEXT, "Stream-TTL": "60"}, b"hello").get("stream-next-offset")
        for content_type in ("text/plain", "TEXT/plain; charset=utf-8"):
            reply = self.put("a", {"Content-Type": content_type, "Stream-TTL": "60"}, b"not looked at")
            self.assertEqual(reply.status, 200)
            self.assert_headers(reply, {"content-type", "stream-next-offset", "content-length"})
            self.assertEqual((reply.get("content-type"), reply.get("stream-next-offset")), ("text/plain", offset))
        self.assertEqual(bytes(self.read("a").body), b"hello")

    def test_put_of_an_existing_closed_stream_is_200(self) -> None:
        self.put("a", {**TEXT, "Stream-Closed": "true"}, b"all")
        reply = self.put("a", {**TEXT, "Stream-Closed": "true"})
        self.assertEqual((reply.status, reply.get("stream-closed")), (200, "true"))

    def test_put_with_a_different_configuration_is_409(self) -> None:
        self.put("a", {**TEXT, "Stream-TTL": "60"})
        for headers in (
            {"Stream-TTL": "60"},
            {"Content-Type": "application/json", "Stream-TTL": "60"},
            TEXT,
            {**TEXT, "Stream-TTL": "61"},
            {**TEXT, "Stream-Expires-At": "2030-01-01T00:00:00Z"},
            {**TEXT, "Stream-TTL": "60", "Stream-Closed": "true"},
        ):
            self.assert_problem(self.put("a", headers), 409, "ALREADY_EXISTS")

    def test_put_with_ttl_and_expires_at_is_400(self) -> None:
        both = {**TEXT, "Stream-TTL": "60", "Stream-Expires-At": "2030-01-01T00:00:00Z"}
        self.assert_problem(self.put("a", both), 400, "BAD_REQUEST")
        self.assertEqual(self.read("a").status, 404)

    def test_put_with_invalid_json_creates_no_stream(self) -> None:
        self.assert_problem(self.put("a", JSON, b"{"), 400, "INVALID_JSON")
        self.assertEqual(self.read("a").status, 404)

    def test_a_fork_has_its_sources_content_and_its_own(self) -> None:
        self.put("a", TEXT, b"hello")
        reply = self.put("f", {"Stream-Forked-From": "/v1/stream/a"}, b" world")
        self.assertEqual((reply.status, reply.get("content-type"), position(reply)), (201, "text/plain", 11))
        self.assertEqual(bytes(self.read("f").body), b"hello world")
        self.assertEqual(self.put("f", {"Stream-Forked-From": "a"}).status, 200)
        self.assert_problem(self.put("f", {"Stream-Forked-From": "other"}), 409, "ALREADY_EXISTS")

    def test_a_fork_of_a_missing_source_is_404(self) -> None:
        self.assert_problem(self.put("f", {"Stream-Forked-From": "none"}), 404, "NOT_FOUND")

    def test_the_name_of_a_deleted_source_with_forks_is_blocked(self) -> None:
        self.put("a", TEXT, b"hello")
        self.put("f", {"Stream-Forked-From": "a"})
        self.front.delete("a")
        self.assert_problem(self.put("a", TEXT), 409, "PATH_BLOCKED")
        self.assert_problem(self.put("g", {"Stream-Forked-From": "a"}), 409, "FORK_FROM_TOMBSTONE")
        for method in ("GET", "POST", "DELETE"):
            self.assert_problem(self.front.ask(method, BASE + "a", TEXT, b"x"), 410, "GONE")
        self.assertEqual(self.front.ask("HEAD", BASE + "a").status, 410)
        self.assertEqual(bytes(self.read("f").body), b"hello")


@each_way
class AppendTests(OperationTestCase):
    settings = settings_with(max_stream_bytes=100, max_total_bytes=150)

    def setUp(self) -> None:
        super().setUp()
        self.front.create("a", body=b"hello")
        self.front.create("j", "application/json")

    def producer(self, epoch: int, seq: int, **headers: str) -> Headers:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return {**TEXT, "Producer-Id": "p", "Producer-Epoch": str(epoch), "Producer-Seq": str(seq), **named}

    def test_an_append_returns_the_new_tail(self) -> None:
        reply = self.post("a", TEXT, b" world")
        self.assertEqual((reply.status, position(reply)), (204, 11))
        self.assert_headers(reply, {"stream-next-offset"})
        self.assertEqual(reply.get("cache-control"), "no-store")
        self.assertEqual(bytes(self.read("a").body), b"hello world")

    def test_json_appends_are_stored_as_separate_messages(self) -> None:
        self.post("j", JSON, b"[1,[2]]")
        self.post("j", JSON, b' {"a" : 3} ')
        self.assertEqual(self.read("j").json(), [1, [2], {"a": 3}])
        self.assertEqual(bytes(self.read("j").body), b'[1,[2],{"a" : 3}]')

    def test_an_append_with_a_close_closes_the_stream(self) -> None:
        reply = self.post("a", {**TEXT, "Stream-Closed": "TRUE"}, b"!")
        self.assertEqual((reply.status, reply.get("stream-closed"), position(reply)), (204, "true", 6))
        self.assertEqual(self.read("a").get("stream-closed"), "true")

    def test_a_close_needs_no_body_or_content_type(self) -> None:
        for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "%"}):
            reply = self.post("a", {**headers, "Stream-Closed": "true"})
            self.assertEqual((reply.status, reply.get("stream-closed"), position(reply)), (204, "true", 5))
            self.assert_headers(reply, {"stream-next-offset", "stream-closed"})

    def test_an_append_to_a_closed_stream_is_409(self) -> None:
        self.front.close_stream("a")
        for headers in (TEXT, JSON, {**TEXT, "Stream-Closed": "true"}, {**TEXT, "Stream-Seq": "1"}):
            reply = self.post("a", headers, b"1")
            self.assert_problem(reply, 409, "STREAM_CLOSED", "stream-closed", "stream-next-offset")
            self.assertEqual((reply.get("stream-closed"), position(reply)), ("true", 5))

    def test_errors_of_the_request_precede_errors_of_the_stream(self) -> None:
        for name in ("a", "none"):
            self.assert_problem(self.post(name, {}, b"x"), 400, "BAD_REQUEST")
            self.assert_problem(self.post(name, {"Content-Type": "odd"}, b"x"), 400, "BAD_REQUEST")
            self.assert_problem(self.post(name, TEXT), 400, "EMPTY_BODY")
            self.assert_problem(self.post(name, JSON, b"{"), 400, "INVALID_JSON")
            self.assert_problem(self.post(name, JSON, b"[]"), 400, "EMPTY_ARRAY")
            self.assert_problem(self.post(name, {**JSON, "Stream-Closed": "true"}, b"[]"), 400, "EMPTY_ARRAY")
            self.assert_problem(self.post(name, {**TEXT, "Producer-Id": "p"}, b"x"), 400, "BAD_REQUEST")
        self.assert_problem(self.post("none", TEXT, b"x"), 404, "NOT_FOUND")
        self.assert_problem(self.post("none", {"Stream-Closed": "true"}), 404, "NOT_FOUND")

    def test_an_append_of_another_content_type_is_409(self) -> None:
        reply = self.post("a", JSON, b"1")
        self.assert_problem(reply, 409, "CONTENT_TYPE_MISMATCH")
        self.assertIn("text/plain", reply.json()["detail"])
        self.assert_problem(self.post("j", TEXT, b"1"), 409, "CONTENT_TYPE_MISMATCH")
        self.assertEqual(self.post("a", {"Content-Type": "TEXT/PLAIN; x=y"}, b"1").status, 204)

    def test_stream_seq_must_increase(self) -> None:
        for sequence, status in (("b", 204), ("b", 409), ("a", 409), ("ba", 204), ("c", 204), ("C", 409), ("10", 409)):
            self.assertEqual(self.post("a", {**TEXT, "Stream-Seq": sequence}, b"x").status, status, sequence)
        self.assert_problem(
            self.post("a", {**TEXT, "Stream-Seq": "c"}, b"x"), 409, "SEQUENCE_CONFLICT", "stream-next-offset"
        )
        self.assertEqual(self.post("a", TEXT, b"x").status, 204)

    def test_a_sequence_conflict_has_the_tail(self) -> None:
        tail = self.post("a", {**TEXT, "Stream-Seq": "b"}, b"x").get("stream-next-offset")
        reply = self.post("a", {**TEXT, "Stream-Seq": "a"}, b"x")
        self.assert_problem(reply, 409, "SEQUENCE_CONFLICT", "stream-next-offset")
        self.assertEqual(reply.get("stream-next-offset"), tail)

    def test_an_unexpected_tail_is_409_with_the_tail(self) -> None:
        before = self.read("a").get("stream-next-offset") or ""
        reply = self.post("a", {**TEXT, "Stream-Expected-Offset": before}, b"x")
        tail = reply.get("stream-next-offset") or ""
        self.assertEqual((reply.status, position(reply)), (204, 6))
        other = f"{int(tail[:16]) - 1:016d}{tail[16:]}"
        for expected in (before, "-1", f"{tail[:-1]}9", other, "0000000000000000_0000000000000000"):
            for headers in (TEXT, {**TEXT, "Stream-Closed": "true"}, {**TEXT, "Stream-Seq": "1"}, self.producer(0, 0)):
                reply = self.post("a", {**headers, "Stream-Expected-Offset": expected}, b"y")
                self.assert_problem(reply, 409, "OFFSET_CONFLICT", "stream-next-offset")
                self.assertEqual(reply.get("stream-next-offset"), tail)
        self.assertEqual((bytes(self.read("a").body), self.read("a").get("stream-closed")), (b"hellox", None))

    def test_the_start_of_an_empty_stream_can_be_expected(self) -> None:
        for number, start in enumerate(("-1", "0000000000000000_0000000000000000")):
            self.put(f"e{number}", TEXT)
            headers = {**TEXT, "Stream-Expected-Offset": start}
            self.assertEqual(self.post(f"e{number}", headers, b"x").status, 204)
            self.assert_problem(self.post(f"e{number}", headers, b"x"), 409, "OFFSET_CONFLICT", "stream-next-offset")

    def test_a_fork_compares_its_own_tail(self) -> None:
        tail = self.read("a").get("stream-next-offset") or ""
        self.assertEqual(self.put("f", {"Stream-Forked-From": "a"}).status, 201)
        self.post("a", TEXT, b" world")
        expecting = {**TEXT, "Stream-Expected-Offset": tail}
        self.assert_problem(self.post("a", expecting, b"x"), 409, "OFFSET_CONFLICT", "stream-next-offset")
        self.assertEqual(self.post("f", expecting, b"x").status, 204)
        self.assertEqual(bytes(self.read("f").body), b"hellox")

    def test_a_retry_and_a_closed_stream_precede_the_expected_offset(self) -> None:
        tail = self.read("a").get("stream-next-offset") or ""
        first = {**self.producer(0, 0), "Stream-Expected-Offset": tail}
        self.assertEqual([self.post("a", first, b"x").status for _ in range(2)], [200, 204])
        self.assertEqual(self.post("a", {"Stream-Closed": "true"}).status, 204)
        self.assertEqual(self.post("a", first, b"x").status, 204)
        for expected in (tail, self.read("a").get("stream-next-offset") or ""):
            reply = self.post("a", {**TEXT, "Stream-Expected-Offset": expected}, b"y")
            self.assert_problem(reply, 409, "STREAM_CLOSED", "stream-closed", "stream-next-offset")

    def test_a_malformed_expected_offset_is_400(self) -> None:
        for expected in ("", "now", "5", "1_0", "x" * 33):
            reply = self.post("a", {**TEXT, "Stream-Expected-Offset": expected}, b"x")
            self.assert_problem(reply, 400, "BAD_REQUEST")
            self.assertIn("Stream-Expected-Offset", reply.json()["detail"])

    def test_an_append_of_a_producer_returns_its_epoch_and_sequence(self) -> None:
        for seq in range(3):
            reply = self.post("a", self.producer(0, seq), b"x")
            self.assertEqual((reply.status, position(reply)), (200, 6 + seq))
            self.assert_headers(reply, {"stream-next-offset", "producer-epoch", "producer-seq", "content-length"})
            self.assertEqual((reply.get("producer-epoch"), reply.get("producer-seq")), ("0", str(seq)))

    def test_a_producers_retry_is_204(self) -> None:
        for seq in range(3):
            self.post("a", self.producer(0, seq), b"x")
        for seq in range(3):
            reply = self.post("a", self.producer(0, seq), b"x")
            self.assertEqual((reply.status, position(reply)), (204, 8))
            self.assertEqual((reply.get("producer-epoch"), reply.get("producer-seq")), ("0", "2"))

    def test_a_producers_gap_is_409_with_the_expected_sequence(self) -> None:
        reply = self.post("a", self.producer(0, 2), b"x")
        self.assert_problem(reply, 409, "SEQUENCE_CONFLICT", "producer-expected-seq", "producer-received-seq")
        self.assertEqual((reply.get("producer-expected-seq"), reply.get("producer-received-seq")), ("0", "2"))
        self.post("a", self.producer(0, 0), b"x")
        reply = self.post("a", self.producer(0, 5), b"x")
        self.assertEqual((reply.get("producer-expected-seq"), reply.get("producer-received-seq")), ("1", "5"))

    def test_a_fenced_producer_is_403_with_the_current_epoch(self) -> None:
        self.post("a", self.producer(3, 0), b"x")
        reply = self.post("a", self.producer(2, 1), b"x")
        self.assert_problem(reply, 403, "PRODUCER_EPOCH_FENCED", "producer-epoch")
        self.assertEqual(reply.get("producer-epoch"), "3")

    def test_a_new_epoch_must_begin_at_sequence_0(self) -> None:
        self.post("a", self.producer(0, 0), b"x")
        self.assert_problem(self.post("a", self.producer(1, 1), b"x"), 400, "BAD_REQUEST")
        self.assertEqual(self.post("a", self.producer(1, 0), b"x").status, 200)

    def test_a_producer_can_repeat_its_close(self) -> None:
        last = self.producer(0, 0, Stream_Closed="true")
        self.assertEqual(self.post("a", last, b"x").status, 200)
        reply = self.post("a", last, b"x")
        self.assertEqual((reply.status, reply.get("stream-closed"), position(reply)), (204, "true", 6))
        self.assertEqual(self.post("a", self.producer(0, 1), b"x").code, "STREAM_CLOSED")

    def test_a_producers_close_without_data_is_204(self) -> None:
        reply = self.post("a", self.producer(0, 0, Stream_Closed="true"))
        self.assertEqual((reply.status, reply.get("producer-seq"), reply.get("stream-closed")), (204, "0", "true"))

    def test_a_413_names_the_limit_that_the_append_would_exceed(self) -> None:
        reply = self.post("a", TEXT, b"x" * 96)
        self.assertEqual((reply.status, "limits.max_stream_bytes" in reply.json()["detail"]), (413, True))
        self.put("b", TEXT, b"x" * 100)
        reply = self.post("j", JSON, b"[" + b"1," * 24 + b"1]")
        self.assertEqual((reply.status, "limits.max_total_bytes" in reply.json()["detail"]), (413, True))

    def test_an_append_over_the_stream_or_total_limit_is_413(self) -> None:
        self.assert_problem(self.post("a", TEXT, b"x" * 96), 413, "PAYLOAD_TOO_LARGE")
        self.assertEqual(self.post("a", TEXT, b"x" * 95).status, 204)
        self.assertEqual(self.put("b", TEXT, b"x" * 50).status, 201)
        self.assert_problem(self.post("j", JSON, b"1"), 413, "PAYLOAD_TOO_LARGE")
        self.front.delete("b")
        self.assertEqual(self.post("j", JSON, b"1").status, 204)


@each_way
class ReadTests(OperationTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tail = self.front.create("a", body=b"hello")
        self.front.create("j", "application/json", b"[1,2]")

    def test_a_read_from_the_start_returns_all_data(self) -> None:
        for query in ("", "?offset=-1", "?offset=0000000000000000_0000000000000000", "?unknown=1"):
            reply = self.read("a", query)
            self.assertEqual((reply.status, bytes(reply.body)), (200, b"hello"))
            names = {"content-type", "content-length", "stream-next-offset", "stream-up-to-date", "etag"}
            self.assert_headers(reply, names)
            self.assertEqual((reply.get("stream-next-offset"), reply.get("stream-up-to-date")), (self.tail, "true"))
            self.assertEqual((reply.get("content-type"), reply.get("cache-control")), ("text/plain", "no-store"))

    def test_a_read_from_an_offset_returns_later_data(self) -> None:
        self.front.append("a", b" world")
        reply = self.read("a", "?offset=" + self.tail)
        self.assertEqual((bytes(reply.body), position(reply)), (b" world", 11))

    def test_a_read_from_the_tail_is_empty(self) -> None:
        reply = self.read("a", "?offset=" + self.tail)
        self.assertEqual((reply.status, bytes(reply.body)), (200, b""))
        self.assertEqual((reply.get("stream-next-offset"), reply.get("stream-up-to-date")), (self.tail, "true"))
        self.assertEqual(reply.get("stream-closed"), None)
        tail = self.read("j").get("stream-next-offset") or ""
        self.assertEqual(bytes(self.read("j", "?offset=" + tail).body), b"[]")

    def test_a_read_of_json_is_one_array(self) -> None:
        self.front.append("j", b'{"a":[]}', "application/json")
        reply = self.read("j")
        self.assertEqual((bytes(reply.body), reply.get("content-type")), (b'[1,2,{"a":[]}]', "application/json"))

    def test_a_read_to_the_end_of_a_closed_stream_has_stream_closed(self) -> None:
        self.front.close_stream("a")
        for query, body in (("", b"hello"), ("?offset=" + self.tail, b""), ("?offset=now", b"")):
            reply = self.read("a", query)
            self.assertEqual((bytes(reply.body), reply.get("stream-closed")), (body, "true"))
            self.assertEqual((reply.status, reply.get("stream-up-to-date")), (200, "true"))

    def test_a_read_from_now_is_empty_and_has_the_tail(self) -> None:
        for name, body in (("a", b""), ("j", b"[]")):
            reply = self.read(name, "?offset=now")
            self.assertEqual((reply.status, bytes(reply.body)), (200, body))
            names = {"content-type", "content-length", "stream-next-offset", "stream-up-to-date"}
            self.assert_headers(reply, names)
            self.assertEqual(reply.get("stream-next-offset"), self.read(name).get("stream-next-offset"))
            self.assertEqual(reply.get("cache-control"), "no-store")

    def test_a_read_from_now_ignores_if_none_match(self) -> None:
        self.assertEqual(self.read("a", "?offset=now", {"If-None-Match": "*"}).status, 200)

    def test_a_read_with_a_matching_etag_is_304(self) -> None:
        reply = self.read("a")
        tag = reply.get("etag") or ""
        self.assertRegex(tag, r'^"[0-9]+:0:5"$')
        again = self.read("a", "", {"If-None-Match": tag})
        self.assertEqual((again.status, bytes(again.body)), (304, b""))
        self.assertEqual(again.get("etag"), tag)
        self.assertEqual((again.get("stream-next-offset"), again.get("stream-up-to-date")), (self.tail, "true"))
        self.assertEqual(self.read("a", "", {"If-None-Match": '"other"'}).status, 200)

    def test_an_append_changes_the_etag(self) -> None:
        tag = self.read("a").get("etag") or ""
        self.front.append("a", b"!")
        self.assertEqual(bytes(self.read("a", "", {"If-None-Match": tag}).body), b"hello!")

    def test_a_close_changes_the_etag(self) -> None:
        tag = self.read("a").get("etag") or ""
        self.front.close_stream("a")
        reply = self.read("a", "", {"If-None-Match": tag})
        self.assertEqual((reply.status, reply.get("stream-closed")), (200, "true"))
        self.assertNotEqual(reply.get("etag"), tag)
        again = self.read("a", "", {"If-None-Match": reply.get("etag") or ""})
        self.assertEqual((again.status, again.get("stream-closed")), (304, "true"))

    def test_a_fork_has_other_etags_than_its_source(self) -> None:
        self.put("f", {"Stream-Forked-From": "a"})
        self.assertNotEqual(self.read("a").get("etag"), self.read("f").get("etag"))
        self.assertEqual(self.read("f").get("stream-next-offset"), self.tail)

    def test_a_recreated_stream_has_other_etags_and_offsets(self) -> None:
        tag = self.read("a").get("etag") or ""
        self.front.delete("a")
        self.front.pass_time(1)
        tail = self.front.create("a", body=b"HELLO")
        self.assertEqual(self.read("a", "", {"If-None-Match": tag}).status, 200)
        self.assertGreater(tail, self.tail)
        self.assert_problem(self.read("a", "?offset=" + self.tail), 410, "GONE")
        self.assertEqual(self.read("a", "?offset=-1").status, 200)

    def test_a_read_of_a_missing_stream_is_404(self) -> None:
        for query in ("", "?offset=-1", "?offset=now", "?offset=-1&live=long-poll", "?offset=-1&live=sse"):
            self.assert_problem(self.read("none", query), 404, "NOT_FOUND")

    def test_a_malformed_or_unknown_offset_is_400(self) -> None:
        for query in ("?offset=", "?offset=5", "?offset=9999999999999999_0000000000000000", "?live=sse"):
            reply = self.read("a", query)
            self.assert_problem(reply, 400, "INVALID_OFFSET")
            self.assertEqual(reply.json()["instance"], f"/v1/stream/a{query}")

    def test_a_read_renews_the_ttl(self) -> None:
        self.put("t", {**TEXT, "Stream-TTL": "10"})
        for _ in range(3):
            self.front.pass_time(8, step=1)
            self.assertEqual(self.read("t").status, 200)
        for _ in range(3):
            self.front.pass_time(4, step=1)
            self.front.ask("HEAD", BASE + "t")
        self.assert_problem(self.read("t"), 404, "NOT_FOUND")


@each_way
class StatusTests(OperationTestCase):
    def status(self, name: str) -> Reply:
        return self.front.ask("HEAD", BASE + name)

    def test_a_head_has_content_type_and_tail(self) -> None:
        tail = self.front.create("a", body=b"hello")
        reply = self.status("a")
        self.assertEqual(reply.status, 200)
        self.assert_headers(reply, {"content-type", "stream-next-offset"})
        self.assertEqual((reply.get("content-type"), reply.get("stream-next-offset")), ("text/plain", tail))
        self.assertEqual(reply.get("cache-control"), "no-store")

    def test_a_head_of_a_closed_stream_has_stream_closed(self) -> None:
        self.front.create("a")
        self.assertEqual(self.status("a").get("stream-closed"), None)
        self.front.close_stream("a")
        self.assertEqual(self.status("a").get("stream-closed"), "true")

    def test_a_head_has_the_lifetime(self) -> None:
        self.put("t", {**TEXT, "Stream-TTL": "3600"})
        self.put("e", {**TEXT, "Stream-Expires-At": "2030-01-31T13:00:00.5+01:00"})
        self.assertEqual(self.status("t").get("stream-ttl"), "3600")
        self.assertEqual(self.status("t").get("stream-expires-at"), None)
        self.assertEqual(self.status("e").get("stream-expires-at"), "2030-01-31T12:00:00.500Z")
        self.assertEqual(self.status("e").get("stream-ttl"), None)

    def test_a_head_of_a_missing_stream_is_404(self) -> None:
        reply = self.status("none")
        self.assertEqual((reply.status, reply.get("content-type")), (404, "application/problem+json"))
        self.assertEqual(self.status("..").status, 400)


@each_way
class DeletionTests(OperationTestCase):
    def test_a_deleted_stream_is_404(self) -> None:
        self.front.create("a", body=b"hello")
        reply = self.front.ask("DELETE", BASE + "a")
        self.assertEqual(reply.status, 204)
        self.assert_headers(reply, set())
        for method in ("GET", "POST", "DELETE"):
            self.assert_problem(self.front.ask(method, BASE + "a", TEXT, b"x"), 404, "NOT_FOUND")

    def test_the_name_of_a_deleted_stream_can_be_used_again(self) -> None:
        self.front.create("a", body=b"hello")
        self.front.delete("a")
        self.front.create("a", "application/json")
        self.assertEqual(bytes(self.read("a").body), b"[]")


@each_way
class MethodTests(OperationTestCase):
    def test_a_preflight_is_answered_for_any_stream(self) -> None:
        for name in ("a", "none", "..", ""):
            reply = self.front.ask("OPTIONS", BASE + name, {"Origin": "https://app.example"})
            self.assertEqual(reply.status, 204)
            methods = "GET, HEAD, PUT, POST, DELETE, OPTIONS"
            self.assertEqual((reply.get("allow"), reply.get("access-control-allow-methods")), (methods, methods))
            allowed = (reply.get("access-control-allow-headers") or "").lower().split(", ")
            for header in ("content-type", "authorization", "if-none-match", "stream-ttl", "producer-id", "stream-seq"):
                self.assertIn(header, allowed)
            self.assertEqual(reply.get("access-control-allow-origin"), "*")
            self.assertEqual(reply.get("access-control-allow-credentials"), None)

    def test_cors_exposes_the_headers_of_streams(self) -> None:
        self.front.create("a")
        exposed = (self.read("a").get("access-control-expose-headers") or "").lower().split(", ")
        for header in (
            *("stream-next-offset", "stream-cursor", "stream-up-to-date", "stream-closed", "stream-ttl", "etag"),
            *("stream-expires-at", "stream-sse-data-encoding", "location", "retry-after", "producer-epoch"),
            *("producer-seq", "producer-expected-seq", "producer-received-seq"),
        ):
            self.assertIn(header, exposed)

    def test_other_methods_are_405(self) -> None:
        self.front.create("a")
        for method in ("PATCH", "TRACE", "PROPFIND"):
            reply = self.front.ask(method, BASE + "a")
            self.assert_problem(reply, 405, "METHOD_NOT_ALLOWED", "allow")
            self.assertEqual(reply.get("allow"), "GET, HEAD, PUT, POST, DELETE, OPTIONS")


@each_way
class ListedOriginTests(FrontTestCase):
    settings = settings_with(cors_origins=("https://app.example", "https://other.example:8443"))

    def test_a_listed_origin_is_allowed(self) -> None:
        self.front.create("a")
        for origin in ("https://app.example", "https://other.example:8443"):
            for method in ("GET", "HEAD", "OPTIONS", "PATCH"):
                reply = self.front.ask(method, BASE + "a", {"Origin": origin})
                self.assertEqual((reply.get("access-control-allow-origin"), reply.get("vary")), (origin, "Origin"))
                self.assertIn("Stream-Next-Offset", reply.get("access-control-expose-headers") or "")

    def test_an_unlisted_origin_is_not_allowed(self) -> None:
        self.front.create("a")
        odd = ("https://evil.example", "https://app.example.evil", "https://APP.example", "null", "*", "")
        for headers in ({}, *({"Origin": origin} for origin in odd)):
            for method in ("GET", "OPTIONS"):
                reply = self.front.ask(method, BASE + "a", headers)
                self.assertEqual((reply.get("access-control-allow-origin"), reply.get("vary")), (None, "Origin"))
                self.assertEqual(reply.get("access-control-expose-headers"), None)

    def test_tails_and_errors_allow_a_listed_origin(self) -> None:
        self.front.create("a")
        headers = {"Origin": "https://app.example"}
        for query in ("?offset=-1&live=sse", "?offset=zzz", "?offset=now&live=long-poll"):
            peer = self.front.follow(BASE + "a" + query, headers)
            self.front.pass_time(31, step=1)
            self.assertEqual(peer.reply.get("access-control-allow-origin"), "https://app.example")


class FailureTests(OperationTestCase):
    """A storage that fails, now or later."""

    late = True

    def setUp(self) -> None:
        super().setUp()
        self.front.create("a", body=b"hello")
        storage = self.front.storage
        assert isinstance(storage, LateStorage)
        self.storage = storage

    calls = (
        ("create", "PUT", "b"),
        ("append", "POST", "a"),
        ("read", "GET", "a"),
        ("read", "GET", "a?offset=-1&live=long-poll"),
        ("read", "GET", "a?offset=-1&live=sse"),
        ("delete", "DELETE", "a"),
    )

    def test_an_unavailable_storage_is_503_with_retry_after(self) -> None:
        for method, verb, target in self.calls:
            self.storage.failures[method] = [Unavailable("The storage is busy.")]
            reply = self.front.ask(verb, BASE + target, TEXT, b"x")
            self.assert_problem(reply, 503, "UNAVAILABLE", "retry-after")
            self.assertEqual(reply.get("retry-after"), "1")

    def test_a_full_storage_is_507(self) -> None:
        for method, verb, target in self.calls:
            self.storage.failures[method] = [InsufficientStorage("The disk is full.")]
            self.assert_problem(self.front.ask(verb, BASE + target, TEXT, b"x"), 507, "INSUFFICIENT_STORAGE")

    def test_an_unexpected_error_is_logged_and_answered_with_500(self) -> None:
        for method, verb, target in self.calls:
            self.storage.failures[method] = [ZeroDivisionError("secret")]
            reply = self.front.ask(verb, BASE + target, TEXT, b"x")
            self.assert_problem(reply, 500, "INTERNAL_ERROR")
            self.assertNotIn(b"secret", reply.body)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_exception_raised_at_once_is_logged_and_answered_with_500(self) -> None:
        for method, verb, target in self.calls:
            self.storage.broken[method] = ZeroDivisionError("secret")
            self.assert_problem(self.front.ask(verb, BASE + target, TEXT, b"x"), 500, "INTERNAL_ERROR")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.storage.broken.clear()

    def test_the_connection_stays_open_after_a_500(self) -> None:
        self.storage.failures["read"] = [ZeroDivisionError("secret")]
        peer = self.front.follow(BASE + "a")
        peer.send_request("GET", BASE + "a")
        self.assertEqual(peer.statuses, [500, 200])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_operation_is_cancelled_when_its_connection_is_reset(self) -> None:
        for method, verb, target in self.calls:
            self.storage.delay = 1
            peer = self.front.connect()
            peer.send_request(verb, BASE + target, TEXT, b"x")
            self.assertEqual((self.storage.calls[-1], peer.replies), (method, []))
            peer.reset()
            self.front.pass_time(2)
            self.assertEqual(peer.replies, [])
            self.storage.delay = 0.001
        self.assertEqual(self.storage.cancelled, len(self.calls))
        self.assertEqual(list(self.front.streams._waiting._watchers), [])
        self.assertTrue(self.front.is_healthy())

    def test_pipelined_requests_are_answered_in_order_with_a_slow_storage(self) -> None:
        self.storage.delay = 0.5
        peer = self.front.connect()
        peer.send_request("POST", BASE + "a", TEXT, b" world")
        peer.send_request("GET", BASE + "a")
        peer.send_request("HEAD", BASE + "a")
        self.assertEqual(peer.replies, [])
        self.front.pass_time(3)
        self.assertEqual(peer.statuses, [204, 200, 200])
        self.assertEqual(bytes(peer.replies[1].body), b"hello world")
        self.storage.delay = 0.001

    def test_a_catch_up_read_that_fails_aborts_the_connection(self) -> None:
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        self.storage.failures["read_range"] = [Unavailable("The storage is busy.")]
        peer = self.front.follow(BASE + "a")
        self.front.pass_time(1)
        self.assertFalse(peer.reply.complete)
        self.assertTrue(peer.aborted)
        self.storage.failures["read_range"] = [ZeroDivisionError("secret")]
        peer = self.front.follow(BASE + "a")
        self.front.pass_time(1)
        self.assertTrue(peer.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_catch_up_read_is_complete_with_a_slow_storage(self) -> None:
        self.front.append_directly("a", bytes(range(256)) * 4_000, "text/plain")
        for room in (10_000, 1 << 60):
            peer = self.front.follow(BASE + "a", room=room)
            for _ in range(200):
                peer.take_piece(10_000)
            peer.read_freely()
            self.front.pass_time(1)
            self.assertEqual(bytes(peer.reply.body), b"hello" + bytes(range(256)) * 4_000)


class FailureOnSiteTests(FailureTests):
    """The same behind a Site."""

    front_type = SiteFront


@each_way
class ContentEncodingTests(OperationTestCase):
    def test_a_compressed_body_is_415_and_not_stored(self) -> None:
        self.front.create("a", body=b"one")
        for coding in ("gzip", "br", "identity, gzip", "GZIP", "x"):
            headers = {"Content-Type": "text/plain", "Content-Encoding": coding}
            for reply in (self.post("a", headers, b"\x1f\x8b"), self.put("new", headers, b"\x1f\x8b")):
                self.assert_problem(reply, 415, "UNSUPPORTED_CONTENT_ENCODING", "accept-encoding")
                self.assertEqual(reply.get("accept-encoding"), "identity")
        self.assertEqual(self.read("a").body, b"one")
        self.assertEqual(self.read("new").status, 404)

    def test_identity_encoding_and_requests_without_a_body_are_accepted(self) -> None:
        for coding in ("identity", "Identity", ""):
            headers = {"Content-Type": "text/plain", "Content-Encoding": coding}
            self.assertIn(self.put("a", headers, b"one").status, (200, 201))
            self.assertEqual(self.post("a", headers, b"two").status, 204)
        self.assertEqual(self.put("b", {"Content-Encoding": "gzip"}).status, 201)
        self.assertEqual(self.post("b", {"Content-Encoding": "gzip", "Stream-Closed": "true"}).status, 204)


@each_way
class ForkOffsetTests(OperationTestCase):
    def test_the_source_of_a_fork_has_no_query(self) -> None:
        self.put("a%3Fb")
        for source in ("a?b", "/v1/stream/a?offset=-1"):
            reply = self.put("f", {"Stream-Forked-From": source})
            self.assert_problem(reply, 400, "BAD_REQUEST")
            self.assertIn("%3F", reply.json()["detail"])
        self.assertEqual(self.put("f", {"Stream-Forked-From": "a%3Fb"}).status, 201)

    def test_fork_offset_now_is_400(self) -> None:
        self.front.create("a", body=b"one")
        reply = self.put("b", {"Stream-Forked-From": "a", "Stream-Fork-Offset": "now"})
        self.assert_problem(reply, 400, "BAD_REQUEST")
        self.assertIn("Stream-Fork-Offset", reply.json()["detail"])
        self.assertEqual(self.read("b").status, 404)


@each_way
class MetadataLimitTests(OperationTestCase):
    """The limit of metadata, whose setting the answer names."""

    settings = settings_with(max_metadata_bytes=600)

    def test_metadata_over_its_limit_is_507_and_the_detail_names_the_setting(self) -> None:
        self.put("a", TEXT)
        first = {**TEXT, "Producer-Id": "x" * 200, "Producer-Epoch": "0", "Producer-Seq": "0"}
        self.assertEqual(self.post("a", first, b"1").status, 200)
        for reply in (
            self.put("n" * 140, TEXT),
            self.post("a", {**first, "Producer-Id": "y"}, b"2"),
            self.post("a", {**TEXT, "Stream-Seq": "9" * 140}, b"2"),
        ):
            self.assert_problem(reply, 507, "INSUFFICIENT_STORAGE")
            self.assertIn("limits.max_metadata_bytes", reply.json()["detail"])
        self.assertEqual(self.post("a", first, b"1").status, 204)
        self.assertEqual(self.post("a", {**first, "Producer-Seq": "1"}, b"2").status, 200)
        self.assertEqual(self.post("a", {"Stream-Closed": "true"}).status, 204)
        self.assertEqual(bytes(self.read("a").body), b"12")


@each_way
class PartialReadTests(OperationTestCase):
    settings = settings_with(max_read_bytes=10)

    def follow(self, name: str, query: str = "") -> tuple[list[bytes], list[Reply]]:
        """Read a stream as a client does, answer by answer, until one says that it is up to date."""
        bodies: list[bytes] = []
        replies: list[Reply] = []
        offset = "-1"
        while not replies or replies[-1].get("stream-up-to-date") is None:
            self.assertLess(len(replies), 50)
            reply = self.read(name, f"?offset={offset}{query}")
            self.assertEqual(reply.status, 200)
            replies.append(reply)
            bodies.append(bytes(reply.body))
            offset = reply.get("stream-next-offset") or ""
        return bodies, replies

    def test_a_read_ends_with_the_append_that_reaches_the_limit(self) -> None:
        self.front.create("a")
        for body in (b"1234", b"56789", b"abcdefghijklm", b"n", b"o"):
            self.front.append("a", body)
        for query in ("", "&live=long-poll"):
            bodies, replies = self.follow("a", query)
            self.assertEqual(bodies, [b"123456789abcdefghijklm", b"no"])
            self.assertEqual([reply.get("stream-closed") for reply in replies], [None, None])
            self.assertEqual(len({reply.get("etag") for reply in replies}), 2)

    def test_a_read_ends_at_an_append_that_ends_at_the_limit(self) -> None:
        self.front.create("a", body=b"1234567890")
        self.front.append("a", b"abcdefghij")
        self.assertEqual(self.follow("a")[0], [b"1234567890", b"abcdefghij"])

    def test_only_the_last_part_of_a_closed_stream_is_marked_as_closed(self) -> None:
        self.front.create("j", "application/json", b"[1,2,3,4,5,6]")
        self.front.append("j", b'["seven","eight"]', "application/json", Stream_Closed="true")
        bodies, replies = self.follow("j")
        self.assertEqual(bodies, [b"[1,2,3,4,5,6]", b'["seven","eight"]'])
        self.assertEqual([reply.get("stream-closed") for reply in replies], [None, "true"])

    def test_parts_are_larger_than_a_piece_if_an_append_is(self) -> None:
        self.front.create("a", "application/octet-stream", b"x" * 300_000)
        self.front.append("a", b"y" * 5, "application/octet-stream")
        self.assertEqual(list(map(len, self.follow("a")[0])), [300_000, 5])

    def test_a_fork_is_read_in_parts_across_its_source(self) -> None:
        self.front.create("a")
        for _ in range(5):
            self.front.append("a", b"1234567")
        self.assertEqual(self.put("f", {"Stream-Forked-From": "a"}).status, 201)
        self.front.append("f", b"8")
        self.assertEqual(self.follow("f")[0], [b"1234567" * 2, b"1234567" * 2, b"12345678"])
