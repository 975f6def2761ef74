"""The audit log behind the gate, on every front."""

from __future__ import annotations

from typing import Any

from durable_streams.server.clocks import clock_of
from durable_streams.server.telemetry.audit import AuditLog
from tests.support.audit_lines import Lines
from tests.support.cases import each_way
from tests.support.fronts import BASE
from tests.support.gates import GateTestCase, bearer


@each_way
class AuditedFrontTests(GateTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sink = Lines()
        self.log = self.audit("all")
        self.gate.record(self.log)

    def audit(self, events: str, required: bool = False) -> AuditLog:
        audit = AuditLog(clock_of(self.front.clock), self.sink, events, required)
        self.addCleanup(audit.close)
        return audit

    def lines(self, *names: str) -> list[tuple[Any, ...]]:
        """Return some fields of each line, and forget the lines."""
        found = [tuple(line.get(name) for name in names) for line in self.sink.objects]
        self.sink.written.clear()
        return found

    def test_each_request_has_a_line_with_its_decision_and_its_status(self) -> None:
        self.ask("POST", "alice/a", "alice", {"Content-Type": "text/plain"}, b"more")
        self.ask("PUT", "alice/new", "alice", {"Content-Type": "text/plain"}, b"data")
        self.ask("GET", "alice/a", "alice")
        self.ask("GET", "bob/b", "alice")
        self.ask("GET", "public/p")
        self.ask("DELETE", "public/p")
        self.ask("GET", "alice/a", "unknown")
        self.assertEqual(
            [
                ("POST", "alice/a", "alice", "append", True, 204, None),
                ("PUT", "alice/new", "alice", "create", True, 201, None),
                ("GET", "alice/a", "alice", "read", True, 200, None),
                ("GET", "bob/b", "alice", "read", False, 403, "default"),
                ("GET", "public/p", "", "read", True, 200, None),
                ("DELETE", "public/p", "", "delete", False, 401, "anonymous"),
                ("GET", "alice/a", None, None, False, 401, "credentials"),
            ],
            self.lines("method", "stream", "subject", "operation", "allowed", "status", "reason"),
        )
        self.assertEqual(
            {("default", "read"): 1, ("anonymous", "delete"): 1, ("credentials", "authenticate"): 1},
            dict(self.log.denials),
        )

    def test_preflights_have_no_line(self) -> None:
        self.front.ask("OPTIONS", BASE + "alice/a", {"Origin": "https://a.example"})
        self.assertEqual([], self.lines("method"))

    def test_a_tail_has_a_line_when_it_begins_and_when_its_client_goes(self) -> None:
        peer = self.tail("alice/a", "alice")
        self.assertEqual(
            [("request", "alice/a", "read", True, None)],
            self.lines("event", "stream", "operation", "streamed", "bytes"),
        )
        self.front.clock.advance(3)
        peer.leave()
        self.front.network.settle()
        [(event, stream, subject, size, seconds, outcome)] = self.lines(
            "event", "stream", "subject", "bytes", "seconds", "outcome"
        )
        self.assertEqual(
            ("ended", "alice/a", "alice", 3.0, "disconnected"), (event, stream, subject, round(seconds, 1), outcome)
        )
        self.assertGreater(size, 50)

    def test_a_tail_that_is_ended_by_a_change_of_the_rules_is_finished(self) -> None:
        self.tail("alice/a", "alice")
        self.control.set_rules("deny anyone all **")
        self.front.clock.advance(1)
        self.assertEqual([("request", None), ("ended", "finished")], self.lines("event", "outcome"))

    def test_a_long_poll_has_one_line_when_it_is_answered(self) -> None:
        peer = self.front.follow(BASE + "alice/a?offset=now&live=long-poll", bearer("alice"))
        self.assertEqual([], self.lines("event"))
        self.front.append("alice/a", b"more", **bearer("alice"))
        self.assertEqual([200], peer.statuses)
        lines = self.lines("event", "operation", "status", "bytes")
        self.assertEqual([("request", "append", 204, 0), ("request", "read", 200, 4)], sorted(lines, key=str))

    def test_a_long_poll_whose_client_goes_has_one_line(self) -> None:
        peer = self.front.follow(BASE + "alice/a?offset=now&live=long-poll", bearer("alice"))
        peer.leave()
        self.front.network.settle()
        self.assertEqual([("request", "alice/a", "read")], self.lines("event", "stream", "operation"))

    def test_writes_are_refused_while_a_required_log_cannot_be_written(self) -> None:
        self.gate.record(self.audit("changes", required=True))
        self.sink.obstacle = "No space left on device"
        text = {"Content-Type": "text/plain"}
        self.assertEqual(503, self.ask("POST", "alice/a", "alice", text, b"lost").status)
        self.assertEqual(200, self.ask("GET", "alice/a", "alice").status)
        self.assertEqual(403, self.ask("GET", "bob/b", "alice").status)
        self.sink.obstacle = None
        self.assertEqual(204, self.ask("POST", "alice/a", "alice", text, b"kept").status)
        self.assertEqual(b"hellokept", self.ask("GET", "alice/a", "alice").body)
