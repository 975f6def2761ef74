"""Secrets are planted in files, settings and requests, and looked for in everything that the server writes."""

from __future__ import annotations

import json
import os
import signal
import time
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jwt

from durable_streams.server.identity.signed_urls import SigningKey, sign
from durable_streams.server.identity.tokens.file import add_token
from durable_streams.server.identity.tokens.records import new_token
from tests.support.commands import command
from tests.support.daemon import PATIENCE, Daemon, read_to_end
from tests.support.process_case import ProcessTestCase, wait_for

RULES: Final = """allow subject:alice all **
allow kind:jwt read open/**"""

#: Text of secrets that tests make; each is unlike all other words.
_SIGNING: Final = "PlantedSigningSecret0123456789abcdefghij"
_SHARED: Final = b"PlantedSharedSecretOfTheIssuer0123456789abcdefghi"
_ADMIN: Final = "PlantedAdminToken0123456789abcdef"
_PASSWORD: Final = "PlantedPassword77"
_BODY: Final = b"PlantedBodyOfARequest"


class PlantedSecretsTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.token, record = new_token("alice", now=time.time())
        self.wrong = f"dst_{record.id}_PlantedWrongSecret0123456789abcdefghijklmno"
        add_token(str(self.folder / "tokens"), record)
        self.key = SigningKey("main", _SIGNING.encode())
        self.write("keys", f"main {_SIGNING}\n")
        self.write("admin", f"{_ADMIN}\n")
        secret = urlsafe_b64encode(_SHARED).rstrip(b"=").decode()
        self.write("jwks", json.dumps({"keys": [{"kty": "oct", "k": secret, "alg": "HS256", "kid": "one"}]}))
        self.jwt = self.signed_jwt(time.time() + 600)
        self.expired = self.signed_jwt(time.time() - 600)
        self.query = sign(self.key, "read", b"open/a", int(time.time()) + 600)
        self.spoilt = self.query[:-4] + "AAAA"
        # The hash in the file is no secret that can be used, and still nothing for a log.
        self.secrets = [
            *(self.token.rpartition("_")[2], self.wrong.rpartition("_")[2], record.hash.rpartition("$")[2]),
            *(_SIGNING, _SHARED.decode(), secret, b64encode(_SHARED).decode(), _ADMIN, _PASSWORD, _BODY.decode()),
            *(self.query.rpartition("=")[2], self.spoilt.rpartition("=")[2]),
            *(self.jwt.rpartition(".")[2], self.expired.rpartition(".")[2], self.jwt.split(".")[1]),
        ]
        self.seen: dict[str, str] = {}

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def signed_jwt(self, expires_at: float) -> str:
        claims = {"sub": "bob", "exp": int(expires_at), "aud": "streams"}
        return jwt.encode(claims, _SHARED, algorithm="HS256", headers={"kid": "one"})

    def settings(self) -> dict[str, Any]:
        return {
            "auth__methods": "token,jwt,signed-url",
            "auth__allow_anonymous": "false",
            "auth__rules": RULES,
            "auth__token_file": self.folder / "tokens",
            "auth__signing_keys_file": self.folder / "keys",
            "auth__jwt__keys_file": self.folder / "jwks",
            "auth__jwt__algorithms": "HS256",
            "auth__jwt__audience": "streams",
            "admin__enabled": "true",
            "admin__token_file": self.folder / "admin",
            "audit__file": self.folder / "audit",
            "audit__events": "all",
            "observability__log_level": "debug",
            "observability__access_log": "all",
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
        stream, owner = "/v1/stream/open/a", f"Bearer {self.token}"
        # What the stream has is answered to readers, and is no secret from them.
        statuses = [self.ask(daemon, "PUT", stream, owner), self.ask(daemon, "POST", stream, owner, b"data")]
        for credentials in (
            *(owner, f"Bearer {self.wrong}", f"Bearer {self.jwt}", f"Bearer {self.expired}", f"Bearer {_ADMIN}"),
            *(f"Basic {b64encode(_PASSWORD.encode()).decode()}", f"Bearer {_PASSWORD} {_PASSWORD}", _PASSWORD),
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
            statuses += [self.ask(daemon, "GET", target, f"Bearer {each}") for each in (_ADMIN, self.wrong)]
        return statuses

    def send_malformed(self, daemon: Daemon) -> None:
        owner = f"Authorization: Bearer {self.token}"
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
        for name in ("tokens", "keys", "jwks", "admin"):
            path = self.folder / name
            text = path.read_text()
            path.write_text(f"{text.strip()[:-3]}\u00a0{text}")
        before = len(daemon.log())
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "Reloaded certificates" in daemon.log()[before:], "the reload")
        wait_for(lambda: daemon.log()[before:].count("stay as they were") >= 4, "the errors of four files")

    def check(self) -> None:
        for where, text in self.seen.items():
            for secret in self.secrets:
                self.assertNotIn(secret, text, f"{where}: {text}")

    def test_no_secret_is_in_logs_answers_metrics_or_the_audit_log(self) -> None:
        for log_format in ("text", "json"):
            with Daemon(None, observability__log_format=log_format, **self.settings()) as daemon:
                statuses = self.use(daemon)
                self.assertLessEqual({200, 201, 204, 401, 403}, set(statuses))
                self.send_malformed(daemon)
                originals = {name: (self.folder / name).read_text() for name in ("tokens", "keys", "jwks", "admin")}
                self.reload(daemon)
                self.assertEqual(200, self.ask(daemon, "GET", "/metrics", f"Bearer {_ADMIN}"))
                self.assertEqual(0, daemon.stop(), daemon.log())
                self.seen[f"{log_format} log"] = daemon.log()
            for name, text in originals.items():
                self.write(name, text)
            self.seen[f"audit log beside {log_format}"] = (self.folder / "audit").read_text()
            self.assertGreater(self.seen[f"audit log beside {log_format}"].count("\n"), len(statuses) // 2)
            self.assertIn("Access: methods token, jwt, signed-url", self.seen[f"{log_format} log"])
            self.check()

    def test_no_secret_is_in_what_commands_print(self) -> None:
        known = {name: str(value) for name, value in self.settings().items()}
        database = f"postgresql://me:{_PASSWORD}@db.example/streams"
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
            ("config", (), {"server__listen": f"tls:443:privateKey={_PASSWORD}"}),
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
        for name in ("tokens", "keys", "jwks", "admin"):
            original = (self.folder / name).read_text()
            for text, mode in ((f"{original.strip()[:-3]}\u00a0{original}", 0o600), (original, 0o644)):
                (self.folder / name).write_text(text)
                (self.folder / name).chmod(mode)
                ended = self.run_to_end(Daemon.command, None, **self.settings())
                self.assertEqual(1, ended.returncode, (name, mode, ended.stdout))
                self.assertIn("[validate_config] ", ended.stderr)
                self.seen[f"start {name} {mode}"] = ended.stdout + ended.stderr
            self.write(name, original)
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
            self.assertEqual(503, self.ask(daemon, "GET", "/v1/stream/a", f"Bearer {self.token}"))
            deadline = time.monotonic() + PATIENCE
            while "planned" not in daemon.log():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            self.assertIn("Traceback", daemon.log())
            self.seen["traceback"] = daemon.log()
        self.check()
