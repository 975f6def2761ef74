"""No secret is shown by a start, a reload, a request, a failing checker or a command, in either format of the log."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from durable_streams.server.identity.signed_urls import sign
from tests.support.commands import command
from tests.support.daemon import PATIENCE, Daemon, read_to_end
from tests.support.planted_secrets import ADMIN_TOKEN, BASIC, FILES, PASSWORD, PlantedSecrets
from tests.support.process_case import ProcessTestCase, wait_for

RULES: Final = """allow subject:alice all **
allow kind:jwt read open/**"""

_BODY: Final = b"PlantedBodyOfARequest"


class PlantedSecretsTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.secrets = secrets = PlantedSecrets(self.folder)
        self.jwt = secrets.jwt(time.time() + 600)
        self.expired = secrets.jwt(time.time() - 600)
        self.query = sign(secrets.key, "read", b"open/a", int(time.time()) + 600)
        self.spoilt = self.query[:-4] + "AAAA"
        secrets.known |= {
            "body": _BODY.decode(),
            "signature": self.query.rpartition("=")[2],
            "changed signature": self.spoilt.rpartition("=")[2],
        }
        self.seen: dict[str, str] = {}

    def settings(self) -> dict[str, Any]:
        return self.secrets.settings() | {
            "auth__allow_anonymous": "false",
            "auth__rules": RULES,
            "quotas__address__failed_authentications_per_min": "1000",
        }

    def ask(self, daemon: Daemon, method: str, target: str, credentials: str = "", body: bytes | None = None) -> int:
        """Send a request, keep everything that is answered, and return the status."""
        headers = {"content_type": "text/plain"} | ({"authorization": credentials} if credentials else {})
        status, fields, answer = daemon.request(method, target, body, **headers)
        self.seen[f"answer {len(self.seen)}"] = f"{fields}{answer.decode(errors='replace')}"
        return status

    def use(self, daemon: Daemon) -> list[int]:
        """Send requests with valid and invalid credentials, and return the statuses."""
        stream, owner = "/v1/stream/open/a", f"Bearer {self.secrets.token}"
        # What the stream has is answered to readers, and is no secret from them.
        statuses = [self.ask(daemon, "PUT", stream, owner), self.ask(daemon, "POST", stream, owner, b"data")]
        for credentials in (
            owner,
            *(f"Bearer {token}" for token in (self.secrets.wrong_token, self.jwt, self.expired, ADMIN_TOKEN)),
            *(f"Basic {BASIC}", f"Bearer {PASSWORD} {PASSWORD}", PASSWORD),
            f"Bearer {self.jwt[:-3]}AAA",
        ):
            for method, target in (("GET", stream), ("GET", "/v1/stream/closed"), ("GET", "/metrics")):
                statuses.append(self.ask(daemon, method, target, credentials))
            statuses.append(self.ask(daemon, "POST", stream, "" if credentials == owner else credentials, _BODY))
        for query in (
            self.query,
            self.spoilt,
            f"{self.query}&{self.query}",
            f"offset=x&{self.query}",
            quote(self.query),
        ):
            statuses.append(self.ask(daemon, "GET", f"{stream}?{query}"))
            statuses.append(self.ask(daemon, "POST", f"{stream}?{query}", "", _BODY))
            statuses.append(self.ask(daemon, "GET", f"/v1/stream/other?{query}"))
            statuses.append(self.ask(daemon, "GET", f"/nowhere?{query}"))
        for target in ("/admin/streams", "/metrics"):
            statuses += [
                self.ask(daemon, "GET", target, f"Bearer {each}") for each in (ADMIN_TOKEN, self.secrets.wrong_token)
            ]
        return statuses

    def send_malformed(self, daemon: Daemon) -> None:
        owner = f"Authorization: Bearer {self.secrets.token}"
        for query, version, line in (
            ("", "1.1", f"{owner}\r\nBad Header: x"),
            ("", "1.1", f"{owner}\r\nHost: y"),
            ("", "1.1", f"{owner}{'x' * 20_000}"),
            (f"?{self.query}&a=\x00", "1.1", "Accept: */*"),
            (f"?{self.query}", "9.9", "Accept: */*"),
        ):
            connection = daemon.dial()
            head = f"GET /v1/stream/open/a{query} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n{line}\r\n\r\n"
            connection.sendall(head.encode())
            self.seen[f"answer {len(self.seen)}"] = read_to_end(connection).decode(errors="replace")
            connection.close()

    def reload(self, daemon: Daemon) -> None:
        """Make each file unusable, and have the daemon read it again."""
        for name in FILES:
            path = self.folder / name
            text = path.read_text()
            path.write_text(f"{text.strip()[:-3]}\u00a0{text}")
        before = len(daemon.log())
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "Reloaded certificates" in daemon.log()[before:], "the reload")
        wait_for(lambda: daemon.log()[before:].count("stay as they were") >= 4, "the errors of four files")

    def check(self) -> None:
        for where, text in self.seen.items():
            for what, secret in self.secrets.known.items():
                self.assertNotIn(secret, text, f"{where} has the {what}: {text}")

    def test_no_secret_is_in_logs_answers_metrics_or_the_audit_log(self) -> None:
        for log_format in ("text", "json"):
            with Daemon(None, observability__log_format=log_format, **self.settings()) as daemon:
                statuses = self.use(daemon)
                self.assertLessEqual({200, 201, 204, 401, 403}, set(statuses))
                self.send_malformed(daemon)
                originals = {name: (self.folder / name).read_text() for name in FILES}
                self.reload(daemon)
                self.assertEqual(200, self.ask(daemon, "GET", "/metrics", f"Bearer {ADMIN_TOKEN}"))
                self.assertEqual(0, daemon.stop(), daemon.log())
                self.seen[f"{log_format} log"] = daemon.log()
            for name, text in originals.items():
                self.secrets.write(name, text)
            self.seen[f"audit log beside {log_format}"] = (self.folder / "audit.jsonl").read_text()
            self.assertGreater(self.seen[f"audit log beside {log_format}"].count("\n"), len(statuses) // 2)
            self.assertIn("Access: methods token, jwt, signed-url", self.seen[f"{log_format} log"])
            self.check()

    def test_no_secret_is_in_what_commands_print(self) -> None:
        known = {name: str(value) for name, value in self.settings().items()}
        database = f"postgresql://me:{PASSWORD}@db.example/streams"
        empty = str(self.folder / "empty")
        os.mkdir(empty)
        for name, arguments, settings in (
            ("config", (), known),
            ("config", ("--json",), known),
            ("config", (), {"storage__mode": "postgres", "storage__postgres__dsn": database}),
            ("config", ("--json",), {"storage__mode": "postgres", "storage__postgres__dsn": database}),
            # The error of a rule that another setting breaks has the setting's value.
            ("config", (), {"storage__mode": "memory", "storage__postgres__dsn": database}),
            ("config", (), {"storage__postgres__dsn": f"{database}\x07"}),
            ("config", (), {"server__listen": f"tls:443:privateKey={PASSWORD}"}),
            ("token", ("list",), known),
            ("token", ("list", "--json"), known),
            ("signing-key", ("list",), known),
            ("authorize", ("--as", "alice", "read", "open/a"), known),
            ("authorize", ("--as", "alice", "--json", "read", "open/a"), known),
        ):
            options = ("--config-dir", empty) if name in ("config", "authorize") else ()
            result = command(name, *arguments, *options, **settings)
            self.assertGreater(len(result.output), 20, (name, arguments))
            self.seen[f"{name} {arguments} {settings}"] = result.output
        self.check()

    def test_no_secret_is_in_the_error_of_a_start(self) -> None:
        for name in FILES:
            original = (self.folder / name).read_text()
            for text, mode in ((f"{original.strip()[:-3]}\u00a0{original}", 0o600), (original, 0o644)):
                (self.folder / name).write_text(text)
                (self.folder / name).chmod(mode)
                ended = self.run_to_end(Daemon.command, None, **self.settings())
                self.assertEqual(1, ended.returncode, (name, mode, ended.stdout))
                self.assertIn("[validate_config] ", ended.stderr)
                self.seen[f"start {name} {mode}"] = ended.stdout + ended.stderr
            self.secrets.write(name, original)
        self.check()

    def test_no_secret_is_in_the_traceback_of_a_checker_that_fails(self) -> None:
        plugin = Path(self.folder, "broken.py")
        plugin.write_text(
            "from durable_streams.server.identity.tokens import checker\n"
            "def requestAvatarId(self, credentials):\n"
            "    raise RuntimeError('planned')\n"
            "checker.StaticTokens.requestAvatarId = requestAvatarId\n"
            "from twisted.scripts.twistd import run\n"
            "run()\n"
        )

        class BrokenDaemon(Daemon):
            command = (Daemon.command[0], str(plugin), *Daemon.command[3:])

        with BrokenDaemon(None, **self.settings()) as daemon:
            self.assertEqual(503, self.ask(daemon, "GET", "/v1/stream/a", f"Bearer {self.secrets.token}"))
            deadline = time.monotonic() + PATIENCE
            while "planned" not in daemon.log():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            self.assertIn("Traceback", daemon.log())
            self.seen["traceback"] = daemon.log()
        self.check()
