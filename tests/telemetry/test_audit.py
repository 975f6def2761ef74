"""The audit log: which requests have a line, its form, and the bound of denials."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from durable_streams.server.clocks import IClock
from durable_streams.server.errors import Unavailable
from durable_streams.server.identity.policy import NO_RULE, NOT_GRANTED, Decision
from durable_streams.server.identity.principal import ANONYMOUS, Principal
from durable_streams.server.telemetry.audit import (
    MAX_DENIALS,
    MAX_DENIALS_OF_ADDRESS,
    AuditLog,
)
from durable_streams.server.telemetry.audit_lines import AuditLines, encoded
from durable_streams.server.web.access_parts import Access
from durable_streams.server.web.answers import Answer, FileSink, Sink
from durable_streams.server.web.callers import Caller, Client
from durable_streams.server.web.pages import PageRequest
from durable_streams.server.web.problems import ErrorReport
from durable_streams.server.web.requests import StreamRequest, stream_request
from tests.support.audit_lines import Lines

#: 2027-01-15T08:00:00.25Z
MOMENT = 1_800_000_000.25


ALICE = Principal("alice", "token", credential="k7")


def decision(is_allowed: bool, rule: str | None) -> Decision:
    """Return a decision of the rules."""
    return Decision(is_allowed, rule, False, "")


@implementer(IClock)
class WallClock(Clock):
    def wall(self) -> float:
        return MOMENT


def request(method: bytes = b"POST", path: bytes = b"chats/a", address: str = "192.0.2.1") -> StreamRequest:
    query = b"offset=-1&ds_sig=SECRET"
    headers = {b"authorization": b"Bearer SECRET"}
    return stream_request(method, b"/v1/stream/", path, query, headers, b"SECRET", Caller(address), 7)


def allowed(*operations: str, principal: Principal = ALICE) -> Access:
    rule = "auth.rules 1: allow subject:alice all **"
    return Access(principal, operations, "chats/a", None, True, operations[0], decision(True, rule))


def denied(operation: str, why: Decision = NO_RULE, principal: Principal = ALICE) -> Access:
    return Access(principal, (operation,), "chats/a", None, False, operation, why)


class AuditTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = WallClock()
        self.sink = Lines()

    def log(self, events: str, **options: Any) -> AuditLog:
        return AuditLog(self.clock, self.sink, events, **options)


class Body:
    """A streamed body that is driven by the test."""

    length: int | None = None

    def __init__(self) -> None:
        self.sink: Any = None
        self.calls: list[str] = []

    def start(self, sink: Sink) -> None:
        self.sink = sink

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Browser:
    """A sink of an answer, which keeps what it was sent."""

    def __init__(self) -> None:
        self.got = b""

    def write(self, data: bytes) -> None:
        self.got += data

    def finish(self) -> None:
        self.got += b"END"

    def abort(self) -> None:
        self.got += b"ABORT"


class FileBrowser(Browser):
    """A sink that can send from files."""

    def send_file(self, part: Any) -> int:
        return 1000


class StreamedTests(AuditTestCase):
    def begin(self, client: Browser) -> tuple[Any, Body]:
        """Begin a live read; return its answer's body, and what produces it."""
        entry = self.log("all").decided(request(b"GET"), allowed("read"))
        assert entry is not None
        body = Body()
        answer = entry.answered(Answer(200, b"", body))
        assert not isinstance(answer.body, bytes)
        answer.body.start(client)
        return answer.body, body

    def ends(self) -> list[tuple[Any, ...]]:
        return [
            (line["stream"], line["subject"], line["bytes"], line["seconds"], line["outcome"])
            for line in self.sink.objects
            if line["event"] == "ended"
        ]

    def test_a_live_read_has_a_line_when_it_begins_and_one_when_it_ends(self) -> None:
        client = Browser()
        _, body = self.begin(client)
        [began] = self.sink.objects
        self.assertEqual((True, 200), (began["streamed"], began["status"]))
        self.assertNotIn("bytes", began)
        body.sink.write(b"one")
        self.clock.advance(2.5)
        body.sink.write(b"two")
        body.sink.finish()
        self.assertEqual([("chats/a", "alice", 6, 2.5, "finished")], self.ends())
        self.assertEqual(b"onetwoEND", client.got)
        self.assertEqual(began["request_id"], self.sink.objects[1]["request_id"])

    def test_a_client_that_goes_and_an_abort_are_told_apart(self) -> None:
        front, body = self.begin(Browser())
        body.sink.write(b"one")
        front.stopProducing()
        body.sink.write(b"two")
        body.sink.finish()
        self.assertEqual(["stop"], body.calls)
        client = Browser()
        _, body = self.begin(client)
        body.sink.abort()
        self.assertEqual(
            [("chats/a", "alice", 3, 0, "disconnected"), ("chats/a", "alice", 0, 0, "aborted")], self.ends()
        )
        self.assertEqual(b"ABORT", client.got)

    def test_back_pressure_reaches_the_body(self) -> None:
        front, body = self.begin(Browser())
        front.pauseProducing()
        front.resumeProducing()
        self.assertEqual(["pause", "resume"], body.calls)

    def test_bytes_from_files_are_counted_where_the_client_takes_them(self) -> None:
        _, body = self.begin(FileBrowser())
        self.assertIsInstance(body.sink, FileSink)
        body.sink.write(b"one")
        self.assertEqual(1000, body.sink.send_file(None))
        body.sink.finish()
        self.assertEqual(1003, self.ends()[0][2])
        _, body = self.begin(Browser())
        self.assertNotIsInstance(body.sink, FileSink)

    def test_a_request_whose_client_has_gone_before_its_answer_has_a_line(self) -> None:
        entry = self.log("changes").decided(request(), allowed("append"))
        assert entry is not None
        entry.failed()
        [line] = self.sink.objects
        self.assertEqual((True, "disconnected"), (line["allowed"], line["outcome"]))
        self.assertNotIn("status", line)


