"""No log, audit log, metric, trace, error, header or page of the daemon shows a credential that was sent to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final
from unittest.mock import patch

from durable_streams.server.identity.signed_urls import sign
from tests.support.daemon import PATIENCE, Daemon, read_until
from tests.support.planted_secrets import ADMIN_TOKEN, BASIC, OPAQUE_TOKEN, PASSWORD, PlantedSecrets
from tests.support.process_case import ProcessTestCase, wait_for

BASE: Final = "/v1/stream/"
RULES: Final = """allow kind:token all **
allow kind:jwt create,append,read jwt/**
allow anyone read public/**"""

#: What no credential is, but is sent with requests.
COOKIE: Final = "planted-cookie-0123456789"
BODY: Final = "planted-body-0123456789"


class Collector:
    """Receives the traces of a daemon."""

    def __init__(self) -> None:
        self.received = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.received += self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class SecretTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.collector = Collector()
        self.addCleanup(self.collector.stop)
        self.answers: list[bytes] = []
        self.secrets = PlantedSecrets(self.folder)
        self.secrets.known["cookie"] = COOKIE

    def daemon(self) -> Daemon:
        settings = self.secrets.settings() | {
            "auth__rules": RULES,
            "observability__log_format": "json",
            "observability__log_file": self.folder / "server.log",
            "observability__traces": "true",
        }
        with patch.dict(os.environ, {"OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url}):
            return Daemon(None, **settings)

    def credentials(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield what requests present: a query, and headers."""
        now = int(time.time())
        secrets, key = self.secrets, self.secrets.key
        good, bad, expired = secrets.jwt(now + 600), secrets.jwt(now + 600, b"x" * 40), secrets.jwt(now - 600)
        yield "", {}
        for value in (secrets.token, secrets.wrong_token, good, bad, expired, OPAQUE_TOKEN):
            yield "", {"Authorization": f"Bearer {value}"}
        yield "", {"Authorization": f"Basic {BASIC}"}
        yield "", {"Authorization": f"Digest {PASSWORD}", "Cookie": f"session={COOKIE}", "X-Api-Key": PASSWORD}
        for operations in ("read", "append,close,create,delete,read"):
            for name in (b"public/a", b"jwt/a", b"a%20b"):
                for expires in (now + 600, now - 600, now + 10**8):
                    query = sign(key, operations, name, expires, "dora")
                    secrets.known[f"signature {len(secrets.known)}"] = query[-43:]
                    yield query, {}
        query = sign(key, "read", b"public/a", now + 600)
        secrets.known["changed signature"] = query[-43:-8]
        yield query[:-8] + "AAAAAAAA", {}
        yield f"{query}&ds_sig={'B' * 43}", {}
        yield query.replace("ds_sig", "ds%5Fsig"), {}

    def targets(self) -> Iterator[tuple[str, str]]:
        """Yield methods and paths: streams, reserved paths, pages, and what is refused early."""
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"):
            for path in ("public/a", "jwt/a", "a%20b", "a//b", "%ff", "__ds/subscriptions/s1", "__ds/unknown", ""):
                yield method, BASE + path
        for path in ("/admin", "/admin/", "/admin/streams", "/metrics", "/readyz", "/nothing", f"{BASE}__ds/jwks.json"):
            yield "GET", path
        yield "GET", f"{BASE}public/a?offset=nonsense"
        yield "GET", f"{BASE}public/a?offset=-1&live=nonsense"
        yield "POST", "/admin/import"
        yield "CONNECT", f"{BASE}public/a"

    def ask(self, daemon: Daemon, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Send a request, whatever it is, and keep all of the answer."""
        fields = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))} | headers
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        with closing(daemon.dial()) as connection:
            connection.sendall(head.encode() + b"\r\n" + body)
            self.answers.append(_read(connection))

    def ask_everything(self, daemon: Daemon) -> None:
        for query, headers in self.credentials():
            for method, path in self.targets():
                target = path + ("&" if "?" in path else "?") * bool(query) + query
                # A body is stored, and read again, so that of a write is no secret.
                self.ask(daemon, method, target, headers, b"stored" if method in ("PUT", "POST") else b"")
            self.ask_wrongly(daemon, query, headers)

    def ask_wrongly(self, daemon: Daemon, query: str, headers: dict[str, str]) -> None:
        """Send requests that are refused before they are performed."""
        target = f"{BASE}public/a?{query}"
        text = {"Content-Type": "text/plain"}
        for method, place, more in (
            ("GET", f"{target}#fragment", {}),
            ("GET", f"{target}&{'x' * 9000}", {}),
            ("GET", f"http://localhost{target}", {}),
            ("GET", f"http://other{target}", {}),
            ("G ET", target, {}),
            ("GET", target, {"Host": "a b"}),
            ("GET", target, {"X-Long": "x" * 40_000}),
            ("POST", target, {"Content-Length": "x"}),
            ("POST", target, {"Content-Encoding": "gzip"} | text),
            ("PUT", target, {"Stream-Forked-From": target} | text),
            ("PUT", target, {"Stream-TTL": query or "x"} | text),
            ("GET", target, {"Last-Event-ID": query or "x"}),
            ("GET", target, {"Forwarded": query or "x"}),
            ("GET", target, {"Traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 {query}"}),
        ):
            self.ask(daemon, method, place, headers | more)
        if headers:
            [(name, value)] = list(headers.items())[:1]
            self.ask(daemon, "GET", target, {name: f"{value}\r\n{name}: {value}"})

    def follow_until_the_end(self, daemon: Daemon) -> None:
        """Follow a stream by a URL that expires."""
        query = sign(self.secrets.key, "read", b"public/b", int(time.time()) + 2)
        self.secrets.known["signature of the tail"] = query[-43:]
        with closing(daemon.get(f"{BASE}public/b?offset=-1&live=sse&{query}")) as connection:
            self.answers.append(read_until(connection, b"\r\n0\r\n\r\n"))

    def scrape(self, daemon: Daemon) -> bytes:
        with closing(daemon.dial()) as connection:
            head = (
                f"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
            )
            connection.sendall(head.encode())
            return _read(connection)

    def test_no_credential_is_shown_anywhere(self) -> None:
        with self.daemon() as daemon:
            auth = {"Authorization": f"Bearer {self.secrets.token}", "Content-Type": "text/plain"}
            for name in ("public/a", "jwt/a", "a%20b"):
                self.ask(daemon, "PUT", BASE + name, auth, b"stored")
            self.ask_everything(daemon)
            self.ask(daemon, "PUT", f"{BASE}public/b", auth, b"stored")
            self.ask(daemon, "GET", f"{BASE}public/b?offset=0", auth, BODY.encode())
            self.follow_until_the_end(daemon)
            metrics = self.scrape(daemon)
            daemon.process.send_signal(signal.SIGHUP)
            log = self.folder / "server.log"
            wait_for(lambda: '"Reloaded' in log.read_text(), "the reload")
            self.assertEqual(0, daemon.stop())
            wait_for(lambda: bool(self.collector.received), "the traces")
            everything = {
                "the log": log.read_bytes(),
                "twistd's output": daemon.log().encode(),
                "the audit log": (self.folder / "audit.jsonl").read_bytes(),
                "the metrics": metrics,
                "the traces": self.collector.received,
                "an answer": b"\n".join(self.answers),
            }
        self.check_that_much_happened(everything)
        for where, text in everything.items():
            self.assertNotIn(b"Traceback", text, where)
            for what, secret in self.secrets.known.items():
                self.assertGreater(len(secret), 12, what)
                at = text.find(secret.encode())
                self.assertEqual(-1, at, f"{where} has the {what}: {text[max(0, at - 300) : at + 60]!r}")
        self.assertNotIn(BODY.encode(), everything["the log"] + everything["the audit log"] + everything["the traces"])

    def check_that_much_happened(self, everything: dict[str, bytes]) -> None:
        """Check that requests were accepted and refused by each kind of credential, and recorded everywhere."""
        answers = everything["an answer"]
        for status in (200, 201, 204, 400, 401, 403, 404, 405, 414, 431):
            self.assertIn(b"HTTP/1.1 %d " % status, answers)
        audit = [json.loads(line) for line in everything["the audit log"].splitlines()]
        allowed = {(line.get("kind"), line["allowed"]) for line in audit if line["event"] == "request"}
        for kind in ("token", "jwt", "signed-url", "anonymous"):
            self.assertIn((kind, True), allowed, allowed)
        # Denials over 20 in a second are recorded in one line.
        left_out = {reason for line in audit if line["event"] == "denials_left_out" for reason in line["reasons"]}
        self.assertTrue((None, False) in allowed or "credentials" in left_out, (allowed, left_out))
        for text in ("the log", "the traces"):
            self.assertGreater(everything[text].count(b"public/a"), 100)
        for metric in (b"durable_streams_denials_total{", b'durable_streams_authentications_total{method="signed-url"'):
            self.assertIn(metric, everything["the metrics"])


def _read(connection: socket.socket) -> bytes:
    """Read until the connection ends, however that is."""
    received = bytearray()
    connection.settimeout(PATIENCE)
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)
