"""The daemon's audit log: a full disk, a file that cannot be opened, revocations, and several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tests.support.commands import command
from tests.support.daemon import PATIENCE, TWISTD, Daemon, environment, free_port, read_until
from tests.support.process_case import ProcessTestCase, wait_for

STREAM: Final = "/v1/stream/a"
OPEN: Final = "allow anyone create,append,close,read,delete,fork-from,subscribe **"


class AuditCase(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "audit.jsonl"

    def daemon(self, **settings: object) -> Daemon:
        return Daemon(None, **{"auth__rules": OPEN, "audit__file": self.path, **settings})

    def lines(self, path: Path | None = None) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (path or self.path).read_text().splitlines()]

    def put(self, daemon: Daemon, **headers: str) -> int:
        return daemon.request("PUT", STREAM, b"x", content_type="text/plain", **headers)[0]

    def metric(self, daemon: Daemon, name: str) -> float:
        text = daemon.request("GET", "/metrics")[2].decode()
        [line] = [line for line in text.splitlines() if line.startswith(f"durable_streams_{name} ")]
        return float(line.partition(" ")[2])


class FullDiskTests(AuditCase):
    """On ``/dev/full`` every write fails as on a full disk."""

    def test_requests_go_on(self) -> None:
        with self.daemon(audit__file="/dev/full", auth__rules=f"{OPEN}\nallow anyone admin **") as daemon:
            self.assertEqual(201, self.put(daemon))
            self.assertEqual(200, self.put(daemon))
            wait_for(lambda: "Cannot write the audit log" in daemon.log(), "the error")
            self.assertEqual(1, self.metric(daemon, "audit_failed"))
            self.assertEqual(0, self.metric(daemon, "audit_lines_total"))
            self.assertEqual(1, daemon.log().count("Cannot write the audit log /dev/full (audit.file): No space left"))
            self.assertEqual(0, daemon.stop())
            self.assertIn(
                "Closed the audit log /dev/full (audit.file) without 4 lines, which could not be written.", daemon.log()
            )

    def test_changes_are_refused_if_the_log_is_required(self) -> None:
        with self.daemon(audit__file="/dev/full", audit__required="true") as daemon:
            wait_for(lambda: "Cannot write the audit log" in daemon.log(), "the error")
            status, headers, answer = daemon.request("PUT", STREAM, b"x", content_type="text/plain")
            self.assertEqual((503, "1"), (status, headers["retry-after"]))
            self.assertIn("audit.required", json.loads(answer)["detail"])
            self.assertEqual(404, daemon.request("GET", STREAM)[0])


class StartTests(AuditCase):
    def test_a_file_that_cannot_be_opened_ends_the_start(self) -> None:
        missing = self.folder / "missing" / "audit.jsonl"
        for arguments, reason in (((), "Cannot open the audit log"), (("--check",), "Cannot write the audit log")):
            ended = self.run_to_end((*TWISTD, *arguments), auth__rules=OPEN, audit__file=missing)
            self.assertEqual(1, ended.returncode, ended.stderr)
            self.assertIn(f"{reason} {missing}", ended.stderr)
            self.assertIn("(audit.file)", ended.stderr)
            self.assertNotIn("Traceback", ended.stdout + ended.stderr)

    def test_a_check_of_the_settings_creates_no_file(self) -> None:
        ended = self.run_to_end((*TWISTD, "--check"), auth__rules=OPEN, audit__file=self.path)
        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertFalse(self.path.exists())

    def test_a_relative_path_is_opened_again_where_the_daemon_was_started(self) -> None:
        with self.daemon(audit__file="audit.jsonl") as daemon:
            folder = Path(os.readlink(f"/proc/{daemon.process.pid}/cwd"))
            (folder / "audit.jsonl").rename(folder / "audit.1")
            daemon.process.send_signal(signal.SIGHUP)
            wait_for((folder / "audit.jsonl").exists, "the new file")


class PipeTests(AuditCase):
    def test_the_standard_output_has_the_lines_of_both_logs(self) -> None:
        variables = environment(
            free_port(), auth__rules=OPEN, audit__file="/dev/stdout", observability__log_format="json"
        )
        process = subprocess.Popen(TWISTD, env=variables, cwd=self.folder, stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        events, levels = [], []
        for line in process.stdout:
            record = json.loads(line)
            if "event" in record:
                events.append(record["event"])
            else:
                levels.append(record["level"])
            if " is ready " in record.get("message", ""):
                process.send_signal(signal.SIGTERM)
        process.stdout.close()
        self.assertEqual(0, process.wait(PATIENCE))
        self.assertEqual(["opened", "closed"], events)
        self.assertIn("info", levels)


class ChangeTests(AuditCase):
    def test_a_token_that_a_command_revokes_is_recorded_and_ends_its_tail(self) -> None:
        tokens = self.folder / "tokens"
        token = command("token", "create", "--subject", "alice", "--file", tokens).stdout.strip()
        token_id = token.split("_")[1]
        settings = {"auth__methods": "token", "auth__token_file": tokens, "auth__rules": "allow subject:alice all **"}
        with self.daemon(audit__events="all", **settings) as daemon:
            header = f"Bearer {token}"
            self.assertEqual(201, self.put(daemon, authorization=header))
            with closing(daemon.dial()) as connection:
                head = f"GET {STREAM}?offset=-1&live=sse HTTP/1.1\r\nHost: x\r\nAuthorization: {header}\r\n\r\n"
                connection.sendall(head.encode())
                received = read_until(connection, b"event: control")
                self.assertEqual(0, command("token", "revoke", token_id, "--file", tokens).exit_code)
                read_until(connection, b"\r\n0\r\n\r\n", received)
            wait_for(lambda: any(line["event"] == "ended" for line in self.lines()), "the end of the tail")
            self.assertEqual(401, self.put(daemon, authorization=header))
            wait_for(lambda: len(self.lines()) == 6, "the denial")
        found = [
            (line["event"], line.get("credential"), line.get("status"), line.get("outcome")) for line in self.lines()
        ]
        self.assertEqual(
            [
                ("opened", None, None, None),
                ("request", token_id, 201, None),
                ("request", token_id, 200, None),
                ("tokens_changed", None, None, None),
                ("ended", token_id, None, "finished"),
                ("request", None, 401, None),
            ],
            found,
        )
        self.assertEqual([token_id], self.lines()[3]["removed"])
        self.assertGreater(self.lines()[4]["bytes"], 50)

    def test_subscriptions_are_recorded(self) -> None:
        with self.daemon() as daemon:
            self.assertEqual(201, daemon.request("PUT", "/v1/stream/wakes", content_type="application/json")[0])
            path = "/v1/stream/__ds/subscriptions/s1"
            body = json.dumps({"type": "pull-wake", "wake_stream": "wakes", "pattern": "orders/*"}).encode()
            status, _, answer = daemon.request("PUT", path, body, content_type="application/json")
            self.assertEqual(201, status, answer)
            self.assertEqual(204, daemon.request("DELETE", path)[0])
            wait_for(lambda: len(self.lines()) == 4, "the lines")
        fields = ("method", "stream", "operation", "allowed", "status")
        self.assertEqual(
            [
                ("PUT", "__ds/subscriptions/s1", "subscribe", True, 201),
                ("DELETE", "__ds/subscriptions/s1", "subscribe", True, 204),
            ],
            [tuple(line[field] for field in fields) for line in self.lines()[2:]],
        )


class SeveralProcessesTests(AuditCase):
    def test_the_lines_of_two_servers_in_one_file_are_whole(self) -> None:
        with self.daemon() as one, self.daemon() as other:
            for daemon in (one, other):
                self.put(daemon)
            for number in range(100):
                for daemon in (one, other):
                    daemon.append("a", b"%d" % number)
            wait_for(lambda: len(self.lines()) == 204, "the lines")
        requests = [line["operation"] for line in self.lines() if line["event"] == "request"]
        self.assertEqual((200, 2), (requests.count("append"), requests.count("create")))
