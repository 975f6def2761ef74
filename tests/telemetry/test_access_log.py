"""Tests of the access log: which requests are logged, and with which fields."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.logger import LogLevel, formatEvent

from durable_streams.server.config.sections import ObservabilitySettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.telemetry import access_log
from durable_streams.server.telemetry.access_log import MAX_FAILURES
from tests.support.cases import TEXT, ChannelTestCase, FrontTestCase, each_way, get
from tests.support.events import Events, fields
from tests.support.fronts import BASE
from tests.support.gates import GateTestCase


def logging(access_log: str, metrics: bool = True) -> Settings:
    return replace(Settings(), observability=ObservabilitySettings(access_log=access_log, metrics=metrics))


class LogTestCase(FrontTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.events = Events(self)


@each_way
class AllTests(LogTestCase):
    settings = logging("all")

    def test_each_request_has_a_line(self) -> None:
        self.front.create("a")
        self.front.append("a", b"one")
        self.front.ask("GET", BASE + "a")
        self.front.ask("GET", BASE + "%20?offset=x")
        self.front.ask("PATCH", BASE + "a")
        self.front.delete("a")
        self.assertEqual(
            self.events.lines,
            [
                "PUT /v1/stream/a 201",
                "POST /v1/stream/a 204",
                "GET /v1/stream/a 200",
                "GET /v1/stream/%20 400 INVALID_OFFSET",
                "PATCH /v1/stream/a 405 METHOD_NOT_ALLOWED",
                "DELETE /v1/stream/a 204",
            ],
        )

    def test_a_live_read_is_logged_when_its_answer_begins(self) -> None:
        self.front.create("a")
        tail, poll = (self.front.follow(BASE + f"a?offset=now&live={live}") for live in ("sse", "long-poll"))
        self.assertEqual(self.events.lines[1:], ["GET /v1/stream/a 200"])
        self.front.append("a", b"one")
        self.assertEqual(sorted(self.events.lines[2:]), ["GET /v1/stream/a 200", "POST /v1/stream/a 204"])
        self.assertEqual((len(tail.replies), poll.statuses), (1, [200]))
        modes = [event["ds.live_mode"] for event in self.events.access if "ds.live_mode" in event]
        operations = [event["ds.operation"] for event in self.events.access]
        self.assertEqual(sorted(modes), ["long-poll", "sse"])
        self.assertEqual(sorted(operations), ["append", "create", "poll", "subscribe"])

    def test_the_access_log_has_no_secrets(self) -> None:
        self.front.create("a")
        headers = {**TEXT, "Authorization": "Bearer hush", "Cookie": "hush", "Stream-Seq": "hush"}
        self.front.ask("POST", BASE + "a?token=hush", headers, b"hush")
        self.front.ask("GET", BASE + "a?offset=-1&sig=hush&live=", headers)
        self.front.ask("GET", BASE + "a?offset=-1&x=%26offset%3Dhush&cursor=7", headers)
        self.assertEqual(len(self.events.access), 4)
        self.assertNotIn("hush", repr([fields(event) for event in self.events.access]))
        self.assertNotIn("hush", "".join(formatEvent(event) for event in self.events.access))
        self.assertEqual(
            [event.get("url.query") for event in self.events.access],
            [None, None, "offset=-1&live=", "offset=-1&cursor=7"],
        )

    def test_a_stream_name_cannot_forge_a_line(self) -> None:
        self.front.ask("PUT", BASE + "a%0aPUT%20/v1/stream/b%20201", TEXT)
        self.front.ask("PUT", BASE + "{status}%s", TEXT)
        self.front.ask("PUT", BASE + "%1b[2J%e2%80%ae%ff", TEXT)
        self.assertEqual(
            self.events.lines,
            [
                "PUT /v1/stream/a%0aPUT%20/v1/stream/b%20201 400 INVALID_STREAM_NAME",
                "PUT /v1/stream/{status}%s 400 INVALID_STREAM_NAME",
                "PUT /v1/stream/%1b[2J%e2%80%ae%ff 400 INVALID_STREAM_NAME",
            ],
        )
        self.assertEqual(
            [event["ds.stream_id"] for event in self.events.access],
            ["a\\nPUT /v1/stream/b 201", "{status}%s", "\\x1b[2J\\u202e\\xff"],
        )

    def test_a_long_or_unprintable_user_agent_is_truncated_and_escaped(self) -> None:
        self.front.ask("PUT", BASE + "a", {**TEXT, "User-Agent": "me\t\u00e9" + "x" * 5000})
        [agent] = [str(event["user_agent.original"]) for event in self.events.access]
        self.assertTrue(agent.isprintable() and len(agent) < 2100, agent)
        self.assertTrue(agent.startswith("me\\t"))

    def test_the_fields_of_a_request(self) -> None:
        reply = self.front.ask("PUT", BASE + "a/b?live=1", {**TEXT, "User-Agent": "test/1", "Host": "here:8080"})
        [event] = self.events.access
        said = fields(event)
        self.assertGreater(said.pop("event.duration"), 0)  # type: ignore[misc]
        self.assertRegex(str(said.pop("client.address")), r"\A[0-9.]+\Z")
        self.assertEqual(said.pop("network.protocol.version"), "2" if "Http2" in type(self).__name__ else "1.1")
        self.assertEqual(
            said,
            {
                "ds.operation": "create",
                "ds.storage.backend": "memory",
                "ds.stream_id": "a/b",
                "http.request.method": "PUT",
                "http.response.status_code": 201,
                "http.route": "/v1/stream/{name}",
                "request.id": reply.get("x-request-id"),
                "server.address": "here",
                "url.path": "/v1/stream/a/b",
                "url.query": "live=1",
                "user_agent.original": "test/1",
            },
        )

    def test_the_fields_of_a_failure(self) -> None:
        self.front.ask("GET", BASE + "a?offset=-1&live=sse")
        [event] = self.events.access
        self.assertEqual(event["log_level"], LogLevel.warn)
        said = fields(event)
        self.assertEqual(
            {key: said[key] for key in ("ds.error_code", "ds.live_mode", "ds.operation", "error.type")},
            {
                "ds.error_code": "NOT_FOUND",
                "ds.live_mode": "sse",
                "ds.operation": "subscribe",
                "error.type": "StreamNotFound",
            },
        )
        self.assertEqual(said["error.message"], "There is no stream a. Create it first.")
        self.assertNotIn("ds.error_class", said)


@each_way
class FailureTests(LogTestCase):
    def test_by_default_only_failures_are_logged(self) -> None:
        self.front.create("a")
        self.front.ask("GET", BASE + "a")
        self.assertEqual(self.events.lines, [])
        self.front.ask("GET", BASE + "b")
        self.assertEqual(self.events.lines, ["GET /v1/stream/b 404 NOT_FOUND"])
        self.assertRegex(formatEvent(self.events.access[0]), r" 404 NOT_FOUND in [0-9.]+ ms from [0-9.]+\Z")

    def test_failures_in_one_second_are_limited(self) -> None:
        self.patch_clock(7.0)
        for _ in range(MAX_FAILURES + 30):
            self.front.ask("GET", BASE + "b")
        self.assertEqual(len(self.events.access), MAX_FAILURES)
        self.patch_clock(8.0)
        self.front.ask("GET", BASE + "b")
        self.assertEqual(
            self.events.lines[MAX_FAILURES:], ["30 more failed requests", "GET /v1/stream/b 404 NOT_FOUND"]
        )

    def patch_clock(self, now: float) -> None:
        self.patch(access_log, "perf_counter", lambda: now)


@each_way
class NoneTests(LogTestCase):
    settings = logging("none", metrics=False)

    def test_the_access_log_can_be_switched_off(self) -> None:
        self.front.create("a")
        self.front.ask("GET", BASE + "b")
        self.assertEqual(self.events.lines, [])


class BrokenTests(FrontTestCase):
    late = True

    def test_a_server_error_is_logged_with_the_request_id(self) -> None:
        events = Events(self)
        self.front.storage.broken["append"] = ZeroDivisionError("secret")
        reply = self.front.ask("POST", BASE + "a", TEXT, b"x")
        self.assertEqual(reply.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        [failure] = [event for event in events.all if "log_failure" in event]
        [line] = events.access
        self.assertEqual(formatEvent(failure), "POST /v1/stream/a failed.")
        self.assertEqual({failure["request.id"], line["request.id"]}, {reply.get("x-request-id")})
        self.assertEqual((line["log_level"], line["ds.error_class"]), (LogLevel.error, "internal"))


class ChannelTests(ChannelTestCase):
    settings = logging("all")

    def setUp(self) -> None:
        super().setUp()
        self.events = Events(self)

    def test_a_malformed_request_is_logged(self) -> None:
        self.front.connect().send(b"\x16\x03\x01 rubbish\r\n\r\n")
        self.assertEqual(self.events.lines, ["No request 400 BAD_REQUEST"])
        [event] = self.events.access
        self.assertEqual((event["ds.operation"], event["ds.error_code"]), ("request", "BAD_REQUEST"))
        self.assertRegex(event["client.address"], r"\A[0-9.]+\Z")

    def test_probes_are_logged(self) -> None:
        self.front.ask("GET", "/healthz?x=hush", {"User-Agent": "probe"})
        self.front.obstacle = "It stops."
        self.front.ask("GET", "/readyz")
        self.front.ask("GET", "/nowhere")
        self.assertEqual(
            self.events.lines, ["GET /healthz 200", "GET /readyz 503 UNAVAILABLE", "GET /nowhere 404 NOT_FOUND"]
        )
        health, readiness, other = map(fields, self.events.access)
        self.assertEqual(
            [said["ds.operation"] for said in (health, readiness, other)], ["health", "readiness", "request"]
        )
        self.assertEqual((health["user_agent.original"], health["http.route"]), ("probe", "/healthz"))
        self.assertEqual(
            (readiness["http.response.header.retry_after"], readiness["ds.error_class"]), ("1", "unavailable")
        )
        self.assertFalse({"http.route", "url.query"} & set(other))

    def test_the_http_version_of_a_request_is_logged(self) -> None:
        self.front.connect().send(get("a", version="1.0"), "GET")
        self.assertEqual([event["network.protocol.version"] for event in self.events.access], ["1.0"])

    def test_a_repeated_user_agent_is_accepted_and_logged(self) -> None:
        # A client that sends User-Agent twice is odd, and no reason to refuse it.
        peer = self.front.connect()
        peer.send(b"GET /v1/stream/a HTTP/1.1\r\nHost: a\r\nUser-Agent: one\r\nUser-Agent: two\r\n\r\n", "GET")
        self.assertEqual([event["user_agent.original"] for event in self.events.access], ["one, two"])


@each_way
class GatedTests(GateTestCase):
    settings = logging("all")

    def test_the_principal_of_a_request_is_logged_and_nothing_of_its_credential(self) -> None:
        events = Events(self)
        for token, status, user in (
            ("alice", 200, "alice"),
            ("bob", 403, "bob"),
            (None, 401, None),
            ("nonsense", 401, None),
        ):
            self.assertEqual(self.ask("GET", "alice/a?ds_sig=SECRET", token).status, status)
            found = fields(events.access[-1])
            self.assertEqual(found.get("user.id"), user)
            for secret in ("nonsense", "SECRET"):
                self.assertNotIn(secret, str(found))
