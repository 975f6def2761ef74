"""The command ``export --url``: a document of a running server."""

from __future__ import annotations

import json
import subprocess
import tempfile
from base64 import b64decode
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.canned_server import CannedServer
from tests.support.commands import run_command
from tests.support.daemon import Daemon


class RemoteExportTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "out.json"

    def export(self, url: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        return run_command("export", "--url", url, *arguments)

    def test_the_document_of_a_server_is_that_of_its_directory(self) -> None:
        directory = self.folder / "data"
        settings = {"storage__mode": "file-durable", "storage__data_dir": str(directory)}
        with Daemon(None, admin__enabled="true", **settings) as daemon:
            daemon.create("chat/1", "application/json", b'[{"a":1},2]')
            daemon.create("log", body=b"x" * 300_000)
            daemon.append("log", b"y")
            url = f"http://127.0.0.1:{daemon.port}/admin/streams"
            ended = self.export(url)
            self.assertEqual((0, b""), (ended.returncode, ended.stderr))
            remote = json.loads(ended.stdout)
            ended = self.export(url, "-o", self.path)
            self.assertEqual(
                (0, b"", b"Exported 2 stream(s) with 4 message(s)\n"), (ended.returncode, ended.stdout, ended.stderr)
            )
            self.assertEqual(remote["streams"], json.loads(self.path.read_bytes())["streams"])
            ended = self.export(url, "-o", self.path, "--json", "--stream", "log", "--stream", "none")
            warning = b"Warning: of the streams named by --stream, 1 of 2 exist. The others are left out.\n"
            self.assertEqual((0, warning), (ended.returncode, ended.stderr))
            self.assertEqual(
                {"streams_exported": 1, "messages_exported": 2, "bytes_exported": 300_001}, json.loads(ended.stdout)
            )
            [stream] = json.loads(self.path.read_bytes())["streams"]
            self.assertEqual(b"y", b64decode(stream["messages"][1]["data_base64"]))
            self.assertEqual(0, daemon.stop())
        local = run_command("export", **settings)
        self.assertEqual(0, local.returncode, local.stderr)
        self.assertEqual(remote["streams"], json.loads(local.stdout)["streams"])

    def test_a_document_that_is_broken_off_is_a_failure_and_leaves_no_file(self) -> None:
        with CannedServer("HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 1000", b"{") as server:
            ended = self.export(server.url, "-o", self.path)
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertTrue(ended.stderr.startswith(b"export failed: http://127.0.0.1:"), ended.stderr)
        self.assertIn(b"connection broke", ended.stderr)
        self.assertEqual([], list(self.folder.iterdir()))
        self.assertTrue(server.requests[0].startswith(b"GET /admin/export HTTP/1.1\r\n"))

    def test_a_refusal_is_a_failure_and_leaves_the_old_file(self) -> None:
        self.path.write_text("old")
        with CannedServer("HTTP/1.1 503 Busy\nContent-Type: text/plain\nContent-Length: 6", b"Later.") as server:
            ended = self.export(server.url, "-o", self.path, "--stream", "a b&c")
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertEqual(f"export failed: {server.url}: the server answered 503: Later.\n", ended.stderr.decode())
        self.assertEqual(("old", ["out.json"]), (self.path.read_text(), [path.name for path in self.folder.iterdir()]))
        self.assertIn(b"/admin/export?stream=a+b%26c ", server.requests[0])
