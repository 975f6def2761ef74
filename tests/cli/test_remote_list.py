"""The command ``list --url``: the streams of a running server."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.canned_server import CannedServer
from tests.support.commands import run_command
from tests.support.daemon import Daemon, free_port
from tests.support.tls_daemon import Certificates, TLSDaemon

_TOKEN = "0123456789abcdef0123"
_ENTRY = (
    b'{"name":"a","closed":false,"message_count":2,"total_bytes":5,"content_type":"text/plain",'
    b'"created_at":"2026-11-30T12:00:00Z","updated_at":null,"ttl_seconds":null,"expires_at":null,"later":1}'
)


class RunningServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.admin_port = free_port()
        self.daemon = self.enterContext(
            Daemon(admin__enabled="true", admin__bind_address=f"127.0.0.1:{self.admin_port}")
        )
        self.daemon.create("chat/1", "application/json", b'[{"a":1}]')
        self.daemon.create("chat/2", body=b"hello")
        self.daemon.request("PUT", "/v1/stream/log", b"x", content_type="text/plain", stream_ttl="60")
        self.daemon.request("POST", "/v1/stream/log", b"", stream_closed="true")
        self.base = f"http://127.0.0.1:{self.admin_port}/admin"

    def enterContext(self, daemon: Daemon) -> Daemon:  # type: ignore[override]
        self.addCleanup(daemon.close)
        return daemon.__enter__()

    def listed(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        ended = run_command("list", *arguments)
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        return ended

    def test_the_table_is_that_of_a_data_directory(self) -> None:
        for url in (f"{self.base}/streams", self.base, f"{self.base}/", f"http://127.0.0.1:{self.admin_port}"):
            lines = self.listed("--url", url).stdout.decode().splitlines()
            self.assertRegex(lines[2], r"^chat/1 {25}open {14}[-1] {10}8 B application/json ")
            self.assertRegex(lines[4], r"^log {28}closed ")
            self.assertEqual(["", "3 stream(s) total"], lines[5:])

    def test_json_has_the_fields_of_a_local_list(self) -> None:
        streams = json.loads(self.listed("--json", "--url", self.base).stdout)
        self.assertEqual(["chat/1", "chat/2", "log"], [stream["name"] for stream in streams])
        log = streams[2]
        self.assertEqual(
            [
                *("name", "status", "message_count", "total_bytes", "content_type", "created_at", "updated_at"),
                *("ttl_seconds", "expires_at"),
            ],
            list(log),
        )
        self.assertEqual(("closed", 1, 60), (log["status"], log["total_bytes"], log["ttl_seconds"]))
        self.assertRegex(log["created_at"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00$")

    def test_a_prefix_chooses_streams(self) -> None:
        streams = json.loads(self.listed("--json", "--prefix", "chat/", "--url", self.base).stdout)
        self.assertEqual(["chat/1", "chat/2"], [stream["name"] for stream in streams])

    def test_the_servers_settings_are_not_read(self) -> None:
        self.listed("--url", self.base, "--config", "/nowhere")

    def test_a_wrong_path_is_a_failure_that_names_the_settings(self) -> None:
        ended = run_command("list", "--url", f"{self.base}x/streams")
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertIn(b"the server answered 404: ", ended.stderr)
        self.assertIn(b"admin.base_path", ended.stderr)

    def test_a_url_without_a_scheme_is_a_usage_error_that_says_what_to_write(self) -> None:
        ended = run_command("list", "--url", f"127.0.0.1:{self.admin_port}")
        self.assertEqual((2, b""), (ended.returncode, ended.stdout))
        self.assertIn(f"Write http://127.0.0.1:{self.admin_port} or https://".encode(), ended.stderr)


class UnixSocketTests(SynchronousTestCase):
    def test_a_server_on_a_unix_socket_is_asked(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/streams.sock"
            port = free_port()
            listen = f"tcp:{port}:interface=127.0.0.1,unix:{path}"
            with Daemon(port, admin__enabled="true", server__listen=listen) as daemon:
                daemon.create("chat/1", body=b"hello")
                ended = run_command("list", "--json", "--url", f"unix:{path}")
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        self.assertEqual(["chat/1"], [stream["name"] for stream in json.loads(ended.stdout)])


class TokenTests(SynchronousTestCase):
    def test_a_token_is_needed_where_the_server_has_a_file_of_tokens(self) -> None:
        file = Path(self.mktemp()).absolute()
        file.write_text(f"# of the nightly backup\n\n{_TOKEN}\n{_TOKEN[::-1]}\n")
        file.chmod(0o600)
        with Daemon(admin__enabled="true", admin__token_file=str(file)) as daemon:
            url = f"http://127.0.0.1:{daemon.port}/admin/streams"
            refused = run_command("list", "--url", url)
            self.assertEqual((1, b""), (refused.returncode, refused.stdout))
            self.assertIn(b"the server answered 401: ", refused.stderr)
            self.assertIn(b"Give a token with --token-file FILE or DS_TOKEN.", refused.stderr)
            for arguments, settings in (
                (("--token", _TOKEN), {}),
                (("--token-file", str(file)), {}),
                ((), {"token": _TOKEN}),
            ):
                ended = run_command("list", "--url", url, *arguments, **settings)
                self.assertEqual((0, b"No streams found.\n", b""), (ended.returncode, ended.stdout, ended.stderr))
            wrong = run_command("list", "--url", url, "--token", "fedcba98765432100000")
            self.assertEqual(1, wrong.returncode)
            self.assertNotIn(b"fedcba", wrong.stderr)

    def test_what_cannot_be_a_token_is_refused_without_being_shown(self) -> None:
        file = Path(self.mktemp())
        file.write_text("two words hush\n")
        for arguments in (("--token", "two words hush"), ("--token-file", str(file)), ("--token", "")):
            ended = run_command("list", "--url", "http://127.0.0.1:1/", *arguments)
            self.assertEqual((1, b""), (ended.returncode, ended.stdout))
            self.assertIn(b"has no token", ended.stderr)
            self.assertNotIn(b"hush", ended.stderr)

    def test_options_that_exclude_each_other_are_usage_errors(self) -> None:
        file = Path(self.mktemp())
        file.write_text(_TOKEN)
        for arguments in (("--token", "x", "--token-file", str(file)), ("--key", str(file)), ("--ca", "/nowhere")):
            ended = run_command("list", "--url", "http://127.0.0.1:1/", *arguments)
            self.assertEqual((2, b""), (ended.returncode, ended.stdout), ended.stderr)


class TlsTests(SynchronousTestCase):
    def test_certificates_are_verified_and_shown(self) -> None:
        certificates = Certificates()
        self.addCleanup(certificates.clean_up)
        with TLSDaemon(certificates, "mtls", admin__enabled="true", http__allow_wildcard_cors="true") as daemon:
            url = f"{daemon.url}/admin/streams"
            own = ("--cert", certificates.client, "--key", certificates.client_key)
            ended = run_command("list", "--url", url, "--ca", certificates.ca, *own)
            self.assertEqual((0, b"No streams found.\n", b""), (ended.returncode, ended.stdout, ended.stderr))
            for arguments in (("--ca", certificates.ca), own):
                ended = run_command("list", "--url", url, *arguments)
                self.assertEqual((1, b""), (ended.returncode, ended.stdout))
                self.assertTrue(ended.stderr.startswith(b"Error: "), ended.stderr)
                self.assertNotIn(b"Traceback", ended.stderr)


class OtherAnswerTests(SynchronousTestCase):
    def outcome(self, *arguments: str, url: str) -> tuple[int, str, str]:
        ended = run_command("list", "--url", url, *arguments)
        self.assertNotIn(b"Traceback", ended.stderr)
        return ended.returncode, ended.stdout.decode(), ended.stderr.decode()

    def test_a_json_array_of_another_server_is_read_too(self) -> None:
        body = b"[\n  " + b",\n".join([_ENTRY] * 3) + b"]"
        head = f"HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: {len(body)}"
        with CannedServer(head, body) as server:
            status, out, err = self.outcome("--json", url=server.url)
        self.assertEqual((0, ""), (status, err))
        self.assertEqual(["a", "a", "a"], [stream["name"] for stream in json.loads(out)])
        self.assertEqual((2, None), (json.loads(out)[0]["message_count"], json.loads(out)[0]["updated_at"]))
        self.assertEqual("2026-11-30T12:00:00+00:00", json.loads(out)[0]["created_at"])
        self.assertTrue(server.requests[0].startswith(b"GET /admin/streams HTTP/1.1\r\n"))

    def test_a_refusal_is_a_failure_with_the_status_and_the_body(self) -> None:
        for status, kind, body, shown in (
            ("403 Forbidden", "text/plain", b"Not you.\x1b[31m", "the server answered 403: Not you."),
            ("500 Oh", "application/problem+json", b'{"detail":"It broke."}', "the server answered 500: It broke."),
            ("302 Found\nLocation: http://other.example/", "text/html", b"", "redirects to http://other.example/"),
        ):
            with CannedServer(f"HTTP/1.1 {status}\nContent-Type: {kind}\nContent-Length: {len(body)}", body) as server:
                code, out, err = self.outcome(url=server.url)
            self.assertEqual((1, ""), (code, out))
            self.assertIn(shown, err)
            self.assertNotIn("\x1b", err)

    def test_an_answer_that_is_no_list_is_a_failure(self) -> None:
        for kind, body in (
            ("text/html", b"<html>"),
            ("application/json", b'{"a":1}'),
            ("application/json", b'[{"name":1}]'),
            ("application/json", b"[" + _ENTRY),
            ("application/x-ndjson", b"\xff\n"),
            ("application/x-ndjson", b"x" * 2_000_000),
            ("application/json", b'["' + b"x" * 2_000_000),
        ):
            head = f"HTTP/1.1 200 OK\nContent-Type: {kind}\nContent-Length: {len(body)}"
            with CannedServer(head, body) as server:
                code, out, err = self.outcome(url=server.url)
            self.assertEqual((1, ""), (code, out), body[:40])
            self.assertTrue(err.startswith("Error: The answer is no list of streams: "), err)

    def test_an_answer_that_is_broken_off_is_a_failure(self) -> None:
        head = "HTTP/1.1 200 OK\nContent-Type: application/x-ndjson\nContent-Length: 100000"
        with CannedServer(head, _ENTRY + b"\n") as server:
            code, out, err = self.outcome(url=server.url)
        self.assertEqual(1, code)
        self.assertNotIn("total", out)
        self.assertIn("connection", err)

    def test_no_server_is_a_failure(self) -> None:
        code, out, err = self.outcome(url=f"http://127.0.0.1:{free_port()}/admin/streams")
        self.assertEqual((1, ""), (code, out))
        self.assertIn("connection refused", err)

    def test_a_url_that_is_none_is_a_usage_error(self) -> None:
        for url in ("localhost:4437", "ftp://localhost/", "http://user:pass@localhost/"):
            code, out, err = self.outcome(url=url)
            self.assertEqual((2, ""), (code, out))
            self.assertIn("URL", err)