class LineTests(AuditTestCase):
    def test_the_error_of_an_answer_is_named_by_its_code(self) -> None:
        entry = self.log("all").decided(request(), allowed("append"))
        assert entry is not None
        entry.answered(Answer(409, b"", b"{}", ErrorReport("STREAM_CLOSED", "StreamClosed", "It is closed.")))
        [line] = self.sink.objects
        self.assertEqual((409, "STREAM_CLOSED", 2), (line["status"], line["error"], line["bytes"]))

    def test_the_line_of_an_allowed_request_has_who_what_where_and_how_it_ended(self) -> None:
        entry = self.log("all").decided(request(), allowed("append"))
        assert entry is not None
        self.assertEqual([], self.sink.written)
        entry.answered(Answer(204, b""))
        [line] = self.sink.objects
        self.assertRegex(line.pop("request_id"), r"\A[0-9a-f]+-7\Z")
        self.assertEqual(
            {
                "time": "2027-01-15T08:00:00.250Z",
                "event": "request",
                "address": "192.0.2.1",
                "method": "POST",
                "stream": "chats/a",
                "subject": "alice",
                "kind": "token",
                "credential": "k7",
                "operation": "append",
                "allowed": True,
                "rule": "auth.rules 1: allow subject:alice all **",
                "status": 204,
                "bytes": 0,
            },
            line,
        )

    def test_a_request_that_needs_several_operations_has_a_list_of_them(self) -> None:
        access = Access(ALICE, ("create", "append"), "b", "chats/a", False, "fork-from", NO_RULE)
        entry = self.log("denied").decided(request(b"PUT"), access)
        assert entry is not None
        entry.answered(Answer(403, b""))
        [line] = self.sink.objects
        self.assertEqual(
            ("fork-from", ["create", "append"], "chats/a", False, "default"),
            (line["operation"], line["operations"], line["source"], line["allowed"], line["reason"]),
        )
        self.assertNotIn("rule", line)

    def test_a_request_without_valid_credentials_has_the_reason(self) -> None:
        entry = self.log("denied").not_authenticated(request(), "The token has expired.")
        assert entry is not None
        entry.answered(Answer(401, b""))
        [line] = self.sink.objects
        self.assertEqual(
            (False, "credentials", "The token has expired.", 401),
            (line["allowed"], line["reason"], line["detail"], line["status"]),
        )
        self.assertNotIn("subject", line)

    def test_no_line_has_a_header_a_query_or_a_body(self) -> None:
        log = self.log("all")
        for entry in (
            log.decided(request(), allowed("append")),
            log.decided(request(), denied("append")),
            log.not_authenticated(request(), "It is invalid."),
        ):
            assert entry is not None
            entry.answered(Answer(200, b""))
        self.assertEqual(3, self.sink.lines)
        self.assertNotIn(b"SECRET", b"".join(self.sink.written))

    def test_a_page_is_named_by_its_path(self) -> None:
        page = PageRequest(b"GET", b"/admin/streams?secret=SECRET", [])
        entry = self.log("all").decided(page, allowed("admin"))
        assert entry is not None
        entry.answered(Answer(200, b""))
        [line] = self.sink.objects
        self.assertEqual(("/admin/streams", "admin"), (line["page"], line["operation"]))
        self.assertNotIn("stream", line)
        self.assertNotIn("SECRET", str(line))

    def test_fields_that_are_none_are_left_out(self) -> None:
        self.log("changes").record("tokens_changed", {"added": ["k1"], "removed": None})
        self.assertEqual(
            [{"time": "2027-01-15T08:00:00.250Z", "event": "tokens_changed", "added": ["k1"]}], self.sink.objects
        )

    def test_the_begin_and_the_end_of_a_process_have_lines(self) -> None:
        log = self.log("changes")
        log.open()
        log.reopen()
        log.close()
        self.assertEqual(["open", "reopen", "close"], self.sink.calls)
        self.assertEqual(
            [("opened", os.getpid()), ("closed", os.getpid())],
            [(line["event"], line["process"]) for line in self.sink.objects],
        )

    def test_the_client_and_the_id_that_a_proxy_names_are_recorded_whatever_they_are(self) -> None:
        client = Client(address='_hidden"\u2028', request_id=b'a"b\xff')
        caller = Caller("192.0.2.1", trusted=True, client=client)
        proxied = stream_request(b"POST", b"/v1/stream/", b"chats/a", b"", {}, b"", caller, 7)
        entry = self.log("all").decided(proxied, allowed("append"))
        assert entry is not None
        entry.answered(Answer(204, b""))
        [line] = self.sink.objects
        self.assertEqual(('_hidden"\u2028', 'a"b\xff'), (line["address"], line["request_id"]))

    def test_requests_that_share_a_decision_have_their_own_ids_and_addresses(self) -> None:
        log, access = self.log("all"), allowed("append")
        for number, address in enumerate(("192.0.2.1", "192.0.2.2", "", "192.0.2.1")):
            asked = stream_request(b"POST", b"/v1/stream/", b"chats/a", b"", {}, b"", Caller(address), number)
            entry = log.decided(asked, access)
            assert entry is not None
            entry.answered(Answer(204, b""))
        self.assertEqual(
            [("0", "192.0.2.1"), ("1", "192.0.2.2"), ("2", None), ("3", "192.0.2.1")],
            [(line["request_id"].rpartition("-")[2], line.get("address")) for line in self.sink.objects],
        )

    def test_the_pattern_or_stream_of_a_subscription_is_named_if_it_is_another(self) -> None:
        access = Access(ALICE, ("subscribe",), "private/**", None, False, "subscribe", NO_RULE)
        entry = self.log("denied").decided(request(b"PUT", b"__ds/subscriptions/s"), access)
        assert entry is not None
        entry.answered(Answer(403, b""))
        [line] = self.sink.objects
        self.assertEqual(("__ds/subscriptions/s", "private/**"), (line["stream"], line["on"]))

    @given(st.floats(0, 4e9), st.floats(0, 4e9))
    def test_times_are_rfc_3339_with_milliseconds(self, one: float, other: float) -> None:
        lines = AuditLines()
        for time in (one, other, one):
            read = json.loads(lines.line(time, b"opened", b""))["time"]
            self.assertRegex(read, r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z\Z")
            self.assertLess(abs(time - datetime.fromisoformat(read).timestamp()), 0.0011)

    @given(st.binary(max_size=40))
    def test_no_name_breaks_a_line(self, name: bytes) -> None:
        self.sink.written.clear()
        entry = self.log("all").decided(request(path=name), allowed("append"))
        assert entry is not None
        entry.answered(Answer(204, b""))
        [line] = self.sink.written
        self.assertEqual(1, len(line.decode("ascii").splitlines()))
        self.assertTrue(line.decode("ascii").isprintable())

    @given(st.text(max_size=40))
    def test_a_value_is_read_again_as_it_was(self, value: str) -> None:
        line = AuditLines().line(MOMENT, b"request", encoded({"subject": value}))
        read = json.loads(line)["subject"]
        self.assertEqual(value.encode("utf-8", "backslashreplace").decode(), read)
        self.assertTrue(line.decode("ascii").isprintable())

    def test_long_values_are_cut(self) -> None:
        line = json.loads(AuditLines().line(MOMENT, b"request", encoded({"subject": "x" * 10_000})))
        self.assertEqual("x" * 2048 + "...", line["subject"])


class EventsTests(AuditTestCase):
    def recorded(self, events: str) -> list[str]:
        """Return which of some requests have lines."""
        log = self.log(events)
        found = []
        for name, asked, access in (
            ("read", request(b"GET"), allowed("read")),
            ("head", request(b"HEAD"), allowed("head")),
            ("append", request(b"POST"), allowed("append")),
            ("create", request(b"PUT"), allowed("create", "append")),
            ("close", request(b"POST"), allowed("close")),
            ("delete", request(b"DELETE"), allowed("delete")),
            ("list", request(b"GET"), allowed("subscribe")),
            ("subscribe", request(b"PUT"), allowed("subscribe")),
            ("pages", PageRequest(b"GET", b"/admin/", []), allowed("admin")),
            ("import", PageRequest(b"POST", b"/admin/import", []), allowed("admin")),
            ("denied read", request(b"GET"), denied("read")),
            ("denied append", request(b"POST"), denied("append")),
        ):
            if log.decided(asked, access) is not None:
                found.append(name)
        if log.not_authenticated(request(), "It is invalid.") is not None:
            found.append("unknown")
        return found

    def test_each_setting_selects_its_requests(self) -> None:
        denials = ["denied read", "denied append", "unknown"]
        changes = ["append", "create", "close", "delete", "subscribe", "import", *denials]
        self.assertEqual([], self.recorded("none"))
        self.assertEqual(denials, self.recorded("denied"))
        self.assertEqual(changes, self.recorded("changes"))
        self.assertEqual(13, len(self.recorded("all")))

    def test_events_that_are_no_requests_are_recorded_as_changes(self) -> None:
        for events, count in (("none", 0), ("denied", 0), ("changes", 1), ("all", 2)):
            self.log(events).record("tokens_reloaded", {})
            self.assertEqual(count, self.sink.lines)

    def test_denials_are_counted_by_reason_and_operation_whatever_is_recorded(self) -> None:
        logs = (AuditLog(self.clock), self.log("none"), self.log("all"))
        for log in logs:
            log.decided(request(), allowed("append"))
            log.decided(request(), denied("append"))
            log.decided(request(), denied("append", decision(False, "auth.rules 2: deny anyone all **")))
            log.decided(request(), denied("append", NOT_GRANTED))
            log.decided(request(), denied("read", principal=ANONYMOUS))
            log.not_authenticated(request(), "It is invalid.")
        self.assertEqual(
            {
                ("default", "append"): 3,
                ("rule", "append"): 3,
                ("grants", "append"): 3,
                ("anonymous", "read"): 3,
                ("credentials", "authenticate"): 3,
            },
            dict(sum((log.denials for log in logs), Counter())),
        )


class FailureTests(AuditTestCase):
    def test_requests_go_on_while_lines_cannot_be_written(self) -> None:
        self.sink.obstacle = "No space left on device"
        self.assertIsNotNone(self.log("all").decided(request(), allowed("append")))

    def test_recorded_requests_are_refused_then_if_the_log_is_required(self) -> None:
        self.sink.obstacle = "No space left on device"
        log = self.log("changes", required=True)
        error = self.assertRaises(Unavailable, log.decided, request(), allowed("append"))
        self.assertIn("audit.required", str(error))
        self.assertIsNone(log.decided(request(b"GET"), allowed("read")))
        self.assertIsNotNone(log.decided(request(), denied("append")))
        self.sink.obstacle = None
        self.assertIsNotNone(log.decided(request(), allowed("append")))


class FloodTests(AuditTestCase):
    def flood(self, log: AuditLog, count: int, address: str = "192.0.2.1") -> int:
        """Return how many of some denials have lines."""
        entries = [log.decided(request(address=address), denied("append")) for _ in range(count)]
        return sum(entry is not None for entry in entries)

    def test_the_denials_of_an_address_in_a_second_are_bounded(self) -> None:
        log = self.log("denied")
        self.assertEqual(MAX_DENIALS_OF_ADDRESS, self.flood(log, 1000))
        self.assertEqual(5, self.flood(log, 5, "192.0.2.2"))
        self.clock.advance(1)
        self.assertEqual(
            [("denials_left_out", 980, {"default": 980})],
            [(line["event"], line["count"], line["reasons"]) for line in self.sink.objects],
        )
        self.assertEqual(1, self.flood(log, 1))

    def test_the_denials_of_all_addresses_in_a_second_are_bounded(self) -> None:
        log = self.log("denied")
        found = sum(self.flood(log, 1, f"192.0.2.{number}") for number in range(MAX_DENIALS + 50))
        self.assertEqual(MAX_DENIALS, found)
        log.close()
        self.assertEqual(50, self.sink.objects[0]["count"])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_allowed_requests_are_not_left_out(self) -> None:
        log = self.log("all")
        self.flood(log, 1000)
        entries = [log.decided(request(), allowed("append")) for _ in range(1000)]
        self.assertNotIn(None, entries)
        log.close()

    def test_a_second_without_left_out_denials_has_no_line(self) -> None:
        self.flood(self.log("denied"), 3)
        self.clock.advance(1)
        self.assertEqual([], self.sink.written)
        self.assertEqual([], self.clock.getDelayedCalls())
