"""The pages for operators of a daemon: its file of tokens, and refusals to start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, TWISTD, Daemon, environment, free_port

OLD = "0123456789abcdef-old"
NEW = "0123456789abcdef-new"


class TokenFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.write(OLD)

    def write(self, token: str) -> None:
        self.path.write_text(token + "\n")
        self.path.chmod(0o600)

    def status(self, daemon: Daemon, token: str | None) -> int:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return daemon.request("GET", "/admin/streams", None, **headers)[0]

    def reloaded(self, daemon: Daemon, line: str) -> None:
        daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while line not in daemon.log() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertIn(line, daemon.log())

    def test_tokens_are_required_reloaded_and_never_logged(self) -> None:
        with Daemon(
            admin__enabled="true",
            admin__token_file=str(self.path),
            observability__log_level="debug",
            observability__access_log="all",
        ) as daemon:
            self.assertEqual([self.status(daemon, token) for token in (None, NEW, OLD)], [401, 401, 200])
            self.write(NEW)
            self.reloaded(daemon, "Reloaded admin.token_file; number of tokens: 1.")
            self.assertEqual([self.status(daemon, token) for token in (NEW, OLD)], [200, 401])
            self.path.chmod(0o644)
            self.reloaded(daemon, f"its mode is 0644. Run: chmod 600 {self.path}")
            self.assertEqual(self.status(daemon, NEW), 200)
            daemon.stop()
            for token in (OLD, NEW):
                self.assertNotIn(token, daemon.log())

    def test_a_token_file_that_others_can_read_stops_the_start(self) -> None:
        self.path.chmod(0o640)
        message = self.refusal(admin__token_file=str(self.path))
        self.assertEqual(
            f"[validate_config] admin.token_file: Other users may use {self.path}: its mode is 0640. "
            f"Run: chmod 600 {self.path}\n",
            message,
        )

    def test_pages_that_other_machines_reach_without_tokens_stop_the_start(self) -> None:
        message = self.refusal(server__bind_address="0.0.0.0:0")
        self.assertTrue(message.startswith("[validate_config] admin.token_file must be the path of a file "), message)

    def refusal(self, **settings: str) -> str:
        ended = subprocess.run(
            TWISTD,
            env=environment(free_port(), admin__enabled="true", **settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(ended.returncode, 1)
        return ended.stderr


class LocalTests(SynchronousTestCase):
    def test_without_tokens_the_pages_are_for_this_machine_and_no_proxy_on_it(self) -> None:
        with Daemon(admin__enabled="true") as daemon:
            self.assertEqual(daemon.request("GET", "/admin/streams")[0], 200)
            self.assertEqual(daemon.request("GET", "/admin/streams", x_forwarded_for="192.0.2.1")[0], 403)
            self.assertEqual(daemon.request("GET", "/admin/streams", host="streams.example")[0], 403)
            self.assertEqual(daemon.request("GET", "/healthz", host="streams.example")[0], 200)


class ImportTests(SynchronousTestCase):
    """On a real reactor, with threads and temporary files, and streams on disk."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.spool = Path(folder.name, "spool")
        self.spool.mkdir()
        # It is inherited by the daemon.
        self.patch(os, "environ", os.environ | {"TMPDIR": str(self.spool)})
        daemon = Daemon(
            admin__enabled="true",
            storage__mode="file-durable",
            storage__data_dir=str(Path(folder.name, "data")),
            limits__max_total_bytes=10**9,
            limits__max_stream_bytes=10**9,
        )
        self.daemon = daemon.__enter__()
        self.addCleanup(daemon.close)

    def document(self, streams: int, size: int) -> bytes:
        """Make a document with ten messages in each stream."""
        config = {"content_type": "text/plain", "ttl_seconds": None, "expires_at": None, "created_closed": False}
        message = {"offset": "0", "data_base64": b64encode(b"x" * size).decode()}
        entry = {
            "config": config,
            "closed": False,
            "created_at": "2026-01-01T00:00:00Z",
            "total_bytes": 0,
            "message_count": 10,
            "next_offset": "0",
            "messages": [message] * 10,
        }
        made = [{"name": f"s{number}", **entry} for number in range(streams)]
        head = {"format_version": 1, "exported_at": "2026-01-01T00:00:00Z", "server_version": "0"}
        return json.dumps({**head, "streams": made}).encode()

    def names(self) -> list[str]:
        return [stream["name"] for stream in json.loads(self.daemon.request("GET", "/admin/streams")[2])]

    def test_a_document_is_imported_and_exported_and_nothing_is_left_of_it(self) -> None:
        document = self.document(30, 100_000)
        status, _, body = self.daemon.request("POST", "/admin/import", document)
        self.assertEqual((status, json.loads(body)["messages_imported"]), (200, 300))
        self.assertEqual(len(self.names()), 30)
        status, _, body = self.daemon.request("GET", "/admin/export")
        exported = json.loads(body)["streams"]
        self.assertEqual([each["message_count"] for each in exported], [10] * 30)
        self.assertEqual(
            {each["data_base64"] for stream in exported for each in stream["messages"]},
            {b64encode(b"x" * 100_000).decode()},
        )
        self.assertEqual(list(self.spool.iterdir()), [])
        self.assertEqual(self.daemon.stop(), 0)

    def test_a_connection_that_is_cut_during_the_body_leaves_nothing_and_the_next_import_runs(self) -> None:
        document = self.document(30, 100_000)
        with socket.create_connection(("127.0.0.1", self.daemon.port), PATIENCE) as client:
            client.sendall(
                b"POST /admin/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(document)
            )
            client.sendall(document[: len(document) // 2])
        deadline = time.monotonic() + PATIENCE
        status = 409
        while status == 409 and time.monotonic() < deadline:
            self.assertEqual(self.names(), [])
            # While the other one still runs, this may be answered, and closed, before it has sent all.
            with contextlib.suppress(OSError):
                status, _, _ = self.daemon.request("POST", "/admin/import", document)
        self.assertEqual((status, len(self.names())), (200, 30))
        self.assertEqual(self.daemon.stop(), 0)

    def test_a_stop_during_an_import_is_clean(self) -> None:
        document = self.document(200, 30_000)
        with socket.create_connection(("127.0.0.1", self.daemon.port), PATIENCE) as client:
            client.sendall(
                b"POST /admin/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(document)
            )
            client.sendall(document[:-1])
            self.daemon.process.send_signal(signal.SIGTERM)
            client.sendall(document[-1:])
            self.assertEqual(self.daemon.process.wait(40), 0)
        self.assertNotIn("Traceback", self.daemon.log())
